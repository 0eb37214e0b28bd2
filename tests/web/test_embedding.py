"""`POST /v1/embeddings`: by the official client over the application, and what is refused."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from manyminds.router.policy import POLICIES
from manyminds.web.app import App, Edge
from tests.clock import run
from tests.network import network, words
from tests.web.client import Reply, call


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
