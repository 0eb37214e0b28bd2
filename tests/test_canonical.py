import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.canonical import _read, answer_of, classes, task
from manyminds.types import Message, Query, Task
from tests.data import recorded

NUMBER, JSON, SPAN, TEXT = Task("number"), Task("json"), Task("span"), Task("text")
CITIES = Task("option", ("Sydney", "Canberra", "Perth", "Melbourne"))


def asked(text: str, demands: frozenset[str] = frozenset()) -> Task:
    return task(Query((Message("system", "A) no B) no"), Message("user", text)), demands=demands))


# --- questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Capital of Australia?\nA) Sydney\nB) Canberra\nC) Perth", ("Sydney", "Canberra", "Perth")),
        ("Capital of Australia? A. Sydney B. Canberra C. Perth. Answer with the letter only.", "*"),
        ("Which one: (A) Sydney, (B) Canberra or (C) Perth?", ("Sydney", "Canberra", "Perth")),
        ("Pick one:\n**A.** Sydney\n**B.** Canberra", ("Sydney", "Canberra")),
        ("A: Sydney\nB: Canberra", ("Sydney", "Canberra")),
        ("Is it A) Sydney or B) Canberra?", ("Sydney", "Canberra")),
        ("a) Sydney b) Canberra", ("Sydney", "Canberra")),
        ("(A)Sydney (B)Canberra", ("Sydney", "Canberra")),
        ("Example? A) x B) y\nCapital?\nA) Sydney\nB) Canberra\nC) Perth", ("Sydney", "Canberra", "Perth")),
        ("Which is true?\nA. Of lake A. and lake B. one is deep\nB. None", "*"),
    ],
)
def test_lists_are_options(question: str, options: tuple[str, ...] | str) -> None:
    found = asked(question)
    assert found.kind == "option"
    assert found.options == options or options == "*"


def test_stem_is_the_question_without_its_options() -> None:
    assert asked("Which is the capital?\n A) Sydney\n B) Perth").stem == "Which is the capital?"


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is 17 + 26?", "number"),
        ("17-26=", "number"),
        ("How many legs do 3 spiders have?", "number"),
        ("There are forty apples in two boxes. How many are in each?", "number"),
        ("What is 15% of 80?", "number"),
        ("Solve for x: 2x + 3 = 7", "number"),
        ("Calculate the area of a circle of radius 3.", "number"),
        ("How many planets are there?", "text"),  # no numbers in it
        ("Tell me how much you love poems", "text"),
        ("Write a poem about 3 + 4 = 7", "text"),
        ("Write some Python that adds 2 + 2", "text"),
        ("What happened in 1990?", "text"),
        ("Explain photosynthesis", "text"),
        ("Should I follow plan A. Or plan B. What now?", "text"),
        ("See figure (A) and (B), please", "text"),
        ("Find the degree of (x - a)(x - b)", "text"),
        ("A) only one", "text"),
        ("Capital of France? Answer in one word.", "span"),
        ("Who wrote Hamlet? Reply with just the name.", "span"),
        ("Is 17 + 26 more than 40? Answer yes or no.", "span"),
        ("", "text"),
    ],
)
def test_kind_of_question(question: str, kind: str) -> None:
    assert asked(question).kind == kind


def test_a_demanded_schema_makes_it_json() -> None:
    assert asked("A) x B) y", frozenset({"json_schema"})) == JSON


def test_only_the_last_user_turn_counts() -> None:
    turns = (Message("user", "What is 2 + 2?"), Message("assistant", "4"), Message("user", "Thank you!"))
    assert task(Query(turns)) == TEXT


words = st.text("bcdefghjklmnpqrstuvwxyz", min_size=2, max_size=8)
texts = st.lists(words, min_size=1, max_size=3).map(" ".join)


@given(
    st.lists(texts, min_size=2, max_size=10),
    st.sampled_from(["{}) ", "{}. ", "({}) ", "{}: "]),
    st.booleans(),
)
def test_options_are_read_as_they_were_listed(options: list[str], style: str, lower: bool) -> None:
    letters = "abcdefghij" if lower else "ABCDEFGHIJ"
    lines = [style.format(letter) + text for letter, text in zip(letters, options, strict=False)]
    assert asked("Which one?\n" + "\n".join(lines)).options == tuple(options)


