"""What each converter makes of files of its upstream's shape, and what the package pins."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import DataError
from manyminds.evals.datasets import find, frugalml_apis, load, mmlu_pro, reading, swebench_mini, zeroeval
from manyminds.evals.datasets.formula import formula, number
from manyminds.evals.datasets.schema import AnswerRow, ModelRow, Tables, split_of, write
from manyminds.evals.datasets.sources import known_models
from manyminds.experts.recorded import open_set
from tests.evals.upstream import BOARD, archive, board, spread

MODEL = ModelRow("m", "maker", 7.0, 7.0, True, "2024", 0.2, 0.4, "memory")
FINISHED = Path(__file__).resolve().parents[3] / "shared" / "data"


def by_model(tables: Tables) -> dict[tuple[str, str], AnswerRow]:
    return {(answer.question_id, answer.model): answer for answer in tables.answers}


# --- swebench_mini ---------------------------------------------------------------------------------


def test_swebench_says_who_resolved_what_at_which_cost(tmp_path: Path) -> None:
    content = board(good={"astropy__a-1": True, "django__b-2": True}, poor={"astropy__a-1": False})
    tables = swebench_mini.convert(spread(tmp_path, {BOARD: content}))
    assert {question.question_id for question in tables.questions} == {"swe-astropy__a-1", "swe-django__b-2"}
    assert {question.category for question in tables.questions} == {"astropy", "django"}
    answers = by_model(tables)
    assert answers["swe-astropy__a-1", "good"].correct
    assert not answers["swe-astropy__a-1", "poor"].correct
    assert answers["swe-django__b-2", "good"].cost_usd == 0.3
    assert [(model.model, model.family, model.open_weights) for model in tables.models] == [
        ("good", "Maker", True),
        ("poor", "Maker", True),
    ]


def test_swebench_drops_who_contradicts_the_board(tmp_path: Path) -> None:
    boards = json.loads(board(honest={"a__a-1": True}, odd={"a__a-1": True}))
    results = boards["leaderboards"][1]["results"]
    results[1]["resolved"] = 52.8
    results.append({"name": "silent", "resolved": 9.0})
    tables = swebench_mini.convert(spread(tmp_path, {BOARD: json.dumps(boards).encode()}))
    assert [model.model for model in tables.models] == ["honest"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b'{"leaderboards": []}',
        b"[" * 100_000,
        b'{"leaderboards": [{"name": "bash-only", "results": [{"name": 1}]}]}',
    ],
)
def test_a_file_of_another_shape_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=BOARD):
        swebench_mini.convert(spread(tmp_path, {BOARD: content}))


# --- frugalml_apis ---------------------------------------------------------------------------------

TASK = "dataset/mlserviceperformance_TOY"


def labels(names: list[str], **changed: str) -> dict[str, bytes]:
    """A task with services A (index 0) and GitHub(B) (index 7); A is always right, B never."""
    lines = len(names)
    column = {
        "meta.csv": "Index,MLaaS(API),Cost\n0,A,15,7\n7,GitHub(B),0.001,7\n",
        "Model0_ImageName.txt": "\n".join(f"{name}," for name in names),
        "Model0_TrueLabel.txt": "1\n" * lines,
        "Model0_PredictedLabel.txt": "1\n" * lines,
        "Model0_Reward.txt": "1\n" * lines,
        "Model0_Confidence.txt": "9.5e-01\n" * lines,
        "Model7_PredictedLabel.txt": "2\n" * lines,
        "Model7_Reward.txt": "0\n" * lines,
        "Model7_Confidence.txt": "-3.25\n" * lines,
    } | changed
    return {f"{TASK}/{name}": text.encode() for name, text in column.items()}


def test_frugalml_reads_each_service_and_its_price(tmp_path: Path) -> None:
    tables = frugalml_apis.convert(spread(tmp_path, labels(["cat_1.jpg", "dog_2.jpg"])))
    assert len(tables.questions) == 2
    assert all(question.gold == "1" and question.category == "toy" for question in tables.questions)
    a, b = (by_model(tables)[tables.questions[0].question_id, f"toy/{name}"] for name in ("A", "GitHub(B)"))
    assert (a.answer, a.correct, a.cost_usd, a.confidence) == ("1", True, 15 / 10_000, 0.95)
    assert (b.answer, b.correct, b.confidence) == ("2", False, -3.25)
    assert [(model.model, model.open_weights) for model in tables.models] == [
        ("toy/A", False),
        ("toy/GitHub(B)", True),
    ]


def test_frugalml_ids_tell_no_name_and_splits_follow_the_name(tmp_path: Path) -> None:
    tables = frugalml_apis.convert(spread(tmp_path, labels(["cat_1.jpg"])))
    (question,) = tables.questions
    assert "cat" not in question.question_id
    assert question.split == split_of("frugal-toy-cat_1.jpg")


def test_frugalml_drops_shared_names_and_samples_about_6000(tmp_path: Path) -> None:
    twice = frugalml_apis.convert(spread(tmp_path, labels(["cat_1.jpg", "cat_1.jpg", "dog_2.jpg"])))
    assert len(twice.questions) == 1
    many = frugalml_apis.convert(spread(tmp_path, labels([f"{n}.wav" for n in range(12_000)])))
    assert abs(len(many.questions) - 6000) < 300
    assert len({question.question_id for question in many.questions}) == len(many.questions)


@pytest.mark.parametrize(
    "changed",
    [
        {"meta.csv": ""},
        {"meta.csv": "Index\n0\n"},
        {"meta.csv": "Index,Name,Cost\n3,C,1\n"},
        {"Model7_Reward.txt": "1\n"},
        {"Model7_Confidence.txt": "high\nlow\n"},
        {"Model7_Confidence.txt": "nan\n1\n"},
        {"meta.csv": "Index,Name,Cost\n0,A,dear\n"},
        {"Model0_ImageName.txt": "", "Model0_TrueLabel.txt": ""},
    ],
)
def test_frugalml_names_the_folder_of_what_is_wrong(tmp_path: Path, changed: Mapping[str, str]) -> None:
    with pytest.raises(DataError, match="mlserviceperformance_TOY"):
        frugalml_apis.convert(spread(tmp_path, labels(["a.jpg", "b.jpg"], **changed)))


# --- gsm8k, math_l5 --------------------------------------------------------------------------------


def turn(said: str, answer: str = "# 1,018", **more: Any) -> dict[str, Any]:
    return {"id": "gsm8k-main-test-#3", "output": [said], "answer": answer, "question": "How many?"} | more


def converted(tmp_path: Path, turns: list[dict[str, Any]], name: str = "gsm8k") -> Tables:
    paths = spread(tmp_path, {"r/m.json": json.dumps(turns).encode()})
    return zeroeval.convert(paths, {"r/m.json": MODEL}, name)


def test_zeroeval_reads_the_field_and_prices_the_text(tmp_path: Path) -> None:
    said = '{"reasoning": "18 eggs", "answer": "$1,018 a day"}'
    tables = converted(tmp_path, [turn(said)])
    (question,), (answer,) = tables.questions, tables.answers
    assert (question.question_id, question.gold, question.prompt) == ("gsm8k-3", "1018", "How many?")
    assert (answer.answer, answer.correct, answer.extracted) == ("1018", True, True)
    assert answer.completion_chars == len(said)
    assert answer.cost_usd == pytest.approx(((9 / 4 + 150) * 0.2 + len(said) / 4 * 0.4) / 1e6)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ('"answer": 7}', "7"),
        ('"answer": "7"} and again {"answer": "8"}', "7"),
        (r"The final answer is $\boxed{12}$", "12"),
        ('"answer": "impossible"', None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_zeroeval_takes_the_first_field_else_a_box(tmp_path: Path, said: str, answer: str | None) -> None:
    (row,) = converted(tmp_path, [turn(said)]).answers
    assert (row.answer, row.extracted, row.correct) == (answer, answer is not None, False)


def test_zeroeval_knows_problems_of_mathematics(tmp_path: Path) -> None:
    said = json.dumps({"answer": r"x = \frac{34}{5}"})
    tables = converted(tmp_path, [turn(said, "6.8", id=5, question="", problem="Solve.")], "math_l5")
    assert tables.questions[0].question_id == "math_l5-5"
    assert tables.questions[0].prompt == "Solve."
    assert tables.answers[0].correct


def test_zeroeval_refuses_one_number_for_two_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"r/m\.json.*gsm8k-3"):
        converted(tmp_path, [turn("1"), turn("1", question="How much?")])


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("16 + sqrt(33)", "21.7446"),
        (r"\dfrac{7}{3}", "2.33333"),
        (r"\boxed{\sqrt{109}}", "10.4403"),
        ("81√3 + 2", "142.296"),
        (r"2\pi", "6.28319"),
        ("10{,}000", "10000"),
        ("1,000,000", "1e+06"),
        ("-10879, 10879", "-10879,10879"),
        ("b = -89", "-89"),
        ("-221_3", "-221_3"),
        ("2i", "2i"),
        (r"$\infty$", "infty"),
        ("No solution.", "nosolution"),
        ("007", "007"),
        ("1/0", "1/0"),
        ("9**9**9**9", "9**9**9**9"),
        ("sqrt(-1)", "sqrt(-1)"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        (" $ ", None),
    ],
)
def test_formulas_have_one_form(text: str, canonical: str | None) -> None:
    assert formula(text) == canonical


@given(
    st.integers(-(10**6), 10**6),
    st.integers(1, 999),
    st.sampled_from(["{}/{}", r"\frac{{{}}}{{{}}}", "({})/({})"]),
)
def test_fractions_come_to_their_value(top: int, bottom: int, form: str) -> None:
    assert formula(form.format(top, bottom)) == f"{top / bottom:g}"


@given(st.text(max_size=400))
def test_any_text_has_at_most_one_form(text: str) -> None:
    assert formula(text) == formula(text)
    found = number(text)
    assert found is None or number(found) == found


@given(st.decimals(-(10**9), 10**9, places=2))
def test_numbers_are_read_however_they_are_written(value: Any) -> None:
    read = number(f"It costs ${value:,} in all.")
    assert read is not None
    assert math.isclose(float(read), float(value), abs_tol=1e-4)


# --- mmlu_pro --------------------------------------------------------------------------------------


def entry(said: str, **more: Any) -> dict[str, Any]:
    return {
        "question_id": 70,
        "question": "Which?",
        "options": ["a", "b", "c"],
        "answer": "B",
        "category": "law",
        "pred": "A",
        "generated_text": said,
    } | more


def test_mmlu_reads_archives_and_plain_files(tmp_path: Path) -> None:
    packed = archive(
        **{"o.json": json.dumps([entry("The answer is (B).")]).encode(), "__MACOSX/o.json": b"x"}
    )
    plain = json.dumps([entry("", generated_text=None, response="Answer: C"), "total"]).encode()
    paths = spread(tmp_path, {"m.zip": packed, "other.json": plain})
    tables = mmlu_pro.convert(paths, {"m.zip": MODEL, "other.json": MODEL._replace(model="other")})
    assert [question.question_id for question in tables.questions] == ["mmlupro-70"]
    answers = by_model(tables)
    assert (answers["mmlupro-70", "m"].answer, answers["mmlupro-70", "m"].correct) == ("B", True)
    assert (answers["mmlupro-70", "other"].answer, answers["mmlupro-70", "other"].correct) == ("C", False)


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B or C? The answer is A.", "A"),
        ("A is wrong.\nAnswer: C", "C"),
        ("Not A but B", "B"),
        ("The answer is (J).", None),
        ("I cannot say", None),
        ("", None),
    ],
)
def test_mmlu_guesses_nothing(tmp_path: Path, said: str, letter: str | None) -> None:
    paths = spread(tmp_path, {"m.json": json.dumps([entry(said)]).encode()})
    (answer,) = mmlu_pro.convert(paths, {"m.json": MODEL}).answers
    assert (answer.answer, answer.extracted) == (letter, letter is not None)


@pytest.mark.parametrize("change", [{"question": "Who?"}, {"options": ["a", "b"]}, {"answer": "C"}])
def test_mmlu_drops_questions_that_changed(tmp_path: Path, change: Mapping[str, Any]) -> None:
    first = [entry("A"), entry("A", question_id=71)]
    files = {"m.json": first, "other.json": [entry("A", **change), entry("A", question_id=71)]}
    paths = spread(tmp_path, {where: json.dumps(entries).encode() for where, entries in files.items()})
    tables = mmlu_pro.convert(paths, {"m.json": MODEL, "other.json": MODEL._replace(model="other")})
    assert [question.question_id for question in tables.questions] == ["mmlupro-71"]
    assert {answer.question_id for answer in tables.answers} == {"mmlupro-71"}


@pytest.mark.parametrize("content", [b"PK", archive(), archive(**{"a.json": b"[]", "b.json": b"[]"})])
def test_an_archive_of_another_shape_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"m\.zip"):
        mmlu_pro.convert(spread(tmp_path, {"m.zip": content}), {"m.zip": MODEL})


def test_an_archive_that_swells_is_refused(tmp_path: Path) -> None:
    (path,) = spread(tmp_path, {"m.zip": archive(**{"a.json": b" " * 64_000_001})}).values()
    with pytest.raises(DataError, match="larger than 64 MB"):
        reading.only_json(path, "m.zip")


# --- tables and pins -------------------------------------------------------------------------------


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    tables = mmlu_pro.convert(
        spread(tmp_path, {"m.json": json.dumps([entry("A", question_id=n) for n in range(9)]).encode()}),
        {"m.json": MODEL},
    )
    turned = Tables(tables.questions[::-1], tables.answers[::-1], tables.models[::-1])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert write(tables, tmp_path / "one") == write(turned, tmp_path / "two")
    built = open_set(tmp_path / "one")
    assert [question.choices for question in built.questions()] == [("a", "b", "c")] * 9


@given(st.text(max_size=40))
def test_every_key_has_one_split(key: str) -> None:
    assert split_of(key) in ("calibration", "validation", "test")


def test_splits_have_their_shares() -> None:
    counts = Counter(split_of(f"q-{n}") for n in range(10_000))
    assert abs(counts["calibration"] - 4000) < 200
    assert abs(counts["validation"] - 1000) < 150


def test_every_set_is_pinned_in_full() -> None:
    known = known_models()
    for dataset in load():
        assert dataset.licence
        assert len({file.path for file in dataset.files}) == len(dataset.files)
        for file in dataset.files:
            assert len(file.commit) == 40
            assert len(file.sha256) == 64
            assert 0 < file.bytes < 20_000_000
            assert not file.model or file.model in known
    assert {file.model for dataset in load() for file in dataset.files} - {""} == set(known)


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"did you mean gsm8k\?"):
        find("gsm8")


@pytest.mark.parametrize("name", [dataset.name for dataset in load()])
def test_pins_count_what_the_finished_sets_have(name: str) -> None:
    if not (FINISHED / name).is_dir():
        pytest.skip(f"the finished set {name} is not beside this checkout")
    finished, dataset = open_set(FINISHED / name), find(name)
    assert (dataset.questions, dataset.models) == (len(finished.questions()), len(finished.models))
    models = {file.model for file in dataset.files} - {""}
    assert not models or models == set(finished.models)
