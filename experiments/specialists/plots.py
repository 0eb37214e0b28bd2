"""The results as pictures: quality of every arm, and against what it takes. Measures nothing."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["draw"]

_INK: Final = "#1f2937"
_COLOURS: Final = {
    "domain": "#c2410c",
    "cluster": "#b45309",
    "random": "#6b7280",
    "gated": "#0f766e",
    "dense-small": "#1d4ed8",
    "dense-large": "#4338ca",
    "more-large": "#7c3aed",
}
_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "manyminds",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Two SVG files, the same bytes for the same results. Raises: OSError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(_STYLE):
        for name, of in (("quality", _quality), ("pareto", _pareto)):
            figure = Figure(figsize=(8.0, 6.0 if name == "quality" else 4.0), layout="constrained")
            of(figure, found)
            held = io.BytesIO()
            figure.savefig(held, format="svg", metadata={"Date": None})
            paths.append(folder / f"specialists-{name}.svg")
            paths[-1].write_bytes(held.getvalue())
    return paths


def _quality(figure: Any, found: Mapping[str, Any]) -> None:
    axes, rows = figure.subplots(), list(reversed(found["quality"]))
    for place, row in enumerate(rows):
        test = row["test"]
        apart = [[test["mean"] - test["low"]], [test["high"] - test["mean"]]]
        axes.errorbar([test["mean"]], [place], xerr=apart, fmt="o", color=_COLOURS[row["arm"]], capsize=2)
    for row in rows:
        if row["way"] == "alone":
            axes.axvline(row["test"]["mean"], color=_COLOURS[row["arm"]], linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [f"{row['arm']}, {row['way']}" for row in rows])
    axes.set_xlabel("bits a byte of held-out texts, with 95% interval: less is better", color=_INK)


def _pareto(figure: Any, found: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    cpu = {(row["arm"], row["way"]): row["write_cpu_s_per_kb"]["median"] for row in found["speed"]}
    shown = set()
    for row in found["quality"]:
        bits, arm = row["test"]["mean"], row["arm"]
        label = None if arm in shown else arm
        shown.add(arm)
        left.plot([row["active_parameters"]], [bits], "o", color=_COLOURS[arm], label=label)
        if (arm, row["way"]) in cpu:
            right.plot([cpu[arm, row["way"]]], [bits], "o", color=_COLOURS[arm])
            right.annotate(
                row["way"],
                (cpu[arm, row["way"]], bits),
                textcoords="offset points",
                xytext=(4, 3),
                fontsize=6,
            )
    left.set_xscale("log")
    right.set_xscale("log")
    left.set_xlabel("weights that an answer uses")
    right.set_xlabel("CPU seconds for a kilobyte written")
    left.set_ylabel("bits a byte: less is better")
    left.legend(fontsize=7, frameon=False)
