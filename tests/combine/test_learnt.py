"""The vote by what was learnt, on artefacts in which every number is some other number."""

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manyminds.artefact import Artefact, Part
from manyminds.combine.ballot import Voice, Votes
from manyminds.combine.learnt import Weigher
from manyminds.combine.vote import Vote
from manyminds.types import Answer, Call, Limits, Message, Query, Route, Status, Task, Usage
from tests.changed import replace
from tests.combine.arrivals import answered, panel
from tests.learn.made import TOPICS, by_hand, voting

KNOWN = ("ann", "bob", "cat", "dan", "eve")
LABELS = ("yes", "no", "maybe", "never")
LEARNT = by_hand(KNOWN, "exact", labels=LABELS[:3])
hundredths = st.integers(2, 98).map(lambda i: i / 100)


def asked(topic: str = "law", seed: int | None = 1) -> Query:
    vector = None if seed is None else np.random.default_rng(seed).normal(size=6).astype(np.float32)
    return Query((Message("user", "Is it?"),), limits=Limits(topic=topic), task=Task("exact"), vector=vector)


def said(expert: str, text: str, tokens: int = 0, confidence: float | None = None) -> Answer:
    return replace(answered(expert, text), usage=Usage(completion_tokens=tokens), confidence=confidence)


queries = st.builds(asked, st.sampled_from(["", "of no use", *TOPICS]), st.none() | st.integers(0, 5))
confidences = st.none() | st.integers(0, 100).map(lambda i: i / 100)


@st.composite
def panels(draw: st.DrawFn) -> tuple[Route, list[Answer]]:
    """Up to nine experts, of which five are known; some are asked again, some abstain."""
    calls, answers = [], []
    for name in draw(st.lists(st.sampled_from([*KNOWN, "fay", "gus", "hal"]), min_size=1, unique=True)):
        samples = draw(st.integers(1, 2))
        calls.append(Call(name, name, draw(hundredths), samples=samples))
        for _ in range(samples):
            text = draw(st.sampled_from(["", *LABELS]))
            answers.append(said(name, text, draw(st.integers(0, 60)), draw(confidences)))
    return panel(*calls), answers


def beside_ann(made: tuple[Route, list[Answer]], left_out: str) -> tuple[Route, list[Answer]]:
    """Without `left_out`, and with a voter that is known."""
    route, answers = made
    calls = [call for call in route.calls if call.expert not in ("ann", left_out)]
    others = [answer for answer in answers if answer.expert not in ("ann", left_out)]
    return panel(*calls, Call("ann", "ann", 0.6)), [*others, said("ann", "yes", 20, 0.7)]


def voted(weigher: Weigher, query: Query, route: Route, answers: Sequence[Answer]) -> list[Voice]:
    """The votes for what the answers say; none where it knows nobody."""

    def nobody() -> Votes:
        return lambda _: ([], 0.0)

    candidates = [answer.text or None for answer in answers]
    return weigher.votes(query, route, answers, candidates, nobody)(range(len(answers)))[0]


def scores(
    route: Route, answers: Sequence[Answer], learnt: Part = LEARNT, query: Query | None = None
) -> list[float]:
    """ln of the odds of each candidate to "none of these"."""
    posterior = voting(learnt).posterior(query or asked(), route, answers)
    return [math.log(p / posterior.other) for p in posterior.probabilities]


@settings(max_examples=300)
@given(panels(), queries, st.integers(0, 1000))
def test_order_changes_no_bit(made: tuple[Route, list[Answer]], query: Query, seed: int) -> None:
    (route, answers), random = made, Random(seed)
    assume(any(answer.text for answer in answers))
    shuffled = random.sample(answers, len(answers))
    calls = replace(route, calls=tuple(random.sample(route.calls, len(route.calls))))
    vote = voting(LEARNT)
    assert vote.posterior(query, calls, shuffled) == vote.posterior(query, route, answers)
    first, second = vote.choose(query, calls, shuffled), vote.choose(query, route, answers)
    assert (first.expert, first.text) == (second.expert, second.text)


def test_whose_answer_is_released_does_not_hang_on_the_order_of_samples() -> None:
    """Two samples that agree and differ in weight by their length, and another expert between them."""
    route = panel(Call("ann", "ann", 0.6, samples=2), Call("bob", "bob", 0.6))
    vote = voting(LEARNT)
    for tokens in range(1, 60):
        answers = [said("ann", "yes", 1), said("ann", "yes", 1000), said("bob", "yes", tokens)]
        turned = [answers[1], answers[0], answers[2]]
        assert vote.choose(asked(), route, answers).expert == vote.choose(asked(), route, turned).expert


