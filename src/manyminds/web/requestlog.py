"""One line for each request, for people and for `grep`. Knows no prompt, no answer and no file."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from manyminds.types import Report, Usage

__all__ = ["RequestLog"]

_BATCH: Final = 256  # lines in one turn of the loop: others want their turn, too
_SHOWN: Final = 80  # characters of a value
_BARE: Final = re.compile(r"(?!-\Z)[A-Za-z0-9._:/@+-]+\Z")

_Entry: TypeAlias = tuple[
    float, str, str | None, str, str | None, int | str, float, float | None, Report | None, Usage | None
]

log = logging.getLogger(__name__)


class RequestLog:
    """Gathers requests, and writes their lines together. All in one thread, that of the event loop.

    A line is fields `name=value` with a space between. A value is a bare word; or a JSON string in ASCII, cut
    to 80 characters, so that no caller can forge a field or a line; or `-` where there is none.

    Args:
        write: takes whole lines. What it raises as OSError is logged, and those lines are lost.
        every_s: for how long requests gather: what a crash can lose.
    """

    def __init__(self, write: Callable[[str], None], every_s: float = 0.1) -> None:
        self._write = write
        self._every_s = every_s
        self._entries: list[_Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False

    def add(
        self,
        request_id: str,
        key_id: str | None,
        endpoint: str,
        model: str | None,
        status: int | str,
        seconds: float,
        first_byte_s: float | None = None,
        report: Report | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Notes a request that has ended. To be called in a running loop.

        Args:
            request_id: as in the reply's headers and the ledger.
            key_id: the key's name, never the key; None without one.
            endpoint: which was asked.
            model: which the caller asked for; None where the request never said.
            status: HTTP's, or a word such as `cut` or `gone`.
            seconds: from the request to the reply's end.
            first_byte_s: until its first byte; None if there was none.
            report: of the answer; None if there was none. Policy, experts and cost are its.
            usage: of the answer; None if there was none.
        """
        self._entries.append(
            (time.time(), request_id, key_id, endpoint, model, status, seconds, first_byte_s, report, usage)
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._ring)

    def close(self) -> None:
        """Writes what is left. What is added later is written too, if the loop still runs by then."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._entries:
            self._put()

    def _ring(self) -> None:
        self._timer = None
        self._put()
        if self._entries:
            self._timer = asyncio.get_running_loop().call_later(0, self._ring)

    def _put(self) -> None:
        entries = self._entries[:_BATCH]
        del self._entries[:_BATCH]
        try:
            self._write("".join(map(_line, entries)))
        except OSError as error:
            if not self._failing:
                log.error("Requests are no longer logged: %s. This is not said again until it works.", error)
            self._failing = True
        else:
            self._failing = False


def _line(entry: _Entry) -> str:
    at_s, request_id, key_id, endpoint, model, status, seconds, first_byte_s, report, usage = entry
    whole_s, milliseconds = divmod(round(at_s * 1000), 1000)
    first = "-" if first_byte_s is None else f"{first_byte_s:.6f}"
    policy, experts, cost_usd = None, "-", "-"
    if report is not None:
        policy, cost_usd = report.policy, f"{report.cost_usd:.9f}"
        experts = str(len({call.expert for call in report.panel}))
    into, out = ("-", "-") if usage is None else (usage.prompt_tokens, usage.completion_tokens)
    return (
        f"time={_second(whole_s)}.{milliseconds:03d}Z request={_value(request_id)} key={_often(key_id)} "
        f"endpoint={_often(endpoint)} model={_often(model)} policy={_often(policy)} "
        f"status={_often(str(status))} seconds={seconds:.6f} first_byte_s={first} experts={experts} "
        f"tokens_in={into} tokens_out={out} cost_usd={cost_usd}\n"
    )


@lru_cache(maxsize=4)  # most lines of a batch are of the same
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s))


@lru_cache(maxsize=256)  # of most fields the same values come again and again
def _often(text: str | None) -> str:
    return _value(text)


def _value(text: str | None) -> str:
    if text is None:
        return "-"
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    if _BARE.match(text):
        return text
    return json.dumps(text)
