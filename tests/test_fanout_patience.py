"""An answer is heard in two ways, which must keep the same limits."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from manyminds.alarm import Alarm
from manyminds.errors import ExpertError
from manyminds.fanout import Patience
from manyminds.fanout.patience import hear, paced
from manyminds.types import Card, Chunk, Query, Usage
from tests.clock import run
from tests.test_fanout import QUERY, now

waits = st.lists(st.sampled_from([0.0, 0.31, 2.93, 3.17, 7.03, 11.07]), max_size=5)  # never just in time


class Waiting:
    """Says a word after each of these waits; then finishes, or not."""

    def __init__(self, waits_s: Sequence[float], deaf: bool, finishes: bool, kind: str = "scripted") -> None:
        self.card = Card("w", kind)
        self.slow = 0
        self._waits_s, self._deaf, self._finishes = waits_s, deaf, finishes

    def note_slow(self) -> None:
        self.slow += 1

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        for i, wait_s in enumerate(self._waits_s):
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                if not self._deaf or i % 2:
                    raise
            yield Chunk(f"{i} ")
        if self._finishes:
            yield Chunk("", "stop", Usage())


@settings(max_examples=300)
@given(
    waits,
    st.sampled_from([3.0, 5.0, 10.0]),
    st.sampled_from([3.0, 5.0, 10.0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["scripted", "local"]),
)
@example([7.03, 7.03, 0.31], 3.0, 10.0, True, True, "scripted")
@example([7.03, 7.03, 0.31], 3.0, 10.0, True, True, "local")
def test_limits_are_kept_alike_however_an_answer_is_heard(
    waits_s: list[float], first_s: float, idle_s: float, deaf: bool, finishes: bool, kind: str
) -> None:
    """By a generator that somebody else reads, and in a task of its own: to the same moment."""
    patience = Patience(first_s, idle_s)

    async def outcome(by_itself: bool) -> tuple[list[tuple[str, float]], str, float, int]:
        expert, alarm, deadline = Waiting(waits_s, deaf, finishes, kind), Alarm(), now() + 17.0
        heard: list[tuple[str, float]] = []
        stream, error = expert.stream(QUERY), ""

        def take(chunk: Chunk) -> bool:
            heard.append((chunk.text, round(now(), 9)))  # sums of seconds may differ in their last bit
            return True

        try:
            if by_itself:
                assert await hear(expert, stream, patience, deadline, alarm, take)
            else:
                async for chunk in paced(expert, stream, patience, deadline, alarm):
                    take(chunk)
        except ExpertError as failure:
            error = repr(failure)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        return heard, error, round(now(), 9), expert.slow

    assert run(outcome(True)) == run(outcome(False))


def test_a_local_model_may_begin_until_the_deadline() -> None:
    """Where it is late, this machine is busy."""

    async def heard(kind: str, waits_s: Sequence[float], within_s: float) -> str:
        expert = Waiting(waits_s, deaf=False, finishes=True, kind=kind)
        try:
            await hear(
                expert,
                expert.stream(QUERY),
                Patience(3.0, 3.0),
                now() + within_s,
                Alarm(),
                lambda chunk: True,
            )
        except ExpertError as failure:
            return f"{failure.message} {expert.slow}"
        return "whole"

    assert run(heard("local", [12.0, 1.0], 17.0)) == "whole"
    assert run(heard("local", [12.0, 4.0], 17.0)) == "w sent nothing more within 3 s. 1"
    assert run(heard("local", [12.0], 10.0)) == "w had not finished at the deadline. 0"
    assert run(heard("scripted", [12.0], 17.0)) == "w sent no first token within 3 s. 1"
