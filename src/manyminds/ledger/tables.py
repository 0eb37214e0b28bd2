"""The tables of the ledger, and the way from each older schema to this one.

Knows no URL and no request. A time is text in UTC of fixed width, such as 2026-11-22T07:25:32.123+00:00:
it sorts as it reads, on every database, and its first ten characters are the day. A count of
nano-dollars (`_nusd`), or of billionths of a dollar or of a nat (`_units`), is a whole number; every other
amount is a double.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["SCHEMA", "Tables", "define", "migrate", "stamp"]

SCHEMA: Final = 6
"""Version of the tables. A ledger with a higher one is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Everything that is kept. The first four and `feedback` go by time; the others stay."""

    metadata: "sa.MetaData"
    requests: "sa.Table"
    calls: "sa.Table"  # of a request, numbered as its panel was
    attributions: "sa.Table"  # of a request: what it owes to each source, and how far that might move it
    outcomes: "sa.Table"  # whether a call was right, as it became known: the log that is learnt from
    feedback: "sa.Table"  # what the caller said of the whole answer, once
    keys: "sa.Table"
    budgets: "sa.Table"  # billionths leased so far, of a key or a source in a period
    receipts: "sa.Table"  # of answers that went between this node and another
    withdrawals: "sa.Table"  # who is not to be asked any more, and what became of what was learnt
    schema: "sa.Table"


def define() -> Tables:
    """The tables as they are now, bound to no database."""
    import sqlalchemy as sa

    every = sa.MetaData()
    # In the order of their bytes: a database's own order of text costs more and may differ.
    time = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    row = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # what SQLite numbers by itself

    def part(name: str, *columns: "sa.Column[Any]") -> "sa.Table":
        """Rows that belong to a request. SQLite keeps them in the order of the key: no index beside it."""
        of = (_text("request_id", primary_key=True), _count("number", primary_key=True))
        return sa.Table(name, every, *of, *columns, sqlite_with_rowid=False)

    return Tables(
        metadata=every,
        schema=sa.Table("schema", every, sa.Column("version", sa.Integer, nullable=False)),
        requests=sa.Table(
            "requests",
            every,
            sa.Column("id", row, primary_key=True),
            _text("request_id", unique=True),
            sa.Column("at_utc", time, nullable=False, index=True),
            *map(_text, ("key", "policy", "strategy", "status")),
            *map(_figure, ("seconds", "cost_usd", "saved_usd")),
            *(_figure(name, nullable=True) for name in ("probability", "agreement")),
            *(_text(name, nullable=True) for name in ("section", "gateway", "purpose", "question", "answer")),
        ),
        calls=part(
            "calls",
            *map(_text, ("expert", "source")),
            _count("stage"),
            *map(_text, ("method", "status")),
            _figure("ttft_s", nullable=True),
            _figure("seconds"),
            *map(_count, ("prompt_tokens", "completion_tokens")),
            *map(_figure, ("cpu_s", "cost_usd")),
            *(_figure(name, nullable=True) for name in ("share", "probability", "prior", "claimed_usd")),
            *(_text(name, nullable=True) for name in ("basis", "error")),
        ),
        attributions=part(
            "attributions",
            _text("source"),
            *map(_figure, ("nats", "share")),
            _count("estimated"),  # 0 or 1
            _figure("granted_nats", nullable=True),
        ),
        outcomes=_outcomes(every, row, time),
        feedback=sa.Table(
            "feedback",
            every,
            _text("request_id", primary_key=True),
            _text("key"),
            _figure("correct"),
            sa.Column("at_utc", time, nullable=False),
        ),
        keys=sa.Table(
            "keys",
            every,
            _text("id", primary_key=True),
            sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
            *map(_text, ("name", "models")),  # models: a JSON array
            *(_count(name, nullable=True) for name in ("requests_per_min", "tokens_per_min")),
            _figure("budget_usd", nullable=True),
            _text("period"),
            sa.Column("created_utc", time, nullable=False),
            sa.Column("revoked_utc", time),
            _count("admin"),  # 0 or 1
        ),
        budgets=sa.Table(
            "budgets",
            every,
            *(_text(name, primary_key=True) for name in ("key", "period")),
            _count("leased_units"),
        ),
        receipts=_receipts(every, row, time),
        withdrawals=_withdrawals(every, row, time),
    )


def _receipts(
    every: "sa.MetaData", row: "sa.types.TypeEngine[int]", time: "sa.types.TypeEngine[str]"
) -> "sa.Table":
    import sqlalchemy as sa

    return sa.Table(
        "receipts",
        every,
        sa.Column("id", row, primary_key=True),
        *map(_text, ("ask", "role", "peer", "request_id")),
        sa.Column("at_utc", time, nullable=False, index=True),
        *map(_count, ("prompt_tokens", "completion_tokens", "price_nusd", "countersigned")),
        _text("document"),  # all of it, signed
        _text("purpose", nullable=True),
        *(_figure(name, nullable=True) for name in ("max_share", "granted_nats", "settled_nats")),
        sa.UniqueConstraint("ask", "role", "peer", "at_utc"),  # who asks chooses what an ask is called
        sa.Index("ix_receipts_peer", "peer", "at_utc"),
    )


def _outcomes(
    every: "sa.MetaData", row: "sa.types.TypeEngine[int]", time: "sa.types.TypeEngine[str]"
) -> "sa.Table":
    import sqlalchemy as sa

    return sa.Table(
        "outcomes",
        every,
        sa.Column("id", row, primary_key=True),  # the order of the log, in which none comes twice
        _text("request_id"),
        _count("number"),
        _text("expert"),
        *map(_figure, ("correct", "weight")),
        _figure("prior", nullable=True),
        _text("basis", nullable=True),
        _text("voters"),  # a JSON array where their votes said so, else empty
        sa.Column("at_utc", time, nullable=False, index=True),
        sa.UniqueConstraint("request_id", "number", "voters"),
        sa.Index("ix_outcomes_expert", "expert", "id"),
        sqlite_autoincrement=True,
    )


def _withdrawals(
    every: "sa.MetaData", row: "sa.types.TypeEngine[int]", time: "sa.types.TypeEngine[str]"
) -> "sa.Table":
    import sqlalchemy as sa

    return sa.Table(
        "withdrawals",
        every,
        sa.Column("id", row, primary_key=True),  # the order in which they count
        _text("event"),  # withdrawn, dropped, relearnt, returned; paused, resumed
        sa.Column("at_utc", time, nullable=False),
        *map(_text, ("expert", "source")),  # expert: "" is all of the source
        _text("names"),  # a JSON array: what outcomes call it
        *map(_text, ("who", "document")),  # document: what a node signed, else ""
        *map(_count, ("last_request", "last_outcome")),  # how far the logs went
        *map(_count, ("requests", "outcomes", "answers")),  # in which it had a part
        *map(_text, ("artefact_before", "artefact_after", "state")),  # SHA-256, else ""
        sqlite_autoincrement=True,
    )


def migrate(connection: "sa.Connection", tables: Tables, version: int) -> None:
    """Takes the tables from `version` to SCHEMA, within the caller's transaction."""
    import sqlalchemy as sa

    _rename_budgets(connection)
    _mark_admins(connection)
    if version == 1:
        _from_1(connection, tables)
    elif version == 2:
        _from_2(connection, tables)
    elif version < 5:
        connection.exec_driver_sql("ALTER TABLE requests ADD COLUMN purpose TEXT")
        if version == 4:
            _from_4(connection)
        tables.metadata.create_all(connection)  # schema 3 kept no receipts, 4 nothing of what answers owe
    connection.execute(sa.update(tables.schema).values(version=SCHEMA))


