"""One database, SQLite or PostgreSQL: opened, tuned, and brought to the present schema.

Knows no request. Every way in raises LedgerError, and that only.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from manyminds.errors import LedgerError
from manyminds.ledger.tables import SCHEMA, define, migrate
from manyminds.ledger.trouble import ELSEWHERE, explaining

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["Database"]

_FORMS: Final = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
_LOCK: Final = 0x6D_69_6E_64_73  # any number: whoever prepares the tables holds it


class Database:
    """Several processes and threads may use it at once. `where` names it in messages, without a password.

    Raises: LedgerError, from every method, with one sentence on what to do.
    """

    def __init__(self, url: str, busy_s: float) -> None:
        """Opens it; makes the tables where there are none, and migrates older ones.

        Args:
            url: `sqlite:///FILE`, made with its folder for its owner's eyes only, or `postgresql://...`.
            busy_s: how long to wait for another process that is writing, or for a connection; a server that
                says nothing for so long is given up, but not in a migration.
        """
        import sqlalchemy as sa

        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise LedgerError(f"ledger.url is no URL: write {_FORMS}.") from None
        self._is_file = parsed.get_backend_name() == "sqlite"
        self.where = parsed.set(query={}).render_as_string(hide_password=True)
        if self._is_file and parsed.database not in (None, "", ":memory:"):
            self.where = str(parsed.database)
        elif parsed.get_backend_name() != "postgresql":
            raise LedgerError(f"The ledger is {_FORMS}, not {self.where}.")
        self.tables = define()
        self.withdrawals: tuple[tuple[int | None, int], list[dict[str, Any]]] = (None, 0), []
        """As they were last read, and what tells whether there are more: they are looked at all the time."""
        with explaining(self.where):
            self.engine = _open_file(parsed, busy_s) if self._is_file else _open_server(parsed, busy_s)
            try:
                self._prepare(busy_s)
                if not self._is_file:
                    _limit_silence(self.engine, max(2.0, busy_s))
            except BaseException:
                self.engine.dispose()
                raise

    @contextmanager
    def begin(self) -> Iterator["sa.Connection"]:
        """A transaction: durable once the block has ended, even where the power fails; else undone.

        In SQLite it must begin with a write: only then is the lock taken before anything is read.
        """
        with explaining(self.where), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator["sa.Connection"]:
        """What is there, without a lock."""
        with explaining(self.where), self.engine.connect() as connection:
            yield connection

    def insert(self, table: "sa.Table") -> "sa.Insert":
        """An INSERT that passes over a row that is there already: `rowcount` counts the new ones."""
        new = self.insert_or(table).on_conflict_do_nothing()
        return new.inline().execution_options(preserve_rowcount=True)

    def insert_or(self, table: "sa.Table") -> "sqlite.Insert | postgresql.Insert":
        """An INSERT that is to say what becomes of a row that is there already."""
        if self._is_file:
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql  # 30 ms, which a laptop is spared

        return postgresql.insert(table)

    def compiled(self, insert: "sa.Insert") -> str:
        """As the driver takes it, with a tuple for each row: all columns in their order, without `id`."""
        names = [column.name for column in insert.table.columns if column.name != "id"]
        return str(insert.inline().compile(dialect=self.engine.dialect, column_keys=names))

    def close(self) -> None:
        """Lets go of the file, or of the server. Closing twice does no harm."""
        self.engine.dispose()

    def _prepare(self, busy_s: float) -> None:
        """Makes or migrates the tables, in one transaction. Safe when several processes do."""
        import sqlalchemy as sa

        with self.engine.connect() as connection:
            if self._is_file:
                _begin_wal(connection, busy_s)
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            found = set(sa.inspect(connection).get_table_names())
            if not found:
                self.tables.metadata.create_all(connection)
                connection.execute(sa.insert(self.tables.schema).values(version=SCHEMA))
            elif not {"schema", "requests", "calls"} <= found:
                raise LedgerError(
                    f"{self.where} is another program's database: give the ledger its own, {ELSEWHERE}."
                )
            row = connection.execute(sa.select(self.tables.schema.c.version)).scalar_one_or_none()
            version = self._checked(row)
            if version != SCHEMA:
                migrate(connection, self.tables, version)
            connection.commit()

    def _checked(self, version: Any) -> int:
        if not isinstance(version, int) or version < 1:
            raise LedgerError(
                f"The ledger {self.where} is damaged (no schema version): move it away, {ELSEWHERE}."
            )
        if version > SCHEMA:
            raise LedgerError(
                f"The ledger {self.where} has schema {version}, newer than {SCHEMA}, the latest known here: "
                f"install the newer manyminds, {ELSEWHERE}."
            )
        return version


def _open_file(url: "sa.URL", busy_s: float) -> "sa.Engine":
    import sqlalchemy as sa

    file = Path(str(url.database))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    # IMMEDIATE: a write takes its lock at its start, where waiting for it cannot deadlock.
    arguments = {"timeout": busy_s, "isolation_level": "IMMEDIATE"}
    engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True)

    def tune(connection: Any, _record: object) -> None:
        # A commit is on the disk. One in `window_s` is cheap, and a budget must outlive a power cut.
        connection.execute("PRAGMA synchronous = FULL")

    sa.event.listen(engine, "connect", tune)
    return engine


def _open_server(url: "sa.URL", busy_s: float) -> "sa.Engine":
    import sqlalchemy as sa

    # A server that has gone without a word is noticed; what the URL itself says stands.
    arguments = {
        "connect_timeout": max(2, round(busy_s)),
        "tcp_user_timeout": max(2, round(busy_s)) * 1000,
        "keepalives_idle": 10,
        "client_encoding": "utf8",  # else a database without an encoding answers in bytes
    }
    try:
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            # No statements prepared: a pooler in between may hand each transaction to another connection.
            connect_args={k: v for k, v in arguments.items() if k not in url.query}
            | {"prepare_threshold": None},
            paramstyle="format",
            pool_pre_ping=True,
            pool_timeout=busy_s,
            hide_parameters=True,
        )
    except ImportError:
        raise LedgerError(
            f"PostgreSQL needs a driver: pip install 'manyminds[postgres]', {ELSEWHERE}."
        ) from None


def _limit_silence(engine: "sa.Engine", limit_s: float) -> None:
    """From now on. libpq waits for ever: its own limits are for connecting, and for hosts that are gone."""
    import psycopg
    import sqlalchemy as sa

    class Limited(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, Any], *more: Any, **named: Any) -> Any:
            return super().wait(self._heard(gen), *more, **named)

        def _heard(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            """The same, told now and then that nothing has come."""
            last_s = time.monotonic()
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready:
                        last_s = time.monotonic()
                    elif time.monotonic() - last_s > limit_s:
                        self.close()
                        raise psycopg.OperationalError(f"no word from it for {limit_s:g} s")
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

    engine.dispose()
    sa.event.listen(engine, "do_connect", lambda _, __, args, named: Limited.connect(*args, **named))


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
