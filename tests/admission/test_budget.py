"""What is leased, held, settled and given back; who waits is in test_budget_waiting.py."""

import math
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.admission import period_of
from manyminds.admission.budget import nano
from manyminds.errors import BudgetError
from manyminds.types import Key
from tests.admission.ledger import ALICE, MONTH, NANO, FakeLedger, Time, door, key, spend, turns
from tests.clock import run

# --- money and time --------------------------------------------------------------------------------


@given(st.integers(0, 10**15))
def test_nano_dollars_that_went_through_a_float_come_back(nusd: int) -> None:
    assert nano(nusd / 1e9) == nusd


@given(st.integers(0, 10**15))
def test_a_hair_more_is_one_nano_dollar_more(nusd: int) -> None:
    assert nano(math.nextafter(nusd / 1e9, math.inf)) == nusd + 1


@given(st.floats(0, 1e6))
def test_no_fewer_nano_dollars_would_do(usd: float) -> None:
    nusd = nano(usd)
    assert nusd / 1e9 >= usd
    assert nusd == 0 or (nusd - 1) / 1e9 < usd


@given(st.floats(1e6, 1e9))
def test_large_sums_are_not_rounded_down_either(usd: float) -> None:
    assert 0 <= nano(usd) - Fraction(usd) * 10**9 < 1 + Fraction(usd) / 10**8


@pytest.mark.parametrize("usd", [-1e-12, math.nan, math.inf, -math.inf, 2e9])
def test_what_is_no_sum_of_money_is_no_number_of_nano_dollars(usd: float) -> None:
    with pytest.raises(ValueError, match="is no amount"):
        nano(usd)


EAST = timezone(timedelta(hours=9))
PERIODS = [
    ("day", datetime(2026, 11, 22, 23, 59, 59, 999_999, UTC), "2026-11-22"),
    ("day", datetime(2026, 11, 23, 8, 59, tzinfo=EAST), "2026-11-22"),
    ("month", datetime(2026, 12, 1, 8, 59, tzinfo=EAST), "2026-11"),
    ("month", datetime(2026, 12, 1, 9, 0, tzinfo=EAST), "2026-12"),
    ("total", datetime(2026, 11, 22, tzinfo=UTC), "total"),
]


@pytest.mark.parametrize(("period", "now", "expected"), PERIODS)
def test_periods_are_in_utc(period: str, now: datetime, expected: str) -> None:
    assert period_of(key(period=period), now) == expected


@given(st.sampled_from(["day", "month"]), st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)))
def test_a_refusal_says_when_the_next_period_begins(period: str, naive: datetime) -> None:
    time = Time(start=naive.replace(tzinfo=UTC))
    poor = key(budget_usd=0.5, period=period)
    with pytest.raises(BudgetError) as refused:
        run(door(poor, time=time).reserve(poor, 0.6))
    wait_s = refused.value.retry_after_s
    assert wait_s is not None
    end = time.now() + timedelta(seconds=wait_s)
    assert period_of(poor, end + timedelta(milliseconds=1)) != period_of(poor, time.now())
    assert period_of(poor, end - timedelta(milliseconds=1)) == period_of(poor, time.now())
    assert f"{end + timedelta(milliseconds=1):%Y-%m-%d} 00:00 UTC" in refused.value.message


def test_refusals_say_what_is_left_what_it_costs_and_what_to_do() -> None:
    async def refusals(budget: Key) -> tuple[str, float | None]:
        admission = door(budget)
        (await admission.reserve(budget, 0.9)).settle(0.8765)
        with pytest.raises(BudgetError) as refused:
            await admission.reserve(budget, 0.25)
        await admission.close()
        return refused.value.message, refused.value.retry_after_s

    assert run(refusals(ALICE)) == (
        "The key 'alice' has spent or reserved all but $0.1235 of its $1.00 for 2026-11, and this request "
        "may cost $0.25. Lower max_tokens, ask for a cheaper policy, or wait until 2026-12-01 00:00 UTC.",
        8.5 * 86400,
    )
    assert run(refusals(key(budget_usd=1.0, period="total"))) == (
        "The key 'alice' has spent or reserved all but $0.1235 of its $1.00 for ever, and this request may "
        "cost $0.25. Lower max_tokens, ask for a cheaper policy, or ask the node's owner for more.",
        None,
    )


# --- blocks ----------------------------------------------------------------------------------------


