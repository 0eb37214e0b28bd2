"""Between nodes: who they are, what they say of themselves, and how they ask one another.

identity > card > ask > frames > receipt: keys, claims, questions, answers, and what both sides sign of them.
`http` and `zenoh` carry these and understand none of it. docs/protocol.md is their specification.
"""

from importlib.util import find_spec

from manyminds.errors import ConfigError

__all__ = ["need"]


def need() -> None:
    """Raises: ConfigError where what nodes sign and seal with is not installed."""
    if find_spec("cryptography") is None or find_spec("rfc8785") is None:
        raise ConfigError("Whatever goes between nodes needs more: pip install 'manyminds[net]'.")
