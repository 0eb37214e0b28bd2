"""What the ledger answers: single requests, sums over many, and what is too old to keep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from manyminds.ledger.database import Database
from manyminds.ledger.records import outcome_row
from manyminds.ledger.tables import Tables, stamp
from manyminds.types import Outcome

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Filter", "Grade", "Group", "Judge", "asked", "grade", "prune", "requests", "sources", "totals"]

Group: TypeAlias = Literal["key", "expert", "policy", "day"]
Grade: TypeAlias = Literal["learnt", "kept", "unknown", "twice"]
Judge: TypeAlias = Callable[[Mapping[str, Any], float], Sequence[Outcome]]
"""What a grade of a request, a row of `requests`, says of its calls."""

_BATCH = 500  # requests in one statement


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests; None is any. Times are half-open: since <= at < until."""

    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None
    expert: str | None = None  # asked, whatever came of it
    status: str | None = None
    request_id: str | None = None


def requests(database: Database, limit: int, which: Filter) -> list[dict[str, Any]]:
    """The latest of them, newest first, each with its `calls` as its panel had them."""
    import sqlalchemy as sa

    tables = database.tables
    table, calls = tables.requests, tables.calls
    shown = [column for column in table.columns if column.name != "gateway"]
    newest = sa.select(*shown).where(*_conditions(tables, which))
    newest = newest.order_by(table.c.at_utc.desc(), table.c.id.desc()).limit(limit)
    with database.read() as connection:
        found = {row["request_id"]: {**row, "calls": []} for row in connection.execute(newest).mappings()}
        names = list(found)
        for begin in range(0, len(names), _BATCH):
            of = sa.select(calls).where(calls.c.request_id.in_(names[begin : begin + _BATCH]))
            for call in connection.execute(of.order_by(calls.c.request_id, calls.c.number)).mappings():
                found[call["request_id"]]["calls"].append(
                    {name: value for name, value in call.items() if name not in ("request_id", "number")}
                )
    return list(found.values())


def totals(database: Database, by: Group, which: Filter) -> list[dict[str, Any]]:
    """Sums by group, in its order: requests, calls, cost_usd, prompt_tokens, completion_tokens.

    With an expert, alone or as the group, the sums are over its calls only. O(requests in the filter).
    """
    import sqlalchemy as sa

    tables = database.tables
    table, calls = tables.requests, tables.calls
    group = {
        "key": table.c.key,
        "expert": calls.c.expert,
        "policy": table.c.policy,
        "day": sa.func.substr(table.c.at_utc, *map(sa.literal_column, ("1", "10"))),
    }[by].label(by)
    mine = table.c.request_id == calls.c.request_id
    if which.expert is not None:
        mine &= calls.c.expert == which.expert
    whole = sa.func.coalesce
    sums = (
        sa.func.count(table.c.request_id.distinct()).label("requests"),
        sa.func.count(calls.c.request_id).label("calls"),
        whole(sa.func.sum(calls.c.cost_usd), 0.0).label("cost_usd"),
        *(  # PostgreSQL sums big integers to a decimal
            sa.cast(whole(sa.func.sum(calls.c[name]), 0), sa.BigInteger).label(name)
            for name in ("prompt_tokens", "completion_tokens")
        ),
    )
    joined = table.join(calls, mine, isouter=by != "expert")
    summed = sa.select(group, *sums).select_from(joined).where(*_conditions(tables, which)).group_by(group)
    with database.read() as connection:
        return [dict(row) for row in connection.execute(summed.order_by(group)).mappings()]


