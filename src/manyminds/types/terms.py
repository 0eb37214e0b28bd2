"""The nouns of control and privacy: what an owner allows, what was granted, what a private answer says."""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

__all__ = ["FREE", "Bound", "Granted", "Period", "Privacy", "Terms"]

Period: TypeAlias = Literal["day", "month", "total"]
"""How long a budget lasts, in UTC."""


class Terms(Struct, frozen=True):
    """What a source's owner allows. Who asks holds to it, and the owner's own node refuses who does not.

    Attributes:
        purposes: what answers may be for, a word each; empty is anything.
        callers: who may be answered: names or ids of keys, or ids of nodes, as globs; empty is anybody.
        max_share: of what an answer owes to all sources, the most that it may owe to this one, in [0, 1].
        budget_nats: how far this source may move all answers of a period together, as `attribution` has it.
        period: of `budget_nats`.
        requests_per_min: how often it may be asked; None is as often as anybody likes.
        epsilon, delta: what all private answers together may tell of it; None is what the node says.
    """

    purposes: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    max_share: float = 1.0
    budget_nats: float | None = None
    period: Period = "month"
    requests_per_min: int | None = None
    epsilon: float | None = None
    delta: float | None = None

    @property
    def binds(self) -> bool:
        """Whether it limits what the source may do to an answer, not only who is answered."""
        return self.max_share < 1.0 or self.budget_nats is not None


FREE: Final = Terms()
"""Anybody may ask, for anything."""


class Bound(Struct, frozen=True):
    """How far one source may move one answer: by its terms, and by what was granted of its budget."""

    nats: float | None = None  # None is any distance
    max_share: float = 1.0
    least_nats: float = 0.0  # with fewer, the answer is of no use


class Granted(Struct, frozen=True, omit_defaults=True):
    """What was agreed for one answer with one source that has terms, or that the caller named.

    Attributes:
        wish: what the caller wants of it: require, weight, or nothing in particular.
        nats: how far it might move the answer; None where that is not limited.
        max_share: the most that the answer might owe to it.
        weight: what its votes were multiplied by, so that both hold.
        refused: why it was not asked.
    """

    source: str
    wish: Literal["", "require", "weight"] = ""
    purpose: str = ""
    nats: float | None = None
    max_share: float = 1.0
    weight: float = 1.0
    refused: str = ""


class Privacy(Struct, frozen=True):
    """All that is told of a private answer: what it reveals of any one source that was polled.

    `epsilon` and `delta` are of this answer alone (event level); see docs/privacy.md.
    """

    epsilon: float
    delta: float
    polled: int
