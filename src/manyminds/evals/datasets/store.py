"""From pinned files to a set's folder: downloaded, verified, converted, checked, and only then in place.

Knows nothing of how progress is shown. Beside the set's folder: .downloads/NAME/SHA256 what is under way,
.downloads/NAME.lock one builder per set, .NAME.new and .NAME.old while folders are exchanged.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from manyminds.catalog.download import is_whole, obtain, open_session
from manyminds.catalog.lock import locked
from manyminds.errors import DataError, DownloadError
from manyminds.evals.datasets.schema import FILES, Tables, digest_of, need_pyarrow, write
from manyminds.evals.datasets.sources import Dataset, known_models

__all__ = ["Fetched", "fetch", "is_here"]

_BASE_URL: Final = "https://raw.githubusercontent.com"
_STREAMS: Final = 4  # downloads at once
_FORMAT: Final = 2
"""Counts up when a converter, or models.toml, comes to say something else of the same files."""
_RECORD: Final = "source.json"


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    """What a built folder says of itself."""

    name: str
    repository: str
    commits: list[str]
    licence: str
    pin: str
    format: int
    files: dict[str, str]
    """sha256 by name, of the three tables."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A set that is now here. `downloaded` is False where it was so before."""

    dataset: Dataset
    folder: Path
    downloaded: bool


def is_here(dataset: Dataset, folder: Path) -> bool:
    """Whether the folder holds this very set, whole and unchanged."""
    record = _record(folder)
    if record is None or (record.name, record.pin, record.format) != (dataset.name, dataset.pin, _FORMAT):
        return False
    try:
        return all(digest_of(folder / name) == record.files.get(name) for name in FILES)
    except OSError:
        return False


def fetch(
    dataset: Dataset,
    folder: Path,
    *,
    base_url: str = _BASE_URL,
    moved: Callable[[int], None] = lambda n_bytes: None,
) -> Fetched:
    """Builds the set in `folder`; with all in place it does nothing. Not to be called from an event loop.

    `moved` gets every change of the bytes at hand, also downwards. Failing or interrupted, it leaves whole
    files and resumable parts of what was downloaded, and the folder as it was.

    Raises:
        DownloadError: Upstream cannot be reached; the message is one line.
        HashMismatchError: What came is not what is pinned.
        DataError: What came does not keep its form, pyarrow is missing, or another's folder is in the way.
        OSError: The disk failed.
    """
    need_pyarrow()
    if is_here(dataset, folder):
        return Fetched(dataset, folder, downloaded=False)
    if folder.exists() and _record(folder) is None:
        raise DataError(
            f"{folder} is in the way, and no set that was built here: move it, or choose another folder."
        )
    return asyncio.run(_fetch(dataset, folder, base_url, moved))


async def _fetch(dataset: Dataset, folder: Path, base_url: str, moved: Callable[[int], None]) -> Fetched:
    downloads = folder.parent / ".downloads" / dataset.name
    downloads.mkdir(parents=True, exist_ok=True)
    async with locked(downloads.with_name(f"{dataset.name}.lock"), lambda: None):
        if is_here(dataset, folder):  # another process has just built it
            return Fetched(dataset, folder, downloaded=False)
        downloads.mkdir(exist_ok=True)  # which the other process removes
        paths = await _download(dataset, downloads, base_url, moved)
        tables = _convert(dataset, paths)
        _build(dataset, tables, folder)
        shutil.rmtree(downloads)
    return Fetched(dataset, folder, downloaded=True)


async def _download(
    dataset: Dataset, downloads: Path, base_url: str, moved: Callable[[int], None]
) -> dict[str, Path]:
    """Where each file is, by its path upstream. The first failure ends all."""
    paths = {file.path: downloads / file.sha256 for file in dataset.files}
    waiting = iter(dataset.files)

    async def work() -> None:
        for file in waiting:
            if await is_whole(paths[file.path], file.bytes, file.sha256):
                moved(file.bytes)
                continue
            url = f"{base_url}/{dataset.repository}/{file.commit}/{quote(file.path)}"
            label = f"{dataset.repository}/{file.path}"
            size, sha256 = file.bytes, file.sha256
            await obtain(session, url, paths[file.path], size=size, sha256=sha256, label=label, moved=moved)

    try:
        async with open_session() as session, asyncio.TaskGroup() as group:
            for _ in range(_STREAMS):
                group.create_task(work())
    except ExceptionGroup as failures:
        failure = failures.exceptions[0]
        if not isinstance(failure, DownloadError):
            raise failure from None
        here = sum(path.is_file() for path in paths.values())
        raise DownloadError(
            f"{dataset.name} cannot be downloaded: {' '.join(failure.message.split())}. "
            f"What is here stays ({here} of {len(paths)} files): "
            f"run this again where {urlsplit(base_url).hostname} can be reached."
        ) from None
    return paths


def _convert(dataset: Dataset, paths: Mapping[str, Path]) -> Tables:
    """Raises: DataError, which names the file."""
    if dataset.name == "swebench_mini":
        from manyminds.evals.datasets import swebench_mini

        return swebench_mini.convert(paths)
    if dataset.name == "frugalml_apis":
        from manyminds.evals.datasets import frugalml_apis

        return frugalml_apis.convert(paths)
    known = known_models()
    models = {file.path: known[file.model] for file in dataset.files}
    if dataset.name == "mmlu_pro":
        from manyminds.evals.datasets import mmlu_pro

        return mmlu_pro.convert(paths, models)
    from manyminds.evals.datasets import zeroeval

    return zeroeval.convert(paths, models, dataset.name)


def _build(dataset: Dataset, tables: Tables, folder: Path) -> None:
    """Writes and checks the folder beside its place, then exchanges the two. Raises: DataError, OSError."""
    from manyminds.experts.recorded import open_set

    new, old = (folder.with_name(f".{folder.name}.{which}") for which in ("new", "old"))
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        files = write(tables, new)
        record = _Record(
            name=dataset.name,
            repository=dataset.repository,
            commits=sorted({file.commit for file in dataset.files}),
            licence=dataset.licence,
            pin=dataset.pin,
            format=_FORMAT,
            files=files,
        )
        (new / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        built = open_set(new)
        counts = (len(built.questions()), len(built.models))
        if counts != (dataset.questions, dataset.models):
            raise DataError(
                f"{dataset.name} came out with {counts[0]} questions and {counts[1]} models, "
                f"not {dataset.questions} and {dataset.models}."
            )
        if folder.exists():
            folder.rename(old)
        os.replace(new, folder)
    finally:
        for left_over in (new, old):
            shutil.rmtree(left_over, ignore_errors=True)


def _record(folder: Path) -> _Record | None:
    """None where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / _RECORD).read_bytes(), type=_Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
