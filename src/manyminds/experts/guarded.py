"""An expert that is spared while it fails: one more try where that is safe, and a circuit breaker.

Knows no kind of expert and no deadline: its waits are short, and whoever asks cancels in time.
"""

import asyncio
import logging
import math
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, TypeVar

from manyminds.board import Cell
from manyminds.errors import (
    CutError,
    ExpertError,
    ManymindsError,
    RefusedError,
    RejectedError,
    UnavailableError,
)
from manyminds.types import (
    Card,
    Chunk,
    Completer,
    Distributor,
    Expert,
    Following,
    Query,
    Sampler,
    Samples,
    Scorer,
    Scores,
)

__all__ = ["Breaker", "Guarded", "SharedBreaker"]

_LONGEST_OPEN_S = 300.0
_LONGEST_WAIT_S = 2.0  # before another try; an expert that asks for more is left to others
_BACKOFF_S = 0.2  # before the second try, on average; doubles with each further one
_PROBE_S = 1.0  # until a probe that is under way may have told something
_SHOWN = 200  # characters of a failure
_STATE = struct.Struct("<dd4qH160s")  # of a breaker, with what its last failure said

_Found = TypeVar("_Found")

log = logging.getLogger(__name__)


class Breaker:
    """Whether an expert is worth asking. Times are of one clock, in seconds. Does no I/O.

    Closed, it lets everybody through. It opens after so many failures in a row and then lets nobody through,
    for a while; after that one call, the probe, whose success closes it and whose failure opens it for
    twice as long. What began before it last opened or closed says nothing of now and is not counted.

    Args:
        failures: so many in a row open it.
        open_s: for how long at first.
    """

    def __init__(self, failures: int, open_s: float) -> None:
        self.failed = 0  # times in a row
        self.reason = ""  # of the last failure
        self._limit = failures
        self._shortest_s = self._open_s = open_s
        self._period = 0  # number of times it opened or closed
        self._rests_until: float | None = None
        self._probing = False
        self._untold = False  # the last probe was left before it told anything

    @property
    def open_until(self) -> float | None:
        """When a probe is due; inf while one is under way, None while it is closed."""
        return math.inf if self._probing else self._rests_until

    def begin(self, now: float) -> int | None:
        """Lets a call begin, and gives what its end is to be told with; None where it may not."""
        if self._rests_until is not None:
            if self._probing or now < self._rests_until:
                return None
            self._probing, self._untold = True, False
        return self._period

    def succeed(self, began: int) -> None:
        """A call has succeeded."""
        if began != self._period:
            return
        self.failed = 0
        if self._rests_until is not None:
            self._rests_until, self._open_s = None, self._shortest_s
            self._turn()

    def fail(
        self, began: int, now: float, rest_s: float = 0.0, *, at_once: bool = False, reason: str = ""
    ) -> bool:
        """A call has failed; whether that opens it. It then rests for `rest_s` at least."""
        return began == self._period and self._fail(now, rest_s, at_once, reason)

    def _fail(self, now: float, rest_s: float, at_once: bool, reason: str) -> bool:
        self.failed += 1
        self.reason = reason
        if self._rests_until is not None:
            self._open_s = min(2 * self._open_s, max(_LONGEST_OPEN_S, self._shortest_s))
        elif self.failed < self._limit and not at_once:
            return False
        self._rests_until = now + max(self._open_s, rest_s)
        self._turn()
        return True

    def leave(self, began: int) -> None:
        """A call has ended without telling anything. If it was the probe, the next may be another."""
        if began == self._period and self._probing:
            self._probing, self._untold = False, True

    def slow(self, now: float) -> bool:
        """A call that has just been left was too slow; whether that opens it."""
        if self._rests_until is not None and not self._untold:
            return False
        return self._fail(now, 0.0, at_once=False, reason="it was too slow.")

    def _turn(self) -> None:
        self._period += 1
        self._probing = self._untold = False


