"""What answers owe to each source, summed, beside what its terms allow."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from manyminds.admission import SOURCE, Budget, period_of
from manyminds.config import Config

__all__ = ["limits_of", "owed"]


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
