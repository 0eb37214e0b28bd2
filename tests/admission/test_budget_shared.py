"""Several processes that spend one budget: what one has leased and does not need, another can have."""

import asyncio
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.admission import Admission
from manyminds.board import Board
from manyminds.errors import BudgetError
from tests.admission.ledger import ALICE, MONTH, NANO, FakeLedger, Time, door, turns
from tests.clock import run


def together(ledger: FakeLedger, count: int, time: Time, board: Board | None = None) -> list[Admission]:
    """Doors that recall from each other."""
    doors: list[Admission] = []

    def made(number: int) -> Admission:
        async def recall(key_id: str) -> None:
            others = [door for n, door in enumerate(doors) if n != number]
            await asyncio.gather(*(door.give_back(key_id) for door in others))

        return door(ALICE, ledger, time, recall=recall, board=board, column=number)

    doors += [made(number) for number in range(count)]
    return doors


def test_who_is_short_has_what_another_does_not_need() -> None:
    async def main() -> None:
        ledger, time = FakeLedger(delay_s=0.01), Time()
        one, other = together(ledger, 2, time)
        (await one.reserve(ALICE, 0.95)).settle(0.05)  # .9 come back, of which little stays
        (await other.reserve(ALICE, 0.9)).settle(0.0)
        held = await one.reserve(ALICE, 0.5)
        with pytest.raises(BudgetError):
            await other.reserve(ALICE, 0.46)  # .45 are left everywhere
        time.pass_s(1.0)
        (await other.reserve(ALICE, 0.45)).settle(0.45)
        held.settle(0.5)
        for admission in (one, other):
            await admission.close()
        assert ledger.leased[MONTH] == NANO

    run(main())


def test_who_was_refused_is_not_where_money_has_come_back_to_another() -> None:
    async def main() -> None:
        with closing(Board.make(3)) as board:
            ledger, time = FakeLedger(), Time()
            one, other, third = together(ledger, 3, time, board)
            held = [await one.reserve(ALICE, 0.5), await other.reserve(ALICE, 0.45)]
            with pytest.raises(BudgetError):
                await third.reserve(ALICE, 0.1)
            asked = len(ledger.asked)
            with pytest.raises(BudgetError):
                await third.reserve(ALICE, 0.1)
            assert len(ledger.asked) == asked, "the ledger was asked again for what it does not have"
            held[0].settle(0.45)
            await third.reserve(ALICE, 0.1)  # of what `one` has, and the ledger
            held[1].settle(0.0)
            with pytest.raises(BudgetError):
                await one.reserve(ALICE, 0.46)
            await third.reserve(ALICE, 0.4)
            await one.reserve(ALICE, 0.05)

    run(main())


def test_a_ledger_that_fails_is_told_to_who_asked_and_not_to_who_gives_back() -> None:
    async def main() -> None:
        ledger = FakeLedger()
        one, other = together(ledger, 2, Time())
        (await one.reserve(ALICE, 0.1)).settle(0.0)
        ledger.away = True
        await one.give_back("k-alice")
        await one.give_back("k-nobody")
        ledger.away = False
        await other.reserve(ALICE, 0.9)
        with pytest.raises(BudgetError):  # what was not given back is forfeited
            await other.reserve(ALICE, 0.1)

    run(main())


def test_what_goes_back_arrives_also_where_nobody_waits_for_it_any_longer() -> None:
    class Slow(FakeLedger):
        async def give_back(self, key_id: str, period: str, nusd: int) -> None:
            await asyncio.sleep(self.delay_s)
            await super().give_back(key_id, period, nusd)

    async def main() -> None:
        ledger = Slow(delay_s=0.01)
        admission = door(ALICE, ledger)
        (await admission.reserve(ALICE, 0.1)).settle(0.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(admission.give_back("k-alice"), 0.001)
        await admission.close()
        assert ledger.leased[MONTH] == 0

    run(main())


amounts = st.sampled_from([0.003, 0.01, 0.07, 0.3, 1.0])


@given(
    st.lists(st.tuples(st.integers(0, 3), amounts, st.sampled_from([0.0, 0.3, 1.0])), max_size=40),
    st.booleans(),
)
def test_no_more_is_spent_than_leased_and_all_that_is_left_can_be(
    plan: list[tuple[int, float, float]], at_once: bool
) -> None:
    async def main() -> None:
        ledger, time = FakeLedger(delay_s=0.001), Time()
        doors, spent = together(ledger, 4, time), 0.0

        async def ask(who: int, usd: float, share: float) -> None:
            nonlocal spent
            try:
                hold = await doors[who].reserve(ALICE, usd)
            except BudgetError:
                return
            await asyncio.sleep(0.01)
            hold.settle(usd * share)
            spent += usd * share

        if at_once:
            await asyncio.gather(*(ask(*one) for one in plan))
        else:
            for one in plan:
                time.pass_s(1.1)
                await ask(*one)
        time.pass_s(1.1)
        left = int((1.0 - spent) * NANO) - len(plan)  # each is rounded up to a whole one
        if left > 0:
            (await doors[0].reserve(ALICE, left / NANO)).settle(0.0)
        for admission in doors:
            await admission.close()
        assert spent * NANO <= ledger.leased[MONTH] + 1 <= spent * NANO + len(plan) + 1

    run(main())


# --- who dies --------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(amounts, st.sampled_from([0.0, 0.3, 1.0])), max_size=10), st.lists(amounts, max_size=3)
)
def test_who_dies_forfeits_what_it_had_put_aside_and_nothing_else(
    settled: list[tuple[float, float]], under_way: list[float]
) -> None:
    async def main() -> None:
        with closing(Board.make(2)) as board:
            ledger, time, spent = FakeLedger(), Time(), 0.0
            dies = door(ALICE, ledger, time, board=board, column=1)
            for usd, share in settled:
                time.pass_s(1.1)
                try:
                    (await dies.reserve(ALICE, usd)).settle(usd * share)
                except BudgetError:
                    continue
                spent += usd * share
            for usd in under_way:
                time.pass_s(1.1)
                try:
                    await dies.reserve(ALICE, usd)
                except BudgetError:
                    continue
                spent += usd
            await turns()  # what it has the ledger do ends, too
            before = ledger.leased[MONTH]
            await door(ALICE, ledger, time, board=board, column=0).recover()
            assert ledger.leased[MONTH] == before, "another's money was given back"
            for _ in range(2):
                await door(ALICE, ledger, time, board=board, column=1).recover()
                assert -1 <= ledger.leased[MONTH] - spent * NANO <= len(settled) + 1

    run(main())


def test_what_is_given_back_in_good_order_is_not_given_back_again() -> None:
    async def main() -> None:
        with closing(Board.make(1)) as board:
            ledger, time = FakeLedger(), Time()
            first = door(ALICE, ledger, time, board=board)
            (await first.reserve(ALICE, 0.5)).settle(0.2)
            await first.close()
            assert ledger.leased[MONTH] == 0.2 * NANO
            await door(ALICE, ledger, time, board=board).recover()
            assert ledger.leased[MONTH] == 0.2 * NANO
            other = door(ALICE, ledger, time, board=board)
            (await other.reserve(ALICE, 0.1)).settle(0.0)
            ledger.away = True
            await door(ALICE, ledger, time, board=board).recover()  # never raises: it is forfeited

    run(main())
