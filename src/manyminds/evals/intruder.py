"""One who means ill, by HTTPS, for `manyminds bench network`: run as a process, until it is ended.

`python -m manyminds.evals.intruder KIND PORT FOLDER`. Of `TAKEN` it has taken over the addresses of other
nodes, all at that port; of `FLOODS` it asks the node at that port, as fast as it may. FOLDER holds
certificate.pem and key.pem; for floods also card.json, of the node that is asked, and ask, one that it has
heard from somebody else. What was asked and answered is kept in its file `count`.
"""

import asyncio
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Final

import msgspec

from manyminds.network import card as cards
from manyminds.network import jws
from manyminds.network.ask import new_ask, seal_ask
from manyminds.network.card import PROTOCOL, Claim, Claims
from manyminds.network.http import ASK_PATH, CARD_PATH, event
from manyminds.network.identity import Identity

__all__ = ["FLOODS", "NODES", "OLD", "TAKEN", "main", "played", "shown"]

TAKEN: Final = ("impostor", "forger", "replayer", "large")
"""Shows the true card and answers in the node's place; shows others' cards and bent ones; shows a card older
than the true one, which was seen before; shows cards of 10 MB.
"""

FLOODS: Final = ("garbage", "forged", "replayed", "strangers")
"""Sends what cannot be opened; asks in the name of a peer that it is not; asks again what it has heard; asks
as ever new nodes, which nobody has listed.
"""

NODES: Final = 16
"""Whose addresses are taken over."""

OLD: Final = "as it was before"
"""How the older card describes its node."""

_LARGE: Final = b'{"name":"' + b"x" * 10_000_000 + b'"}'
_ASKS: Final = 2_000  # that are made beforehand
_CONNECTIONS: Final = 8
_EACH_S: Final = 0.016  # between two asks of one connection: 500 a second of all
_GARBAGE_BYTES: Final = 1_000


def played(number: int) -> Identity:
    """The keys of a node whose address is taken over, always the same: they guard nothing."""
    return Identity.of_seed(bytes([number + 1]) * 32)


async def main(kind: str, port: int, folder: Path) -> None:
    """Attacks until it is ended."""
    await (_serve(kind, port, folder) if kind in TAKEN else _flood(kind, port, folder))


# --- in others' places -------------------------------------------------------------------------------


async def _serve(kind: str, port: int, folder: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    by_path: dict[str, Iterator[bytes]] = {f"/{i}": shown(kind, played(i)) for i in range(NODES)}
    server = await asyncio.start_server(partial(_answer, by_path), "127.0.0.1", port, ssl=tls)
    print("ready", flush=True)
    await server.serve_forever()


def shown(kind: str, node: Identity) -> Iterator[bytes]:
    """What is shown as a node's card, one time after the other."""
    if kind == "forger":
        mine, true = Identity.generate(), _card(node)
        return cycle([_card(mine), true.replace(b"0.9", b"1.0")])
    if kind == "replayer":
        return cycle([_card(node, age_s=600.0, description=OLD)])
    return cycle([_LARGE if kind == "large" else _card(node)])


def _card(node: Identity, age_s: float = 0.0, description: str = "") -> bytes:
    now = time.time()
    says = Claims(
        *("", "", int(1000 * (now - age_s)), int(now) + 900, (PROTOCOL,)), claims=(Claim(0.9),), experts=1
    )
    return cards.made(node, says, name="friend", description=description)


async def _answer(
    by_path: dict[str, Iterator[bytes]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            await reader.readexactly(_size(head))
            kind, body = "application/json", b"{}"
            if path.endswith(CARD_PATH):
                body = next(by_path[path.removesuffix(CARD_PATH)])
            elif path.endswith(ASK_PATH):
                kind, body = "text/event-stream", _frames()
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n".encode())
            writer.write(f"content-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def _frames() -> bytes:
    """An answer of one who could not open the ask."""
    return b"".join(event(os.urandom(120), last=i == 7) for i in range(8))


def _size(head: str) -> int:
    lines = [line.partition(":") for line in head.lower().split("\r\n")]
    return next((int(value) for field, _, value in lines if field == "content-length"), 0)


# --- floods ------------------------------------------------------------------------------------------


async def _flood(kind: str, port: int, folder: Path) -> None:
    tls = ssl.create_default_context(cafile=folder / "certificate.pem")
    asks = cycle(_asks(kind, folder))
    counts = [0] * _CONNECTIONS
    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        for number in range(_CONNECTIONS):
            group.create_task(_ask(port, tls, asks, partial(_count, counts, number)))
        while True:
            await asyncio.sleep(0.1)
            (folder / "next").write_text(str(sum(counts)))
            (folder / "next").replace(folder / "count")  # whole, whenever it is read


def _count(counts: list[int], number: int) -> None:
    counts[number] += 1


def _asks(kind: str, folder: Path) -> list[bytes]:
    if kind == "garbage":
        return [os.urandom(_GARBAGE_BYTES) for _ in range(_ASKS)]
    heard = (folder / "ask").read_bytes()
    if kind == "replayed":
        return [heard]
    node = cards.read((folder / "card.json").read_bytes())
    peer = jws.base64url((folder / "peer").read_bytes())
    made = []
    for _ in range(_ASKS):
        stranger = Identity.generate()
        body = b'{"model":"auto","messages":[{"role":"user","content":"Say so."}],"max_tokens":1}'
        ask = new_ask(stranger, node.id, body, deadline_s=30, budget_usd=0, hops=0, visited=())
        if kind == "forged":
            ask = msgspec.structs.replace(ask, key=peer)
        made.append(seal_ask(stranger, ask, node.exchange))
    return made


async def _ask(port: int, tls: ssl.SSLContext, asks: Iterator[bytes], count: Callable[[], None]) -> None:
    """Over one connection, and another where that is closed."""
    while True:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="localhost"
        )
        try:
            while True:
                ask = next(asks)
                head = f"POST {ASK_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(ask)}\r\n\r\n"
                writer.write(head.encode() + ask)
                await _read(reader)
                count()
                await asyncio.sleep(_EACH_S)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(_EACH_S)
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> None:
    """One reply."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if "transfer-encoding: chunked" not in head.lower():
        await reader.readexactly(_size(head))
        return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
