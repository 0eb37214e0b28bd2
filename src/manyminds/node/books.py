"""What the ledger holds, as an owner reads it: what is owed to whom, and what is left of which budget.

Rows of the ledger in, rows of text and numbers out. Knows neither terminal nor page.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from manyminds.admission import SOURCE, Budget, period_of
from manyminds.config import Config
from manyminds.ledger import Ledger
from manyminds.node.accounts import ACCOUNTS

__all__ = ["budgeted", "limits_of", "owed", "priced", "settled", "told"]

_SUMMED: Final = {
    "answers": "answers",
    "usd": "price_usd",
    "granted_nats": "granted_nats",
    "settled_nats": "settled_nats",
}
"""What is shown of each side, by what the ledger calls it."""


# --- keys ------------------------------------------------------------------------------------------


def budgeted(ledger: Ledger) -> list[dict[str, Any]]:
    """Every valid key that has a budget, and what is leased of it in this period. Raises: LedgerError.

    A running node has up to a hundredth of a budget in hand; it counts as spent.
    """
    now = datetime.now(UTC)
    return [
        {
            "key": key.id,
            "name": key.name,
            "period": key.period,
            "limit_usd": key.budget_usd,
            "spent_usd": ledger.leased(key.id, period_of(key, now)) / 1e9,
        }
        for key in sorted(ledger.keys().values(), key=lambda key: key.id)
        if key.budget_usd is not None
    ]


# --- sources ---------------------------------------------------------------------------------------


def limits_of(config: Config) -> dict[str, Budget]:
    """The budgets of this node's own sources, by source."""
    return {
        source: Budget(SOURCE + source, source, entry.budget_nats, entry.period, "nats")
        for entry in config.experts
        for source in [entry.source or entry.name]
        if entry.budget_nats is not None
    }


def owed(
    rows: Sequence[Mapping[str, Any]], budgets: Mapping[str, Budget], leased: Callable[[str, str], int]
) -> list[dict[str, Any]]:
    """A row for each source, of those by source and purpose; who has a budget and no answer yet too.

    A running node has up to a hundredth of a budget in hand; it counts as set aside.
    """
    found: list[dict[str, Any]] = []
    for source in sorted({row["source"] for row in rows} | budgets.keys()):
        uses = [{k: v for k, v in row.items() if k != "source"} for row in rows if row["source"] == source]
        sums = {name: sum(use[name] for use in uses) for name in ("answers", "nats", "shares", "estimated")}
        budget, spent = budgets.get(source), None
        if budget is not None:
            spent = leased(budget.id, period_of(budget, datetime.now(UTC))) / 1e9
        found.append(
            {
                "source": source,
                **sums,
                "budget_nats": budget.limit if budget is not None else None,
                "period": budget.period if budget is not None else None,
                "budget_spent_nats": spent,
                "purposes": uses,
            }
        )
    return found


def told(ledger: Ledger, config: Config) -> list[dict[str, Any]]:
    """What private answers have told of each source so far, and the most that they may.

    A running node has up to a hundredth of a source's whole account in hand; it counts as spent. Raises:
    LedgerError; ConfigError where dp-accounting is not installed.
    """
    from manyminds.privacy.accounting import epsilon_of, most_rho

    private, names = config.private, {entry.id: entry.name for entry in config.peers}
    rows: list[dict[str, Any]] = []
    for account, billionths in ledger.accounts(ACCOUNTS).items():
        terms = [entry for entry in config.experts if entry.source == account]
        delta = min((entry.delta or private.delta for entry in terms), default=private.delta)
        each = (entry.epsilon or private.source_epsilon for entry in terms)
        most, rho = min(each, default=private.source_epsilon), billionths / 1e9
        rows.append(
            {
                "source": names.get(account, account),
                "epsilon": epsilon_of(rho, delta),
                "most_epsilon": most,
                "delta": delta,
                "rho": rho,
                "most_rho": most_rho(most, delta),
            }
        )
    return rows


# --- other nodes -----------------------------------------------------------------------------------


def priced(row: Mapping[str, Any]) -> dict[str, Any]:
    """A receipt as it is shown. What was kept before there were terms had none."""
    kept, share = {k: v for k, v in row.items() if k != "price_nusd"}, row["max_share"]
    terms = {"purpose": row["purpose"] or "", "max_share": 1.0 if share is None else share}
    return {
        **kept,
        **terms,
        "price_usd": row["price_nusd"] / 1e9,
        "countersigned": bool(row["countersigned"]),
    }


def settled(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], *, by_purpose: bool = False
) -> list[dict[str, Any]]:
    """What is owed to each peer, and by it, of rows of `Ledger.owed`; `names` are those of nodes, by id.

    What `asked` begins with is of its answers to this node, what `answered` does, of this node's to it.
    """
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        peer, purpose = row["peer"], row["purpose"] if by_purpose else ""
        empty = {"peer": names.get(peer, peer), "id": peer} | ({"purpose": purpose} if by_purpose else {})
        empty |= {f"{role}_{what}": 0 for role in ("asked", "answered") for what in _SUMMED}
        one = sums.setdefault((peer, purpose), empty | {"not_countersigned": 0})
        for what, column in _SUMMED.items():
            one[f"{row['role']}_{what}"] += row[column]
        one["not_countersigned"] += row["answers"] - row["countersigned"]
    for one in sums.values():
        one["net_usd"] = round(one["answered_usd"] - one["asked_usd"], 9)
    return list(sums.values())
