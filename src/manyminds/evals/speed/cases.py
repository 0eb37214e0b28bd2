"""What the gateways are asked: bodies, connections, and the upstream's models that answer them.

A model's name says how the upstream answers: see `benchmarks/gateway/upstream.c`. Every body has a number
that the load generator counts up, so that no two requests are equal and no cache can answer.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from manyminds.evals.speed.targets import Model
from manyminds.evals.speed.tools import Load

__all__ = [
    "FANOUT",
    "FUSE",
    "FUSER",
    "PASSES",
    "PASS_MODELS",
    "VOTER",
    "Case",
    "drafters",
    "voters",
]

_SYSTEM: Final = "You are a helpful assistant."
_QUESTION: Final = "Tell me about networks of small neural networks, briefly. #0000000000"
_OPTIONS: Final = "Which colour is the sky at noon? #0000000000\nA) red\nB) blue\nC) green\nD) white"
_LONG: Final = "All work and no play makes a dull gateway. " * 760  # 33 KB
_WHOLE: Final = "mock"
_BURST: Final = "mock-n100"
_PACED: Final = "mock-n100-p10000"
_VOTES_AFTER_MS: Final = 5
_DRAFTS: Final = 50
_DRAFT_AFTER_MS: Final = 20  # the first; each of the others a millisecond after the one before


@dataclass(frozen=True, slots=True)
class Case:
    """One way of loading a target. A stream is counted by its chunks, and timed by their delay."""

    name: str
    load: Load
    stream: bool = False


def _body(model: str, question: str = _QUESTION, system: str = _SYSTEM, **more: Any) -> bytes:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {"model": model, **more, "messages": messages, "temperature": 0.7}
    return json.dumps(body, separators=(",", ":")).encode()


PASSES: Final = (
    Case("pass_1", Load(_body(_WHOLE), 1)),
    Case("pass_64", Load(_body(_WHOLE), 64)),
    Case("pass_64_33kb", Load(_body(_WHOLE, system=_SYSTEM + " " + _LONG), 64)),
    Case("burst_16", Load(_body(_BURST, stream=True), 16), stream=True),
    Case("paced_64", Load(_body(_PACED, stream=True), 64), stream=True),
)
"""One model: whole answers, a long prompt, and streams of 100 chunks, all at once or 10 ms apart."""

PASS_MODELS: Final = tuple(Model(name, name) for name in (_WHOLE, _BURST, _PACED))
"""Whom `PASSES` ask."""

FANOUT: Final = tuple(
    Case(f"fanout8_{connections}", Load(_body("max", _OPTIONS, manyminds={"panel": 8}), connections))
    for connections in (1, 16)
)
"""A question with options to eight voters: how long one takes, and what it takes when many are asked."""

VOTER: Final = Case("voter", Load(_body(f"mock-d{_VOTES_AFTER_MS}-o1", _OPTIONS), 1))
"""What a vote waits for."""

FUSE: Final = Case(
    "fuse50_1",
    Load(_body("max", stream=True, manyminds={"strategy": "fuse", "panel": _DRAFTS}), 1),
    stream=True,
)
"""Fifty drafts, and one answer streamed from them."""

_FUSER: Final = "mock-d20-p2000-n50"

FUSER: Final = Case("fuser", Load(_body(_FUSER, stream=True), 1), stream=True)
"""What then writes it, asked alone."""


def voters() -> list[Model]:
    """Eight, who all choose B at the same moment."""
    return [Model(f"voter-{i}", f"mock-d{_VOTES_AFTER_MS}-o1-x{i}") for i in range(1, 9)]


def drafters() -> tuple[list[Model], Case]:
    """Fifty who draft and, dearer and so never on their panel, one who fuses; the slowest of the fifty."""
    names = [f"mock-d{_DRAFT_AFTER_MS + i}-n12-x{i}" for i in range(1, _DRAFTS + 1)]
    drafting = [Model(f"drafter-{i}", name) for i, name in enumerate(names, 1)]
    slowest = Case("slowest", Load(_body(names[-1], stream=True), 1), stream=True)
    return [Model("a-fuser", _FUSER, price_usd_per_m=1.0), *drafting], slowest
