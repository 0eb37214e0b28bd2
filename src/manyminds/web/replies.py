"""Bodies in, JSON out: what all endpoints that take a body share."""

import asyncio
import math
import secrets
import time
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from manyminds.alarm import Alarm, Watch
from manyminds.errors import (
    AllExpertsFailedError,
    BudgetError,
    InvalidRequestError,
    ManymindsError,
    RefusedError,
    RejectedError,
    SlowRequestError,
    TooLargeError,
)
from manyminds.wire import error_body

__all__ = ["advice", "named", "new_id", "read_body", "send_error", "send_json"]

_READ_S = 60.0  # between two pieces of a request's body


def new_id() -> str:
    """A request's name, in headers, logs and the ledger. Later ones sort later, as its index likes it."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


async def read_body(scope: Scope, receive: Receive, limit_bytes: int, alarm: Alarm) -> bytes | None:
    """The request's body; None when the client left. Raises: TooLargeError, SlowRequestError."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        watch = Watch(alarm, asyncio.get_running_loop().time() + _READ_S)
        try:
            with watch:
                message = await receive()
        except TimeoutError:
            raise SlowRequestError(
                f"No more of the body came for {_READ_S:g} s: send it without such a pause."
            ) from None
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {limit_bytes / 1e6:g} MB: send less, or raise `server.max_body_mb`."
    )


def named(request_id: str) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The request's id as OpenAI's clients read it, and as Anthropic's do."""
    value = request_id.encode()
    return (b"x-request-id", value), (b"request-id", value)


async def send_json(
    send: Send, status: int, body: bytes, request_id: str, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    headers = [
        (b"content-type", b"application/json"),
        *named(request_id),
        (b"content-length", b"%d" % len(body)),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(
    send: Send, error: ManymindsError, request_id: str, reply: tuple[int, bytes] | None = None
) -> None:
    """`reply` is its status and body in a format that is not OpenAI's."""
    status, body = reply or (error.status, error_body(error))
    more = [(name.encode(), value.encode()) for name, value in advice(error).items()]
    await send_json(send, status, body, request_id, more)


def advice(error: ManymindsError) -> dict[str, str]:
    """Headers that say what a client that gets this error should do next."""
    found = {}
    if error.retry_after_s is not None:
        found["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, SlowRequestError):
        found["connection"] = "close"  # else its sender could keep it for ever
    elif isinstance(error, InvalidRequestError | RefusedError | RejectedError) and error.status != 429:
        found["x-should-retry"] = "false"
    elif isinstance(error, BudgetError) or (
        isinstance(error, AllExpertsFailedError) and error.retry_after_s is None
    ):
        found["x-should-retry"] = "false"  # its period must pass; or panel and reserve have been tried
    return found
