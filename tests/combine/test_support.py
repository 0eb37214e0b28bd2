"""What documents say of answers, by words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.combine.support import Trust, agreement, chance, conflict, contradicts, worth
from manyminds.types import Grounds, Task
from tests.combine.arrivals import question

shares = st.integers(0, 1000).map(lambda i: i / 1000)
texts = st.text("abcXYZ 0123,.'s\n", max_size=40)


@given(shares, shares)
def test_without_a_fit_support_is_the_chance(expected: float, support: float) -> None:
    found = chance(expected, Grounds(support))
    assert found == pytest.approx(max(worth(support), 0.005))


@given(shares, shares)
def test_a_claim_is_worth_itself_up_to_a_bound_and_the_surer_is_surer(one: float, other: float) -> None:
    assert worth(one) == one if one <= 0.9 else 0.9 < worth(one) < 0.915
    if one < other < 0.995:
        assert worth(one) < worth(other)


@given(shares)
def test_who_has_no_grounds_or_declines_is_as_the_router_expects(expected: float) -> None:
    assert chance(expected, None) == expected
    assert chance(expected, Grounds(0.9, declined=True)) == expected


def test_a_fit_moves_and_mixes_log_odds() -> None:
    odds = 0.5 + 2.0 * math.log(0.8 / 0.2) + math.log(0.6 / 0.4)
    assert chance(0.6, Grounds(0.8), Trust(0.5, 2.0, 1.0)) == pytest.approx(1 / (1 + math.exp(-odds)))


@pytest.mark.parametrize(
    ("asked", "grounded", "other", "found"),
    [
        ("What is the fee?", "The fee is 1,538 dollars a year.", "It is $1538.00.", 1.0),
        ("What is the fee?", "The fee is 1,538 dollars a year.", "The fee is 1,200 dollars a year.", 0.0),
        ("How many wards are there?", "There are three wards.", "There are 3.", 1.0),
        ("Who leads the ward?", "Dr Amélie Ruiz leads the ward.", "I think that it is amelie ruiz.", 1.0),
        ("Who leads the ward?", "It is led by Amélie Ruiz.", "John Smith leads it.", 0.0),
        ("When is it open?", "It opens in the morning.", "It opens at noon.", 0.0),
        ("When is it open?", "It opens in the mornings.", "In the morning, at 9.", 1.0),
        ("What is it made of?", "Copper wires.", "Steel.", 0.0),
        ("Is the ward open?", "Yes, the ward is open.", "No.", None),
    ],
)
def test_telling_words_are_looked_for(asked: str, grounded: str, other: str, found: float | None) -> None:
    expected = None if found is None else pytest.approx(found)
    assert agreement(asked, grounded, other) == expected


@given(texts, texts, texts)
def test_agreement_is_a_share(asked: str, grounded: str, other: str) -> None:
    found = agreement(asked, grounded, other)
    assert found is None or 0.0 <= found <= 1.0
    assert agreement(asked, grounded, grounded) in (None, 1.0)


def test_what_can_be_compared_contradicts_where_it_differs() -> None:
    choice = question("Which?", Task("option", ("red", "blue")))
    assert contradicts(choice, "A) red", "The answer is B.")
    assert not contradicts(choice, "A) red", "The answer is A.")
    assert not contradicts(choice, "A) red", "Who knows?")


@given(texts, texts, texts, st.sampled_from([Task(), Task("number"), Task("span")]))
def test_conflicts_are_the_same_either_way_round(asked: str, one: str, other: str, task: Task) -> None:
    query = question(asked, task)
    assert conflict(query, one, other) == conflict(query, other, one)
    assert not conflict(query, one, one)


def test_texts_conflict_where_neither_has_what_the_other_tells() -> None:
    query = question("Who leads the ward?")
    assert conflict(query, "It is led by Amélie Ruiz.", "It is led by John Smith.")
    assert not conflict(query, "It is led by Amélie Ruiz.", "Amélie Ruiz, with John Smith.")
    assert not conflict(query, "Yes.", "No.")
