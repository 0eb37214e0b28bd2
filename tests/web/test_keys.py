"""Requests with keys at the edge: who is let in, and what is counted."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from manyminds.admission import Admission, digest
from manyminds.errors import UnavailableError
from manyminds.experts.scripted import Script, Scripted
from manyminds.router.policy import POLICIES
from manyminds.types import Card, Chunk, Key, Query
from manyminds.web.app import App, Edge
from tests.clock import run
from tests.network import Records, network
from tests.web.client import Reply, call

SECRET = "mm-secret"
BODY: dict[str, Any] = {"model": "a", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 10}
SLOW = Script(text="one two three", per_chunk_s=5.0)
DOWN = Script(fail_before=UnavailableError("down"))
PATHS = {
    "/v1/chat/completions": BODY,
    "/v1/messages": BODY,
    "/v1/responses": {"model": "a", "input": "Why?", "max_output_tokens": 10},
    "/v1/completions": {"model": "a", "prompt": "Why?", "max_tokens": 10},
}


class Purse:
    """A ledger's budgets, in memory."""

    def __init__(self) -> None:
        self.leased = 0

    async def lease(self, key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
        granted = max(min(want_nusd, limit_nusd - self.leased), 0)
        self.leased += granted
        return granted

    async def give_back(self, key_id: str, period: str, nusd: int) -> None:
        self.leased -= nusd


class AtOnce(Scripted):
    """Answers in one piece where that is asked for."""

    async def complete(self, query: Query) -> Sequence[Chunk]:
        return [chunk async for chunk in self.stream(query)]


class Node:
    """An edge before one expert, which answers in three words of a thousandth of a dollar each."""

    def __init__(
        self,
        *,
        public: bool = False,
        most_at_once: int = 9,
        script: Script = Script(text="one two three"),  # noqa: B008 - a value
        **limits: Any,
    ) -> None:
        self.records, self.purse = Records(), Purse()
        keys = {digest(SECRET): Key("key_1", "ann", **limits)}
        self.admission = Admission(
            keys,
            open=public,
            most_at_once=most_at_once,
            lease=self.purse.lease,
            give_back=self.purse.give_back,
        )
        expert = AtOnce(Card("a", "scripted", source="a", price_out_usd_per_m=1000.0), script)
        gateway = network(expert, records=self.records, reserve=self.admission.reserve)
        self.app = App(
            Edge(
                gateway,
                POLICIES,
                lambda: [expert.card],
                lambda: True,
                1_000_000,
                loopback=public,
                admission=self.admission,
            )
        )

    async def ask(
        self,
        path: str = "/v1/chat/completions",
        *,
        secret: str = SECRET,
        gone_after_s: float | None = None,
        **fields: Any,
    ) -> Reply:
        body = json.dumps(PATHS[path] | fields).encode()
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        return await call(self.app, "POST", path, body, headers=headers, gone_after_s=gone_after_s)


@pytest.mark.parametrize("path", PATHS)
def test_nobody_is_answered_without_a_key(path: str) -> None:
    node = Node()
    for secret in ("", "mm-wrong"):
        reply = run(node.ask(path, secret=secret))
        assert reply.status == 401
        assert "manyminds keys" in reply.body.decode()
        assert reply.headers["x-should-retry"] == "false"
    assert node.records.rows == []
    assert run(node.ask(path)).status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/a", "/v1/experts"])
def test_what_is_listed_needs_a_key_too(path: str) -> None:
    node = Node()
    assert run(call(node.app, "GET", path)).status == 401
    assert run(call(node.app, "GET", path, headers={"x-api-key": SECRET})).status == 200
    assert run(call(node.app, "GET", "/health/live")).status == 200


def test_an_open_node_takes_any_key_and_knows_its_own() -> None:
    node = Node(public=True, requests_per_min=1)
    assert run(node.ask(secret="anything")).status == 200
    assert "x-ratelimit-limit-requests" in run(node.ask()).headers
    assert run(node.ask()).status == 429


def test_a_key_is_for_its_models() -> None:
    node = Node(models=("cheap", "b*"))
    reply = run(node.ask())
    assert (reply.status, json.loads(reply.body)["error"]["param"]) == (403, "model")
    assert run(node.ask(model="cheap")).status == 200


def test_rates_are_told_and_kept() -> None:
    node = Node(requests_per_min=2)

    async def three() -> list[Reply]:
        return [await node.ask(stream=stream) for stream in (False, True, False)]

    first, second, third = run(three())
    assert [reply.status for reply in (first, second, third)] == [200, 200, 429]
    left = [reply.headers["x-ratelimit-remaining-requests"] for reply in (first, second, third)]
    assert left == ["1", "0", "0"]
    assert int(third.headers["retry-after"]) > 0
    assert "x-should-retry" not in third.headers


def test_tokens_are_counted_as_they_were_used() -> None:
    node = Node(tokens_per_min=100)

    async def left() -> list[int]:
        replies = [await node.ask(max_tokens=50) for _ in range(3)]
        return [int(reply.headers["x-ratelimit-remaining-tokens"]) for reply in replies]

    first, second, third = run(left())
    assert first < 50
    assert first > second > third > 0, "what was taken and not used did not come back"


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_gets_no_tokens_back(stream: bool) -> None:
    node = Node(tokens_per_min=100, script=SLOW)

    async def leave() -> Reply:
        await node.ask(max_tokens=50, stream=stream, gone_after_s=1.0)
        return await node.ask(max_tokens=50)

    reply = run(leave())
    assert reply.status == 429, "who leaves before the end could ask for ever"


def test_who_gets_an_error_gets_all_tokens_back() -> None:
    node = Node(tokens_per_min=100, script=DOWN)

    async def fail() -> list[Reply]:
        return [await node.ask(max_tokens=50) for _ in range(3)]

    replies = run(fail())
    assert [reply.status for reply in replies] == [503] * 3


def test_what_was_given_up_unseen_is_paid_as_if_all_had_been_written() -> None:
    node = Node(budget_usd=1.0, script=SLOW)
    run(node.ask(max_tokens=50, gone_after_s=1.0))
    ((report, _, status),) = node.records.rows
    assert status == "cancelled"
    assert report.cost_usd == pytest.approx(0.05)


def test_a_budget_is_never_passed_and_what_is_unspent_comes_back() -> None:
    node = Node(budget_usd=0.02)  # an answer may cost .010, and costs .003

    async def spend() -> list[int]:
        found = [(await node.ask()).status for _ in range(6)]
        await node.admission.close()
        return found

    assert run(spend()) == [200, 200, 200, 200, 429, 429]
    spent = sum(report.cost_usd for report, _, _ in node.records.rows)
    assert node.purse.leased == pytest.approx(spent * 1e9, abs=len(node.records.rows))
    assert spent <= 0.02


def test_too_small_a_budget_says_so() -> None:
    reply = run(Node(budget_usd=0.001).ask())
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["code"]) == (429, "insufficient_quota")
    assert "max_tokens" in error["message"]


@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens"])
def test_no_more_are_inside_than_there_may_be(path: str) -> None:
    """Not even to be counted: a body takes memory."""
    node = Node(most_at_once=1)
    body = json.dumps(PATHS.get(path, PATHS["/v1/messages"])).encode()

    async def ask() -> Reply:
        return await call(node.app, "POST", path, body, headers={"authorization": f"Bearer {SECRET}"})

    async def crowd() -> Reply:
        with node.admission.enter():
            return await ask()

    reply = run(crowd())
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert run(ask()).status == 200


def test_the_ledger_is_told_whose_request_it_was() -> None:
    node = Node()
    run(node.ask())
    assert [query.key.id for query in node.records.queries if query.key] == ["key_1"]
