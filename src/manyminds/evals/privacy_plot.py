"""The picture of private answers: accuracy by number of answers and epsilon, a panel for each population.

Reads what `manyminds eval DIR --private --json` printed; does not know how it was measured.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from manyminds.evals.plots import rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_COLOURS: Final = ("#c2410c", "#6d28d9", "#047857")  # by epsilon, the smallest first
_INK, _BEST, _VOTE = "#1f2937", "#1d4ed8", "#6b7280"


def draw(result: Mapping[str, Any]) -> dict[str, bytes]:
    """The picture as {"png": ..., "svg": ...}. Raises: DataError where matplotlib is not installed."""
    return rendered(lambda: _figure(result))


def _figure(result: Mapping[str, Any]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    populations = result["populations"]
    drawn = Figure((3.1 * len(populations), 3.4), dpi=144, layout="constrained")
    FigureCanvasAgg(drawn)
    every = drawn.subplots(1, len(populations), sharey=True, squeeze=False)[0]
    for axes, population in zip(every, populations, strict=True):
        _panel(axes, population, result["best_single"])
    every[0].set_ylabel("accuracy of what is released, %")
    every[-1].legend(fontsize=7, frameon=False, loc="lower left")
    drawn.suptitle(
        f"{result['set']}: private answers, {result['n_test']:,} questions, delta {result['delta']:g} in all",
        fontsize=10,
        color=_INK,
    )
    return drawn


def _panel(axes: "Axes", population: Mapping[str, Any], best: Mapping[str, Any]) -> None:
    axes.axhline(100 * best["accuracy"][0], color=_BEST, lw=1, ls="--", label="best single model")
    axes.axhline(100 * population["without_noise"][0], color=_VOTE, lw=1, ls=":", label="without noise")
    for colour, epsilon in zip(
        _COLOURS, sorted({row["epsilon"] for row in population["released"]}), strict=True
    ):
        rows = [row for row in population["released"] if row["epsilon"] == epsilon]
        x = [row["answers"] for row in rows]
        y, low, high = ([100 * row["accuracy"][i] for row in rows] for i in range(3))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(x, y, color=colour, lw=1.5, label=f"epsilon {epsilon:g}")
        for served, marker in ((True, "o"), (False, "x")):
            points = [(a, b) for a, b, row in zip(x, y, rows, strict=True) if row["refused"] != served]
            if points:
                axes.plot(*zip(*points, strict=True), marker, color=colour, ms=5)
    axes.set_xscale("log")
    every = sorted({row["answers"] for row in population["released"]})
    axes.set_xticks(every, [f"{answers:,}" for answers in every])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("answers that it is for")
    axes.set_title(_title(population["population"]), fontsize=9, color=_INK)
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)


def _title(name: str) -> str:
    return name.replace(", weighted", ",\nweighted") + " sources" * ("weighted" not in name)
