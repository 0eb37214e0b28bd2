"""What a source allows of itself: so many questions a minute, so many nats a period, and never more."""

import asyncio
import multiprocessing
import os
import signal
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.admission import Admission, period_of
from manyminds.board import Board
from manyminds.errors import BudgetError, RateLimitError
from manyminds.ledger import Ledger
from manyminds.types import Terms
from tests.admission.ledger import NANO, FakeLedger, Time, door
from tests.clock import run
from tests.ledger.conftest import server, url

__all__ = ["server", "url"]  # fixtures

TERMS = Terms(budget_nats=1.0)
MONTH = ("source:ann", "2026-11")


def test_what_is_left_is_granted_and_then_nothing() -> None:
    async def main() -> None:
        ledger, time = FakeLedger(), Time()
        sources = door({}, ledger, time, open=True).sources
        holds = [await sources.reserve("ann", TERMS, 0.4, 0.01) for _ in range(3)]
        assert [hold.amount for hold in holds] == [0.4, 0.4, pytest.approx(0.2)]
        with pytest.raises(
            BudgetError, match=r"source 'ann' has given or set aside all but 0 nats of the 1 nats"
        ):
            await sources.reserve("ann", TERMS, 0.4, 0.01)
        holds[0].settle(0.1)
        assert (await sources.reserve("ann", TERMS, 2.0, 0.01)).amount == pytest.approx(0.3)
        time.pass_s(1.1)
        holds[1].settle(0.395)
        with pytest.raises(BudgetError):
            await sources.reserve("ann", TERMS, 2.0, 0.01)  # .005 are too few
        assert ledger.leased[MONTH] <= NANO

    run(main())


def test_a_budget_of_next_to_nothing_is_none() -> None:
    async def main() -> None:
        sources = door({}, open=True).sources
        for nats in (0.0, 0.005):
            with pytest.raises(BudgetError):
                await sources.reserve("ann", Terms(budget_nats=nats), 2.0, 0.01)

    run(main())


def test_keys_that_are_read_anew_take_no_purse_away() -> None:
    async def main() -> None:
        ledger = FakeLedger()
        admission = door({}, ledger, open=True)
        (await admission.sources.reserve("ann", TERMS, 0.5, 0.01)).settle(0.1)
        admission.replace({})
        asked = len(ledger.asked)
        await admission.sources.reserve("ann", TERMS, 0.3, 0.01)
        assert len(ledger.asked) == asked
        await admission.close()
        assert ledger.leased[MONTH] == round(0.4 * NANO)

    run(main())


def test_another_budget_counts_from_the_next_question_on() -> None:
    async def main() -> None:
        ledger, time = FakeLedger(), Time()
        sources = door({}, ledger, time, open=True).sources
        (await sources.reserve("ann", TERMS, 0.9, 0.01)).settle(0.9)
        assert (await sources.reserve("ann", Terms(budget_nats=1.5), 2.0, 0.01)).amount == pytest.approx(0.6)
        time.pass_s(1.1)
        with pytest.raises(BudgetError):
            await sources.reserve("ann", Terms(budget_nats=0.5), 2.0, 0.01)

    run(main())


def test_a_rate_is_of_all_callers_together() -> None:
    time = Time()
    sources, terms = door({}, None, time, open=True).sources, Terms(requests_per_min=2)
    sources.take("bob", Terms())
    for _ in range(2):
        sources.take("ann", terms)
    with pytest.raises(
        RateLimitError, match=r"'ann' lets itself be asked 2 times a minute: try again in 30"
    ) as e:
        sources.take("ann", terms)
    assert e.value.retry_after_s == pytest.approx(30.0)
    time.pass_s(30.0)
    sources.take("ann", terms)
    with pytest.raises(RateLimitError):
        sources.take("ann", terms)


def test_a_rate_is_of_all_processes_together() -> None:
    with closing(Board.make(2)) as board:
        time, terms = Time(), Terms(requests_per_min=3)
        one, other = (door({}, None, time, open=True, board=board, column=i).sources for i in range(2))
        for sources in (one, other, one):
            sources.take("ann", terms)
        for sources in (one, other):
            with pytest.raises(RateLimitError):
                sources.take("ann", terms)


nats = st.integers(0, 3000).map(lambda i: i / 1000)


