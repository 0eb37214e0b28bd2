"""The panel of an answer as a table: who said what, how much it counted and what it cost.

`impact` is the attribution: how far the posterior would move without that source, as a share.
"""

from msgspec import UNSET
from rich.console import Console
from rich.table import Table
from rich.text import Text

from manyminds.cli.look import plain
from manyminds.types import Citation, PanelEntry, Report

__all__ = ["show"]

_NUMBERS = {"weight": 6, "p(right)": 8, "seconds": 7, "cost": 9, "impact": 6}  # columns and their widths
_LEGIBLE = 12  # characters of an answer that fit into a line at least
_LINES = 4  # of an answer that is not shown in full


def show(report: Report, *, full: bool) -> None:
    """On standard error."""
    console = Console(stderr=True)
    if report.privacy is not UNSET:
        told = report.privacy
        console.print(
            f"private: {told.polled} sources were polled, and of any one of them this tells no more than "
            f"epsilon {told.epsilon:g}, delta {told.delta:g}",
            highlight=False,
        )
        return
    longest = max(len("expert"), *(len(entry.expert) for entry in report.panel))
    names, room, numbers = _columns(console.width, longest)
    table = Table(title=_title(report), title_justify="left", title_style="bold", box=None)
    table.add_column("expert", overflow="fold", width=names)
    table.add_column("answer", overflow="fold", width=room)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True, width=_NUMBERS[heading])
    shares = {a.source: a.share for a in report.attribution}
    for entry in report.panel:
        cells = {
            "weight": f"{entry.weight:.2f}",
            "p(right)": "–" if entry.correct_probability is None else f"{entry.correct_probability:.2f}",
            "seconds": f"{entry.seconds:.2f}",
            "cost": f"${entry.cost_usd:.6f}",
            "impact": f"{shares.get(entry.source, 0.0):.0%}",
        }
        said = plain(_said(entry))
        if not full and len(said) > _LINES * room:
            said = said[: _LINES * room - 1] + "…"
        table.add_row(Text(plain(entry.expert)), Text(said), *(cells[heading] for heading in numbers))
    console.print(table)
    _show_grounds(report, console)


def _show_grounds(report: Report, console: Console) -> None:
    """Where the answer stands, and what other documents say; as far as their owners let it be told."""
    for citation in report.citations or ():
        console.print(Text(f"from {_place(citation)}"), soft_wrap=True)
    for conflict in report.conflicts or ():
        where = "; ".join(map(_place, conflict.citations))
        said = plain(" ".join(conflict.answer.split()))
        console.print(Text(f"others say ({conflict.probability:.0%}): {said} [{where}]"), soft_wrap=True)


def _place(citation: Citation) -> str:
    paragraph = f"paragraph {citation.paragraph}" if citation.paragraph else ""
    parts = (citation.document, citation.heading, paragraph, f'"{citation.quote}"' if citation.quote else "")
    where = ", ".join(part for part in parts if part)
    return plain(" ".join(f"{citation.source}: {where or 'documents'}".split()))


def _columns(width: int, longest: int) -> tuple[int, int, list[str]]:
    """Widths of the expert's and the answer's column, and the numbers for which there is room beside them."""
    names = min(longest, max(width // 3, 12))
    numbers = list(_NUMBERS)
    for least in ("", "seconds", "cost", "weight", "impact"):  # what can be spared goes first
        numbers = [heading for heading in numbers if heading != least]
        room = width - names - sum(_NUMBERS[heading] for heading in numbers) - 2 * (len(numbers) + 2)
        if room >= _LEGIBLE:
            break
    return names, max(room, _LEGIBLE), numbers


def _said(entry: PanelEntry) -> str:
    """The answer or the error, and how it came about where that is not the usual way."""
    how: str = "" if entry.status == "ok" else entry.status
    if entry.method == "fuse":
        how = f"fuser {how}" if how else "fused"
    return ": ".join(part for part in (how, " ".join((entry.error or entry.answer).split())) if part)


def _title(report: Report) -> str:
    parts = [f"{report.policy}: {report.strategy}"]
    if report.agreement is not None:
        parts.append(f"agreement {report.agreement:.0%}")
    if report.probability is not None:
        parts.append(f"probability {report.probability:.2f}")
    parts.append(f"${report.cost_usd:.6f}")
    return ", ".join(parts)
