"""A command that a running node has done beside itself, slowly: whoever is answered does not notice."""

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from manyminds.config import Config

__all__ = ["run"]

_NICE: Final = 10


async def run(config: "Config", *words: str) -> str:
    """`manyminds WORDS` by this configuration, to its end. Cancelled, it ends the command, too.

    Returns: "" where it did what it should, else the last thing that it said.
    """
    file = ["--config", str(config.file)] if config.file else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "manyminds", *file, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if not process.returncode:
        return ""
    last = said.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("manyminds: ")
    return last or f"it ended with status {process.returncode}"
