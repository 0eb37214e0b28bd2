"""Who was asked what, what it cost and how it ended: append-only tables in one SQLite file.

Knows nothing of how requests are answered. Keeps figures and names; questions and answers only when
told to, and of errors only their kind, since messages may quote a prompt.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from manyminds.errors import LedgerError
from manyminds.types import Answer, Outcome, PanelEntry, Query, Report

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["SCHEMA", "Ledger"]

SCHEMA: Final = 1
"""Version of the tables. A ledger with a higher one is refused."""

_ELSEWHERE: Final = "or point ledger.url elsewhere"
_ADVICE: Final[Mapping[int, str]] = MappingProxyType(
    {  # by SQLite's primary result code
        5: "{file} is locked by another process ({cause}): try again, end that process",
        8: "{file} cannot be written ({cause}): mend its permissions",
        11: "{file} is damaged ({cause}): move it away and a new one is made",
        13: "{file} has no room left ({cause}): free some",
        14: "{file} cannot be opened ({cause}): mend its path or permissions",
        26: "{file} is no SQLite file ({cause}): move it away and a new one is made",
    }
)


class Ledger:
    """One file, which several processes and threads may write to at once.

    Raises: LedgerError, from every method, with one sentence on what to do.
    """

    def __init__(self, url: str, store_text: bool = False, *, busy_s: float = 5.0) -> None:
        """Opens the file, or creates it and its folder, for its owner's eyes only.

        Args:
            url: `sqlite:///FILE`.
            store_text: whether questions and answers are kept.
            busy_s: how long to wait for another process that is writing.
        """
        import sqlalchemy as sa

        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise LedgerError("ledger.url is no URL: write sqlite:///FILE.") from None
        if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
            raise LedgerError(f"The ledger is a SQLite file, sqlite:///FILE, not {parsed}.")
        self._file = Path(str(parsed.database))
        self._store_text = store_text
        with _explaining(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            # IMMEDIATE: a write takes its lock at its start, where waiting for it cannot deadlock.
            arguments = {"timeout": busy_s, "isolation_level": "IMMEDIATE"}
            self._engine = sa.create_engine(parsed, connect_args=arguments, hide_parameters=True)
            sa.event.listen(self._engine, "connect", _tune)
            self._tables = _define()
            try:
                _prepare(self._engine, self._tables, self._file, busy_s)
            except BaseException:
                self._engine.dispose()
                raise

    def record(
        self,
        report: Report,
        query: Query,
        answers: Sequence[Answer],
        text: str,
        status: str,
        seconds: float,
        outcomes: Sequence[Outcome] = (),
    ) -> None:
        """Adds a request with all its calls and outcomes, or nothing. Blocks, at most about `busy_s`.

        `text` is the released answer; `status` is ok, cut, failed or cancelled; `seconds` is how long the
        whole request took.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        request = {
            "request_id": report.request_id,
            "at_utc": now,
            "policy": report.policy,
            "strategy": report.strategy,
            "status": status,
            "seconds": seconds,
            "cost_usd": report.cost_usd,
            "saved_usd": report.saved_usd,
            "probability": report.probability,
            "agreement": report.agreement,
            "question": _clean(query.question) if self._store_text else None,
            "answer": _clean(text) if self._store_text else None,
        }
        rows = {
            "requests": [request],
            "calls": list(_calls(report, answers)),
            "outcomes": [
                {"request_id": o.request_id, "expert": o.expert, "correct": o.correct}
                | {"status": o.status, "at_utc": now}
                for o in outcomes
            ],
        }
        with _explaining(self._file), self._engine.begin() as connection:
            for name, new in rows.items():
                if new:
                    connection.execute(self._tables.tables[name].insert(), new)

    def recent(self, limit: int = 20) -> list[dict[str, Any]]:
        """The latest requests, newest first, each with its `calls`."""
        requests, calls = self._tables.tables["requests"], self._tables.tables["calls"]
        latest = requests.select().order_by(requests.c.id.desc()).limit(limit)
        with _explaining(self._file), self._engine.connect() as connection:
            found = [dict(row) for row in connection.execute(latest).mappings()]
            for request in found:
                of_it = calls.select().where(calls.c.request_id == request["request_id"]).order_by(calls.c.id)
                request["calls"] = [dict(row) for row in connection.execute(of_it).mappings()]
        return found

    def close(self) -> None:
        """Lets go of the file. Closing twice does no harm."""
        self._engine.dispose()


# --- the file --------------------------------------------------------------------------------------


