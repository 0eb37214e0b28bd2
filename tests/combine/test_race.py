import pytest

from manyminds.combine.race import Race
from manyminds.errors import AllExpertsFailedError, CutError
from manyminds.types import Call, Posterior, Task
from tests.clock import run
from tests.combine.arrivals import Prepared, answered, panel, question

SUM = question("What is 17 + 26?", Task("number"))
ROUTE = panel(Call("a", "s", 0.9), Call("b", "s", 0.6), strategy="race")


def raced(arrivals: Prepared) -> list[str]:
    async def texts() -> list[str]:
        return [chunk.text async for chunk in Race().combine(SUM, ROUTE, arrivals)]

    return run(texts())


def test_the_first_to_speak_wins_and_the_others_are_stopped() -> None:
    arrivals = Prepared(ROUTE, [answered("a", "It is 43", ttft_s=0.9), answered("b", "It is 44", ttft_s=0.2)])
    assert raced(arrivals) == ["It ", "is ", "44", ""]
    assert arrivals.kept is not None
    assert arrivals.kept.call.expert == "b"


def test_nothing_is_stopped_before_somebody_speaks() -> None:
    arrivals = Prepared(ROUTE, [answered("a", "", "failed"), answered("b", "", "failed")])
    with pytest.raises(AllExpertsFailedError, match=r"a failed.*b failed"):
        raced(arrivals)
    assert not arrivals.cancelled


def test_a_failure_before_the_first_word_leaves_the_race_to_the_next() -> None:
    arrivals = Prepared(ROUTE, [answered("b", "", "failed", ttft_s=0.1), answered("a", "43", ttft_s=0.9)])
    assert raced(arrivals) == ["43", ""]


def test_nobody_takes_over_half_an_answer() -> None:
    arrivals = Prepared(ROUTE, [answered("b", "It is", "cut", ttft_s=0.1), answered("a", "43", ttft_s=0.9)])
    with pytest.raises(CutError):
        raced(arrivals)


def test_the_posterior_is_the_winner_s() -> None:
    answers = [answered("a", "It is 43", ttft_s=0.9), answered("b", "It is 44", ttft_s=0.2)]
    assert Race().posterior(SUM, ROUTE, answers) == Posterior(("44",), (0.6,), 0.4)
    assert Race().candidates(SUM, ROUTE, answers) == [None, "44"]


def test_what_has_no_canonical_form_is_an_answer_all_the_same() -> None:
    assert Race().posterior(question(), ROUTE, [answered("a", "Well")]).candidates == ("answer",)
