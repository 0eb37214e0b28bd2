"""What each converter makes of files of its upstream's shape, and what the package pins."""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from manyminds.errors import DataError
from manyminds.evals.datasets import find, frugalml_apis, load, mmlu_pro, reading, swebench_mini, zeroeval
from manyminds.evals.datasets.formula import formula, number
from manyminds.evals.datasets.schema import AnswerRow, ModelRow, Tables, split_of, write
from manyminds.evals.datasets.sources import known_models
from manyminds.experts.recorded import open_set
from tests.data import recorded
from tests.evals.upstream import BOARD, archive, board, spread

MODEL = ModelRow("m", "maker", 7.0, 7.0, True, "2024", 0.2, 0.4, "memory")


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
        (r"First \boxed{1} and finally \boxed{2}.", "2"),
        (r"\boxed{\text{about {3}}} in {all}", "3"),
        (r"First \boxed{1} and then \boxed{", "1"),
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
        ("1,000,000", "1000000"),
        (r"First \boxed{1} and finally \boxed{\sqrt{\frac{1}{\sqrt{16}}}}", "0.5"),
        ("2^64 - 1", "18446744073709551615"),
        ("sqrt(2)*sqrt(2)", "2"),
        ("10^-7", "1e-07"),
        (".5*2.50", "1.25"),
        ("007.50", "7.5"),
        ("x = .5.", "0.5"),
        ("...so", "so"),
        ("1.2.3", "1.2.3"),
        ("-123456.789", "-123456.79"),
        ("(10^299)*(10^299)", "(10**299)*(10**299)"),
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
    read = formula(form.format(top, bottom))
    assert read is not None
    assert math.isclose(float(read), top / bottom, rel_tol=5e-6)
    assert "." not in read or top % bottom


WHOLE = st.integers(-(10**40), 10**40) | st.integers(-2000, 2000) | st.sampled_from([2**20, 2**53 + 1])


@given(
    WHOLE,
    st.sampled_from(["{}", "{:,}", "$ {} $", r"\boxed{{{}}}", "x = {}", "({})", "{}.00", "sqrt(4)*{}/2"]),
)
def test_integers_are_exact(whole: int, form: str) -> None:
    assume(abs(whole) < 10**11 or "sqrt" not in form)  # beyond twelve digits a root is not exact
    assert formula(form.format(whole)) == str(whole)


@given(WHOLE, WHOLE, WHOLE)
def test_sums_and_products_of_integers_are_exact(a: int, b: int, c: int) -> None:
    assert formula(f"({a}) * ({b}) + ({c})") == str(a * b + c)


@given(st.integers(10**6, 10**20), st.integers(0, 300))
def test_decimals_that_differ_stay_apart(cents: int, more: int) -> None:
    one, other = (Decimal(number) / 100 for number in (cents, cents + more))
    assert (formula(str(one)) == formula(str(other))) == (more == 0)


@given(st.text(max_size=400) | st.text("0123456789.+-*/^()\\{}sqrtpi fcboxed", max_size=40))
def test_what_is_read_is_canonical(text: str) -> None:
    form, found = formula(text), number(text)
    assert form is None or (form and not re.search(r"[\s$\\{}]", form))
    assert found is None or (number(found) == found and math.isfinite(float(found)))


@given(st.decimals(-(10**9), 10**9, places=2))
def test_numbers_are_read_however_they_are_written(value: Decimal) -> None:
    read = number(f"It costs ${value:,} in all.")
    assert read is not None
    assert Decimal(read) == value


@given(st.integers(-(10**40), 10**40), st.integers(1, 99))
def test_numbers_are_exact_up_to_four_places(top: int, bottom: int) -> None:
    assert number(str(top)) == str(top)
    read = number(f"{top}/{bottom}")
    assert read is not None
    assert abs(Fraction(read) - Fraction(top, bottom)) <= Fraction(1, 20_000)


def test_numbers_too_long_to_compare_are_not_read() -> None:
    assert number("9" * 5000) is None
    assert formula("9" * 5000) == "9" * 5000


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


def letter_of(folder: Path, said: str, options: int = 10) -> str | None:
    """What the converter reads; the options are the words that the texts below are made of."""
    content = json.dumps([entry(said, options=WORDS[:options])]).encode()
    (answer,) = mmlu_pro.convert(spread(folder, {"m.json": content}), {"m.json": MODEL}).answers
    assert answer.extracted == (answer.answer is not None)
    assert answer.correct == (answer.answer == "B")
    return answer.answer