def test_classes() -> None:
    assert [classes(t) for t in (CITIES, NUMBER, JSON, SPAN, TEXT)] == [4, 50, 10, 10, 10]


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *[(text, "B") for text in ("B", "(B)", "**B**", "b", "b)", "B.", "`B`", "B) Canberra", "\\boxed{B}")],
        *[(text, "B") for text in ("Canberra", "canberra.", "The capital is Canberra.", "Option B")],
        *[(text, "B") for text in ("Answer: **B**", "The answer is (B) Canberra, since Sydney is bigger.")],
        ("The correct answer is:\n\n**B) Canberra**", "B"),
        ("A) Sydney\nB) Canberra\nThe answer is B) Canberra.", "B"),
        ("The answer is A. No wait, the answer is B.", "B"),
        ("I would say option B, as Sydney is not the capital.", "B"),
        ("B) Canberra is the capital; Sydney is the largest", "B"),
        ("B, because it was founded for that", "B"),
        ("A good choice is Canberra.", "B"),
        ("$\\boxed{\\text{B}}$", "B"),
        ("<think>A? The answer is A.</think>\nB", "B"),
        ("A) Sydney\nB) Canberra\nC) Perth\nD) Melbourne", None),
        ("A) Canberra", None),  # the letter of one, the text of another
        ("The answer is B and C", None),
        ("The answer is B or C.", None),
        ("It is not Sydney.", None),
        ("Not option B", None),
        ("I think the answer is a city", None),
        ("Canberra or Perth", None),
        ("E", None),
        ("B\n\nQuestion 2: ...\nA", None),
        ("<think>The answer is A, but", None),
        ("", None),
    ],
)
def test_option_chosen(text: str, letter: str | None) -> None:
    assert answer_of(CITIES, text) == letter


def test_option_within_another_does_not_count() -> None:
    towns = Task("option", ("Paris", "Paris, Texas", "London"))
    assert answer_of(towns, "It is Paris, Texas.") == "B"
    assert answer_of(towns, "It is Paris.") == "A"


def test_repeated_and_misleading_options_are_ambiguous() -> None:
    assert answer_of(Task("option", ("one", "two", "one")), "It is one.") is None
    assert answer_of(Task("option", ("B", "A")), "A") is None


@given(st.lists(texts, min_size=2, max_size=10, unique=True), st.data())
def test_option_is_found_in_every_form(options: list[str], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(options) - 1))
    letter, text = "ABCDEFGHIJ"[i], options[i]
    form = data.draw(
        st.sampled_from(
            ("{0}", "({0})", "{0}) {1}", "{0}. {1}", "The answer is {0}.", "\\boxed{{{0}}}", "{1}")
        )
    )
    assert answer_of(Task("option", tuple(options)), form.format(letter, text)) == letter