def sources(database: Database, which: Filter) -> list[dict[str, Any]]:
    """By source and purpose, in their order: answers it had a share in, sums of nats and of shares.

    `estimated` of those answers are measured roughly. O(requests in the filter).
    """
    import sqlalchemy as sa

    tables = database.tables
    table, owed = tables.requests, tables.attributions
    purpose = sa.func.coalesce(table.c.purpose, sa.literal_column("''")).label("purpose")
    sums = (
        sa.func.count().label("answers"),
        sa.func.sum(owed.c.nats).label("nats"),
        sa.func.sum(owed.c.share).label("shares"),
        sa.cast(sa.func.sum(owed.c.estimated), sa.BigInteger).label("estimated"),
    )
    joined = table.join(owed, table.c.request_id == owed.c.request_id)
    mine = (owed.c.share > 0, *_conditions(tables, which))
    summed = sa.select(owed.c.source, purpose, *sums).select_from(joined).where(*mine)
    with database.read() as connection:
        found = [dict(row) for row in connection.execute(summed.group_by(owed.c.source, purpose)).mappings()]
    return sorted(found, key=lambda row: (row["source"], row["purpose"]))


def asked(database: Database) -> list[tuple[str, str]]:
    """Every expert of a call, and its source, each pair once."""
    import sqlalchemy as sa

    calls = database.tables.calls
    pairs = sa.select(calls.c.expert, calls.c.source).distinct().order_by(calls.c.expert, calls.c.source)
    with database.read() as connection:
        return [(row.expert, row.source) for row in connection.execute(pairs)]


def grade(database: Database, request_id: str, key_id: str, correct: float, judge: Judge, most: int) -> Grade:
    """Keeps what the caller says of an answer: of its own request only, and once.

    What `judge` makes of that is kept in the same transaction, for the first `most` grades of the key within
    a day; "kept" where nothing was.
    """
    import sqlalchemy as sa

    tables, now = database.tables, stamp()
    feedback = tables.feedback
    found = requests(database, 1, Filter(key=key_id, request_id=request_id))
    if not found:
        return "unknown"
    outcomes = judge(found[0], correct)
    names = [column.name for column in tables.outcomes.columns if column.name != "id"]
    rows = [dict(zip(names, outcome_row(request_id, i, o, now), strict=True)) for i, o in enumerate(outcomes)]
    new = database.insert(feedback).values(request_id=request_id, key=key_id, correct=correct, at_utc=now)
    day = feedback.c.at_utc >= stamp(datetime.now(UTC) - timedelta(days=1))
    counted = sa.select(sa.func.count()).where(feedback.c.key == key_id, day)
    with database.begin() as connection:
        if not connection.execute(new).rowcount:
            return "twice"
        if not rows or connection.execute(counted).scalar_one() > most:
            return "kept"
        connection.execute(database.insert(tables.outcomes), rows)
        return "learnt"


def prune(database: Database, before: datetime) -> int:
    """Deletes older requests with all that belongs to them, some at a time. Returns how many there were."""
    import sqlalchemy as sa

    tables = database.tables
    table, deleted = tables.requests, 0
    old = sa.select(table.c.request_id).where(table.c.at_utc < stamp(before)).order_by(table.c.at_utc)
    while True:
        with database.read() as connection:
            names = list(connection.execute(old.limit(_BATCH)).scalars())
        if not names:
            return deleted
        with database.begin() as connection:
            for part in (tables.calls, tables.attributions, tables.outcomes, tables.feedback):
                connection.execute(sa.delete(part).where(part.c.request_id.in_(names)))
            deleted += connection.execute(sa.delete(table).where(table.c.request_id.in_(names))).rowcount


def _conditions(tables: Tables, which: Filter) -> "list[sa.ColumnElement[bool]]":
    import sqlalchemy as sa

    table, calls = tables.requests, tables.calls
    found: list[sa.ColumnElement[bool]] = []
    if which.since is not None:
        found.append(table.c.at_utc >= stamp(which.since))
    if which.until is not None:
        found.append(table.c.at_utc < stamp(which.until))
    if which.key is not None:
        found.append(table.c.key == which.key)
    if which.request_id is not None:
        found.append(table.c.request_id == which.request_id)
    if which.status is not None:
        found.append(table.c.status == which.status)
    if which.expert is not None:
        asked = sa.select(calls.c.request_id).where(calls.c.expert == which.expert)
        found.append(sa.exists(asked.where(calls.c.request_id == table.c.request_id).correlate(table)))
    return found
