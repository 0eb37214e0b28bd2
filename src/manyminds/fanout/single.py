"""One expert, asked alone: what `Fanout` does for a panel, without a task. Whoever reads makes the call."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from manyminds.alarm import Alarm, Watch
from manyminds.errors import AnswerError, DeadlineError, SlowError
from manyminds.fanout.patience import Patience, check, note_slow, paced
from manyminds.fanout.tally import Tally
from manyminds.types import Answer, Call, Chunk, Expert, Query

__all__ = ["Single"]


class Single:
    """A call of one expert under one deadline, `deadline_s` from now."""

    def __init__(
        self, call: Call, expert: Expert, query: Query, patience: Patience, deadline_s: float, alarm: Alarm
    ) -> None:
        self._alarm = alarm
        self._loop = asyncio.get_running_loop()
        self._hurried = deadline_s < patience.deadline_s
        self._deadline = self._loop.time() + deadline_s
        self._tally = Tally(call, expert.card, query, began=alarm.clock())
        self._expert = expert
        self._query = query if query.bound is call.bound else replace(query, bound=call.bound)
        self._patience = patience

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Its chunks as they come. Closing the generator cancels the call. Raises: AnswerError."""
        tally, clock = self._tally, self._alarm.clock
        stream = paced(
            self._expert, self._expert.stream(self._query), self._patience, self._deadline, self._alarm
        )
        try:
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    tally.take(chunk, clock())
                    yield chunk
            tally.status = "ok"
        except Exception as failure:
            raise self._failed(failure) from failure.__cause__

    async def whole(self) -> Sequence[Chunk]:
        """All its chunks. Being cancelled cancels the call. Raises: AnswerError."""
        complete = getattr(self._expert, "complete", None)  # isinstance(_, Completer) takes microseconds
        if complete is None:
            async with aclosing(self.chunks()) as stream:
                return [chunk async for chunk in stream]
        tally, name = self._tally, self._tally.call.expert
        watch, tally.whole = Watch(self._alarm, self._deadline), True
        try:
            with watch:
                tally.chunks = list(await complete(self._query))
            check(name, tally.chunks)
            tally.status = "ok"
        except Exception as failure:
            late = isinstance(failure, TimeoutError) and watch.rang
            if late and not self._hurried:
                note_slow(self._expert)
            known = SlowError(f"{name} had not finished at the deadline.") if late else failure
            raise self._failed(known) from failure.__cause__
        return tally.chunks

    @property
    def answer(self) -> Answer:
        """What has come of it."""
        return self._tally.answer(self._alarm.clock())

    def _failed(self, failure: Exception) -> AnswerError:
        """Notes the failure; what is to be raised of it."""
        tally = self._tally
        tally.fail(failure, late=self._loop.time() >= self._deadline)
        if tally.status == "late" and not tally.chunks:
            name = tally.call.expert
            return DeadlineError(f"The deadline passed before any answer of {name}: allow more time.")
        assert tally.error is not None
        return tally.error