# --- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("17 + 26 equals 43.", "43"),
        ("The sum of 17 and 26 is 43.", "43"),
        ("17 + 26 = 43. I hope this helps!", "43"),
        ("17 + 26 = 43. Would you like 5 more examples?", "43"),
        ("**17** + **26** = **43**", "43"),
        ("**Step 1: Add**\n17 + 26 = 43\n**Step 2: Done**", "43"),
        ("1. Add 17 and 26.\n2. You get 43.", "43"),
        ("The answer to 17 + 26 is 43.", "43"),
        ("The answer is 43, not 44.", "43"),
        ("Answer:\n43", "43"),
        ("The answer is 18 dollars for 9 eggs.", "18"),
        ("She sells 9 eggs and makes $18 every day.", "18"),
        ("12 * 3 = 36\n36 + 4 = 40\nSo it costs $40.", "40"),
        ("reasoning 1 2 3\n#### 1,800", "1800"),
        ("The final answer is: $\\boxed{42}$.", "42"),
        ("<think>5</think>43", "43"),
        *[("43.0", "43"), ("1,234", "1234"), ("0.50", "0.5"), (".5", "0.5"), ("-5", "-5"), ("−5", "-5")],
        *[("25%", "25"), ("$1,234.50", "1234.5"), ("5 km", "5"), ("5kg", "5"), ("43!", "43")],
        *[
            ("3/4", "0.75"),
            ("2/6", "1/3"),
            ("-1/3", "-1/3"),
            ("1 1/2", "1.5"),
            ("\\boxed{-\\dfrac{1}{3}}", "-1/3"),
        ],
        *[("1.2e3", "1200"), ("3 × 10^8 m/s", "300000000"), ("3 million", "3000000"), ("10-5 = 5", "5")],
        *[("\\boxed{1{,}234}", "1234"), ("\\boxed{18\\text{ dollars}}", "18"), ("\\boxed{x = 5}", "5")],
        *[
            (text, None)
            for text in ("The answer is 5 or 6", "The answer is between 5 and 10.", "x = 7 or x = -7")
        ],
        *[
            (text, None)
            for text in ("The answer is not 5.", "There are 5 apples in 2 boxes.", "forty-three", "")
        ],
        *[
            (text, None)
            for text in ("It is 3:30", "version 1.2.3", "2024-05-06", "9/11/2001", "the 5th", "5/0")
        ],
        *[
            (text, None)
            for text in ("\\boxed{3x}", "\\boxed{2\\sqrt{3}}", "2π", "10^8", "1221_3", "-1+i", "p-2")
        ],
        *[
            (text, None)
            for text in ("1e999", "9e40", "9" * 100, "1 000 000", "H2O", "COVID-19", "<think>it is 5")
        ],
    ],
)
def test_number_given(text: str, value: str | None) -> None:
    assert answer_of(NUMBER, text) == value


FORMS = (
    "{}",
    "{}.",
    "The answer is {}.",
    "**{}**",
    "#### {}",
    "\\boxed{{{}}}",
    "x = {}",
    "2 + 3 equals {}.",
    "So it costs ${}.",
)
decimals = st.decimals(-(10**9), 10**9, places=3).map(str)


@given(decimals, st.sampled_from(FORMS))
def test_number_is_found_in_every_form(number: str, form: str) -> None:
    value = answer_of(NUMBER, form.format(number))
    assert value is not None
    assert Fraction(value) == Fraction(number)


@given(
    st.fractions(-(10**9), 10**9, max_denominator=997),
    st.sampled_from(("{0}/{1}", "\\boxed{{\\frac{{{0}}}{{{1}}}}}")),
)
def test_fractions_are_exact(value: Fraction, form: str) -> None:
    found = answer_of(NUMBER, form.format(value.numerator, value.denominator))
    assert found is not None
    assert Fraction(found) == value


@given(decimals)
def test_equal_numbers_are_equal_strings(number: str) -> None:
    plain = answer_of(NUMBER, number)
    assert answer_of(NUMBER, number + "00") == plain
    assert answer_of(NUMBER, f"{Fraction(number) * 10**3}/1000") == plain
    assert answer_of(NUMBER, f"{Decimal(number):,.3f}") == plain


# --- JSON and spans --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"b": 1.0, "a": [1, 2.50]}', '{"a":[1,2.5],"b":1}'),
        ('Here:\n```json\n{"a": 1}\n```\nDone [1]', '{"a":1}'),
        ('The {set} is {"a": NaN} and {"a":2}', '{"a":2}'),
        ('{"é": 1e2}', '{"é":100}'),
        ("42", "42"),
        ('<think>{"a":1}</think>{"a":2}', '{"a":2}'),
        ('<think>{"a":1}', None),
        ("no", None),
        ("NaN", None),
        ("1e999", None),
        ('{"a":1,"a":2}', None),
        ('"\\ud800"', None),
        ("[" * 40 + "]" * 40, None),
        ("[" * 60_000, None),
        ('"' + "x" * 70_000 + '"', None),
    ],
)
def test_json_given(text: str, value: str | None) -> None:
    assert answer_of(JSON, text) == value


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values, st.sampled_from((None, 2)))
def test_json_is_one_form_of_one_value(value: object, indent: int | None) -> None:
    turned = dict(reversed(value.items())) if isinstance(value, dict) else value
    found = answer_of(JSON, json.dumps(turned, indent=indent))
    assert found == answer_of(JSON, json.dumps(value))
    assert found is not None
    assert json.loads(found) == value
    assert answer_of(JSON, found) == found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("Paris.", "paris"),
            ("**Paris**", "paris"),
            ("The answer is Paris.", "paris"),
            ("The Beatles", "beatles"),
        ],
        *[("Yes, because 17 is prime and has no divisors but 1 and itself", "yes"), ("No", "no")],
        *[("São Paulo", "sao paulo"), ("C++", "c++"), ("C#", "c#"), ("\\boxed{True}", "true")],
        ("No Country for Old Men", "no country for old men"),
        *[
            ("54,47,24", "54 47 24"),
            ("of,that", "of that"),
            ("about 1,234,567 souls", "about 1,234,567 souls"),
        ],
        ("William Shakespeare wrote it in the year of the lord 1600", None),
        ("...", None),
    ],
)
def test_span_given(text: str, value: str | None) -> None:
    assert answer_of(SPAN, text) == value


