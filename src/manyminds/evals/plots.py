"""The picture of a result: accuracy against cost, every model labelled, as PNG and SVG.

Reads what `manyminds eval DIR --json` printed; does not know how it was measured. Lengths on the picture
are in points (1/72 inch), boxes are (x0, y0, x1, y1), segments (x, y, x, y).
"""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from manyminds.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Baselines",
    "Best",
    "Entry",
    "Oracle",
    "Point",
    "Result",
    "draw",
    "figure",
    "place",
    "read",
    "rendered",
]

_Floats: TypeAlias = NDArray[np.float64]
_Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Dollars: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]

_INK, _NEAR, _FAR, _NETWORK, _BEST = "#1f2937", "#6b7280", "#8f96a3", "#c2410c", "#1d4ed8"
_FAR_BELOW = 0.1  # accuracy under the best model of the same price
_SHADE = "#f6f7f9"
_DPI = 144
_NAME = 48  # characters of a label
_LABELS = 120  # at most: nobody reads more, and time grows with their square
_PAD = np.array([3.0, 1.5])  # white around a label

# Where a label may be, as points from what it names, and what it costs there, in the same unit.
_RINGS = np.array([4.0, 7, 11, 16, 22, 29, 37, 46, 57, 70, 86, 105, 130])
_ANGLES = np.arange(24) * (math.pi / 12)
_ON_LABEL, _ON_LEADER, _ON_LINE, _ON_MARKER, _NEAR_MARKER = 200, 60, 100, 30, 8
_AROUND = np.array([-3.0, -3, 3, 3])
_NO_ROOM = 1e4
_SWEEPS, _KICKS, _WORST, _NEIGHBOURS = 6, 16, 6, 10


# --- what is read ----------------------------------------------------------------------------------


class Point(msgspec.Struct, frozen=True):
    """Accuracy as a share, and US dollars for 1,000 questions; None where the set has no cost."""

    accuracy: _Share
    cost_usd_per_1k: _Dollars | None


class Best(Point, frozen=True):
    """The best single model, chosen before the test."""

    model: str


class Entry(Point, frozen=True):
    """One point of the picture: a single model, or the network at one setting."""

    name: str
    kind: Literal["model", "network"]


class Oracle(msgspec.Struct, frozen=True):
    """Right wherever any model is right. It has no cost: nobody can run it."""

    accuracy: _Share


