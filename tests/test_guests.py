"""Who may ask this node for others, what, how often and for how much."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from manyminds.admission import Admission
from manyminds.config import Network, PeerEntry
from manyminds.errors import BudgetError, ForbiddenError, RateLimitError
from manyminds.network.answering import Guest
from manyminds.network.ask import Heard
from manyminds.network.identity import member_of
from manyminds.network.jws import from_base64url
from manyminds.node.guests import Guests, keys_of, paying
from manyminds.types import Card, Chunk, Journey, Limits, Message, Query, Sampling
from tests.network.sides import ANN, BOB, EVE, own

CARDS = [
    Card("free", "local", context_tokens=1000, price_cpu_usd_per_hour=0.04),
    Card("paid", "openai", context_tokens=4000, price_in_usd_per_m=1.0, price_out_usd_per_m=3.0),
]


def heard(by: Any = ANN, **ask: Any) -> Heard:
    one = own(**ask)
    return Heard(one, by.id, by.public, from_base64url(one.reply_key))


def question(**more: Any) -> Query:
    journey = Journey(60.0, 3, budget_usd=1.0)
    return Query((Message("user", "?"),), sampling=Sampling(max_tokens=10), journey=journey, **more)


class Door:
    """Bob's door, with peers that are listed."""

    def __init__(self, *listed: PeerEntry, most_at_once: int = 9, secret: str = "", **terms: Any) -> None:
        self.leased: list[tuple[str, int]] = []

        async def lease(key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
            taken = sum(nusd for of, nusd in self.leased if of == key_id)
            granted = max(0, min(want_nusd, limit_nusd - taken))
            self.leased.append((key_id, granted))
            return granted

        async def give_back(key_id: str, period: str, nusd: int) -> None:
            self.leased.append((key_id, -nusd))

        self.terms = Network(**terms)
        self.admission = Admission(
            {}, open=False, most_at_once=most_at_once, lease=lease, give_back=give_back, clock=lambda: 0.0
        )
        self.admission.replace({}, keys_of(self.terms, listed))
        self.beside: list[tuple[str, bool]] = []
        self.guests = Guests(
            *(BOB.id, self.terms, self.admission, _nobody, lambda: CARDS, self._beside), secret
        )
        self.guests.listed = {entry.id: entry for entry in listed}

    def _beside(self, one: Heard, by_https: bool) -> list[str]:
        self.beside.append((one.asker, by_https))
        return ["zed"]

    def let_in(
        self,
        one: Heard | None = None,
        query: Query | None = None,
        *,
        by_https: bool = False,
        pays: float = 0.0,
    ) -> Guest:
        async def story() -> Guest:
            async with self.guests.admit(one or heard(), query or question(), by_https) as guest:
                if pays:
                    guest.charge(pays)
                return guest

        return asyncio.run(story())


async def _nobody(_: Query) -> AsyncGenerator[Chunk, None]:
    yield Chunk()


def listed(node: Any = ANN, name: str = "ann", **terms: Any) -> PeerEntry:
    return PeerEntry(name=name, id=node.id, **terms)


# --- who -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "known", "by_https", "fits"),
    [
        ("listed", True, True, True),
        ("listed", True, False, True),
        ("listed", False, True, False),
        ("listed", False, False, False),
        ("network", True, True, True),
        ("network", False, True, False),
        ("network", False, False, True),
        ("anyone", False, True, True),
        ("anyone", False, False, True),
    ],
)
def test_who_is_answered(answers: str, known: bool, by_https: bool, fits: bool) -> None:
    door = Door(*([listed()] if known else []), answers=answers)
    if fits:
        assert door.let_in(by_https=by_https).query.question == "?"
        return
    with pytest.raises(ForbiddenError, match=f"list {ANN.id} as a peer"):
        door.let_in(by_https=by_https)


def test_a_peer_that_is_not_answered_is_not_answered_anywhere() -> None:
    door = Door(listed(answers=False), answers="anyone")
    for by_https in (True, False):
        with pytest.raises(ForbiddenError, match="does not answer yours"):
            door.let_in(by_https=by_https)
    assert door.let_in(heard(EVE)).query.question == "?"


@pytest.mark.parametrize(("purpose", "fits"), [("research", True), ("sales", False), ("", False)])
def test_what_answers_are_for_is_said(purpose: str, fits: bool) -> None:
    door = Door(purposes=("research", "teaching"))
    if fits:
        door.let_in(heard(purpose=purpose))
        return
    with pytest.raises(ForbiddenError, match="research, teaching only"):
        door.let_in(heard(purpose=purpose))
    assert Door().let_in(heard(purpose=purpose)).price.in_usd_per_m == 0


def test_a_question_that_came_by_is_not_answered_again() -> None:
    with pytest.raises(ForbiddenError, match="came by here already"):
        Door().let_in(heard(visited=(BOB.id, ANN.id)))


@pytest.mark.parametrize("query", [{"model": "free"}, {"model": "private"}, {"fallbacks": ("paid",)}])
def test_others_ask_for_policies_and_for_no_expert(query: dict[str, Any]) -> None:
    if query == {"model": "private"}:
        Door().let_in(query=question(model="auto"))
    with pytest.raises(ForbiddenError, match="other nodes may ask for"):
        Door().let_in(query=question(**({"model": "free"} if "private" in query.values() else query)))


# --- whom this node asks for them ------------------------------------------------------------------


def test_whom_it_asks_is_this_nodes_to_say() -> None:
    said = Limits(
        policy="max",
        panel=9,
        include=("paid",),
        exclude=("a",),
        weights={"paid": 9.0},
        budget_usd=1e6,
        deadline_s=7.0,
        quorum=9,
        strategy="vote",
        explain=True,
        grounded=True,
        cache="off",
    )
    found = Door(listed()).let_in(query=question(limits=said)).query.limits
    assert found == Limits(policy="max", exclude=("a", "zed"), deadline_s=7.0, grounded=True)


