"""What somebody who watches a panel at work is told, event by event. Times in seconds since it was asked."""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

__all__ = ["Asked", "Began", "Ended", "Event", "Routed", "Watch", "Wrote"]


class Asked(Struct, frozen=True):
    """A call that is planned: see `types.Call`."""

    expert: str
    source: str
    stage: int
    probability: float
    share: float
    method: str
    samples: int


class Routed(Struct, frozen=True, tag_field="event", tag="routed"):
    """Who is to be asked: the panel by stages, and who stands in where all of it fails. See `types.Route`."""

    policy: str
    strategy: str
    section: str
    best_single: str
    expected_accuracy: float
    expected_cost_usd: float
    expected_latency_s: float
    calls: tuple[Asked, ...]
    reserve: tuple[str, ...]


class Began(Struct, frozen=True, tag_field="event", tag="began"):
    """A call is made. `call` numbers calls in the order of asking, from 0.

    `hedges` names the expert whose call is slow to start, where this one was made beside it.
    """

    call: int
    expert: str
    source: str
    stage: int
    method: str
    hedges: str | None
    at_s: float


class Wrote(Struct, frozen=True, tag_field="event", tag="wrote"):
    """A piece of the answer of a call."""

    call: int
    text: str


class Ended(Struct, frozen=True, tag_field="event", tag="ended"):
    """How a call ended: see `types.Answer`. `lost`: of a call and its hedge, the other began first."""

    call: int
    status: str
    declined: bool
    error: str | None
    ttft_s: float | None
    seconds: float
    cost_usd: float
    completion_tokens: int
    lost: bool


Event: TypeAlias = Routed | Began | Wrote | Ended

Watch: TypeAlias = Callable[[Event], None]
"""Is told of each event when it happens. It must neither wait nor raise."""
