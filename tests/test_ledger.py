import math
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import CutError, LedgerError
from manyminds.ledger import SCHEMA, Ledger
from manyminds.types import Answer, Message, Outcome, PanelEntry, Query, Report, Usage

ANSWERS = (
    Answer("a", "alice", "ok", "4", ttft_s=0.1, seconds=0.3, usage=Usage(7, 2, 0.25, 0.001)),
    Answer("b", "bob", "cut", "fo", stage=1, seconds=0.2, error=CutError("it said: PROMPT")),
)
OUTCOMES = (Outcome("r", "a", "ok", 0.1, 0.3, 2, 1.0), Outcome("r", "b", "cut", None, 0.2, 0))


def counted(ledger: Ledger) -> dict[str, int]:
    """Rows that are there."""
    rows = ledger.recent(1_000_000)
    return {"requests": len(rows), "calls": sum(len(row["calls"]) for row in rows)}


def cost(ledger: Ledger) -> float:
    """Of all calls."""
    return math.fsum(call["cost_usd"] for row in ledger.recent(1_000_000) for call in row["calls"])


def entry(answer: Answer, weight: float, cost_usd: float) -> PanelEntry:
    return PanelEntry(
        answer.expert,
        answer.source,
        weight,
        answer.text,
        0.7,
        None,
        0.2,
        cost_usd,
        answer.status,
        answer.stage,
    )


def report(request_id: str = "r", cost_usd: float = 0.003) -> Report:
    panel = (entry(ANSWERS[0], 0.6, 0.001), entry(ANSWERS[1], 0.4, 0.002))
    return Report(request_id, "auto", "vote", panel, 0.5, 0.8, (), cost_usd, 0.01)


def ask(text: str = "PROMPT") -> Query:
    return Query((Message("user", text),))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ledger.db"


@pytest.fixture
def ledger(file: Path) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{file}")) as opened:
        yield opened


def test_a_request_is_recorded_whole(ledger: Ledger) -> None:
    ledger.record(report(), ask(), ANSWERS, "4", "ok", 0.4, OUTCOMES)
    (request,) = ledger.recent(10)
    first, second = request.pop("calls")
    assert request.pop("at_utc").endswith("+00:00")
    assert request == {
        "id": 1,
        "request_id": "r",
        "policy": "auto",
        "strategy": "vote",
        "status": "ok",
        "seconds": 0.4,
        "cost_usd": 0.003,
        "saved_usd": 0.01,
        "probability": 0.8,
        "agreement": 0.5,
        "question": None,
        "answer": None,
    }
    assert first == {
        "id": 1,
        "request_id": "r",
        "expert": "a",
        "source": "alice",
        "stage": 0,
        "method": "generate",
        "status": "ok",
        "ttft_s": 0.1,
        "seconds": 0.3,
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "cpu_s": 0.25,
        "cost_usd": 0.001,
        "share": 0.6,
        "probability": 0.7,
        "error": None,
    }
    assert (second["stage"], second["share"], second["cost_usd"], second["error"]) == (
        1,
        0.4,
        0.002,
        "CutError",
    )


def test_outcomes_are_recorded(ledger: Ledger, file: Path) -> None:
    ledger.record(report(), ask(), ANSWERS, "4", "ok", 0.4, OUTCOMES)
    with closing(sqlite3.connect(file)) as raw:
        rows = raw.execute("SELECT request_id, expert, correct, status FROM outcomes ORDER BY id").fetchall()
    assert rows == [("r", "a", 1.0, "ok"), ("r", "b", None, "cut")]


def test_no_text_is_on_disk_unless_asked_for(ledger: Ledger, file: Path) -> None:
    ledger.record(report(), ask(), ANSWERS, "SECRET", "ok", 0.4, OUTCOMES)
    ledger.close()
    written = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"alice" in written
    assert b"PROMPT" not in written
    assert b"SECRET" not in written


