"""What budgets still hold, of keys and of sources, in blocks that are durable before any of them is spent.

Amounts are whole `units`, billionths of a US dollar or of a nat: sums are exact, and 63 bits hold nine
billion of either. A gateway leases a block, spends from it in memory, and leases the next; what it leased
counts as spent, so no crash and no race can pass a limit. A crash forfeits what was left of its block.
"""

from typing import TYPE_CHECKING

from manyminds.errors import LedgerError
from manyminds.ledger.database import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["accounts", "give_back", "lease", "leased"]


def lease(database: Database, budget_id: str, period: str, want: int, limit: int) -> int:
    """Takes up to `want`, as far as the limit allows. Returns how many units were granted.

    Whoever gets an error has no block, although it may have been counted: that much is forfeited.
    """
    import sqlalchemy as sa

    if want <= 0:
        return 0
    budgets = database.tables.budgets
    mine = _of(budgets, budget_id, period)
    new = database.insert(budgets).values(key=budget_id, period=period, leased_units=0)
    with database.begin() as connection:
        connection.execute(new)  # SQLite locks here, PostgreSQL in the next line
        so_far: int = connection.execute(
            sa.select(budgets.c.leased_units).where(mine).with_for_update()
        ).scalar_one()
        granted = max(0, min(want, limit - so_far))
        if granted:
            connection.execute(sa.update(budgets).where(mine).values(leased_units=so_far + granted))
    return granted


def give_back(database: Database, budget_id: str, period: str, units: int) -> None:
    """Returns the unspent part of a block, once. Never try again after an error: it may have been counted.

    Raises: LedgerError also for more than was leased.
    """
    import sqlalchemy as sa

    if units <= 0:
        return
    budgets = database.tables.budgets
    mine = sa.and_(_of(budgets, budget_id, period), budgets.c.leased_units >= units)
    with database.begin() as connection:
        less = sa.update(budgets).where(mine).values(leased_units=budgets.c.leased_units - units)
        if connection.execute(less).rowcount == 0:
            raise LedgerError(f"{budget_id} gave back more of its budget than it had leased in {period}.")


def leased(database: Database, budget_id: str, period: str) -> int:
    """Units that all gateways have leased and not given back."""
    import sqlalchemy as sa

    budgets = database.tables.budgets
    with database.read() as connection:
        found = connection.execute(sa.select(budgets.c.leased_units).where(_of(budgets, budget_id, period)))
        return int(found.scalar_one_or_none() or 0)


def accounts(database: Database, prefix: str) -> dict[str, int]:
    """What was leased and not given back, in billionths, by the rest of each id behind `prefix`."""
    import sqlalchemy as sa

    budgets = database.tables.budgets
    total = sa.func.sum(budgets.c.leased_units)
    mine = budgets.c.key.startswith(prefix, autoescape=True)
    query = sa.select(budgets.c.key, total).where(mine).group_by(budgets.c.key).order_by(budgets.c.key)
    with database.read() as connection:
        return {key.removeprefix(prefix): int(amount) for key, amount in connection.execute(query)}


def _of(budgets: "sa.Table", budget_id: str, period: str) -> "sa.ColumnElement[bool]":
    return (budgets.c.key == budget_id) & (budgets.c.period == period)
