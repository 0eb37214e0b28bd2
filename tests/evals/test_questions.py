"""One's own questions: what a CSV file may hold, and what is said of one that does not."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.evals.questions import Graded, parse, read

TEXT = st.text(st.characters(exclude_categories=["Cs"])).map(str.strip).filter(bool)

OPTION = TEXT.filter(lambda text: len(text.rstrip(".")) > 1)  # one letter may be that of another option


def written(rows: Sequence[Mapping[str, str]], delimiter: str = ",") -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def one(question: str, answer: str, **more: str) -> Graded:
    (graded,) = parse(written([{"question": question, "answer": answer} | more]), "q.csv")
    return graded


# --- what it may hold ------------------------------------------------------------------------------


@given(st.lists(TEXT, unique=True, max_size=5), st.sampled_from(",;\t"))
def test_any_text_comes_back(texts: list[str], delimiter: str) -> None:
    rows = [{"question": text, "answer": "a word", "id": f"k{i}"} for i, text in enumerate(texts)]
    found = parse(written([*rows, {"question": "?", "answer": "1", "id": "end"}], delimiter), "q.csv")
    assert [graded.text for graded in found] == [*texts, "?"]


@given(st.lists(OPTION, min_size=2, max_size=10, unique_by=str.casefold), st.data())
def test_options_come_back_from_columns(texts: list[str], data: st.DataObject) -> None:
    letter = chr(ord("A") + data.draw(st.integers(0, len(texts) - 1)))
    graded = one("Which?", letter, **{chr(ord("A") + i): text for i, text in enumerate(texts)})
    assert graded.question.choices == graded.task.options == tuple(texts)
    assert graded.question.gold == letter


@pytest.mark.parametrize("answer", ["B", "b", "London", "london", "B) London"])
@pytest.mark.parametrize("columns", [{"A": "Paris", "B": "London"}, {"choices": '["Paris", "London"]'}])
def test_gold_is_a_letter_or_an_options_text(answer: str, columns: dict[str, str]) -> None:
    graded = one("Which is on the Thames?", answer, **columns)
    assert graded.question.gold == "B"
    assert graded.text == "Which is on the Thames?\nA) Paris\nB) London"
    assert graded.read("It must be London.") == "B"


def test_options_within_the_question_are_found() -> None:
    graded = one("Which is on the Thames?\nA) Paris\nB) London", "london")
    assert graded.question.choices == ("Paris", "London")
    assert graded.question.prompt == "Which is on the Thames?"
    assert graded.question.gold == "B"


def test_what_only_looks_like_options_is_none() -> None:
    graded = one("In Clue: A) who B) where. Whom did I meet?", "Colonel Mustard")
    assert graded.question.choices == ()
    assert graded.question.gold == "colonel mustard"


def test_numbers_choices_may_be_numbers() -> None:
    assert one("Twice two?", "4", choices=json.dumps([3, 4, 5.5])).question.choices == ("3", "4", "5.5")


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("What is 1000 + 234?", "1,234", "So the result is 1234."),
        ("What is 10 / 4?", "2.50", "10 / 4 = 2.5"),
        ("Tom has 3 apples, Sue twice as many: both?", "9", "Together they have 9."),  # no kind of its own
        ("Is it wet? Yes or no.", "Yes", "Yes, because it rains."),
        ("What is the capital of France?", "Paris", "**Paris**."),
    ],
)
def test_answers_are_read_as_the_gold_is(question: str, answer: str, said: str) -> None:
    graded = one(question, answer)
    assert graded.question.gold == graded.read(said)
    assert graded.question.gold != graded.read("8")


def test_open_ended_answers_must_match_exactly() -> None:
    graded = one("What is the capital of France?", "Paris")
    assert graded.open_ended
    assert graded.read("The capital of France is Paris.") != graded.question.gold
    assert graded.read("the answer is: paris") == graded.question.gold
    long = "One must imagine Sisyphus happy, for the struggle itself fills his heart"
    assert one("How does it end?", long).read(long.upper() + "!") is not None
    assert (
        one("How does it end?", long).read(long.upper() + "!") == one("How does it end?", long).question.gold
    )


def test_a_gold_that_the_question_does_not_suggest_is_compared_by_words() -> None:
    graded = one("What is the name of the number 3 in the total?", "three of a kind")
    assert graded.open_ended
    assert graded.read("Three of a kind!") == graded.question.gold
    assert one("Which frames were strikes?", "3, 3").question.gold == "3 3"  # not a number: two of them


def test_cut_answers_abstain_but_for_options() -> None:
    assert one("What is 2 + 2?", "4").read("It is 4", cut=True) is None
    assert one("Which?", "A", A="x", B="y").read("The answer is A", cut=True) == "A"


def test_ids_and_splits() -> None:
    first = one("What is  it?", "this")
    assert first.question.question_id == one("What is it?", "that").question.question_id
    assert first.question.question_id != one("What is it?", "A", A="x", B="y").question.question_id
    assert first.question.split == split_of(first.question.question_id)
    chosen = one("What is it?", "this", id="q7", split="Test", category="law").question
    assert (chosen.question_id, chosen.split, chosen.category) == ("q7", "test", "law")


def test_a_byte_order_mark_empty_lines_and_other_columns_are_tolerated() -> None:
    raw = b"\xef\xbb\xbfQuestion,Note,Answer,Category\r\n\r\n What is it? ,mine,this\r\n,,,\r\n"
    (graded,) = parse(raw, "q.csv")
    assert (graded.text, graded.question.category) == ("What is it?", "")


# --- what is said of a wrong one -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "a header"),
        ("question,gold\nx,y\n", 1, "it has question, gold"),
        ("question,answer,Answer\nx,y,z\n", 1, "2 columns are named `answer`"),
        ("question,answer\nx,y\n,z\n", 3, "the question is empty"),
        ('question,answer\n"x\ny",1\nz,\n', 4, "the answer is missing"),
        ("question,answer\nx, with comma,y\n", 2, "3 cells under 2 columns"),
        ('question,answer\n"x" y,z\n', 2, "not well-formed CSV"),
        ('question,answer\na,b\n"x,z\n', 3, "not well-formed CSV"),
        ("question,answer\nx,y\n x ,z\n", 3, "this question is on line 2 already"),
        ("question,answer,id\nx,y,k\nz,z,k\n", 3, "this id 'k' is on line 2 already"),
        ("question,answer,split\nx,y,train\n", 2, "the split is 'train'"),
        ("question,answer,A,B\nx,C,p,q\n", 2, "the answer 'C' names no option"),
        ("question,answer,A,B\nx,same,same,same\n", 2, "names no option, or not only one"),
        ("question,answer,A,B,C\nx,A,p,,q\n", 2, "option B is empty"),
        ("question,answer,A\nx,A,p\n", 2, "1 options"),
        ("question;answer;choices\nx;A;p|q\n", 2, "must be a JSON list"),
        ("question;answer;choices\nx;A;[]\n", 2, "0 options"),
        ('question;answer;choices;A;B\nx;A;"[""p"", ""q""]";p;q\n', 2, "keep one"),
        ("question,answer\nx,!!\n", 2, "holds no word and no number"),
    ],
)
def test_a_wrong_file_is_told_by_line(text: str, line: int, said: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(text.encode(), "q.csv")
    assert caught.value.message.startswith(f"q.csv, line {line}: ")
    assert said in caught.value.message


def test_other_encodings_are_told() -> None:
    with pytest.raises(DataError, match=r"q\.csv, line 2: this is not UTF-8"):
        parse("question,answer\nWas heißt das?,x\n".encode("latin-1"), "q.csv")


@given(st.binary(max_size=200))
def test_nothing_but_a_data_error_comes_of_garbage(raw: bytes) -> None:
    try:
        found, said = parse(b"question,answer,choices\n" + raw, "q.csv"), ""
    except DataError as error:
        found, said = [], error.message
    assert all(graded.question.gold for graded in found)
    assert not said or said.startswith("q.csv, line ")


def test_too_few_questions_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    splits = ["calibration"] * 20 + ["validation"] * 5 + ["test"] * 20
    rows = [{"question": f"What is {i}?", "answer": "it", "split": split} for i, split in enumerate(splits)]
    file.write_bytes(written(rows))
    assert len(read(file)) == 45
    file.write_bytes(written(rows[1:]))
    with pytest.raises(DataError, match="19 calibration, 5 validation, 20 test; needed are 20"):
        read(file)


def test_a_file_that_is_not_there_or_too_large_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read(tmp_path / "no.csv")
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(64_000_001)
    with pytest.raises(DataError, match="larger than 64 MB"):
        read(large)
