"""Requests that need a lease: their order, who goes away, and a ledger that does."""

import asyncio

import pytest

from manyminds.admission import Admission, Hold, digest
from manyminds.admission.budget import nano
from manyminds.errors import BudgetError, UnavailableError
from tests.admission.ledger import ALICE, MONTH, NANO, SECRET, FakeLedger, door, key, spend, turns
from tests.clock import run

# --- order -----------------------------------------------------------------------------------------


def test_requests_that_wait_share_a_lease() -> None:
    async def story() -> None:
        ledger = FakeLedger(delay_s=1.0)
        admission = door(ALICE, ledger)
        first = [asyncio.ensure_future(admission.reserve(ALICE, 0.05)) for _ in range(8)]
        await asyncio.sleep(0.5)
        second = [asyncio.ensure_future(admission.reserve(ALICE, 0.05)) for _ in range(8)]
        await asyncio.gather(*first, *second)
        assert [nusd for *_, nusd, _ in ledger.asked] == [nano(0.4), nano(0.4)]
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)

    run(story())


def test_nobody_is_overtaken_while_waiting() -> None:
    async def story() -> None:
        admission = door(ALICE, FakeLedger(delay_s=1.0))
        await spend(admission, 0.01, 0.0)  # small ones could be served at once
        order: list[float] = []

        async def ask(usd: float) -> None:
            await admission.reserve(ALICE, usd)
            order.append(usd)

        async with asyncio.TaskGroup() as group:
            for usd in (0.5, 0.001, 0.002):
                group.create_task(ask(usd))
        assert order == [0.5, 0.001, 0.002]

    run(story())


def test_near_the_end_whoever_fits_is_served_and_the_others_refused() -> None:
    async def story() -> None:
        ledger = FakeLedger(delay_s=1.0)
        ledger.leased[MONTH] = nano(0.8)
        admission = door(ALICE, ledger)
        asks = [asyncio.ensure_future(admission.reserve(ALICE, usd)) for usd in (0.15, 0.1, 0.05)]
        first, second, third = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(first, Hold)
        assert isinstance(second, BudgetError)
        assert isinstance(third, Hold)
        assert ledger.leased[MONTH] == NANO

    run(story())


@pytest.mark.parametrize("away", [False, True])
def test_who_went_away_while_waiting_does_not_stand_in_the_way_of_the_others(away: bool) -> None:
    async def story() -> None:
        ledger = FakeLedger(delay_s=1.0)
        ledger.leased[MONTH] = nano(0.8)
        admission = door(ALICE, ledger)
        asks = [asyncio.ensure_future(admission.reserve(ALICE, usd)) for usd in (0.15, 0.15, 0.05, 0.1)]
        await asyncio.sleep(0.5)
        asks[0].cancel()
        asks[1].cancel()
        ledger.away = away
        *_, third, fourth = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(third, UnavailableError if away else Hold)
        assert isinstance(fourth, UnavailableError if away else Hold)
        await admission.close()

    run(story())


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("turns_before", range(8))
def test_who_is_cancelled_at_any_await_loses_nothing(which: int, turns_before: int) -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        asks = [asyncio.ensure_future(admission.reserve(ALICE, 0.2)) for _ in range(3)]
        await turns(turns_before)
        asks[which].cancel()
        done = await asyncio.gather(*asks, return_exceptions=True)
        assert sum(isinstance(hold, Hold) for hold in done) in (2, 3)
        for hold in done:
            if isinstance(hold, Hold):
                hold.settle(0.0)
        await admission.close()
        assert ledger.leased[MONTH] == 0

    run(story())


def test_a_lease_under_way_outlives_whoever_asked_for_it() -> None:
    async def story() -> None:
        ledger = FakeLedger(delay_s=1.0)
        admission = door(ALICE, ledger)
        ask = asyncio.ensure_future(admission.reserve(ALICE, 0.2))
        await asyncio.sleep(0.5)
        ask.cancel()
        await asyncio.wait([ask])
        assert ask.cancelled()
        assert asyncio.get_running_loop().time() == pytest.approx(0.5)  # nothing holds up who is cancelled
        await spend(admission, 0.2)
        assert len(ledger.asked) == 1
        await admission.close()
        assert ledger.leased[MONTH] == nano(0.2)

    run(story())


def test_closing_waits_for_a_lease_under_way_and_gives_it_back() -> None:
    async def story() -> None:
        ledger = FakeLedger(delay_s=1.0)
        admission = door(ALICE, ledger)
        ask = asyncio.ensure_future(admission.reserve(ALICE, 0.2))
        await asyncio.sleep(0.5)
        ask.cancel()
        await admission.close()
        assert ask.cancelled()
        assert ledger.leased[MONTH] == 0

    run(story())


def test_an_ended_loop_leaves_nobody_waiting() -> None:
    async def never(*_: object) -> int:
        await asyncio.Event().wait()
        return 0

    async def back(*_: object) -> None: ...

    async def story() -> asyncio.Future[Hold]:
        admission = Admission(
            {digest(SECRET): ALICE}, open=False, most_at_once=1, lease=never, give_back=back
        )
        ask = asyncio.ensure_future(admission.reserve(ALICE, 0.2))
        await turns()
        return ask

    assert asyncio.run(story()).cancelled()


# --- a ledger that is away -------------------------------------------------------------------------


def test_without_the_ledger_only_what_is_leased_is_spent() -> None:
    async def story() -> None:
        rich = key("bob")
        ledger = FakeLedger(away=True)
        admission = door({digest(SECRET): ALICE, digest("mm-bob"): rich}, ledger)
        with pytest.raises(UnavailableError) as refused:
            await admission.reserve(ALICE, 0.1)
        assert refused.value.status == 503
        assert "'alice'" in refused.value.message
        (await admission.reserve(rich, 0.1)).settle(0.1)
        assert ledger.leased[MONTH] == 0
        ledger.away = False
        await spend(admission, 0.01, 0.0)
        ledger.away = True
        asks = [asyncio.ensure_future(admission.reserve(ALICE, usd)) for usd in (0.02, 0.01, 0.03)]
        first, second, third = await asyncio.gather(*asks, return_exceptions=True)
        assert isinstance(first, UnavailableError)
        assert isinstance(second, Hold)
        assert isinstance(third, UnavailableError)

    run(story())


def test_a_failure_that_nobody_foresaw_leaves_nobody_waiting() -> None:
    async def broken(*_: object) -> int:
        raise ZeroDivisionError

    async def story() -> None:
        admission = Admission(
            {digest(SECRET): ALICE},
            open=False,
            most_at_once=1,
            lease=broken,
            give_back=FakeLedger().give_back,
        )
        with pytest.raises(UnavailableError):
            await admission.reserve(ALICE, 0.1)

    run(story())


def test_closing_without_the_ledger_forfeits_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        await spend(admission, 0.5, 0.0)
        ledger.away = True
        await admission.close()
        assert ledger.leased[MONTH] == nano(0.5)
        assert "not given back: The ledger is locked." in caplog.text

    run(story())


def test_a_debt_survives_a_ledger_that_was_away() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        await spend(admission, 0.3, 0.4)
        ledger.away = True
        await admission.close()
        ledger.away = False
        await admission.close()
        assert ledger.leased[MONTH] == nano(0.4)

    run(story())
