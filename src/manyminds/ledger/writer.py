"""Group commit: what has gathered for a moment is written in one transaction, by one thread.

Knows no database: `write` is given. Whoever puts something in never waits for it.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from manyminds.errors import LedgerError

__all__ = ["Backlog", "Writer"]

_T = TypeVar("_T")

_MOST: Final = 100_000  # requests that wait while the database is away
_MOST_BYTES: Final = 64_000_000
_BATCH: Final = 2_000  # requests in one transaction: others want to write, too
_RETRY_S: Final = (0.05, 1.0)  # from, doubled up to

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How the writing goes. Counts are of requests, since the start."""

    queued: int  # in memory only, as yet
    written: int
    dropped: int  # lost: no room in memory, or a value that no column holds
    error: str | None  # why nothing can be written just now


class Writer(Generic[_T]):
    """Keeps up to 100,000 items or 64 MB while the database is away; then the newest are dropped.

    Args:
        write: makes items durable, all of them or none, and says how many it had to refuse for good.
            Taking some that it has already taken does no harm. Raises: LedgerError, to be tried again.
        window_s: for how long items gather: what a crash can lose.
        drain_s: how long `close` goes on trying.
    """

    def __init__(self, write: Callable[[Sequence[_T]], int], window_s: float, drain_s: float) -> None:
        self._write = write
        self._window_s = window_s
        self._drain_s = drain_s
        self._changed = threading.Condition()  # guards all below
        self._queue: deque[tuple[_T, int]] = deque()  # also what is being written
        self._bytes = 0
        self._taken = self._settled = self._wanted = 0  # counts: put in, no longer queued, waited for
        self._written = self._dropped = 0
        self._error: LedgerError | None = None
        self._end_s = math.inf  # monotonic: no try begins later
        self._thread: threading.Thread | None = None

    @property
    def backlog(self) -> Backlog:
        with self._changed:
            error = self._error.message if self._error else None
            return Backlog(len(self._queue), self._written, self._dropped, error)

    def put(self, item: _T, size_bytes: int) -> None:
        """Takes an item. Never blocks; O(1). Raises: LedgerError after `close`."""
        with self._changed:
            if self._end_s < math.inf:
                raise LedgerError("The ledger is closed: what comes now cannot be recorded.")
            if len(self._queue) >= _MOST or self._bytes + size_bytes > _MOST_BYTES:
                self._dropped += 1
                return
            self._queue.append((item, size_bytes))
            self._bytes += size_bytes
            self._taken += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
                self._thread.start()
            elif len(self._queue) == 1:
                self._changed.notify_all()

    def flush(self, budget_s: float | None = None) -> None:
        """Blocks until what was put in before is durable. Raises: LedgerError when `budget_s` is over."""
        with self._changed:
            target = self._wanted = self._taken
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._settled >= target, budget_s):
                raise self._error or LedgerError(f"The ledger is slow: not written within {budget_s:g} s.")

    def close(self) -> None:
        """Writes what is queued, then ends the thread. What cannot be written in time is lost and logged."""
        with self._changed:
            self._end_s = min(self._end_s, time.monotonic() + self._drain_s)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    # --- in the thread ---

    def _run(self) -> None:
        while batch := self._gather():
            refused = self._persist([item for item, _ in batch])
            if refused is None:
                break
            self._settle(batch, refused)
        with self._changed:
            if self._queue:
                log.error(
                    "%d requests are lost: the ledger was closed before they were written.", len(self._queue)
                )
            self._dropped += len(self._queue)
            self._settled += len(self._queue)
            self._queue.clear()
            self._changed.notify_all()

    def _gather(self) -> list[tuple[_T, int]]:
        """What has come within a window; at once where somebody waits for it. Empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._end_s < math.inf)
            self._changed.wait_for(
                lambda: self._wanted > self._settled or self._end_s < math.inf, self._window_s
            )
            return list(islice(self._queue, _BATCH))

    def _persist(self, batch: Sequence[_T]) -> int | None:
        """Tries until it is done; None where time is up."""
        wait_s, most_s = _RETRY_S
        while True:
            try:
                return self._write(batch)
            except LedgerError as error:
                if not self._pause(error, wait_s):
                    return None
                wait_s = min(2 * wait_s, most_s)

    def _pause(self, error: LedgerError, wait_s: float) -> bool:
        """Waits before another try, for which there may be no time left."""
        with self._changed:
            if self._error is None:
                log.error("%s Requests wait in memory until it can be written.", error.message)
            self._error = error
            end_s = self._end_s
            self._changed.wait_for(lambda: self._end_s != end_s, wait_s)  # `close` wants a try at once
            return time.monotonic() < self._end_s

    def _settle(self, batch: Sequence[tuple[_T, int]], refused: int) -> None:
        with self._changed:
            if self._error is not None:
                log.warning("The ledger can be written again; %d requests were lost so far.", self._dropped)
                self._error = None
            for _, size_bytes in batch:
                self._queue.popleft()
                self._bytes -= size_bytes
            self._written += len(batch) - refused
            self._dropped += refused
            self._settled += len(batch)
            self._changed.notify_all()
