"""How experts did of late, beside what their cards claim. Pure: rows in, ratings out; knows no ledger."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from msgspec import Struct

from manyminds.types import Card

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["WINDOWS", "CallRow", "GradeRow", "Rated", "Rating", "Ratings", "Section", "rate"]

WINDOWS: Final = MappingProxyType(
    {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
)
"""Over how long a rating goes, up to now: shortest first."""

_SECTIONS = 20  # that are shown, those with most graded answers
_OTHERS_FAULT = ("RefusedError",)  # what was asked could not be answered: no fault of whoever says so


CallRow: TypeAlias = tuple[int, str, str, str | None, float | None, float, int, int, float, float | None]
"""A call: window, expert, status, kind of error, ttft_s, seconds, prompt_tokens, completion_tokens, cost_usd,
claimed_usd. A window is the place in `WINDOWS` of the shortest that it is in."""

GradeRow: TypeAlias = tuple[int, str, str, float]
"""What somebody who knew said of an answer: window, expert, section, correct."""


class Section(Struct, frozen=True):
    """How right an expert was on questions about one thing."""

    section: str  # "" where it is not known what they were about
    accuracy: float
    graded: int


class Rating(Struct, frozen=True):
    """How an expert did in one window. None where nothing was measured."""

    calls: int = 0
    uptime: float | None = None  # share that it did not fail, of calls that nobody cancelled
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tokens_per_s_p50: float | None = None
    tokens_per_s_p95: float | None = None
    usd_per_m: float | None = None  # paid for a million tokens, read and written
    claimed_usd_per_m: float | None = None  # by its card's prices
    charged_ratio: float | None = None  # over what its card makes of its answers by a count of our own
    errors: Mapping[str, int] = {}  # by kind
    accuracy: float | None = None
    graded: int = 0
    sections: tuple[Section, ...] = ()


class Ratings(Struct, frozen=True):
    """One for each of `WINDOWS`."""

    hour: Rating = Rating()
    day: Rating = Rating()
    week: Rating = Rating()


class Rated(Card, frozen=True, kw_only=True):
    """A card, and beside its claims what was measured."""

    ratings: Ratings | None = None  # None where the ledger is away
    drifted_utc: str | None = None  # since when it has been worse than before, if it has
    paused: bool = False  # asked by nobody until it is resumed


def rate(cards: Sequence[Card], calls: Sequence[CallRow], grades: Sequence[GradeRow]) -> dict[str, Ratings]:
    """The ratings of every card's expert, by name. O(n log n) in the rows."""
    columns = _Columns(calls)
    said: dict[str, list[GradeRow]] = {}
    for row in grades:
        said.setdefault(row[1], []).append(row)
    found = {}
    for card in cards:
        own = said.get(card.name, ())
        found[card.name] = Ratings(
            *(_rating(card, columns, [row for row in own if row[0] <= i], i) for i in range(len(WINDOWS)))
        )
    return found


class _Columns:
    """The calls, a column at a time; a figure that is missing is NaN."""

    def __init__(self, calls: Sequence[CallRow]) -> None:
        told: Sequence[Sequence[Any]] = list(zip(*calls, strict=True)) or [()] * 10
        window, experts, status, error, *figures = told
        self.ends = Counter(zip(experts, window, status, error, strict=True))
        self.window = np.array(window, np.int64)
        self.ttft_s, self.seconds, self.read, self.written, self.cost_usd, self.claimed_usd = (
            np.array(column, np.float64) for column in figures
        )
        self._place = {name: i for i, name in enumerate(dict.fromkeys(experts))}
        places = np.fromiter(map(self._place.__getitem__, experts), np.int64, len(experts))
        self._order = np.argsort(places, kind="stable")
        self._begin = np.searchsorted(places[self._order], np.arange(len(self._place) + 1))

    def of(self, expert: str, window: int) -> "NDArray[np.int64]":
        """Positions of an expert's calls in a window."""
        if (place := self._place.get(expert)) is None:
            return np.empty(0, np.int64)
        mine = self._order[self._begin[place] : self._begin[place + 1]]
        return mine[self.window[mine] <= window]


def _rating(card: Card, of: _Columns, grades: Sequence[GradeRow], window: int) -> Rating:
    rows, ended, failed = of.of(card.name, window), 0, 0
    errors: dict[str, int] = {}
    for (expert, place, status, error), count in of.ends.items():
        if expert != card.name or place > window or status == "cancelled":
            continue
        ended += count
        failed += count if status != "ok" and error not in _OTHERS_FAULT else 0
        if error is not None:
            errors[error] = errors.get(error, 0) + count
    ttft_s, generating_s = of.ttft_s[rows], of.seconds[rows] - of.ttft_s[rows]
    timed = (of.written[rows] > 1.0) & (generating_s > 0.0)
    speeds = (of.written[rows][timed] - 1.0) / generating_s[timed]
    read, written, cost_usd = of.read[rows].sum(), of.written[rows].sum(), of.cost_usd[rows].sum()
    billed = rows[~np.isnan(of.claimed_usd[rows])]
    claimed_usd = card.price_usd(int(read), int(written), float(of.seconds[rows].sum()))
    return Rating(
        calls=len(rows),
        uptime=1.0 - failed / ended if ended else None,
        ttft_p50_s=_quantile(ttft_s, 0.5),
        ttft_p95_s=_quantile(ttft_s, 0.95),
        tokens_per_s_p50=_quantile(speeds, 0.5),
        tokens_per_s_p95=_quantile(speeds, 0.95),
        usd_per_m=_ratio(1e6 * cost_usd, read + written),
        claimed_usd_per_m=_ratio(1e6 * claimed_usd, read + written),
        charged_ratio=_ratio(of.cost_usd[billed].sum(), of.claimed_usd[billed].sum()),
        errors=dict(sorted(errors.items())),
        accuracy=math.fsum(row[3] for row in grades) / len(grades) if grades else None,
        graded=len(grades),
        sections=_sections(grades),
    )


def _sections(grades: Sequence[GradeRow]) -> tuple[Section, ...]:
    by_section: dict[str, list[float]] = {}
    for _, _, section, correct in grades:
        by_section.setdefault(section, []).append(correct)
    found = [Section(name, math.fsum(said) / len(said), len(said)) for name, said in by_section.items()]
    return tuple(sorted(found, key=lambda section: (-section.graded, section.section))[:_SECTIONS])


def _quantile(values: "Floats", share: float) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.quantile(known, share)) if known.size else None


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0.0 else None
