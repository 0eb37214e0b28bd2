import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.alarm import Alarm, Watch
from tests.clock import run

times = st.decimals(0, 5, places=2).map(float)


@given(st.lists(st.tuples(times, times), max_size=12))
def test_each_rings_once_at_its_time_unless_it_is_dropped_before(notes: list[tuple[float, float]]) -> None:
    """Each is noted for one time and dropped at another."""

    async def story() -> dict[int, float]:
        loop, alarm, rang = asyncio.get_running_loop(), Alarm(), {}
        began = loop.time()

        def ring(i: int) -> None:
            assert i not in rang
            rang[i] = loop.time() - began

        for i, (due_s, dropped_s) in enumerate(notes):
            alarm.note(i, began + due_s, lambda i=i: ring(i))  # type: ignore[misc]
            loop.call_at(began + dropped_s, alarm.drop, i)
        await asyncio.sleep(6)
        return rang

    rang = run(story())
    assert rang == {i: pytest.approx(due_s) for i, (due_s, _) in enumerate(notes) if i in rang}
    assert {i for i, (due_s, dropped_s) in enumerate(notes) if due_s < dropped_s} <= set(rang)
    assert all(notes[i][0] <= notes[i][1] for i in rang)


def test_what_is_noted_anew_rings_at_its_new_time() -> None:
    async def story() -> list[float]:
        loop, alarm, rang = asyncio.get_running_loop(), Alarm(), list[float]()
        began = loop.time()
        for due_s in (5.0, 1.0, 3.0):
            alarm.note("it", began + due_s, lambda: rang.append(loop.time() - began))
        await asyncio.sleep(9)
        return rang

    assert run(story()) == [3.0]


def test_an_alarm_in_another_loop_begins_anew() -> None:
    alarm, rang = Alarm(), list[str]()

    async def story(name: str, due_s: float) -> None:
        now = asyncio.get_running_loop().time()
        alarm.note(name, now + due_s, lambda: rang.append(name))
        await asyncio.sleep(2)

    run(story("first", 100.0))
    run(story("second", 1.0))
    assert rang == ["second"]


def test_a_watch_interrupts_what_waits_too_long() -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        watch = Watch(Alarm(), loop.time() + 2)
        with pytest.raises(TimeoutError), watch:
            await asyncio.sleep(9)
        assert watch.rang
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        return loop.time()

    assert run(story()) == 2.0


def test_a_watch_that_is_put_off_lets_each_wait_have_its_time() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch(Alarm(), loop.time() + 2)
        for _ in range(5):
            watch.due_s = loop.time() + 2
            with watch:
                await asyncio.sleep(1.5)
            assert not watch.rang
        await asyncio.sleep(9)  # nobody is interrupted who does not wait inside

    run(story())


def test_who_is_cancelled_by_others_stays_cancelled() -> None:
    async def waiting() -> None:
        with Watch(Alarm(), asyncio.get_running_loop().time() + 5):
            await asyncio.sleep(9)

    async def story() -> bool:
        task = asyncio.create_task(waiting())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(story())


def test_errors_of_the_wait_pass_through() -> None:
    async def story() -> None:
        with Watch(Alarm(), asyncio.get_running_loop().time() + 5):
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        run(story())


@given(st.lists(times, min_size=1, max_size=60), st.sampled_from([0.0, 0.25, 1.0]))
def test_rings_are_apart_and_nobody_waits_much_longer(due: list[float], late_s: float) -> None:
    """However many limits pass one after the other: each ring looks at all of them."""

    async def story() -> list[tuple[float, float]]:
        loop, alarm, rang = asyncio.get_running_loop(), Alarm(late_s=late_s), list[tuple[float, float]]()
        for i, due_s in enumerate(sorted(due)):
            alarm.note(i, due_s, lambda due_s=due_s: rang.append((due_s, loop.time())))  # type: ignore[misc]
        await asyncio.sleep(8)
        return rang

    rang = run(story())
    assert sorted(due_s for due_s, _ in rang) == pytest.approx(sorted(due))
    assert all(-1e-6 <= at_s - due_s <= late_s + 1e-6 for due_s, at_s in rang)
    rings = sorted({at_s for _, at_s in rang})
    assert all(later - earlier >= late_s - 1e-6 for earlier, later in pairwise(rings))
