"""The models that can be pulled, and which of them are here. Knows nothing of how a file is downloaded."""

import hashlib
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from manyminds.catalog.own import OwnModel, need_gguf, own, record_of, record_own
from manyminds.errors import CatalogError, HashMismatchError, UnknownModelError

__all__ = [
    "File",
    "Model",
    "OwnModel",
    "Part",
    "Source",
    "add_own",
    "find",
    "load",
    "missing",
    "need_gguf",
    "own",
    "path_of",
    "record_of",
    "tier",
    "verify",
    "wanted",
]

_TIERS = ("starter", "full", "none")


@dataclass(frozen=True, slots=True)
class Part:
    """One wheel of a carrier, and the member of it that is wanted. `bytes` and `sha256` are the wheel's."""

    package: str
    version: str
    bytes: int
    sha256: str
    member: str

    @property
    def requirement(self) -> str:
        """As an installer names it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file can be had: a hub's `url`, or the `parts` of a carrier, joined in order."""

    kind: Literal["hub", "carrier"]
    url: str = ""
    parts: tuple[Part, ...] = ()

    def __str__(self) -> str:
        if self.kind == "hub":
            return urlsplit(self.url).hostname or self.url
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return f"package {self.parts[0].requirement}{more}"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model. `unofficial`: the makers of the model did not publish this file."""

    model: str
    name: str
    bytes: int
    sha256: str
    sources: tuple[Source, ...]
    unofficial: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue. From `description` on: what its card claims, as measured where it can be."""

    name: str
    kind: Literal["gguf", "encoder"]
    files: tuple[File, ...]
    licence: str
    licence_note: str = ""  # shown whenever the model is pulled
    tiers: tuple[str, ...] = ()
    description: str = ""
    skills: tuple[str, ...] = ()
    accuracy: float = 0.5  # prior share of correct answers
    parameters: int = 0
    context_tokens: int = 0
    tokens_per_s: float = 0.0  # generated, one thread
    ttft_s: float = 0.0
    memory_mb: int = 0
    chat: bool = False  # has a chat template
    scores: bool = False  # its likelihoods of given options tell right from wrong better than its word
    ways: tuple[str, ...] = (
        "direct",
        "code",
        "code3",
        "cot",
        "cot3",
    )  # of asking it that are worth trying: `experts.asked`


def load() -> dict[str, Model]:
    """The whole catalogue, by name."""
    text = resources.files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return {fields["name"]: _model(fields) for fields in tomllib.loads(text)["model"]}


def tier(name: str) -> list[Model]:
    """The models of a tier; "none" has none.

    Raises:
        CatalogError: There is no such tier.
    """
    if name not in _TIERS:
        raise CatalogError(f'there is no tier "{name}": choose one of {", ".join(_TIERS)}')
    return [model for model in load().values() if name in model.tiers]


def wanted(home: Path, name: str) -> list[Model]:
    """The gguf models that a node of this tier runs: the tier's, and those of no tier that have been pulled.

    Raises:
        CatalogError: There is no such tier.
    """
    models = [model for model in tier(name) if model.kind == "gguf"]
    if name != "none":
        extra = [model for model in load().values() if model.kind == "gguf" and not model.tiers]
        models += [model for model in extra if not missing(home, model)]
    return models


def find(name: str) -> Model:
    """The model of that name.

    Raises:
        UnknownModelError: The catalogue has none; the message names the nearest.
    """
    models = load()
    if name in models:
        return models[name]
    near = get_close_matches(name.lower(), models, n=1, cutoff=0.4)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise UnknownModelError(f'the catalogue has no model "{name}": {hint}it has {", ".join(sorted(models))}')


def path_of(home: Path, file: File) -> Path:
    """Where the file lies once it is pulled."""
    return home / "models" / file.model / file.name


def missing(home: Path, model: Model) -> list[File]:
    """The files that are absent or of the wrong size. Reads no file: see `verify`."""
    return [file for file in model.files if not _has_size(path_of(home, file), file.bytes)]


def verify(home: Path, model: Model) -> None:
    """Reads every file of the model and compares its hash. Deletes nothing.

    Raises:
        CatalogError: A file is absent.
        HashMismatchError: A file is not what the catalogue promises.
    """
    for file in model.files:
        path = path_of(home, file)
        try:
            with path.open("rb") as content:
                got = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            reason = error.strerror or error
            raise CatalogError(
                f"{path} cannot be read ({reason}): run `manyminds pull {model.name}`"
            ) from error
        if got != file.sha256:
            raise HashMismatchError(
                f"{path} is damaged: its sha256 is {got}, the catalogue's is {file.sha256}. "
                f"Run `manyminds pull {model.name}` to get it again"
            )


def add_own(home: Path, path: Path, name: str, reserved: Collection[str] = ()) -> OwnModel:
    """Records a GGUF file of one's own under `name`; the file stays where it is. Reads all of it.

    Raises:
        CatalogError: The name is reserved, taken by the catalogue or malformed, or the file is no GGUF.
    """
    if name in reserved:
        raise CatalogError(f'"{name}" is what callers call a policy: choose another name for {path}')
    if name in load():
        raise CatalogError(f'the catalogue has a model "{name}" already: choose another name for {path}')
    return record_own(home, path, name)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


def _model(fields: dict[str, Any]) -> Model:
    rest: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    files = tuple(_file(fields["name"], file) for file in rest.pop("file"))
    return Model(files=files, **rest)


def _file(model: str, fields: dict[str, Any]) -> File:
    rest = dict(fields)
    sources = tuple(_source(source) for source in rest.pop("source"))
    return File(model=model, sources=sources, **rest)


def _source(fields: dict[str, Any]) -> Source:
    parts = tuple(Part(**part) for part in fields.get("parts", ()))
    return Source(kind=fields["kind"], url=fields.get("url", ""), parts=parts)
