"""Receipts of answers that went between this node and others, and what is owed by them.

Knows no signature: a receipt was checked before it comes here.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

from manyminds.ledger.database import Database
from manyminds.ledger.tables import stamp
from manyminds.ledger.trouble import explain, is_passing

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Kept", "Role", "owed", "receipts", "write"]

Role: TypeAlias = Literal["asked", "answered"]
"""What this node did: it asked and owes the price, or it answered and is owed it."""


log = logging.getLogger(__name__)


class Kept(Struct, frozen=True):
    """A receipt with what it is found by: `peer` is the other node's id; `at_s` is seconds since 1970."""

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


def write(database: Database, batch: Sequence[Kept]) -> int:
    """Makes them durable; one that is there already is replaced where this one is countersigned. Returns how
    many no column could hold.

    Raises: LedgerError when the database is away; the batch may be written again.
    """
    try:
        with database.engine.begin() as connection:
            for kept in batch:
                _write(database, connection, kept)
    except Exception as error:
        if is_passing(error):
            raise explain(error, database.where) or error from None
        if len(batch) == 1:
            log.error("A receipt was not kept. %s", explain(error, database.where) or error)
            return 1
        return sum(write(database, [kept]) for kept in batch)
    return 0


def _write(database: Database, connection: "sa.Connection", kept: Kept) -> None:
    import sqlalchemy as sa

    table = database.tables.receipts
    row = {
        "ask": kept.ask,
        "role": kept.role,
        "peer": kept.peer,
        "request_id": kept.request_id,
        "at_utc": stamp(datetime.fromtimestamp(kept.at_s, UTC)),
        "prompt_tokens": kept.prompt_tokens,
        "completion_tokens": kept.completion_tokens,
        "price_nusd": round(kept.price_usd * 1e9),
        "countersigned": int(kept.countersigned),
        "document": kept.document,
    }
    new = connection.execute(database.insert(table).values(**row)).rowcount
    if not new and kept.countersigned:
        same = ("ask", "role", "peer", "at_utc", "prompt_tokens", "completion_tokens", "price_nusd")
        mine = sa.and_(*(table.c[name] == row[name] for name in same))
        better = {"countersigned": 1, "document": kept.document}
        connection.execute(sa.update(table).where(mine).values(**better))


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
    """Sums by peer and role: answers, prompt_tokens, completion_tokens, price_usd, and of these how many
    answers and how much both sides signed.
    """
    import sqlalchemy as sa

    table = database.tables.receipts
    both = table.c.countersigned == 1
    sums = sa.select(
        table.c.peer,
        table.c.role,
        sa.func.count().label("answers"),
        *(sa.func.sum(table.c[name]).label(name) for name in ("prompt_tokens", "completion_tokens")),
        sa.func.sum(table.c.price_nusd).label("price_nusd"),
        sa.func.sum(table.c.countersigned).label("countersigned"),
        sa.func.sum(sa.case((both, table.c.price_nusd), else_=0)).label("countersigned_nusd"),
    )
    sums = sums.where(*_conditions(table, None, since, until)).group_by(table.c.peer, table.c.role)
    with database.read() as connection:
        rows = connection.execute(sums.order_by(table.c.peer, table.c.role)).mappings().all()
    return [
        {
            "peer": row["peer"],
            "role": row["role"],
            "answers": row["answers"],
            "prompt_tokens": int(row["prompt_tokens"]),
            "completion_tokens": int(row["completion_tokens"]),
            "price_usd": int(row["price_nusd"]) / 1e9,
            "countersigned": int(row["countersigned"]),
            "countersigned_usd": int(row["countersigned_nusd"]) / 1e9,
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