def test_text_is_kept_when_asked_for(file: Path) -> None:
    with closing(Ledger(f"sqlite:///{file}", store_text=True)) as ledger:
        ledger.record(report(), ask("a\x00b \ud800 ü"), (), "ü\udfff", "ok", 0.4)
        assert [(row["question"], row["answer"]) for row in ledger.recent()] == [("a\x00b ? ü", "ü?")]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_only_its_owner_may_read_it(ledger: Ledger, file: Path) -> None:
    ledger.record(report(), ask(), ANSWERS, "4", "ok", 0.4)
    assert {path.stat().st_mode & 0o077 for path in file.parent.iterdir()} == {0}


def test_recent_is_newest_first_and_limited(ledger: Ledger) -> None:
    for name in ("1", "2", "3"):
        ledger.record(report(name), ask(), ANSWERS, "4", "ok", 0.4)
    assert [row["request_id"] for row in ledger.recent(2)] == ["3", "2"]
    assert [len(row["calls"]) for row in ledger.recent(2)] == [2, 2]


def test_an_expert_asked_twice_has_a_row_for_each_sample(ledger: Ledger) -> None:
    panel = (entry(ANSWERS[0], 0.6, 0.001), entry(ANSWERS[0], 0.4, 0.002))
    twice = Report("r", "max", "vote", panel, None, None, (), 0.003, 0.0)
    ledger.record(twice, ask(), (ANSWERS[0], ANSWERS[0], ANSWERS[0]), "4", "ok", 0.4)
    (request,) = ledger.recent()
    assert [(call["share"], call["cost_usd"]) for call in request["calls"]] == [
        (0.6, 0.001),
        (0.4, 0.002),
        (None, 0.001),
    ]


def test_a_request_that_cannot_be_recorded_whole_is_not_recorded(ledger: Ledger) -> None:
    broken = Outcome("r", None, "ok", None, 0.0, 0)  # type: ignore[arg-type]
    with pytest.raises(LedgerError) as caught:
        ledger.record(report(), ask(), ANSWERS, "4", "ok", 0.4, (broken,))
    assert "PROMPT" not in caught.value.message
    assert counted(ledger)["requests"] == counted(ledger)["calls"] == 0


def test_a_value_that_fits_no_column_is_refused(ledger: Ledger) -> None:
    for usage, name in (
        (Usage(prompt_tokens=10**30), "a"),
        (Usage(), "\ud800"),
        (Usage(cost_usd=float("nan")), "not on the panel"),
    ):
        with pytest.raises(LedgerError):
            ledger.record(report(), ask(), (Answer(name, "s", "ok", usage=usage),), "", "ok", 0.0)
    assert counted(ledger)["requests"] == 0


def test_threads_may_share_it(ledger: Ledger) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: ledger.record(report(str(i)), ask(), ANSWERS, "", "ok", 0.0), range(40)))
    assert counted(ledger)["calls"] == 80