WORDS = ["A", "I", "think", "so", "Because", "Definitely", "cat", "H", "7", "All of these", "J", "Be", "Can"]


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B or C? The answer is A.", "A"),
        ("A is wrong.\nAnswer: C", "C"),
        ("The answer is: C. I am sure", "C"),
        ("The answer is Definitely (C).", "C"),
        ("Answer: All of these, so (D)", "D"),
        ("The answer is (J).", "J"),
        ("Final answer: **I**", "I"),
        (r"Therefore $\boxed{\text{E}}$. I am sure.", "E"),
        ("We have eleven.\n\n(G)", "G"),
        ("Of them only\nF", "F"),
        ("(a) It is 3. (b) It is 4. The answer is (H).", "H"),
        ("The answer is (B).\n\nWait. The answer is (C).", "C"),
        ("The answer is (B).\n\nQuestion:\nWho?\nOptions:\nA. x\nB. y\nAnswer: The answer is (A).", "B"),
        ("I cannot say", None),
        ("I think so. A cat", None),
        ("answer is Because B", None),
        ("The answer is A cat", None),
        ("The answer is Charlemagne", None),
        ("The answer is (A) or (C).", None),
        ("It is 7, so 3 + 4", None),
        ("(a) The first part is 3", None),
        ("a) 3\n\nb) 4", None),
        ("The energy is E = 7 J, the height H = 2", None),
        ("The answer is (K).", None),
        ("", None),
    ],
)
def test_mmlu_guesses_nothing(tmp_path: Path, said: str, letter: str | None) -> None:
    assert letter_of(tmp_path, said) == letter


@pytest.mark.parametrize(("options", "letter"), [(3, None), (9, None), (10, "J")])
def test_mmlu_knows_no_letter_beyond_the_options(tmp_path: Path, options: int, letter: str | None) -> None:
    assert letter_of(tmp_path, "The answer is (J).", options) == letter


PROSE = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
LETTERS = st.sampled_from("ABCDEFGHIJ")
STATED = st.sampled_from(
    [
        "The answer is ({}).",
        "Answer: {}.",
        "**Answer: {}**",
        r"\boxed{{{}}}",
        "The correct choice is **{}**.",
        "Final answer: ({})",
    ]
)


@given(st.lists(st.tuples(PROSE, LETTERS, STATED), min_size=1, max_size=4), PROSE)
def test_mmlu_takes_the_last_letter_that_is_stated(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str, str]], after: str
) -> None:
    said = "\n".join(f"{prose} so.\n{stated.format(letter)}" for prose, letter, stated in parts)
    assert letter_of(tmp_path_factory.mktemp("mmlu"), f"{said}\nSo {after}") == parts[-1][1]


@given(st.lists(PROSE.map("So {}".format), max_size=5).map("\n".join))
def test_mmlu_takes_no_word_for_a_letter(tmp_path_factory: pytest.TempPathFactory, said: str) -> None:
    assert letter_of(tmp_path_factory.mktemp("mmlu"), said) is None


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


PACKED = archive(
    **{"a.json": json.dumps([{"question": n, "options": ["a"] * n} for n in range(60)]).encode()}
)


@given(st.dictionaries(st.integers(0, len(PACKED) - 1), st.integers(0, 255), min_size=1, max_size=4))
@example(dict.fromkeys(range(36, 40), 255))  # deflated bytes
@example({len(PACKED) - 3: 2})  # an offset
@example({PACKED.index(b"PK\x01\x02") + 10: 14})  # how it is packed: by LZMA
def test_a_damaged_archive_is_refused_or_holds_what_it_held(
    tmp_path_factory: pytest.TempPathFactory, damage: Mapping[int, int]
) -> None:
    content = bytes(damage.get(at, byte) for at, byte in enumerate(PACKED))
    path = tmp_path_factory.mktemp("zip") / "m.zip"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert json.loads(reading.only_json(path, "m.zip"))[59]["question"] == 59


def test_a_corrupt_deflate_stream_is_named(tmp_path: Path) -> None:
    content = bytearray(PACKED)
    content[36:40] = b"\xff\xff\xff\xff"  # behind the header of 30 bytes and the name
    (path,) = spread(tmp_path, {"m.zip": bytes(content)}).values()
    with pytest.raises(DataError, match=r"m\.zip is no archive"):
        reading.only_json(path, "m.zip")


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


@pytest.mark.parametrize("name", ["gsm8k", "math_l5", "mmlu_pro", "swebench_mini"])
def test_splits_are_those_of_the_recorded_sets(name: str) -> None:
    questions = open_set(recorded(name)).questions()
    assert {q.question_id for q in questions if q.split != split_of(q.question_id)} == set()


@pytest.mark.parametrize(
    ("key", "split"),
    [
        ("mmlupro-70", "calibration"),
        ("gsm8k-26", "validation"),
        ("gsm8k-24", "validation"),
        ("gsm8k-28", "test"),
    ],
)
def test_a_key_is_never_moved_to_another_split(key: str, split: str) -> None:
    assert split_of(key) == split


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
    finished, dataset = open_set(recorded(name)), find(name)
    assert (dataset.questions, dataset.models) == (len(finished.questions()), len(finished.models))
    models = {file.model for file in dataset.files} - {""}
    assert not models or models == set(finished.models)