def stamp(at: datetime | None = None) -> str:
    """A time, by default now, as the tables hold it. One without a zone counts as UTC."""
    if at is None:
        second, nanoseconds = divmod(time.time_ns(), 10**9)
        return f"{_second(second)}.{nanoseconds // 10**6:03d}+00:00"
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _from_1(connection: "sa.Connection", tables: Tables) -> None:
    """Of outcomes, schema 1 kept those that nobody had graded too: they said what calls say."""
    for name in ("requests", "calls", "outcomes"):
        connection.exec_driver_sql(f"DROP INDEX ix_{name}_request_id")
        connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {name}_1")
    tables.metadata.create_all(connection)
    request = (
        "request_id, at_utc, policy, strategy, status, seconds, cost_usd, saved_usd, probability, agreement"
    )
    connection.exec_driver_sql(
        f"INSERT INTO requests (id, key, {request}, question, answer)"  # noqa: S608
        f" SELECT id, '', {request}, question, answer FROM requests_1 WHERE true ON CONFLICT DO NOTHING"
    )
    call = (
        "expert, source, stage, method, status, ttft_s, seconds, prompt_tokens, completion_tokens,"
        " cpu_s, cost_usd, share, probability, error"
    )
    number = "row_number() OVER (PARTITION BY request_id ORDER BY id) - 1"
    connection.exec_driver_sql(
        f"INSERT INTO calls (request_id, number, {call})"  # noqa: S608
        f" SELECT request_id, {number}, {call} FROM calls_1"
    )
    connection.exec_driver_sql(
        "INSERT INTO outcomes (request_id, number, expert, correct, weight, voters, at_utc)"  # noqa: S608
        f" SELECT request_id, {number}, expert, correct, 1.0, '', at_utc FROM outcomes_1"
        " WHERE correct IS NOT NULL ORDER BY id"
    )
    for name in ("requests", "calls", "outcomes"):
        connection.exec_driver_sql(f"DROP TABLE {name}_1")


