"""`POST /v1/embeddings`: by the encoder and by an expert, what is counted of both, and what is refused."""

import base64
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np
import pytest

from manyminds.admission import Admission, digest
from manyminds.errors import UnavailableError
from manyminds.experts.scripted import Script
from manyminds.router.policy import POLICIES
from manyminds.types import Card, Chunk, Expert, Key, Query, Usage
from manyminds.web.answering import Reply as Seen
from manyminds.web.app import App, Edge
from tests.clock import run
from tests.network import Records, network, scripted, words
from tests.web.client import Reply, call
from tests.web.test_keys import SECRET, Purse


def post(*, installed: bool = True, **fields: Any) -> Reply:
    embed = words if installed else None
    edge = Edge(network(), POLICIES, list, lambda: True, 1_000_000, encoder="letters", embed=embed)
    body = json.dumps({"model": "letters", "input": "abc"} | fields).encode()
    return run(call(App(edge), "POST", "/v1/embeddings", body))


def vectors(reply: Reply) -> Any:
    body = json.loads(reply.body)
    assert (reply.status, body["object"], body["model"]) == (200, "list", "letters")
    assert [row["index"] for row in body["data"]] == list(range(len(body["data"])))
    return [row["embedding"] for row in body["data"]]


@pytest.mark.parametrize("model", ["letters", "auto"])
def test_texts_become_their_vectors_in_order(model: str) -> None:
    texts = [f"text number {i} {'abc'[i % 3]}" for i in range(70)]
    assert np.allclose(vectors(post(model=model, input=texts)), words(texts), atol=1e-6)


def test_base64_holds_the_same_numbers() -> None:
    (coded,) = vectors(post(encoding_format="base64"))
    found = np.frombuffer(base64.b64decode(coded), "<f4")
    assert np.allclose(found, words(["abc"])[0])


def test_fewer_dimensions_are_unit_vectors_again() -> None:
    (short,) = vectors(post(dimensions=3))
    whole = words(["abc"])[0][:3]
    assert np.allclose(short, whole / np.linalg.norm(whole), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"dimensions": 28}, 400, "dimensions"),
        ({"model": "nobody"}, 404, "model"),
        ({"input": [[1, 2]]}, 400, "input"),
        ({"input": ""}, 400, "input"),
    ],
)
def test_what_cannot_be_done_names_the_field(fields: dict[str, Any], status: int, param: str) -> None:
    reply = post(**fields)
    assert (reply.status, json.loads(reply.body)["error"]["param"]) == (status, param)


def test_without_an_encoder_it_says_how_to_get_one() -> None:
    reply = post(installed=False)
    assert reply.status == 503
    assert "manyminds pull letters" in json.loads(reply.body)["error"]["message"]


# --- by an expert ----------------------------------------------------------------------------------

SAID = b'{"object": "list", "data":[{"embedding":"AACAPw==", "x": 1}],"model":"up","usage":{}}'
VEC = Card("vec", "openai", source="lab", price_in_usd_per_m=1000.0, offers=frozenset({"embeddings"}))
ALIASES = {"text-embedding-3-small": ["letters"], "ada": ["vec", "auto"], "*": ["letters"]}


class Vec:
    """An embedding model that says what it is told to; ten tokens, whatever it is asked."""

    def __init__(self, error: UnavailableError | None = None) -> None:
        self.card = VEC
        self.asked: list[Query] = []
        self._error = error

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        for chunk in await self.complete(query):
            yield chunk

    async def complete(self, query: Query) -> Sequence[Chunk]:
        self.asked.append(query)
        if self._error is not None:
            raise self._error
        return [Chunk("", "stop", Usage(10, 0, 0.0, 0.01), SAID, whole=True)]


class Node:
    """An edge before an embedding model, an expert that talks, and an encoder."""

    def __init__(self, vec: Vec | None = None, **limits: Any) -> None:
        self.vec, self.records, self.purse = vec or Vec(), Records(), Purse()
        self.seen: list[tuple[str, Seen]] = []
        keys = {digest(SECRET): Key("key_1", "ann", **limits)}
        lease, give_back = self.purse.lease, self.purse.give_back
        self.admission = Admission(keys, open=False, most_at_once=9, lease=lease, give_back=give_back)
        experts: list[Expert] = [self.vec, scripted("talker", Script(text="Hi."))]
        gateway = network(*experts, records=self.records, reserve=self.admission.reserve)
        edge = Edge(
            gateway,
            POLICIES,
            lambda: [expert.card for expert in experts],
            lambda: True,
            1_000_000,
            admission=self.admission,
            aliases=ALIASES,
            knows=lambda name: name in (*POLICIES, "vec", "talker", "letters"),
            seen=lambda path, reply: self.seen.append((path, reply)),
            encoder="letters",
            embed=words,
        )
        self.app = App(edge)

    def ask(self, path: str = "/v1/embeddings", secret: str = SECRET, **fields: Any) -> Reply:
        body = json.dumps({"model": "vec", "input": "abcd" * 10} | fields).encode()
        return run(call(self.app, "POST", path, body, headers={"authorization": f"Bearer {secret}"}))


