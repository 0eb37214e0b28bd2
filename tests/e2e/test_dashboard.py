"""The real process as its owner sees it from a browser: who may look, and what there is to see."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openapi_schema_validator import OAS31Validator

from manyminds.web.openapi import document
from tests.conformance.upstream import Upstream, running, says
from tests.e2e.node import Served, served, wait_until
from tests.web.test_markdown import Seen

DOCUMENT = document("1")
GETS = ("experts", "library", "frontier", "network", "ledger")
REQUIRED = {"MANYMINDS_SERVER_KEYS": "required"}
PRICE = "price_out_usd_per_m = 1000.0\n"
QUESTION = {"role": "user", "content": "17 + 26 = ?"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as found:
        found.play(says("It is ", "43."))
        yield found


def home(folder: Path, upstream: Upstream) -> Path:
    tables = [
        f'[[expert]]\nname = "{name}"\nurl = "{upstream.url}"\nskills = ["{skill}"]\n{PRICE}'
        for name, skill in (("ann", "adding numbers"), ("bob", "baking bread"))
    ]
    (folder / "manyminds.toml").write_text('[local]\ntier = "none"\n' + "".join(tables))
    return folder


def made(folder: Path, *flags: str) -> str:
    """A new key."""
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "manyminds", "keys", "create", "eve", "--json", *flags]
    said = subprocess.run(command, capture_output=True, check=True, env=environ, cwd=folder)
    key: str = json.loads(said.stdout)["key"]
    return key


def ask(node: Served, path: str, body: Any = None, key: str = "", **headers: str) -> tuple[int, Any]:
    """Status and fields; the text where it is no JSON."""
    sent = {"authorization": f"Bearer {key}"} if key else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(node.url.removesuffix("/v1") + path, data, sent)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            status, found = reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        status, found = error.code, error.read().decode()
    try:
        return status, json.loads(found)
    except json.JSONDecodeError:
        return status, found


def chat(node: Served, key: str = "", **more: Any) -> str:
    """The id of a request that was answered."""
    body = {"model": "auto", "messages": [QUESTION], "max_tokens": 20} | more
    status, said = ask(node, "/v1/chat/completions", body, key=key)
    assert status == 200, said
    request_id: str = said["manyminds"]["request_id"]
    return request_id


class Listening:
    """An open stream of events."""

    def __init__(self, node: Served, key: str = "") -> None:
        where = urlsplit(node.url)
        self._socket = socket.create_connection((where.hostname, where.port or 80), timeout=20)
        bearer = f"authorization: Bearer {key}\r\n" if key else ""
        head = f"GET /v1/admin/events HTTP/1.1\r\nhost: {where.netloc}\r\n{bearer}\r\n"
        self._socket.sendall(head.encode())
        self._lines = self._socket.makefile("r", encoding="utf-8")

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The first event that has these fields."""
        for line in self._lines:
            if line.startswith("data: {"):
                event: dict[str, Any] = json.loads(line[6:])
                if wanted.items() <= event.items():
                    return event
        raise AssertionError(f"no event has {wanted}")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Path:
    return home(tmp_path_factory.mktemp("admin"), upstream)


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    return {"plain": made(folder), "admin": made(folder, "--admin", "--budget-usd", "5")}


@pytest.fixture(scope="module")
def node(folder: Path, keys: dict[str, str]) -> Iterator[Served]:
    with served(folder, env=REQUIRED, untaught=True) as found:
        yield found


@pytest.mark.parametrize("name", [*GETS, "events", "nothing"])
def test_an_administrators_key_is_asked_for(node: Served, keys: dict[str, str], name: str) -> None:
    path = f"/v1/admin/{name}"
    assert ask(node, path)[0] == 401
    assert ask(node, path, key="mm-unknown")[0] == 401
    if name != "nothing":
        assert ask(node, path, key=keys["plain"])[0] == 403
    if name != "events":
        assert ask(node, path, key=keys["admin"])[0] == (404 if name == "nothing" else 200)


def check(name: str, found: Any) -> None:
    """It is as the OpenAPI document says, and has no field of which that says nothing."""
    schema = DOCUMENT["components"]["schemas"][f"Admin{name}"]
    OAS31Validator(schema | {"components": DOCUMENT["components"]}).validate(found)
    if name != "Experts":
        assert unknown(schema, found) == set()


def unknown(schema: Any, found: Any) -> set[str]:
    """Fields that no part of the schema names; a row without any is as a command prints it."""
    if isinstance(found, list):
        return {name for one in found for name in unknown(schema.get("items", {}), one)}
    if not isinstance(found, dict):
        return set()
    among = [one for one in schema.get("anyOf", [schema]) if one.get("properties")]
    if not among:
        return set()
    best = max(among, key=lambda one: len(one["properties"].keys() & found.keys()))
    known = best["properties"]
    deeper = (unknown(known[name], value) for name, value in found.items() if name in known)
    return set.union(found.keys() - known.keys(), *deeper)


