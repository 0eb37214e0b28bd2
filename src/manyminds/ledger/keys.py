"""Virtual keys: whom they belong to and what they allow. Of a key itself only its sha256 is kept."""

import json
from typing import TYPE_CHECKING, Any

from manyminds.errors import LedgerError
from manyminds.ledger.database import Database
from manyminds.ledger.tables import stamp
from manyminds.types import Key

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["add", "revoke", "update", "valid"]


def add(database: Database, key: Key, digest: bytes) -> None:
    """Raises: LedgerError also when the id or the digest is taken, by a revoked key too."""
    keys = database.tables.keys
    new = database.insert(keys).values(id=key.id, digest=digest, created_utc=stamp(), **_values(key))
    with database.begin() as connection:
        if connection.execute(new).rowcount == 0:
            raise LedgerError(f"There is a key {key.id} already, or one with the same secret: make another.")


def valid(database: Database) -> dict[bytes, Key]:
    """Every key that is not revoked, by its digest."""
    import sqlalchemy as sa

    keys = database.tables.keys
    with database.read() as connection:
        found = connection.execute(sa.select(keys).where(keys.c.revoked_utc.is_(None)).order_by(keys.c.id))
        return {bytes(row.digest): _key(row) for row in found}


def update(database: Database, key: Key) -> bool:
    """Changes what the key of that id allows. False where there is none, or it is revoked."""
    return _change(database, key.id, _values(key))


def revoke(database: Database, key_id: str) -> bool:
    """Ends a key for ever; what it spent stays. False where there is none, or it is revoked already."""
    return _change(database, key_id, {"revoked_utc": stamp()})


def _change(database: Database, key_id: str, values: dict[str, Any]) -> bool:
    import sqlalchemy as sa

    keys = database.tables.keys
    there = (keys.c.id == key_id) & keys.c.revoked_utc.is_(None)
    with database.begin() as connection:
        return connection.execute(sa.update(keys).where(there).values(**values)).rowcount == 1


def _values(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "models": json.dumps(key.models),
        "requests_per_min": key.requests_per_min,
        "tokens_per_min": key.tokens_per_min,
        "budget_usd": key.budget_usd,
        "period": key.period,
        "admin": int(key.admin),
    }


def _key(row: "sa.Row[Any]") -> Key:
    return Key(
        row.id,
        row.name,
        tuple(json.loads(row.models)),
        row.requests_per_min,
        row.tokens_per_min,
        row.budget_usd,
        row.period,
        bool(row.admin),
    )
