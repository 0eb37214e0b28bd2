"""Several routes as one, in which each expert is asked where those before it fail. Pure."""

from collections.abc import Sequence

from msgspec.structs import replace

from manyminds.types import Call, Route

__all__ = ["in_order"]


def in_order(routes: Sequence[Route]) -> Route:
    """The likeliest of the first route, in reserve the rest of it and then those of the others, each once.

    Whoever begins to answer has answered. `routes` are not empty, nor is any of them.
    """
    asked: dict[str, Call] = {}
    for route in routes:
        for call in sorted(route.everyone, key=lambda call: -call.probability):
            asked.setdefault(call.expert, Call(call.expert, call.source, call.probability, prior=call.prior))
    first, *others = asked.values()
    return replace(
        routes[0],
        strategy="race",
        calls=(replace(first, share=1.0),),
        reserve=tuple(others),
        quorum=None,
        fuser=None,
        threshold=1.0,
    )