def test_the_ledger_is_asked_once_for_many_requests() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        for _ in range(100):
            await spend(admission, 0.0001)
        assert ledger.asked == [(*MONTH, NANO // 100, NANO)]
        await spend(admission, 0.07)
        assert ledger.asked[1:] == [(*MONTH, 7 * NANO // 100, NANO)]
        await admission.close()
        assert ledger.leased[MONTH] == nano(0.08)

    run(story())


def test_a_budget_divides_into_tenths_without_a_rest() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        for _ in range(10):
            await admission.reserve(ALICE, 0.1)
        with pytest.raises(BudgetError, match=r"all but \$0\.00 of"):
            await admission.reserve(ALICE, 1e-9)
        assert ledger.leased[MONTH] == NANO

    run(story())


def test_what_is_left_is_granted_and_serves_smaller_requests() -> None:
    async def story() -> None:
        ledger, time = FakeLedger(), Time()
        ledger.leased[MONTH] = nano(0.995)
        admission = door(ALICE, ledger, time)
        with pytest.raises(BudgetError, match=r"all but \$0\.005 of its"):
            await admission.reserve(ALICE, 0.02)
        await spend(admission, 0.005)
        assert ledger.asked == [(*MONTH, nano(0.02), NANO)]

    run(story())


def test_an_empty_ledger_is_not_asked_again_within_a_second() -> None:
    async def story() -> None:
        ledger, time = FakeLedger(), Time()
        ledger.leased[MONTH] = NANO
        admission = door(ALICE, ledger, time)
        for _ in range(50):
            with pytest.raises(BudgetError):
                await admission.reserve(ALICE, 0.01)
        assert len(ledger.asked) == 1
        ledger.leased[MONTH] -= nano(0.01)  # another gateway gave it back
        time.pass_s(1.0)
        await spend(admission, 0.01)

    run(story())


def test_what_can_never_be_granted_is_not_leased() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        with pytest.raises(BudgetError):
            await door(ALICE, ledger).reserve(ALICE, 1.01)
        assert ledger.asked == []

    run(story())


def test_free_requests_need_no_lease() -> None:
    async def story() -> None:
        ledger = FakeLedger(away=True)
        await spend(door(ALICE, ledger), 0.0)
        assert ledger.asked == []

    run(story())


def test_what_a_burst_left_over_goes_back_to_other_gateways() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        one, two = door(ALICE, ledger), door(ALICE, ledger)
        holds = [await one.reserve(ALICE, 0.09) for _ in range(11)]
        for hold in holds:
            hold.settle(0.001)
        await spend(one, 0.001)
        await turns()
        await spend(two, 0.9)
        await one.close()
        await two.close()
        assert ledger.leased[MONTH] == nano(0.912)

    run(story())


def test_what_went_back_is_there_again_at_once() -> None:
    async def main() -> None:
        node = door(ALICE)
        holds = [await node.reserve(ALICE, 0.2) for _ in range(5)]
        with pytest.raises(BudgetError):
            await node.reserve(ALICE, 0.2)
        for hold in holds:
            hold.settle(0.0)
        (await node.reserve(ALICE, 0.01)).settle(0.0)  # now all but a hundredth goes back
        await turns()
        (await node.reserve(ALICE, 0.2)).settle(0.2)

    run(main())


def test_a_refused_giant_leaves_the_rest_to_other_gateways() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        ledger.leased[MONTH] = NANO // 2
        one, two = door(ALICE, ledger), door(ALICE, ledger)
        with pytest.raises(BudgetError):
            await one.reserve(ALICE, 0.6)
        await turns()
        await spend(one, 0.1)
        await spend(two, 0.35)

    run(story())


# --- settling --------------------------------------------------------------------------------------


def test_only_the_first_settlement_counts() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        hold = await admission.reserve(ALICE, 0.5)
        hold.settle(0.2)
        hold.settle(0.0)
        hold.settle(0.5)
        await admission.close()
        assert ledger.leased[MONTH] == nano(0.2)

    run(story())


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -0.1, 1e300])
def test_what_is_no_sum_of_money_counts_as_all_that_was_held(garbage: float) -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        await spend(admission, 0.3, garbage)
        await admission.close()
        assert ledger.leased[MONTH] == nano(0.3)

    run(story())


def test_an_overrun_is_leased_with_what_comes_next() -> None:
    async def story() -> None:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        await spend(admission, 0.3, 0.5)
        assert ledger.leased[MONTH] == nano(0.3)
        await spend(admission, 0.1)
        assert ledger.leased[MONTH] == nano(0.6)
        with pytest.raises(BudgetError):
            await admission.reserve(ALICE, 0.41)
        await admission.close()
        assert ledger.leased[MONTH] == nano(0.6)

    run(story())


def test_an_overrun_is_leased_at_the_end_as_far_as_the_budget_goes() -> None:
    async def story(spent_usd: float) -> int:
        ledger = FakeLedger()
        admission = door(ALICE, ledger)
        await spend(admission, 0.3, spent_usd)
        await admission.close()
        await admission.close()
        return ledger.leased[MONTH]

    assert run(story(0.7)) == nano(0.7)
    assert run(story(1.7)) == NANO


def test_who_owes_gets_nothing_before_it_is_leased() -> None:
    async def story() -> None:
        admission = door(ALICE, FakeLedger())
        await spend(admission, 0.3, 1.2)
        with pytest.raises(BudgetError, match=r"all but \$0\.00 of"):
            await admission.reserve(ALICE, 0.0)

    run(story())
