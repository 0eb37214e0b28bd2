"""Procedural tasks differ, are read as live traffic reads them, and no right answer is judged wrong."""

import hashlib
import os
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.canonical import task
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.evals.packs import procedural
from manyminds.evals.packs.logic import follows
from manyminds.evals.questions import Graded
from manyminds.types import Message, Query

CATEGORIES = procedural.categories()
WORDINGS = (
    "{}",
    "{}.",
    "**{}**",
    "The answer is {}.",
    "Answer: {}",
    "The final answer is **{}**.",
    "\\boxed{{{}}}",
)
STEPS = "First, look at it. 3 + 4 = 7, so that is one part.\n\nAnswer: {}"


def made(category: str, seed: int = 0, count: int = 12) -> list[Graded]:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    return list(procedural.questions(category, seed, count))


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_right_answer_is_right_in_any_wording(category: str) -> None:
    for graded in made(category, count=60):
        if graded.check is not None:
            continue
        gold = graded.question.gold
        assert gold
        for wording in (*WORDINGS, STEPS if graded.task.kind == "number" else "{}"):
            assert graded.read(wording.format(gold)) == gold
            assert graded.right(wording.format(gold))
        assert graded.right(wording.format(gold.upper()))
        assert not graded.right("17.123" if graded.task.kind == "number" else "perhaps")


@pytest.mark.parametrize("category", CATEGORIES)
def test_tasks_are_read_as_live_traffic_reads_them(category: str) -> None:
    for graded in made(category):
        assert graded.task == task(Query((Message("user", graded.text),)))
        assert graded.text == graded.question.text
        assert graded.question.category == category


@pytest.mark.parametrize("category", CATEGORIES)
def test_tasks_differ_and_a_greater_count_adds(category: str) -> None:
    fewer, more, others = made(category), made(category, count=30), made(category, seed=1)
    assert [graded.question for graded in more[:12]] == [graded.question for graded in fewer]
    assert len({graded.text for graded in more}) == 30
    assert len({graded.question.question_id for graded in (*more, *others)}) == 42
    assert {graded.text for graded in fewer} != {graded.text for graded in others}
    assert fewer[4].question.question_id == f"procedural-{category}-0-1-1"
    assert all(graded.question.split == split_of(graded.question.question_id) for graded in more)


def test_tasks_do_not_depend_on_the_process() -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    code = (
        "import hashlib\nfrom manyminds.evals.packs import procedural as p\n"
        "print(hashlib.sha256(repr([(g.question, g.text) for c in p.categories()"
        " for g in p.questions(c, 3, 15)]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = [(graded.question, graded.text) for category in CATEGORIES for graded in made(category, 3, 15)]
    assert digests == {hashlib.sha256(repr(here).encode()).hexdigest() + "\n"}


def test_too_many_tasks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedural, "_SIZE", 5)
    with pytest.raises(DataError, match=r"only 1[0-9] different tasks of seed 0"):
        made("gcd", count=100)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    with pytest.raises(DataError, match=r"need reasoning-gym 0\.1\.25, and 9\.9 is installed"):
        made("gcd")


# --- games -----------------------------------------------------------------------------------------


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, list[int], Fraction]:
    """An expression with its numbers and its value."""
    numbers = draw(st.lists(st.integers(1, 25), min_size=2, max_size=5))
    text, value = str(numbers[0]), Fraction(numbers[0])
    for number in numbers[1:]:
        sign = draw(st.sampled_from("+-*/"))
        text = f"({text}) {sign} {number}"
        value = {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]
    return text, numbers, value


@given(
    expressions(), st.sampled_from(["{}", "{} = 7", "**{}**", "So:\n\n`{}`", "12 + 1 is wrong. Answer: {}."])
)
def test_an_expression_makes_its_value_and_no_other(
    made: tuple[str, list[int], Fraction], wording: str
) -> None:
    text, numbers, value = made
    if value.denominator != 1:
        value = value.limit_denominator(1) + Fraction(1, 3)
        assert not procedural.makes(numbers, int(value), wording.format(text))
        return
    assert procedural.makes(numbers, int(value), wording.format(text))
    assert not procedural.makes(numbers, int(value) + 1, wording.format(text))
    assert not procedural.makes([*numbers, 1], int(value), wording.format(text))
    assert not procedural.makes(numbers[1:], int(value), wording.format(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6",
        "2 ** 3",
        "2 // 3",
        "__import__('os').getcwd()",
        "(" * 150 + "2*3" + ")" * 150,
        "2*3" * 500,
        "2*03",
        "2/0*3",
    ],
)
def test_what_is_no_expression_makes_nothing(text: str) -> None:
    assert not procedural.makes([2, 3], 6, text)


@pytest.mark.parametrize("text", ["2 × 3", "2·3 = 6", "3*2", "\\boxed{2 * 3}"])
def test_signs_are_read_as_people_write_them(text: str) -> None:
    assert procedural.makes([2, 3], 6, text)


# --- logic -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "conclusion", "holds"),
    [
        ("All cats are mammals\nAll mammals are animals", "All cats are animals", True),
        ("All cats are mammals\nNo mammals are fish", "No cats are fish", True),
        ("All children are reptiles\nSome reptiles are teachers", "Some children are teachers", False),
        ("Some cats are mammals\nAll mammals are animals", "Some cats are animals", True),
        ("No cats are dogs\nSome dogs are pets", "Some pets are not cats", True),
        ("All cats are mammals\nAll mammals are animals", "Some cats are animals", None),
        ("All cats are mammals", "All mammals are cats", False),
        ("Some cats are not dogs", "Some dogs are not cats", False),
        ("", "All cats are dogs", None),
        ("All cats are dogs\nAll birds are fish", "All cats are fish", None),
    ],
)
def test_conclusions_follow_or_do_not(statements: str, conclusion: str, holds: bool | None) -> None:
    assert follows(f"{statements}\n\nDoes it logically follow that:\n{conclusion}?") is holds
