"""`POST /v1/feedback`: what a caller says of an answer that it got. Knows no ledger."""

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from manyminds.admission import Admission
from manyminds.errors import InvalidRequestError, ManymindsError
from manyminds.types import Key
from manyminds.web.door import identify
from manyminds.web.exchange import Exchange
from manyminds.web.replies import JSON, named, new_id, refusal

__all__ = ["Feedback", "Grade"]

Grade: TypeAlias = Callable[[str, Key | None, float], Awaitable[bool]]
"""Keeps the grade, in [0, 1], of a request of that key; whether it is learnt from.

Raises: UnknownRequestError, AlreadyGradedError.
"""

_LARGEST_BYTES = 10_000


class _Request(msgspec.Struct):
    request_id: str
    correct: float | bool


_request = msgspec.json.Decoder(_Request)


class Feedback:
    """The endpoint; see `connection.Serve`."""

    def __init__(self, grade: Grade, admission: Admission) -> None:
        self._grade = grade
        self._admission = admission

    async def __call__(self, exchange: Exchange) -> None:
        try:
            with self._admission.enter():
                key = identify(self._admission, exchange.headers)
                request = _parsed(await exchange.body(_LARGEST_BYTES))
                self._admission.take(key, 0)
                learnt = await self._grade(request.request_id, key, float(request.correct))
                said = {"object": "feedback", "request_id": request.request_id, "learnt": learnt}
                status, head, body = 200, JSON, msgspec.json.encode(said)
        except ManymindsError as error:
            status, head, body = refusal(error)
        exchange.reply(status, named(new_id()) + head, body)


def _parsed(raw: bytes) -> _Request:
    try:
        request = _request.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f'The body is not {{"request_id": text, "correct": number from 0 to 1}}: {error}.'
        ) from None
    if not (math.isfinite(request.correct) and 0 <= request.correct <= 1):
        raise InvalidRequestError(
            f"`correct` goes from 0 (wrong) to 1 (right), not {request.correct:g}.", param="correct"
        )
    return request
