from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from manyminds.experts.recorded import RecordedSet, open_set
from manyminds.learn.examples import ABSTAINED, UNASKED, Examples, answered_in, gather, kinds_of
from tests.experts.test_recorded import answer, model, question, write_set
from tests.learn.made import FOUR, outcomes, same, without


def gathered(opened: RecordedSet, names: Sequence[str] | None = None, embed: Any = None) -> Examples:
    experts = [e for e in opened.experts() if names is None or e.card.name in names]
    return gather(experts, opened.questions(), opened, embed)


def small_set(folder: Path) -> RecordedSet:
    """Two models, four questions: of one nothing came from "b", of another "b" was not asked."""
    asked = [question(i, category=c) for i, c in zip("1234", ("x", "y", "x", ""), strict=True)]
    answers = [
        answer("1", "a", answer="4", completion_tokens=8.0, latency_s=0.5, confidence=0.75),
        answer("2", "a", answer="5", correct=0.0, completion_chars=9.0),
        answer("3", "a", answer="4", cost_usd=None),
        answer("4", "a", answer=" 4 "),
        answer("1", "b", answer="3", correct=0.0),
        answer("2", "b", answer=None, correct=0.0),
        answer("4", "b", answer="4"),
    ]
    return open_set(write_set(folder, asked, answers, [model("a"), model("b")]))


def test_votes_are_places_among_the_candidates(tmp_path: Path) -> None:
    examples = gathered(small_set(tmp_path))
    assert examples.experts == examples.sources == ("a", "b")
    assert examples.candidates == (("4", "3"), ("5",), ("4",), ("4",))
    assert examples.votes.tolist() == [[0, 1], [0, ABSTAINED], [0, UNASKED], [0, 0]]
    assert examples.correct.tolist() == [[True, False], [False, False], [True, False], [True, True]]
    assert examples.asked.tolist() == [[True, True], [True, True], [True, False], [True, True]]
    assert examples.topics == ("x", "y", "x", "")
    assert len(examples) == 4


def test_what_was_not_recorded_is_unknown(tmp_path: Path) -> None:
    examples = gathered(small_set(tmp_path))
    nan = np.nan
    np.testing.assert_equal(examples.tokens[:, 0], [8.0, 3.0, nan, nan])  # nine characters are three tokens
    np.testing.assert_equal(examples.seconds[:, 0], [0.5, nan, nan, nan])
    np.testing.assert_equal(examples.confidence[:, 0], [0.75, nan, nan, nan])
    np.testing.assert_equal(examples.cost_usd, [[0.25, 0.25], [0.25, 0.25], [nan, nan], [0.25, 0.25]])


def test_the_order_of_the_experts_does_not_matter(tmp_path: Path) -> None:
    opened = small_set(tmp_path)
    reverse = gather(opened.experts()[::-1], opened.questions(), opened)
    assert same(reverse, gathered(opened))


def test_without_an_expert_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "never").mkdir()
    opened = small_set(tmp_path / "with")
    asked = [question(i, category=c) for i, c in zip("1234", ("x", "y", "x", ""), strict=True)]
    answers = [
        answer("1", "b", answer="3", correct=0.0),
        answer("2", "b", answer=None, correct=0.0),
        answer("4", "b", answer="4"),
    ]
    never = open_set(write_set(tmp_path / "never", asked, answers, [model("b")]))
    assert same(gathered(opened, ["b"]), gathered(never))


def test_questions_are_taken_in_the_order_given(tmp_path: Path) -> None:
    opened = small_set(tmp_path)
    turned = gather(opened.experts(), opened.questions()[::-1], opened)
    assert same(turned, gathered(opened).rows(np.arange(4)[::-1]))


def test_texts_become_vectors_where_there_are_any(tmp_path: Path) -> None:
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[len(text), text.count("Q")] for text in texts], np.float32)

    (tmp_path / "text").mkdir()
    (tmp_path / "none").mkdir()
    mixed = [question("1", prompt="Q!"), question("2", prompt=None)]
    said = [answer("1"), answer("2")]
    vectors = gathered(open_set(write_set(tmp_path / "text", mixed, said)), embed=embed).vectors
    assert vectors is not None
    assert vectors.tolist() == [[2, 1], [0, 0]]
    bare = open_set(write_set(tmp_path / "none", [question("1", prompt=None)], [answer("1")]))
    assert gathered(bare, embed=embed).vectors is None
    assert gathered(small_set(tmp_path)).vectors is None


