from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from manyminds.errors import DataError, RefusedError
from manyminds.experts.recorded import Question, Recorded, open_set
from manyminds.types import Card, Chunk, Message, Query, Usage
from tests.clock import run
from tests.data import recorded

Row = Mapping[str, Any]


def question(question_id: str, **columns: Any) -> Row:
    row = {"benchmark": "b", "category": "c", "prompt": f"Q{question_id}", "choices": None, "gold": "4"}
    return {"question_id": question_id, **row, "split": "test", **columns}


def answer(question_id: str, model: str = "m", **columns: Any) -> Row:
    unknown = dict.fromkeys(
        ("raw", "prompt_tokens", "completion_tokens", "latency_s", "confidence", "completion_chars")
    )
    row = {"answer": "4", "correct": 1.0, "extracted": True, "cost_usd": 0.25}
    return {"question_id": question_id, "model": model, **unknown, **row, **columns}


def model(name: str = "m", **columns: Any) -> Row:
    row = {
        "family": "f",
        "released": "2024-06",
        "params_b": 7.0,
        "active_params_b": None,
        "open_weights": True,
    }
    prices = {"price_in_usd_per_m": 0.1, "price_out_usd_per_m": None, "price_source": "list"}
    return {"model": name, **row, **prices, **columns}


def write_set(
    folder: Path,
    questions: Sequence[Row] = (question("1"),),
    answers: Sequence[Row] = (answer("1"),),
    models: Sequence[Row] = (model(),),
) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, rows in (("questions", questions), ("answers", answers), ("models", models)):
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / f"{name}.parquet")
    return folder


def ask(expert: Recorded, text: str = "", request_id: str = "") -> Chunk:
    async def only() -> Chunk:
        (chunk,) = [
            chunk async for chunk in expert.stream(Query((Message("user", text),), request_id=request_id))
        ]
        return chunk

    return run(only())


# --- asking ----------------------------------------------------------------------------------------


def test_says_what_was_recorded(tmp_path: Path) -> None:
    (expert,) = open_set(write_set(tmp_path)).experts()
    recorded = Chunk("4", finish_reason="stop", usage=Usage(cost_usd=0.25))
    assert ask(expert, "Q1") == ask(expert, request_id="1") == ask(expert, "Q1", "some-uuid") == recorded


def test_it_says_the_canonical_answer_and_an_abstention_says_nothing(tmp_path: Path) -> None:
    said = [
        answer("1", raw="It is 4.", prompt_tokens=12.0, completion_tokens=3.0, confidence=0.25),
        answer("2", answer=None, raw="Eh", completion_chars=2.0),
    ]
    silent = answer("3", answer=None, extracted=False, correct=0.0)
    (expert,) = open_set(write_set(tmp_path, [question(i) for i in "123"], [*said, silent])).experts()
    usage = Usage(12, 3, cost_usd=0.25)
    assert ask(expert, "Q1") == Chunk("4", finish_reason="stop", usage=usage, confidence=0.25)
    assert [ask(expert, request_id=i).text for i in "123"] == ["4", "", ""]
    assert ask(expert, "Q2").usage == Usage(0, 1, cost_usd=0.25)  # four characters a token
    assert ask(expert, "Q3").confidence is None


def test_the_id_goes_before_the_text(tmp_path: Path) -> None:
    answers = [answer("1", answer="one"), answer("2", answer="two")]
    (expert,) = open_set(write_set(tmp_path, [question("1"), question("2")], answers)).experts()
    assert ask(expert, "Q1", "2").text == "two"


def test_what_was_not_recorded_is_refused(tmp_path: Path) -> None:
    answers = [answer("1"), answer("2", "n")]
    models = [model(), model("n")]
    m, n = open_set(write_set(tmp_path, [question("1"), question("2")], answers, models)).experts()
    assert ask(n, "Q2").text == "4"
    for expert, text in ((m, "Q2"), (n, "Q1"), (m, "q1"), (m, "Q1 "), (m, "")):
        with pytest.raises(RefusedError, match="only knows the questions recorded"):
            ask(expert, text)


def test_choices_tell_apart_what_a_prompt_alone_does_not(tmp_path: Path) -> None:
    asked = [
        question("1", prompt="Which?", choices=["cat", "dog"]),
        question("2", prompt="Which?", choices=["dog", "cat"]),
        question("3", prompt="Which one?", choices=["cat"]),
        question("4", prompt="", choices=None),
    ]
    answers = [answer(str(i), answer=f"answer {i}") for i in (1, 2, 3, 4)]
    opened = open_set(write_set(tmp_path, asked, answers))
    (expert,) = opened.experts()
    assert opened.questions()[0].text == "Which?\nA) cat\nB) dog"
    assert ask(expert, "Which?\nA) cat\nB) dog").text == "answer 1"
    assert ask(expert, "Which?\nA) dog\nB) cat").text == "answer 2"
    assert ask(expert, "Which one?").text == ask(expert, "Which one?\nA) cat").text == "answer 3"
    for text in ("Which?", ""):
        with pytest.raises(RefusedError):
            ask(expert, text)


