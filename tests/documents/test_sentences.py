"""Sentences lose nothing, numbers are the same however they are written, and no text takes long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.documents.sentences import numbers, sentences

PIECES = [
    "One thing.",
    "e.g.",
    "No.",
    "Is it?",
    '"So!"',
    "(It is.)",
    "é",
    "Ä",
    "这是。",
    "\n",
    " ",
    "5",
    "x",
    "-",
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join))


@given(texts)
def test_nothing_is_lost_and_none_is_empty(text: str) -> None:
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(one and one == one.strip() for one in found)


@given(texts)
def test_no_sentence_goes_over_a_line(text: str) -> None:
    assert not any("\n" in one for one in sentences(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("No full stop", ["No full stop"]),
        ("It rose. It fell! Did it? Yes.", ["It rose.", "It fell!", "Did it?", "Yes."]),
        ("A line\nand another\n\n\nThird", ["A line", "and another", "Third"]),
        ("Metals, e.g. Iron, melt.", ["Metals, e.g. Iron, melt."]),
        ("Dr. Who met Mr. Bond. They spoke.", ["Dr. Who met Mr. Bond.", "They spoke."]),
        ("See No. 5. It was J. S. Bach.", ["See No. 5.", "It was J. S. Bach."]),
        ("It approx. 5 metres.", ["It approx. 5 metres."]),
        ("It ended, i.e.\nIt stopped", ["It ended, i.e.", "It stopped"]),
        ("Version 3.5 is out. version 4 is not.", ["Version 3.5 is out. version 4 is not."]),
        ("He said 'Go.' Then (it is so.) It went.", ["He said 'Go.'", "Then (it is so.)", "It went."]),
        ('It fell. "Why?" he asked.', ["It fell.", '"Why?" he asked.']),
        ("See this. `open` opens.", ["See this.", "`open` opens."]),
        ("Das ist so. Übrigens nicht. über alles", ["Das ist so.", "Übrigens nicht. über alles"]),
        ("Это так. Другое нет.", ["Это так.", "Другое нет."]),
        ("这是一。「那是二！」真的！？是。\n好", ["这是一。", "「那是二！」", "真的！？", "是。", "好"]),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none at all", set()),
        ("1,538 or 1538 or 1,538.0", {"1538"}),
        ("12,345,678.50", {"12345678.5"}),
        ("10 and 10.0 and 10.00", {"10"}),
        ("100", {"100"}),
        ("0, 0.0, -0", {"0"}),
        ("0.5, .5, 0,50", {"0.5"}),
        ("-38.83 and −38,83", {"-38.83"}),
        ("1.234,5", {"1234.5"}),
        ("12,3456", {"12.3456"}),
        ("in 1990, 1991, and on May 5, 1992", {"1990", "1991", "5", "1992"}),
        ("1,2,3", {"1", "2", "3"}),
        ("3-4, 5–6", {"3", "4", "5", "6"}),
        ("at 10.0.0.1", {"10.0.0.1"}),
        ("H2O in v1.2 of utf8", set()),
        ("It has 5. Then it has 6.", {"5", "6"}),
        ("20°C, 30% and $99", {"20", "30", "99"}),
        ("٤٢", {"42"}),
    ],
)
def test_numbers(text: str, expected: set[str]) -> None:
    assert numbers(text) == expected


@given(st.integers(-(10**12), 10**12), st.integers(0, 4))
def test_a_number_is_the_same_however_it_is_written(whole: int, zeros: int) -> None:
    spellings = [str(whole), f"{whole:,}", f"{whole}.{'0' * zeros}" if zeros else str(whole)]
    spellings += [spelling.replace("-", "−") for spelling in spellings]
    assert {frozenset(numbers(f"it is {spelling} in all")) for spelling in spellings} == {
        frozenset({str(whole)})
    }


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000))
def test_decimals_keep_their_value(value: object) -> None:
    (found,) = numbers(f"it is {value}.")
    assert float(found) == float(str(value))


@given(st.text())
def test_any_text_has_numbers_or_not(text: str) -> None:
    assert all(number and number[-1].isdigit() for number in numbers(text))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit",
    ["A. ", "e.g. A ", '."', ". ", ".", "。", "。」", "1", "1,111", "1.", "-", "-1", "(", " ", ".\n", ". ü"],
)
def test_hostile_texts_take_no_time(unit: str) -> None:
    """A quadratic reading of these takes minutes."""
    text = unit * 100_000
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert len(numbers(text)) <= 3
    tail = "." + unit[-1] * 100_000 + "a"
    assert len(sentences(tail)) <= 2