@given(st.lists(st.tuples(st.integers(0, 2), nats, st.integers(0, 100)), max_size=40), nats, st.booleans())
def test_no_race_spends_more_than_there_is(
    plan: list[tuple[int, float, int]], budget: float, together: bool
) -> None:
    """Three gateways on one ledger, each asking for more than may be left, and settling to less."""

    async def main() -> None:
        ledger, time, terms, spent = FakeLedger(delay_s=0.001), Time(), Terms(budget_nats=budget), 0.0
        doors = [door({}, ledger, time, open=True) for _ in range(3)]

        async def ask(who: int, most: float, percent: int) -> None:
            nonlocal spent
            try:
                hold = await doors[who].sources.reserve("ann", terms, max(0.01, most), 0.01)
            except BudgetError:
                return
            assert 0.01 <= hold.amount <= max(0.01, most) + 1e-9
            await asyncio.sleep(0.01)
            moved = hold.amount * percent / 100
            hold.settle(moved)
            spent += moved

        if together:
            await asyncio.gather(*(ask(*one) for one in plan))
        else:
            for one in plan:
                time.pass_s(1.1)
                await ask(*one)
        assert spent <= budget + 1e-6
        for admission in doors:
            await admission.close()
        assert spent * NANO <= ledger.leased[MONTH] + 1 <= budget * NANO + 1

    run(main())


# --- real processes --------------------------------------------------------------------------------


def _spend(url: str, seed: int, start: Barrier, said: Connection) -> None:
    """A gateway that answers ten questions at once until it is killed, or nothing is left."""
    start.wait()
    asyncio.run(_spending(url, Random(seed), said))


async def _spending(url: str, random: Random, said: Connection) -> None:
    ledger = Ledger(url, busy_s=30.0)

    async def lease(*args: Any) -> int:
        return await asyncio.to_thread(ledger.lease, *args)

    async def give_back(*args: Any) -> None:
        await asyncio.to_thread(ledger.give_back, *args)

    admission = Admission({}, open=True, most_at_once=100, lease=lease, give_back=give_back)
    terms = Terms(budget_nats=20.0, period="total")

    async def answer() -> None:
        refused = 0
        while refused < 3:
            try:
                hold = await admission.sources.reserve("ann", terms, random.random() / 5 + 0.01, 0.01)
            except BudgetError:
                refused += 1
                await asyncio.sleep(0.4)
                continue
            moved = hold.amount * random.random()
            said.send(moved)  # it has moved an answer, whatever becomes of this process
            await asyncio.sleep(0.01)
            hold.settle(moved)

    await asyncio.gather(*(answer() for _ in range(10)))
    await admission.close()
    ledger.close()


def _heard(ear: Connection) -> list[float]:
    found = []
    try:
        while ear.poll(0):
            found.append(ear.recv())
    except EOFError:
        pass
    return found


def test_killed_and_racing_processes_spend_no_more_than_there_is(url: str, tmp_path: Path) -> None:
    Ledger(url).close()
    context = multiprocessing.get_context("spawn")
    ears, processes, start = [], [], context.Barrier(4)
    for seed in range(4):
        ear, said = context.Pipe(duplex=False)
        process = context.Process(target=partial(_spend, url, seed, start, said))
        process.start()
        said.close()
        ears.append(ear)
        processes.append(process)
    spent: list[float] = []
    for process, ear in zip(processes[:2], ears, strict=False):
        assert ear.poll(60)
        spent += [ear.recv() for _ in range(5)]
        os.kill(process.pid or 0, signal.SIGKILL)
    for process in processes:
        while process.is_alive():
            for ear in ears:
                spent += _heard(ear)
            process.join(0.02)
    for ear in ears:
        spent += _heard(ear)
        ear.close()
    assert [process.exitcode for process in processes] == [-9, -9, 0, 0]
    with closing(Ledger(url)) as ledger:
        leased = ledger.leased("source:ann", "total") / 1e9
    assert sum(spent) <= leased + 1e-6 <= 20.0 + 2e-6
    assert sum(spent) > 10.0, "much less was spent than there was"


def test_the_period_is_the_terms_own() -> None:
    async def main() -> None:
        ledger, time = FakeLedger(), Time()
        sources = door({}, ledger, time, open=True).sources
        for _ in range(2):
            (await sources.reserve("ann", Terms(budget_nats=1.0, period="day"), 1.0, 0.01)).settle(1.0)
            time.pass_s(24 * 3600)
        assert [period for _, period in ledger.leased] == ["2026-11-22", "2026-11-23"]
        assert period_of(sources.budgets["source:ann"], time.now()) == "2026-11-24"

    run(main())
