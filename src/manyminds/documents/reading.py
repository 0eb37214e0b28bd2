"""Documents are read in a process of its own, which may die or hang. Knows no format and no library."""

import json
import os
import stat
import subprocess
import sys
from threading import Event, Timer
from types import TracebackType
from typing import Final, Self

import msgspec

from manyminds.documents.worker import Reply

__all__ = ["MOST_BYTES", "Reading", "read_file"]

MOST_BYTES: Final = 50_000_000
"""Of a file that is read at all."""

_WALL_S: Final = 30.0
_LARGE_WALL_S: Final = 60.0
_LARGE_BYTES: Final = 5_000_000
_MOST_REPLY: Final = 100_000_000
_SERVED: Final = 2_000  # files, after which a new process starts with its memory clean
_FOLDER: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_DAMAGED: Final = "the process that read it ended: it is damaged, or needs too much memory"


class Reading:
    """Reads one file after the other in a child process that is started when it is needed. A context manager.

    For one thread. The child has no environment and no files but its pipes; memory and time are limited.
    """

    def __init__(self, *, wall_s: float | None = None, module: str = "manyminds.documents.worker") -> None:
        """`wall_s` replaces the time limits for each file, `module` is what the child runs."""
        self._wall_s, self._module = wall_s, module
        self._child: subprocess.Popen[bytes] | None = None
        self._served = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child."""
        child, self._child, self._served = self._child, None, 0
        if child is not None:
            child.kill()
            child.communicate()

    def read(self, name: str, content: bytes) -> Reply:
        """The paragraphs of a file, or why there are none. Raises: OSError where no process starts."""
        if self._served >= _SERVED:
            self.close()
        used = self._served
        reply = self._ask(name, content)
        if reply is None and used:  # perhaps others before it had left too little memory
            reply = self._ask(name, content)
        return reply or Reply(why=_DAMAGED)

    def _ask(self, name: str, content: bytes) -> Reply | None:
        """None where the child has died over it."""
        child = self._running()
        limit_s = self._wall_s or (_LARGE_WALL_S if len(content) > _LARGE_BYTES else _WALL_S)
        late = Event()
        timer = Timer(limit_s, _end, (child, late))
        timer.daemon = True
        timer.start()
        try:
            reply = self._exchange(child, name, content, int(limit_s))
        except (EOFError, OSError, ValueError, msgspec.MsgspecError):
            self.close()
            return Reply(why=f"reading it took more than {limit_s:.0f} seconds") if late.is_set() else None
        except BaseException:  # it is not known what it would answer next
            self.close()
            raise
        finally:
            timer.cancel()
        self._served += 1
        return reply

    def _exchange(self, child: "subprocess.Popen[bytes]", name: str, content: bytes, cpu_s: int) -> Reply:
        assert child.stdin is not None
        assert child.stdout is not None
        request = json.dumps({"name": name, "bytes": len(content), "cpu_s": cpu_s})
        child.stdin.write(request.encode() + b"\n" + content)
        child.stdin.flush()
        size = int.from_bytes(_exactly(child, 4), "big")
        if size > _MOST_REPLY:
            self.close()
            return Reply(why="it holds more text than is read of one file")
        return msgspec.json.decode(_exactly(child, size), type=Reply)

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            environment = {
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path))),
                "OPENBLAS_NUM_THREADS": "1",
            }
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for its parent, which then ends it
            )
        return self._child


def _end(child: "subprocess.Popen[bytes]", late: Event) -> None:
    late.set()
    child.kill()


def _exactly(child: "subprocess.Popen[bytes]", size: int) -> bytes:
    assert child.stdout is not None
    content = child.stdout.read(size)
    if len(content) < size:
        raise EOFError
    return content


def read_file(path: str) -> tuple[bytes, int, int]:
    """The content of a regular file, its size and its time of change in nanoseconds, that fit together.

    Args:
        path: absolute and without links, as `walk` says it: one that has become a link since, be it a folder
            above the file, is not followed.

    Raises: OSError, also where it changes all the while, or has grown beyond `MOST_BYTES`.
    """
    for _ in range(3):
        descriptor = _opened(path)
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError("it is no regular file")
            content = file.read(MOST_BYTES + 1)
            after = os.fstat(descriptor)
        same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if same and len(content) == after.st_size <= MOST_BYTES:
            return content, after.st_size, after.st_mtime_ns
    raise OSError("it changed while it was read")


def _opened(path: str) -> int:
    """A descriptor of what is at a path, opened step by step. Raises: OSError where any step is a link."""
    above, name = os.path.split(path)
    folder = os.open("/", _FOLDER)
    try:
        for part in filter(None, above.split("/")):
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
