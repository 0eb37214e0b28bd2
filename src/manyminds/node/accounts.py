"""What sources may still spend of their privacy, in the ledger: their accounts."""

from collections.abc import Sequence
from typing import Final

from manyminds.admission import Admission, Budget
from manyminds.admission import Hold as Held
from manyminds.config import Private
from manyminds.private import Account, Bank
from manyminds.types import Hold

__all__ = ["ACCOUNTS", "bank"]

ACCOUNTS: Final = "private:"
"""How the ledger's ids begin by which it counts what private answers cost a source, in ρ of zCDP."""


def bank(admission: Admission, private: Private, alpha: float) -> Bank:
    """The accounts of this node. They never begin anew: what was told once stays told.

    A source's other terms hold as well: how often it is asked, and how far it moves all answers.
    """
    sources = admission.sources

    async def spend(account: Account) -> Hold:
        whose, terms, holds = account.source, account.terms, list[Held]()
        budget = Budget(ACCOUNTS + account.id, whose, account.most, "total", "rho")
        try:
            holds.append(await sources.spend(budget, account.cost))
            if terms.budget_nats is not None:
                holds.append(await sources.reserve(whose, terms, account.nats, account.nats))
            sources.take(whose, terms)
        except BaseException:
            for hold in holds:
                hold.settle(0.0)
            raise
        return _Paid(holds)

    return Bank(
        spend,
        epsilon=private.epsilon,
        delta=private.delta,
        source_epsilon=private.source_epsilon,
        alpha=alpha,
        public=private.public,
    )


class _Paid:
    """All that was put aside for one source: spent whole, or not at all."""

    def __init__(self, holds: Sequence[Held]) -> None:
        self._holds = holds

    def settle(self, spent: float) -> None:
        for hold in self._holds:
            hold.settle(hold.amount if spent else 0.0)