@given(costs=st.lists(st.decimals(0, 10, places=3).map(float), max_size=6))
def test_totals_are_the_sum_of_what_was_recorded(
    costs: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("ledger") / "l.db"
    with closing(Ledger(f"sqlite:///{file}")) as ledger:
        for i, cost_usd in enumerate(costs):
            answer = Answer("a", "alice", "ok", usage=Usage(cost_usd=cost_usd))
            one = Report(str(i), "auto", "pass", (), None, None, (), cost_usd, 0.0)
            ledger.record(one, ask(), (answer,), "", "ok", 0.0)
        assert cost(ledger) == pytest.approx(sum(costs))
        assert sum(row["cost_usd"] for row in ledger.recent(10)) == pytest.approx(sum(costs))


def test_it_is_found_again_after_closing(ledger: Ledger, file: Path) -> None:
    ledger.record(report(), ask(), ANSWERS, "4", "ok", 0.4)
    ledger.close()
    ledger.close()
    with closing(Ledger(f"sqlite:///{file}")) as again:
        assert counted(again)["requests"] == 1
    with closing(sqlite3.connect(file)) as raw:
        assert raw.execute("SELECT version FROM schema").fetchall() == [(SCHEMA,)]
        assert raw.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


# --- several processes -----------------------------------------------------------------------------


def write(url: str, start: Barrier, n: int) -> None:
    start.wait()
    with closing(Ledger(url, busy_s=60)) as ledger:
        for i in range(n):
            ledger.record(report(f"{os.getpid()}-{i}"), ask(), ANSWERS, "4", "ok", 0.4, OUTCOMES)
            if i == 5 and n > 1000:
                start.wait()


def test_several_processes_write_at_once(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    writers = [context.Process(target=write, args=(f"sqlite:///{file}", start, 50)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with closing(Ledger(f"sqlite:///{file}")) as ledger:
        assert (counted(ledger)["requests"], counted(ledger)["calls"]) == (150, 300)


@pytest.mark.skipif(os.name != "posix", reason="needs a signal that cannot be caught")
def test_a_killed_process_leaves_no_half_request(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    writer = context.Process(target=write, args=(f"sqlite:///{file}", start, 10**9))
    writer.start()
    start.wait()
    start.wait()
    assert writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with closing(Ledger(f"sqlite:///{file}")) as ledger:
        totals = counted(ledger)
        assert totals["requests"] > 5
        assert totals["calls"] == 2 * totals["requests"]


# --- what goes wrong -------------------------------------------------------------------------------


def refusal(url: str) -> str:
    with pytest.raises(LedgerError) as caught:
        Ledger(url, busy_s=0)
    return caught.value.message


def test_wrong_urls_are_refused() -> None:
    assert "sqlite:///FILE" in refusal("ledger.db")
    for url in ("sqlite://", "sqlite:///:memory:", "postgresql://me:hunter2@db/x"):
        assert "sqlite:///FILE" in refusal(url)
        assert "hunter2" not in refusal(url)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "ledger.db", tmp_path, Path("/proc/nowhere/ledger.db")):
        assert f"{path} cannot be opened" in refusal(f"sqlite:///{path}")


def test_what_is_no_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"not a database, but text of some length. " * 50)
    assert "no SQLite file" in refusal(f"sqlite:///{noise}")
    assert noise.read_bytes().startswith(b"not a database")
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as raw:
        raw.execute("CREATE TABLE cats (name)")
    assert "another program's" in refusal(f"sqlite:///{other}")
    with closing(sqlite3.connect(other)) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("cats",)]


def test_a_damaged_file_is_named(ledger: Ledger, file: Path) -> None:
    for i in range(50):
        ledger.record(report(str(i)), ask(), ANSWERS, "4", "ok", 0.4)
    ledger.close()
    size = file.stat().st_size
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xff" * (size - 4096))
    assert "damaged" in refusal(f"sqlite:///{file}")


@pytest.mark.parametrize(
    ("version", "said"), [(SCHEMA + 1, f"schema {SCHEMA + 1}, newer"), (None, "damaged")]
)
def test_other_schemas_are_refused(ledger: Ledger, file: Path, version: int | None, said: str) -> None:
    ledger.close()
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("DELETE FROM schema")
        raw.execute("INSERT INTO schema SELECT ? WHERE ? > 0", (version, version))
        raw.commit()
    assert said in refusal(f"sqlite:///{file}")


def test_a_lock_is_named_and_passes(ledger: Ledger, file: Path) -> None:
    with closing(Ledger(f"sqlite:///{file}", busy_s=0)) as hasty:
        with closing(sqlite3.connect(file, isolation_level=None)) as raw:
            raw.execute("BEGIN EXCLUSIVE")
            with pytest.raises(LedgerError, match="locked by another process"):
                hasty.record(report(), ask(), ANSWERS, "4", "ok", 0.4)
            assert counted(hasty)["requests"] == 0  # reading needs no lock
            assert "locked by another process" in refusal(f"sqlite:///{file}")
        hasty.record(report(), ask(), ANSWERS, "4", "ok", 0.4)
        assert counted(hasty)["requests"] == 1
