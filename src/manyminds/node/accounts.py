"""What sources may still spend of their privacy, in the ledger: their accounts."""

from typing import Final

from manyminds.admission import Admission, Budget, Hold
from manyminds.config import Private
from manyminds.private import Account, Bank

__all__ = ["ACCOUNTS", "bank"]

ACCOUNTS: Final = "private:"
"""How the ledger's ids begin by which it counts what private answers cost a source, in ρ of zCDP."""


def bank(admission: Admission, private: Private) -> Bank:
    """The accounts of this node. They never begin anew: what was told once stays told."""

    async def spend(account: Account) -> Hold:
        budget = Budget(ACCOUNTS + account.id, account.source, account.most, "total", "rho")
        return await admission.spend(budget, account.cost)

    return Bank(
        spend,
        epsilon=private.epsilon,
        delta=private.delta,
        source_epsilon=private.source_epsilon,
        public=private.public,
    )
