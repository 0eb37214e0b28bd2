"""The OpenAPI document: it is one, names what there is, and says of bodies what the parsers say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from manyminds import errors
from manyminds.errors import ManymindsError
from manyminds.types import Chunk, Usage
from manyminds.web.openapi import document
from manyminds.wire import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Dialect
from tests.wire.bent import REQUESTS
from tests.wire.test_fuzz import QUERIES, REPORT

DOCUMENT = document("1.2.3")
API = Path(__file__).resolve().parents[2] / "docs/api.md"
ANSWERING: dict[str, tuple[str, Dialect]] = {
    "/v1/chat/completions": ("chat", CHAT),
    "/v1/completions": ("completions", COMPLETIONS),
    "/v1/messages": ("messages", MESSAGES),
    "/v1/responses": ("responses", RESPONSES),
}
ASKED = dict(zip([*ANSWERING, "/v1/embeddings"], [REQUESTS[i] for i in (1, 2, 4, 3, 5)], strict=True))
ELSEWHERE = (404, 405, 409)  # of a method that there is not, and of feedback


def validator(schema: dict[str, Any]) -> OAS31Validator:
    return OAS31Validator(schema | {"components": DOCUMENT["components"]})


def body_of(path: str) -> OAS31Validator:
    return validator(DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def reply_of(path: str, status: int) -> OAS31Validator:
    reply = DOCUMENT["paths"][path]["post"]["responses"][str(status)]
    return validator(reply["content"]["application/json"]["schema"])


def test_it_is_an_openapi_document() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert json.loads(json.dumps(DOCUMENT, allow_nan=False)) == DOCUMENT


def test_it_names_exactly_the_documented_endpoints() -> None:
    found = {f"{m.upper()} {path}" for path, item in DOCUMENT["paths"].items() for m in item}
    assert found == set(
        re.findall(r"^\| `((?:GET|POST) [^`]+)` \|", API.read_text("utf-8"), flags=re.MULTILINE)
    )


def refers(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from refers(inner)


def test_every_component_is_used() -> None:
    used = set(refers(DOCUMENT))
    known = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "headers")
        for name in DOCUMENT["components"][kind]
    }
    assert used == known


@pytest.mark.parametrize("path", ASKED)
def test_a_real_request_is_as_described(path: str) -> None:
    body_of(path).validate(ASKED[path])
    assert not body_of(path).is_valid(ASKED[path] | {"model": 7})
    assert not body_of(path).is_valid([ASKED[path]])


@pytest.mark.parametrize("path", ANSWERING)
def test_a_reply_is_as_described(path: str) -> None:
    name, dialect = ANSWERING[path]
    chunks = [Chunk("Hi"), Chunk("", "stop", Usage(1, 2), report=REPORT)]
    reply_of(path, 200).validate(json.loads(dialect.reply(QUERIES[name]).whole(chunks)))


def kinds(kind: type[ManymindsError]) -> Iterator[type[ManymindsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


@pytest.mark.parametrize("path", ANSWERING)
def test_every_error_of_an_answer_is_described(path: str) -> None:
    _, dialect = ANSWERING[path]
    told: list[type[ManymindsError]] = [
        *kinds(errors.InvalidRequestError),
        *kinds(errors.AnswerError),
        ManymindsError,
    ]
    for kind in told:
        if kind.__module__ == errors.__name__ and kind.status not in ELSEWHERE:
            status, body = dialect.refuse(kind("What happened.", param="model"), "r1")
            reply_of(path, status).validate(json.loads(body))
    assert not reply_of(path, 400).is_valid({"error": "What happened."})


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
def test_every_reply_has_a_request_id(path: str) -> None:
    for operation in DOCUMENT["paths"][path].values():
        assert all("x-request-id" in reply["headers"] for reply in operation["responses"].values())
        assert {"200", "500", "403"} <= operation["responses"].keys()
