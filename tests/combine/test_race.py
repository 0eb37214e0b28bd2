import pytest

from manyminds.combine.race import Race
from manyminds.errors import AllExpertsFailedError, CutError
from manyminds.types import Call, Grounds, Limits, Posterior, Task
from tests.changed import replace
from tests.clock import run
from tests.combine.arrivals import Prepared, answered, panel, question

SUM = question("What is 17 + 26?", Task("number"))
ROUTE = panel(Call("a", "s", 0.9), Call("b", "s", 0.6), strategy="race")


def raced(arrivals: Prepared, *, grounded: bool = False) -> list[str]:
    query = replace(SUM, limits=Limits(grounded=grounded))

    async def texts() -> list[str]:
        return [chunk.text async for chunk in Race().combine(query, ROUTE, arrivals)]

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


DECLINED, FOUND = Grounds(0.1, declined=True), Grounds(0.8)


def test_who_declines_does_not_win() -> None:
    no, yes = answered("a", "No.", ttft_s=0.1, grounds=DECLINED), answered("b", "It is 43", ttft_s=0.9)
    arrivals = Prepared(ROUTE, [no, yes])
    assert raced(arrivals) == ["It ", "is ", "43", ""]
    assert arrivals.kept is not None
    assert arrivals.kept.call.expert == "b"
    assert Race().candidates(SUM, ROUTE, [no, yes]) == [None, "43"]


def test_where_nobody_else_answers_the_likeliest_declines() -> None:
    answers = [
        answered("b", "b: no.", ttft_s=0.1, grounds=DECLINED),
        answered("a", "a: no.", grounds=DECLINED),
    ]
    assert raced(Prepared(ROUTE, answers)) == ["a: no."]
    assert raced(Prepared(ROUTE, [answers[0], answered("a", "", "failed")])) == ["b: no."]
    assert Race().posterior(SUM, ROUTE, answers) == Posterior()


def test_where_grounds_are_wanted_an_answer_without_any_does_not_win() -> None:
    plain = answered("a", "It is 44", ttft_s=0.1)
    found = answered("b", "It is 43", ttft_s=0.9, grounds=FOUND)
    assert raced(Prepared(ROUTE, [plain, found]), grounded=True) == ["It ", "is ", "43", ""]
    assert raced(Prepared(ROUTE, [plain, found])) == ["It ", "is ", "44", ""]
    no = answered("b", "No.", grounds=DECLINED)
    assert raced(Prepared(ROUTE, [plain, no]), grounded=True) == ["No."]
    with pytest.raises(AllExpertsFailedError):
        raced(Prepared(ROUTE, [plain, answered("b", "It is", "cut")]), grounded=True)
    grounded = replace(SUM, limits=Limits(grounded=True))
    posterior = Race().posterior(grounded, ROUTE, [plain, found])
    assert posterior.candidates == ("43",)
    assert posterior.best == pytest.approx(0.8)  # what supports it, and not what was expected
