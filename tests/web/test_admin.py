"""Who may administer, and how what they get is sent."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from manyminds.admission import Admission, digest
from manyminds.errors import InvalidRequestError, UnavailableError
from manyminds.router.policy import POLICIES
from manyminds.types import Key
from manyminds.web.admin import ADMIN, AdminEdge
from manyminds.web.app import App, Edge
from manyminds.web.door import everybody
from tests.clock import run
from tests.network import network
from tests.web.client import Reply, call
from tests.web.line import Line, replies, request

ANN, BOB = "mm-ann", "mm-bob"
KEYS = {digest(ANN): Key("key_ann", "ann", admin=True), digest(BOB): Key("key_bob", "bob")}
PATHS = [("GET", "seen"), ("POST", "done"), ("POST", "told"), ("GET", "events")]


class Owner:
    """What can be done, and what was."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self.closed = 0

    async def see(self) -> dict[str, Any]:
        return {"b": 1, "a": [None]}

    async def do(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "wrong" in fields:
            raise InvalidRequestError("That is wrong.", param="wrong")
        self.done.append(fields)
        return {"done": len(self.done)}

    async def tell(self, fields: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        if fields.get("fails") == 0:
            raise UnavailableError("It is down.")
        try:
            for number in range(fields.get("of", 2)):
                yield {"event": "step", "number": number}
                if fields.get("fails") == number + 1:
                    raise UnavailableError("It broke.")
                await asyncio.sleep(fields.get("every_s", 0))
        finally:
            self.closed += 1

    async def listen(self) -> AsyncGenerator[dict[str, Any], None]:
        try:
            while True:
                yield {"event": "traffic"}
                await asyncio.sleep(1)
        finally:
            self.closed += 1

    def edge(self, *, tls: bool = False) -> AdminEdge:
        return AdminEdge({"seen": self.see}, {"done": self.do}, {"told": self.tell}, self.listen, tls)


def door(*, open: bool = False) -> Admission:  # noqa: A002 - as `Admission` calls it
    async def lease(key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
        return 0

    async def give_back(key_id: str, period: str, nusd: int) -> None:
        return None

    return Admission(KEYS, open=open, most_at_once=9, lease=lease, give_back=give_back)


def app(
    owner: Owner | None = None,
    admission: Admission | None = None,
    *,
    loopback: bool = False,
    tls: bool = False,
) -> App:
    owner, admission = owner or Owner(), admission or door()
    edge = Edge(
        *(network(), POLICIES, list, lambda: True, 10**6, loopback, admission),
        admin=owner.edge(tls=tls),
    )
    return App(edge)


def ask(served: App, method: str, name: str, body: Any = None, **headers: str) -> Reply:
    sent = json.dumps(body).encode() if body is not None else b""
    return run(call(served, method, ADMIN + name, sent, headers=headers, gone_after_s=5.5))


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def events(reply: Reply) -> list[Any]:
    lines = [line for line in reply.body.decode().split("\n\n") if line and not line.startswith(":")]
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


# --- who may ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "name"), PATHS)
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "invalid_api_key"),
        (bearer("mm-eve"), 401, "invalid_api_key"),
        (bearer(BOB), 403, "forbidden"),
    ],
)
def test_only_administrators_may(
    method: str, name: str, headers: dict[str, str], status: int, code: str
) -> None:
    owner = Owner()
    reply = ask(app(owner), method, name, {} if method == "POST" else None, **headers)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (status, code)
    assert (owner.done, owner.closed) == ([], 0)


@pytest.mark.parametrize(("method", "name"), PATHS)
def test_an_administrator_may(method: str, name: str) -> None:
    assert ask(app(), method, name, {} if method == "POST" else None, **bearer(ANN)).status == 200


@pytest.mark.parametrize("headers", [{}, bearer(BOB), bearer("mm-eve")])
def test_where_nobody_needs_a_key_nobody_does(headers: dict[str, str]) -> None:
    assert ask(app(admission=everybody()), "GET", "seen", **headers).status == 200
    assert ask(app(admission=door(open=True)), "GET", "seen", **headers).status == 200


OWN = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize(("method", "name"), PATHS)
@pytest.mark.parametrize(
    "page",
    [
        *(
            {"origin": f"http://{host}"}
            for host in ("127.0.0.1:3000", "localhost:8000", "127.0.0.1", "[::1]:8000")
        ),
        *({"origin": origin} for origin in ("null", "", "https://evil.example", "http://127.0.0.1:8000/")),
        *({"origin": "ftp://127.0.0.1:8000"}, {"origin": "http://127.0.0.1:8000@evil.example"}),
        *({"sec-fetch-site": site} for site in ("same-site", "cross-site", "")),
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-site"},
    ],
)
def test_no_other_page_may(method: str, name: str, page: dict[str, str]) -> None:
    owner = Owner()
    served = app(owner, everybody(), loopback=True)
    assert ask(served, method, name, {} if method == "POST" else None, **OWN, **page).status == 403
    assert (owner.done, owner.closed) == ([], 0)


