"""What the process of a local model is asked, but for one plain answer. Knows nothing of its life."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from manyminds.errors import CutError, ExpertError, GarbageError, RefusedError, UnavailableError
from manyminds.experts.child import Process
from manyminds.types import Following, Samples, Usage
from manyminds.upstream import Client, Response, Target, UpstreamError
from manyminds.wire import Events, error_text

__all__ = ["Llama"]

_DEAF_S = 2.0  # without a sign of life, of a child in doubt
_REPLY_BYTES = 8_000_000  # of one in a single piece
_FLOOR = -100.0  # of a token that is next to impossible, in nats

_Reply = TypeVar("_Reply")


class Llama:
    """Speaks to one model's children.

    Args:
        name: the model's, for errors.
        client: the owner closes it. A child closes connections as it likes: keep none.
    """

    def __init__(self, name: str, client: Client) -> None:
        self._name = name
        self._client = client

    async def hears(self, child: Process) -> bool:
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

    async def tokens(self, child: Process, text: str, *, special: bool) -> list[int]:
        """Raises: ExpertError, as everything below."""
        wish = {"content": text, "add_special": special}
        return (await self._post(child, "/tokenize", wish, _Tokens)).tokens

    async def prompt_tokens(self, child: Process, body: Mapping[str, Any]) -> int:
        """Of a chat completion request."""
        return (await self._post(child, "/v1/chat/completions/input_tokens", body, _Counted)).input_tokens

    async def likelihoods(
        self, child: Process, prompt: list[int], text: list[int]
    ) -> tuple[list[float], float]:
        """Log-probabilities of the tokens of a text behind the prompt; and how long that took.

        It is generated under a grammar that allows nothing else. The prompt is cached for the next text.
        """
        wish = {
            "prompt": prompt,
            "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in text),
            "n_predict": len(text),
            "n_probs": 1,
            "temperature": 0,
            "cache_prompt": True,
            "stop": [],
        }
        reply = await self._post(child, "/completion", wish, _Completion)
        said = reply.completion_probabilities
        if [token.id for token in said] != text:
            raise GarbageError(f"{self._name} sent log-probabilities of something else.")
        return [max(token.logprob, _FLOOR) for token in said], reply.timings.seconds

    async def prompt(self, child: Process, body: Mapping[str, Any]) -> tuple[int, ...]:
        """The tokens of a chat completion request, written by the model's template."""
        written = await self._post(child, "/apply-template", body, _Written)
        wish = {"content": written.prompt, "add_special": True, "parse_special": True}
        return tuple((await self._post(child, "/tokenize", wish, _Tokens)).tokens)

    async def following(self, child: Process, tokens: Sequence[int], count: int) -> tuple[Following, float]:
        """The likeliest tokens behind these at temperature 1; and how long that took.

        What is sampled is of no interest, and it is always the same letter: of the end of a text, or of a
        part of a character, the child tells no probabilities.
        """
        wish = {
            "prompt": tokens,
            "n_predict": 1,
            "n_probs": count,
            "temperature": 0,
            "logit_bias": [["a", 1000.0]],
            "cache_prompt": True,
            "stop": [],
        }
        reply = await self._post(child, "/completion", wish, _Distribution)
        if len(reply.completion_probabilities) != 1:
            raise GarbageError(f"{self._name} sent no probabilities of a next token.")
        found = reply.completion_probabilities[0].top_logprobs
        ids = tuple(token.id for token in found)
        logs = tuple(token.logprob for token in found)
        if not found or len(set(ids)) < len(ids) or not all(map(math.isfinite, logs)):
            raise GarbageError(f"{self._name} sent probabilities that are none.")
        pieces = tuple(bytes(token.bytes) for token in found)
        return Following(ids, logs, pieces), reply.timings.seconds

    async def answers(self, child: Process, body: Mapping[str, Any], count: int) -> Samples:
        """Several to one chat completion request, which asks for a stream with usage and for `count`.

        Their `usage.cpu_s` is how long all took. A stream ends at once when nobody reads it any more; an
        answer in one piece would be computed for another second.
        """
        heard = _Heard(count)
        response = await self._send(child, "/v1/chat/completions", body)
        try:
            async for received in response:
                heard.take(received)
        except UpstreamError as error:
            raise CutError(f"{self._name} broke off: {error}.") from None
        except (GarbageError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise GarbageError(f"{self._name} sent no answers: {error}.") from None
        finally:
            response.close()
        if not all(heard.finish_reasons):
            raise CutError(f"{self._name} ended without finishing its answers.")
        return heard.samples()

    async def _post(
        self, child: Process, path: str, fields: Mapping[str, Any], shape: type[_Reply]
    ) -> _Reply:
        """Raises: ExpertError; CutError where the child ended meanwhile."""
        response = await self._send(child, path, fields)
        try:
            return msgspec.json.decode(await response.whole(_REPLY_BYTES), type=shape)
        except UpstreamError as error:
            raise CutError(f"{self._name} broke off: {error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise GarbageError(f"{self._name} sent no scores: {error}.") from None

    async def _send(self, child: Process, path: str, fields: Mapping[str, Any]) -> Response:
        name = self._name
        if self._client.closed:
            raise UnavailableError(f"{name} cannot be asked: this node is closing.")
        headers = {"authorization": f"Bearer {child.key}", "content-type": "application/json"}
        try:
            response = await self._client.post(Target(child.url + path, headers), msgspec.json.encode(fields))
            if response.status == 200:
                return response
            said = error_text(await response.whole(_REPLY_BYTES))
        except UpstreamError as error:
            raise CutError(f"{name} broke off: {error}.") from None
        refused: type[ExpertError] = RefusedError if response.status < 500 else GarbageError
        raise refused(f"{name} answered with status {response.status}: {said}")


class _Heard:
    """Several answers as they come: an event holds a piece of one."""

    def __init__(self, count: int) -> None:
        self.finish_reasons = [""] * count
        self._pieces: list[list[str]] = [[] for _ in range(count)]
        self._log_likelihoods = [0.0] * count
        self._events = Events()
        self._read = self._said = 0
        self._seconds = 0.0

    def take(self, received: bytes) -> None:
        """Raises: GarbageError, and what decoding does."""
        for data in self._events.feed(received):
            if data == b"[DONE]":
                return
            event = msgspec.json.decode(data, type=_Event)
            if event.error:
                raise GarbageError(error_text(data))
            for choice in event.choices:
                if not 0 <= choice.index < len(self._pieces):
                    raise GarbageError(f"an answer {choice.index} that nobody asked for")
                self._pieces[choice.index].append(choice.delta.content or "")
                self.finish_reasons[choice.index] = choice.finish_reason or ""
                for token in (choice.logprobs.content or ()) if choice.logprobs else ():
                    known = _FLOOR if token.logprob is None else max(token.logprob, _FLOOR)
                    self._log_likelihoods[choice.index] += min(known, 0.0)
            if event.usage is not None:  # of each answer, when it has ended
                self._read = event.usage.prompt_tokens
                self._said += event.usage.completion_tokens
                self._seconds = max(self._seconds, event.timings.seconds)

    def samples(self) -> Samples:
        texts = tuple("".join(pieces) for pieces in self._pieces)
        usage = Usage(self._read, self._said, self._seconds)
        return Samples(texts, tuple(self.finish_reasons), usage, tuple(self._log_likelihoods))


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Written(msgspec.Struct):
    prompt: str


class _Likely(msgspec.Struct):
    id: int
    logprob: float
    bytes: list[Annotated[int, msgspec.Meta(ge=0, le=255)]] = []


class _Counted(msgspec.Struct):
    input_tokens: int


class _Token(msgspec.Struct):
    id: int
    logprob: float


class _Timings(msgspec.Struct, frozen=True):
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0

    @property
    def seconds(self) -> float:
        return (self.prompt_ms + self.predicted_ms) / 1000


class _Completion(msgspec.Struct):
    completion_probabilities: list[_Token] = []
    timings: _Timings = _Timings()


class _Likeliest(msgspec.Struct):
    top_logprobs: list[_Likely] = []


class _Distribution(msgspec.Struct):
    completion_probabilities: list[_Likeliest] = []
    timings: _Timings = _Timings()


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Said(msgspec.Struct, frozen=True):
    logprob: float | None = None  # none of a token that is next to impossible


class _Logprobs(msgspec.Struct, frozen=True):
    content: tuple[_Said, ...] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta = _Delta()
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings = _Timings()
    error: Any = None
