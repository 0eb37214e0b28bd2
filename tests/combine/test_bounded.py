"""No source moves an answer further than it may, whoever else is counted, and whatever they weigh."""

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.artefact import Artefact
from manyminds.attribution import attribute, most_nats
from manyminds.combine.bounded import Bounded, bounds_of
from manyminds.combine.release import Chooser
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.errors import AllExpertsFailedError, AnswerError
from manyminds.types import Answer, Attribution, Bound, Call, Route, Status, Task
from tests.changed import replace
from tests.combine.arrivals import answered, panel, question
from tests.combine.meaning import embed
from tests.learn.made import by_hand

QUERY = question("Which?", Task("option", ("red", "green", "blue", "black")))
SOURCES = ("ann", "bob", "cid", "dan", "eve")
LEARNT = by_hand(("e0", "e2", "e3", "e6"), "option", labels=("A", "B"))

WRAPPED: dict[str, Chooser] = {
    "vote": Vote(),
    "vote by what was learnt": Vote(Artefact((LEARNT,))),
    "select": Select(embed),
}

hundredths = st.integers(2, 98).map(lambda i: i / 100)
tenths = st.integers(1, 30).map(lambda i: i / 10)
bounds = st.one_of(
    st.none(),
    st.builds(
        Bound,
        st.one_of(st.none(), st.integers(0, 400).map(lambda i: i / 100)),
        st.sampled_from((1.0, 1.0, 0.0, 0.1, 0.3, 0.35, 0.6)),
    ),
)
Panel = tuple[Route, list[Answer]]


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    """One to eight experts of up to five sources; some answers come with a bound of their own."""
    calls, answers = [], []
    of = {source: draw(bounds) for source in SOURCES}
    for i in range(draw(st.integers(1, 8))):
        source, samples = draw(st.sampled_from(SOURCES)), draw(st.sampled_from((1, 1, 1, 2)))
        weight, bound = draw(tenths), of[source]
        calls.append(Call(f"e{i}", source, draw(hundredths), samples=samples, weight=weight, bound=bound))
        for _ in range(samples):
            status: Status = "ok" if draw(st.integers(0, 4)) else "failed"
            answer = answered(f"e{i}", draw(st.sampled_from(("A", "B", "C", "hm"))), status, source=source)
            nats = draw(st.sampled_from((None, None, None, 0.07, 1.3))) if status == "ok" else None
            answers.append(replace(answer, nats=nats))
    return panel(*calls), answers


def owed(chooser: Chooser, alpha: float, route: Route, answers: Sequence[Answer]) -> list[Attribution]:
    """As the report has it."""
    weighed = Bounded(chooser, alpha).weighed(QUERY, route, answers)
    whole = weighed.count(range(len(answers)))
    return list(attribute(weighed.route, answers, whole, weighed.count, alpha))


@pytest.mark.parametrize("kind", WRAPPED)
@settings(max_examples=300, deadline=None)
@given(panels(), st.sampled_from((0.3, 1.0, 2.0, 7.3, 900.0)))
def test_whoever_is_measured_keeps_to_the_bound(kind: str, made: Panel, alpha: float) -> None:
    route, answers = made
    limits = bounds_of(route, answers)
    rows = owed(WRAPPED[kind], alpha, route, answers)
    for row in rows:
        bound = limits.get(row.source, Bound())
        assert bound.nats is None or row.divergence <= bound.nats
        assert row.share <= bound.max_share
        assert 0.0 <= row.divergence <= most_nats(len(answers))
    assert not rows or math.isclose(math.fsum(row.share for row in rows), 1.0, abs_tol=1e-12)


@settings(max_examples=200, deadline=None)
@given(panels(), st.integers(0, 1000))
def test_order_does_not_matter(made: Panel, seed: int) -> None:
    (route, answers), random = made, Random(seed)
    calls = tuple(random.sample(route.calls, len(route.calls)))
    shuffled = random.sample(answers, len(answers))
    one = Bounded(Vote()).weighed(QUERY, route, answers).multipliers
    other = Bounded(Vote()).weighed(QUERY, replace(route, calls=calls), shuffled).multipliers
    assert one == other


