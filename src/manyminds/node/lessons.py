"""What a node learns from its ledger: grades of any time, and calls that other gateways made.

Reads; the router decides what comes of it. Each outcome counts once, whoever wrote it.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence

from manyminds.errors import AlreadyGradedError, UnknownRequestError
from manyminds.experts.asked import variant
from manyminds.ledger import Grade, Ledger
from manyminds.router import SkillRouter
from manyminds.router.grades import GRADES
from manyminds.types import Outcome

__all__ = ["Lessons", "drifted", "is_learnt", "warn"]

_UNDER_WAY_S = 10.0  # that a transaction takes at most, in which a place was given that is not seen yet
_UNDER_WAY = 1000  # places that all of them together may be about to fill when a node starts
_CALLS = 2000  # of other gateways at the start, which for most experts are more than are remembered
_MORE_CALLS = 256  # at once, later on

log = logging.getLogger(__name__)


class Lessons:
    """`read` says what is new; in one thread at a time.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._graded, self._heard = _Bookmark(), _Bookmark()

    def read(self) -> tuple[list[Outcome], list[Outcome]]:
        """What was graded, and calls that were heard of, since it last read. Raises: LedgerError."""
        graded = self._ledger.graded(self._graded.after, GRADES)
        last = graded[-1].place if graded else 0
        fresh = self._graded.new(graded, last, self._clock())
        most = _MORE_CALLS if self._heard.after else _CALLS
        last, heard = self._ledger.heard(self._heard.after, most)
        return fresh, self._heard.new(heard, last, self._clock())

    def reread(self) -> None:
        """Grades are read from the start again: for experts that are new."""
        self._graded = _Bookmark()


def is_learnt(kept: Grade, request_id: str) -> bool:
    """Whether the router learns from a grade of that request, by what became of it.

    Raises: UnknownRequestError, AlreadyGradedError: it was not kept.
    """
    if kept == "unknown":
        raise UnknownRequestError(
            f"No request of yours has the id {request_id!r:.80}: send the reply's x-request-id, with the "
            "same key.",
            param="request_id",
        )
    if kept == "twice":
        raise AlreadyGradedError(f"The answer to {request_id} has been graded: once is what counts.")
    return kept == "learnt"


def drifted(router: SkillRouter, experts: Collection[str]) -> dict[str, str]:
    """Those that are worse than they were, in whatever way they are asked; since when, in UTC."""
    since = {name: utc for name, utc in router.drifted.items() if name in experts}
    for name, utc in router.drifted.items():
        if (made := variant(name)) is not None and made[0] in experts:
            since[made[0]] = max(utc, since.get(made[0], utc))
    return since


def warn(router: SkillRouter, fell: Sequence[str]) -> None:
    """Says in the log who has become worse."""
    for name in fell:
        log.warning(
            "%s has changed for the worse since %s: of how right it is, what was known before no longer "
            "counts.",
            name,
            router.standing(name).drifted_utc,
        )


class _Bookmark:
    """How far a log was read. What is read twice since a place may come late is passed on once."""

    def __init__(self) -> None:
        self.after = 0  # read from here on; below the first place at the start
        self._marks: deque[tuple[float, int]] = deque()  # when a place was the last
        self._seen: set[tuple[int, str, str]] = set()

    def new(self, outcomes: Sequence[Outcome], last: int, now_s: float) -> list[Outcome]:
        """Those that were not among the outcomes before. `last` is how far the log goes; 0 is as before."""
        named = {(o.place, o.request_id, o.expert): o for o in outcomes}
        fresh = [outcome for name, outcome in named.items() if name not in self._seen]
        self._seen |= named.keys()
        if not self.after:
            self.after = last - _UNDER_WAY
        elif last:
            self._marks.append((now_s, last))
        while self._marks and now_s - self._marks[0][0] >= _UNDER_WAY_S:
            self.after = max(self.after, self._marks.popleft()[1])
            self._seen = {name for name in self._seen if name[0] > self.after}
        return fresh
