"""What keys may still spend, in blocks that are durable before a cent of them is.

Amounts are whole nano-dollars (`_nusd`, a billionth of a US dollar): sums are exact, and 63 bits hold nine
billion dollars. A gateway leases a block, spends from it in memory, and leases the next; what it leased
counts as spent, so no crash and no race can pass a limit. A crash forfeits what was left of its block.
"""

from typing import TYPE_CHECKING

from manyminds.errors import LedgerError
from manyminds.ledger.database import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["accounts", "give_back", "lease", "leased"]


def lease(database: Database, key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
    """Takes up to `want_nusd`, as far as the limit allows. Returns how many nano-dollars were granted.

    Whoever gets an error has no block, although it may have been counted: that much is forfeited.
    """
    import sqlalchemy as sa

    if want_nusd <= 0:
        return 0
    budgets = database.tables.budgets
    mine = _of(budgets, key_id, period)
    new = database.insert(budgets).values(key=key_id, period=period, leased_nusd=0)
    with database.begin() as connection:
        connection.execute(new)  # SQLite locks here, PostgreSQL in the next line
        so_far: int = connection.execute(
            sa.select(budgets.c.leased_nusd).where(mine).with_for_update()
        ).scalar_one()
        granted = max(0, min(want_nusd, limit_nusd - so_far))
        if granted:
            connection.execute(sa.update(budgets).where(mine).values(leased_nusd=so_far + granted))
    return granted


def give_back(database: Database, key_id: str, period: str, nusd: int) -> None:
    """Returns the unspent part of a block, once. Never try again after an error: it may have been counted.

    Raises: LedgerError also for more than was leased.
    """
    import sqlalchemy as sa

    if nusd <= 0:
        return
    budgets = database.tables.budgets
    mine = sa.and_(_of(budgets, key_id, period), budgets.c.leased_nusd >= nusd)
    with database.begin() as connection:
        less = sa.update(budgets).where(mine).values(leased_nusd=budgets.c.leased_nusd - nusd)
        if connection.execute(less).rowcount == 0:
            raise LedgerError(f"Key {key_id} gave back more of its budget than it had leased in {period}.")


def leased(database: Database, key_id: str, period: str) -> int:
    """Nano-dollars that all gateways have leased and not given back."""
    import sqlalchemy as sa

    budgets = database.tables.budgets
    with database.read() as connection:
        found = connection.execute(sa.select(budgets.c.leased_nusd).where(_of(budgets, key_id, period)))
        return int(found.scalar_one_or_none() or 0)


def accounts(database: Database, prefix: str) -> dict[str, int]:
    """What was leased and not given back, in billionths, by the rest of each id behind `prefix`."""
    import sqlalchemy as sa

    budgets = database.tables.budgets
    total = sa.func.sum(budgets.c.leased_nusd)
    mine = budgets.c.key.startswith(prefix, autoescape=True)
    query = sa.select(budgets.c.key, total).where(mine).group_by(budgets.c.key).order_by(budgets.c.key)
    with database.read() as connection:
        return {key.removeprefix(prefix): int(amount) for key, amount in connection.execute(query)}


def _of(budgets: "sa.Table", key_id: str, period: str) -> "sa.ColumnElement[bool]":
    return (budgets.c.key == key_id) & (budgets.c.period == period)