@settings(max_examples=200, deadline=None)
@given(panels())
def test_without_a_bound_it_is_what_it_wraps(made: Panel) -> None:
    route, answers = made
    route = replace(route, calls=tuple(replace(call, bound=None) for call in route.calls))
    answers = [replace(answer, nats=None) for answer in answers]
    assert Bounded(Vote()).posterior(QUERY, route, answers) == Vote().posterior(QUERY, route, answers)
    assert Bounded(Vote()).weighed(QUERY, route, answers).multipliers == {}


@settings(max_examples=200, deadline=None)
@given(panels(), st.sampled_from(("A", "C", "D")), hundredths)
def test_who_may_not_move_it_at_all_has_no_effect(made: Panel, text: str, probability: float) -> None:
    route, answers = made
    for bound in (Bound(0.0), Bound(None, 0.0)):
        wider = replace(route, calls=(*route.calls, Call("mute", "zoe", probability, bound=bound)))
        more = [*answers, answered("mute", text, source="zoe")]
        assert _outcome(wider, more) == _outcome(route, answers)


def _outcome(route: Route, answers: Sequence[Answer]) -> object:
    bounded = Bounded(Vote())
    posterior = bounded.posterior(QUERY, route, answers)
    if not posterior.candidates:
        return posterior  # then somebody speaks who has no vote
    try:
        return posterior, bounded.choose(QUERY, route, answers).text
    except AnswerError as error:
        return posterior, type(error)


@settings(max_examples=100, deadline=None)
@given(st.integers(30, 97), st.integers(30, 97), st.integers(1, 200))
def test_it_gives_away_no_more_than_it_must(one: int, other: int, hundred: int) -> None:
    """Two who agree: the multiplier is the largest, to 1/256."""
    nats = hundred / 1000
    route = panel(Call("a", "ann", one / 100, bound=Bound(nats)), Call("b", "bob", other / 100))
    answers = [answered("a", "A", source="ann"), answered("b", "A", source="bob")]
    found = Bounded(Vote()).weighed(QUERY, route, answers).multipliers["ann"]
    if found < 1.0:
        more = replace(route, calls=(replace(route.calls[0], weight=found + 2 / 256), route.calls[1]))
        count = Vote().counting(QUERY, more, answers)
        row = attribute(more, answers, count(range(2)), count)[0]
        assert row.divergence > nats


def test_a_source_at_its_bound_is_weighed_down_and_then_not_heard() -> None:
    calls = [Call("a", "ann", 0.7), Call("b", "bob", 0.8), Call("c", "cid", 0.8)]
    answers = [
        answered("a", "A", source="ann"),
        *(answered(e, "B", source=s) for e, s in (("b", "bob"), ("c", "cid"))),
    ]
    found = []
    for nats in (2.0, 1.0, 0.5, 0.2, 0.1, 0.0):
        route = panel(replace(calls[0], bound=Bound(nats)), *calls[1:])
        weighed = Bounded(Vote()).weighed(QUERY, route, answers)
        found.append(weighed.multipliers["ann"])
        assert weighed.route.call_of("a").weight == found[-1]  # type: ignore[union-attr]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (1.0, 0.0)


def test_where_all_abstain_who_has_a_bound_speaks_only_where_nobody_else_can() -> None:
    bounded, bound = Bounded(Vote()), Bound(2.0)
    route = panel(Call("a", "ann", 0.9, bound=bound), Call("b", "bob", 0.5))
    answers = [answered("a", "no idea", source="ann"), answered("b", "hm", source="bob")]
    assert bounded.choose(QUERY, route, answers).expert == "b"
    assert bounded.choose(QUERY, route, [answers[0], answered("b", "", "failed", source="bob")]).expert == "a"


def test_who_is_not_heard_does_not_speak_either() -> None:
    route = panel(Call("a", "ann", 0.9, bound=Bound(0.0)))
    with pytest.raises(AllExpertsFailedError, match="answered but has no vote"):
        Bounded(Vote()).choose(QUERY, route, [answered("a", "A", source="ann")])
