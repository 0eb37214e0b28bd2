"""A node's address, and what goes there and comes back, byte by byte."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.upstream import Upstream
from tests.e2e.node import Served

__all__ = [
    "MODES",
    "PANEL",
    "QUESTION",
    "Got",
    "Mode",
    "Stream",
    "address",
    "configured",
    "data",
    "post",
    "request",
    "send",
    "text",
]

PANEL = ["a", "b", "c"]
OFFERS = '["tools", "json_schema", "image", "logprobs", "n"]'
QUESTION = "Why do cats purr?"


@dataclass(frozen=True)
class Mode:
    """How a question is put: what its body has besides the question."""

    name: str
    model: str
    asks: Sequence[str]  # models upstream that are asked
    more: Mapping[str, Any] = field(default_factory=dict)

    def body(self, question: Any = QUESTION, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": question}]
        return {"model": self.model, "messages": messages} | dict(self.more) | more

    def asking(self, question: Any = QUESTION, **more: Any) -> dict[str, Any]:
        """The same as arguments of OpenAI's client."""
        extra = dict(self.more) | more.pop("extra_body", {})
        messages = [{"role": "user", "content": question}]
        return {"model": self.model, "messages": messages, "extra_body": extra} | more


_RACE = {"manyminds": {"strategy": "race"}}
MODES = {
    "pass_through": Mode("pass_through", "a", ["a"]),
    "fan_out": Mode("fan_out", "auto", PANEL),
    "race": Mode("race", "auto", PANEL, _RACE),
}


def configured(folder: Path, upstream: Upstream, policy: str = "") -> None:
    """Writes a configuration: three experts that can do all, one that only talks, one that is down."""
    tables = [f"[policy]\n{policy}\n" if policy else ""]
    for name, accuracy, offers, url in (
        ("a", 0.8, OFFERS, upstream.url),
        ("b", 0.7, OFFERS, upstream.url),
        ("c", 0.6, OFFERS, upstream.url),
        ("plain", 0.2, "[]", upstream.url),
        ("down", 0.1, "[]", "http://127.0.0.1:9/v1"),
    ):
        keys = f'name = "{name}"\nurl = "{url}"\nmodel = "{name}"\naccuracy = {accuracy}\noffers = {offers}\n'
        tables.append(f"[[expert]]\n{keys}")
    (folder / "manyminds.toml").write_text("\n".join(tables))


# --- requests and replies --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Got:
    """A reply as it came."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


def address(node: Served) -> tuple[str, int]:
    host, port = node.url.removeprefix("http://").removesuffix("/v1").split(":")
    return host, int(port)


def send(node: Served, method: str, path: str, body: bytes | None = None, **headers: str) -> Got:
    """One request on a connection of its own; `headers` with _ for -."""
    connection = http.client.HTTPConnection(*address(node), timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, named)
        reply = connection.getresponse()
        fields = {name.lower(): value for name, value in reply.getheaders()}
        return Got(reply.status, fields, reply.read())
    finally:
        connection.close()


def post(node: Served, body: Mapping[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Got:
    return send(node, "POST", path, json.dumps(body).encode(), content_type="application/json", **headers)


def request(body: Mapping[str, Any], *more: str, path: str = "/v1/chat/completions") -> bytes:
    """The bytes of a request, with more lines in its head."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(content)}", *more, "", ""]
    return "\r\n".join(lines).encode() + content


class Stream:
    """The events of a reply as they come, on a connection of its own. Use with `with`."""

    def __init__(self, node: Served, body: Mapping[str, Any], path: str = "/v1/chat/completions") -> None:
        self._connection = http.client.HTTPConnection(*address(node), timeout=30)
        self._connection.request("POST", path, json.dumps(body).encode())
        self._reply: http.client.HTTPResponse | None = None

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def reply(self) -> http.client.HTTPResponse:
        if self._reply is None:
            self._reply = self._connection.getresponse()
        return self._reply

    def event(self) -> bytes:
        """The next event or comment without the blank line at its end; empty at the end of the stream."""
        lines = []
        while line := self.reply.readline():
            if line == b"\n":
                break
            lines.append(line)
        return b"".join(lines).rstrip(b"\n")

    def events(self) -> Iterator[bytes]:
        return iter(self.event, b"")

    def close(self) -> None:
        """The client goes away, whatever is still to come."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        if self._reply is not None:
            self._reply.close()
        self._connection.close()


def data(raw: bytes) -> list[Any]:
    """The data of the events in a whole body: JSON, or the text that is none. Strict about their form."""
    *events, rest = raw.split(b"\n\n")
    assert rest == b""
    found: list[Any] = []
    for event in events:
        lines = event.split(b"\n")
        if lines[0].startswith(b": "):
            continue
        *kinds, last = lines
        assert all(kind.startswith(b"event: ") for kind in kinds)
        assert last.startswith(b"data: ")
        found.append("[DONE]" if last == b"data: [DONE]" else json.loads(last[6:]))
    return found


def text(events: Sequence[Any], index: int = 0) -> str:
    """What a choice says in the events of a chat completion."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        if event != "[DONE]"
        for choice in event["choices"]
        if choice["index"] == index
    )
