"""One answer from many experts, token by token: each step asks all of them what may come next.

Knows no privacy: how distributions become one, and how a token is drawn from that, are callables. Starts a
task for each expert and step; none outlives its step.
"""

import asyncio
import codecs
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from manyminds.errors import ExpertError, GarbageError, SlowError
from manyminds.fanout.patience import Patience
from manyminds.types import Chunk, Distributor, Following, Query, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Tokens"]

_TEMPERATURE: Final = 0.7  # where the request has none: at 1, small models ramble
_LEAST_TEMPERATURE: Final = 0.1  # below, what a model says is one token, and a bound leaves nothing of it


class Tokens:
    """The writing of one answer around a public model.

    Args:
        query: what every expert is asked; its `sampling.temperature` sharpens each distribution.
        public: says which tokens there are to choose from. Where it fails, the answer does.
        sources: all who are asked. One that fails or is late is not asked again for this answer; that of
            another vocabulary, or None, not at all.
        pool: log-probabilities of the public one, (v,), and of the sources that answered, (m, v), to (v,)
            weights.
        draw: weights to a position.
        tokens: how many at most.
        likeliest: among how many of the public model's tokens.
        patience: its time to first token is for the first step, which reads the prompts.
    """

    def __init__(
        self,
        query: Query,
        public: Distributor,
        sources: Sequence[Distributor | None],
        pool: "Callable[[Floats, Floats], Floats]",
        draw: "Callable[[Floats], int]",
        *,
        tokens: int,
        likeliest: int = 1000,
        patience: Patience | None = None,
    ) -> None:
        self._query = query
        self._public = _Voice(public)
        self._sources = [_Voice(source) for source in sources if source is not None]
        self._pool, self._draw = pool, draw
        self._tokens, self._likeliest = tokens, likeliest
        self._patience = patience or Patience()
        wished = query.sampling.temperature
        self._temperature = max(_TEMPERATURE if wished is None else wished, _LEAST_TEMPERATURE)
        self.spent_usd = 0.0
        """By all experts, so far. What a source computed for is private, as its answer is."""

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        """The answer. Closing it cancels all calls. Raises: ExpertError where the public model fails."""
        deadline = asyncio.get_running_loop().time() + self._patience.deadline_s
        said: list[int] = []
        text = _Text(self._query.sampling.stop)
        await self._begin(deadline)
        read = len(self._public.prompt)
        while len(said) < self._tokens and not text.ended:
            limit_s = self._patience.idle_s if said else self._patience.first_token_s
            heard = await self._ask(said, min(deadline, asyncio.get_running_loop().time() + limit_s))
            position = self._draw(self._weights(heard))
            said.append(heard.ids[position])
            if fresh := text.take(heard.pieces[position]):
                yield Chunk(fresh)
        usage = Usage(read, len(said))
        yield Chunk(text.rest(), "stop" if text.ended else "length", usage)

    async def _begin(self, deadline: float) -> None:
        """Learns what everybody reads, and leaves out who means something else by a token."""
        voices = [self._public, *self._sources]
        await _together([voice.open(self._query, deadline) for voice in voices])
        vocabulary = self._public.checked().vocabulary
        self._sources = [v for v in self._sources if v.failure is None and v.vocabulary == vocabulary]

    async def _ask(self, said: Sequence[int], until: float) -> Following:
        voices = [self._public, *self._sources]
        await _together([voice.ask(said, self._likeliest, until) for voice in voices])
        self.spent_usd += sum(voice.heard.usage.cost_usd for voice in voices if voice.heard is not None)
        self._sources = [voice for voice in self._sources if voice.failure is None]
        heard = self._public.checked().heard
        assert heard is not None
        return heard

    def _weights(self, heard: Following) -> "Floats":
        import numpy as np

        logs = [voice.heard for voice in self._sources]
        rows = np.array([_over(heard.ids, each) for each in logs if each is not None], dtype=np.float64)
        public = np.array(heard.log_probabilities, dtype=np.float64)
        return self._pool(public / self._temperature, rows.reshape(-1, len(public)) / self._temperature)


class _Voice:
    """One expert in one answer: what it reads, and what it last said."""

    def __init__(self, expert: Distributor) -> None:
        self._expert = expert
        self.vocabulary = ""
        self.prompt: tuple[int, ...] = ()
        self.heard: Following | None = None
        self.failure: ExpertError | None = None

    async def open(self, query: Query, until: float) -> None:
        async def read() -> None:
            self.vocabulary = await self._expert.vocabulary()
            self.prompt = await self._expert.prompt_tokens(query)

        await self._try(read(), until)

    async def ask(self, said: Sequence[int], count: int, until: float) -> None:
        async def hear() -> None:
            self.heard = None
            self.heard = await self._expert.next_tokens((*self.prompt, *said), count)

        await self._try(hear(), until)

    def checked(self) -> "_Voice":
        """Raises: ExpertError where it has failed."""
        if self.failure is not None:
            raise self.failure
        return self

    async def _try(self, work: Awaitable[None], until: float) -> None:
        """Whatever goes wrong with a source stays with it, and is not told: that, too, is its own."""
        try:
            async with asyncio.timeout_at(until):
                await work
        except ExpertError as error:
            self.failure = error
        except TimeoutError:
            self.failure = SlowError("A model had not said its next token in time.")
        except Exception as error:  # an expert broke its contract: the answer goes on without it
            self.failure = GarbageError(f"A model failed unexpectedly: {error!r:.300}")


class _Text:
    """What the tokens spell, as far as it is certain that it belongs to the answer."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""  # may be the beginning of a stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.ended = False

    def take(self, piece: bytes) -> str:
        """One token; what is certain now. A token that spells nothing ends the text."""
        self.ended = not piece
        self._held += self._decoder.decode(piece, final=self.ended)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.ended, self._held = True, self._held[: min(found)]
        keep = 0 if self.ended else max((len(stop) - 1 for stop in self._stops), default=0)
        certain = self._held[: len(self._held) - keep] if keep else self._held
        self._held = self._held[len(certain) :]
        return certain

    def rest(self) -> str:
        """What was held back to the end."""
        return self._held + ("" if self.ended else self._decoder.decode(b"", final=True))


async def _together(work: Sequence[Awaitable[None]]) -> None:
    """Waits for all, none of which fails. None is left when this is left, however it is left."""

    async def one(each: Awaitable[None]) -> None:
        await each

    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(one(each))


def _over(ids: Sequence[int], heard: Following) -> list[float]:
    """Its log-probabilities of these tokens; of one that it did not name, that of its least likely."""
    known = dict(zip(heard.ids, heard.log_probabilities, strict=True))
    least = min(known.values(), default=-math.inf)
    return [known.get(token, least) for token in ids]
