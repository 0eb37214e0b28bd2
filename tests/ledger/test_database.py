"""Opening, old schemas, and what goes wrong."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from manyminds.errors import LedgerError
from manyminds.ledger import SCHEMA, Ledger
from tests.ledger.postgres import PASSWORD, Server
from tests.ledger.samples import ANSWERS, ask, counted, grade, record, report

# As schema 1 was made, with every kind of row that it held.
SCHEMA_1 = """
CREATE TABLE schema (version INTEGER NOT NULL);
CREATE TABLE requests (id INTEGER NOT NULL, request_id TEXT NOT NULL, at_utc TEXT NOT NULL,
    policy TEXT NOT NULL, strategy TEXT NOT NULL, status TEXT NOT NULL, seconds FLOAT NOT NULL,
    cost_usd FLOAT NOT NULL, saved_usd FLOAT NOT NULL, probability FLOAT, agreement FLOAT,
    question TEXT, answer TEXT, PRIMARY KEY (id));
CREATE INDEX ix_requests_request_id ON requests (request_id);
CREATE TABLE calls (id INTEGER NOT NULL, request_id TEXT NOT NULL, expert TEXT NOT NULL,
    source TEXT NOT NULL, stage INTEGER NOT NULL, method TEXT NOT NULL, status TEXT NOT NULL, ttft_s FLOAT,
    seconds FLOAT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cpu_s FLOAT NOT NULL, cost_usd FLOAT NOT NULL, share FLOAT, probability FLOAT, error TEXT,
    PRIMARY KEY (id));