def test_another_card_leaves_the_recording(tmp_path: Path) -> None:
    (expert,) = open_set(write_set(tmp_path)).experts()
    other = expert.behind(Card("mine", "recorded", source="alice"))
    assert other.card.name == "mine"
    assert ask(other, "Q1") == ask(expert, "Q1")


# --- a set -----------------------------------------------------------------------------------------


def test_cards_claim_what_calibration_shows(tmp_path: Path) -> None:
    splits = ("calibration", "calibration", "calibration", "validation", "test")
    asked = [question(str(i), split=split) for i, split in enumerate(splits)]
    verdicts = (1.0, 0.0, 0.0, 1.0, 1.0)
    answers = [answer(str(i), correct=correct) for i, correct in enumerate(verdicts)] + [answer("4", "n")]
    models = [model(), model("n", params_b=None, price_in_usd_per_m=None)]
    m, n = open_set(write_set(tmp_path, asked, answers, models)).experts()
    assert m.card.accuracy == pytest.approx(1 / 3)
    assert n.card.accuracy == 0.5
    assert (m.card.name, m.card.source, m.card.kind) == ("m", "m", "recorded")
    assert (m.card.price_in_usd_per_m, m.card.price_out_usd_per_m) == (0.1, 0.0)
    assert (m.card.parameters, n.card.parameters) == (7_000_000_000, 0)
    assert [m.correct(str(i)) for i in range(6)] == [True, False, False, True, True, None]
    assert [n.correct(str(i)) for i in range(6)] == [None, None, None, None, True, None]


def test_questions_by_split_and_experts_by_pattern(tmp_path: Path) -> None:
    asked = [question("1", choices=["x"], gold=None), question("2", split="calibration", prompt=None)]
    names = ("gpt-4o", "gpt-4", "qwen/7b")
    answers = [answer("1", name) for name in names]
    opened = open_set(write_set(tmp_path, asked, answers, [model(name) for name in names]))
    assert opened.questions("calibration") == (Question("2", "c", None, (), "4", "calibration"),)
    assert opened.questions("test") == (Question("1", "c", "Q1", ("x",), None, "test"),)
    assert [q.question_id for q in opened.questions()] == ["1", "2"]
    assert opened.questions("validation") == ()
    assert opened.models == names
    assert [e.card.name for e in opened.experts(["gpt-4"])] == ["gpt-4o", "qwen/7b"]
    assert [e.card.name for e in opened.experts(["gpt-*", "other"])] == ["qwen/7b"]
    assert [e.card.name for e in opened.experts(e for e in ("*/*",))] == ["gpt-4o", "gpt-4"]


def test_other_ways_to_write_the_same_table_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_set(tmp_path)
    columns = {name: pa.array([value]) for name, value in answer("1", correct=1, prompt_tokens=5).items()}
    columns["model"] = pa.array(["m"]).dictionary_encode()
    columns["answer"] = pa.array(["4"], pa.large_string())
    columns["an extra one"] = pa.array([1])
    pq.write_table(pa.table(columns), tmp_path / "answers.parquet")
    (expert,) = open_set(tmp_path).experts()
    assert ask(expert, "Q1") == Chunk("4", finish_reason="stop", usage=Usage(5, 0, cost_usd=0.25))