class Baselines(msgspec.Struct, frozen=True):
    """Of what the network is compared with, the part that is drawn."""

    oracle: Oracle


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a result that is drawn. A policy is None where the set cannot measure it."""

    set: str
    models: int
    n_test: int
    best_single: Best
    baselines: Baselines
    max: Point | None
    cheap: Point | None
    auto: Point | None
    fast: Point | None
    frontier: tuple[Entry, ...]
    category: str | None = None
    exclude: tuple[str, ...] = ()

    @property
    def singles(self) -> list[Entry]:
        """The single models."""
        return [entry for entry in self.frontier if entry.kind == "model"]

    @property
    def network(self) -> list[Point]:
        """All that the network can do, and the model it is measured against."""
        settings = (entry for entry in self.frontier if entry.kind == "network")
        return [*settings, *self.policies.values(), self.best_single]

    @property
    def policies(self) -> dict[str, Point]:
        """Those that the set could measure."""
        named = {"max": self.max, "cheap": self.cheap, "auto": self.auto, "fast": self.fast}
        return {name: point for name, point in named.items() if point is not None}


def read(path: Path) -> Result:
    """Raises: DataError when the file cannot be read or is no result that has a frontier and a cost."""
    again = "write it anew with `manyminds eval DIR --json > RESULT.json`."
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {again}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no result of an evaluation ({error}): {again}") from error
    if not result.singles:
        raise DataError(f"{path} has no model in its frontier: {again}")
    if not any(entry.cost_usd_per_1k for entry in result.frontier):
        raise DataError(
            f"{path} has no cost above zero, so there is nothing to draw accuracy against:"
            " evaluate a set whose answers have cost_usd."
        )
    return result


# --- where labels go -------------------------------------------------------------------------------


def place(anchors: _Floats, sizes: _Floats, markers: _Floats, lines: _Floats, bounds: _Floats) -> _Floats:
    """Lower left corners (n, 2) of labels of `sizes` (n, 2) for `anchors` (n, 2), n > 0; NaN: no room.

    A label lies inside `bounds` (4,) and covers no box of `markers` (m, 4) and no other label; it stays off
    `lines` (k, 4) and off the others' leaders where it can. Greedy in the order given; then, time and
    again, one of the worst is placed anew before its neighbours, and what is better stays (iterated local
    search). O(n (n + m + k)) each time. Deterministic.
    """
    choices = [_candidates(*label, markers, lines, bounds) for label in zip(anchors, sizes, strict=True)]
    everyone = np.arange(len(choices))
    placed, paid = _sweep(choices, np.full((len(choices), 8), np.nan), everyone)
    random = np.random.default_rng(0)
    for kick in range(_KICKS):
        worst = np.argsort(-paid, kind="stable")[kick % min(_WORST, len(choices))]
        near = np.argsort(((anchors - anchors[worst]) ** 2).sum(1), kind="stable")[:_NEIGHBOURS]
        bare = placed.copy()
        bare[near] = np.nan
        order = np.concatenate([[worst], random.permutation(near), everyone])
        again, price = _sweep(choices, bare, order)
        if price.sum() < paid.sum():
            placed, paid = again, price
    return placed[:, :2]


def _sweep(
    choices: Sequence[tuple[_Floats, _Floats, _Floats]], placed: _Floats, order: NDArray[np.intp]
) -> tuple[_Floats, _Floats]:
    """Moves each label in turn to its cheapest place, until none moves.

    `placed`: (n, 8), box and leader of each, NaN without a place; returns the like, and what each costs.
    """
    placed, paid = placed.copy(), np.full(len(choices), _NO_ROOM)
    boxes, leaders = placed[:, :4], placed[:, 4:]  # views; NaN overlaps and crosses nothing
    for _ in range(_SWEEPS):
        before = placed.copy()
        for i in order:
            spots, ties, prices = choices[i]
            placed[i] = np.nan
            price = prices + _ON_LABEL * (_hits(leaders, spots).sum(0) + _hits(ties, boxes).sum(1))
            price += _ON_LEADER * _crossings(ties, leaders).sum(1)
            price[_overlaps(spots, boxes).any(1)] = np.inf
            paid[i] = min(price.min(initial=np.inf), _NO_ROOM)
            if paid[i] < _NO_ROOM:
                boxes[i], leaders[i] = spots[price.argmin()], ties[price.argmin()]
        if np.array_equal(placed, before, equal_nan=True):
            break
    return placed, paid


def _candidates(
    anchor: _Floats, size: _Floats, markers: _Floats, lines: _Floats, bounds: _Floats
) -> tuple[_Floats, _Floats, _Floats]:
    """Boxes (c, 4) around a point that cover no marker, their leaders (c, 4), and what they cost (c,)."""
    rings, angles = (grid.ravel() for grid in np.meshgrid(_RINGS, _ANGLES))
    around = np.stack([np.cos(angles), np.sin(angles)], 1)
    corners = anchor + rings[:, None] * around + (np.clip(1.7 * around, -1, 1) - 1) * size / 2
    boxes = np.hstack([corners, corners + size])
    ends = np.clip(anchor, boxes[:, :2], boxes[:, 2:])
    ties = np.hstack([np.broadcast_to(anchor, ends.shape), ends])
    price = rings + 1.5 - 1.5 * around[:, 0] + abs(around[:, 1])  # on the right is read most easily
    price += _ON_LINE * (2 * _hits(lines, boxes).sum(0) + 0.25 * _crossings(ties, lines).sum(1))
    foreign = markers[~((markers[:, :2] <= anchor) & (anchor <= markers[:, 2:])).all(1)]
    price += _ON_MARKER * _hits(ties, foreign).sum(1)
    price += _NEAR_MARKER * _overlaps(boxes + _AROUND, foreign).sum(1)  # may seem to name that one
    inside = (boxes[:, :2] >= bounds[:2]).all(1) & (boxes[:, 2:] <= bounds[2:]).all(1)
    free = inside & ~_overlaps(boxes, markers).any(1)
    return boxes[free], ties[free], price[free]


def _overlaps(one: _Floats, other: _Floats) -> NDArray[np.bool_]:
    """Boxes (a, 4) with boxes (b, 4): (a, b)."""
    left, low, right, high = one.T[:, :, None]
    x0, y0, x1, y1 = other.T[:, None]
    return np.asarray((left < x1) & (x0 < right) & (low < y1) & (y0 < high))


def _hits(segments: _Floats, boxes: _Floats) -> NDArray[np.bool_]:
    """Segments (s, 4) through boxes (b, 4): (s, b). Liang and Barsky 1984."""
    (x, y), way = segments.T[:2, :, None], segments.T[2:, :, None] - segments.T[:2, :, None]
    across, up = np.where(abs(way) < 1e-9, 1e-9, way)
    x0, y0, x1, y1 = boxes.T[:, None]
    left, right, low, high = (x0 - x) / across, (x1 - x) / across, (y0 - y) / up, (y1 - y) / up
    enter = np.maximum(np.minimum(left, right), np.minimum(low, high))
    leave = np.minimum(np.maximum(left, right), np.maximum(low, high))
    return np.asarray((enter < leave) & (enter < 1) & (leave > 0))


def _crossings(one: _Floats, other: _Floats) -> NDArray[np.bool_]:
    """Segments (a, 4) with segments (b, 4): (a, b). Each has its ends on both sides of the other."""
    ax, ay, bx, by = one.T[:, :, None]
    cx, cy, dx, dy = other.T[:, None]
    across, up, over, rise = bx - ax, by - ay, dx - cx, dy - cy
    split = (across * (cy - ay) - up * (cx - ax)) * (across * (dy - ay) - up * (dx - ax)) < 0
    return np.asarray(
        split & ((over * (ay - cy) - rise * (ax - cx)) * (over * (by - cy) - rise * (bx - cx)) < 0)
    )


# --- what is drawn ---------------------------------------------------------------------------------


def draw(result: Result) -> dict[str, bytes]:
    """The picture as {"png": ..., "svg": ...}: same result, same bytes under one version of matplotlib.

    Raises: DataError where matplotlib is not installed.
    """
    return rendered(lambda: figure(result))


def rendered(make: Callable[[], "Figure"]) -> dict[str, bytes]:
    """What `make` draws, as {"png": ..., "svg": ...}. Raises: as `draw`."""
    pictures = {}
    with _style():
        drawn = make()
        for kind, undated in (("png", "Software"), ("svg", "Date")):
            file = io.BytesIO()
            drawn.savefig(file, format=kind, metadata={undated: None})
            pictures[kind] = file.getvalue()
    return pictures


def figure(result: Result) -> "Figure":
    """The picture, of matplotlib. Permuting the frontier permutes nothing. Raises: as `draw`."""
    with _style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        scale = _Scale(result)
        marks = _marks(result, scale)
        width = 8 + min(len(marks), 80) / 20
        height = 0.68 * width
        drawn = Figure((width, height), dpi=_DPI)
        FigureCanvasAgg(drawn)
        axes = drawn.add_axes((0.7 / width, 0.65 / height, 1 - 0.9 / width, 1 - 1.45 / height))
        _draw_axes(axes, scale)
        path = _draw_lines(axes, result, scale)
        _draw_marks(axes, marks, scale)
        unnamed = _draw_labels(axes, marks, scale, path)
        rest = f"; {unnamed} without a label, for want of room" if unnamed else ""
        title = f"{_what(result)}: {result.models} models, {result.n_test:,} test questions{rest}"
        heading = drawn.text(0.7 / width, 1 - 0.3 / height, title, size=11, weight="bold", color=_INK)
        room = (width - 0.9) * _DPI / heading.get_window_extent().width
        heading.set_fontsize(11 * min(1.0, room))
        corner = (0.6 / width, 1 - 0.38 / height)
        look: dict[str, Any] = {"frameon": False, "fontsize": 7.5, "columnspacing": 1.2, "handletextpad": 0.3}
        drawn.legend(loc="upper left", bbox_to_anchor=corner, ncols=6, labelcolor=_INK, **look)
    return drawn


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib as it is by default, whatever this user's own settings are. Raises: DataError without it."""
    try:
        from matplotlib import style
    except ImportError as error:
        raise DataError("drawing needs matplotlib: pip install 'manyminds[eval]'.") from error
    ours = {"svg.hashsalt": "manyminds", "text.parse_math": False, "axes.unicode_minus": False}
    with style.context(["default", ours]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        yield


class _Scale:
    """Where a point is drawn.

    x is log10 of the dollars, with columns at the left edge for what is free or of unknown cost. y is
    accuracy in per cent. Where the worst tenth of the models would squeeze all else together, it goes to
    a row below the scale.
    """

    def __init__(self, result: Result) -> None:
        costs = {point.cost_usd_per_1k for point in [*result.singles, *result.network]}
        logs = [math.log10(cost) for cost in costs if cost]
        self.span = max(max(logs) - min(logs), 0.6)
        self.low = (max(logs) + min(logs) - self.span) / 2
        names = [(cost, name) for cost, name in ((None, "cost\nunknown"), (0.0, "free")) if cost in costs]
        self.columns = {
            cost: (self.low - 0.12 * self.span * i, name) for i, (cost, name) in enumerate(names, 1)
        }
        self.xlim = (self.low - (0.05 + 0.12 * len(names)) * self.span, self.low + 1.05 * self.span)
        models = sorted(model.accuracy for model in result.singles)
        rest = [point.accuracy for point in result.network]
        low, top = min(models[0], *rest), max(models[-1], *rest, result.baselines.oracle.accuracy)
        self.oracle = 100 * result.baselines.oracle.accuracy
        floor = min(models[len(models) // 10], *rest)
        self.floor = floor if top - floor < 0.8 * (top - low) else low
        room = max(6 * (top - self.floor), 0.5)
        self.row = 100 * self.floor - 1.6 * room
        self.edge = 100 * self.floor - 0.9 * room  # of that row
        self.ylim = (100 * self.floor - (2.3 if low < self.floor else 1) * room, 100 * top + room)

    def __call__(self, point: Point) -> tuple[float, float]:
        cost = point.cost_usd_per_1k
        x = math.log10(cost) if cost else self.columns[cost][0]
        return x, self.row if self.below(point) else 100 * point.accuracy

    def below(self, point: Point) -> bool:
        return point.accuracy < self.floor

    @property
    def ticks(self) -> dict[float, str]:
        """At most about ten: 1, 2 and 5 of each decade where they are few, else every so many decades."""
        digits = (1, 2, 5) if self.span < 3 else (1,)
        decades = range(math.floor(self.low), math.ceil(self.low + self.span) + 1, 1 + int(self.span / 10))
        found = {math.log10(d) + decade: float(f"{d}e{decade}") for decade in decades for d in digits}
        inside = (x for x in found if self.low - 0.04 * self.span <= x <= self.xlim[1])
        return {x: f"${found[x]:,.0f}" if 1 <= found[x] < 1e7 else f"${found[x]:g}" for x in inside}


@dataclass(frozen=True, slots=True)
class _Mark:
    """A labelled point and its look."""

    point: Point
    label: str
    colour: str
    legend: str
    shape: str = "o"
    area: float = 14.0  # of the marker, in square points
    size: float = 7.0  # of the letters

    @property
    def weight(self) -> str:
        return "bold" if self.size > 7 else "normal"


def _marks(result: Result, scale: _Scale) -> list[_Mark]:
    """All that has a label, the most important first."""
    names: dict[Point, list[str]] = {}
    for name, point in result.policies.items():
        names.setdefault(point, []).append(name)
    labels = [(point, f"{', '.join(equal)} {point.accuracy:.1%}") for point, equal in names.items()]
    marks = [_Mark(*label, _NETWORK, "policy", "o", 42, 9) for label in labels]
    best = result.best_single
    label = f"{_shown(best.model)} {best.accuracy:.1%}"
    marks.append(_Mark(best, label, _BEST, "best single model", "D", 46, 8))
    others = [(_behind(entry, result.singles), entry) for entry in result.singles if entry.name != best.model]
    for gap, entry in sorted(others, key=lambda pair: (-pair[1].accuracy, pair[1].name)):
        colour = _INK if not gap else _NEAR if gap < _FAR_BELOW else _FAR
        legend = "other model" if gap else "model that no cheaper one beats"
        label, shape = _shown(entry.name), "o"
        if scale.below(entry):
            label, shape, legend = f"{label} {entry.accuracy:.1%}", "v", "below the scale"
        marks.append(_Mark(entry, label, colour, legend, shape))
    return marks


def _behind(entry: Entry, models: Sequence[Entry]) -> float:
    """How far a model is under the best of those that cost no more; an unknown cost counts as the highest."""

    def cost(model: Entry) -> float:
        return math.inf if model.cost_usd_per_1k is None else model.cost_usd_per_1k

    return max(model.accuracy for model in models if cost(model) <= cost(entry)) - entry.accuracy


def _shown(name: str) -> str:
    """A name as one short line: it comes from a file that anybody may have written."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _what(result: Result) -> str:
    """The set, and the part of it that was evaluated."""
    part = f", category {_shown(result.category)}" if result.category else ""
    without = f", without {_shown(', '.join(result.exclude))}" if result.exclude else ""
    return f"{_shown(result.set)}{part}{without}"


def _draw_axes(axes: "Axes", scale: _Scale) -> None:
    axes.set_xlim(*scale.xlim)
    axes.set_ylim(*scale.ylim)
    axes.set_yticks([y for y in axes.get_yticks() if 100 * scale.floor <= y <= min(scale.ylim[1], 100)])
    ticks = scale.ticks | dict(scale.columns.values())
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("cost of 1,000 questions, USD (log scale)", size=9, color=_INK)
    axes.set_ylabel("accuracy, %", size=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK, length=3)
    axes.grid(color="#eef0f3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if scale.row > scale.ylim[0]:
        axes.axhspan(scale.ylim[0], scale.edge, color=_SHADE, zorder=0)
    for x, _ in scale.columns.values():
        axes.axvspan(x - 0.05 * scale.span, x + 0.05 * scale.span, color=_SHADE, zorder=0)


def _draw_lines(axes: "Axes", result: Result, scale: _Scale) -> _Floats:
    """The network's line and the oracle's; returns the points (k, 2) of the former, in axes' units."""
    network = [e for e in result.frontier if e.kind == "network" and e.cost_usd_per_1k is not None]
    path = np.array(sorted(map(scale, network))).reshape(-1, 2)
    look: dict[str, Any] = {"color": _NETWORK, "linewidth": 1.6, "marker": "o", "markersize": 2.5}
    axes.plot(*path.T, zorder=3, label="network", **look)
    oracle = scale.oracle
    axes.plot(scale.xlim, [oracle] * 2, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
    words = f"oracle {oracle:.1f}%"
    axes.text(scale.xlim[1], oracle, words, size=8, color=_INK, ha="right", va="bottom")
    return path


def _draw_marks(axes: "Axes", marks: Sequence[_Mark], scale: _Scale) -> None:
    legends: set[str] = set()
    for mark in marks:
        look: dict[str, Any] = {
            "marker": mark.shape,
            "markersize": math.sqrt(mark.area),
            "color": mark.colour,
        }
        legend = None if mark.legend in legends else mark.legend
        axes.plot(*scale(mark.point), linestyle="", markeredgewidth=0, zorder=4, label=legend, **look)
        legends.add(mark.legend)


def _draw_labels(axes: "Axes", marks: Sequence[_Mark], scale: _Scale, path: _Floats) -> int:
    """Labels with their leaders; returns for how many there was no room."""
    from matplotlib.collections import LineCollection
    from matplotlib.transforms import Affine2D

    points = Affine2D().scale(1 / 72) + axes.figure.dpi_scale_trans  # the unit of all that follows
    to_points = axes.transData + points.inverted()
    dots = to_points.transform(path)
    ends = to_points.transform([(x, scale.oracle) for x in scale.xlim])
    lines = np.vstack([np.hstack([dots[:-1], dots[1:]]), ends.ravel()])
    anchors = to_points.transform([scale(mark.point) for mark in marks])
    radii = np.sqrt([[mark.area] for mark in marks]) / 2 + 1
    walls = [np.asarray(text.get_window_extent().extents) * 72 / _DPI for text in axes.texts]  # the oracle's
    walls += [*np.hstack([anchors - radii, anchors + radii]), *np.hstack([dots - 2, dots + 2])]
    texts = [
        axes.text(0, 0, m.label, color=m.colour, size=m.size, weight=m.weight, va="bottom", transform=points)
        for m in marks[:_LABELS]
    ]
    anchors, radii = anchors[:_LABELS], radii[:_LABELS, 0]
    sizes = np.array([text.get_window_extent().size for text in texts]) * 72 / _DPI + _PAD
    corners = place(anchors, sizes, np.array(walls), lines, np.asarray(axes.bbox.extents) * 72 / _DPI)
    leaders = []
    for text, anchor, radius, corner, size in zip(texts, anchors, radii, corners, sizes, strict=True):
        if np.isnan(corner[0]):
            text.remove()
            continue
        text.set_position(corner + _PAD / 2)
        end = np.clip(anchor, corner, corner + size)
        if math.dist(anchor, end) > radius + 3:
            leaders.append((anchor, end))
    drawn = LineCollection(leaders, colors=_FAR, linewidths=0.5, zorder=2.5, transform=points)
    axes.add_collection(drawn, autolim=False)
    return len(marks) - int(np.isfinite(corners[:, 0]).sum())