CREATE INDEX ix_calls_request_id ON calls (request_id);
CREATE TABLE outcomes (id INTEGER NOT NULL, request_id TEXT NOT NULL, expert TEXT NOT NULL,
    correct FLOAT, status TEXT NOT NULL, at_utc TEXT NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_outcomes_request_id ON outcomes (request_id);
INSERT INTO schema VALUES (1);
INSERT INTO requests VALUES
    (4, 'r', '2026-11-01T10:00:00.123+00:00', 'auto', 'vote', 'ok', .4, .003, .01, .8, NULL, 'q', 'a'),
    (7, 's', '2026-11-02T10:00:00.000+00:00', 'max', 'pass', 'failed', .1, 0, 0, NULL, NULL, NULL, NULL);
INSERT INTO calls VALUES
    (1, 'r', 'a', 'alice', 0, 'generate', 'ok', .1, .3, 7, 2, .25, .001, .6, .7, NULL),
    (2, 's', 'b', 'bob', 0, 'generate', 'failed', NULL, .1, 0, 0, 0, 0, NULL, NULL, 'SlowError'),
    (3, 'r', 'b', 'bob', 1, 'generate', 'cut', NULL, .2, 1, 1, 0, .002, .4, NULL, 'CutError');
INSERT INTO outcomes VALUES
    (1, 'r', 'a', 1.0, 'ok', '2026-11-01T10:00:00.123+00:00'), (2, 'r', 'b', NULL, 'cut', 'x'),
    (3, 's', 'b', 0.0, 'failed', 'x'), (4, 'r', 'b', 0.5, 'cut', 'x');
"""

# As schema 2 was made, on either database; the tables that have not changed since are made anew.
SCHEMA_2 = """
CREATE TABLE schema (version INTEGER NOT NULL);
CREATE TABLE requests (id INTEGER NOT NULL, request_id TEXT NOT NULL, at_utc TEXT NOT NULL,
    key TEXT NOT NULL, policy TEXT NOT NULL, strategy TEXT NOT NULL, status TEXT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL, cost_usd DOUBLE PRECISION NOT NULL,
    saved_usd DOUBLE PRECISION NOT NULL, probability DOUBLE PRECISION, agreement DOUBLE PRECISION,
    question TEXT, answer TEXT, PRIMARY KEY (id), UNIQUE (request_id));
CREATE INDEX ix_requests_at_utc ON requests (at_utc);
CREATE TABLE calls (request_id TEXT NOT NULL, number BIGINT NOT NULL, expert TEXT NOT NULL,
    source TEXT NOT NULL, stage BIGINT NOT NULL, method TEXT NOT NULL, status TEXT NOT NULL,
    ttft_s DOUBLE PRECISION, seconds DOUBLE PRECISION NOT NULL, prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL, cpu_s DOUBLE PRECISION NOT NULL, cost_usd DOUBLE PRECISION NOT NULL,
    share DOUBLE PRECISION, probability DOUBLE PRECISION, error TEXT, PRIMARY KEY (request_id, number));
CREATE TABLE outcomes (request_id TEXT NOT NULL, number BIGINT NOT NULL, expert TEXT NOT NULL,
    correct DOUBLE PRECISION NOT NULL, PRIMARY KEY (request_id, number));
INSERT INTO schema VALUES (2);
INSERT INTO requests VALUES
    (1, 'z', '2026-11-01T10:00:00.123+00:00', 'k', 'auto', 'vote', 'ok', .4, .003, .01, .8, NULL, 'q', 'a'),
    (2, 'b', '2026-11-02T10:00:00.000+00:00', '', 'max', 'pass', 'ok', .1, 0, 0, NULL, NULL, NULL, NULL);
INSERT INTO calls VALUES
    ('z', 0, 'a', 'alice', 0, 'generate', 'ok', .1, .3, 7, 2, .25, .001, .6, .7, NULL),
    ('b', 0, 'b', 'bob', 0, 'generate', 'cut', .1, .2, 1, 1, 0, .002, .4, NULL, 'CutError');
INSERT INTO outcomes VALUES ('b', 0, 'b', 0.25), ('z', 0, 'a', 1.0);
"""


def refusal(url: str, busy_s: float = 0.0) -> str:
    with pytest.raises(LedgerError) as caught:
        Ledger(url, busy_s=busy_s)
    return caught.value.message


@pytest.fixture
def old(file: Path) -> Path:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as raw:
        raw.executescript(SCHEMA_1)
    return file


@pytest.fixture
def on_file(file: Path) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{file}")) as opened:
        yield opened


# --- schemas ---------------------------------------------------------------------------------------


def test_schema_1_is_taken_over_whole(old: Path, tmp_path: Path) -> None:
    with closing(Ledger(f"sqlite:///{old}")) as ledger:
        newest, oldest = ledger.requests()
        assert [newest[name] for name in ("id", "request_id", "policy", "key")] == [7, "s", "max", ""]
        assert [oldest[name] for name in ("id", "at_utc", "probability", "agreement", "question")] == [
            4,
            "2026-11-01T10:00:00.123+00:00",
            0.8,
            None,
            "q",
        ]
        assert [(call["expert"], call["share"], call["error"]) for call in oldest["calls"]] == [
            ("a", 0.6, None),
            ("b", 0.4, "CutError"),
        ]
        assert [call["error"] for call in newest["calls"]] == ["SlowError"]
        record(ledger, "new")
        assert counted(ledger) == (3, 5)
    with closing(sqlite3.connect(old)) as raw:
        outcomes = "SELECT request_id, number, expert, correct, weight, voters, at_utc FROM outcomes"
        assert raw.execute(f"{outcomes} WHERE request_id <> 'new' ORDER BY id").fetchall() == [
            ("r", 0, "a", 1.0, 1.0, "", "2026-11-01T10:00:00.123+00:00"),
            ("s", 0, "b", 0.0, 1.0, "", "x"),
            ("r", 1, "b", 0.5, 1.0, "", "x"),
        ]
    with closing(Ledger(f"sqlite:///{tmp_path}/fresh.db")):
        assert tables(old) == tables(tmp_path / "fresh.db")


def test_schema_2_is_taken_over_whole(url: str) -> None:
    import sqlalchemy as sa

    script = SCHEMA_2
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir()
    else:
        script = script.replace("id INTEGER NOT NULL", "id BIGSERIAL", 1)
        script += "SELECT setval('requests_id_seq', 2);\n"
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as raw:
        for statement in script.split(";\n")[:-1]:
            raw.exec_driver_sql(statement)
    engine.dispose()
    with closing(Ledger(url)) as ledger:
        newest, oldest = ledger.requests()
        assert (newest["section"], oldest["question"], oldest["key"]) == (None, "q", "k")
        ((call,), (cut,)) = oldest["calls"], newest["calls"]
        assert (call["probability"], call["prior"], call["basis"], call["claimed_usd"]) == (0.7, *[None] * 3)
        assert (call["error"], cut["error"]) == (None, "CutError")
        first, second = ledger.graded(0, 10)
        assert (first.expert, first.correct, first.weight) == ("a", 1.0, 1.0)
        assert (second.expert, second.correct, second.prior, second.voters) == ("b", 0.25, None, ())
        assert first.at_utc == oldest["at_utc"]
        assert [outcome.expert for outcome in ledger.heard(0, 10)[1]] == ["a", "b"]
        record(ledger, "new", key="k")
        assert grade(ledger, "new", "k", 1.0) == "learnt"
        assert counted(ledger) == (3, 4)
    with closing(Ledger(url)) as again:
        assert len(again.graded(0, 10)) == 3


def tables(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as raw:
        found = raw.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    return [(name, "".join((sql or "").split())) for name, sql in found]


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    with closing(sqlite3.connect(old)) as raw:
        raw.execute("INSERT INTO outcomes VALUES (9, 'r', 'a', 'wrong', 'ok', 'x')")
        raw.execute("CREATE TABLE budgets (cats)")  # in the way of what would be made
        raw.execute("CREATE INDEX ix_requests_at_utc ON budgets (cats)")
        raw.commit()
    before = tables(old)
    refusal(f"sqlite:///{old}")
    assert tables(old) == before
    with closing(sqlite3.connect(old)) as raw:
        assert raw.execute("SELECT version, (SELECT count(*) FROM calls) FROM schema").fetchall() == [(1, 3)]


def open_it(url: str, start: Barrier) -> None:
    start.wait()
    with closing(Ledger(url, busy_s=60)) as ledger:
        record(ledger, str(os.getpid()))


def open_at_once(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=open_it, args=(url, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_several_processes_make_it_at_once(url: str) -> None:
    open_at_once(url)
    with closing(Ledger(url)) as ledger:
        assert counted(ledger) == (3, 6)


def test_several_processes_migrate_it_at_once(old: Path) -> None:
    open_at_once(f"sqlite:///{old}")
    with closing(Ledger(f"sqlite:///{old}")) as ledger:
        assert counted(ledger) == (5, 9)


@pytest.mark.parametrize(
    ("version", "said"), [(SCHEMA + 1, f"schema {SCHEMA + 1}, newer"), (0, "damaged"), (None, "damaged")]
)
def test_other_schemas_are_refused(url: str, version: int | None, said: str) -> None:
    import sqlalchemy as sa

    Ledger(url).close()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as raw:
        raw.exec_driver_sql("DELETE FROM schema")
        if version is not None:
            raw.exec_driver_sql(f"INSERT INTO schema VALUES ({version})")
    assert said in refusal(url)
    engine.dispose()


# --- several processes -----------------------------------------------------------------------------


def write(url: str, start: Barrier, n: int) -> None:
    start.wait()
    with closing(Ledger(url, busy_s=60, window_s=0.001)) as ledger:
        for i in range(n):
            record(ledger, f"{os.getpid()}-{i}")
            if n > 1000:
                ledger.flush()
            if n > 1000 and i == 5:
                start.wait()


def test_several_processes_write_at_once(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    writers = [context.Process(target=write, args=(url, start, 200)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with closing(Ledger(url)) as ledger:
        assert counted(ledger) == (600, 1_200)


@pytest.mark.skipif(os.name != "posix", reason="needs a signal that cannot be caught")
def test_a_killed_process_leaves_no_half_request(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    writer = context.Process(target=write, args=(url, start, 10**9))
    writer.start()
    start.wait()
    start.wait()
    assert writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with closing(Ledger(url)) as ledger:
        requests, calls = counted(ledger)
        assert requests > 5
        assert calls == 2 * requests


# --- the file --------------------------------------------------------------------------------------


def test_no_text_is_on_disk_unless_asked_for(on_file: Ledger, file: Path) -> None:
    on_file.record(report(), ask(), ANSWERS, "SECRET", "ok", 0.4)
    on_file.flush()
    written = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"alice" in written
    assert b"PROMPT" not in written
    assert b"SECRET" not in written


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_only_its_owner_may_read_it(on_file: Ledger, file: Path) -> None:
    record(on_file)
    on_file.flush()
    assert {path.name for path in file.parent.iterdir()} == {"ledger.db", "ledger.db-shm", "ledger.db-wal"}
    assert {path.stat().st_mode & 0o077 for path in file.parent.iterdir()} == {0}


def test_a_commit_is_on_the_disk_and_readers_do_not_wait(on_file: Ledger, file: Path) -> None:
    with on_file._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_wrong_urls_are_refused() -> None:
    for url in ("ledger.db", "sqlite://", "sqlite:///:memory:", "mysql://me:hunter2@db/x?password=hunter2"):
        assert "sqlite:///FILE or postgresql://" in refusal(url)
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
    assert [name for name, _ in tables(other)] == ["cats"]


def test_a_damaged_file_is_named(on_file: Ledger, file: Path) -> None:
    for i in range(50):
        record(on_file, str(i))
    on_file.close()
    size = file.stat().st_size
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xff" * (size - 4096))
    assert "damaged" in refusal(f"sqlite:///{file}")


def test_what_is_recorded_waits_for_a_lock(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Ledger(f"sqlite:///{file}", busy_s=0.05)) as ledger:
        record(ledger, "before")
        ledger.flush()
        with closing(sqlite3.connect(file, isolation_level=None)) as raw:
            raw.execute("BEGIN EXCLUSIVE")
            record(ledger, "during")
            with pytest.raises(LedgerError, match="locked by another process"):
                ledger.flush(1.0)
            assert "locked by another process" in str(ledger.status.error)
            assert ledger.status.queued == 1
            assert counted(ledger) == (1, 2)  # reading needs no lock
            with pytest.raises(LedgerError, match="locked by another process"):
                ledger.lease("k", "2026-11", 1, 1)
            assert "locked by another process" in refusal(f"sqlite:///{file}")
        ledger.flush()
        assert counted(ledger) == (2, 4)
        assert (ledger.status.queued, ledger.status.dropped, ledger.status.error) == (0, 0, None)
    assert caplog.text.count("Requests wait in memory") == 1


# --- the server ------------------------------------------------------------------------------------


def test_a_server_that_cannot_be_had_is_named(server: Server) -> None:
    wrong = {
        server.url("nowhere"): 'database "nowhere" does not exist',
        server.url("postgres").replace(PASSWORD, "hunter3"): "password authentication failed",
        server.url("postgres").replace(f":{server.port}", ":1"): "refused",
    }
    for url, why in wrong.items():
        said = refusal(url)
        assert "cannot be reached" in said
        assert why in said
        assert "hunter" not in said


def test_a_server_used_for_something_else_is_left_as_it_is(server: Server) -> None:
    import psycopg

    url = server.new()
    with psycopg.connect(url) as raw:
        raw.execute("CREATE TABLE cats (name text)")
    assert "another program's" in refusal(url)
    with psycopg.connect(url) as raw:
        here = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        assert raw.execute(here).fetchall() == [("cats",)]


def test_a_right_that_is_missing_is_named_without_the_statement(server: Server) -> None:
    import psycopg

    url = server.new()
    with closing(Ledger(url, busy_s=0.1)) as ledger, psycopg.connect(url, autocommit=True) as raw:
        raw.execute("ALTER TABLE requests RENAME TO cats")
        record(ledger)
        with pytest.raises(LedgerError, match="lacks a table"):
            ledger.flush(0.5)
        with pytest.raises(LedgerError) as caught:
            ledger.requests()
        assert "SELECT" not in caught.value.message
        raw.execute("ALTER TABLE cats RENAME TO requests")
        ledger.flush()
        assert counted(ledger) == (1, 2)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_loses_nothing_and_doubles_nothing(
    server: Server, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Ledger(server.new(), window_s=0.0)) as ledger:
        for i in range(3_000):
            record(ledger, str(i))
            if i in (500, 1_500):
                server.stop(mode)
            if i in (1_000, 2_000):
                server.start()
        ledger.flush()
        assert counted(ledger) == (3_000, 6_000)
        assert (ledger.status.written, ledger.status.dropped, ledger.status.error) == (3_000, 0, None)
        assert ledger.lease("k", "2026-11", 1, 1) == 1
    assert 1 <= caplog.text.count("Requests wait in memory") <= 2


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    assert "pip install 'manyminds[postgres]'" in refusal("postgresql://me@127.0.0.1:1/x")


def test_importing_it_imports_no_database() -> None:
    code = "import sys, manyminds.ledger; print('sqlalchemy' in sys.modules, 'psycopg' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
