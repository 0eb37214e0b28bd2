from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manyminds.feedback import agreed, judged
from manyminds.types import Answer, Outcome, PanelEntry, Prior, Report


def request(strategy: str, *calls: tuple[str, str, float | None]) -> dict[str, Any]:
    told = [
        {"expert": name, "status": status, "probability": p, "prior": 0.6, "basis": "b"}
        for name, status, p in calls
    ]
    return {"request_id": "r", "strategy": strategy, "calls": told}


def grades(strategy: str, correct: float, *calls: tuple[str, str, float | None]) -> dict[str, float | None]:
    return {found.expert: found.correct for found in judged(request(strategy, *calls), correct)}


VOTE = (("a", "ok", 0.7), ("b", "ok", 0.2), ("c", "ok", 0.7), ("d", "failed", None), ("e", "ok", None))


def test_who_gave_the_right_answer_was_right_and_in_a_vote_the_others_were_wrong() -> None:
    assert grades("vote", 1.0, *VOTE) == {"a": 1.0, "b": 0.0, "c": 1.0}


def test_where_the_answer_was_wrong_nobody_knows_about_the_others() -> None:
    assert grades("vote", 0.0, *VOTE) == {"a": 0.0, "c": 0.0}


def test_other_texts_may_be_as_right_as_the_one_that_was_chosen() -> None:
    assert grades("select", 1.0, *VOTE) == {"a": 1.0, "c": 1.0}


def test_of_a_fused_answer_nobody_knows_who_was_right() -> None:
    assert grades("fuse", 1.0, *VOTE) == {}


def test_one_that_was_asked_alone_has_the_grade() -> None:
    assert grades("pass", 0.3, ("a", "ok", 0.5)) == {"a": 0.3}


def test_who_said_nothing_has_none() -> None:
    assert grades("pass", 0.3, ("a", "failed", None)) == {}


@given(
    st.sampled_from(["vote", "select", "race", "pass", "fuse"]),
    st.floats(0, 1),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.just("ok"), st.floats(0, 1)), max_size=6),
)
def test_grades_are_grades(strategy: str, correct: float, calls: list[tuple[str, str, float]]) -> None:
    found = judged(request(strategy, *calls), correct)
    assert all(outcome.correct is not None and 0.0 <= outcome.correct <= 1.0 for outcome in found)
    assert all(outcome.prior == Prior(0.6, "b") for outcome in found)
    assert all(outcome.ttft_s is None for outcome in found)  # of how fast it was, nothing is said


# --- what a sure vote says -------------------------------------------------------------------------

SURE = (("a", 0.97), ("b", 0.97), ("c", 0.02), ("d", None))


def votes(strategy: str, probability: float | None, *told: tuple[str, float | None]) -> list[Outcome]:
    panel = tuple(PanelEntry(name, name, 0.3, "x", p, 0.1, 0.2, 0.0, "ok") for name, p in told)
    answers = [Answer(name, name, "ok", prior=Prior(0.6, "b")) for name, _ in told]
    report = Report("r", "auto", strategy, panel, None, probability, (), 0.0, 0.0)  # type: ignore[arg-type]
    return agreed(report, answers)


def test_a_sure_vote_is_a_weak_grade_of_all_who_voted_and_names_them() -> None:
    found = votes("vote", 0.97, *SURE)
    assert {outcome.expert: outcome.correct for outcome in found} == {"a": 1.0, "b": 1.0, "c": 0.0}
    assert {(outcome.weight, outcome.voters, outcome.prior) for outcome in found} == {
        (0.1, ("a", "b", "c"), Prior(0.6, "b"))
    }


def test_a_vote_of_two_or_in_doubt_or_of_texts_says_nothing() -> None:
    assert votes("vote", 0.94, *((name, p and 0.94) for name, p in SURE)) == []
    assert votes("vote", 0.97, *SURE[:2], SURE[3]) == []
    assert votes("select", 0.97, *SURE) == []
    assert votes("vote", None, *SURE) == []
    cached = Report("r", "auto", "vote", (), None, 0.97, (), 0.0, 0.0, cache="exact")
    assert agreed(cached, ()) == []
