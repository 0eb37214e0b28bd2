import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.combine.release import release
from manyminds.combine.vote import Vote
from manyminds.errors import AllExpertsFailedError, RefusedError
from manyminds.types import Call, Chunk, Task
from tests.changed import replace
from tests.clock import run
from tests.combine.arrivals import Prepared, answered, panel, question

SUM = question("What is 17 + 26?", Task("number"))
hundredths = st.integers(2, 98).map(lambda i: i / 100)


def test_weights_are_log_odds() -> None:
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6), Call("c", "s", 0.6))
    answers = [answered("a", "44"), answered("b", "43"), answered("c", "17 + 26 = 43.0")]
    posterior = Vote().posterior(SUM, route, answers)
    for_44, for_43 = 49 * 0.7 / 0.3, (49 * 0.6 / 0.4) ** 2
    total = for_44 + for_43 + 48  # classes that nobody named
    assert posterior.candidates == ("43", "44")
    assert posterior.probabilities == pytest.approx((for_43 / total, for_44 / total))
    assert posterior.other == pytest.approx(48 / total)


def test_two_may_outvote_one_and_the_heavier_of_them_speaks() -> None:
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6), Call("c", "s", 0.65))
    answers = [answered("a", "44"), answered("b", "43"), answered("c", "It is 43, I think")]
    assert Vote().choose(SUM, route, answers).expert == "c"


def test_equal_voters_are_told_apart_by_name() -> None:
    route = panel(Call("b", "s", 0.6), Call("a", "s", 0.6))
    assert Vote().choose(SUM, route, [answered("b", "43"), answered("a", "43.")]).expert == "a"


def test_worse_than_chance_is_a_warning() -> None:
    options = question(task=Task("option", ("x", "y", "z", "w")))
    posterior = Vote().posterior(options, panel(Call("a", "s", 0.1)), [answered("a", "A")])
    assert posterior.best == pytest.approx(0.1)
    assert posterior.best < posterior.other / 3


@given(hundredths, st.integers(1, 5))
def test_asking_again_makes_nobody_heavier(probability: float, times: int) -> None:
    route = panel(Call("a", "s", probability, samples=times))
    posterior = Vote().posterior(SUM, route, [answered("a", "43")] * times)
    assert math.isclose(posterior.best, probability, abs_tol=1e-12)


def test_samples_share_one_vote() -> None:
    route = panel(Call("a", "s", 0.8, samples=3), Call("b", "s", 0.3))
    answers = [answered("a", text) for text in ("43", "43", "44")]
    posterior = Vote().posterior(SUM, route, [*answers, answered("b", "44")])
    weight, other = math.log(49 * 0.8 / 0.2), math.log(49 * 0.3 / 0.7)
    scores = [math.exp(2 * weight / 3), math.exp(weight / 3 + other)]
    assert posterior.probabilities == pytest.approx([s / (sum(scores) + 48) for s in scores])


def test_a_sample_that_abstains_leaves_the_vote_to_the_others() -> None:
    route = panel(Call("a", "s", 0.8, samples=2))
    posterior = Vote().posterior(SUM, route, [answered("a", "43"), answered("a", "Hard to say.")])
    assert posterior.best == pytest.approx(0.8)


def test_what_is_written_from_the_votes_is_no_vote() -> None:
    route = panel(Call("a", "s", 0.6), Call("b", "s", 0.7))
    answers = [answered("a", "43"), answered("b", "44")]
    fused = replace(answered("b", "43"), method="fuse")
    assert Vote().posterior(SUM, route, [*answers, fused]) == Vote().posterior(SUM, route, answers)


@given(hundredths, st.floats(1, 1e308))
def test_no_weight_is_too_large(probability: float, weight: float) -> None:
    route = panel(Call("a", "s", probability, weight=weight), Call("b", "s", 0.6))
    posterior = Vote().posterior(SUM, route, [answered("a", "43"), answered("b", "44")])
    assert math.isclose(math.fsum([*posterior.probabilities, posterior.other]), 1.0, abs_tol=1e-12)


def test_something_is_left_for_other_when_every_option_is_named() -> None:
    both = question(task=Task("option", ("x", "y")))
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6))
    posterior = Vote().posterior(both, route, [answered("a", "A"), answered("b", "B")])
    assert 0 < posterior.other < 0.001


def test_nothing_is_released_before_all_that_come_are_in() -> None:
    route = panel(Call("a", "s", 0.6), Call("b", "s", 0.9))
    arrivals = Prepared(route, [answered("a", "44", ttft_s=0.1), answered("b", "It is 43", ttft_s=0.2)])

    async def text() -> str:
        return "".join([chunk.text async for chunk in Vote().combine(SUM, route, arrivals)])

    assert run(text()) == "It is 43"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_number_cut_at_its_length_abstains_but_an_option_counts(reason: str) -> None:
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6))
    whole, cut = answered("b", "43"), replace(answered("a", "2 + 2"), chunks=(Chunk("2 + 2", reason),))
    assert Vote().candidates(SUM, route, [cut, whole]) == [None, "43"]
    assert Vote().choose(SUM, route, [cut, whole]) is whole
    assert Vote().choose(SUM, route, [cut]) is cut  # better than nothing, and it says so
    options = question(task=Task("option", ("x", "y")))
    letter = replace(answered("a", "B"), chunks=(Chunk("B", reason),))
    assert Vote().candidates(options, route, [letter]) == ["B"]


def test_at_the_deadline_what_was_written_is_released_as_cut() -> None:
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6))
    late = replace(answered("a", "Because of", "late"), chunks=(Chunk("Because"), Chunk(" of")))
    chunks = list(release(Vote().choose(SUM, route, [late, answered("b", "", "late")])))
    assert "".join(c.text for c in chunks) == "Because of"
    assert chunks[-1].finish_reason == "length"


def test_when_all_refuse_another_try_is_no_use() -> None:
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6))
    refusals = [replace(answered(n, "", "failed"), error=RefusedError("No images.")) for n in "ab"]
    with pytest.raises(RefusedError, match="No images"):
        Vote().choose(SUM, route, refusals)
    with pytest.raises(AllExpertsFailedError):
        Vote().choose(SUM, route, [refusals[0], answered("b", "", "failed")])
