"""Votes that documents support, votes that they contradict, and all others."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.combine.bounded import Bounded
from manyminds.combine.grounded import Grounded
from manyminds.combine.release import Chooser
from manyminds.combine.select import Select
from manyminds.combine.support import Trust
from manyminds.combine.vote import Vote
from manyminds.errors import AllExpertsFailedError
from manyminds.types import Answer, Bound, Call, Grounds, Limits, Query, Route, Task
from tests.changed import replace
from tests.combine.arrivals import answered, panel, question
from tests.combine.meaning import embed
from tests.contracts.combiners import QUERY, Panel, panels

CHOICE = question("Which planet is red?", Task("option", ("Venus", "Mars")))
GROUNDED = replace(CHOICE, limits=Limits(grounded=True))
TEXTS = ("A", "B", "C", "The answer is B.", "The year 1538.", "")

supports = st.integers(0, 100).map(lambda i: i / 100)
grounds = st.none() | st.builds(Grounds, supports, declined=st.booleans())


@st.composite
def supported(draw: st.DrawFn) -> Panel:
    """Panels of which some members answer from documents, or decline."""
    route, answers = draw(panels())
    return route, [
        replace(answer, grounds=draw(grounds)) if answer.status == "ok" else answer for answer in answers
    ]


def odds(p: float) -> float:
    return math.log(p / (1 - p))


def said(expert: str, text: str, support: float | None = None, **more: Any) -> Answer:
    return answered(expert, text, grounds=None if support is None else Grounds(support, **more))


def choosers() -> list[tuple[Chooser, Query]]:
    return [(Vote(), QUERY), (Select(embed), replace(QUERY, task=Task()))]


@settings(max_examples=200, deadline=None)
@given(panels())
def test_without_grounds_it_is_what_it_wraps_to_the_last_bit(made: Panel) -> None:
    route, answers = made
    for chooser, query in choosers():
        wrapped = Grounded(chooser)
        assert wrapped.candidates(query, route, answers) == chooser.candidates(query, route, answers)
        assert wrapped.posterior(query, route, answers) == chooser.posterior(query, route, answers)
        assert wrapped.counting(query, route, answers)(range(len(answers))) == (
            chooser.counting(query, route, answers)(range(len(answers)))
        )
        if any(answer.status == "ok" and answer.text for answer in answers):
            assert wrapped.choose(query, route, answers) is chooser.choose(query, route, answers)


@settings(max_examples=200, deadline=None)
@given(supported(), st.data(), st.booleans())
def test_some_of_many_count_as_they_would_alone(made: Panel, data: st.DataObject, alone: bool) -> None:
    route, answers = made
    kept = [i for i in range(len(answers)) if data.draw(st.booleans())]
    some = [answers[i] for i in kept]
    for chooser, query in choosers():
        query, wrapped = replace(query, limits=Limits(grounded=alone)), Grounded(chooser)
        direct = wrapped.candidates(query, route, some), wrapped.posterior(query, route, some)
        assert wrapped.counting(query, route, answers)(kept) == direct


@settings(max_examples=200, deadline=None)
@given(supported(), st.randoms(use_true_random=False), st.booleans())
def test_order_does_not_matter(made: Panel, random: Any, alone: bool) -> None:
    route, answers = made
    shuffled = random.sample(answers, len(answers))
    for chooser, query in choosers():
        query, wrapped = replace(query, limits=Limits(grounded=alone)), Grounded(chooser)
        assert wrapped.posterior(query, route, answers) == wrapped.posterior(query, route, shuffled)


@settings(max_examples=200, deadline=None)
@given(supported(), st.sampled_from(TEXTS), supports)
def test_an_expert_of_weight_0_has_no_effect(made: Panel, text: str, support: float) -> None:
    route, answers = made
    mute = replace(route, calls=(*route.calls, Call("mute", "mute", 0.9, weight=0.0)))
    more = [said("mute", text, support), *answers]
    for chooser, query in choosers():
        wrapped = Bounded(Grounded(chooser))
        assert wrapped.posterior(query, mute, more) == wrapped.posterior(query, route, answers)


@settings(max_examples=200, deadline=None)
@given(supported())
def test_who_declines_might_as_well_not_have_come(made: Panel) -> None:
    route, answers = made
    rest = [answer for answer in answers if not answer.declined]
    for chooser, query in choosers():
        wrapped = Grounded(chooser)
        named = wrapped.candidates(query, route, answers)
        assert all(c is None for c, a in zip(named, answers, strict=True) if a.declined)
        assert wrapped.posterior(query, route, answers) == wrapped.posterior(query, route, rest)


def test_support_takes_the_place_of_what_the_router_expects() -> None:
    route = panel(Call("d", "d", 0.1), Call("m", "m", 0.6))
    answers = [said("d", "B", 0.9), said("m", "B")]
    found = Grounded(Vote()).posterior(CHOICE, route, answers)
    expected = 1 / (1 + math.exp(-odds(0.9) - odds(0.6)))
    assert dict(zip(found.candidates, found.probabilities, strict=True))["B"] == pytest.approx(
        expected, abs=1e-3
    )


def test_a_vote_that_documents_contradict_weighs_less() -> None:
    route = panel(Call("d", "d", 0.1), Call("m", "m", 0.8))
    answers = [said("d", "B", 0.9), said("m", "A")]
    found = Grounded(Vote(), Trust(doubt=0.5)).posterior(CHOICE, route, answers)
    against = (1 - 0.5 * 0.9) * odds(0.8) - odds(0.9)
    ratio = (
        found.probabilities[found.candidates.index("A")] / found.probabilities[found.candidates.index("B")]
    )
    assert math.log(ratio) == pytest.approx(against)


def test_three_models_that_are_wrong_alike_lose_to_a_passage_that_says_so() -> None:
    calls = (Call("d", "d", 0.5), *(Call(name, name, 0.65) for name in "xyz"))
    answers = [said("d", "B", 0.85), *(said(name, "A") for name in "xyz")]
    assert Vote().choose(CHOICE, panel(*calls), answers).text == "A"
    assert Grounded(Vote()).choose(CHOICE, panel(*calls), answers).text == "B"


@pytest.mark.parametrize("claim", [1.0, 7.0, 0.999])
@pytest.mark.parametrize(("many", "support"), [(3, 0.8), (2, 0.8), (3, 0.7)])
def test_who_claims_to_be_certain_loses_to_those_who_agree(many: int, support: float, claim: float) -> None:
    honest = "xyz"[:many]
    calls = (Call("liar", "liar", 0.5), *(Call(name, name, 0.5) for name in honest))
    answers = [said("liar", "A", claim), *(said(name, "B", support) for name in honest)]
    assert Grounded(Vote()).choose(CHOICE, panel(*calls), answers).text == "B"
    texts = [said("liar", "It is 1200.", claim), *(said(name, "It is 1538.", support) for name in honest)]
    chosen = Bounded(Grounded(Select(embed))).choose(question("What is the fee?"), panel(*calls), texts)
    assert chosen.expert in honest


def test_what_enough_sources_agree_on_stays() -> None:
    calls = (Call("d", "d", 0.5), *(Call(name, name, 0.65) for name in "vxyz"))
    answers = [said("d", "B", 0.99), *(said(name, "A") for name in "vxyz")]
    assert Grounded(Vote(), Trust(doubt=1.0)).choose(CHOICE, panel(*calls), answers).text == "A"


def test_texts_of_one_meaning_stay_one_and_weigh_less_where_a_passage_tells_otherwise() -> None:
    query = question("What is the fee?")
    calls = panel(Call("d", "d", 0.5), Call("m", "m", 0.7))
    answers = [said("d", "The fee is 1538 dollars.", 0.7), said("m", "It is 1200 dollars.")]
    assert Select(embed).choose(query, calls, answers).expert == "m"
    assert Grounded(Select(embed)).choose(query, calls, answers).expert == "d"
    agreeing = [answers[0], said("m", "It is 1,538 dollars.")]
    before = Select(embed).posterior(query, _at(calls, 0.7), agreeing)
    assert Grounded(Select(embed)).posterior(query, calls, agreeing) == before


def _at(route: Route, probability: float) -> Route:
    return replace(route, calls=tuple(replace(call, probability=probability) for call in route.calls))


def test_where_grounds_are_wanted_the_others_have_no_say() -> None:
    route = panel(Call("d", "d", 0.2), Call("x", "x", 0.9), Call("y", "y", 0.9))
    answers = [said("d", "B", 0.6), said("x", "A"), said("y", "A")]
    found = Grounded(Vote())
    assert found.candidates(GROUNDED, route, answers) == ["B", None, None]
    assert found.posterior(GROUNDED, route, answers).candidates == ("B",)
    assert found.choose(GROUNDED, route, answers).expert == "d"


def test_where_grounds_are_wanted_and_nobody_has_any_one_who_declines_is_heard() -> None:
    route = panel(Call("d", "d", 0.2), Call("x", "x", 0.9))
    declined, other = said("d", "My documents do not say.", 0.1, declined=True), said("x", "A")
    assert Grounded(Vote()).choose(GROUNDED, route, [declined, other]) is declined
    assert Grounded(Vote()).choose(CHOICE, route, [declined, other]) is other
    with pytest.raises(AllExpertsFailedError):
        Grounded(Vote()).choose(GROUNDED, route, [other])


def test_a_source_that_is_held_back_contradicts_nobody_for_more_than_it_may() -> None:
    calls = (Call("d", "d", 0.5, bound=Bound(0.0)), Call("m", "m", 0.8))
    answers = [said("d", "B", 0.95), said("m", "A")]
    found = Bounded(Grounded(Vote())).posterior(CHOICE, panel(*calls), answers)
    assert found == Vote().posterior(CHOICE, panel(Call("m", "m", 0.8)), [said("m", "A")])
