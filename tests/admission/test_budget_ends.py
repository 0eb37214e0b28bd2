"""Periods, budgets and keys that come to an end, and gateways that share a budget."""

import asyncio
from collections.abc import Callable

import pytest

from manyminds.admission import Admission, Hold, digest
from manyminds.admission.budget import nano
from manyminds.errors import BudgetError
from manyminds.types import Key
from tests.admission.ledger import ALICE, MONTH, NANO, SECRET, FakeLedger, Time, door, key, spend
from tests.clock import run


def test_a_new_period_begins_anew_and_the_old_block_goes_back() -> None:
    async def story() -> None:
        ledger, time = FakeLedger(), Time()
        admission = door(ALICE, ledger, time)
        late = await admission.reserve(ALICE, 0.3)
        await spend(admission, 0.6, 0.1)
        time.pass_s(8.5 * 86400)  # to midnight sharp
        await spend(admission, 0.9)
        assert ledger.returned == [(*MONTH, nano(0.5))]
        late.settle(0.25)  # to the period it was reserved in
        await spend(admission, 0.1)
        assert ledger.leased == {MONTH: nano(0.35), ("k-alice", "2026-12"): NANO}

    run(story())


def test_an_overrun_of_an_old_period_is_leased_there() -> None:
    async def story() -> None:
        ledger, time = FakeLedger(), Time()
        admission = door(ALICE, ledger, time)
        late = await admission.reserve(ALICE, 0.3)
        time.pass_s(9 * 86400)
        await spend(admission, 0.1)
        late.settle(0.4)
        await spend(admission, 0.9)
        assert ledger.leased == {MONTH: nano(0.4), ("k-alice", "2026-12"): NANO}

    run(story())


def test_an_old_debt_that_no_budget_covers_is_asked_for_once() -> None:
    async def story() -> None:
        ledger, time = FakeLedger(), Time()
        admission = door(ALICE, ledger, time)
        await spend(admission, 1.0, 1.5)
        time.pass_s(9 * 86400)
        for _ in range(3):
            await spend(admission, 0.2)
        assert [period for _, period, *_ in ledger.asked] == ["2026-11", "2026-11", *["2026-12"] * 3]

    run(story())


def test_two_leases_at_once_do_not_both_lease_an_old_debt() -> None:
    async def story() -> None:
        people = [key(name, budget_usd=1.0) for name in ("alice", "bob", "carol")]
        ledger = FakeLedger(delay_s=1.0)
        admission = door({digest(person.name): person for person in people}, ledger)
        await spend(admission, 0.3, 0.5)
        admission.replace({digest(person.name): person for person in people[1:]})
        await asyncio.gather(*[admission.reserve(person, 0.1) for person in people[1:]])
        assert [asked[0] for asked in ledger.asked[1:]].count("k-alice") == 1
        assert ledger.leased[MONTH] == nano(0.5)

    run(story())


@pytest.mark.parametrize(
    ("after", "leased_usd"),
    [(key(budget_usd=1.0, tokens_per_min=5), 0.6), (key(budget_usd=2.0), 0.1), (key(), 0.1), (None, 0.1)],
)
def test_a_budget_that_changed_gives_back_its_block_and_one_that_did_not_keeps_it(
    after: Key | None, leased_usd: float
) -> None:
    async def story() -> None:
        bob = key("bob", budget_usd=1.0)
        ledger = FakeLedger()
        keys = {digest(SECRET): ALICE, digest("mm-bob"): bob}
        admission = door(keys, ledger)
        await spend(admission, 0.6, 0.1)
        admission.replace({digest("mm-bob"): bob} | ({digest(SECRET): after} if after else {}))
        await admission.reserve(bob, 0.1)  # the next lease of anybody
        assert ledger.leased[MONTH] == nano(leased_usd)

    run(story())


@pytest.mark.parametrize(("budget_usd", "fits"), [(0.5, False), (0.61, True), (3.0, True)])
def test_a_changed_budget_counts_from_the_next_request_on(budget_usd: float, fits: bool) -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        await spend(admission, 0.6, 0.3)
        await admission.reserve(ALICE, 0.2)
        admission.replace({digest(SECRET): key(budget_usd=budget_usd)})
        (result,) = await asyncio.gather(admission.reserve(ALICE, 0.1), return_exceptions=True)
        assert isinstance(result, Hold if fits else BudgetError)
        assert ledger.asked[-1][-1] == nano(budget_usd)

    run(story())


def test_two_gateways_never_spend_more_than_one_budget() -> None:
    async def story() -> None:
        ledger = FakeLedger(delay_s=0.01)
        gateways = [door(ALICE, ledger), door(ALICE, ledger)]
        spent = 0

        async def work(admission: Admission, cost: Callable[[int], float]) -> None:
            nonlocal spent
            for i in range(60):
                try:
                    hold = await admission.reserve(ALICE, 0.033)
                except BudgetError:
                    continue
                await asyncio.sleep(0.003)
                hold.settle(cost(i))
                spent += nano(cost(i))

        async with asyncio.TaskGroup() as group:
            for admission in gateways * 4:
                group.create_task(work(admission, lambda i: 0.0007 * (i % 48)))
        for admission in gateways:
            await admission.close()
        assert nano(0.9) < spent <= NANO
        assert ledger.leased[MONTH] == spent

    run(story())
