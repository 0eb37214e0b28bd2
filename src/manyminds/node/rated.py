"""Cards with the ratings that the ledger makes of them. Reads; judges nobody."""

from collections.abc import Sequence

import msgspec

from manyminds.ledger import Ledger
from manyminds.ratings import WINDOWS, Rated, Ratings, rate
from manyminds.types import Card

__all__ = ["beside", "rated"]

_MOST = 100_000  # calls, and grades: more of them say little more


def rated(ledger: Ledger, cards: Sequence[Card]) -> dict[str, Ratings]:
    """By name. Blocks, for a fraction of a second. Raises: LedgerError."""
    windows = list(WINDOWS.values())
    return rate(cards, ledger.calls(windows, _MOST), ledger.grades(windows, _MOST))


def beside(card: Card, ratings: Ratings | None, drifted_utc: str | None) -> Rated:
    """The card with what was measured."""
    return Rated(**msgspec.structs.asdict(card), ratings=ratings, drifted_utc=drifted_utc)
