"""Receipts of answers that went between this node and others, and what is owed by them.

Knows no signature: a receipt was checked before it comes here.
"""

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from manyminds.ledger.database import Database
from manyminds.ledger.tables import stamp
from manyminds.ledger.trouble import explain, is_passing

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Kept", "Receipts", "Role", "owed", "receipts"]

Role: TypeAlias = Literal["asked", "answered"]
"""What this node did: it asked and owes the price, or it answered and is owed it."""

_NATS: Final = ("granted_nats", "settled_nats")

log = logging.getLogger(__name__)


class Kept(Struct, frozen=True):
    """A receipt with what it is found by: `peer` is the other node's id; `at_s` is seconds since 1970.

    `granted_nats` is how far the answer might move the whole, by its owner's budget, and `settled_nats` how
    far it did; None where that is not counted, and where nobody said. `max_share` is None where that is all.
    """

    ask: str
    role: Role
    peer: str
    request_id: str
    at_s: float
    prompt_tokens: int
    completion_tokens: int
    price_usd: float
    countersigned: bool
    document: str
    purpose: str = ""
    max_share: float | None = None
    granted_nats: float | None = None
    settled_nats: float | None = None


class Receipts:
    """Writes receipts to a database, each once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statement = _upsert(database)

    def write(self, batch: Sequence[Kept]) -> int:
        """Makes them durable; one that is there already is replaced where this one is countersigned. Returns
        how many no column could hold.

        Raises: LedgerError when the database is away; the batch may be written again.
        """
        try:
            rows = [_row(kept) for kept in _latest(batch)]
            with self._database.engine.begin() as connection:
                connection.exec_driver_sql(self._statement, rows)  # past the compiler: half the time
        except Exception as error:
            if is_passing(error):
                raise explain(error, self._database.where) or error from None
            if len(batch) == 1:
                log.error("A receipt was not kept. %s", explain(error, self._database.where) or error)
                return 1
            return sum(self.write([kept]) for kept in batch)
        return 0


def _upsert(database: Database) -> str:
    """Inserts one; where the same is there already, takes only what who asked added to it."""
    import sqlalchemy as sa

    table, new = database.tables.receipts, database.insert_or(database.tables.receipts)
    there = new.excluded
    same = (table.c[name] == there[name] for name in ("prompt_tokens", "completion_tokens", "price_nusd"))
    statement = new.on_conflict_do_update(
        index_elements=["ask", "role", "peer", "at_utc"],
        set_={
            "countersigned": there.countersigned,
            "document": there.document,
            "settled_nats": sa.func.coalesce(there.settled_nats, table.c.settled_nats),
        },
        where=sa.and_(there.countersigned == sa.literal_column("1"), *same),
    )
    return database.compiled(statement)


def _latest(batch: Sequence[Kept]) -> Collection[Kept]:
    """Without those whose countersigned ones are there, too: most of these come within milliseconds."""
    latest: dict[tuple[object, ...], Kept] = {}
    for kept in batch:
        charged = (kept.prompt_tokens, kept.completion_tokens, kept.price_usd)
        same = (kept.ask, kept.role, kept.peer, kept.at_s, *charged)
        if kept.settled_nats is None and same in latest:
            kept = replace(kept, settled_nats=latest[same].settled_nats)
        if kept.countersigned or same not in latest:
            latest[same] = kept
    return latest.values()


def _row(kept: Kept) -> tuple[str | float | None, ...]:
    return (
        *(kept.ask, kept.role, kept.peer, kept.request_id),
        stamp(datetime.fromtimestamp(kept.at_s, UTC)),
        *(kept.prompt_tokens, kept.completion_tokens, round(kept.price_usd * 1e9), int(kept.countersigned)),
        *(kept.document, kept.purpose, kept.max_share, kept.granted_nats, kept.settled_nats),
    )


def receipts(
    database: Database,
    limit: int,
    *,
    peer: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    request_id: str | None = None,
) -> list[dict[str, Any]]:
    """The latest receipts, newest first: since <= at < until."""
    import sqlalchemy as sa

    table = database.tables.receipts
    chosen = sa.select(*(c for c in table.columns if c.name != "id"))
    chosen = chosen.where(*_conditions(table, peer, since, until))
    if request_id is not None:
        chosen = chosen.where(table.c.request_id == request_id)
    with database.read() as connection:
        rows = connection.execute(chosen.order_by(table.c.at_utc.desc(), table.c.id.desc()).limit(limit))
        return [dict(row) for row in rows.mappings()]


def owed(
    database: Database, *, since: datetime | None = None, until: datetime | None = None
) -> list[dict[str, Any]]:
    """Sums by peer, role and purpose: answers, prompt_tokens, completion_tokens, price_usd, and of these how
    many answers and how much both sides signed; granted_nats, and of these settled_nats, where what nobody
    settled counts as granted.
    """
    import sqlalchemy as sa

    table = database.tables.receipts
    both = table.c.countersigned == 1
    purpose = sa.func.coalesce(table.c.purpose, sa.literal_column("''")).label("purpose")
    nats = (table.c.granted_nats, sa.func.coalesce(table.c.settled_nats, table.c.granted_nats))
    sums = sa.select(
        table.c.peer,
        table.c.role,
        purpose,
        sa.func.count().label("answers"),
        *(sa.func.sum(table.c[name]).label(name) for name in ("prompt_tokens", "completion_tokens")),
        sa.func.sum(table.c.price_nusd).label("price_nusd"),
        sa.func.sum(table.c.countersigned).label("countersigned"),
        sa.func.sum(sa.case((both, table.c.price_nusd), else_=0)).label("countersigned_nusd"),
        *(
            sa.func.coalesce(sa.func.sum(found), 0.0).label(name)
            for found, name in zip(nats, _NATS, strict=True)
        ),
    )
    sums = sums.where(*_conditions(table, None, since, until))
    sums = sums.group_by(table.c.peer, table.c.role, purpose).order_by(table.c.peer, table.c.role, purpose)
    with database.read() as connection:
        rows = connection.execute(sums).mappings().all()
    return [
        {
            "peer": row["peer"],
            "role": row["role"],
            "purpose": row["purpose"],
            "answers": row["answers"],
            "prompt_tokens": int(row["prompt_tokens"]),
            "completion_tokens": int(row["completion_tokens"]),
            "price_usd": int(row["price_nusd"]) / 1e9,
            "countersigned": int(row["countersigned"]),
            "countersigned_usd": int(row["countersigned_nusd"]) / 1e9,
            **{name: float(row[name]) for name in _NATS},
        }
        for row in rows
    ]


def _conditions(
    table: "sa.Table", peer: str | None, since: datetime | None, until: datetime | None
) -> "list[sa.ColumnElement[bool]]":
    conditions = []
    if peer is not None:
        conditions.append(table.c.peer == peer)
    if since is not None:
        conditions.append(table.c.at_utc >= stamp(since))
    if until is not None:
        conditions.append(table.c.at_utc < stamp(until))
    return conditions