@pytest.mark.parametrize("model", ["vec", "ada"])
@pytest.mark.parametrize("given", ["abc", ["a", ""], [1, 2], [[1], [2, 3]], [{"image": "x"}]])
def test_an_experts_reply_is_relayed_as_it_came(model: str, given: Any) -> None:
    node = Node()
    reply = node.ask(model=model, input=given, dimensions=99_999, encoding_format="ubinary")
    assert (reply.status, reply.body) == (200, SAID)
    (asked,) = node.vec.asked
    sent = {"model": model, "input": given, "dimensions": 99_999, "encoding_format": "ubinary"}
    assert (asked.model, json.loads(asked.raw)) == ("vec", sent)


def test_an_experts_work_is_recorded_and_told_of() -> None:
    node = Node(budget_usd=1.0)
    reply = node.ask()
    ((report, text, status),) = node.records.rows
    assert (report.policy, report.cost_usd, text, status) == ("pass", 0.01, "", "ok")
    assert [(entry.expert, entry.cost_usd) for entry in report.panel] == [("vec", 0.01)]
    ((path, seen),) = node.seen
    assert (path, seen.status, seen.request_id) == ("/v1/embeddings", 200, reply.headers["x-request-id"])
    assert seen.last.report == report
    assert (seen.key, seen.last.usage) == (Key("key_1", "ann", budget_usd=1.0), Usage(10, 0, 0.0, 0.01))


def test_the_encoders_work_is_told_of_and_costs_nothing() -> None:
    node = Node()
    assert node.ask(model="letters").status == 200
    ((path, seen),) = node.seen
    assert (path, seen.status, seen.last.usage) == ("/v1/embeddings", 200, Usage(10))
    assert node.records.rows == []
    assert node.vec.asked == []


@pytest.mark.parametrize("model", ["text-embedding-3-small", "whatever"])
def test_the_encoder_has_other_names_too(model: str) -> None:
    reply = Node().ask(model=model)
    assert np.allclose(vectors(reply), words(["abcd" * 10]), atol=1e-6)


@pytest.mark.parametrize("model", ["talker", "max"])
def test_who_makes_no_vectors_is_not_asked_for_them(model: str) -> None:
    node = Node()
    error = json.loads(node.ask(model=model).body)["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "letters, vec" in error["message"]
    assert node.records.rows == []


def test_an_embedding_model_is_asked_for_nothing_else() -> None:
    node = Node()
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "Why?"}], "input": None}
    reply = node.ask("/v1/chat/completions", model="vec", **chat)
    assert (reply.status, json.loads(reply.body)["error"]["param"]) == (422, "model")
    assert "vec makes vectors only, at /v1/embeddings" in reply.body.decode()
    for policy in POLICIES:
        assert json.loads(node.ask("/v1/chat/completions", model=policy, **chat).body)["choices"]
    assert {answer.expert for answer in node.records.answers} == {"talker"}
    assert node.vec.asked == []


def test_it_fails_as_any_expert_does() -> None:
    node = Node(Vec(UnavailableError("vec is down.", retry_after_s=3.0)), tokens_per_min=1000)
    reply = node.ask()
    assert (reply.status, reply.headers["retry-after"]) == (503, "3")
    assert json.loads(reply.body)["error"]["code"] == "expert_unavailable"
    assert [status for _, _, status in node.records.rows] == ["failed"]
    assert node.ask().headers["x-ratelimit-remaining-tokens"] == "985"  # only its own are taken


def test_a_key_pays_for_what_it_took() -> None:
    node = Node(budget_usd=0.13)  # the body may be 65 tokens, which cost .065; it costs .010
    assert [node.ask().status for _ in range(7)] == [200] * 7
    assert node.ask().status == 429
    assert sum(report.cost_usd for report, _, _ in node.records.rows) == pytest.approx(0.07)
    assert Node(budget_usd=0.001).ask().status == 429


def test_a_keys_rates_and_models_count_for_both() -> None:
    for model in ("vec", "letters"):
        node = Node(requests_per_min=2, tokens_per_min=1000)
        assert node.ask(model=model).headers["x-ratelimit-remaining-requests"] == "1"
        assert int(node.ask(model=model).headers["x-ratelimit-remaining-tokens"]) < 1000
        assert node.ask(model=model).status == 429
        assert Node(models=("talker",)).ask(model=model).status == 403
        assert Node().ask(model=model, secret="mm-wrong").status == 401
    assert Node(models=("vec",)).ask(model="ada").status == 403  # it stands for `auto`, too


def test_limits_hold_for_an_expert() -> None:
    node = Node()
    reply = node.ask(manyminds={"budget_usd": 0.001})
    assert (reply.status, json.loads(reply.body)["error"]["param"]) == (422, "manyminds.budget_usd")
    reply = node.ask(manyminds={"budget_usd": -1})
    assert (reply.status, json.loads(reply.body)["error"]["param"]) == (400, "manyminds.budget_usd")


def test_many_texts_have_a_window_each() -> None:
    node = Node()
    assert node.ask(input=["word " * 1000] * 40).status == 200