class SharedBreaker(Breaker):
    """One breaker for several processes: what one of them finds out, all know at once.

    The probe is one for all. A process that dies with it has left it; see `Board.bury`. While all goes well
    a call costs a look at one word, and no lock.
    """

    def __init__(self, failures: int, open_s: float, cell: Cell) -> None:
        super().__init__(failures, open_s)
        self._cell = cell

    @property
    def open_until(self) -> float | None:
        """See `Breaker`."""
        if self._cell.hint >= 0:
            return None
        with self._cell:
            self._load()
        return super().open_until

    def begin(self, now: float) -> int | None:
        """See `Breaker`."""
        period = self._cell.hint
        if period >= 0:  # closed, and nothing has failed since
            return period
        with self._kept():
            began = super().begin(now)
            if began is not None and self._probing:
                self._cell.hold()
            return began

    def succeed(self, began: int) -> None:
        """See `Breaker`."""
        if self._cell.hint != began:
            with self._kept():
                super().succeed(began)

    def fail(
        self, began: int, now: float, rest_s: float = 0.0, *, at_once: bool = False, reason: str = ""
    ) -> bool:
        """See `Breaker`."""
        with self._kept():
            return super().fail(began, now, rest_s, at_once=at_once, reason=reason)

    def leave(self, began: int) -> None:
        """See `Breaker`."""
        if self._cell.hint != began:
            with self._kept():
                super().leave(began)

    def slow(self, now: float) -> bool:
        """See `Breaker`."""
        with self._kept():
            return super().slow(now)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Has the state of all here, and then that of here for all."""
        with self._cell:
            self._load()
            yield
            self._store()

    def _load(self) -> None:
        cell = self._cell
        if not cell.turn:
            return
        rests, self._open_s, self._period, self.failed, probing, untold, size, said = cell.load(_STATE)
        self._rests_until = None if math.isnan(rests) else rests
        self._probing = bool(probing) and cell.held  # else whoever had it is dead
        self._untold = bool(untold) or (bool(probing) and not cell.held)
        self.reason = said[:size].decode("utf-8", "ignore")

    def _store(self) -> None:
        cell, rests, said = self._cell, self._rests_until, self.reason.encode("utf-8", "replace")[:160]
        quiet = rests is None and self.failed == 0
        cell.suggest(-1)  # until all is there
        cell.store(
            _STATE,
            math.nan if rests is None else rests,
            self._open_s,
            self._period,
            self.failed,
            self._probing,
            self._untold,
            len(said),
            said,
        )
        if quiet:
            cell.suggest(self._period)


class Guarded:
    """Another expert, spared while it fails; keeps the contract of `types.Expert`.

    It has `complete`, `score` and `sample` where the other one has. A call is made again only where the
    expert was not available and had sent nothing. Refusals are the request's fault and count neither way; so
    does being cancelled, unless `note_slow` says that it was for slowness.

    Args:
        expert: whom to ask.
        random: numbers in [0, 1), which spread the waits before another try.
        retries: so many more tries at most.
        failures: so many in a row open the circuit; one does where the expert rejects this node.
        open_s: seconds for which it is then left alone; twice as long, up to 5 minutes, after each
            probe that fails; longer where the expert says so.
        cell: of a board, where several processes guard the same expert together.
    """

    complete: Callable[[Query], Coroutine[Any, Any, Sequence[Chunk]]]
    score: Callable[[Query, Sequence[str]], Coroutine[Any, Any, Scores]]
    sample: Callable[[Query, int], Coroutine[Any, Any, Samples]]
    vocabulary: Callable[[], Coroutine[Any, Any, str]]
    prompt_tokens: Callable[[Query], Coroutine[Any, Any, tuple[int, ...]]]
    next_tokens: Callable[[Sequence[int], int], Coroutine[Any, Any, Following]]

    def __init__(
        self,
        expert: Expert,
        random: Callable[[], float],
        *,
        retries: int = 1,
        failures: int = 5,
        open_s: float = 10.0,
        cell: Cell | None = None,
    ) -> None:
        self._expert = expert
        self._random = random
        self._retries = retries
        self._withdrawn = False
        self._breaker = Breaker(failures, open_s) if cell is None else SharedBreaker(failures, open_s, cell)
        if isinstance(expert, Completer):  # others look whether there is one
            self.complete = partial(self._ask, expert.complete, _is_finished)
        if isinstance(expert, Scorer):
            self.score = partial(self._ask, expert.score, lambda _: True)
        if isinstance(expert, Sampler):
            self.sample = partial(self._ask, expert.sample, lambda _: True)
        if isinstance(expert, Distributor):
            self.vocabulary = expert.vocabulary  # which is public, also while the expert is spared
            self.prompt_tokens = partial(self._ask, expert.prompt_tokens, lambda _: True)
            self.next_tokens = partial(self._ask, expert.next_tokens, lambda _: True)

    @property
    def card(self) -> Card:
        return self._expert.card

    def inherit(self, other: "Guarded") -> None:
        """Takes over what is known of the failures of the same expert."""
        self._breaker = other._breaker

    def withdraw(self) -> None:
        """Nobody asks it from then on; what it is answering, it answers."""
        self._withdrawn = True

    @property
    def open_until(self) -> float | None:
        """Until when, by the loop's clock, every call fails at once; inf while a probe is under way.

        None, or a time that has passed, where it can be asked.
        """
        return self._breaker.open_until

    def note_slow(self) -> None:
        """Counts the call that has just been cancelled, because it took too long, as a failure."""
        if self._breaker.slow(asyncio.get_running_loop().time()):
            self._opened()

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        attempt = 0
        while True:
            began = self._begin()
            begun = finished = False
            try:
                async with aclosing(self._expert.stream(query)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        if chunk.finish_reason is not None:
                            finished = True
                            self._breaker.succeed(began)
                        yield chunk
                if not finished:
                    raise self._cut()
            except Exception as error:
                wait_s = self._failed(began, error, self._retries if begun else attempt)
                if wait_s is None:
                    raise
            except BaseException:  # it was cancelled or closed
                self._breaker.leave(began)
                raise
            else:
                return
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _ask(
        self, ask: Callable[..., Awaitable[_Found]], whole: Callable[[_Found], bool], *what: Any
    ) -> _Found:
        """What comes all at once. One coroutine, not one for each kind: it is on the way of every request."""
        attempt = 0
        while True:
            began = self._begin()
            try:
                found = await ask(*what)
                if not whole(found):
                    raise self._cut()
            except Exception as error:
                wait_s = self._failed(began, error, attempt)
                if wait_s is None:
                    raise
            except BaseException:
                self._breaker.leave(began)
                raise
            else:
                self._breaker.succeed(began)
                return found
            await asyncio.sleep(wait_s)
            attempt += 1

    def _begin(self) -> int:
        """Raises: UnavailableError while it is left alone; RefusedError once it was withdrawn."""
        if self._withdrawn:
            raise RefusedError(f"{self.card.name} was withdrawn, and is not asked any more.")
        now = asyncio.get_running_loop().time()
        began = self._breaker.begin(now)
        if began is None:
            raise self._spared(now)
        return began

    def _spared(self, now: float) -> UnavailableError:
        until = self.open_until
        probing = until is None or math.isinf(until)
        left_s = _PROBE_S if until is None or probing else until - now
        how_long = "until another call has gone well" if probing else f"for another {left_s:.1f} s"
        return UnavailableError(
            f"{self.card.name} is not asked {how_long}: {self._why()}", retry_after_s=left_s
        )

    def _why(self) -> str:
        failed, reason = self._breaker.failed, self._breaker.reason
        return f"it failed {'once' if failed == 1 else f'{failed} times in a row'}; the last: {reason}"

    def _cut(self) -> CutError:
        return CutError(f"{self.card.name} ended without finishing its answer.")

    def _failed(self, began: int, error: Exception, attempt: int) -> float | None:
        """Counts a failure. Seconds until the call is to be made again; None where it is not."""
        if not _counts(error):
            self._breaker.leave(began)
            return None
        asked_s = error.retry_after_s if isinstance(error, ManymindsError) else None
        now, rejected = asyncio.get_running_loop().time(), isinstance(error, RejectedError)
        reason = str(error)[:_SHOWN] or type(error).__name__
        if self._breaker.fail(began, now, asked_s or 0.0, at_once=rejected, reason=reason):
            self._opened()
        again = isinstance(error, UnavailableError) and attempt < self._retries
        if not again or rejected or self.open_until is not None:
            return None
        wait_s = _BACKOFF_S * 2**attempt * (0.5 + self._random()) if asked_s is None else asked_s
        return wait_s if wait_s <= _LONGEST_WAIT_S else None

    def _opened(self) -> None:
        rests_s = (self.open_until or 0.0) - asyncio.get_running_loop().time()
        log.warning("%s is not asked for %.0f s: %s", self.card.name, rests_s, self._why())


def _is_finished(chunks: Sequence[Chunk]) -> bool:
    return bool(chunks) and chunks[-1].finish_reason is not None


def _counts(error: Exception) -> bool:
    """Whether it is the expert's failure: so is whatever breaks the contract of `types.Expert`."""
    return not isinstance(error, ManymindsError) or (
        isinstance(error, ExpertError) and not isinstance(error, RefusedError)
    )
