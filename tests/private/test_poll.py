"""Who is polled, what each pays, and what is refused."""

import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from manyminds.admission.budget import nano
from manyminds.combine.private import GRAIN
from manyminds.errors import InvalidRequestError, PrivacyError
from manyminds.privacy.accounting import epsilon_of, most_rho
from manyminds.private import Poll, poll
from manyminds.types import Answer, Bound, Card, Limits, Message, Query, Sampling, Terms

CHOICE = "Which is the capital of Australia?\nA) Sydney\nB) Canberra\nC) Perth"
LIMITS = Limits(policy="private", epsilon=4.0, delta=1e-6)


def cards(count: int, **fields: Any) -> list[Card]:
    return [Card(f"e{i:03}", "scripted", source=f"s{i:03}", **fields) for i in range(count)]


def planned(
    some: list[Card], limits: Limits = LIMITS, text: str = CHOICE, without: frozenset[str] = frozenset()
) -> Poll:
    query = Query((Message("user", text),), model="private", limits=limits)
    return poll(query, some, limits, source_epsilon=8.0, delta=1e-6, without=without)


def said(polled: Poll, texts: dict[str, str]) -> list[Answer]:
    return [
        Answer(c.expert, c.source, "ok", texts[c.expert]) for c in polled.route.calls if c.expert in texts
    ]


def test_every_source_is_polled_once() -> None:
    some = cards(20)
    some += [replace(some[0], name="another", parameters=7), replace(some[1], name="zzz")]
    polled = planned(some)
    assert [call.source for call in polled.route.calls].count("s000") == 1
    assert polled.privacy.polled == len(polled.route.calls) == 20
    assert "another" in {call.expert for call in polled.route.calls}  # the larger one
    assert "zzz" not in {call.expert for call in polled.route.calls}


@given(st.randoms(use_true_random=False))
def test_order_does_not_matter(random: Random) -> None:
    some = cards(15)
    mixed = list(some)
    random.shuffle(mixed)
    assert planned(mixed).route == planned(some).route
    assert planned(mixed).accounts == planned(some).accounts


@given(
    st.floats(0.5, 20.0),
    st.sampled_from([1e-4, 1e-6]),
    st.lists(st.sampled_from([0.1, 0.3, 0.7, 1.0, 1.9]), min_size=400, max_size=400),
)
def test_nobody_pays_more_than_was_asked(epsilon: float, delta: float, favours: list[float]) -> None:
    some = cards(400)
    weights = {card.name: favour for card, favour in zip(some, favours, strict=True)}
    limits = Limits(policy="private", epsilon=epsilon, delta=delta, weights=weights)
    polled = planned(some, limits)
    assert max(polled.weights) == GRAIN
    for account, weight in zip(polled.accounts, polled.weights, strict=True):
        assert epsilon_of(account.cost, delta) <= epsilon
        assert account.cost == weight * weight / polled.variance
        assert account.most == most_rho(8.0, 1e-6)
        assert nano(account.cost) <= nano(most_rho(epsilon, delta))  # as the ledger counts it


def test_the_strictest_terms_of_a_source_count() -> None:
    some = cards(20)
    some[3] = replace(some[3], terms=Terms(epsilon=2.0))
    some.append(replace(some[3], name="x", terms=Terms(epsilon=5.0), parameters=9))
    accounts = {account.source: account for account in planned(some).accounts}
    assert accounts["s003"].most == most_rho(2.0, 1e-6)
    assert accounts["s004"].most == most_rho(8.0, 1e-6)


def test_other_terms_hold_too() -> None:
    """No weight above a source's largest share; what it may do to the answer is known beforehand."""
    some = cards(20)
    some[2] = replace(some[2], terms=Terms(max_share=0.04))
    some[5] = replace(some[5], terms=Terms(budget_nats=3.0, max_share=0.5))
    polled = planned(some)
    assert "s002" not in {call.source for call in polled.route.calls}
    assert polled.privacy.polled == 19
    calls = {call.source: call for call in polled.route.calls}
    accounts = {account.source: account for account in polled.accounts}
    assert accounts["s005"].nats == pytest.approx(2 * accounts["s005"].cost)
    assert calls["s005"].bound == Bound(accounts["s005"].nats, 0.5, accounts["s005"].nats)
    assert calls["s006"].bound is None
    favoured = replace(LIMITS, weights={"s005": 900.0})
    with pytest.raises(PrivacyError):  # without it there are 19 of equal weight, with it not two
        planned([*some[:3], some[5]], favoured)
    assert "s005" not in {call.source for call in planned(some, favoured).route.calls}


@given(st.lists(st.tuples(st.floats(0.05, 1.0), st.sampled_from([0.3, 1.0, 7.0])), min_size=30, max_size=40))
def test_nobody_has_a_larger_share_than_allowed(some: list[tuple[float, float]]) -> None:
    made = [replace(c, terms=Terms(max_share=s)) for c, (s, _) in zip(cards(len(some)), some, strict=True)]
    weights = {card.name: favour for card, (_, favour) in zip(made, some, strict=True)}
    try:
        polled = planned([*made, *cards(60)[40:]], replace(LIMITS, weights=weights, epsilon=8.0))
    except PrivacyError:
        return
    most = {card.name: card.terms.max_share for card in made}
    assert all(call.share <= most.get(call.expert, 1.0) * (1 + 1e-4) for call in polled.route.calls)