def test_nobody_in_particular_is_given_what_this_node_pays_for() -> None:
    assert Door().let_in().query.limits.exclude == ("zed", "paid")
    assert Door(listed()).let_in().query.limits.exclude == ("zed",)
    for prices, exclude in (
        ((1.0, 3.0), ("zed",)),
        ((1.0, 2.9), ("zed", "paid")),
        ((0.9, 9.0), ("zed", "paid")),
    ):
        door = Door(price_in_usd_per_m=prices[0], price_out_usd_per_m=prices[1])
        assert door.let_in().query.limits.exclude == exclude


def test_whom_a_question_is_not_passed_on_to_depends_on_how_it_came() -> None:
    door = Door(answers="anyone")
    door.let_in(by_https=True)
    door.let_in(heard(EVE))
    assert door.beside == [(ANN.id, True), (EVE.id, False)]


# --- how often, for how much -----------------------------------------------------------------------


def refused(admit: Callable[[], Any]) -> int:
    """Of twenty asks, those that were refused for coming too often."""
    count = 0
    for _ in range(20):
        try:
            admit()
        except RateLimitError as error:
            assert error.retry_after_s is not None  # noqa: PT017 - either way is right
            count += 1
    return count


def test_all_that_are_not_listed_share_one_rate() -> None:
    door = Door(listed(), listed(EVE, "eve", requests_per_min=3), requests_per_min=5)
    strangers = iter([BOB, *[heard(BOB).asker] * 19])
    assert next(strangers) is BOB
    made = iter([type(BOB).generate() for _ in range(20)])
    assert refused(lambda: door.let_in(heard(next(made)))) == 15
    assert refused(lambda: door.let_in(heard(EVE))) == 17
    assert refused(door.let_in) == 0


def test_so_many_are_inside_at_once() -> None:
    door = Door(most_at_once=1)

    async def story() -> None:
        async with door.guests.admit(heard(), question(), False):
            with pytest.raises(RateLimitError):
                async with door.guests.admit(heard(), question(), False):
                    pass
        async with door.guests.admit(heard(), question(), False):
            assert door.admission.inside == 1
        assert door.admission.inside == 0

    asyncio.run(story())


def test_a_peer_owes_no_more_than_was_agreed() -> None:
    door = Door(listed(owe_usd=1.0), price_out_usd_per_m=1e5)
    ask = heard(budget_usd=0.4)
    for _ in range(2):
        door.let_in(ask, pays=0.4)
    with pytest.raises(BudgetError):
        door.let_in(ask)
    small = Door(listed(owe_usd=1.0), price_out_usd_per_m=1e5)
    for _ in range(7):
        small.let_in(ask, pays=0.1)  # what is not spent comes back
    assert Door(listed(), price_out_usd_per_m=1e5).let_in(ask).price.out_usd_per_m == 1e5


def test_what_fails_costs_nothing() -> None:
    door = Door(listed(owe_usd=0.5), price_out_usd_per_m=1e5)

    async def fail() -> None:
        async with door.guests.admit(heard(budget_usd=0.4), question(), False):
            raise KeyError

    for _ in range(5):
        with pytest.raises(KeyError):
            asyncio.run(fail())
    assert door.admission.inside == 0
    assert door.let_in(heard(budget_usd=0.4)).query.question == "?"


def test_keys_are_of_peers_and_of_nobody_in_particular() -> None:
    ann = listed(requests_per_min=7, owe_usd=2.0, pay_usd=3.0)
    others, asks, pays = keys_of(Network(requests_per_min=5), [ann])
    assert (others.id, others.requests_per_min, others.budget_usd) == ("guests", 5, None)
    assert (asks.id, asks.requests_per_min, asks.budget_usd) == (f"from:{ANN.id}", 7, 2.0)
    assert (pays.id, pays.requests_per_min, pays.budget_usd) == (paying(ann).id, None, 3.0)
    assert len({others.id, asks.id, pays.id}) == 3


@pytest.mark.parametrize("member", ["", "§", member_of("hush", EVE.id), member_of("other", ANN.id)])
def test_who_does_not_know_the_secret_is_not_answered(member: str) -> None:
    door = Door(secret="hush")
    with pytest.raises(ForbiddenError, match=r"network\.secret_env"):
        door.let_in(heard(member=member))
    assert door.let_in(heard(member=member_of("hush", ANN.id))).query


def test_who_is_listed_needs_no_secret() -> None:
    assert Door(PeerEntry(name="ann", id=ANN.id), secret="hush").let_in().query


@pytest.mark.parametrize(
    ("offered_usd", "terms", "bound_usd"),
    [
        (0.5, {}, 0.0),
        (0.5, {"price_out_usd_per_m": 1e5}, 0.5),
        (9.0, {"price_out_usd_per_m": 1e5}, 1.0),
        (0.0, {"price_out_usd_per_m": 1e5}, 0.0),
    ],
)
def test_no_more_is_paid_for_it_than_it_may_be_charged(
    offered_usd: float, terms: dict[str, Any], bound_usd: float
) -> None:
    ask = heard(budget_usd=offered_usd)
    for door in (Door(**terms), Door(listed(), **terms)):
        journey = door.let_in(ask).query.journey
        assert journey is not None
        assert journey.budget_usd == pytest.approx(bound_usd)
    treated = Door(listed(treats=True), **terms).let_in(ask).query.journey
    assert treated is not None
    assert treated.budget_usd is None
