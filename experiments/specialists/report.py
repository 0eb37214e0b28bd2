"""The results of `run.experiment` as tables for a terminal. Measures nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["show"]


def show(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints what was measured; less is better in every table."""
    out = console or Console()
    if found["scale"]["name"] == "quick":
        out.print(
            "A quick run, with models too small and too briefly trained to say anything: no figure to quote."
        )
    _table(
        out,
        "Bits a byte",
        ("arm", "asked", "weights", "active", "a domain", "95%", "switching", "below dense-small"),
        _quality(found["quality"]),
    )
    domains = sorted(found["texts"].keys() & found["quality"][0]["test"]["by_domain"].keys())
    rows = [
        [q["arm"], q["way"], *(f"{q['test']['by_domain'][d]:.3f}" for d in domains)] for q in found["quality"]
    ]
    _table(out, "Bits a byte, by domain", ("arm", "asked", *domains), rows)
    _table(
        out,
        "Training, a seed",
        ("arm", "models", "operations", "bytes seen", "CPU s", "longest of them"),
        _training(found["training"]),
    )
    _table(
        out,
        "Speed",
        ("arm", "asked", "active", "CPU s a kB written", "B/s written", "CPU s a kB read", "B/s read"),
        _speed(found["speed"]),
    )
    _table(
        out,
        "An owner comes",
        ("what is done", "operations", "its texts", "the others'", "these worse by"),
        _added(found["added"]),
    )
    same = "bit for bit the same" if found["removed"]["identical"] else "NOT the same"
    title = f"An owner leaves: routes and likelihoods are {same} as of a network that never had it"
    _table(
        out, title, ("what is left", "bits of its texts", "AUC by loss", "AUC calibrated"), _removed(found)
    )
    for kind, by_domain in found["credited"].items():
        experts = sorted({name for shares in by_domain.values() for name in shares})
        rows = [
            [d, *(f"{100 * by_domain[d].get(name, 0.0):.0f}" for name in experts)] for d in sorted(by_domain)
        ]
        _table(out, f"Credit in per cent, network of kind {kind}", ("text", *experts), rows)
    fit = found["scaling"]["fit"]
    points = [*found["scaling"]["points"], *found["scaling"]["controls"]]
    rows = [
        [p.get("arm", "domain"), str(p["specialists"]), f"{p['parameters']:,}", f"{p['bits']:.3f}"]
        for p in points
    ]
    _table(out, "Scaling", ("arm", "experts", "weights of one", "bits"), rows)
    terms = ", ".join(
        f"{name}^{fit[name]['exponent']:.3f} (±{fit[name]['standard_error']:.3f})"
        for name in ("specialists", "weights")
    )
    out.print(f"bits ~ {terms}; {fit['points']} points, off by {100 * fit['largest_error']:.1f}% at most")


def _table(out: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 1 or column == "asked" else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _between(of: Mapping[str, float], places: int = 3) -> str:
    return f"{of['mean']:.{places}f} [{of['low']:.{places}f}, {of['high']:.{places}f}]"


def _quality(rows: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for row in rows:
        test, below = row["test"], row["test"]["below"].get("dense-small")
        mixed = f"{row['mixed']['mean']:.3f}" if "mixed" in row else ""
        ends = f"[{test['low']:.3f}, {test['high']:.3f}]"
        sizes = (f"{row['parameters']:,}", f"{row['active_parameters']:,}")
        yield (
            row["arm"],
            row["way"],
            *sizes,
            f"{test['mean']:.3f}",
            ends,
            mixed,
            _between(below) if below else "",
        )


def _training(rows: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for row in rows:
        seconds = (f"{row['cpu_s']:.0f}", f"{row['longest_cpu_s']:.0f}")
        yield row["arm"], f"{row['models']:.0f}", f"{row['flops']:.3g}", f"{row['seen_bytes']:,.0f}", *seconds


def _speed(rows: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for row in rows:
        write = (f"{row['write_cpu_s_per_kb']['median']:.3f}", f"{row['write_bytes_per_s']:,.0f}")
        read = (f"{row['read_cpu_s_per_kb']['median']:.4f}", f"{row['read_bytes_per_s']:,.0f}")
        yield row["arm"], row["way"], f"{row['active_parameters']:,}", *write, *read


def _added(rows: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for row in rows:
        bits = (_between(row["newcomer"]), _between(row["others"]), _between(row["others_worse_by"]))
        yield row["way"], f"{row['flops']:.3g}", *bits


def _removed(found: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for target, scores in found["attacked"].items():
        calibrated = _between(scores["calibrated"]) if scores["calibrated"] else ""
        yield target, _between(found["removed"]["bits"][target]), _between(scores["loss"]), calibrated
