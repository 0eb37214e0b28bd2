"""What all replies share: ids, headers, errors, and advice on what to do next. Knows no endpoint."""

import math
import os
import time
from collections import deque
from collections.abc import Iterable

from manyminds.errors import (
    AllExpertsFailedError,
    BudgetError,
    InvalidRequestError,
    ManymindsError,
    RefusedError,
    RejectedError,
    SlowRequestError,
)
from manyminds.wire import error_body

__all__ = ["JSON", "Names", "advice", "lines", "named", "new_id", "refusal"]

JSON = b"content-type: application/json\r\n"
"""The header of most replies."""

_AT_ONCE = 256  # names whose random part is fetched at once: asking the system takes microseconds


class Names:
    """Names of requests, in headers, logs and the ledger. Later ones sort later, as its index likes it."""

    def __init__(self) -> None:
        self._random: deque[str] = deque()

    def new(self) -> str:
        if not self._random:
            drawn = os.urandom(6 * _AT_ONCE).hex()
            self._random.extend(drawn[i : i + 12] for i in range(0, len(drawn), 12))
        return f"{time.time_ns() // 1_000_000:012x}{self._random.pop()}"


def new_id() -> str:
    """One name; see `Names` for many."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(6).hex()}"


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def named(request_id: str) -> bytes:
    """The request's id in two headers: as OpenAI's clients read it, and as Anthropic's do."""
    return f"x-request-id: {request_id}\r\nrequest-id: {request_id}\r\n".encode()


def refusal(error: ManymindsError, reply: tuple[int, bytes] | None = None) -> tuple[int, bytes, bytes]:
    """Status, head and body. `reply` is status and body in a format that is not OpenAI's."""
    status, body = reply or (error.status, error_body(error))
    return status, JSON + advice(error), body


def advice(error: ManymindsError) -> bytes:
    """Headers that say what a client that gets this error should do next."""
    found = b""
    if error.retry_after_s is not None:
        found = b"retry-after: %d\r\n" % math.ceil(error.retry_after_s)
    if isinstance(error, SlowRequestError):
        return found
    if isinstance(error, InvalidRequestError | RefusedError | RejectedError) and error.status != 429:
        return found + _NOT_AGAIN
    if isinstance(error, BudgetError) or (
        isinstance(error, AllExpertsFailedError) and error.retry_after_s is None
    ):
        return found + _NOT_AGAIN  # its period must pass; or panel and reserve have been tried
    return found


_NOT_AGAIN = b"x-should-retry: false\r\n"
