"""The same fact in other spelling is right, another fact is not, however like it looks."""

import pytest

from manyminds.evals.knowledge.grading import ANSWER_CHARS, cited, correct
from manyminds.evals.knowledge.questions import Question
from manyminds.evals.knowledge.words import holds
from manyminds.types import Citation

QUESTION = Question(
    id="geographer-portugal-capital",
    corpus="geographer",
    phrasings=("What is the capital of Portugal?",),
    golds=("Lisbon", "Lisboa"),
    document="southern-europe.md",
    proof="Portugal's citizens go by the name of Portuguese. It is ruled from Lisbon.",
    answerable=True,
    sort="answerable",
    split="test",
    near="geographer",
    entity="Portugal",
    key="capital",
)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("There are 10,477,800 people.", "10477800"),
        ("There are 10 477 800 people.", "10477800"),
        ("It melts at 1,811.0 K.", "1811"),
        ("It melts at 1811K", "1811"),
        ("It weighs 55.845u.", "55.845 u."),
        ("by Émile SEGRÈ", "Emile Segrè"),
        ("UTC+05:30", "+05:30"),
        ("UTC+05:30", "05:30"),
        ("at UTC−04:00, then", "-04:00"),
        ("It lies at -17.54 degrees", "-17.54"),
        ("Its sign is Fe.", "Fe"),
        ("(U+00E9)", "U+00E9"),
        ("width=70, **kwargs", "70"),
        ("&eacute;", "eacute"),
        ("America/New_York", "america/new_york"),
        ("CAS 7439-89-6", "7439-89-6"),
    ],
)
def test_the_same_fact_in_other_spelling_is_found(text: str, phrase: str) -> None:
    assert holds(text, phrase)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("100", "10"),
        ("10.5", "10"),
        ("3.10", "10"),
        ("1,000", "1"),
        ("10a", "10"),
        ("few", "Fe"),
        ("fe", "Fe"),
        ("It is so.", "So"),
        ("U+00E90", "U+00E9"),
        ("17.54", "-17.54"),
        ("UTC+04:00", "-04:00"),
        ("New York", "York Town"),
        ("max_iterations", "max_iter"),
        ("anything", ""),
        ("anything", "?!"),
    ],
)
def test_another_fact_is_not(text: str, phrase: str) -> None:
    assert not holds(text, phrase)


def test_an_answer_is_right_where_a_gold_is_in_what_is_read_of_it() -> None:
    assert correct(QUESTION, "That would be LISBOA.")
    assert not correct(QUESTION, "That would be Porto.")
    assert not correct(QUESTION, "")
    assert not correct(QUESTION, "x" * ANSWER_CHARS + " Lisbon")


def test_where_nobody_knows_no_answer_is_right() -> None:
    import msgspec

    withheld = msgspec.structs.replace(QUESTION, corpus="", answerable=False, sort="fact withheld")
    assert not correct(withheld, "Lisbon")
    assert not cited(withheld, [Citation("geographer", document="southern-europe.md")], ["Lisbon, Portugal"])


def test_a_citation_has_to_be_of_the_document_and_tell_the_fact_of_the_entity() -> None:
    here = Citation("geographer", document="southern-europe.md", heading="Southern europe > Portugal")
    bare = Citation("geographer", document="geographer/southern-europe.md")
    other = Citation("geographer", document="northern-europe.md", heading="Portugal")
    assert cited(QUESTION, [here], ["It is ruled from Lisbon."])
    assert cited(QUESTION, [bare], ["Portugal is near. Lisbon is its capital."])
    assert cited(QUESTION, [bare, other], [QUESTION.proof, "x"])
    assert cited(QUESTION, [bare], ["Portugal's citizens go by the name\nof Portuguese. Lisbon is theirs."])
    assert not cited(QUESTION, [bare], ["Lisbon is a name of other towns too."])
    assert not cited(QUESTION, [here], ["It covers 92,090 square kilometres."])
    assert not cited(QUESTION, [other, here], [QUESTION.proof, QUESTION.proof])
    assert not cited(QUESTION, [], [])
