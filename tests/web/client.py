"""Calls an application over a connection of its own, as a client would; in virtual time where the loop is."""

import asyncio
from dataclasses import dataclass, field

from manyminds.alarm import Alarm
from manyminds.web.connection import Connection, Serve


@dataclass
class Reply:
    """What came back, and the pieces of its body."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class Wire(asyncio.Transport):
    """The client's end of the network: keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = asyncio.Event()
        self.came = asyncio.Event()
        self.paused = False
        self.ended = False  # the server sends no more, and may still read
        self.protocol: Connection | None = None

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        if not self.closed.is_set():
            self.sent += data
            self.came.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self.came.set()
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def connect(app: Serve) -> tuple[Wire, Connection]:
    """A new connection."""
    wire, connection = Wire(), Connection(app, Alarm(), set())
    wire.protocol = connection
    connection.connection_made(wire)
    return wire, connection


async def call(
    app: Serve,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    gone_after_s: float | None = None,
    pause_s: float = 0.0,
    ended_after_s: float | None = None,
) -> Reply:
    """One request. The client leaves after `gone_after_s`, else when it has everything.

    It waits `pause_s` before the second half of the body. The server is ended after `ended_after_s`.
    """
    wire, connection = connect(app)
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in (headers or {}).items())]
    names = {name.lower() for name in headers or {}}
    if "host" not in names:
        lines.append("host: 127.0.0.1")
    if body and "content-length" not in names:
        lines.append(f"content-length: {len(body)}")
    head = "\r\n".join([*lines, "", ""]).encode()
    connection.data_received(head + body[: len(body) // 2])
    tasks, loop = connection.tasks, asyncio.get_running_loop()

    def send_rest() -> None:
        if body and not wire.closed.is_set():
            connection.data_received(body[len(body) // 2 :])

    def end() -> None:
        for task in tasks:
            task.cancel()

    timers = [loop.call_later(pause_s, send_rest)]
    if gone_after_s is not None:
        timers.append(loop.call_later(gone_after_s, connection.connection_lost, None))
    if ended_after_s is not None:
        timers.append(loop.call_later(ended_after_s, end))
    await asyncio.wait(tasks)
    for timer in timers:
        timer.cancel()
    wire.close()
    return parsed(wire.sent)


def parsed(sent: bytes) -> Reply:
    """A reply as it was sent."""
    head, _, rest = sent.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first:
        return Reply()
    headers = dict(line.split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") != "chunked":
        return Reply(int(first.split()[1]), headers, [rest] if rest else [])
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length:
            parts.append(rest[:length])
        rest = rest[length + 2 :]
    return Reply(int(first.split()[1]), headers, parts)
