"""GGUF files of one's own: recorded by name, never copied. Knows nothing of the catalogue's models."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from manyminds.errors import CatalogError

__all__ = ["OwnModel", "need_gguf", "own", "record_of", "record_own"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class OwnModel:
    """A GGUF file that its owner added. `path` is absolute."""

    name: str
    path: Path
    bytes: int
    sha256: str


def record_own(home: Path, path: Path, name: str) -> OwnModel:
    """Checks the file and records it as `models/own/NAME.json`, in place of an earlier one of that name.

    Raises:
        CatalogError: The name is malformed, the file cannot be read or is no GGUF.
    """
    if not _NAME.fullmatch(name):
        raise CatalogError(
            f'"{name}" cannot name a model: use 1 to 64 of a-z, 0-9, ".", "_" and "-", '
            "with a letter or digit in front"
        )
    need_gguf(path)
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            size = content.tell()
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error.strerror or error}") from error
    model = OwnModel(name=name, path=path.resolve(), bytes=size, sha256=digest)
    _write(record_of(home, name), json.dumps(asdict(model), default=str, indent=2) + "\n")
    return model


def need_gguf(path: Path) -> None:
    """Raises: CatalogError: it cannot be read, or does not begin as a GGUF file does."""
    try:
        with path.open("rb") as content:
            if content.read(len(_MAGIC)) != _MAGIC:
                raise CatalogError(f'{path} is not a GGUF file: it does not begin with "GGUF"')
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error.strerror or error}") from error


def record_of(home: Path, name: str) -> Path:
    """The file that records an own model; without it, the model is not known any more."""
    return home / "models" / "own" / f"{name}.json"


def own(home: Path) -> list[OwnModel]:
    """All files that were added, by name. Does not look whether they are still there.

    Raises:
        CatalogError: A record is damaged.
    """
    return [_read(record) for record in sorted((home / "models" / "own").glob("*.json"))]


def _read(record: Path) -> OwnModel:
    try:
        fields = json.loads(record.read_text(encoding="utf-8"))
        return OwnModel(
            name=record.stem,
            path=Path(fields["path"]),
            bytes=int(fields["bytes"]),
            sha256=str(fields["sha256"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CatalogError(
            f"{record} is damaged: delete it and run `manyminds pull --gguf PATH` again"
        ) from error


def _write(path: Path, text: str) -> None:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise CatalogError(f"{path} cannot be written: {error.strerror or error}") from error
