"""A GGUF file as an expert, served by llama.cpp in a supervised child process.

A crash in native code ends the child, never the node: the call under way fails, the next one starts the
child anew. The child speaks OpenAI's protocol on a loopback port with a random key, so generation is
left to whatever expert `connect` makes for that address.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from manyminds.catalog.gguf import Vocabulary, vocabulary
from manyminds.errors import CatalogError, CutError, RefusedError, UnavailableError
from manyminds.experts.child import Child, Model, Process, cpu_s
from manyminds.experts.llama import Llama
from manyminds.experts.room import Room
from manyminds.types import Card, Chunk, Expert, Following, Query, Samples, Scores, Usage
from manyminds.upstream import Client
from manyminds.wire import request_body

__all__ = ["QUESTION_STOP", "QUESTION_TEMPLATE", "Local"]

QUESTION_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}Answer: {{ m.content }}\n"
    "{% else %}{% if m.role == 'user' %}Question: {% endif %}{{ m.content }}\n{% endif %}{% endfor %}Answer:"
)
"""Chat template of a base model, which has none of its own (Jinja, as llama.cpp reads it)."""

QUESTION_STOP = ("\nQuestion:",)
"""Where the answer of a base model ends: it would go on with questions of its own."""

_REST_S = 30.0  # between attempts, once a model has failed to load several times in a row
_ATTEMPTS = 3
_ENDLESS: Final = nullcontext()

_Found = TypeVar("_Found")


class Local:
    """A model file of this machine; keeps the contracts of `types.Expert`, `Scorer`, `Sampler` and
    `Distributor`.

    Args:
        card: its name is what the child calls itself.
        model: the file and its limits.
        connect: makes an expert for the child's base URL and key.
        client: for scores and samples; the owner closes it. The child closes connections as it likes:
            keep none.
        start: starts the child, or finds the one that another process has started for several.
        room: where it needs memory before it is started; it gives way when others need it.
        cores: entered to compute, by whoever has the model and its memory.
    """

    def __init__(
        self,
        card: Card,
        model: Model,
        connect: Callable[[str, str], Expert],
        client: Client,
        start: Callable[[str, Model], Awaitable[Process]] = Child.start,
        *,
        room: Room | None = None,
        cores: AbstractAsyncContextManager[object] = _ENDLESS,
    ) -> None:
        self._card = card
        self._model = model
        self._connect = connect
        self._llama = Llama(card.name, client)
        self._start = start
        self._lock = asyncio.Lock()
        self._turn = asyncio.Lock()  # one call at a time: who waits for it waits here, and can leave
        self._place = (room or Room(math.inf)).place(card.name, model.needs_mb, self.aclose)
        self._cores = cores
        self._retired = False
        self._vocabulary: Vocabulary | None = None
        self._child: Process | None = None
        self._starting: asyncio.Future[Process] | None = None  # goes on when the caller that began it leaves
        self._failures = 0
        self._failure = ""  # what the last one said
        self._rest_until = 0.0
        self._doubted = False  # a call ended before its first word: the child may be deaf

    @property
    def card(self) -> Card:
        return self._card

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        return self._child.pid if self._child and self._child.alive else None

    @property
    def failed(self) -> bool:
        """Whether it could not be loaded when that was last tried."""
        return self._failures > 0

    async def start(self) -> None:
        """Loads the model unless it is loaded. Raises: UnavailableError with what to do."""
        async with self._place:
            await self._ready()

    async def aclose(self) -> None:
        """Ends the child. A later call starts it again."""
        async with self._lock:
            child, self._child = self._child, None
            starting, self._starting = self._starting, None
            if starting is not None:
                starting.cancel()
                (begun,) = await asyncio.gather(starting, return_exceptions=True)
                child = child if isinstance(begun, BaseException) else begun
            if child is not None:
                await child.stop()

    async def retire(self) -> None:
        """Ends the child once everybody has been answered who asked before.

        Who comes to it late is answered, too, by a child that lives no longer than that.
        """
        self._retired = True
        async with self._turn:
            await self._vacate()

    async def _vacate(self) -> None:
        await self.aclose()
        self._place.free()

    async def _ready(self) -> Process:
        async with self._lock:
            if self._child is not None and self._child.alive:
                if not self._doubted or await self._llama.hears(self._child):
                    self._doubted = False
                    return self._child
                await self._child.kill()
            loop = asyncio.get_running_loop()
            if self._failures >= _ATTEMPTS and loop.time() < self._rest_until:
                raise UnavailableError(f"{self._failure} It failed {self._failures} times and rests now.")
            if self._starting is None:
                self._starting = asyncio.ensure_future(self._start(self._card.name, self._model))
            try:
                self._child = await asyncio.shield(self._starting)
            except UnavailableError as error:
                self._starting = None
                self._failures += 1
                self._failure = error.message
                self._rest_until = loop.time() + _REST_S
                raise
            self._starting = None
            self._failures = 0
            self._doubted = False
            return self._child

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`. A child found dead before the first chunk is started anew, once."""
        async with self._working(), aclosing(self._generate(query)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _generate(self, query: Query) -> AsyncGenerator[Chunk, None]:
        for attempt in range(2):
            child = await self._ready()
            begun = False
            self._doubted = True
            meter = _Meter(child.pid)
            try:
                async with aclosing(self._connect(child.url + "/v1", child.key).stream(query)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        self._doubted = False
                        yield (
                            chunk
                            if chunk.usage is None
                            else replace(chunk, usage=self._billed(chunk.usage, meter))
                        )
                    return
            except (UnavailableError, CutError):
                if begun or attempt or not await self._died(child):
                    raise

    async def sample(self, query: Query, count: int) -> Samples:
        """Answers that are drawn side by side: the prompt is read once. See `types.Sampler`.

        Each of up to 8 has a seed of its own, made from the query's. Without a temperature above 0 they
        are all the same. They share the context: where it would not do, each gets as many tokens
        as there are for all. A child found dead is started anew, once. Raises: ExpertError.
        """
        slots = self._model.slots
        if not 1 <= count <= slots:
            raise RefusedError(f"{self._card.name} gives 1 to {slots} answers at once, not {count}.")
        async with self._working():
            return await self._ask(lambda child: self._sample(child, query, count))

    async def _sample(self, child: Process, query: Query, count: int) -> Samples:
        name, limits = self._card.name, self._model
        meter = _Meter(child.pid)
        body: dict[str, Any] = msgspec.json.decode(request_body(query, self._card.model or name))
        read = await self._llama.prompt_tokens(child, body)
        room = (limits.context_tokens - read) // count
        if room < 1:
            raise RefusedError(
                f"{name} has a context of {limits.context_tokens} tokens, too few for {count} answers to a"
                f" prompt of {read}: ask for fewer, or raise its `context_tokens`."
            )
        most = min(query.sampling.max_tokens or limits.max_tokens, room)
        body |= {"n": count, "max_tokens": most, "logprobs": True, "top_logprobs": 1}
        body.pop("max_completion_tokens", None)
        samples = await self._llama.answers(child, body, count)
        return replace(samples, usage=self._billed(samples.usage, meter))

    async def score(self, query: Query, options: Sequence[str]) -> Scores:
        """Log-likelihood per byte of each option as the answer to the question. See `types.Scorer`.

        A child found dead is started anew, once. Raises: ExpertError.
        """
        async with self._working():
            return await self._ask(lambda child: self._score(child, query, options))

    async def _score(self, child: Process, query: Query, options: Sequence[str]) -> Scores:
        llama, meter = self._llama, _Meter(child.pid)
        stem = query.task.stem or query.question
        prompt = await llama.tokens(child, f"Question: {stem}\nAnswer:", special=True)
        spaced = [f" {option}" for option in options]
        tokens = [await llama.tokens(child, option, special=False) for option in spaced]
        if not all(tokens):
            raise RefusedError(f"{self._card.name} cannot score an empty option.")
        seconds, found = 0.0, []
        for option, spelt in zip(spaced, tokens, strict=True):
            known, took_s = await llama.likelihoods(child, prompt, spelt)
            seconds += took_s
            found.append(math.fsum(known) / len(option.encode()))
        read, said = len(prompt) + sum(map(len, tokens)), len(tokens[found.index(max(found))])
        return Scores(tuple(found), self._billed(Usage(read, said, seconds), meter))

    async def vocabulary(self) -> str:
        """See `types.Distributor`. Raises: UnavailableError."""
        return (await self._words()).digest

    async def _words(self) -> Vocabulary:
        """Of the file, read once."""
        if self._vocabulary is None:
            try:
                self._vocabulary = await asyncio.to_thread(vocabulary, self._model.path)
            except CatalogError as error:
                raise UnavailableError(error.message) from None
        return self._vocabulary

    async def prompt_tokens(self, query: Query) -> tuple[int, ...]:
        """See `types.Distributor`. Raises: ExpertError."""
        body = msgspec.json.decode(request_body(query, self._card.model or self._card.name))
        async with self._working():
            return await self._ask(lambda child: self._llama.prompt(child, body))

    async def next_tokens(self, tokens: Sequence[int], count: int) -> Following:
        """See `types.Distributor`. A child found dead is started anew, once. Raises: ExpertError."""
        limit = self._model.context_tokens
        if len(tokens) >= limit:
            raise RefusedError(
                f"{self._card.name} has a context of {limit} tokens, too few for {len(tokens)} and one more."
            )
        silent = (await self._words()).control
        async with self._working():
            found = await self._ask(lambda child: self._next(child, tokens, count))
        pairs = zip(found.ids, found.pieces, strict=True)
        return replace(found, pieces=tuple(b"" if token in silent else piece for token, piece in pairs))

    async def _next(self, child: Process, tokens: Sequence[int], count: int) -> Following:
        meter = _Meter(child.pid)
        found, took_s = await self._llama.following(child, tokens, count)
        return replace(found, usage=self._billed(Usage(len(tokens), 1, took_s), meter))

    async def _ask(self, do: Callable[[Process], Awaitable[_Found]]) -> _Found:
        """What comes all at once. Of a child that is found dead, it is asked once more."""
        found_dead = False
        while True:
            child = await self._ready()
            self._doubted = True
            try:
                found = await do(child)
            except CutError:
                if found_dead or not await self._died(child):
                    raise
                found_dead = True
            else:
                self._doubted = False
                return found

    async def _died(self, child: Process) -> bool:
        """Whether the child ended by itself: what `aclose` ended is not to be started anew."""
        return self._child is not None and await child.died()

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """Inside, the model is this call's alone. Who waits for it waits here, and can leave.

        A core comes last: nobody who has one waits for anything but the child.
        """
        async with self._turn:
            try:
                async with self._place, self._cores:
                    yield
            finally:
                if self._retired:
                    await self._vacate()

    def _billed(self, usage: Usage, meter: "_Meter") -> Usage:
        """With what it cost. Its `cpu_s` is how long it took by the clock, as far as the child says that."""
        spent_s = meter.spent_s(usage.cpu_s * self._model.threads)
        cost_usd = spent_s * self._card.price_cpu_usd_per_hour / 3600
        return Usage(usage.prompt_tokens, usage.completion_tokens, spent_s, cost_usd)


class _Meter:
    """Reads the process's time from now on. Others that share the process may be computing meanwhile."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began_s = cpu_s(pid)

    def spent_s(self, most_s: float) -> float:
        """Seconds since, `most_s` at most where that is known: what is beyond it was for others."""
        now_s = cpu_s(self._pid)
        if now_s is None or self._began_s is None:
            return most_s
        spent_s = now_s - self._began_s
        return min(spent_s, most_s) if most_s else spent_s
