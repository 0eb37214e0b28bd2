"""Tells who watches a panel what happens to its calls. Knows no task and no wire format."""

from manyminds.types import Answer, Asked, Began, Call, Chunk, Ended, Route, Routed, Watch, Wrote

__all__ = ["Watched", "routed"]


def routed(route: Route) -> Routed:
    """What is planned."""
    calls = (
        Asked(c.expert, c.source, c.stage, c.probability, c.share, c.method, c.samples) for c in route.calls
    )
    return Routed(
        *(route.policy, route.strategy, route.section, route.best_single),
        *(route.expected_accuracy, route.expected_cost_usd, route.expected_latency_s),
        *(tuple(calls), tuple(call.expert for call in route.reserve)),
    )


class Watched:
    """One call that somebody watches.

    Args:
        watch: is told.
        number: which call of the request it is, from 0.
    """

    __slots__ = ("_number", "_watch")

    def __init__(self, watch: Watch, number: int) -> None:
        self._watch = watch
        self._number = number

    def began(self, call: Call, beside: str | None, at_s: float) -> None:
        self._watch(Began(self._number, call.expert, call.source, call.stage, call.method, beside, at_s))

    def wrote(self, chunk: Chunk) -> None:
        if chunk.text:
            self._watch(Wrote(self._number, chunk.text))

    def ended(self, answer: Answer, *, lost: bool) -> None:
        error, usage = answer.error.message if answer.error else None, answer.usage
        figures = (answer.ttft_s, answer.seconds, usage.cost_usd, usage.completion_tokens)
        self._watch(Ended(self._number, answer.status, answer.declined, error, *figures, lost))
