"""A lock on a path among all processes of this machine. Knows nothing of what it guards."""

import asyncio
import fcntl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

__all__ = ["locked"]

_POLL_S = 0.2


@asynccontextmanager
async def locked(path: Path, waiting: Callable[[], None]) -> AsyncGenerator[None, None]:
    """Holds the lock; `waiting` is called once if another holds it. Polls, so that waiting can be cancelled.

    Raises:
        OSError: The file cannot be made or the file system has no locks.
    """
    with _opened(path) as file:  # closing it gives the lock back, as does the end of the process
        if not _lock(file):
            waiting()
            while not _lock(file):  # noqa: ASYNC110 - another process can set no Event
                await asyncio.sleep(_POLL_S)
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opened(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a")
