"""What sources still allow: how often they are asked, and how far they move the answers of a period.

For all callers together, over all processes that serve one address; how far, over all that share a ledger.
Knows terms, no expert and no answer.
"""

from collections.abc import Callable
from typing import Final

from manyminds.admission.budget import Budget, Budgets, Hold
from manyminds.admission.rates import Allowance, SharedAllowance
from manyminds.board import Board
from manyminds.errors import RateLimitError
from manyminds.types import Key, Terms

__all__ = ["SOURCE", "Sources"]

SOURCE: Final = "source:"
"""Before a source's name, where the ledger counts its nats: keys have no such ids."""


class Sources:
    """By name of the source, from its first question on.

    Args:
        budgets: lease what they spend.
        clock: seconds that never run backwards.
        board: where several processes count as one.
    """

    def __init__(self, budgets: Budgets, clock: Callable[[], float], board: Board | None) -> None:
        self._budgets = budgets
        self._clock = clock
        self._board = board
        self._allowances: dict[str, tuple[int, Allowance]] = {}
        self.budgets: dict[str, Budget] = {}
        """By id."""

    def take(self, source: str, terms: Terms) -> None:
        """Counts a question, or refuses it and counts nothing.

        Raises: RateLimitError, which says when to come back.
        """
        limit = terms.requests_per_min
        if limit is None:
            return
        now_ns = int(self._clock() * 1e9)
        known = self._allowances.get(source)
        if known is None or known[0] != limit:
            key, board = Key(SOURCE + source, source, requests_per_min=limit), self._board
            if known is not None:
                known[1].replace(key, now_ns)
            made = known[1] if known else _allowance(key, now_ns, board)
            self._allowances[source] = known = (limit, made)
        try:
            known[1].take(0, now_ns)
        except RateLimitError as error:
            raise RateLimitError(
                f"The source {source!r} lets itself be asked {limit} times a minute: "
                f"try again in {error.retry_after_s:.3f} s, or ask for others.",
                retry_after_s=error.retry_after_s,
            ) from None

    async def reserve(self, source: str, terms: Terms, most_nats: float, least_nats: float) -> Hold:
        """Puts aside how far it may move an answer: `most_nats`, or what is left where `least_nats` are.

        The terms have a budget. Settle it, whatever happens; cancelled, it has reserved nothing.

        Raises:
            BudgetError: there is less left for the period.
            UnavailableError: the ledger cannot be asked.
        """
        budget = Budget(SOURCE + source, source, terms.budget_nats or 0.0, terms.period, "nats")
        await self._know(budget)
        return await self._budgets.reserve_up_to(budget, most_nats, least_nats)

    async def spend(self, budget: Budget, amount: float) -> Hold:
        """Puts aside so much of another budget of a source's. Same errors, same rules."""
        await self._know(budget)
        return await self._budgets.reserve(budget, amount)

    async def _know(self, budget: Budget) -> None:
        """Has it kept while keys come and go, and begun anew where its limit has changed."""
        known = self.budgets.get(budget.id)
        if known != budget:
            self.budgets[budget.id] = budget
            if known is None:
                await self._budgets.recover([budget.id])
            else:
                self._budgets.replace(self.budgets, of=[budget.id])


def _allowance(key: Key, now_ns: int, board: Board | None) -> Allowance:
    return Allowance(key, now_ns) if board is None else SharedAllowance(key, now_ns, board)
