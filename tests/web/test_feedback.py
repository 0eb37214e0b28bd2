import json
from typing import Any

import pytest

from manyminds.errors import AlreadyGradedError, UnknownRequestError
from manyminds.router.policy import POLICIES
from manyminds.types import Key
from manyminds.web.app import App, Edge
from tests.clock import run
from tests.network import network
from tests.web.client import Reply, call


def post(body: bytes) -> Reply:
    graded: dict[str, float] = {}

    async def grade(request_id: str, key: Key | None, correct: float) -> bool:
        if request_id != "r1":
            raise UnknownRequestError("No request of yours has that id.", param="request_id")
        if request_id in graded:
            raise AlreadyGradedError("Once is what counts.")
        graded[request_id] = correct
        return correct == 1.0

    app = App(Edge(network(), POLICIES, list, lambda: True, 10_000, grade=grade))
    reply = run(call(app, "POST", "/v1/feedback", body))
    if reply.status == 200:
        assert run(call(app, "POST", "/v1/feedback", body)).status == 409
    return reply


@pytest.mark.parametrize(("correct", "learnt"), [(1, True), (True, True), (0.25, False), (0, False)])
def test_a_grade_is_kept_once(correct: Any, learnt: bool) -> None:
    reply = post(json.dumps({"request_id": "r1", "correct": correct}).encode())
    assert (reply.status, json.loads(reply.body)) == (
        200,
        {"object": "feedback", "request_id": "r1", "learnt": learnt},
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"request_id": "r2", "correct": 1}', 404),
        (b'{"request_id": "r1", "correct": 1.5}', 400),
        (b'{"request_id": "r1", "correct": -0.001}', 400),
        (b'{"request_id": "r1", "correct": 1e999}', 400),
        (b'{"request_id": "r1", "correct": null}', 400),
        (b'{"request_id": "r1"}', 400),
        (b'{"correct": 1}', 400),
        (b"[]", 400),
        (b"", 400),
        (b"\xff", 400),
        (b" " * 20_000, 413),
    ],
)
def test_what_is_no_grade_is_refused(body: bytes, status: int) -> None:
    reply = post(body)
    assert reply.status == status
    assert json.loads(reply.body)["error"]["message"]
