"""What a node's own terms demand of who asks it, and what it leases from its budget for each answer."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from manyminds.admission import Admission
from manyminds.config import Network
from manyminds.errors import BudgetError, ForbiddenError
from manyminds.ledger import Ledger
from manyminds.network.answering import Grant
from manyminds.network.ask import MOST_NATS, Accepted
from manyminds.node.guests import Guests, keys_of
from tests.changed import replace
from tests.clock import VirtualLoop
from tests.network.sides import ANN, BOB, EVE
from tests.test_guests import CARDS, Door, heard, listed, question

NANO = 10**9


def accepts(max_share: float = 1.0, nats: float | None = None, least_nats: float = 0.0) -> Any:
    return heard(terms=Accepted(max_share, nats, least_nats))


# --- what binds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "fits"), [(0.2, True), (0.1, True), (0.21, False), (1.0, False)])
def test_who_does_not_hold_to_the_share_is_refused(share: float, fits: bool) -> None:
    door = Door(max_share=0.2)
    if fits:
        assert door.let_in(accepts(share)).grant == Grant(share)
        return
    with pytest.raises(ForbiddenError, match=r"send `terms.max_share` of 0.2 or less"):
        door.let_in(accepts(share))


@pytest.mark.parametrize("terms", [{"max_share": 0.2}, {"budget_nats": 3.0}])
def test_who_says_nothing_of_terms_is_told_what_to_send(terms: dict[str, Any]) -> None:
    """As a node does that is older than they are."""
    with pytest.raises(ForbiddenError, match=r"`terms\.(max_share|nats)`"):
        Door(**terms).let_in(heard())
    assert Door().let_in(heard()).grant == Grant()


def test_who_accepts_more_than_is_demanded_has_agreed_to_nothing() -> None:
    assert Door().let_in(accepts(0.1, 0.5)).grant == Grant()


@pytest.mark.parametrize("nats", [None, 0.0])
def test_who_brings_no_nats_to_a_budget_is_refused(nats: float | None) -> None:
    with pytest.raises(ForbiddenError, match=r"3 nats in its period \(month\).*`terms.nats`"):
        Door(budget_nats=3.0).let_in(accepts(nats=nats))


@pytest.mark.parametrize(
    ("callers", "fits"), [((ANN.id,), True), (("zzz*", ANN.id[:5] + "*"), True), (("a",), False)]
)
def test_who_is_answered_may_be_named(callers: tuple[str, ...], fits: bool) -> None:
    door = Door(callers=callers)
    if fits:
        assert door.let_in().query
        return
    with pytest.raises(ForbiddenError, match=f"{ANN.id} is none of them"):
        door.let_in()


def test_a_purpose_goes_on_with_the_question() -> None:
    assert Door().let_in(heard(purpose="law")).query.limits.purpose == "law"


# --- the budget ------------------------------------------------------------------------------------


def test_what_is_left_is_granted_and_then_nothing() -> None:
    door = Door(budget_nats=1.0)
    assert [door.let_in(accepts(nats=nats)).grant.nats for nats in (0.75, 0.75)] == [0.75, 0.25]
    with pytest.raises(BudgetError, match=r"all but 0 nats of the 1 nats .* wait until \d{4}") as caught:
        door.let_in(accepts(nats=0.1))
    assert caught.value.retry_after_s is not None


def test_fewer_than_are_of_use_are_not_taken() -> None:
    door = Door(budget_nats=1.0, period="total")
    door.let_in(accepts(nats=0.75))
    with pytest.raises(BudgetError, match=r"all but 0\.25 nats of the 1 nats .* for ever"):
        door.let_in(accepts(nats=0.75, least_nats=0.5))
    assert door.let_in(accepts(nats=0.75, least_nats=0.25)).grant.nats == 0.25


def test_nobody_takes_more_than_moves_an_answer_any_distance() -> None:
    door = Door(budget_nats=10.0)
    assert door.let_in(accepts(nats=1e6, least_nats=1e6)).grant.nats == MOST_NATS


def test_what_was_granted_is_never_more_than_was_asked() -> None:
    """It is held in whole nanonats, of which there may be a part more."""
    asked = 1.23456789012345e-3
    assert Door(budget_nats=1.0).let_in(accepts(nats=asked)).grant.nats == asked


def test_what_is_settled_comes_back() -> None:
    door = Door(budget_nats=1.0)
    for _ in range(20):
        grant = door.let_in(accepts(nats=0.9, least_nats=0.9)).grant
        grant.settle(0.001)
        grant.settle(0.9)  # only once
    assert door.let_in(accepts(nats=1.0)).grant.nats == pytest.approx(0.98)


def test_a_peer_may_have_a_budget_of_its_own() -> None:
    door = Door(listed(budget_nats=0.5), listed(EVE, "eve"), budget_nats=1.0)
    by_eve = replace(accepts(nats=2.0), asker=EVE.id)
    assert [door.let_in(one).grant.nats for one in (accepts(nats=2.0), by_eve)] == [0.5, 1.0]


class Budgeted(RuleBasedStateMachine):
    """A node with a budget over a real ledger, which is killed and started again; months pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    @initialize(budget=st.integers(1, 3 * NANO))
    def start(self, budget: int) -> None:
        self.folder = TemporaryDirectory()
        self.ledger = Ledger(f"sqlite:///{Path(self.folder.name) / 'ledger.db'}")
        self.loop, self.budget = VirtualLoop(), budget
        self.at = datetime(2026, 11, 22, tzinfo=UTC)
        self.open: list[tuple[Grant, str, bool]] = []  # with its month, and whether its node still lives
        self.spent: dict[str, int] = {}  # by month, with what was granted and not settled
        self.forfeits = False  # since the last month began, a crash may have lost some
        self.begin()

    @property
    def month(self) -> str:
        return self.at.isoformat()[:7]

    def begin(self) -> None:
        async def lease(*wanted: Any) -> int:
            await asyncio.sleep(0.01)
            return self.ledger.lease(*wanted)

        async def give_back(*returned: Any) -> None:
            self.ledger.give_back(*returned)

        terms = Network(budget_nats=self.budget / NANO)
        self.admission = Admission(
            {}, open=False, most_at_once=99, lease=lease, give_back=give_back, now=lambda: self.at
        )
        self.admission.replace({}, keys_of(terms, []))

        def beside(*_: Any) -> list[str]:
            return []

        self.guests = Guests(BOB.id, terms, self.admission, lambda _: None, lambda: CARDS, beside)  # type: ignore[arg-type,return-value]

    async def ask(self, nats: int, least: int) -> Grant | BudgetError:
        terms = Accepted(1.0, nats / NANO, least / NANO)
        try:
            async with self.guests.admit(heard(terms=terms), question(), False) as guest:
                return guest.grant
        except BudgetError as error:
            return error

    @rule(asked=st.lists(st.tuples(st.integers(1, 2 * NANO), st.integers(0, NANO)), min_size=1, max_size=4))
    def ask_at_once(self, asked: list[tuple[int, int]]) -> None:
        async def every() -> list[Grant | BudgetError]:
            return await asyncio.gather(*(self.ask(*one) for one in asked))

        left = self.budget - self.spent.get(self.month, 0)
        for (nats, least), found in zip(asked, self.loop.run_until_complete(every()), strict=True):
            if isinstance(found, BudgetError):
                self.seen.add("refused")
                assert self.forfeits or len(asked) > 1 or left < max(1, min(least, nats))
                continue
            assert found.nats is not None
            granted = round(found.nats * NANO)
            self.seen.add("whole" if granted == nats else "part")
            assert min(least, nats) <= granted <= nats
            assert self.forfeits or len(asked) > 1 or granted == min(nats, left)
            self.open.append((found, self.month, True))
            self.spent[self.month] = self.spent.get(self.month, 0) + granted

    @rule(data=st.data(), share=st.floats(0, 2))
    def settle(self, data: st.DataObject, share: float) -> None:
        if not self.open:
            return
        grant, month, lives = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        assert grant.nats is not None
        measured = round(min(1.0, share) * grant.nats * NANO)
        grant.settle(measured / NANO)
        self.seen.add("settled" if lives else "not heard")
        if lives:  # a node that was killed never hears of it
            self.spent[month] += measured - round(grant.nats * NANO)

    @rule()
    def kill(self) -> None:
        self.open = [(grant, month, False) for grant, month, _ in self.open]
        self.forfeits = True
        self.begin()

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.admission.close())
        self.open = [(grant, month, False) for grant, month, _ in self.open]
        self.begin()

    @rule()
    def let_a_month_pass(self) -> None:
        self.at += timedelta(days=31)
        self.forfeits = False

    @invariant()
    def no_more_is_granted_than_there_is(self) -> None:
        for month, spent in getattr(self, "spent", {}).items():
            assert spent <= self.budget, month
            assert spent <= self.ledger.leased(f"source:{BOB.id}", month) <= self.budget

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.ledger.close()
            self.loop.close()
            self.folder.cleanup()


def test_no_more_is_ever_granted_than_there_is() -> None:
    """Over asks at once, settlements, crashes between grant and settlement, restarts and months."""
    seen: set[str] = set()

    class Watched(Budgeted):
        def __init__(self) -> None:
            super().__init__()
            self.seen = seen

    often = settings(max_examples=60, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Watched, settings=often)
    assert seen == {"whole", "part", "refused", "settled", "not heard"}