def test_the_kind_is_what_makes_answers_comparable(tmp_path: Path) -> None:
    for name, choices, said, kind, classes in (
        ("option", ["x", "y", "z"], "B", "option", 3),
        ("exact", None, "B", "exact", 10),
        ("verdict", ["x", "y"], None, "text", 10),
    ):
        (tmp_path / name).mkdir()
        asked, answers = [question("1", choices=choices)], [answer("1", answer=said)]
        opened = open_set(write_set(tmp_path / name, asked, answers))
        examples = gathered(opened)
        assert (
            kinds_of(opened.questions(), answered_in(opened.experts(), opened)) == examples.kinds == (kind,)
        )
        assert examples.classes == classes
        assert examples.votes.tolist() == [[ABSTAINED if said is None else 0]]


def test_some_rows_are_those_rows() -> None:
    examples = outcomes(n=50, unasked=0.2, abstained=0.2)
    index = np.array([3, 3, 49, 0])
    some = examples.rows(index)
    assert len(some) == 4
    assert some.topics == tuple(examples.topics[i] for i in index)
    assert some.candidates == tuple(examples.candidates[i] for i in index)
    for name in ("votes", "correct", "cost_usd", "seconds", "tokens", "confidence", "vectors"):
        np.testing.assert_equal(getattr(some, name), getattr(examples, name)[index])
    assert same(examples.rows(np.arange(50)), examples)


@pytest.mark.parametrize("gone", FOUR)
def test_made_up_outcomes_depend_on_an_experts_own_name_alone(gone: str) -> None:
    """What the tests of removal rest on."""
    others = {name: accuracy for name, accuracy in FOUR.items() if name != gone}
    shape = {"n": 80, "unasked": 0.2, "abstained": 0.2, "together": 0.3}
    assert same(without(outcomes(FOUR, **shape), gone), outcomes(others, **shape))  # type: ignore[arg-type]


# --- kinds that are mixed ----------------------------------------------------------------------------


def mixed_set(folder: Path) -> RecordedSet:
    """Options, numbers, and two categories of verdicts alone, which "b" was not asked, and "c" alone."""
    asked = [
        question("1", category="pick", choices=["x", "y"], prompt="Which?"),
        question("2", category="code", prompt="Write some code."),
        question("3", category="sums", prompt="What is 3 + 4?"),
        question("4", category="pick", choices=["x", "y", "z"], prompt="Which?"),
        question("5", category="verse", choices=["x", "y"], prompt="Write a poem."),
    ]
    answers = [answer(i, "a", answer=None if i in "25" else "A") for i in "12345"]
    answers += [answer(i, "b", answer="B", correct=0.0) for i in "13"]
    answers += [answer(i, "c", answer=None) for i in "25"]
    return open_set(write_set(folder, asked, answers, [model(name) for name in "abc"]))


def test_every_question_has_its_own_kind(tmp_path: Path) -> None:
    examples = gathered(mixed_set(tmp_path))
    assert examples.kinds == ("option", "text", "exact", "option", "text")
    assert examples.read_as == ("option", "text", "number", "option", "option")
    assert examples.spread.tolist() == [2, 10, 10, 3, 10]
    assert examples.classes == 7.0
    assert examples.comparable.tolist() == [True, False, True, True, False]


def test_an_answer_to_one_question_makes_its_category_comparable(tmp_path: Path) -> None:
    asked = [question(i, category="c", split=s) for i, s in zip("12", ("calibration", "test"), strict=True)]
    answers = [answer("1"), answer("2", answer=None, correct=0.0)]
    opened = open_set(write_set(tmp_path, asked, answers))
    assert kinds_of(opened.questions("test"), answered_in(opened.experts(), opened)) == ("exact",)
    assert kinds_of(opened.questions(), answered_in([], opened)) == ("text", "text")


def test_parts_are_answers_and_options_and_texts(tmp_path: Path) -> None:
    examples = gathered(mixed_set(tmp_path))
    exact, options, verdicts = examples.parts()
    assert (exact.experts, exact.sources, exact.topics) == (("a", "b"), ("a", "b"), ("sums",))
    assert (options.experts, options.topics) == (("a", "b"), ("pick", "pick"))
    assert (verdicts.experts, verdicts.topics) == (("a", "c"), ("code", "verse"))
    assert (exact.classes, options.classes, verdicts.classes) == (10.0, 2.5, 10.0)
    assert exact.votes.tolist() == [[0, 1]]
    assert options.votes.tolist() == [[0, 1], [0, UNASKED]]
    assert verdicts.votes.tolist() == [[ABSTAINED, ABSTAINED]] * 2
    assert options.correct.tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("sort", ["exact", "option", "text"])
def test_questions_of_one_sort_are_one_part_with_everybody(sort: str, tmp_path: Path) -> None:
    examples = gathered(mixed_set(tmp_path))
    some = examples.rows(np.flatnonzero([kind == sort for kind in examples.kinds]))
    (part,) = some.parts()
    assert part is some