@pytest.mark.parametrize("name", [*GETS, "events"])
def test_other_pages_are_refused(node: Served, keys: dict[str, str], name: str) -> None:
    port = urlsplit(node.url).port
    for origin in ("https://evil.example", "http://127.0.0.1:1", f"http://localhost:{port}", "null"):
        status, said = ask(node, f"/v1/admin/{name}", key=keys["admin"], origin=origin)
        assert (status, said["error"]["code"]) == (403, "forbidden")
    if name != "events":
        own = f"http://127.0.0.1:{port}"
        assert ask(node, f"/v1/admin/{name}", key=keys["admin"], origin=own)[0] == 200


def test_the_page_needs_no_key_and_the_rest_does(node: Served) -> None:
    status, page = ask(node, "/")
    assert status == 200
    assert page.lower().startswith("<!doctype html>")
    assert ask(node, "/v1/models")[0] == 401
    assert ask(node, "/v1/markdown", {"text": "x"})[0] == 401


def test_markdown_is_formatted_and_harmless(node: Served, keys: dict[str, str]) -> None:
    text = "**43**, <script>alert(1)</script> [x](javascript:alert(1))"
    status, said = ask(node, "/v1/markdown", {"text": text}, key=keys["plain"])
    assert status == 200
    assert "<strong>43</strong>" in said["html"]
    assert Seen(said["html"]).links == []
    assert ask(node, "/v1/markdown", {"text": "x" * 100_001}, key=keys["plain"])[0] == 400


def test_what_is_asked_is_told_as_it_ends(node: Served, keys: dict[str, str]) -> None:
    with closing(Listening(node, keys["admin"])) as listening:
        first = listening.until(event="traffic")
        assert (first["experts"], first["running"], first["peers"]) == (2, 2, 0)
        request_id = chat(node, keys["plain"])
        told = listening.until(event="request", request_id=request_id)
        assert (told["policy"], told["status"], told["cost_usd"] > 0) == ("auto", "ok", True)
        assert told["answered"] in [entry["expert"] for entry in told["panel"]]
        for event in (first, told):
            check("Event", event)
        later = listening.until(event="traffic", requests=first["requests"] + 1)
        assert later["cost_usd"] == pytest.approx(first["cost_usd"] + told["cost_usd"])
        assert later["requests_per_min"] >= 1


def test_what_was_asked_is_shown(node: Served, keys: dict[str, str]) -> None:
    request_id = chat(node, keys["admin"])
    for name in GETS:
        check(name.title(), ask(node, f"/v1/admin/{name}", key=keys["admin"])[1])
    assert ask(node, "/v1/feedback", {"request_id": request_id, "correct": 1}, key=keys["admin"])[0] == 200

    def shown(name: str) -> Any:
        return ask(node, f"/v1/admin/{name}", key=keys["admin"])[1]

    assert wait_until(lambda: request_id in [row["request_id"] for row in shown("ledger")["requests"]])
    ledger = shown("ledger")
    assert {row["policy"] for row in ledger["totals"]["policy"]} == {"auto"}
    assert ledger["totals"].keys() == {"day", "key", "expert", "policy"}
    (budget,) = ledger["budgets"]
    assert (budget["limit_usd"], budget["name"], 0 < budget["spent_usd"] < 5) == (5, "eve", True)
    assert wait_until(
        lambda: [row["graded"] for row in shown("frontier")["policies"] if row["policy"] == "auto"] == [1]
    )
    points = {point["name"]: point for point in shown("frontier")["experts"]}
    assert points.keys() == {"ann", "bob"}
    assert sum(point["calls"] for point in points.values()) > 0
    last = shown("library")["last"]
    assert (last["request_id"], last["considered"]) == (request_id, ["ann", "bob"])
    assert last["answered"] in last["asked"]
    assert shown("network") == {"node": None, "peers": [], "more_peers": 0, "receipts": [], "more": 0}


def test_every_expert_is_on_a_shelf(node: Served, keys: dict[str, str]) -> None:
    _, library = ask(node, "/v1/admin/library", key=keys["admin"])
    books = [
        book for section in library["sections"] for shelf in section["shelves"] for book in shelf["books"]
    ]
    assert {book["name"] for book in books} == {"ann", "bob"}
    assert all(section["size"] for section in library["sections"])
    _, experts = ask(node, "/v1/admin/experts", key=keys["admin"])
    assert [(e["name"], e["origin"], e["paused"], e["spared"], e["running"]) for e in experts["data"]] == [
        (name, "file", False, False, True) for name in ("ann", "bob")
    ]


def test_without_keys_nobody_needs_one_and_no_listener_holds_up_the_end(
    tmp_path: Path, upstream: Upstream
) -> None:
    with served(home(tmp_path, upstream), untaught=True) as node, closing(Listening(node)) as listening:
        assert [ask(node, f"/v1/admin/{name}")[0] for name in GETS] == [200] * len(GETS)
        assert ask(node, "/v1/admin/library", origin="http://127.0.0.1:1")[0] == 403
        assert ask(node, "/v1/models", origin="http://127.0.0.1:1")[0] == 200
        listening.until(event="traffic")
        text = (tmp_path / "manyminds.toml").read_text()
        (tmp_path / "manyminds.toml").write_text(text.replace('"bob"', '"eve"'))
        assert listening.until(event="changed")["what"] in ("experts", "config")
        node.process.terminate()
        assert node.process.wait(timeout=8) == 0