@given(panels(), queries, st.sampled_from(["zoe", *KNOWN[1:]]), st.sampled_from(LABELS), hundredths)
def test_weight_zero_has_no_effect(
    made: tuple[Route, list[Answer]], query: Query, mute: str, text: str, probability: float
) -> None:
    route, answers = beside_ann(made, mute)
    wider = replace(route, calls=(*route.calls, Call(mute, mute, probability, weight=0.0)))
    more = [said(mute, text, 9, 0.4), *answers]
    assert voting(LEARNT).posterior(query, wider, more) == voting(LEARNT).posterior(query, route, answers)


statuses: st.SearchStrategy[Status] = st.sampled_from(("ok", "failed", "late"))


@given(panels(), queries, st.sampled_from(["zoe", *KNOWN[1:]]), statuses, hundredths)
def test_who_says_nothing_has_no_vote(
    made: tuple[Route, list[Answer]], query: Query, shy: str, status: Status, probability: float
) -> None:
    route, answers = beside_ann(made, shy)
    wider = replace(route, calls=(*route.calls, Call(shy, shy, probability)))
    more = [replace(said(shy, "", 9, 0.4), status=status), *answers]
    assert voting(LEARNT).posterior(query, wider, more) == voting(LEARNT).posterior(query, route, answers)


@pytest.mark.parametrize(("weight", "text"), [(0.0, "no"), (1.0, "")])
def test_who_has_no_vote_does_not_change_how_strangers_are_weighed(weight: float, text: str) -> None:
    route = panel(Call("fay", "fay", 0.7))
    wider = replace(route, calls=(*route.calls, Call("ann", "ann", 0.6, weight=weight)))
    answers = [said("fay", "yes", 5)]
    more = [*answers, said("ann", text, 5)]
    assert voting(LEARNT).posterior(asked(), wider, more) == voting(LEARNT).posterior(asked(), route, answers)


@pytest.mark.parametrize("breadth", [range(1, 24), range(24, 31)], ids=["few", "nearly all"])
def test_the_weight_of_a_vote_has_the_same_bits_whoever_else_votes(breadth: range) -> None:
    names = [f"e{i:02}" for i in range(30)]
    learnt = by_hand(names, "exact")
    assert learnt.ballot is not None
    assert learnt.wide is not None
    narrow, wide = (replace(ballot, dilution=np.zeros(30)) for ballot in (learnt.ballot, learnt.wide))
    weigher = Weigher(replace(learnt, wide=wide), narrow)
    route = panel(*(Call(name, name, 0.6) for name in names))
    answers = [said(name, "yes", 7, 0.3) for name in names]
    random, seen = Random(0), dict[str, float]()
    for _ in range(50):
        some = random.sample(answers, random.choice(breadth))
        voices = voted(weigher, asked(), route, some)
        assert [v.weight for v in voices] == [seen.setdefault(v.expert, v.weight) for v in voices]


@given(panels(), queries)
def test_candidates_and_none_of_these_share_all_probability(
    made: tuple[Route, list[Answer]], query: Query
) -> None:
    posterior = voting(LEARNT).posterior(query, *made)
    assert math.isclose(math.fsum([*posterior.probabilities, posterior.other]), 1.0, abs_tol=1e-12)
    assert set(posterior.candidates) == {answer.text for answer in made[1]} - {""}