def test_another_node_is_counted_by_its_id() -> None:
    some = cards(20)
    some[0] = Card("alice", "peer", source="alice", model="x" * 32)
    assert {account.id for account in planned(some).accounts} >= {"x" * 32, "s001"}


def test_too_few_sources_are_told_how_many_it_takes() -> None:
    with pytest.raises(PrivacyError) as caught:
        planned(cards(4))
    assert caught.value.param == "manyminds.epsilon"
    said = caught.value.message
    assert "4 sources" in said
    needed = int(re.findall(r"It takes (\d+)", said)[0])
    assert planned(cards(needed)).privacy.polled == needed
    with pytest.raises(PrivacyError):
        planned(cards(needed - 1))
    assert "an epsilon of" not in said  # these may not tell that much: 8 is the most


def test_nearly_enough_sources_are_told_which_epsilon_would_do() -> None:
    with pytest.raises(PrivacyError) as caught:
        planned(cards(9))
    instead = float(re.findall(r"an epsilon of ([\d.]+)\.$", caught.value.message)[0])
    assert planned(cards(9), replace(LIMITS, epsilon=instead)).privacy.polled == 9


def test_no_source_at_all_is_too_few() -> None:
    with pytest.raises(PrivacyError, match="It takes"):
        planned([])


def test_who_has_nothing_left_is_not_polled_and_is_counted() -> None:
    polled = planned(cards(20), without=frozenset({"s000", "s001"}))
    assert polled.privacy.polled == 18
    with pytest.raises(PrivacyError, match="10 more have not that much left"):
        planned(cards(20), without=frozenset(f"s{i:03}" for i in range(10)))


def test_the_caller_says_who_is_polled() -> None:
    limits = replace(LIMITS, exclude=("s000", "e001"), weights={"s002": 0.0})
    sources = {call.source for call in planned(cards(30), limits).route.calls}
    assert sources == {f"s{i:03}" for i in range(3, 30)}
    only = replace(LIMITS, include=tuple(f"s{i:03}" for i in range(14)))
    assert planned(cards(30), only).privacy.polled == 14
    assert planned(cards(30), replace(LIMITS, panel=13)).privacy.polled == 13


def test_candidates_become_options() -> None:
    limits = replace(LIMITS, candidates=("positive", "negative"))
    polled = planned(cards(20), limits, "How does he feel: 'What a day!'")
    assert polled.query.task.options == ("positive", "negative")
    assert polled.query.question.startswith("How does he feel")
    assert "A) positive\nB) negative" in polled.query.question
    texts = {call.expert: "B" for call in polled.route.calls}
    assert polled.release(said(polled, texts), Random(1).randrange) == "negative"


def test_options_are_released_with_their_letter() -> None:
    polled = planned(cards(60))
    texts = {call.expert: "The answer is B." for call in polled.route.calls}
    assert polled.release(said(polled, texts), Random(1).randrange) == "B) Canberra"


def test_an_answer_is_released_whoever_fails() -> None:
    """An error would tell that nobody answered."""
    polled = planned(cards(20))
    below = Random(1).randrange
    nobody = [polled.release([], below) for _ in range(300)]
    assert set(nobody) == {"A) Sydney", "B) Canberra", "C) Perth"}
    late = [Answer("e000", "s000", "late", "B"), Answer("strange", "strange", "ok", "B")]
    assert polled.release(late, Random(2).randrange) == polled.release([], Random(2).randrange)


@pytest.mark.parametrize(
    ("limits", "text", "param"),
    [
        (LIMITS, "Why do cats purr?", "manyminds.candidates"),
        (replace(LIMITS, candidates=("yes",)), "Do cats purr?", "manyminds.candidates"),
        (replace(LIMITS, candidates=("a", "b")), CHOICE, "manyminds.candidates"),
        (replace(LIMITS, quorum=2), CHOICE, "manyminds.quorum"),
        (replace(LIMITS, require=("s000",)), CHOICE, "manyminds.require"),
        (replace(LIMITS, explain=True), CHOICE, "manyminds.explain"),
        (replace(LIMITS, strategy="vote"), CHOICE, "manyminds.strategy"),
    ],
)
def test_what_would_tell_more_is_refused(limits: Limits, text: str, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        planned(cards(50), limits, text)
    assert caught.value.param == param


@pytest.mark.parametrize("demand", ["tools", "json_schema", "logprobs"])
def test_what_is_more_than_an_answer_is_refused(demand: str) -> None:
    query = Query((Message("user", CHOICE),), demands=frozenset({demand}))
    with pytest.raises(InvalidRequestError, match=demand):
        poll(query, cards(50), LIMITS, source_epsilon=8.0, delta=1e-6)
    with pytest.raises(InvalidRequestError, match="one answer"):
        poll(
            Query((Message("user", CHOICE),), sampling=Sampling(n=2)),
            *(cards(50), LIMITS),
            source_epsilon=8.0,
            delta=1e-6,
        )
