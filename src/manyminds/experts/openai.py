"""Any OpenAI-compatible URL as an expert. Knows no vendor: what differs is on the card.

Upstream is always asked for a stream, so that closing the generator closes the connection, at any moment.
"""

import io
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import aiohttp

from manyminds.errors import (
    CutError,
    ExpertError,
    GarbageError,
    RefusedError,
    RejectedError,
    SlowError,
    UnavailableError,
)
from manyminds.types import Card, Chunk, Query, Usage
from manyminds.wire import Events, error_text, parse_chunk, request_body

__all__ = ["OpenAI", "trace"]

_ERROR_BYTES = 64_000  # read of an error body
_MESSAGE = 400  # characters shown of an error
_AT_FAULT = (400, 413, 415, 422)  # the request is; with 401, 403, 404 and the like, this node's settings
_BROKEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)


@dataclass(slots=True)
class _Sending:
    """One try of a request."""

    on_kept: bool = False  # on a connection that an earlier request had opened


def trace() -> aiohttp.TraceConfig:
    """What a session needs so that experts know a kept connection from a new one."""

    async def reused(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
        if isinstance(context.trace_request_ctx, _Sending):
            context.trace_request_ctx.on_kept = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(reused)
    return config


class OpenAI:
    """An expert behind `POST {url}/chat/completions`; keeps the contract of `types.Expert`.

    Args:
        card: its `model` is the name sent upstream, its prices make the cost.
        url: the base URL, such as `http://127.0.0.1:11434/v1`.
        session: shared between experts; the owner closes it. It must not have a total timeout. With
            `trace()`, a request whose kept connection had been closed is sent once more.
        key: sent as a bearer token; never shown.
    """

    def __init__(self, card: Card, url: str, session: aiohttp.ClientSession, key: str | None = None) -> None:
        self._card = card
        self._url = url.rstrip("/") + "/chat/completions"
        self._session = session
        self._key = (key or "").strip()
        self._headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",  # what compresses a stream holds it back
        }
        if self._key:
            self._headers["authorization"] = f"Bearer {self._key}"

    @property
    def card(self) -> Card:
        return self._card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        body = request_body(query, self._card.model or self._card.name)
        try:
            async with await self._post(body) as response:
                await self._refuse_bad(response)
                async with aclosing(self._chunks(response, query)) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except (ExpertError, aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> ExpertError:
        """What any failure of the layers below is to callers; shows neither key nor request."""
        name = self._card.name
        match error:
            case ExpertError():
                return type(error)(self._shown(error.message))
            case aiohttp.ConnectionTimeoutError():
                return UnavailableError(f"{name} cannot be reached in time.")
            case aiohttp.ClientConnectorError():
                return UnavailableError(f"{name} cannot be reached: {self._shown(_reason(error))}.")
            case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
                return UnavailableError(f"{name} cannot be reached: its URL is wrong.")
            case TimeoutError():
                return SlowError(f"{name} passed a time limit of its connection.")
            case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
                return CutError(f"{name} broke off: {self._shown(_reason(error))}.")
            case aiohttp.ClientConnectionError():
                return UnavailableError(f"{name} cannot be reached: {self._shown(_reason(error))}.")
            case _:
                return GarbageError(f"{name} does not speak the protocol: {self._shown(_reason(error))}.")

    def _shown(self, text: str) -> str:
        """What may be shown of a text from below: servers repeat the keys they refuse."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:_MESSAGE]

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        """Sends the request; again, once, where a kept connection turns out to have been closed.

        Never where a new one broke off: what is paid for may have been done.
        """
        if self._session.closed:
            raise UnavailableError(f"{self._card.name} cannot be asked: this node is closing.")
        sending = _Sending()
        try:
            return await self._send(body, sending)
        except _BROKEN as error:
            if not sending.on_kept or isinstance(error, aiohttp.ClientConnectorError):
                raise
            return await self._send(body, _Sending())

    async def _send(self, body: bytes, sending: _Sending) -> aiohttp.ClientResponse:
        return await self._session.post(
            self._url,
            data=io.BytesIO(body),  # large ones are sent piece by piece
            headers=self._headers,
            allow_redirects=False,
            trace_request_ctx=sending,
        )

    async def _refuse_bad(self, response: aiohttp.ClientResponse) -> None:
        name, status = self._card.name, response.status
        if status == 200 and response.content_type == "text/event-stream":
            return
        said = await _said(response)
        if status == 200:
            kind = f"{response.content_type!r:.80}"
            raise GarbageError(f"{name} was asked for a stream and sent {kind}: {said}")
        if status in _AT_FAULT:
            raise RefusedError(f"{name} answered with status {status}: {said}")
        if status in (408, 425, 429) or status >= 500:
            raise UnavailableError(f"{name} answered with status {status}: {said}")
        raise RejectedError(
            f"{name} answered with status {status}, which this node's owner must mend: {said}"
        )

    async def _chunks(self, response: aiohttp.ClientResponse, query: Query) -> AsyncGenerator[Chunk, None]:
        """Chunks as they come; the finish is held back until the usage, which follows it, is known.

        So is an opening without a word, which only names the role: nothing is said yet. Usage that never
        comes is estimated, rather high than low.
        """
        pieces = size = 0
        opening: Chunk | None = None
        begun = False
        finish: Chunk | None = None
        usage: Usage | None = None
        async with aclosing(self._events(response)) as events:
            async for chunk in events:
                usage = chunk.usage or usage
                if not chunk.raw:
                    continue
                pieces += bool(chunk.text)
                size += len(chunk.text.encode())
                if not begun and not chunk.text and chunk.finish_reason is None:
                    opening, begun = replace(chunk, usage=None), True
                    continue
                begun = True
                if opening is not None:
                    yield opening
                    opening = None
                if finish is not None:  # of several choices, another one goes on
                    yield replace(finish, finish_reason=None)
                    finish = None
                if chunk.finish_reason is None:
                    yield replace(chunk, usage=None)
                else:
                    finish = chunk
        if finish is None:
            raise CutError(f"{self._card.name} ended its stream without finishing its answer.")
        usage = usage or Usage(query.estimated_tokens, max(pieces, size // 4))
        yield replace(finish, usage=self._priced(usage))

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Chunk, None]:
        """Each event up to `[DONE]`, which may be missing."""
        events = Events()
        async for received in response.content.iter_any():
            try:
                for data in events.feed(received):
                    if data == b"[DONE]":
                        return
                    yield parse_chunk(data)
            except GarbageError as error:
                raise GarbageError(f"{self._card.name} sent {error.message}") from None

    def _priced(self, usage: Usage) -> Usage:
        card = self._card
        cost = (
            usage.prompt_tokens * card.price_in_usd_per_m + usage.completion_tokens * card.price_out_usd_per_m
        )
        return replace(usage, cost_usd=cost / 1e6 + usage.cpu_s * card.price_cpu_usd_per_hour / 3600)


def _reason(error: Exception) -> str:
    """Never the repr: aiohttp puts the request's headers into some of them, and URLs into their text."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message or type(error).__name__
    if isinstance(error, aiohttp.ServerDisconnectedError):  # its text may be all headers of the response
        return "the server disconnected"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


async def _said(response: aiohttp.ClientResponse) -> str:
    """The start of a body that is no stream, as text; as much of it as comes."""
    raw = b""
    with suppress(aiohttp.ClientError, OSError):  # the status says enough
        async for received in response.content.iter_any():
            raw += received
            if len(raw) >= _ERROR_BYTES:
                break
    return error_text(raw[:_ERROR_BYTES]) or "nothing more"
