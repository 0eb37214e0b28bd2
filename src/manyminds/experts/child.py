"""The process of one local model: starts it, asks how it is, ends it. Knows nothing of its answers."""

import asyncio
import json
import secrets
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from manyminds.errors import UnavailableError

__all__ = ["Child", "Model", "Process", "cpu_s"]

_START_S = 180.0  # to load a model, cold from a slow disk, before the process is given up


@dataclass(frozen=True, slots=True)
class Model:
    """What the child process serves."""

    path: Path
    context_tokens: int = 4096
    threads: int = 1
    max_tokens: int = 1024  # of an answer whose request sets no limit
    memory_bytes: int = 0  # of private memory; 0 is no limit
    needs_mb: float = 0.0  # of memory while it runs
    chat_template: str = ""  # empty: the file's own
    remedy: str = "look after the file"  # what to do where it is missing or damaged
    stop: tuple[str, ...] = ()  # ends an answer whose request names no stop
    slots: int = 8  # answers to one question that it can make side by side; all share the context


class Process(Protocol):
    """A child process as whoever asks it sees it, also where it is another process's child."""

    url: str
    key: str
    pid: int

    @property
    def alive(self) -> bool: ...

    async def died(self) -> bool:
        """Whether the process has ended, or does within a second."""
        ...

    async def kill(self) -> None:
        """Ends a process that does not listen, stopped ones too."""
        ...

    async def stop(self) -> None:
        """It is not needed here any longer."""
        ...


class Child:
    """One child process. `start` makes it, `stop` ends it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, key: str) -> None:
        self._process = process
        self.url = url
        self.key = key
        self.pid = process.pid

    @classmethod
    async def start(cls, name: str, model: Model) -> "Child":
        """Raises: UnavailableError when the model cannot be loaded."""
        key = secrets.token_urlsafe(24)
        try:
            with tempfile.TemporaryFile() as talk:
                process = await _spawn(talk)
                try:
                    line = await asyncio.wait_for(_greet(process, _wish(name, model, key)), _START_S)
                except (OSError, ValueError):  # a TimeoutError is an OSError
                    line = b""
                except BaseException:  # it listens to nobody while it loads
                    process.kill()
                    await process.wait()
                    raise
                if not line.endswith(b"\n"):
                    await _end(process)
                    talk.seek(0)
                    said = " ".join(talk.read().decode("utf-8", "replace").split())[-200:]
                    raise UnavailableError(_cannot_load(name, model, process.returncode, said))
        except OSError as error:
            raise UnavailableError(f"{name} cannot be started: {error.strerror or error}.") from None
        return cls(process, json.loads(line)["url"], key)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ended(self) -> None:
        """Waits until the process has ended."""
        await self._process.wait()

    async def died(self) -> bool:
        """See `Process`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 1.0)
        return not self.alive

    async def kill(self) -> None:
        """See `Process`."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ends it."""
        await _end(self._process)


def cpu_s(pid: int) -> float | None:
    """Seconds of computation that all threads of a process have taken; None where nobody can tell.

    What other processes take of the machine meanwhile is not in it, as it is in a time by the clock.
    """
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) makes of it
    except OSError:  # it has ended
        return None


def _wish(name: str, model: Model, key: str) -> bytes:
    fields = {
        "name": name,
        "path": str(model.path),
        "key": key,
        "context_tokens": model.context_tokens,
        "threads": model.threads,
        "max_tokens": model.max_tokens,
        "memory_bytes": model.memory_bytes,
        "chat_template": model.chat_template,
        "stop": model.stop,
        "slots": model.slots,
    }
    return json.dumps(fields).encode() + b"\n"


async def _spawn(talk: IO[bytes]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "manyminds.experts.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=talk,
        start_new_session=True,  # Ctrl-C is for the node, which then ends its children
    )


async def _greet(process: asyncio.subprocess.Process, wish: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(wish)
    await process.stdin.drain()
    return await process.stdout.readline()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Closes the child's standard input, which ends it; kills it when it is deaf."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 2.0)
    except TimeoutError:
        process.kill()
        await process.wait()


def _cannot_load(name: str, model: Model, status: int | None, said: str) -> str:
    path = model.path
    if not path.exists():
        return f"{name} is not on this machine ({path}): {model.remedy}."
    reason = said or f"its process ended with status {status}"
    text = f"{name} cannot be loaded from {path} ({reason})."
    text += f" The file may be damaged: {model.remedy}."
    if model.memory_bytes:
        text += f" Or {model.memory_bytes / 1e6:.0f} MB are too little for it: lower its `context_tokens`."
    return text
