"""An expert that has its owner's documents before it at every question. Knows no kind of expert.

What the documents say is the owner's: several owners of one model with documents of their own are several
sources, also where one process computes for all of them.
"""

from collections.abc import AsyncGenerator, Sequence

from manyminds.errors import RefusedError
from manyminds.types import Card, Chunk, Distributor, Expert, Following, Message, Query
from manyminds.wire import rewritten

__all__ = ["Informed"]


class Informed:
    """Another expert with documents; keeps the contracts of `types.Expert` and `Distributor`.

    Args:
        expert: who is asked. Next tokens need one that offers them.
        card: whose documents they are.
        documents: what it is told before the caller's own messages, as the system's word.
    """

    def __init__(self, expert: Expert, card: Card, documents: str) -> None:
        self._expert = expert
        self._card = card
        self._documents = documents

    @property
    def card(self) -> Card:
        return self._card

    def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        return self._expert.stream(self._told(query))

    async def vocabulary(self) -> str:
        """See `types.Distributor`."""
        return await self._distributor.vocabulary()

    async def prompt_tokens(self, query: Query) -> tuple[int, ...]:
        """See `types.Distributor`."""
        return await self._distributor.prompt_tokens(self._told(query))

    async def next_tokens(self, tokens: Sequence[int], count: int) -> Following:
        """See `types.Distributor`."""
        return await self._distributor.next_tokens(tokens, count)

    @property
    def _distributor(self) -> Distributor:
        if not isinstance(self._expert, Distributor):
            raise RefusedError(f"{self._card.name} does not say how likely its next token is.")
        return self._expert

    def _told(self, query: Query) -> Query:
        """One system message: the documents first, then the caller's, as most templates have but one."""
        words = [m.text for m in query.messages if m.role == "system"]
        told = Message("system", "\n\n".join([self._documents, *words]))
        return rewritten(query, (told, *(m for m in query.messages if m.role != "system")))