@given(panels(), queries, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_dilution_of_all_alike_shrinks_certainty_and_changes_no_winner(
    made: tuple[Route, list[Answer]], query: Query, low: float, high: float
) -> None:
    assert LEARNT.ballot is not None
    one, two = (
        replace(
            LEARNT,
            ballot=replace(LEARNT.ballot, dilution=np.full(5, rho), prior=np.array([0.7, 0.1, rho])),
            wide=None,
        )
        for rho in sorted((low, high))
    )
    ranked = sorted(scores(*made, one, query))
    assume(any(a.text for a in made[1]) and (len(ranked) < 2 or ranked[-1] - ranked[-2] > 1e-6))
    first, second = voting(one).choose(query, *made), voting(two).choose(query, *made)
    assert (first.text, first.expert) == (second.text, second.expert)
    a, b = voting(one).posterior(query, *made), voting(two).posterior(query, *made)
    for x, y in zip(a.candidates, a.candidates[1:], strict=False):
        gap = [
            math.log(p.probabilities[p.candidates.index(x)] / p.probabilities[p.candidates.index(y)])
            for p in (a, b)
        ]
        assert abs(gap[1]) <= abs(gap[0]) + 1e-9


@given(hundredths, st.integers(1, 4))
def test_a_stranger_is_weighed_by_its_log_odds_on_the_scale_of_the_known(p: float, strangers: int) -> None:
    names = [f"stranger {i}" for i in range(strangers)]
    route = panel(Call("ann", "ann", 0.6), *(Call(name, name, p) for name in names))
    answers = [said("ann", "yes", 5), *(said(name, "never", 700, 0.9) for name in names)]
    assert LEARNT.ballot is not None
    shrink = 1 + LEARNT.ballot.dilution[0] + 0.3 * (strangers - 1)
    stranger, other = scores(route, answers)[0], scores(panel(), [], LEARNT)
    assert other == []
    weight = (0.7 * math.log(3 * p / (1 - p)) + 0.1) / shrink
    assert stranger == pytest.approx(strangers * weight - _none(asked()), abs=1e-9)


def _none(query: Query) -> float:
    assert LEARNT.ballot is not None
    x = LEARNT.base.features(query.vector, query.limits.topic)[: len(TOPICS)]
    return float(LEARNT.ballot.other[0] + LEARNT.ballot.other[1:] @ x)


def test_a_vote_weighs_by_topic_length_confidence_and_label() -> None:
    ballot, skills = LEARNT.ballot, LEARNT.skills
    assert ballot is not None
    query, place = asked("sea"), 2
    x = LEARNT.base.features(query.vector, "sea")[: len(TOPICS)]
    mean, deviation = skills.ln_tokens[place]
    expected = ballot.weights[place, 0] + x @ ballot.weights[place, 1:]
    expected += ballot.length[place] * np.clip((math.log(12) - mean) / deviation, -3, 3)
    expected += ballot.confidence[place] * np.interp(0.55, *skills.confidence[place])
    expected += ballot.label[place, ballot.labels.index("no")]
    route = panel(Call("cat", "cat", 0.6, weight=1.7))
    (score,) = scores(route, [said("cat", "no", 12, 0.55)], query=query)
    assert score == pytest.approx(1.7 * expected - _none(query), abs=1e-9)


@given(st.integers(5, 10), st.integers(0, 3), st.integers(0, 3))
def test_where_nearly_all_have_voted_votes_weigh_otherwise(known: int, silent: int, strangers: int) -> None:
    """Four fifths of those learnt from, whoever else votes and however many were asked."""
    names = [f"e{i}" for i in range(10)]
    learnt = by_hand(names, "exact")
    assert learnt.ballot is not None
    assert learnt.wide is not None
    voters = [*names[:known], *(f"stranger {i}" for i in range(strangers))]
    shy = names[known : known + silent]
    route = panel(*(Call(name, name, 0.6) for name in (*voters, *shy)))
    answers = [said(name, "yes", 5) for name in voters] + [said(name, "") for name in shy]
    one = replace(learnt, ballot=learnt.wide if known >= 8 else learnt.ballot, wide=None)
    assert scores(route, answers, learnt) == scores(route, answers, one)


def test_an_answer_whose_tokens_were_not_counted_is_of_ordinary_length() -> None:
    route, mean = panel(Call("ann", "ann", 0.6)), LEARNT.skills.ln_tokens[0, 0]
    usual, longer = (
        replace(LEARNT, skills=replace(LEARNT.skills, ln_tokens=LEARNT.skills.ln_tokens.copy())) for _ in "ab"
    )
    usual.skills.ln_tokens[0, 0] = math.log(10)
    assert scores(route, [said("ann", "never" * 8)], usual) == scores(route, [said("ann", "z", 10)], usual)
    longer.skills.ln_tokens[0, 0] = mean
    assert scores(route, [said("ann", "z", 11)], longer) != scores(route, [said("ann", "z")], longer)


@given(st.permutations(range(4)), queries)
def test_one_that_is_missing_dilutes_nobody(order: list[int], query: Query) -> None:
    """Each vote is divided by 1 + the dilutions of the others that have voted, each counted once."""
    assert LEARNT.ballot is not None
    weigher = Weigher(replace(LEARNT, wide=None), LEARNT.ballot)
    route = panel(*(Call(name, name, 0.6) for name in KNOWN))
    names = [KNOWN[i] for i in order]
    alone = {n: voted(weigher, query, route, [said(n, "z")])[0].weight for n in names}
    answers = [said(name, "z") for name in (*names, names[0])]
    for voice in voted(weigher, query, route, answers):
        beside = sum(LEARNT.ballot.dilution[KNOWN.index(name)] for name in names if name != voice.expert)
        assert voice.weight == pytest.approx(alone[voice.expert] / (1.0 + beside))


@pytest.mark.parametrize(
    ("near", "far"), [((1000, 0.5), (10**9, 0.5)), ((5, 0.9999), (5, 1.0)), ((5, 1e-4), (5, 0.0))]
)
def test_what_was_never_seen_counts_no_more_than_the_utmost_seen(
    near: tuple[int, float], far: tuple[int, float]
) -> None:
    route = panel(Call("bob", "bob", 0.6))
    assert scores(route, [said("bob", "yes", *near)]) == scores(route, [said("bob", "yes", *far)])


@pytest.mark.parametrize("weight", [1e308, -1e308, 5e-324])
def test_no_multiplier_is_too_large(weight: float) -> None:
    route = panel(Call("ann", "ann", 0.6, weight=weight), Call("bob", "bob", 0.6))
    posterior = voting(LEARNT).posterior(asked(), route, [said("ann", "yes"), said("bob", "no")])
    assert math.isclose(math.fsum([*posterior.probabilities, posterior.other]), 1.0, abs_tol=1e-12)


def test_without_knowledge_votes_weigh_their_log_odds() -> None:
    known, strangers = panel(Call("ann", "ann", 0.7)), panel(Call("fay", "fay", 0.7))
    plain, learnt = Vote(), voting(LEARNT)
    number = replace(asked(), task=Task("number"))
    cases = [
        (learnt, asked(), strangers, [said("fay", "yes")]),
        (learnt, number, known, [said("ann", "43")]),  # of another kind than was learnt from
        (voting(replace(LEARNT, ballot=None)), asked(), known, [said("ann", "yes")]),
    ]
    for vote, query, route, answers in cases:
        assert vote.posterior(query, route, answers) == plain.posterior(query, route, answers)
    assert learnt.posterior(asked(), known, [said("ann", "yes")]) != plain.posterior(
        asked(), known, [said("ann", "yes")]
    )


def test_it_knows_a_panel_of_which_it_knows_anybody() -> None:
    assert LEARNT.ballot is not None
    weigher = Weigher(LEARNT, LEARNT.ballot)
    both = panel(Call("fay", "fay", 0.5), Call("dan", "dan", 0.5))
    fay, dan = said("fay", "yes", 5), said("dan", "yes", 5)
    assert voted(weigher, asked(), both, [fay, dan])
    assert not voted(weigher, asked(), both, [fay])
    assert not voted(weigher, asked(), both, [fay, replace(dan, text="")])
    assert not voted(weigher, replace(asked(), task=Task("number")), both, [dan])


def test_every_kind_of_question_has_its_own_part() -> None:
    other = by_hand((*KNOWN, "fay"), "number", labels=LABELS[:3], seed=9)
    both, number = Vote(Artefact((LEARNT, other))), replace(asked(), task=Task("number"))
    route, answers = panel(Call("ann", "ann", 0.7)), [said("ann", "43")]
    assert both.posterior(asked(), route, answers) == voting(LEARNT).posterior(asked(), route, answers)
    assert both.posterior(number, route, answers) == voting(other).posterior(number, route, answers)
    assert both.posterior(number, route, answers) != Vote().posterior(number, route, answers)
    without = Vote(Artefact((LEARNT, replace(other, ballot=None, wide=None))))
    assert without.posterior(number, route, answers) == Vote().posterior(number, route, answers)


@given(panels(), st.integers(0, 10).map(lambda i: i / 10))
def test_who_is_heeded_less_weighs_less_and_nobody_else(
    made: tuple[Route, list[Answer]], heed: float
) -> None:
    route, answers = beside_ann(made, "")
    doubted = replace(
        route, calls=tuple(replace(c, heed=heed if c.expert == "ann" else 1.0) for c in route.calls)
    )
    assert LEARNT.ballot is not None
    weigher = Weigher(LEARNT, LEARNT.ballot)
    before, after = (voted(weigher, asked(), one, answers) for one in (route, doubted))
    for voice, then in zip(after, before, strict=True):
        times = heed if voice.expert == "ann" else 1.0
        assert voice._replace(weight=0.0) == then._replace(weight=0.0)  # a caller's favour stays
        assert voice.weight == pytest.approx(then.weight * times)
