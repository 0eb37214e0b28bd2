"""The laws of every combiner. Each check takes a maker and drives what it makes."""

import math
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import AllExpertsFailedError, AnswerError, DeadlineError
from manyminds.types import Answer, Call, Chunk, Combiner, Posterior, Route, Status, Task
from tests.changed import replace
from tests.clock import run
from tests.combine.arrivals import Prepared, answered, panel, question

Make = Callable[[], Combiner]
Panel = tuple[Route, list[Answer]]

QUERY = question("Which planet is red?", Task("option", ("Venus", "Mars", "Jupiter", "Saturn")))
TEXTS = ("A", "B", "C", "The answer is B.", "The answer is C.", "")
FAILURES: tuple[Status, ...] = ("failed", "cut", "late", "cancelled")

hundredths = st.integers(2, 98).map(lambda i: i / 100)  # hardly any is a dyadic fraction: sums round
counts = st.integers(1, 7)
members = st.integers(0, 97 * 30 * 3 - 1)  # probability, weight and samples: draws take most of a test's time
replies = st.sampled_from([(status, text) for text in TEXTS for status in ("ok", "ok", "ok", *FAILURES)])
orders = st.integers(0, 10**6)


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    """One to seven experts; some are asked more than once, some fail. No two speak at the same time."""
    calls: list[Call] = []
    answers: list[Answer] = []
    for i in range(draw(counts)):
        member, samples = divmod(draw(members), 3)
        weight, probability = divmod(member, 97)
        name, source = f"e{i}", f"s{i % 3}"
        chance, weighs = (probability + 2) / 100, (weight + 1) / 10
        calls.append(Call(name, source, chance, samples=samples + 1, weight=weighs))
        for _ in range(samples + 1):
            status, text = draw(replies)
            answers.append(answered(name, text, status, source=source))
    order = Random(draw(orders)).sample(range(len(answers)), len(answers))
    return panel(*calls), [replace(a, ttft_s=0.1 + i) for a, i in zip(answers, order, strict=True)]


def released(combiner: Combiner, route: Route, answers: Sequence[Answer]) -> list[Chunk]:
    async def chunks() -> list[Chunk]:
        return [chunk async for chunk in combiner.combine(QUERY, route, Prepared(route, answers))]

    return run(chunks())


def outcome(combiner: Combiner, route: Route, answers: Sequence[Answer]) -> tuple[object, object]:
    """The posterior, and what is released or why nothing is."""
    posterior = combiner.posterior(QUERY, route, answers)
    try:
        return posterior, "".join(chunk.text for chunk in released(combiner, route, answers))
    except AnswerError as error:
        return posterior, type(error)


def check_order_free(make: Make) -> None:
    """Permuting answers and calls changes no bit of the posterior, nor what is released."""

    @settings(max_examples=300, deadline=None)
    @given(panels(), st.integers(0, 1000))
    def check(made: Panel, seed: int) -> None:
        (route, answers), random = made, Random(seed)
        calls = tuple(random.sample(route.calls, len(route.calls)))
        shuffled = random.sample(answers, len(answers))
        assert outcome(make(), replace(route, calls=calls), shuffled) == outcome(make(), route, answers)

    check()


def check_pure(make: Make) -> None:
    """The same question twice has the same answer, whatever was asked in between."""

    @settings(max_examples=50, deadline=None)
    @given(panels(), panels())
    def check(made: Panel, other: Panel) -> None:
        combiner = make()
        first = outcome(combiner, *made)
        outcome(combiner, *other)
        assert outcome(combiner, *made) == first

    check()


def check_sums_to_one(make: Make) -> None:
    """Candidates and "none of these" share all probability; candidates are distinct."""

    @settings(deadline=None)
    @given(panels())
    def check(made: Panel) -> None:
        posterior = make().posterior(QUERY, *made)
        assert math.isclose(math.fsum([*posterior.probabilities, posterior.other]), 1.0, abs_tol=1e-12)
        assert all(0 <= p <= 1 for p in (*posterior.probabilities, posterior.other))
        assert len(set(posterior.candidates)) == len(posterior.candidates) == len(posterior.probabilities)

    check()


def check_candidates_are_aligned(make: Make) -> None:
    """One candidate per answer, None for what did not come whole; the posterior has no others."""

    @settings(deadline=None)
    @given(panels())
    def check(made: Panel) -> None:
        route, answers = made
        named = make().candidates(QUERY, route, answers)
        assert len(named) == len(answers)
        assert all(c is None for c, a in zip(named, answers, strict=True) if a.status != "ok")
        assert set(make().posterior(QUERY, route, answers).candidates) == set(named) - {None}

    check()


def check_counting_changes_no_bit(make: Make) -> None:
    """Answers that were read once, for many posteriors, come to what any of them alone come to."""
    if not hasattr(make(), "counting"):
        pytest.skip("it reads its answers anew for each posterior")

    @settings(max_examples=200, deadline=None)
    @given(panels(), st.data())
    def check(made: Panel, data: st.DataObject) -> None:
        (route, answers), combiner = made, make()
        count = combiner.counting(QUERY, route, answers)  # type: ignore[attr-defined]
        for _ in range(3):
            kept = [i for i in range(len(answers)) if data.draw(st.booleans())]
            some = [answers[i] for i in kept]
            direct = make().candidates(QUERY, route, some), make().posterior(QUERY, route, some)
            assert count(kept) == direct

    check()


def check_weight_zero_has_no_effect(make: Make) -> None:
    """An expert of weight 0 might as well not have been asked."""

    @settings(max_examples=200, deadline=None)
    @given(panels(), st.sampled_from(TEXTS), hundredths)
    def check(made: Panel, text: str, probability: float) -> None:
        route, answers = made
        mute = replace(route, calls=(*route.calls, Call("mute", "mute", probability, weight=0.0)))
        more = [answered("mute", text, ttft_s=0.0), *answers]
        assert outcome(make(), mute, more) == outcome(make(), route, answers)

    check()


