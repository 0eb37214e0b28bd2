"""Recording live experts: what is asked, what is kept, and what a run that ended early costs."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manyminds.errors import DataError, RefusedError, UnavailableError
from manyminds.evals.questions import Graded, parse
from manyminds.evals.record import Harvest, record
from manyminds.experts.asked import WAYS, Asked
from manyminds.experts.openai import OpenAI
from manyminds.experts.recorded import Question, open_set
from manyminds.experts.scripted import Replies, Script, Scripted
from manyminds.fanout import Patience
from manyminds.types import Card, Chunk, Expert, Query, Samples, Sampling, Task, Usage
from manyminds.upstream import Client
from tests.changed import replace
from tests.clock import run
from tests.evals.test_questions import TEXT, written
from tests.experts.upstream import plain, upstream
from tests.network import scripted

SPLITS = ("calibration", "validation", "test")


def asked(*pairs: tuple[str, str], **more: str) -> list[Graded]:
    rows = [
        {"question": question, "answer": answer, "id": f"k{i}", "split": SPLITS[i % 3]} | more
        for i, (question, answer) in enumerate(pairs)
    ]
    return parse(written(rows), "q.csv")


SUMS = asked(*((f"What is {i} + {i}?", str(2 * i)) for i in range(6)))


def saying(replies: Replies, name: str = "a", **script: object) -> Scripted:
    return scripted(name, Script(replies=replies, **script))  # type: ignore[arg-type]


def doubled(query: Query) -> str:
    return f"It is {2 * int(query.question.split()[2])}."


def recording(
    folder: Path, *experts: Scripted, questions: Sequence[Graded] = SUMS, **more: object
) -> Harvest:
    named = {expert.card.name: expert for expert in experts}
    return run(record(questions, named, folder, **more))  # type: ignore[arg-type]


def correct(folder: Path) -> dict[str, list[bool | None]]:
    opened = open_set(folder)
    ids = sorted(question.question_id for question in opened.questions())
    return {expert.card.name: [expert.correct(key) for key in ids] for expert in opened.experts()}


def rows_of(folder: Path) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, object]] = pq.read_table(folder / "answers.parquet").to_pylist()
    return rows


# --- what is kept ----------------------------------------------------------------------------------


def test_the_set_holds_what_was_said(tmp_path: Path) -> None:
    right = saying(doubled, "right", first_token_s=1.5)
    wrong, silent = saying(lambda query: "It is 7.", "wrong"), saying(lambda query: "Who knows?", "silent")
    harvest = recording(tmp_path / "sums", right, wrong, silent)
    assert harvest == Harvest(answered=18, kept=0, missing={}, reasons={}, open_ended=0)
    assert correct(tmp_path / "sums") == {"right": [True] * 6, "silent": [False] * 6, "wrong": [False] * 6}
    assert (right.asked, wrong.asked, silent.asked) == (6, 6, 6)
    first = rows_of(tmp_path / "sums")[0]
    assert first == {
        "question_id": "k0",
        "model": "right",
        "answer": "0",
        "raw": "It is 0.",
        "correct": 1.0,
        "extracted": True,
        "prompt_tokens": 5.0,
        "completion_tokens": 3.0,
        "completion_chars": 8,
        "latency_s": 1.5,
        "cost_usd": pytest.approx(3e-6),
        "confidence": None,
    }
    assert {row["answer"] for row in rows_of(tmp_path / "sums") if row["model"] == "silent"} == {None}
    opened = open_set(tmp_path / "sums")
    assert [q.split for q in opened.questions()] == [*SPLITS, *SPLITS]
    assert opened.experts()[0].card.price_out_usd_per_m == 1.0


@settings(max_examples=20)
@given(texts=st.lists(TEXT, min_size=1, max_size=4, unique=True), reply=st.text())
@example(texts=["x"], reply="half a \ud800")
def test_any_question_and_any_reply_come_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], reply: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    questions = asked(*((text, "a word") for text in texts))
    recording(folder, saying(lambda query: reply), questions=questions)
    opened = open_set(folder)
    assert [q.prompt for q in opened.questions()] == [graded.question.prompt for graded in questions]
    said = "".join(reply.split())
    assert {"".join(str(row["raw"]).split()) for row in rows_of(folder)} == {
        said.encode("utf-8", "replace").decode()
    }


def test_options_are_rated_where_live_votes_rate_them(tmp_path: Path) -> None:
    questions = asked(("Which is wet?", "water"), A="fire", B="water")
    script = Script(replies=lambda query: "A", scores=(-3.0, -1.0))
    rater, writer = scripted("rater", script, offers=frozenset({"score"})), scripted("writer", script)
    recording(tmp_path, rater, writer, questions=questions)
    assert correct(tmp_path) == {"rater": [True], "writer": [False]}
    confidence = {row["model"]: row["confidence"] for row in rows_of(tmp_path)}
    assert confidence == {"rater": pytest.approx(0.8808, abs=1e-4), "writer": None}
    assert open_set(tmp_path).questions()[0].choices == ("fire", "water")


def test_an_answer_cut_at_its_length_abstains(tmp_path: Path) -> None:
    recording(tmp_path, saying(doubled), sampling=Sampling(max_tokens=3))
    assert correct(tmp_path)["a"] == [True] * 6
    recording(
        tmp_path / "cut", saying(lambda query: doubled(query) + " Thus"), sampling=Sampling(max_tokens=3)
    )
    assert {row["answer"] for row in rows_of(tmp_path / "cut")} == {None}


def test_open_ended_questions_are_counted(tmp_path: Path) -> None:
    questions = asked(("What is the capital of France?", "Paris"), ("What is 1 + 1?", "2"))
    harvest = recording(tmp_path, saying({"What is 1 + 1?": "2"}, text="paris."), questions=questions)
    assert harvest.open_ended == 1
    assert correct(tmp_path) == {"a": [True, True]}


def test_costs_that_an_expert_does_not_state_follow_from_its_card(tmp_path: Path) -> None:
    class Unpriced(Scripted):
        def _usage(self, query: Query, completion_tokens: int) -> Usage:
            return Usage(1000, 100, cpu_s=36.0)

    card = replace(
        scripted("a", Script()).card,
        price_in_usd_per_m=1.0,
        price_out_usd_per_m=10.0,
        price_cpu_usd_per_hour=0.1,
    )
    recording(tmp_path, Unpriced(card, Script()))
    assert [row["cost_usd"] for row in rows_of(tmp_path)] == [pytest.approx(0.001 + 0.001 + 0.001)] * 6


# --- who fails -------------------------------------------------------------------------------------


def test_a_failure_is_missing_not_wrong_and_is_asked_again(tmp_path: Path) -> None:
    good = saying(doubled, "good")
    bad = saying(doubled, "bad", fail_before=UnavailableError("bad is down."))
    harvest = recording(tmp_path, good, bad)
    assert (harvest.answered, harvest.missing, harvest.reasons) == (6, {"bad": 6}, {"bad": "bad is down."})
    assert correct(tmp_path) == {"good": [True] * 6}
    mended = saying(doubled, "bad")
    harvest = recording(tmp_path, good, mended)
    assert (harvest.answered, harvest.kept, harvest.missing, harvest.reasons) == (6, 6, {}, {})
    assert (good.asked, mended.asked) == (6, 6)
    assert correct(tmp_path) == {"bad": [True] * 6, "good": [True] * 6}


def test_an_expert_that_keeps_failing_is_left_alone(tmp_path: Path) -> None:
    many = asked(*((f"What is {i} + {i}?", str(2 * i)) for i in range(40)))
    down = saying(doubled, "down", fail_before=UnavailableError("down is down."))
    choosy = saying(doubled, "choosy", fail_before=RefusedError("too long."))
    harvest = recording(tmp_path, saying(doubled), down, choosy, questions=many, at_once=1)
    assert (down.asked, choosy.asked) == (8, 40)
    assert harvest.missing == {"choosy": 40, "down": 40}


def test_an_expert_that_fails_now_and_then_rests_and_goes_on(tmp_path: Path) -> None:
    class Limited(Scripted):
        """Every other call is one too many."""

        async def _begin(self) -> None:
            if self.asked % 2:
                raise UnavailableError("slow down.")

    expert = Limited(scripted("a", Script()).card, Script(replies=doubled))

    async def timed() -> tuple[Harvest, float]:
        harvest = await record(SUMS, {"a": expert}, tmp_path, at_once=1)
        return harvest, asyncio.get_running_loop().time()

    harvest, seconds = run(timed())
    assert (harvest.answered, harvest.missing, seconds) == (3, {"a": 3}, 3 * 2.0)
    assert correct(tmp_path) == {"a": [None, True] * 3}


@pytest.mark.parametrize("status", ["401 Unauthorized", "402 Payment", "404 Not Found"])
def test_what_only_its_owner_can_mend_is_not_tried_again(tmp_path: Path, status: str) -> None:
    async def body() -> tuple[Harvest, int]:
        reply = plain(b'{"error": {"message": "no"}}', status)
        async with upstream([reply]) as server, Client() as client:
            far = OpenAI(Card("far", "openai", source="far"), server.url, client)
            experts: dict[str, Expert] = {"far": far, "good": saying(doubled, "good")}
            harvest = await record(SUMS, experts, tmp_path, at_once=1)
            return harvest, len(server.bodies)

    harvest, calls = asyncio.run(body())
    assert calls == 1
    assert harvest.missing == {"far": 6}
    assert status[:3] in harvest.reasons["far"]
    assert correct(tmp_path) == {"good": [True] * 6}


def test_who_is_left_out_and_another_category_stay_in_the_set(tmp_path: Path) -> None:
    one, two = saying(doubled, "one"), saying(doubled, "two")
    questions = [
        replace(graded, question=replace(graded.question, category=f"c{i % 2}"))
        for i, graded in enumerate(SUMS)
    ]
    part = recording(tmp_path, one, two, questions=questions, leave=["two"], category="c0")
    assert (part.answered, part.kept, part.missing, one.asked, two.asked) == (3, 0, {}, 3, 0)
    assert len(open_set(tmp_path).questions()) == 6
    assert recording(tmp_path, one, two, questions=questions).answered == 9
    seen = Seen()
    part = recording(tmp_path, one, two, questions=questions, leave=["one"], category="c1", progress=seen)
    assert (part.answered, part.kept, part.missing, seen.started) == (0, 3, {}, {"two": (3, 3)})
    assert correct(tmp_path) == {"one": [True] * 6, "two": [True] * 6}


def test_slow_and_broken_answers_are_failures(tmp_path: Path) -> None:
    patience = Patience(first_token_s=5.0, idle_s=2.0, deadline_s=20.0)
    harvest = recording(
        tmp_path,
        saying(doubled, "good", first_token_s=4.9),
        saying(doubled, "late", first_token_s=5.1),
        saying(doubled, "stalled", stall_after=1),
        saying(doubled, "cut", cut_after=2),
        saying(lambda query: "la " * 100, "endless", per_chunk_s=1.0),
        patience=patience,
    )
    assert harvest.missing == dict.fromkeys(("cut", "endless", "late", "stalled"), 6)
    assert "within 5 s" in harvest.reasons["late"]
    assert "within 2 s" in harvest.reasons["stalled"]
    assert "deadline" in harvest.reasons["endless"]
    assert correct(tmp_path) == {"good": [True] * 6}


def test_nobody_answering_is_an_error_and_leaves_the_tables(tmp_path: Path) -> None:
    bad = saying(doubled, fail_before=UnavailableError("a is down."))
    with pytest.raises(DataError, match=r"No expert answered any question\. a is down\."):
        recording(tmp_path, bad)
    assert not (tmp_path / "answers.parquet").exists()
    with pytest.raises(DataError, match="no expert to ask"):
        recording(tmp_path)


# --- pace ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "seconds"), [("local", 60.0), ("openai", 20.0)])
def test_local_experts_are_asked_one_by_one(tmp_path: Path, kind: str, seconds: float) -> None:
    script = Script(replies=doubled, first_token_s=10.0)
    expert = Scripted(replace(scripted("a", script).card, kind=kind), script)

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await record(SUMS, {"a": expert}, tmp_path, at_once=3)
        return loop.time() - began

    assert run(timed()) == pytest.approx(seconds)


class Seen:
    """Keeps `record.Progress`."""

    def __init__(self) -> None:
        self.started: dict[str, tuple[int, int]] = {}
        self.moved: list[str] = []

    def start(self, expert: str, total: int, done: int) -> None:
        self.started[expert] = (total, done)

    def advance(self, expert: str) -> None:
        self.moved.append(expert)


def test_progress_is_told(tmp_path: Path) -> None:
    first, again = Seen(), Seen()
    recording(tmp_path, saying(doubled), progress=first)
    assert (first.started, first.moved) == ({"a": (6, 0)}, ["a"] * 6)
    recording(tmp_path, saying(doubled), saying(doubled, "b"), progress=again)
    assert (again.started, again.moved) == ({"a": (6, 6), "b": (6, 0)}, ["b"] * 6)


# --- once more -------------------------------------------------------------------------------------


def cancelled_after(seconds: float, folder: Path, expert: Scripted) -> None:
    async def body() -> None:
        task = asyncio.create_task(record(SUMS, {"a": expert}, folder, at_once=1))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(body())


def test_a_cancelled_run_loses_the_call_under_way_alone(tmp_path: Path) -> None:
    expert = saying(doubled, first_token_s=10.0)
    cancelled_after(35.0, tmp_path, expert)
    assert (expert.asked, expert.cancelled, expert.running) == (4, 1, 0)
    harvest = recording(tmp_path, expert)
    assert (harvest.kept, harvest.answered, expert.asked) == (3, 3, 7)
    assert correct(tmp_path) == {"a": [True] * 6}


@pytest.mark.parametrize("torn", [1, 20, 150, 70_000])
def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path, torn: int) -> None:
    long = saying(lambda query: doubled(query) + " " + "x" * 80_000)
    recording(tmp_path, long)
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-torn])
    harvest = recording(tmp_path, long)
    assert (harvest.kept, harvest.answered) == (5, 1)
    assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    recording(tmp_path, saying(doubled))
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    with pytest.raises(DataError, match=r"journal\.jsonl, line 2 is damaged"):
        recording(tmp_path, saying(doubled))
    assert correct(tmp_path) == {"a": [True] * 6}


def test_of_a_changed_file_only_what_changed_is_asked(tmp_path: Path) -> None:
    recording(tmp_path, saying(doubled))
    (new,) = asked(("What is 50 + 50?", "100"))
    changed = [replace(new, question=replace(new.question, question_id="k0")), *SUMS[1:5]]
    expert = saying(doubled)
    harvest = recording(tmp_path, expert, questions=changed)
    assert (harvest.kept, harvest.answered, expert.asked) == (4, 1, 1)
    assert correct(tmp_path) == {"a": [True] * 5}
    assert {row["raw"] for row in rows_of(tmp_path)} >= {"It is 100.", "It is 2."}
    harvest = recording(tmp_path, expert)  # what was left out meanwhile is still there
    assert (harvest.kept, harvest.answered) == (6, 0)


def test_a_corrected_gold_costs_no_call(tmp_path: Path) -> None:
    recording(tmp_path, saying(doubled))
    corrected = [replace(SUMS[0], question=replace(SUMS[0].question, gold="1")), *SUMS[1:]]
    expert = saying(doubled)
    recording(tmp_path, expert, questions=corrected)
    assert expert.asked == 0
    assert correct(tmp_path) == {"a": [False, True, True, True, True, True]}


@pytest.mark.parametrize(("model", "max_tokens"), [("new", None), ("", 50)])
def test_another_model_or_sampling_is_another_call(
    tmp_path: Path, model: str, max_tokens: int | None
) -> None:
    recording(tmp_path, saying(lambda query: "It is 7."), sampling=Sampling())
    other = scripted("a", Script(replies=doubled), model=model)
    assert recording(tmp_path, other, sampling=Sampling(max_tokens=max_tokens)).answered == 6
    assert correct(tmp_path) == {"a": [True] * 6}


def test_the_same_question_twice_has_two_rows(tmp_path: Path) -> None:
    twice = asked(("What is 1 + 1?", "2"), ("What is 1 + 1?", "3"))
    assert recording(tmp_path, saying(doubled), questions=twice).missing == {}
    assert correct(tmp_path) == {"a": [True, False]}
    assert recording(tmp_path, saying(doubled), questions=twice).answered == 0


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    async def body() -> None:
        first = asyncio.create_task(record(SUMS, {"a": saying(doubled, first_token_s=9.0)}, tmp_path))
        await asyncio.sleep(1.0)
        with pytest.raises(DataError, match="Another run is recording"):
            await record(SUMS, {"a": saying(doubled)}, tmp_path)
        await first

    run(body())
    assert correct(tmp_path) == {"a": [True] * 6}


def test_a_set_from_elsewhere_is_not_overwritten(tmp_path: Path) -> None:
    recording(tmp_path, saying(doubled))
    (tmp_path / "journal.jsonl").unlink()
    expert = saying(doubled)
    with pytest.raises(DataError, match="not recorded here"):
        recording(tmp_path, expert)
    assert expert.asked == 0


def test_the_documented_columns_are_those_that_are_written(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    recording(tmp_path, saying(doubled))
    page = (Path(__file__).parents[2] / "docs" / "learning.md").read_text(encoding="utf-8")
    for name in ("questions", "answers", "models"):
        table = page.partition(f"| `{name}` | type | meaning |")[2].partition("\n\n")[0]
        documented = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
        assert documented == pq.read_schema(tmp_path / f"{name}.parquet").names


def test_the_folder_holds_nothing_else(tmp_path: Path) -> None:
    recording(tmp_path / "deep" / "set", saying(doubled))
    names = {path.name for path in (tmp_path / "deep" / "set").iterdir()}
    assert names == {"questions.parquet", "answers.parquet", "models.parquet", "journal.jsonl", ".lock"}
    line = json.loads((tmp_path / "deep" / "set" / "journal.jsonl").read_text().splitlines()[0])
    assert (line["expert"], line["question_id"], line["text"]) == ("a", "k0", "It is 0.")


# --- ways of asking --------------------------------------------------------------------------------


class Many:
    """A local model that notes how it is asked: with chance where it has to answer several times."""

    def __init__(self) -> None:
        self.card = Card("m", "local", model="m", offers=frozenset({"samples", "score", "grammar"}))
        self.asked: list[str] = []

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.asked.append(query.question)
        yield Chunk("B" if "letter" in query.question else "4", "stop", Usage(1, 1, 0.25, 0.5))

    async def sample(self, query: Query, count: int) -> Samples:
        self.asked.append(query.question)
        text = "B" if "letter" in query.question else "Answer: 4"
        return Samples((text,) * count, ("stop",) * count, Usage(1, count, 0.25 * count, 0.5 * count))


def in_ways(model: Many, *ways: str) -> dict[str, Expert]:
    asked = [Asked(model, WAYS[way], run=lambda program: 4) for way in ways]
    return {one.card.name: one for one in asked}


FOUR = Graded(Question("n", "sums", "What is 2 + 2?", (), "4", "test"), "What is 2 + 2?", Task("number"))
LETTERS = Graded(
    Question("o", "choices", "Which?", ("x" * 200, "y" * 200), "B", "calibration"),
    "Which? A) .. B) ..",
    Task("option", ("x" * 200, "y" * 200), "Which?"),
)
PROSE = Graded(
    Question("p", "prose", "Say four.", (), None, "validation"), "Say four.", Task(), lambda text: text == "4"
)


def test_each_way_is_asked_and_what_they_share_is_asked_once(tmp_path: Path) -> None:
    model = Many()
    experts = in_ways(model, "direct", "code", "cot3")
    harvest = run(record([FOUR, LETTERS, PROSE], experts, tmp_path / "ways"))
    assert (harvest.answered, harvest.kept, harvest.missing) == (5, 0, {})
    kinds = ["Reply with the number", "Write Python code", "Think step", "Reply with the letter", "Say four."]
    assert sorted(sum(part in text for text in model.asked) for part in kinds) == [1] * 5
    rows = rows_of(tmp_path / "ways")
    assert len(rows) == 9
    assert {(row["model"], row["question_id"]) for row in rows if row["correct"]} == {
        (name, key) for name in experts for key in "nop"
    }
    assert [row["answer"] for row in rows if row["question_id"] == "p"] == [None] * 3
    assert all(row["extracted"] for row in rows)
    again = run(record([FOUR, LETTERS, PROSE], in_ways(model, "direct", "code", "cot3"), tmp_path / "ways"))
    assert (again.answered, again.kept) == (0, 9)


def test_the_ways_of_a_local_model_take_turns_many_questions_at_a_time(tmp_path: Path) -> None:
    model = Many()
    questions = [
        replace(FOUR, question=replace(FOUR.question, question_id=f"n{i}"), text=f"What is {i} + 2?")
        for i in range(20)
    ]
    run(record(questions, in_ways(model, "direct", "code"), tmp_path / "ways"))
    order = [*range(16), *range(16), *range(16, 20), *range(16, 20)]
    assert [text.partition("?")[0] for text in model.asked] == [f"What is {i} + 2" for i in order]


def test_only_what_suits_is_asked(tmp_path: Path) -> None:
    model = Many()
    experts = in_ways(model, "direct", "code")

    def suits(expert: Expert, graded: Graded) -> bool:
        return expert.card.name == "m:code" or graded.task.kind == "text"

    harvest = run(record([FOUR, PROSE], experts, tmp_path / "ways", suits=suits))
    assert harvest.missing == {}
    assert sorted((row["model"], row["question_id"]) for row in rows_of(tmp_path / "ways")) == [
        ("m:code", "n"),
        ("m:code", "p"),
        ("m:direct", "p"),
    ]


def test_when_time_is_up_no_call_begins_and_the_next_run_goes_on(tmp_path: Path) -> None:
    slow = saying(doubled, first_token_s=10.0)
    harvest = recording(tmp_path / "sums", slow, until_s=25.0, at_once=1)
    assert (harvest.answered, harvest.missing) == (3, {"a": 3})
    assert recording(tmp_path / "sums", slow).answered == 3


def test_what_an_old_journal_holds_is_not_asked_again(tmp_path: Path) -> None:
    """The digest of a call is what it was before grammars and ways of asking."""
    recording(tmp_path / "sums", saying(doubled), questions=SUMS[:1])
    (line,) = (tmp_path / "sums" / "journal.jsonl").read_text().splitlines()
    sampling: dict[str, object] = {
        "max_tokens": 1024,
        "temperature": 0.0,
        "top_p": None,
        "seed": None,
        "stop": [],
        "n": 1,
    }
    asked = json.dumps(
        ["What is 0 + 0?", "scripted", "", "generate", sampling], separators=(",", ":")
    ).encode()
    assert json.loads(line)["call"] == hashlib.sha256(asked).hexdigest()[:32]
