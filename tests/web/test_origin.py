import json

import pytest

from manyminds.experts.scripted import Script
from manyminds.router.policy import POLICIES
from manyminds.web.app import App, Edge
from tests.clock import run
from tests.network import network, scripted
from tests.web.client import Reply, call

BODY = json.dumps({"model": "a", "messages": [{"role": "user", "content": "Hi"}]}).encode()


def ask(headers: dict[str, str], *, loopback: bool = True, path: str = "/v1/chat/completions") -> Reply:
    expert = scripted("a", Script(text="43"))
    edge = Edge(network(expert), POLICIES, lambda: [expert.card], lambda: True, 1_000_000, loopback)
    method = "POST" if path.endswith("completions") else "GET"
    return run(call(App(edge), method, path, BODY, headers=headers))


LOCAL = ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.3.2.1:8000", "[::1]", "[::1]:8000"]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "192.168.0.7:8000",
    "0.0.0.0",
    "[::2]:8000",
    "[::1",
    "::1",
    "localhost:80:80@x",
]


@pytest.mark.parametrize("host", [*LOCAL, ""])
def test_a_loopback_node_answers_by_its_own_names(host: str) -> None:
    assert ask({"host": host}).status == 200
    assert ask({"host": host, "origin": "http://localhost:3000"}).status == 200
    assert ask({"host": host, "sec-fetch-site": "same-origin"}).status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/health/ready"])
@pytest.mark.parametrize("host", FOREIGN)
def test_a_loopback_node_answers_by_no_other_name(host: str, path: str) -> None:
    reply = ask({"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}, path=path)
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["code"], error["type"]) == (403, "forbidden", "invalid_request_error")
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
@pytest.mark.parametrize("loopback", [False, True])
@pytest.mark.parametrize(
    "page",
    [
        *({"origin": f"https://{host}"} for host in FOREIGN),
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://localhost:8000"},
    ],
)
def test_pages_of_other_sites_may_ask_nothing(page: dict[str, str], loopback: bool, path: str) -> None:
    assert ask({"host": "localhost:8000"} | page, loopback=loopback, path=path).status == 403


def test_any_page_may_see_that_the_node_lives() -> None:
    assert ask({"origin": "https://evil.example"}, path="/health/live").status == 200


@pytest.mark.parametrize("origin", [None, "http://Node.example", "https://node.example:8000"])
def test_a_public_node_answers_its_own_pages_and_programs(origin: str | None) -> None:
    headers = {"host": "node.example:8000"} | ({"origin": origin} if origin else {})
    assert ask(headers, loopback=False).status == 200


def test_a_public_node_does_not_answer_pages_of_its_own_machine() -> None:
    headers = {"host": "node.example", "origin": "http://localhost:8000"}
    assert ask(headers, loopback=False).status == 403