def test_its_own_page_may() -> None:
    served = app(admission=everybody(), loopback=True)
    for page in ({}, {"origin": "http://127.0.0.1:8000"}, {"sec-fetch-site": "same-origin"}):
        assert ask(served, "POST", "done", {}, **OWN, **page).status == 200
    behind = {"host": "node.example", "origin": "https://Node.example"}  # a proxy that speaks TLS
    assert ask(app(), "GET", "seen", **behind, **bearer(ANN)).status == 200
    assert ask(app(tls=True), "GET", "seen", **behind, **bearer(ANN)).status == 200
    plain = behind | {"origin": "http://node.example"}
    assert ask(app(tls=True), "GET", "seen", **plain, **bearer(ANN)).status == 403


# --- what they get ---------------------------------------------------------------------------------


def test_it_shows_and_does() -> None:
    owner = Owner()
    served = app(owner, everybody())
    seen = ask(served, "GET", "seen")
    assert (json.loads(seen.body), seen.headers["cache-control"]) == ({"b": 1, "a": [None]}, "no-store")
    assert json.loads(ask(served, "POST", "done", {"name": "a"}).body) == {"done": 1}
    assert owner.done == [{"name": "a"}]
    assert json.loads(ask(served, "POST", "done", {"wrong": 1}).body)["error"]["param"] == "wrong"
    wrong: list[Any] = [[], "x", 7]
    for body in wrong:
        assert ask(served, "POST", "done", body).status == 400
    assert ask(served, "POST", "seen", {}).status == 405
    assert ask(served, "GET", "done").status == 405
    assert ask(served, "GET", "nothing").status == 404


def test_a_stream_ends_with_a_word() -> None:
    owner = Owner()
    served = app(owner, everybody())
    assert [e if e == "[DONE]" else e["event"] for e in events(ask(served, "POST", "told", {}))] == [
        *("step", "step", "[DONE]")
    ]
    broken = events(ask(served, "POST", "told", {"fails": 1}))
    assert broken[1:] == [{"event": "error", "message": "It broke."}, "[DONE]"]
    assert ask(served, "POST", "told", {"fails": 0}).status == 503
    assert owner.closed == 2


def test_a_stream_that_is_left_is_stopped() -> None:
    owner = Owner()
    reply = ask(app(owner, everybody()), "POST", "told", {"of": 1000, "every_s": 1})
    assert len(events(reply)) == 6
    assert owner.closed == 1


def test_a_silent_stream_is_alive() -> None:
    async def whole() -> bytes:
        line = Line(app(Owner(), everybody()))
        line.feed(request("POST", ADMIN + "told", b'{"of": 1, "every_s": 35}'))
        await asyncio.sleep(40)
        line.leave()
        await asyncio.sleep(1)
        return replies(line.sent)[0].body

    assert run(whole()).count(b": nothing new\n\n") == 2


# --- what happens ----------------------------------------------------------------------------------


def test_who_listens_is_told() -> None:
    owner = Owner()
    reply = ask(app(owner, everybody()), "GET", "events")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events(reply) == [{"event": "traffic"}] * 6
    assert owner.closed == 1


def test_so_many_listen_and_no_more() -> None:
    async def whole() -> tuple[list[int], int]:
        owner = Owner()
        served = app(owner, everybody())
        lines = [Line(served) for _ in range(33)]
        for line in lines:
            line.feed(request("GET", ADMIN + "events"))
        await asyncio.sleep(0.5)
        statuses = [replies(line.sent)[0].status for line in lines]
        lines[0].reset()
        await asyncio.sleep(0.5)
        lines[0] = Line(served)
        lines[0].feed(request("GET", ADMIN + "events"))
        await asyncio.sleep(0.5)
        statuses.append(replies(lines[0].sent)[0].status)
        for line in lines:
            line.leave()
        await asyncio.sleep(1.5)
        return statuses, owner.closed

    statuses, closed = run(whole())
    assert statuses == [200] * 32 + [429, 200]
    assert closed == 33


def test_a_revoked_key_hears_no_more() -> None:
    async def whole() -> tuple[Any, bool]:
        admission = door()
        line = Line(app(Owner(), admission))
        line.feed(request("GET", ADMIN + "events", None, f"authorization: Bearer {ANN}"))
        await asyncio.sleep(2.5)
        admission.replace({})
        await asyncio.sleep(5)
        line.leave()
        await asyncio.sleep(1)
        return replies(line.sent)[0], b"[DONE]" in line.sent

    got, done = run(whole())
    assert (got.body.count(b"traffic"), got.whole, done) == (4, True, False)


def test_listeners_do_not_hold_up_the_end() -> None:
    async def whole() -> bytes:
        line = Line(app(Owner(), everybody()))
        line.feed(request("GET", ADMIN + "events"))
        await asyncio.sleep(0.5)
        line.connection.close()
        await asyncio.sleep(1)
        assert line.closed.is_set()
        return line.sent

    assert b"data: [DONE]" in run(whole())
