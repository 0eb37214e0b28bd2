"""Cards with the ratings that the ledger makes of them. Reads; judges nobody."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from manyminds.errors import LedgerError
from manyminds.ledger import Ledger
from manyminds.ratings import WINDOWS, Rated, Ratings, rate
from manyminds.types import Card

__all__ = ["Recent", "beside", "rated"]

_MOST = 100_000  # calls, and grades: more of them say little more
_KEPT_S = 5.0  # for which ratings are shown again: many may look, and 100,000 calls take a moment

log = logging.getLogger(__name__)


class Recent:
    """Ratings as they were a few seconds ago, or are now.

    Args:
        read: makes them of these cards' experts, by name. It may raise LedgerError.
    """

    def __init__(self, read: Callable[[Sequence[Card]], Awaitable[Mapping[str, Ratings]]]) -> None:
        self._read = read
        self._reading = asyncio.Lock()
        self._found: Mapping[str, Ratings] = {}
        self._until_s = 0.0

    async def of(self, cards: Sequence[Card]) -> Mapping[str, Ratings]:
        """By name; nothing while the ledger is away."""
        async with self._reading:
            now_s = time.monotonic()
            if now_s >= self._until_s:
                try:
                    self._found = await self._read(cards)
                except LedgerError as error:
                    log.error("%s", error)
                    self._found = {}
                self._until_s = now_s + _KEPT_S
            return self._found

    def forget(self) -> None:
        """They are read anew when they are asked for."""
        self._until_s = 0.0


def rated(ledger: Ledger, cards: Sequence[Card]) -> dict[str, Ratings]:
    """By name. Blocks, for a fraction of a second. Raises: LedgerError."""
    windows = list(WINDOWS.values())
    return rate(cards, ledger.calls(windows, _MOST), ledger.grades(windows, _MOST))


def beside(card: Card, ratings: Ratings | None, drifted_utc: str | None, *, paused: bool = False) -> Rated:
    """The card with what was measured."""
    fields = msgspec.structs.asdict(card)
    return Rated(**fields, ratings=ratings, drifted_utc=drifted_utc, paused=paused)
