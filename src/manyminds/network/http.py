"""HTTPS and server-sent events as a way to nodes of other organisations, at addresses that were agreed on.

An address comes from this node's owner, never from a card, and no redirect is followed.
"""

import asyncio
import base64
import binascii
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Final

from manyminds.errors import ExpertError, GarbageError, ManymindsError, UnavailableError
from manyminds.network.card import CARD_BYTES
from manyminds.network.frames import FRAME_BYTES
from manyminds.network.transport import Sighting, pack
from manyminds.upstream import Client, ConnectError, Response, Target, TargetError, UpstreamError
from manyminds.wire import Events, error_text

__all__ = ["ASK_PATH", "CARD_PATH", "TELL_PATH", "Http", "event", "fetch_card"]

CARD_PATH: Final = "/.well-known/agent-card.json"
ASK_PATH: Final = "/network/v1/ask"
TELL_PATH: Final = "/network/v1/tell"

_DONE: Final = b"[DONE]"
_POLL_S: Final = 10.0  # between two looks at a card, give or take a fifth
_CARD_S: Final = 5.0
_WAITING: Final = 1000  # of what is to be told to one node; more gets lost
_ERROR_BYTES: Final = 4096
_LINE_BYTES: Final = 4 * FRAME_BYTES // 3 + 64

log = logging.getLogger(__name__)


def event(frame: bytes, *, last: bool) -> bytes:
    """A frame as a server-sent event; behind the last one comes another that says so, to whoever reads on."""
    data = b"data: " + base64.b64encode(frame) + b"\n\n"
    return data + b"data: " + _DONE + b"\n\n" if last else data


async def fetch_card(client: Client, url: str) -> bytes:
    """The card that is shown at an address, unchecked. Raises: ExpertError."""
    try:
        async with asyncio.timeout(_CARD_S):
            response = await client.get(Target(url + CARD_PATH, {"accept": "application/json"}))
            try:
                if response.status != 200:
                    said = f"status {response.status}: {await _said(response)}"
                    raise UnavailableError(f"{url} shows no card ({said}).")
                return await response.whole(CARD_BYTES)
            finally:
                response.close()
    except TimeoutError:
        raise UnavailableError(f"{url} shows no card: nothing within {_CARD_S:g} s.") from None
    except TargetError as error:
        raise UnavailableError(f"{url} is no address: {error}.") from None
    except UpstreamError as error:
        raise UnavailableError(f"{url} shows no card: {error}.") from None


class Http:
    """Keeps the contract of `transport.Transport`. Use with `async with`.

    Args:
        client: shared; the owner closes it.
    """

    notices = True

    def __init__(self, client: Client) -> None:
        self._client = client
        self._urls: dict[str, str] = {}
        self._targets: dict[str, Target] = {}
        self._sightings: asyncio.Queue[Sighting] = asyncio.Queue()
        self._polling: dict[str, asyncio.Task[None]] = {}
        self._untold: dict[str, list[bytes]] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "Http":
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._telling.values(), *self._polling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def direct(self, urls: Mapping[str, str]) -> None:
        """These are the nodes from now on: addresses by node id, without a path of ours."""
        for node in self._urls.keys() - {node for node in urls if urls[node] == self._urls.get(node)}:
            self._polling.pop(node).cancel()
            self._sightings.put_nowait(Sighting(node))
        self._urls = dict(urls)
        self._targets.clear()
        for node in urls.keys() - self._polling.keys():
            self._polling[node] = asyncio.create_task(self._poll(node))

    async def ask(self, node: str, sealed: bytes) -> AsyncGenerator[bytes, None]:
        """See `transport.Transport`."""
        try:
            response = await self._client.post(self._target(node), sealed)
            try:
                if response.status != 200 or response.content_type != "text/event-stream":
                    raise _refused(node, response, await _said(response))
                events = Events(_LINE_BYTES)
                async for received in response:
                    found = list(events.feed(received))
                    if found and found[-1] == _DONE:
                        response.release()
                    for data in found:
                        if data == _DONE:
                            return
                        with suppress(binascii.Error, ValueError):
                            yield base64.b64decode(data, validate=True)
            finally:
                response.close()
        except ConnectError as error:
            raise UnavailableError(f"{node} cannot be reached: {error}.") from None
        except UpstreamError as error:
            raise UnavailableError(f"{node} broke off: {error}.") from None

    def tell(self, node: str, ask_id: str, sealed: bytes) -> None:
        """See `transport.Transport`."""
        waiting = self._untold.setdefault(node, [])
        if len(waiting) < _WAITING:
            waiting.append(pack(ask_id, sealed))
        if node not in self._telling or self._telling[node].done():
            self._telling[node] = asyncio.create_task(self._tell(node))

    def announce(self, card: bytes) -> None:
        """See `transport.Transport`: whoever wants to see it asks this node's own edge."""

    async def watch(self) -> AsyncGenerator[Sighting, None]:
        """See `transport.Transport`."""
        while True:
            yield await self._sightings.get()

    async def _poll(self, node: str) -> None:
        """Looks at a node's card now and again."""
        while True:
            try:
                found = Sighting(node, await fetch_card(self._client, self._urls[node]))
            except ExpertError as error:
                log.info("%s", error)
                found = Sighting(node)
            self._sightings.put_nowait(found)
            await asyncio.sleep(_POLL_S * random.uniform(0.8, 1.2))  # noqa: S311 - not all at once

    async def _tell(self, node: str) -> None:
        """Sends what is to be told to one node, in order, until there is no more."""
        waiting = self._untold[node]
        while waiting:
            sent = waiting.pop(0)
            try:
                async with asyncio.timeout(_CARD_S):
                    response = await self._client.post(self._target(node, TELL_PATH), sent)
                    await response.whole(_ERROR_BYTES)
                    response.release()
            except (TimeoutError, UpstreamError, ManymindsError) as error:
                log.info("%s was not told: %s", node, error)
                waiting.clear()

    def _target(self, node: str, path: str = ASK_PATH) -> Target:
        if node not in self._urls:
            raise UnavailableError(f"{node} has no address that this node knows.")
        made = self._targets.get(node + path)
        if made is None:
            headers = {"content-type": "application/octet-stream", "accept": "text/event-stream"}
            made = self._targets[node + path] = Target(self._urls[node] + path, headers)
        return made


def _refused(node: str, response: Response, said: str) -> ExpertError:
    if response.status == 200:
        return GarbageError(f"{node} was asked for a stream and sent something else: {said}")
    return UnavailableError(f"{node} answered with status {response.status}: {said}")


async def _said(response: Response) -> str:
    raw = b""
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(0.5):
            async for received in response:
                raw += received
                if len(raw) >= _ERROR_BYTES:
                    break
    return error_text(raw[:_ERROR_BYTES])[:400] or "nothing more"
