"""Which two questions are the same but for words that ask for nothing."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manyminds import canonical
from manyminds.cache import wording
from manyminds.types import Message, Query, Task


def worded(text: str) -> tuple[str, ...] | None:
    return wording(text, canonical.task(Query((Message("user", text),))))


ALIKE = [
    ("What is the capital of France?", "what's the capital of france"),
    ("What is the capital of France?", "Could you please tell me: what is the capital of France? Thanks!"),
    ("What's a heart murmur?", "Can you please tell me what exactly a heart murmur is?"),
    ("How do I cancel my subscription?", "how can I cancel my subscription"),
    ("How is substance abuse diagnosed?", "Could you tell me, how substance abuse is diagnosed? "),
    ("Don’t dogs eat grapes?", "don't  dogs eat\ngrapes"),
    ("What are the side effects of aspirin?", "What is the side effect of aspirin?"),
]

UNLIKE = [
    ("What is 17 times 23?", "What is 17 times 32?"),
    ("What is 12 - 5?", "What is 12 5?"),
    ("Is it colder at -5 degrees?", "Is it colder at 5 degrees?"),
    ("What is 5! divided by 3", "What is 5 divided by 3"),
    ("What is 1.5 of 30", "What is 15 of 30"),
    ("Who won the world cup of 2010?", "Who won the world cup of 2014?"),
    ("How do I get from Paris to Rome?", "How do I get from Rome to Paris?"),
    ("flights from Paris to Rome", "flights to Paris from Rome"),
    ("Does smoking cause stress?", "Does stress cause smoking?"),
    ("Is it safe to take aspirin?", "Is it unsafe to take aspirin?"),
    ("Is it safe to take aspirin?", "Is it not safe to take aspirin?"),
    ("How do I turn on dark mode?", "How do I turn off dark mode?"),
    ("List files larger than 1GB", "List files smaller than 1GB"),
    ("List files larger than 1GB", "List files larger than 1MB"),
    ("convert 5 km to miles", "convert 5 miles to km"),
    ("Can dogs eat grapes?", "Can cats eat grapes?"),
    ("Can dogs eat grapes?", "Should dogs eat grapes?"),
    ("Can you lend me money?", "Can I lend you money?"),
    ("Is a virus the cause of it?", "What virus is the cause of it?"),
    ("What is your name again, friend?", "What is my name again, friend?"),
    ("Who is the president of France?", "Who was the president of France?"),
    ("Calculate the Fermi energy for copper in eV.", "Calculate the Fermi temperature for copper in eV."),
    ("what are hepatitis a symptoms", "what are hepatitis symptoms"),
    ("What does vitamin A do for skin", "What does vitamin do for skin"),
    ("What is the best phone to buy", "What is the best cheap phone to buy"),
    ("What is a router in IPv6?", "What is a router in IPv4?"),
    ("Was sind die Maße des Turms", "Was sind die Masse des Turms"),
    ("hello world program in basic", "world program in basic"),
    ("What is Japanese for thank you", "What is Japanese for please"),
    ("How do you feel about war", "How do I feel about war"),
    ("Wie komme ich von Rom nach Paris", "Wie komme ich nach Rom von Paris"),
    (
        "Which animal runs much faster: A) a cat B) a dog?",
        "Which animal runs much faster: A) a dog B) a cat?",
    ),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_words_that_ask_for_nothing_make_no_difference(one: str, other: str) -> None:
    assert worded(one) is not None
    assert worded(one) == worded(other)


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_every_other_word_does(one: str, other: str) -> None:
    assert worded(one) != worded(other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is it?",
        "What is this?",
        "What does `the` mean in English text?",
        'What does "a" mean in English text?',
        "What is the value of 3*(4+5) here?",
        "Which is bigger, C++ or C# or C in size?",
        "Solve x_1 = 3 for me now please",
        "Is a < b or b > a for these values?",
        "Mail me at eve@example.org about the tower",
        "What does 'a' mean in English text?",
        "How high is the tower of Pisa? " * 20,
    ],
)
def test_where_every_sign_counts_only_the_same_text_will_do(text: str) -> None:
    assert worded(text) is None


WORDS = st.text(st.characters(categories=["Ll", "Lo"]), min_size=1, max_size=8)


@given(st.lists(WORDS, min_size=3, max_size=12), st.data())
def test_a_word_changed_or_moved_is_another_question(words: list[str], data: st.DataObject) -> None:
    """In any script. The last two words stand after "with", so none of them is an article or a frame."""
    text = " ".join(["towers with", *words])
    assume(worded(text) is not None)
    at = data.draw(st.integers(0, len(words) - 1))
    changed = [*words[:at], words[at] + "q", *words[at + 1 :]]
    assert worded(" ".join(["towers with", *changed])) != worded(text)
    assert worded(f"{text} 7") != worded(text)
    assert worded(f"{text} 7.1") != worded(f"{text} 7.2")


@given(st.lists(WORDS, min_size=3, max_size=12), st.integers(1, 3))
def test_white_space_and_the_last_mark_make_no_difference(words: list[str], blanks: int) -> None:
    text = " ".join(["towers with", *words])
    assert worded(text) == worded((" " * blanks).join(["towers", "with", *words]) + "?\n")


def test_options_count_as_they_are() -> None:
    stem = "Which of them is the highest tower?"
    one = wording(stem, Task("option", ("Pisa", "Rome"), stem))
    assert one is not None
    assert one == wording(stem, Task("option", ("Pisa", "Rome"), stem))
    assert one != wording(stem, Task("option", ("Rome", "Pisa"), stem))
    assert one != wording(stem, Task("option", ("Pisa", "Rome", "Bonn"), stem))
