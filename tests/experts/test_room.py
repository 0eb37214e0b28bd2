"""Memory that is given in order, and never more than there is. In virtual time."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import UnavailableError
from manyminds.experts.room import Place, Room
from tests.clock import run


class Tenants:
    """Places that take a second to empty, and what has happened to them."""

    def __init__(self, limit_mb: float, **needs_mb: float) -> None:
        self.room = Room(limit_mb)
        self.told: list[str] = []
        self.most_mb = 0.0
        self.places = {name: self.room.place(name, mb, self._emptier(name)) for name, mb in needs_mb.items()}

    def __getitem__(self, name: str) -> Place:
        return self.places[name]

    def _emptier(self, name: str) -> Callable[[], "asyncio.Future[None]"]:
        async def empty() -> None:
            assert not self.places[name].users
            await asyncio.sleep(1.0)
            self.told.append(f"-{name}")

        return lambda: asyncio.ensure_future(empty())

    async def use(self, name: str, seconds: float = 0.0) -> None:
        async with self.places[name]:
            self.told.append(name)
            self.most_mb = max(self.most_mb, self.room.used_mb)
            assert self.room.used_mb <= self.room.limit_mb
            await asyncio.sleep(seconds)


def test_what_fits_together_stays() -> None:
    async def story() -> Tenants:
        tenants = Tenants(10, a=4, b=6)
        await asyncio.gather(*(tenants.use(name, 5.0) for name in "abba"))
        return tenants

    tenants = run(story())
    assert tenants.told == ["a", "b", "b", "a"]
    assert tenants.most_mb == 10


def test_the_one_not_used_for_longest_gives_way() -> None:
    async def story() -> list[str]:
        tenants = Tenants(10, a=3, b=3, c=3, d=4)
        for name in "abcad":
            await tenants.use(name)
        assert tenants.room.used_mb == 10
        await tenants.use("d")
        return tenants.told

    assert run(story()) == ["a", "b", "c", "a", "-b", "d", "d"]


def test_nobody_gives_way_while_in_use_and_the_first_who_waits_is_the_first_to_get_it() -> None:
    async def story() -> tuple[list[str], float]:
        tenants = Tenants(10, a=8, b=8, c=8)
        calls = [asyncio.create_task(tenants.use(*call)) for call in [("a", 5.0), ("b", 1.0), ("c", 1.0)]]
        await asyncio.sleep(1.0)
        calls.append(asyncio.create_task(tenants.use("a", 5.0)))  # has its memory still, so goes on
        await asyncio.gather(*calls)
        return tenants.told, asyncio.get_running_loop().time()

    told, seconds = run(story())
    assert told == ["a", "a", "-a", "b", "-b", "c"]
    assert seconds == 6 + 1 + 1 + 1 + 1


def test_a_busy_one_does_not_starve_who_waits() -> None:
    """Whoever holds it in turns lets go for a moment, and that is enough."""

    async def story() -> list[str]:
        tenants = Tenants(10, a=8, b=8)
        turn = asyncio.Lock()

        async def one() -> None:
            async with turn:
                await tenants.use("a", 1.0)

        ones = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0.5)
        await tenants.use("b")
        await asyncio.gather(*ones)
        return tenants.told

    assert run(story()) == ["a", "-a", "b", "-b", "a", "a"]


def test_who_waits_can_leave_and_the_next_gets_it() -> None:
    async def story() -> list[str]:
        tenants = Tenants(10, a=8, b=8, c=8)
        using = asyncio.create_task(tenants.use("a", 5.0))
        await asyncio.sleep(0.1)
        leaving = asyncio.create_task(tenants.use("b"))
        waiting = asyncio.create_task(tenants.use("c"))
        await asyncio.sleep(0.1)
        leaving.cancel()
        await asyncio.gather(using, waiting)
        with suppress(asyncio.CancelledError):
            await leaving
        return tenants.told

    assert run(story()) == ["a", "-a", "c"]


def test_who_is_cancelled_just_when_it_is_let_in_keeps_nothing_in_use() -> None:
    async def story() -> int:
        tenants = Tenants(10, a=8, b=8)
        await tenants.use("a")
        entering = asyncio.create_task(tenants.use("b"))
        await asyncio.sleep(1.0)  # the instant at which `a` has been emptied
        entering.cancel()
        with suppress(asyncio.CancelledError):
            await entering
        await tenants.use("a")
        return tenants["b"].users

    assert run(story()) == 0


def test_what_can_never_fit_is_said_at_once() -> None:
    async def story() -> str:
        tenants = Tenants(1000, big=1500)
        with pytest.raises(UnavailableError) as caught:
            await tenants.use("big")
        return caught.value.message

    said = run(story())
    assert "big needs about 1500 MB" in said
    assert "local.max_memory_gb allows 1000 MB" in said


def test_a_smaller_limit_holds_from_then_on() -> None:
    async def story() -> tuple[list[str], float]:
        tenants = Tenants(10, a=4, b=5)
        using = asyncio.create_task(tenants.use("b", 5.0))
        await tenants.use("a")
        waiting = asyncio.create_task(tenants.use("a", 1.0))
        tenants.room.limit_mb = 5
        await asyncio.gather(using, waiting, return_exceptions=True)
        await asyncio.sleep(5.0)
        return tenants.told, tenants.room.used_mb

    told, used_mb = run(story())
    assert told == ["a", "b", "-a", "-b", "a"]
    assert used_mb == 4


def test_who_waits_for_what_a_smaller_limit_forbids_is_told() -> None:
    async def story() -> None:
        tenants = Tenants(10, a=8, b=8)
        using = asyncio.create_task(tenants.use("a", 5.0))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(tenants.use("b"))
        await asyncio.sleep(0.1)
        tenants.room.limit_mb = 4
        with pytest.raises(UnavailableError, match="allows 4 MB"):
            await waiting
        await using
        await asyncio.sleep(2.0)
        assert tenants.room.used_mb == 0

    run(story())


def test_what_cannot_be_emptied_is_said_and_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        room = Room(10)

        async def fail() -> None:
            raise OSError("it would not")

        async with room.place("stubborn", 8, fail):
            pass
        async with room.place("next", 8, fail):
            assert room.used_mb == 8

    run(story())
    assert "stubborn may have kept its memory: it would not" in caplog.text


@given(
    limit=st.integers(5, 20),
    needs=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    seed=st.integers(0, 10**6),
)
def test_a_crowd_is_served_whatever_it_asks_for(limit: int, needs: list[int], seed: int) -> None:
    """Nobody waits for ever, and never is there more in memory than allowed; also where some leave early."""
    names = [f"m{i}" for i in range(len(needs))]
    draw = random.Random(seed)

    async def one(tenants: Tenants, name: str) -> str:
        await asyncio.sleep(draw.random() * 20)
        try:
            async with asyncio.timeout(draw.choice([0.7, 3.0, None])):
                await tenants.use(name, draw.choice([0.0, 0.3, 2.1]))
        except TimeoutError:
            return "left"
        except UnavailableError:
            return "refused"
        return "served"

    async def story() -> tuple[list[tuple[str, str]], Tenants]:
        tenants = Tenants(limit, **dict(zip(names, needs, strict=True)))
        asked = [draw.choice(names) for _ in range(25)]
        ends = await asyncio.gather(*(one(tenants, name) for name in asked))
        await asyncio.sleep(2.0)
        return list(zip(asked, ends, strict=True)), tenants

    ended, tenants = run(story())
    for name, end in ended:
        assert (end == "refused") == (tenants[name].needs_mb > limit and end != "left")
    assert tenants.most_mb <= limit
    assert all(place.users == 0 for place in tenants.places.values())
