"""`manyminds federate` and `join`, as a person calls them; the other node is a small server."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from manyminds.cli.join import _address
from manyminds.config import ADDED, load
from manyminds.network import card
from manyminds.network.card import Claims, Terms
from manyminds.network.http import CARD_PATH
from manyminds.network.identity import Identity, read_or_make

BOB, EVE = (Identity.of_seed(bytes([i]) * 32) for i in range(2))


def manyminds(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def shown(node: Identity = BOB, name: str = "bob", **more: Any) -> bytes:
    now = int(time.time())
    says = Claims("", "", now, now + 900, (1,), experts=3, price_out_usd_per_m=0.5)
    return card.made(node, says, name=name, **({"words": ["law"]} | more))


@contextmanager
def serving(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == CARD_PATH
            self.send_response(status if known else 404)
            self.send_header("content-length", str(len(body) if known else 0))
            self.send_header("location", "http://127.0.0.1:9/")
            self.end_headers()
            self.wfile.write(body if known else b"")

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def peers(home: Path) -> list[tuple[str, str, str]]:
    found = load(None, {"MANYMINDS_HOME": str(home / "home"), "MANYMINDS_LOCAL_TIER": "none"}, {})
    return [(entry.name, entry.id, entry.url) for entry in found.peers]


def test_a_node_is_a_peer_by_its_url(home: Path) -> None:
    with serving(shown()) as url:
        result = manyminds(
            "federate", f"{url}/", "--pay-usd", "5", "--speaks-for", "--treats", "--no-answers"
        )
        assert result.exit_code == 0, result.output
        assert peers(home) == [("bob", BOB.id, url)]
        assert "law" in result.stdout
        assert BOB.id in result.stdout
        own = read_or_make(home / "home").id
        assert f"This node's id is {own}" in result.stderr
        (entry,) = load(None, {"MANYMINDS_HOME": str(home / "home")}, {}).peers
        assert (entry.pay_usd, entry.speaks_for, entry.answers, entry.asks) == (5.0, True, False, True)
        assert entry.treats
        again = manyminds("federate", url)
        assert again.exit_code == 1
        assert "federate --remove bob" in again.stderr


def test_what_a_node_demands_is_shown(home: Path) -> None:
    now, terms = int(time.time()), Terms(("research",), max_share=0.25, budget_nats=20.0)
    says = Claims("", "", now, now + 900, (1,), terms=terms)
    with serving(card.made(BOB, says, name="bob")) as url:
        found = json.loads(manyminds("federate", url, "--json").stdout)["card"]
    assert (found["purposes"], found["max_share"]) == ("research", 0.25)
    assert found["moves_answers_by"] == "20 nats (month)"


def test_a_node_that_only_asks_is_a_peer_by_its_id(home: Path) -> None:
    assert manyminds("federate", BOB.id).exit_code == 2
    result = manyminds("federate", BOB.id, "--name", "rob", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["name"], said["id"], said["card"]) == ("rob", BOB.id, None)
    assert said["own_id"] not in (BOB.id, "")
    assert peers(home) == [("rob", BOB.id, "")]


def test_another_node_than_was_named_is_refused(home: Path) -> None:
    with serving(shown(EVE, "bob")) as url:
        result = manyminds("federate", url, "--id", BOB.id)
        assert result.exit_code == 1
        assert f"is the node {EVE.id}, not {BOB.id}" in result.stderr
        assert not (home / "home" / ADDED).exists()
        assert manyminds("federate", url, "--id", EVE.id).exit_code == 0
    assert peers(home) == [("bob", EVE.id, url)]


def test_a_name_that_is_taken_is_refused(home: Path) -> None:
    assert manyminds("federate", EVE.id, "--name", "bob").exit_code == 0
    with serving(shown()) as url:
        result = manyminds("federate", url)
        assert result.exit_code == 1
        assert "give another --name" in result.stderr
        assert manyminds("federate", url, "--name", "rob").exit_code == 0
    assert [name for name, _, _ in peers(home)] == ["bob", "rob"]


@pytest.mark.parametrize("name", ["auto", "-", "\x1b", "a b", "a" * 65])
def test_a_name_that_no_peer_can_have_changes_nothing(home: Path, name: str) -> None:
    result = manyminds("federate", BOB.id, "--name", name)
    if name == "-":
        assert result.exit_code == 0
        return
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert peers(home) == []


@pytest.mark.parametrize("url", ["http://bob.example", "http://10.0.0.1:8000", "http://localhost.example"])
def test_over_http_its_id_must_be_said(home: Path, url: str) -> None:
    result = manyminds("federate", url)
    assert result.exit_code == 2
    assert "--id" in result.stderr


@pytest.mark.parametrize(
    "url", ["bob", "ftp://bob", "https://", "file:///etc/passwd", BOB.id.upper(), "http:bob"]
)
def test_what_is_neither_url_nor_id(home: Path, url: str) -> None:
    result = manyminds("federate", url)
    assert result.exit_code == 2
    assert "neither a URL" in result.stderr


CARDS = {
    "no card": (b"{}", 200),
    "not there": (b"", 404),
    "a redirect": (b"", 302),
    "too large": (b"x" * 70_000, 200),
    "forged": (shown().replace(b'"experts":3', b'"experts":4'), 200),
}


@pytest.mark.parametrize("what", CARDS)
def test_a_card_that_cannot_be_believed_is_refused(home: Path, what: str) -> None:
    with serving(*CARDS[what]) as url:
        result = manyminds("federate", url)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert result.stderr
    assert not (home / "home" / ADDED).exists()


def test_what_a_card_says_commands_no_terminal(home: Path) -> None:
    with serving(shown(words=["\x1b[2J\x1b]0;title\x07law"])) as url:
        result = manyminds("federate", url)
    assert "law" in result.stdout
    assert "\x1b" not in result.output
    assert "\x07" not in result.output


def test_nobody_there(home: Path) -> None:
    with serving(b"") as url:
        pass
    result = manyminds("federate", url)
    assert result.exit_code == 1
    assert "shows no card" in result.stderr


@pytest.mark.parametrize("by", ["name", "id", "url", "url/"])
def test_it_ends_by_name_id_or_url(home: Path, by: str) -> None:
    with serving(shown()) as url:
        assert manyminds("federate", url).exit_code == 0
    assert manyminds("federate", EVE.id, "--name", "eve").exit_code == 0
    target = {"name": "bob", "id": BOB.id, "url": url, "url/": f"{url}/"}[by]
    result = manyminds("federate", target, "--remove", "--json")
    assert json.loads(result.stdout) == {"removed": "bob"}
    assert [name for name, _, _ in peers(home)] == ["eve"]
    again = manyminds("federate", target, "--remove")
    assert again.exit_code == 1
    assert "no peer that this command added" in again.stderr


# --- join ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("10.0.0.1:7447", "tcp/10.0.0.1:7447"),
        ("tls/host:7447", "tls/host:7447"),
        ("tcp/[::1]:7447", "tcp/[::1]:7447"),
        ("lan", "lan"),
    ],
)
def test_an_address_is_tcp_where_nothing_else_is_said(said: str, meant: str) -> None:
    assert _address(said) == meant


@pytest.mark.parametrize(
    ("words", "join", "listen"),
    [
        ((), "lan", None),
        (("10.0.0.1:7447", "tls/b:1"), "tcp/10.0.0.1:7447,tls/b:1", None),
        (("--listen", "0.0.0.0:7447"), None, "tcp/0.0.0.0:7447"),
        (("lan", "--listen", "0.0.0.0:7447"), "lan", "tcp/0.0.0.0:7447"),
    ],
)
def test_join_is_serve_among_others(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], join: str | None, listen: str | None
) -> None:
    module = import_module("manyminds.cli.join")
    served: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "serve_as", lambda file, flags, as_json: served.append(flags))
    result = manyminds("join", *words, "--name", "ann", "--port", "0")
    assert result.exit_code == 0, result.output
    (flags,) = served
    assert (flags["network.join"], flags["network.listen"]) == (join, listen)
    assert (flags["network.name"], flags["server.port"]) == ("ann", 0)
    assert load(None, {"MANYMINDS_HOME": str(home)}, flags).network.name == "ann"
