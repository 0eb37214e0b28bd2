"""Who puts into words what documents say: this node's own network, asked as by anybody. Knows no document."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from secrets import token_hex
from typing import Final

from msgspec.structs import replace

from manyminds.errors import ExpertError, ManymindsError, UnavailableError
from manyminds.types import Card, Chunk, Expert, Limits, Query, Usage

__all__ = ["AUTO", "Writer"]

AUTO: Final = "auto"
"""In place of an expert's name: all of them."""


class Writer:
    """Keeps the contract of `types.Expert`. What it asks is a request of its own: by the terms of whom it
    asks, paid for by the key that the first one came with, and in the ledger. So its `usage` costs nothing.

    Args:
        model: an expert of this node, or `AUTO`.
        network: the gateway that asks, as it is now.
        never: who is not asked: experts of documents, and other nodes, which would read what is in them.
    """

    def __init__(
        self, model: str, network: Callable[[], Expert], never: Callable[[], tuple[str, ...]]
    ) -> None:
        self._model = model
        self._network = network
        self._never = never

    @property
    def card(self) -> Card:
        return self._network().card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        said = query.limits
        limits = Limits(
            exclude=self._never(),
            purpose=said.purpose,
            budget_usd=said.budget_usd,
            deadline_s=said.deadline_s,
            cache="off",
        )
        asked = replace(
            query,
            model=self._model,
            fallbacks=(),
            limits=limits,
            demands=frozenset(),
            raw=b"",
            request_id=_new_id(),
        )
        try:
            async with aclosing(self._network().stream(asked)) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason is None:
                        yield Chunk(chunk.text)
                        continue
                    used = chunk.usage or Usage()
                    usage = Usage(used.prompt_tokens, used.completion_tokens)
                    yield Chunk(chunk.text, chunk.finish_reason, usage)
        except ExpertError:
            raise
        except ManymindsError as error:
            raise UnavailableError(f"Nobody here writes: {error.message}") from error


def _new_id() -> str:
    """As `web.replies` names requests: later ones sort later."""
    return f"{time.time_ns() // 1_000_000:012x}{token_hex(6)}"
