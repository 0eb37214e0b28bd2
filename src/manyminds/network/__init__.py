"""Between nodes: who they are, what they say of themselves, and how they ask one another.

identity > card > ask > frames > receipt: keys, claims, questions, answers, and what both sides sign of them.
`http` and `zenoh` carry these and understand none of it. docs/protocol.md is their specification.
"""

__all__: list[str] = []
