"""How long to wait for an expert. Starts no task."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec

from manyminds.alarm import Alarm, Watch
from manyminds.errors import CutError, GarbageError, SlowError
from manyminds.types import Chunk, Expert

__all__ = ["Patience", "check", "note_slow", "paced"]

_LIMIT_BYTES = 8_000_000  # of one answer with its JSON; what an expert sends is untrusted


class Patience(msgspec.Struct, frozen=True):
    """How long to wait: for a call's first token, between two tokens, and for everything."""

    first_token_s: float = 30.0
    idle_s: float = 20.0
    deadline_s: float = 60.0


async def paced(
    expert: Expert, stream: AsyncGenerator[Chunk, None], patience: Patience, deadline: float, alarm: Alarm
) -> AsyncGenerator[Chunk, None]:
    """The chunks of one call as long as they come in time, are not too large, and end with a finish.

    `stream` is the expert's, `deadline` a time of the loop's clock. An expert that passes a limit of
    `patience` is told so; that a caller allows less time is not its fault.
    Closing the generator closes `stream`. Raises: SlowError, CutError, GarbageError, and what `stream` does.
    """
    loop, name = asyncio.get_running_loop(), expert.card.name
    limit_s = patience.first_token_s
    owed_at = loop.time() + limit_s
    watch = Watch(alarm, min(owed_at, deadline))
    size, last = 0, None
    try:
        while True:
            try:
                with watch:
                    chunk = await anext(stream)
            except StopAsyncIteration:
                break
            except TimeoutError:
                if not watch.rang:  # it is the expert's own
                    raise
                if owed_at <= deadline:
                    note_slow(expert)
                raise _slow(name, limit_s, last is not None, loop.time() >= deadline) from None
            size += len(chunk.text) + len(chunk.raw)
            if size > _LIMIT_BYTES:
                raise _too_much(name)
            last = chunk
            yield chunk
            limit_s = patience.idle_s
            owed_at = loop.time() + limit_s
            watch.due_s = min(owed_at, deadline)
    finally:
        await stream.aclose()
    if last is None or last.finish_reason is None:
        raise _unfinished(name)


def check(name: str, chunks: Sequence[Chunk]) -> None:
    """An answer that came all at once, as `paced` checks what comes bit by bit.

    Raises: GarbageError where it is too large; CutError where it has no finish.
    """
    if sum(len(chunk.text) + len(chunk.raw) for chunk in chunks) > _LIMIT_BYTES:
        raise _too_much(name)
    if not chunks or chunks[-1].finish_reason is None:
        raise _unfinished(name)


def note_slow(expert: Expert) -> None:
    """Tells an expert that keeps count of its failures that a call of it was given up for slowness.

    To itself it was cancelled, as any call that is no longer needed.
    """
    note = getattr(expert, "note_slow", None)
    if note is not None:
        note()


def _too_much(name: str) -> GarbageError:
    return GarbageError(f"{name} sent more than {_LIMIT_BYTES} bytes.")


def _unfinished(name: str) -> CutError:
    return CutError(f"{name} ended without finishing its answer.")


def _slow(name: str, limit_s: float, begun: bool, late: bool) -> SlowError:
    if late:
        return SlowError(f"{name} had not finished at the deadline.")
    return SlowError(f"{name} sent {'nothing more' if begun else 'no first token'} within {limit_s:g} s.")