def _define() -> "sa.MetaData":
    import sqlalchemy as sa

    def text(name: str, index: bool = False) -> sa.Column[str]:
        return sa.Column(name, sa.Text, nullable=False, index=index)

    def figure(name: str, unknown: bool = False) -> sa.Column[float]:
        return sa.Column(name, sa.Float, nullable=unknown)

    def row() -> sa.Column[int]:
        return sa.Column("id", sa.Integer, primary_key=True)

    tables = sa.MetaData()
    sa.Table("schema", tables, sa.Column("version", sa.Integer, nullable=False))
    sa.Table(
        "requests",
        tables,
        row(),
        text("request_id", index=True),
        *map(text, ("at_utc", "policy", "strategy", "status")),
        *map(figure, ("seconds", "cost_usd", "saved_usd")),
        figure("probability", unknown=True),
        figure("agreement", unknown=True),
        sa.Column("question", sa.Text),
        sa.Column("answer", sa.Text),
    )
    sa.Table(
        "calls",
        tables,
        row(),
        text("request_id", index=True),
        *map(text, ("expert", "source")),
        sa.Column("stage", sa.Integer, nullable=False),
        *map(text, ("method", "status")),
        figure("ttft_s", unknown=True),
        figure("seconds"),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        *map(figure, ("cpu_s", "cost_usd")),
        figure("share", unknown=True),
        figure("probability", unknown=True),
        sa.Column("error", sa.Text),
    )
    outcome = (row(), text("request_id", index=True), text("expert"), figure("correct", unknown=True))
    sa.Table("outcomes", tables, *outcome, text("status"), text("at_utc"))
    return tables


def _tune(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")  # with a WAL, a power cut loses the last rows at most


def _prepare(engine: "sa.Engine", tables: "sa.MetaData", file: Path, busy_s: float) -> None:
    """Makes the tables in a new file; checks the version of an old one. Safe when several processes do."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        _begin_wal(connection, busy_s)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = sa.inspect(connection).get_table_names()
        if not found:
            tables.create_all(connection)
            connection.execute(tables.tables["schema"].insert(), {"version": SCHEMA})
        elif not set(tables.tables) <= set(found):
            raise LedgerError(f"{file} is another program's database: move it away, {_ELSEWHERE}.")
        version = connection.execute(sa.select(tables.tables["schema"].c.version)).scalar_one_or_none()
        connection.commit()
    if not isinstance(version, int) or version < 1:
        raise LedgerError(f"The ledger {file} is damaged (no schema version): move it away, {_ELSEWHERE}.")
    if version > SCHEMA:
        raise LedgerError(
            f"The ledger {file} has schema {version}, newer than {SCHEMA}, the latest known here: "
            f"install the newer manyminds, {_ELSEWHERE}."
        )


def _begin_wal(connection: "sa.Connection", busy_s: float) -> None:
    """Readers then never wait for a writer. SQLite does not queue for this one switch, so we do."""
    from sqlalchemy.exc import OperationalError

    end = time.monotonic() + busy_s
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _explaining(file: Path) -> Iterator[None]:
    """Turns what SQLite and the system say into a LedgerError. Never quotes a statement or its values."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        advice = _ADVICE.get(code, "{file} failed ({cause})").format(file=file, cause=error.orig)
        raise LedgerError(f"The ledger {advice}, {_ELSEWHERE}.") from None
    except SQLAlchemyError as error:
        raise LedgerError(f"The ledger {file} failed ({type(error).__name__}), {_ELSEWHERE}.") from None
    except (OverflowError, UnicodeError) as error:  # a count above 63 bits, a name that UTF-8 has no form of
        raise LedgerError(f"The ledger {file} cannot hold a value: {type(error).__name__}.") from None
    except OSError as error:
        raise LedgerError(
            f"The ledger {file} cannot be opened: {error.strerror}. Mend that, {_ELSEWHERE}."
        ) from error


# --- rows ------------------------------------------------------------------------------------------


def _calls(report: Report, answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
    """A row for each answer, with the share, probability and cost that its line of the panel showed."""
    lines: dict[tuple[str, int, str], list[PanelEntry]] = {}
    for entry in report.panel:
        lines.setdefault((entry.expert, entry.stage, entry.method), []).append(entry)
    for answer in answers:
        same = lines.get((answer.expert, answer.stage, answer.method))
        line = same.pop(0) if same else None
        yield {
            "request_id": report.request_id,
            "expert": answer.expert,
            "source": answer.source,
            "stage": answer.stage,
            "method": answer.method,
            "status": answer.status,
            "ttft_s": answer.ttft_s,
            "seconds": answer.seconds,
            "prompt_tokens": answer.usage.prompt_tokens,
            "completion_tokens": answer.usage.completion_tokens,
            "cpu_s": answer.usage.cpu_s,
            "cost_usd": line.cost_usd if line else answer.usage.cost_usd,
            "share": line.weight if line else None,
            "probability": line.correct_probability if line else None,
            "error": type(answer.error).__name__ if answer.error else None,
        }


def _clean(text: str) -> str:
    """Lone surrogates, which JSON may carry and UTF-8 may not, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
