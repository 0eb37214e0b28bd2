"""Accounts of private answers: what each costs a source, by all of its terms, and never more."""

import pytest

from manyminds.config import Private
from manyminds.errors import BudgetError, RateLimitError
from manyminds.node.accounts import ACCOUNTS, bank
from manyminds.private import Account
from manyminds.types import Terms
from tests.admission.ledger import NANO, FakeLedger, Time, door
from tests.clock import run


def account(most: float = 1.0, cost: float = 0.4, terms: Terms | None = None) -> Account:
    return Account("ann", "ann", most, cost, terms or Terms(), 2 * cost)


def test_an_answer_is_paid_whole_or_not_at_all() -> None:
    async def main() -> None:
        ledger = FakeLedger()
        admission = door({}, ledger, Time(), open=True)
        spend = bank(admission, Private(), 2.0).spend
        for paid in (0.4, 0.0, 0.4):
            (await spend(account())).settle(paid)
        with pytest.raises(BudgetError):
            await spend(account())
        await admission.close()
        assert ledger.leased[ACCOUNTS + "ann", "total"] == 0.8 * NANO

    run(main())


def test_all_that_was_told_counts_for_ever() -> None:
    """Neither a new month nor keys that come and go begin it anew."""

    async def main() -> None:
        time = Time()
        admission = door({}, FakeLedger(), time, open=True)
        spend = bank(admission, Private(), 2.0).spend
        (await spend(account())).settle(0.4)
        admission.replace({})
        time.pass_s(100 * 86_400.0)
        (await spend(account())).settle(0.4)
        with pytest.raises(BudgetError):
            await spend(account())
        await admission.close()

    run(main())


def test_another_limit_holds_at_once_and_what_was_spent_stays_spent() -> None:
    async def main() -> None:
        ledger = FakeLedger()
        admission = door({}, ledger, Time(), open=True)
        spend = bank(admission, Private(), 2.0).spend
        (await spend(account())).settle(0.4)
        with pytest.raises(BudgetError):
            await spend(account(most=0.5))
        (await spend(account(most=1.3))).settle(0.4)
        (await spend(account(most=1.3))).settle(0.4)
        with pytest.raises(BudgetError):
            await spend(account(most=1.3))
        await admission.close()
        assert ledger.leased[ACCOUNTS + "ann", "total"] == pytest.approx(1.2 * NANO, abs=3)

    run(main())


def test_a_sources_other_terms_hold_and_cost_nothing_where_they_refuse() -> None:
    async def main() -> None:
        ledger = FakeLedger()
        admission = door({}, ledger, Time(), open=True)
        spend = bank(admission, Private(), 2.0).spend
        little = Terms(budget_nats=1.0)  # of which an answer takes .8
        (await spend(account(9.0, terms=little))).settle(0.4)
        with pytest.raises(BudgetError):
            await spend(account(9.0, terms=little))
        seldom = Account("bea", "bea", 9.0, 0.4, Terms(requests_per_min=1), 0.8)
        (await spend(seldom)).settle(0.4)
        with pytest.raises(RateLimitError):
            await spend(seldom)
        await admission.close()
        assert ledger.leased[ACCOUNTS + "ann", "total"] == 0.4 * NANO
        assert ledger.leased[ACCOUNTS + "bea", "total"] == 0.4 * NANO

    run(main())
