"""A command that a running node has done beside itself, slowly: whoever is answered does not notice."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec import json

if TYPE_CHECKING:
    from manyminds.config import Config

__all__ = ["run", "told"]

_NICE: Final = 10
_LINE_BYTES: Final = 1_000_000  # of an event at most
_PATIENCE_S: Final = 10.0  # for one that was interrupted to keep what it has


async def run(config: "Config", *words: str) -> str:
    """`manyminds WORDS` by this configuration, to its end. Cancelled, it ends the command, too.

    Returns: "" where it did what it should, else the last thing that it said.
    """
    process = await _begun(config, words, asyncio.subprocess.DEVNULL, {})
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return _wrong(process, said)


async def told(
    config: "Config", *words: str, environ: Mapping[str, str] = MappingProxyType({})
) -> AsyncGenerator[dict[str, Any], None]:
    """The events that `manyminds WORDS` prints, a JSON object a line, as it prints them.

    Closed or cancelled, it interrupts the command, which keeps what it has, and waits for its end.

    Where it goes wrong without an event that says so, the last one does.
    """
    process = await _begun(config, words, asyncio.subprocess.PIPE, environ)
    assert process.stdout is not None
    assert process.stderr is not None
    talk = asyncio.ensure_future(process.stderr.read())
    event: dict[str, Any] = {}
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        async for line in process.stdout:
            event = json.decode(line)
            yield event
        said = await talk
        await process.wait()
    finally:
        talk.cancel()
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await asyncio.shield(_ended(process))
    if (wrong := _wrong(process, said)) and event.get("event") != "error":
        yield {"event": "error", "message": wrong}


async def _begun(
    config: "Config", words: Sequence[str], stdout: int, environ: Mapping[str, str]
) -> asyncio.subprocess.Process:
    file = ["--config", str(config.file)] if config.file else []
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "manyminds", *file, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        env={**os.environ, **environ},
    )


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _wrong(process: asyncio.subprocess.Process, said: bytes) -> str:
    """The last thing that it said, where it did not do what it should; else ""."""
    if not process.returncode:
        return ""
    last = said.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("manyminds: ")
    return last or f"it ended with status {process.returncode}"