def _rename_budgets(connection: "sa.Connection") -> None:
    """Up to schema 4, there were only those of keys, in nano-dollars."""
    import sqlalchemy as sa

    found = sa.inspect(connection)
    if found.has_table("budgets") and "leased_nusd" in {c["name"] for c in found.get_columns("budgets")}:
        connection.exec_driver_sql("ALTER TABLE budgets RENAME COLUMN leased_nusd TO leased_units")


def _mark_admins(connection: "sa.Connection") -> None:
    """Up to schema 5, no key was an administrator's."""
    import sqlalchemy as sa

    found = sa.inspect(connection)
    if found.has_table("keys") and "admin" not in {c["name"] for c in found.get_columns("keys")}:
        connection.exec_driver_sql("ALTER TABLE keys ADD COLUMN admin BIGINT NOT NULL DEFAULT 0")


def _from_2(connection: "sa.Connection", tables: Tables) -> None:
    """Schema 2 kept no section, nothing of what was expected of a call, and outcomes in no order."""
    added = {
        "requests": ("section TEXT", "gateway TEXT", "purpose TEXT"),
        "calls": ("prior DOUBLE PRECISION", "claimed_usd DOUBLE PRECISION", "basis TEXT"),
    }
    for name, columns in added.items():
        for column in columns:
            connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {column}")
    connection.exec_driver_sql("ALTER TABLE outcomes RENAME TO outcomes_2")
    tables.metadata.create_all(connection)
    connection.exec_driver_sql(
        "INSERT INTO outcomes (request_id, number, expert, correct, weight, voters, at_utc)"
        " SELECT o.request_id, o.number, o.expert, o.correct, 1.0, '', r.at_utc FROM outcomes_2 AS o"
        " JOIN requests AS r ON r.request_id = o.request_id ORDER BY r.id, o.number"
    )
    connection.exec_driver_sql("DROP TABLE outcomes_2")


def _from_4(connection: "sa.Connection") -> None:
    """Schema 4 kept no terms of receipts."""
    figures = (f"{name} DOUBLE PRECISION" for name in ("max_share", "granted_nats", "settled_nats"))
    for column in ("purpose TEXT", *figures):
        connection.exec_driver_sql(f"ALTER TABLE receipts ADD COLUMN {column}")


def _text(
    name: str, *, nullable: bool = False, primary_key: bool = False, unique: bool = False
) -> "sa.Column[str]":
    import sqlalchemy as sa

    return sa.Column(name, sa.Text, nullable=nullable, primary_key=primary_key, unique=unique)


def _figure(name: str, *, nullable: bool = False) -> "sa.Column[float]":
    import sqlalchemy as sa

    return sa.Column(name, sa.Double, nullable=nullable)


def _count(name: str, *, nullable: bool = False, primary_key: bool = False) -> "sa.Column[int]":
    import sqlalchemy as sa

    return sa.Column(name, sa.BigInteger, nullable=nullable, primary_key=primary_key, autoincrement=False)