def check_failure_has_no_effect(make: Make) -> None:
    """A call that failed before its first word changes nothing for those that came."""

    @settings(max_examples=100, deadline=None)
    @given(panels(), hundredths)
    def check(made: Panel, probability: float) -> None:
        route, answers = made
        answers = [answered("sound", "B", ttft_s=0.05), *answers]
        route = replace(route, calls=(*route.calls, Call("sound", "s", 0.7)))
        wider = replace(route, calls=(*route.calls, Call("down", "s", probability)))
        more = [answered("down", "A", "failed", ttft_s=0.0), *answers]
        assert outcome(make(), wider, more) == outcome(make(), route, answers)

    check()


def check_abstention_has_no_vote(make: Make) -> None:
    """Somebody who says nothing moves no probability."""

    @settings(max_examples=100, deadline=None)
    @given(panels(), hundredths)
    def check(made: Panel, probability: float) -> None:
        route, answers = made
        answers = [answered("sound", "B", ttft_s=0.05), *answers]
        route = replace(route, calls=(*route.calls, Call("sound", "s", 0.7)))
        wider = replace(route, calls=(*route.calls, Call("shy", "s", probability)))
        more = [answered("shy", "", ttft_s=99.0), *answers]
        assert make().posterior(QUERY, wider, more) == make().posterior(QUERY, route, answers)

    check()


def check_nobody_alone_wins_against_enough_who_agree(make: Make) -> None:
    """Whatever is claimed, learnt or said by one source: what all others agree on is released."""
    if not hasattr(make(), "counting"):
        pytest.skip("the first to speak wins, before anybody can agree")

    @settings(max_examples=300, deadline=None)
    @given(st.integers(4, 6), st.lists(hundredths, min_size=6, max_size=6), hundredths, st.data())
    def check(others: int, chances: list[float], chance: float, data: st.DataObject) -> None:
        names = data.draw(st.permutations([f"e{i}" for i in range(7)]))
        alone, names = names[0], names[1 : others + 1]
        agreed, lie = data.draw(st.permutations(("A", "B", "C")))[:2]
        calls = [Call(name, f"s {name}", p) for name, p in zip(names, chances, strict=False)]
        answers = [answered(name, agreed, source=f"s {name}") for name in names]
        samples = data.draw(st.integers(1, 2))
        liar = Call(alone, f"s {alone}", chance, samples=samples)
        lies = [answered(alone, lie, source=f"s {alone}")] * samples
        route = panel(*calls, liar, strategy="fuse", fuser=alone)
        posterior, released = outcome(make(), route, [*lies, *answers])
        assert released == agreed == outcome(make(), route, answers)[1]
        best = make().candidates(QUERY, route, answers)[0]
        assert isinstance(posterior, Posterior)
        assert best is not None
        assert posterior.probabilities[posterior.candidates.index(best)] == posterior.best

    check()


def check_unknown_expert_is_tolerated(make: Make) -> None:
    """An answer of somebody who is not on the panel, such as a fuser, has no say."""
    route, answers = panel(Call("a", "s", 0.7)), [answered("a", "B", ttft_s=1.0)]
    more = [*answers, answered("stranger", "A", ttft_s=2.0)]
    assert outcome(make(), route, more) == outcome(make(), route, answers)


def check_lone_voter_has_its_probability(make: Make) -> None:
    """Who answers alone is believed exactly as much as the router believes it."""

    @settings(deadline=None)
    @given(hundredths)
    def check(probability: float) -> None:
        route = panel(Call("a", "s", probability))
        posterior = make().posterior(QUERY, route, [answered("a", "B")])
        assert math.isclose(posterior.best, probability, abs_tol=1e-12)

    check()


def check_nothing_known_is_all_other(make: Make) -> None:
    """Without an answer all probability is on "none of these"."""
    posterior = make().posterior(QUERY, panel(Call("a", "s", 0.7)), [])
    assert (posterior.candidates, posterior.probabilities, posterior.other) == ((), (), 1.0)


def check_lone_answer_is_relayed(make: Make) -> None:
    """One answer is released chunk by chunk as it came, its bytes, usage and finish untouched."""
    whole = answered("a", "It is Mars")
    chunks = (Chunk("It is", raw=b'{"x":1}'), *whole.chunks[1:])
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6))
    assert released(make(), route, [replace(whole, chunks=chunks), answered("b", "", "failed")]) == [*chunks]


def check_incomparable_answer_is_released(make: Make) -> None:
    """Where nobody says anything that compares, an answer is released all the same."""
    route = panel(Call("a", "s", 0.6), Call("b", "s", 0.7))
    answers = [answered("b", "Hard to say.", ttft_s=0.1), answered("a", "No idea.", ttft_s=0.2)]
    assert "".join(chunk.text for chunk in released(make(), route, answers)) == "Hard to say."


def check_all_failed_is_said(make: Make) -> None:
    """Nothing to release: the error names every expert and how it ended."""
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6))
    answers = [answered("a", "", "failed", reason="out of memory"), answered("b", "", "late")]
    with pytest.raises(AllExpertsFailedError, match=r"a failed: out of memory; b was late"):
        released(make(), route, answers)


def check_all_late_is_said(make: Make) -> None:
    """The deadline is the reason only where it is everybody's."""
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6))
    with pytest.raises(DeadlineError, match=r"a was late.*b was late"):
        released(make(), route, [answered("a", "", "late"), answered("b", "", "late")])


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in sorted(globals().items())
    if name.startswith("check_")
}