def test_text_is_never_compared() -> None:
    assert answer_of(TEXT, "Paris") is None


# --- whatever comes --------------------------------------------------------------------------------

PIECES = (
    *(
        "answer is ",
        "\\boxed{",
        "}",
        "**",
        "3",
        "17",
        "=",
        "/",
        "-",
        ",",
        ".",
        " ",
        "\n",
        "B",
        "A) ",
        "(",
        ")",
    ),
    *(
        "not ",
        "{",
        '"a":',
        "[",
        "]",
        "NaN",
        "e9",
        "####",
        "Canberra",
        "step 1",
        "\\frac{1}{2}",
        "\ud800",
        "…",
        "%",
    ),
)
noise = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join)


@settings(max_examples=500)
@given(noise)
def test_no_text_is_too_strange(text: str) -> None:
    assert answer_of(CITIES, text) in (None, "A", "B", "C", "D")
    for kind in (NUMBER, JSON):
        value = answer_of(kind, text)
        assert value is None or answer_of(kind, value) == value
    span = answer_of(SPAN, text)
    assert span is None or (span == span.casefold() and span.encode())
    assert asked(text.replace("\ud800", "")).kind in ("option", "number", "json", "span", "text")


@settings(max_examples=300)
@given(st.lists(noise, min_size=1, max_size=6), st.sampled_from((CITIES, NUMBER, JSON, SPAN, TEXT)))
def test_what_is_remembered_is_what_is_read(texts: list[str], task: Task) -> None:
    """Also of a text that was read for another question, in another order, or often."""
    direct = [_read(task.kind, task.options, text) for text in texts]
    turned = Task(task.kind, task.options[::-1])
    assert [answer_of(turned, text) for text in texts] == [
        _read(turned.kind, turned.options, text) for text in texts
    ]
    assert [answer_of(task, text) for text in [*texts, *texts]] == direct * 2


@pytest.mark.parametrize("piece", PIECES)
def test_only_the_end_of_a_long_text_is_read(piece: str) -> None:
    flood = piece * (1_000_000 // len(piece)) + "\n" + "well " * 900
    assert answer_of(CITIES, flood + "The answer is B.") == "B"
    assert answer_of(NUMBER, flood + "The answer is 43.") == "43"
    assert answer_of(JSON, flood) is None
    answer_of(NUMBER, piece * (1_000_000 // len(piece)))
    asked(flood)


@pytest.mark.parametrize(("name", "share"), [("gsm8k", 0.98), ("mmlu_pro", 0.99)])
def test_recorded_questions_are_understood(name: str, share: float) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(recorded(name) / "questions.parquet", columns=["prompt", "choices"])
    kinds = []
    for row in table.to_pylist():
        options = row["choices"] or []
        lines = [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(options)]
        found = asked("\n".join([row["prompt"], *lines]))
        kinds.append(len(found.options) == len(options) if options else found.kind == "number")
    assert sum(kinds) / len(kinds) >= share


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("Which?\nA) x\nB) y\nGiven that it is y, say so.", "Which?\nGiven that it is y, say so."),
        ("Which? A) x B) y. Think of y.", "Which?\nThink of y."),
        ("Which?\nA) x\nB) y", "Which?"),
    ],
)
def test_the_stem_has_what_comes_behind_the_options(text: str, stem: str) -> None:
    assert task(Query((Message("user", text),))).stem == stem
