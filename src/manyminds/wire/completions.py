"""Legacy text completions: their JSON to and from chat completions'. Knows no socket and no expert."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec

from manyminds.errors import GarbageError, InvalidRequestError, ManymindsError
from manyminds.types import Chunk, Query, Usage
from manyminds.wire.dialect import Dialect
from manyminds.wire.replies import completion, error_body, event, report_object, written
from manyminds.wire.requests import parse_request, read_body

__all__ = ["COMPLETIONS"]

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


# --- requests --------------------------------------------------------------------------------------


class _Request(msgspec.Struct):
    """What text completions ask that chat completions do not, or ask in other words."""

    prompt: str | list[Any] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    tools: list[Any] | None = None


_request = msgspec.json.Decoder(_Request)
_ONLY_HERE = frozenset({"prompt", "logprobs", "top_logprobs", "best_of", "echo", "suffix", "tools"})
_GAP = "<|gap|>"
_FILL = f"""\
The user sends a text in which {_GAP} marks a gap. Write what belongs into the gap, so that it fits what \
stands before and behind it, and nothing else: no quotation marks, no comment, nothing that is there."""


class _Asked(Query, frozen=True, eq=False):
    """A query whose answers begin with `echoed`."""

    echoed: str = ""


def _parse(raw: bytes, request_id: str) -> Query:
    request, fields = read_body(raw, _request)
    prompt = _prompt(request.prompt)
    if request.echo and request.logprobs:
        raise _wrong("logprobs", "of an echoed prompt are not known: leave out `echo`, or ask for none.")
    if request.best_of is not None and request.best_of > 1:
        raise _wrong("best_of", "is not supported: ask for `n` completions and choose among them.")
    if request.tools:
        raise _wrong("tools", "need POST /v1/chat/completions: a text completion cannot hold a tool call.")
    chat: dict[str, Any] = {name: value for name, value in fields.items() if name not in _ONLY_HERE}
    chat["messages"] = [{"role": "user", "content": prompt}]
    if request.suffix:
        gap = {"role": "user", "content": prompt + _GAP + request.suffix}
        chat["messages"] = [{"role": "system", "content": _FILL}, gap]
    if request.logprobs is not None:
        chat |= {"logprobs": True, "top_logprobs": request.logprobs}
    made = partial(_Asked, echoed=prompt) if request.echo else Query
    return parse_request(_encode(chat), request_id, made)


def _prompt(prompt: str | list[Any] | None) -> str:
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        raise _wrong("prompt", "is missing: send the text to continue.")
    if any(isinstance(one, int | list) for one in prompt):
        raise _wrong("prompt", "must be text: tokens mean something else to every expert.")
    if len(prompt) > 1:
        raise _wrong("prompt", f"holds {len(prompt)} prompts: send a request for each.")
    if not isinstance(prompt[0], str):
        raise _wrong("prompt", "must be text.")
    return prompt[0]


def _wrong(param: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"`{param}` {why}", param=param)


# --- replies ---------------------------------------------------------------------------------------


class _Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list["_Token"] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None
    refusal: list[_Token] | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    """A choice of a chat completion, or of an event of its stream."""

    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice] = []


_chat = msgspec.json.Decoder(_Chat)
_SHARED = ("model", "system_fingerprint")  # by all events of a stream
_NOT_RELAYED = frozenset({"id", "object", "created", "choices", "usage", "timings", "manyminds"})


class _Reply:
    """A text completion being written."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._head: dict[str, Any] = {
            "id": f"cmpl-{query.request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": query.model,
        }
        self._echoed = query.echoed if isinstance(query, _Asked) else ""
        self._begun: set[int] = set()  # choices that have said something, if only the prompt
        self._offsets: dict[int, int] = {}  # by choice: where in its text the next token begins

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        last = chunks[-1]
        chat = last.raw if last.whole else completion(chunks, self._query, self._query.model)
        said = self._translated(chat)
        if not said["choices"]:
            raise GarbageError("a chat completion without choices")
        return _encode(said | {"usage": _usage_object(last.usage)} | _report(last))

    def events(self, chunk: Chunk) -> bytes:
        said = self._translated(written(chunk, self._query, self._query.model))
        if chunk.finish_reason is None:
            return event(_encode(said)) if said["choices"] else b""
        if not self._query.include_usage:
            return event(_encode(said | _report(chunk))) + _DONE
        tail = self._head | {"choices": [], "usage": _usage_object(chunk.usage)} | _report(chunk)
        return event(_encode(said)) + event(_encode(tail)) + _DONE

    def failed(self, error: ManymindsError) -> bytes:
        return event(error_body(error))

    def _translated(self, chat: bytes) -> dict[str, Any]:
        """A chat completion, or an event of one's stream, as a text completion without its usage."""
        try:
            choices, fields = _chat.decode(chat).choices, _object.decode(chat)
        except (msgspec.DecodeError, RecursionError) as error:
            raise GarbageError(f"no chat completion: {error!s:.300}") from None
        said = {name: value for name, value in fields.items() if name not in _NOT_RELAYED}
        self._head |= {name: said[name] for name in _SHARED if name in said}
        return self._head | said | {"choices": [self._choice(choice) for choice in choices]}

    def _choice(self, choice: _Choice) -> dict[str, Any]:
        said = choice.delta or choice.message or _Said()
        echoed = "" if choice.index in self._begun else self._echoed
        self._begun.add(choice.index)
        return {
            "index": choice.index,
            "text": echoed + (said.content or "") + (said.refusal or ""),
            "logprobs": self._logprobs(choice),
            "finish_reason": choice.finish_reason,
        }

    def _logprobs(self, choice: _Choice) -> dict[str, Any] | None:
        """The legacy shape: lists side by side, one entry a token. Offsets count from the text's start."""
        if choice.logprobs is None:
            return None
        tokens = [*(choice.logprobs.content or ()), *(choice.logprobs.refusal or ())]
        if not tokens:
            return None
        offsets = [self._offsets.get(choice.index, len(self._echoed))]
        for token in tokens:
            offsets.append(offsets[-1] + len(token.token))
        self._offsets[choice.index] = offsets.pop()
        tops = [{top.token: top.logprob for top in token.top_logprobs or ()} for token in tokens]
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": tops if any(tops) else None,
            "text_offset": offsets,
        }


_DONE = event(b"[DONE]")


def _usage_object(usage: Usage | None) -> dict[str, int]:
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _report(last: Chunk) -> dict[str, Any]:
    return {"manyminds": report_object(last.report)} if last.report else {}


def _refuse(error: ManymindsError, request_id: str) -> tuple[int, bytes]:
    return error.status, error_body(error)


COMPLETIONS = Dialect(parse=_parse, reply=_Reply, refuse=_refuse)
