"""A panel at work on a terminal: who was asked, how far each one is, and what it writes.

Knows events and no node. All is told in words, so that it can be read without colours.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from manyminds.cli.look import plain
from manyminds.types import Began, Ended, Event, Routed, Wrote

__all__ = ["Lanes"]

_KEPT: Final = 400  # characters of a draft, from its end
_STATE: Final = 24  # columns for how far one is
_OTHERS: Final = 23  # for probability, seconds, and what is between columns
_NEXT: Final = "asked next, if need be"
_LEAST: Final = 8  # for names, and for drafts
_ENDS: Final = {
    "ok": "done",
    "failed": "failed",
    "cut": "broke off",
    "late": "too late",
    "cancelled": "no longer needed",
}


@dataclass(slots=True)
class _Lane:
    """One call."""

    expert: str
    probability: float | None
    hedges: str | None
    began_s: float
    text: str = ""
    ended: Ended | None = None

    @property
    def state(self) -> str:
        end = self.ended
        if end is None:
            beside = f" beside {self.hedges}" if self.hedges else ""
            return f"{'writes' if self.text else 'asked'}{beside}"
        if end.lost:
            return "slower than another"
        if end.declined:
            return "declines"
        return _ENDS.get(end.status, end.status)


class Lanes:
    """Is told of events by `watch`, and can be rendered while it is.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._plan: Routed | None = None
        self._lanes: list[_Lane] = []

    def watch(self, happened: Event) -> None:
        """See `types.Watch`."""
        if isinstance(happened, Routed):
            self._plan = happened
        elif isinstance(happened, Began):
            expected = self._expected(happened.expert)
            self._lanes.append(_Lane(happened.expert, expected, happened.hedges, self._clock()))
        elif isinstance(happened, Wrote):
            lane = self._lanes[happened.call]
            lane.text = (lane.text + happened.text)[-_KEPT:]
        else:
            self._lanes[happened.call].ended = happened

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self._plan is None:
            return
        yield Text(self._title(self._plan), style="bold", no_wrap=True, overflow="ellipsis")
        names = max([_LEAST, *(len(name) for name, *_ in self._rows())])
        names = min(names, max(options.max_width // 4, _LEAST))
        room = options.max_width - names - _STATE - _OTHERS
        table = Table(box=None, show_header=True, pad_edge=False)
        table.add_column("expert", width=names, no_wrap=True, overflow="ellipsis")
        table.add_column("p(right)", width=8, justify="right", no_wrap=True)
        table.add_column("state", width=_STATE, no_wrap=True, overflow="ellipsis")
        table.add_column("seconds", width=7, justify="right", no_wrap=True)
        if room >= _LEAST:
            table.add_column("draft", width=room, no_wrap=True, overflow="ellipsis")
        for name, expected, state, seconds, draft in self._rows():
            chance = "–" if expected is None else f"{expected:.2f}"
            end = Text(draft if len(draft) <= room else f"…{draft[1 - room :]}")
            table.add_row(Text(name), chance, Text(state), seconds, *([end] if room >= _LEAST else []))
        yield table

    def _rows(self) -> list[tuple[str, float | None, str, str, str]]:
        now_s, rows = self._clock(), []
        for lane in list(self._lanes):
            end = lane.ended
            seconds = end.seconds if end is not None else now_s - lane.began_s
            said = lane.text if end is None or end.error is None else end.error
            draft = plain(" ".join(said.split()))
            rows.append((plain(lane.expert), lane.probability, lane.state, f"{seconds:.1f}", draft))
        begun = {lane.expert for lane in self._lanes}
        waiting = [call for call in self._plan.calls if call.expert not in begun] if self._plan else []
        return [*rows, *((plain(call.expert), call.probability, _NEXT, "", "") for call in waiting)]

    def _title(self, plan: Routed) -> str:
        about = f" about {plan.section}" if plan.section else ""
        return plain(
            f"{plan.policy}: {plan.strategy}{about}, expecting {plan.expected_accuracy:.0%} right "
            f"for ${plan.expected_cost_usd:.6f} in {plan.expected_latency_s:.1f} s"
        )

    def _expected(self, expert: str) -> float | None:
        """How likely it was thought to be right; None of who stands in or fuses."""
        calls = self._plan.calls if self._plan else ()
        return next((call.probability for call in calls if call.expert == expert), None)
