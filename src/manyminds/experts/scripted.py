"""An expert that does as it is told: for tests, demonstrations and faults on purpose.

Knows no model. Waits on the loop's clock alone, so that virtual time works.
"""

import asyncio
import copy
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from manyminds.errors import CutError, ExpertError, GarbageError, RefusedError
from manyminds.types import Card, Chunk, Grounds, Query, Scores, Usage

__all__ = ["Replies", "Script", "Scripted"]

Replies: TypeAlias = Callable[[Query], str] | Mapping[str, str]
"""What to say to which question. A question that a mapping lacks gets the script's `text`."""


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """What to say and how to fail. A chunk is a word, and counts as a token.

    The first of `fail_before`, `refuse` and `garbage` that is set ends a call before its first chunk;
    `cut_after` and `stall_after` end it, or leave it hanging, after so many chunks.
    """

    text: str = "ok"
    replies: Replies | None = None
    scores: tuple[float, ...] | None = None  # log-likelihoods of the options; None refuses to score
    first_token_s: float = 0.0
    per_chunk_s: float = 0.0
    fail_before: ExpertError | None = None
    refuse: bool = False
    garbage: bool = False
    cut_after: int | None = None
    stall_after: int | None = None
    charges: float = 1.0  # times what its card says
    bill_usd: float = 0.0  # for each answer, beside that
    grounds: Grounds | None = None  # of every answer; one that declines comes in one piece


class Scripted:
    """Plays a script to everybody who asks, and counts how calls began and ended."""

    def __init__(self, card: Card, script: Script) -> None:
        self._card = card
        self._script = script
        self.asked = 0
        self.running = 0
        self.closed = 0  # by whoever read it, before its end
        self.cancelled = 0

    @property
    def card(self) -> Card:
        return self._card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        words, finish_reason = _words(self._reply(query), query)
        grounds = self._script.grounds
        whole = "".join(words) if grounds is not None and grounds.declined else ""
        with self._counted():
            await self._begin()
            for i, word in enumerate([] if whole else words):
                await self._interrupt(i)
                if i:
                    await asyncio.sleep(self._script.per_chunk_s)
                yield Chunk(text=word)
            await self._interrupt(len(words))
        yield Chunk(whole, finish_reason, self._usage(query, len(words)), grounds=grounds)

    async def score(self, query: Query, options: Sequence[str]) -> Scores:
        """Raises: RefusedError where the script has no scores for that many options."""
        with self._counted():
            await self._begin()
            await self._interrupt(0)
        scores = self._script.scores
        if scores is None or len(scores) != len(options):
            raise RefusedError(f"{self._card.name} has no scores for {len(options)} options in its script.")
        return Scores(scores, self._usage(query, 0))

    def _reply(self, query: Query) -> str:
        match self._script.replies:
            case None:
                return self._script.text
            case Mapping() as replies:
                return replies.get(query.question, self._script.text)
            case replies:
                return replies(query)

    async def _begin(self) -> None:
        script, name = self._script, self._card.name
        await asyncio.sleep(script.first_token_s)
        if script.fail_before is not None:
            raise copy.copy(script.fail_before)  # each call has its own traceback
        if script.refuse:
            raise RefusedError(f"{name} refuses, as its script says.")
        if script.garbage:
            raise GarbageError(f"{name} sent no JSON, as its script says.")

    async def _interrupt(self, chunks: int) -> None:
        script, name = self._script, self._card.name
        if script.cut_after is not None and chunks >= script.cut_after:
            raise CutError(f"{name} ended after {chunks} chunks, as its script says.")
        if script.stall_after is not None and chunks >= script.stall_after:
            await asyncio.Event().wait()

    def _usage(self, query: Query, completion_tokens: int) -> Usage:
        prompt_tokens = sum(len(message.text.split()) for message in query.messages)
        cost_usd = self._card.price_usd(prompt_tokens, completion_tokens, 0.0)
        script = self._script
        return Usage(prompt_tokens, completion_tokens, cost_usd=script.charges * cost_usd + script.bill_usd)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.asked += 1
        self.running += 1
        try:
            yield
        except GeneratorExit:
            self.closed += 1
            raise
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def _words(text: str, query: Query) -> tuple[list[str], str]:
    """The words to say, which join to the text up to a stop sequence or the limit, and why they end."""
    ends = [text.find(stop) for stop in query.sampling.stop if stop and stop in text]
    words = re.findall(r"\s*\S+|\s+\Z", text[: min(ends, default=len(text))])
    limit = query.sampling.max_tokens
    return (words, "stop") if limit is None or len(words) <= limit else (words[:limit], "length")