NAN, INF = float("nan"), float("inf")
WRONG: dict[str, dict[str, Sequence[Row]]] = {
    "questions: question_id '1' occurs 2 times": {"questions": [question("1"), question("1")]},
    "questions: question_id is empty in 1 of 1 rows": {"questions": [question("")]},
    "questions: split of 1 is 'train'": {"questions": [question("1", split="train")]},
    "questions: split is null in 1 of 2 rows": {"questions": [question("1"), question("2", split=None)]},
    "questions: choices of 1 hold a null": {"questions": [question("1", choices=["a", None])]},
    "questions: choices holds string": {"questions": [question("1", choices="ab")]},
    "questions: prompt holds int64": {"questions": [question("1", prompt=7)]},
    "models: model 'm' occurs 2 times": {"models": [model(), model()]},
    "models: price_in_usd_per_m is negative": {"models": [model(price_in_usd_per_m=-1.0)]},
    "models: params_b holds string": {"models": [model(params_b="7")]},
    "answers: question_id '9' is unknown": {"answers": [answer("1"), answer("9")]},
    "answers: model 'x' is unknown": {"answers": [answer("1", "x")]},
    "answers: (question_id, model) occurs again in 1 rows": {"answers": [answer("1"), answer("1")]},
    "answers: correct is neither 0 nor 1 in 1 of 1": {"answers": [answer("1", correct=0.5)]},
    "answers: correct is null": {"answers": [answer("1", correct=None)]},
    "answers: correct is not a finite number": {"answers": [answer("1", correct=NAN)]},
    "answers: cost_usd is not a finite number in 1 of 1": {"answers": [answer("1", cost_usd=NAN)]},
    "answers: latency_s is not a finite number": {"answers": [answer("1", latency_s=INF)]},
    "answers: confidence is not a finite number": {"answers": [answer("1", confidence=NAN)]},
    "answers: completion_tokens is negative": {"answers": [answer("1", completion_tokens=-1.0)]},
    "answers: extracted holds int64": {"answers": [answer("1", extracted=1)]},
    "answers: there is no column answer, raw": {
        "answers": [{k: v for k, v in answer("1").items() if k not in ("raw", "answer")}]
    },
}


@pytest.mark.parametrize("said", WRONG)
def test_wrong_tables_are_named(tmp_path: Path, said: str) -> None:
    write_set(tmp_path, **WRONG[said])
    with pytest.raises(DataError) as caught:
        open_set(tmp_path)
    assert said in caught.value.message
    assert str(tmp_path) in caught.value.message


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"models\.parquet is missing"):
        open_set(tmp_path / "nowhere")
    write_set(tmp_path)
    answers = tmp_path / "answers.parquet"
    for content in (b"", b"PAR1 but not really PAR1", answers.read_bytes()[:-200]):
        answers.write_bytes(content)
        with pytest.raises(DataError, match=r"answers\.parquet cannot be read as Parquet"):
            open_set(tmp_path)


def test_an_empty_set_is_a_set(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_set(tmp_path)
    for name in ("questions", "answers", "models"):
        file = tmp_path / f"{name}.parquet"
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    opened = open_set(tmp_path)
    assert (opened.models, opened.questions()) == ((), ())


# --- real sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "models", "splits"),
    [
        ("mmlu_pro", 32, (4571, 1136, 5623)),
        ("gsm8k", 44, (595, 122, 602)),
        ("math_l5", 43, (276, 69, 376)),
        ("bfcl_v1", 71, (696, 159, 845)),
        ("swebench_mini", 24, (193, 49, 258)),
        ("frugalml_apis", 44, (23003, 5664, 28335)),
    ],
)
def test_real_sets_are_read(name: str, models: int, splits: tuple[int, int, int]) -> None:
    opened = open_set(recorded(name))
    assert len(opened.models) == models
    calibration, validation, test = (opened.questions(s) for s in ("calibration", "validation", "test"))
    assert (len(calibration), len(validation), len(test)) == splits
    for expert in opened.experts():
        known = [right for q in calibration if (right := expert.correct(q.question_id)) is not None]
        assert expert.card.accuracy == pytest.approx(sum(known) / len(known))
    first = opened.experts()[0]
    asked = next(q for q in test if first.correct(q.question_id) is not None)
    assert ask(first, request_id=asked.question_id).finish_reason == "stop"


# --- ways of asking ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "bases"),
    [
        (("a:cot", "a:code", "b:cot"), {"a:cot": "a", "a:code": "a", "b:cot": "b"}),
        (("a", "a:direct"), {"a:direct": "a"}),
        (("n/a:1b:cot3", "n/a:2b"), {"n/a:1b:cot3": "n/a:1b"}),
        (("llama3:8b", "llama3:70b", ":cot", "cot"), {}),
    ],
)
def test_a_model_with_the_name_of_a_way_behind_a_colon_is_a_way_of_asking(
    tmp_path: Path, names: Sequence[str], bases: Mapping[str, str]
) -> None:
    answers = [answer("1", name) for name in names]
    cards = [
        e.card
        for e in open_set(write_set(tmp_path, [question("1")], answers, list(map(model, names)))).experts()
    ]
    assert {card.name: card.variant_of for card in cards if card.variant_of} == bases
    assert {card.name: card.source for card in cards} == {name: bases.get(name, name) for name in names}


@pytest.mark.parametrize(
    "name", ["bfcl_v1", "frugalml_apis", "gsm8k", "math_l5", "mmlu_pro", "swebench_mini"]
)
def test_no_model_of_a_public_set_is_taken_for_a_way_of_asking(name: str) -> None:
    cards = [expert.card for expert in open_set(recorded(name)).experts()]
    assert all((card.variant_of, card.source) == ("", card.name) for card in cards)
