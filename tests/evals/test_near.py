"""Which questions are near duplicates, which of them the cache takes for one, and how sure that is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import DataError
from manyminds.evals import near
from manyminds.evals.speed import cache
from manyminds.experts.recorded import Question, Split

if TYPE_CHECKING:
    from manyminds.types import Vectors


def embed(texts: Sequence[str], /) -> "Vectors":
    """Letters counted: whoever uses the same ones as often is alike."""
    found = np.zeros((len(texts), 128), np.float32)
    for row, text in enumerate(texts):
        for letter in text.casefold():
            found[row, ord(letter) % 128] += 1
    unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def question(
    prompt: str | None, gold: str | None = "5", split: Split = "test", choices: Sequence[str] = ()
) -> Question:
    return Question(f"{prompt} {choices}", "any", prompt, tuple(choices), gold, split)


def test_options_are_left_out_where_the_text_says_what_it_asks() -> None:
    questions = [
        question("How many legs has a spider?", "B", choices=("six", "Eight.")),
        question("Which of the following has eight legs?", "A", choices=("a spider", "an ant")),
        question("What has legs?", "A", choices=("a spider", "a table")),
        question("What has legs?", "B", choices=("a spider", "a table")),
        question("What has six legs?", "Z", choices=("a spider", "an ant")),
        question("How many has an ant?", None),
        question(None),
    ]
    assert near.questions_of(questions, options=False) == [
        near.Asked("How many legs has a spider?", "eight", test=True)
    ]
    whole = near.questions_of(questions, options=True)
    assert [asked.answer for asked in whole if asked.text.startswith("How many legs")] == ["B: eight"]
    assert all("\nA) " in asked.text for asked in whole)


def test_pairs_have_both_questions_in_one_half_and_are_counted_once() -> None:
    asked = [
        near.Asked("abc", "1", test=True),
        near.Asked("cab", "1", test=True),
        near.Asked("bac", "2", test=True),
        near.Asked("bca", "1", test=False),
        near.Asked("xyz", "1", test=True),
    ]
    pairs = near.near_pairs(asked, embed([one.text for one in asked]))
    assert {(pair.one, pair.other, pair.same) for pair in pairs} == {
        ("abc", "cab", True),
        ("abc", "bac", False),
        ("cab", "bac", False),
    }
    assert all(pair.test and pair.cosine == pytest.approx(1) for pair in pairs)


@given(st.integers(0, 60), st.integers(1, 60), st.data())
def test_the_bound_is_that_of_clopper_and_pearson(hits: int, of: int, data: st.DataObject) -> None:
    beta = pytest.importorskip("scipy.stats").beta
    hits = min(hits, of)
    expected = 1.0 if hits == of else float(beta.ppf(0.95, hits + 1, of - hits))
    assert near.upper_bound(hits, of) == pytest.approx(expected, abs=1e-9)


def test_nothing_seen_is_no_bound_and_nothing_wrong_has_one() -> None:
    assert near.upper_bound(0, 0) is None
    assert near.upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))


def test_spellings_vary_and_are_the_same_every_time() -> None:
    text = "How high is the tower of Pisa?"
    spelt = near.variants(text, seed=1)
    assert spelt == near.variants(text, seed=1)
    assert text not in spelt.values()
    same = {kind for kind, one in spelt.items() if near.worded(one) == near.worded(text)}
    assert same == spelt.keys() - {"a typo"}


def toy() -> list[Question]:
    """Two true pairs and a false one in each half: the false ones differ by a number, in place."""
    halves: tuple[Split, ...] = ("calibration", "test")
    found = []
    for split, town in zip(halves, ("Pisa", "Bonn"), strict=True):
        for tower in ("bell", "water"):
            found.append(question(f"How high is the {tower} tower of {town}?", f"{tower} {town}", split))
            found.append(question(f"how high is the {tower} tower of {town}", f"{tower} {town}", split))
        found.append(question(f"How high is tower 12 of the wall of {town}?", "12", split))
        found.append(question(f"How high is tower 21 of the wall of {town}?", "21", split))
    return found


def test_false_hits_by_cosine_are_none_of_the_cache() -> None:
    found = near.measure({"toy": toy()}, [], embed, seed=3)
    assert found == near.measure({"toy": toy()}, [], embed, seed=3)
    pairs = found["pairs"]["toy"]
    assert (pairs["cache"]["true"], pairs["cache"]["false"]) == (2, 0)
    assert pairs["cosine_alone"]["0.98"]["false"] > 0
    assert pairs["cosine_alone"]["0.98"]["false_share"] > 0
    assert pairs["cache"]["false_share_below"] == near.upper_bound(0, pairs["different"])
    lookups = found["lookups"]["toy"]
    assert (lookups["questions"], lookups["hits"], lookups["false"]) == (6, 4, 0)
    assert found["spellings"]["lower case"]["hits"] == 1.0
    assert found["spellings"]["a typo"]["hits"] < 1.0


def test_test_says_nothing_of_the_threshold() -> None:
    learnt = near.measure({"toy": toy()}, [], embed)["similarity"]
    changed = [q for q in toy() if q.split != "test"] + [
        question("How deep is the well of Rome?", "1"),
        question("HOW DEEP is the well of Rome", "2"),
    ]
    found = near.measure({"toy": changed}, [], embed)
    assert found["similarity"] == learnt
    assert found["pairs"]["toy"]["cache"]["false"] == 1
    assert found["lookups"]["toy"]["false"] == 2


def test_the_threshold_lies_above_whatever_was_wrong_while_learning() -> None:
    wrong = [
        question("How deep is the well of Rome?", "1", "calibration"),
        question("HOW DEEP is the well of Rome", "2", "calibration"),
    ]
    (pair,) = near.near_pairs(*_encoded(wrong))
    found = near.measure({"toy": [*toy(), *wrong]}, [], embed)
    assert found["similarity"] > pair.cosine


def _encoded(questions: Sequence[Question]) -> "tuple[list[near.Asked], Vectors]":
    asked = near.questions_of(questions, options=True)
    return asked, embed([one.text for one in asked])


def test_people_may_judge_pairs(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    rows = [f"How high is tower {n}?,how high is tower {n},1" for n in range(40)]
    rows += [f"How high is tower {n}?,How high is tower 9{n}?,0" for n in range(40)]
    file.write_text("\ufeffquestion,other,same\n" + "\n".join(rows), encoding="utf-8")
    judged = near.read_pairs(file)
    assert judged[0] == ("How high is tower 0?", "how high is tower 0", True)
    figures = near.measure({"toy": toy()}, judged, embed)["pairs"]["judged"]
    assert figures["learnt_from"] + figures["same"] + figures["different"] == 80
    assert (figures["cache"]["true"], figures["cache"]["false"]) == (figures["same"], 0)


@pytest.mark.parametrize("content", ["question,other\na,b", "question,other,same\na,b,maybe", "a,b,c\n1,2,3"])
def test_pairs_that_are_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="row 2: a pair needs columns question, other, and same"):
        near.read_pairs(file)
    with pytest.raises(DataError, match="Cannot read"):
        near.read_pairs(tmp_path / "none.csv")


def test_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="no question with a text and an answer"):
        near.measure({"toy": [question(None)]}, [], embed)


def test_speed_is_measured_of_what_is_there() -> None:
    found = cache.measure(50, 20)
    assert found["entries"] == 50
    assert found["bytes_each"] > 2000
    assert all(value > 0 for value in found.values())
