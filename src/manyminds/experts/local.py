"""A GGUF file as an expert, served by llama.cpp in a supervised child process.

A crash in native code ends the child, never the node: the call under way fails, the next one starts the
child anew. The child speaks OpenAI's protocol on a loopback port with a random key, so generation is
left to whatever expert `connect` makes for that address.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import msgspec

from manyminds.errors import CutError, GarbageError, RefusedError, UnavailableError
from manyminds.experts.child import Child, Model, Process
from manyminds.types import Card, Chunk, Expert, Query, Scores, Usage
from manyminds.upstream import Client, Target, UpstreamError
from manyminds.wire import error_text

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
_DEAF_S = 2.0  # without a sign of life, of a child in doubt
_TOP = 5000  # log-probabilities asked for; the full vocabulary takes 20 times as long
_REPLY_BYTES = 50_000_000  # of one with log-probabilities
_FLOOR = -14.0  # of a token that is not among them, in nats

_Reply = TypeVar("_Reply")


class Local:
    """A model file of this machine; keeps the contracts of `types.Expert` and `types.Scorer`.

    Args:
        card: its name is what the child calls itself.
        model: the file and its limits.
        connect: makes an expert for the child's base URL and key.
        client: for scoring; the owner closes it. The child closes connections as it likes: keep none.
        start: starts the child, or finds the one that another process has started for several.
    """

    def __init__(
        self,
        card: Card,
        model: Model,
        connect: Callable[[str, str], Expert],
        client: Client,
        start: Callable[[str, Model], Awaitable[Process]] = Child.start,
    ) -> None:
        self._card = card
        self._model = model
        self._connect = connect
        self._client = client
        self._start = start
        self._lock = asyncio.Lock()
        self._turn = asyncio.Lock()  # the child has one slot: who waits for it waits here, and can leave
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

    async def start(self) -> None:
        """Loads the model unless it is loaded. Raises: UnavailableError with what to do."""
        await self._ready()

    async def aclose(self) -> None:
        """Ends the child. A later call would start it again."""
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
        """Ends the child once everybody has been answered who asked before."""
        async with self._turn:
            await self.aclose()

    async def _ready(self) -> Process:
        async with self._lock:
            if self._child is not None and self._child.alive:
                if not self._doubted or await self._hears(self._child):
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
        async with self._turn, aclosing(self._generate(query)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _generate(self, query: Query) -> AsyncGenerator[Chunk, None]:
        for attempt in range(2):
            child = await self._ready()
            begun = False
            self._doubted = True
            try:
                async with aclosing(self._connect(child.url + "/v1", child.key).stream(query)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        self._doubted = False
                        yield chunk
                    return
            except (UnavailableError, CutError):
                if begun or attempt or not await self._died(child):
                    raise

    async def score(self, query: Query, options: Sequence[str]) -> Scores:
        """Mean log-likelihood per token of each option as the answer to the question. See `types.Scorer`.

        One request scores the first tokens of all options, one more each later token: the prompt is
        evaluated once and then cached. A child found dead is started anew, once. Raises: ExpertError.
        """
        async with self._turn:
            child = await self._ready()
            self._doubted = True
            try:
                scores = await self._score(child, query, options)
            except CutError:
                if not await self._died(child):
                    raise
                scores = await self._score(await self._ready(), query, options)
            self._doubted = False
            return scores

    async def _hears(self, child: Process) -> bool:
        """Whether the child answers at all, which it does at once also while it generates."""
        if self._client.closed:  # this node is closing: the call will say so
            return True
        try:
            async with asyncio.timeout(_DEAF_S):
                response = await self._client.get(Target(child.url + "/health", {}))
                response.close()
        except (UpstreamError, TimeoutError):
            return False
        return response.status == 200

    async def _died(self, child: Process) -> bool:
        """Whether the child ended by itself: what `aclose` ended is not to be started anew."""
        return self._child is not None and await child.died()

    async def _score(self, child: Process, query: Query, options: Sequence[str]) -> Scores:
        stem = query.task.stem or query.question
        prompt = await self._tokens(child, f"Question: {stem}\nAnswer:", special=True)
        tokens = [await self._tokens(child, f" {option}", special=False) for option in options]
        if not all(tokens):
            raise RefusedError(f"{self._card.name} cannot score an empty option.")
        known: dict[tuple[int, ...], dict[int, float]] = {}
        cpu_s, found = 0.0, []
        for option in tokens:
            total = []
            for i, token in enumerate(option):
                prefix = tuple(option[:i])
                if prefix not in known:
                    known[prefix], spent_s = await self._next(child, prompt + option[:i])
                    cpu_s += spent_s
                total.append(known[prefix].get(token, _FLOOR))
            found.append(math.fsum(total) / len(total))
        cost = cpu_s * self._card.price_cpu_usd_per_hour / 3600
        read, said = len(prompt) + sum(map(len, tokens)), len(tokens[found.index(max(found))])
        return Scores(tuple(found), Usage(read, said, cpu_s, cost))

    async def _tokens(self, child: Process, text: str, *, special: bool) -> list[int]:
        wish = {"content": text, "add_special": special}
        return (await self._post(child, "/tokenize", wish, _Tokens)).tokens

    async def _next(self, child: Process, prompt: list[int]) -> tuple[dict[int, float], float]:
        """Log-probabilities of the token after `prompt`, by id, and the seconds of computation it took."""
        wish = {"prompt": prompt, "n_predict": 1, "n_probs": _TOP, "temperature": 0, "cache_prompt": True}
        reply = await self._post(child, "/completion", wish, _Completion)
        if not reply.completion_probabilities:
            raise GarbageError(f"{self._card.name} sent no log-probabilities.")
        top = reply.completion_probabilities[0].top_logprobs
        spent_s = (reply.timings.prompt_ms + reply.timings.predicted_ms) / 1000
        return {entry.id: entry.logprob for entry in top}, spent_s

    async def _post(
        self, child: Process, path: str, fields: dict[str, object], shape: type[_Reply]
    ) -> _Reply:
        """Raises: ExpertError; CutError where the child ended meanwhile."""
        name = self._card.name
        if self._client.closed:
            raise UnavailableError(f"{name} cannot be asked: this node is closing.")
        headers = {"authorization": f"Bearer {child.key}", "content-type": "application/json"}
        try:
            target = Target(child.url + path, headers)
            response = await self._client.post(target, msgspec.json.encode(fields))
            raw = await response.whole(_REPLY_BYTES)
        except UpstreamError as error:
            raise CutError(f"{name} broke off: {error}.") from None
        if response.status != 200:
            raise RefusedError(f"{name} answered with status {response.status}: {error_text(raw)}")
        try:
            return msgspec.json.decode(raw, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise GarbageError(f"{name} sent no scores: {error}.") from None


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Token(msgspec.Struct):
    id: int
    logprob: float


class _Position(msgspec.Struct):
    top_logprobs: list[_Token]


class _Timings(msgspec.Struct, frozen=True):
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class _Completion(msgspec.Struct):
    completion_probabilities: list[_Position] = []
    timings: _Timings = _Timings()
