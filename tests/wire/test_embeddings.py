import base64
import json
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from manyminds.errors import InvalidRequestError
from manyminds.wire.embeddings import EmbeddingRequest, embeddings_body, parse_embeddings

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=6,
)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def asked(**fields: Any) -> EmbeddingRequest:
    return parse_embeddings(json.dumps({"model": "m", "input": "a"} | fields).encode())


def test_what_is_asked_is_read() -> None:
    assert asked() == EmbeddingRequest("m", ("a",))
    assert asked(encoding_format=None, dimensions=None, user=None, x=[1]) == EmbeddingRequest("m", ("a",))
    full = asked(input=["a", "b"], encoding_format="base64", dimensions=10_000, user="u")
    assert full == EmbeddingRequest("m", ("a", "b"), "base64", 10_000, "u")
    assert len(asked(input=["a"] * 2048).inputs) == 2048


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "input", "got `null`"),
    ({"input": ""}, "input", "empty"),
    ({"input": []}, "input", "empty"),
    ({"input": ["a", ""]}, "input[1]", "empty"),
    ({"input": [1, 2, 3]}, "input", "send text"),
    ({"input": [[1, 2], [3]]}, "input", "send text"),
    ({"input": ["a", 5]}, "input", "send text"),
    ({"input": ["a", None]}, "input[1]", "must be text"),
    ({"input": ["a", True]}, "input[1]", "must be text"),
    ({"input": ["a"] * 2049}, "input", "2048"),
    ({"model": 5}, "model", "got `int`"),
    ({"dimensions": 0}, "dimensions", "1"),
    ({"dimensions": 10_001}, "dimensions", "10000"),
    ({"dimensions": 1.5}, "dimensions", "got `float`"),
    ({"encoding_format": "hex"}, "encoding_format", "hex"),
    ({"user": 5}, "user", "got `int`"),
    ({"x": float("nan")}, "x", "finite"),
]


@pytest.mark.parametrize(("fields", "param", "why"), WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why) as caught:
        asked(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(("body", "param"), [(b"{}", "model"), (b'{"model":"m"}', "input"), (b"[]", None)])
def test_what_is_missing_is_named(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_embeddings(body)
    assert caught.value.param == param


@settings(max_examples=300)
@given(
    st.binary(max_size=40)
    | st.dictionaries(st.sampled_from(["input", "dimensions", "encoding_format", "x"]), values).map(
        lambda found: json.dumps({"model": "m", "input": "a"} | found).encode()
    )
)
def test_any_request_is_read_or_refused(body: bytes) -> None:
    try:
        request = parse_embeddings(body)
    except InvalidRequestError as error:
        refused = error
    else:
        assert request.inputs
        assert all(request.inputs)
        return
    assert refused.message


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4))
def test_both_formats_hold_the_same_vectors(rows: list[list[float]]) -> None:
    vectors = np.array(rows, np.float32)
    texts = ["a"] * len(rows)
    plain = json.loads(embeddings_body(asked(input=texts), vectors, "e", 7))
    packed = json.loads(embeddings_body(asked(input=texts, encoding_format="base64"), vectors, "e", 7))
    assert [np.frombuffer(base64.b64decode(e["embedding"]), "<f4").tolist() for e in packed["data"]] == rows
    assert [e["embedding"] for e in plain["data"]] == rows
    assert [(e["index"], e["object"]) for e in plain["data"]] == [(i, "embedding") for i in range(len(rows))]
    assert plain["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (plain["object"], plain["model"]) == ("list", "e")


@pytest.mark.parametrize("order", ["<f4", ">f4"])
def test_base64_is_little_endian_whatever_the_vectors_are(order: str) -> None:
    vectors: Any = np.array([[0.1, 2.0]], order)
    body = json.loads(embeddings_body(asked(encoding_format="base64"), vectors, "e", 1))
    assert body["data"][0]["embedding"] == "zczMPQAAAEA="


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_the_client_reads_both(form: Any) -> None:
    vectors = np.array([[0.1, -0.2], [0.3, 0.4]], np.float32)

    def answer(request: httpx2.Request) -> httpx2.Response:
        body = embeddings_body(parse_embeddings(request.content), vectors, "e", 7)
        return httpx2.Response(200, content=body, headers={"content-type": "application/json"})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    with openai.OpenAI(base_url="http://node/v1", api_key="k", max_retries=0, http_client=transport) as node:
        reply = node.embeddings.create(model="m", input=["a", "b"], **form)
    shown = [e.embedding for e in reply.data]
    if form.get("encoding_format") == "base64":  # the client leaves alone what was asked for by name
        told: list[Any] = shown
        shown = [np.frombuffer(base64.b64decode(one), "<f4").tolist() for one in told]
    assert shown == vectors.tolist()


def test_the_reply_has_the_clients_types() -> None:
    body = embeddings_body(asked(), np.array([[0.1]], np.float32), "e", 1)
    assert CreateEmbeddingResponse.model_validate_json(body, strict=True).usage.total_tokens == 1
