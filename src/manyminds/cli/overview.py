"""What a node does just now, for a terminal: its experts, its traffic, its latest requests and their cost.

Knows what a node says of itself, and not how that comes. All is told in words, so that it can be read
without colours.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from manyminds.cli.look import plain

__all__ = ["Overview"]

_KEPT: Final = 50  # requests
_BESIDE: Final = 6  # lines that are no expert and no request


class Overview:
    """Is told of events and experts, and can be rendered while it is.

    Attributes:
        trouble: why nothing new comes; "" where it does.
    """

    def __init__(self, url: str) -> None:
        self.trouble = ""
        self._url = url
        self._traffic: Mapping[str, Any] = {}
        self._experts: Sequence[Mapping[str, Any]] = ()
        self._requests: deque[Mapping[str, Any]] = deque(maxlen=_KEPT)

    def take(self, happened: Mapping[str, Any]) -> None:
        """An event of `GET /v1/admin/events`."""
        if happened.get("event") == "traffic":
            self._traffic = happened
        elif happened.get("event") == "request":
            self._requests.appendleft(happened)

    def show(self, experts: Sequence[Mapping[str, Any]]) -> None:
        """The experts, as `GET /v1/admin/experts` has them: the busiest come first."""
        self._experts = sorted(experts, key=lambda one: (-_of(one, "calls", 0), str(one.get("name"))))

    def snapshot(self) -> dict[str, Any]:
        """As JSON."""
        return {"traffic": dict(self._traffic), "experts": list(self._experts)}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        shown, told = len(self._experts), len(self._requests)
        if console.is_terminal:
            room = max(console.height - _BESIDE, 2)
            told = min(told, max(room // 3, room - shown))
            shown = room - told
        yield Text(self._head(), style="bold", no_wrap=True, overflow="ellipsis")
        if self.trouble:
            yield Text(plain(self.trouble), style="bold red", no_wrap=True, overflow="ellipsis")
        yield self._table(self._experts[:shown], options.max_width)
        if (more := len(self._experts) - shown) > 0:
            yield Text(f"and {more:,} more")
        if told:
            yield Text("")
            yield self._latest(list(self._requests)[:told])

    def _head(self) -> str:
        found = self._traffic
        if not found:
            return f"{self._url}: nothing heard yet"
        return plain(
            f"{self._url}: {found.get('requests', 0):,} requests, {found.get('in_flight', 0)} under way, "
            f"{found.get('requests_per_min', 0):.0f}/min; ${found.get('cost_usd', 0):.6f}, "
            f"${found.get('cost_usd_per_min', 0):.6f}/min; {found.get('running', 0)} of "
            f"{found.get('experts', 0)} experts can be asked, {found.get('peers', 0)} of them other nodes"
        )

    def _table(self, experts: Sequence[Mapping[str, Any]], width: int) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("expert", no_wrap=True, overflow="ellipsis", min_width=8, ratio=1)
        columns = ["state", "calls/h", "right", "up", "first s", "tokens/s", "$/M tokens"]
        columns = columns[: 7 if width >= 90 else 5 if width >= 70 else 3]
        for column in columns:
            table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
        for one in experts:
            cells = {
                "state": _state(one),
                "calls/h": f"{_of(one, 'calls', 0):,}",
                "right": _share(_of(one, "accuracy", None, "week"), one.get("accuracy")),
                "up": _share(_of(one, "uptime", None)),
                "first s": _number(_of(one, "ttft_p50_s", None)),
                "tokens/s": _number(_of(one, "tokens_per_s_p50", None)),
                "$/M tokens": _number(_of(one, "usd_per_m", None)),
            }
            table.add_row(Text(plain(str(one.get("name", "")))), *(cells[column] for column in columns))
        return table

    def _latest(self, requests: Sequence[Mapping[str, Any]]) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("at (UTC)", "policy", "status"):
            table.add_column(column, no_wrap=True)
        for column in ("seconds", "cost $"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("asked", no_wrap=True, overflow="ellipsis", ratio=1)
        for one in requests:
            asked = ", ".join(f"{entry['expert']} {entry['status']}" for entry in one.get("panel", ()))
            named = (str(one.get("at_utc", ""))[11:19], one.get("policy", ""), one.get("status", ""))
            figures = (f"{one.get('seconds', 0):.2f}", f"{one.get('cost_usd', 0):.6f}")
            table.add_row(*(Text(plain(str(name))) for name in named), *figures, Text(plain(asked)))
        return table


def _of(one: Mapping[str, Any], figure: str, otherwise: Any, window: str = "hour") -> Any:
    """What was measured of an expert."""
    found = (one.get("ratings") or {}).get(window) or {}
    value = found.get(figure)
    return otherwise if value is None else value


def _state(one: Mapping[str, Any]) -> str:
    if one.get("paused"):
        return "paused"
    if not one.get("running", True):
        return "not running"
    return "left alone" if one.get("spared") else "up"


def _share(measured: float | None, claimed: float | None = None) -> str:
    """In per cent; what is only claimed with a question mark."""
    if measured is not None:
        return f"{measured:.0%}"
    return "" if claimed is None else f"{claimed:.0%}?"


def _number(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.3g}"
