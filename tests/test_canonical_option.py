"""A letter alone is read without looking for more: that must be what looking would find."""

import string

from hypothesis import example, given, settings
from hypothesis import strategies as st

from manyminds.canonical.option import _Choice, option

OPTION = st.one_of(
    st.text(st.sampled_from("ABCDabcdK. \t*()KſÀ"), max_size=4),
    st.sampled_from(["option B", "(C)", "A.", "a person", "the B", "red", "Paris, Texas", "0.1", ""]),
    st.text(max_size=12),
)
LETTER = st.sampled_from(string.ascii_uppercase)


@given(st.lists(OPTION, max_size=30), LETTER)
@example(["B", "A", "C"], "A")
@example(["A", "b", "C"], "B")
@example([" a . ", "red"], "A")
@example(["\u212a", "red", *"cdefghijklm"], "K")  # the sign of the kelvin folds to a k
@settings(max_examples=1000)
def test_a_letter_alone_is_read_as_the_whole_reading_reads_it(options: list[str], letter: str) -> None:
    assert option(options, letter) == _Choice(options).read(letter)


@given(st.lists(OPTION, max_size=8), st.text(min_size=1, max_size=2))
@settings(max_examples=1000)
def test_any_short_text_is_read_as_the_whole_reading_reads_it(options: list[str], text: str) -> None:
    assert option(options, text) == _Choice(options).read(text)


def test_a_letter_that_is_another_options_text_is_left_open() -> None:
    assert option(["red", "blue"], "B") == "B"
    assert option(["B", "A"], "A") is None
    assert option(["red", "blue"], "C") is None
