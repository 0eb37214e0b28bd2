"""Cases 30 and 31: the many forms that servers give to server-sent events."""

import json
from typing import Any

import pytest

from tests.conformance.edge import Mode, data, post, text
from tests.conformance.upstream import Part, Play, Upstream, chunk
from tests.e2e.node import Served
from tests.experts.upstream import Act

SAID = "Caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{CAT FACE}\N{ZERO WIDTH JOINER}\N{PILCROW SIGN}\u2028 ok"
EVENTS = [
    chunk("a", {"role": "assistant", "content": ""}),
    *(json.dumps(json.loads(chunk("a", {"content": c})), ensure_ascii=False).encode() for c in SAID),
    chunk("a", {}, "stop"),
]
PLAIN = b"".join(b"data: " + event + b"\n\n" for event in (*EVENTS, b"[DONE]"))


def until_closed(*parts: Part, kind: str = "text/event-stream; charset=utf-8") -> Play:
    """A stream whose end is that of its connection."""
    opened = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode()
    return lambda body: [opened, *parts, Act.CLOSE]


def check_said(node: Served, mode: Mode, said: str) -> None:
    got = post(node, mode.body(stream=True))
    *events, done = data(got.body)
    assert (got.status, done) == (200, "[DONE]")
    assert text(events) == said
    assert [c.get("finish_reason") for e in events for c in e["choices"]][-1] == "stop"
    assert post(node, mode.body()).json["choices"][0]["message"]["content"] == said


FORMS = {
    "crlf": PLAIN.replace(b"\n", b"\r\n"),
    "comments": b": hello\n\n:\n\n" + PLAIN.replace(b"\n\n", b"\n: ping\n\n:pong\n\n"),
    "no_space": PLAIN.replace(b"data: ", b"data:"),
    "no_done": PLAIN.removesuffix(b"data: [DONE]\n\n"),
    "nothing_after_done": PLAIN.rstrip(b"\n") + b"\n\n",
    "names_and_ids": PLAIN.replace(b"data: ", b"event: message\nid: 7\nretry: 10\ndata: "),
    "many_blank_lines": b"\n\n\n" + PLAIN.replace(b"\n\n", b"\n\n\n\n"),
    "empty_data": b"data:\n\n" + PLAIN,
    "several_lines": PLAIN.replace(b', "object"', b',\ndata: "object"'),
    "padded": PLAIN.replace(b"data: {", b"data:   {").replace(b"}\n", b"} \t\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_30_every_form_of_event_is_read(node: Served, upstream: Upstream, live: Mode, form: str) -> None:
    upstream.play(until_closed(FORMS[form]))
    check_said(node, live, SAID)


@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream;charset=UTF-8"])
def test_30_content_type_may_have_parameters(node: Served, upstream: Upstream, mode: Mode, kind: str) -> None:
    upstream.play(until_closed(PLAIN, kind=kind))
    check_said(node, mode, SAID)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_31_characters_and_events_may_be_split_anywhere(
    node: Served, upstream: Upstream, live: Mode, size: int
) -> None:
    pieces = [PLAIN[at : at + size] for at in range(0, len(PLAIN), size)]
    upstream.play(until_closed(*pieces))
    check_said(node, live, SAID)


def test_31_an_event_of_a_megabyte(node: Served, upstream: Upstream, live: Mode) -> None:
    said = "\N{CAT FACE} purr \\ \n" * 80_000
    opened, *_, last = EVENTS
    large = json.dumps({"choices": [{"index": 0, "delta": {"content": said}}]}, ensure_ascii=False).encode()
    assert len(large) > 1_000_000
    upstream.play(until_closed(*(b"data: " + event + b"\n\n" for event in (opened, large, last, b"[DONE]"))))
    check_said(node, live, said)


@pytest.mark.parametrize("name", ["pass_through", "race"])
def test_31_an_endless_event_is_garbage(node: Served, upstream: Upstream, name: str) -> None:
    upstream.play(until_closed(b"data: " + EVENTS[0] + b"\n\ndata: ", *[b"x" * 1_000_000] * 5))
    more: dict[str, Any] = {} if name == "pass_through" else {"manyminds": {"strategy": "race"}}
    body = {"model": "auto" if more else "a", "messages": [{"role": "user", "content": "Why?"}]}
    got = post(node, body | {"stream": True} | more)
    assert got.status in (502, 503)
    assert "4000000 bytes" in got.error["message"]
