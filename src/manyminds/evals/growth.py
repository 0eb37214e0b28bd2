"""Draws how a network grows: accuracy against the number of models that have come. Knows no set."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from manyminds.errors import DataError

__all__ = ["draw", "growth"]

_THIN, _WIDE = 0.8, 2.0


def growth(run: Sequence[Mapping[str, Any]], first: int) -> list[tuple[int, float]]:
    """Models and accuracy on test, from the first network, of so many models, to the last."""
    return [(first, run[0]["before"]), *((i, step["after"]) for i, step in enumerate(run, first + 1))]


def draw(result: Mapping[str, Any], name: str, form: str) -> bytes:
    """A picture of one result of `hydra.measure`: a line for every order, and their mean.

    `form` is svg or png. Raises: DataError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("Plots need matplotlib: pip install 'manyminds[eval]'.") from error
    lines = [growth(run, result["first"]) for run in result["runs"]]
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        axes.plot(*zip(*line, strict=True), color="0.75", linewidth=_THIN)
    models = [count for count, _ in lines[0]]
    mean = [sum(line[i][1] for line in lines) / len(lines) for i in range(len(models))]
    axes.plot(models, mean, color="C0", linewidth=_WIDE, label=f"mean of {len(lines)} orders")
    axes.axhline(result["all_at_once"], color="C1", linestyle="--", label="learnt from all at once")
    axes.set(xlabel="models that have come", ylabel="accuracy on test", title=name)
    axes.legend(loc="lower right", frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format=form, dpi=150)
    return buffer.getvalue()
