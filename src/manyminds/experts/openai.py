"""Any OpenAI-compatible URL as an expert. Knows no vendor: what differs is on the card.

Upstream is always asked for a stream, so that closing the generator closes the connection, at any moment.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import aiohttp

from manyminds.errors import CutError, ExpertError, GarbageError, RefusedError, UnavailableError
from manyminds.types import Card, Chunk, Query, Usage
from manyminds.wire import Events, error_text, parse_chunk, request_body

__all__ = ["OpenAI"]

_ERROR_BYTES = 64_000  # read of an error body
_BROKEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)


class OpenAI:
    """An expert behind `POST {url}/chat/completions`; keeps the contract of `types.Expert`.

    Args:
        card: its `model` is the name sent upstream, its prices make the cost.
        url: the base URL, such as `http://127.0.0.1:11434/v1`.
        session: shared between experts; the owner closes it. It must not have a total timeout.
        key: sent as a bearer token; never shown.
    """

    def __init__(self, card: Card, url: str, session: aiohttp.ClientSession, key: str | None = None) -> None:
        self._card = card
        self._url = url.rstrip("/") + "/chat/completions"
        self._session = session
        self._headers = {"content-type": "application/json", "accept": "text/event-stream"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    @property
    def card(self) -> Card:
        return self._card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        name = self._card.name
        body = request_body(query, self._card.model or name)
        try:
            async with await self._post(body) as response:
                await self._refuse_bad(response)
                async with aclosing(self._chunks(response)) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except ExpertError:
            raise
        except aiohttp.ClientConnectorError as error:
            raise UnavailableError(f"{name} cannot be reached: {error.strerror or error.os_error}.") from None
        except (aiohttp.ClientPayloadError, *_BROKEN) as error:
            raise CutError(f"{name} broke off: {str(error) or type(error).__name__}.") from None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise GarbageError(f"{name} does not speak the protocol: {error!r:.200}.") from None

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        """Sends the request; again, once, where a kept connection turns out to have been closed."""
        try:
            return await self._session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False
            )
        except aiohttp.ClientConnectorError:
            raise
        except _BROKEN:
            return await self._session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False
            )

    async def _refuse_bad(self, response: aiohttp.ClientResponse) -> None:
        name, status = self._card.name, response.status
        if status == 200:
            if response.content_type != "text/event-stream":
                raise GarbageError(f"{name} was asked for a stream and sent {response.content_type!r:.80}.")
            return
        text = error_text(await response.content.read(_ERROR_BYTES))
        if status in (408, 425, 429) or status >= 500:
            raise UnavailableError(f"{name} answered with status {status}: {text}")
        raise RefusedError(f"{name} answered with status {status}: {text}")

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Chunk, None]:
        """Chunks as they come; the finish is held back until the usage, which follows it, is known."""
        finish: Chunk | None = None
        usage: Usage | None = None
        async with aclosing(_data(response)) as events:
            async for data in events:
                chunk = parse_chunk(data)
                usage = chunk.usage or usage
                if not chunk.raw:
                    continue
                if finish is not None:  # of several choices, another one goes on
                    yield replace(finish, finish_reason=None)
                    finish = None
                if chunk.finish_reason is None:
                    yield replace(chunk, usage=None)
                else:
                    finish = chunk
        if finish is None:
            raise CutError(f"{self._card.name} ended its stream without finishing its answer.")
        yield replace(finish, usage=self._priced(usage or Usage()))

    def _priced(self, usage: Usage) -> Usage:
        card = self._card
        cost = (
            usage.prompt_tokens * card.price_in_usd_per_m + usage.completion_tokens * card.price_out_usd_per_m
        )
        return replace(usage, cost_usd=cost / 1e6 + usage.cpu_s * card.price_cpu_usd_per_hour / 3600)


async def _data(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The data of each event up to `[DONE]`, which may be missing."""
    events = Events()
    async for received in response.content.iter_any():
        for data in events.feed(received):
            if data == b"[DONE]":
                return
            yield data
