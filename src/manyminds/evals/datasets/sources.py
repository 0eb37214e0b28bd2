"""Which public sets can be built, and every file they are built from. Knows nothing of how they are fetched.

`sources.toml` pins each file by commit, size and sha256; `models.toml` says of models what upstream does not.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from typing import Any

from manyminds.errors import DataError
from manyminds.evals.datasets.schema import ModelRow

__all__ = ["Dataset", "Upstream", "find", "known_models", "load"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """One file of a repository. `model` is whose answers it holds; empty where it holds several models'."""

    path: str
    commit: str
    bytes: int
    sha256: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A public set: what is known of it before anything is downloaded.

    Attributes:
        repository: OWNER/NAME on GitHub.
        licence: of the repository.
        note: what else to know before using it; may be empty.
        questions, models: how many it has once built.
    """

    name: str
    about: str
    repository: str
    licence: str
    note: str
    questions: int
    models: int
    files: tuple[Upstream, ...]

    @property
    def bytes(self) -> int:
        """Of all downloads together."""
        return sum(file.bytes for file in self.files)

    @property
    def pin(self) -> str:
        """Another one where anything that the set is built from changes."""
        pins = "\n".join(f"{file.path} {file.sha256} {file.model}" for file in self.files)
        return hashlib.sha256(f"{self.name}\n{pins}".encode()).hexdigest()


def load() -> tuple[Dataset, ...]:
    """All sets, in the order of the file."""
    return tuple(_dataset(fields) for fields in _read("sources.toml")["set"])


def find(name: str) -> Dataset:
    """Raises: DataError, which names the nearest."""
    sets = {dataset.name: dataset for dataset in load()}
    if name in sets:
        return sets[name]
    near = get_close_matches(name, sets, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sets)}."
    raise DataError(f"There is no public set {name!r}: {hint}")


def known_models() -> dict[str, ModelRow]:
    """Makers, sizes and launch prices, by name. Most are from memory: for estimates of cost, no more."""
    table = _read("models.toml")
    return {
        name: ModelRow(
            model=name,
            family=fields["family"],
            params_b=fields.get("params_b"),
            active_params_b=fields.get("active_params_b", fields.get("params_b")),
            open_weights=fields["open_weights"],
            released=fields["released"],
            price_in_usd_per_m=fields["price_in_usd_per_m"],
            price_out_usd_per_m=fields["price_out_usd_per_m"],
            price_source=table["price_source"],
        )
        for name, fields in table["models"].items()
    }


def _dataset(fields: Mapping[str, Any]) -> Dataset:
    files = tuple(Upstream(**{"commit": fields["commit"]} | file) for file in fields["files"])
    own = {key: value for key, value in fields.items() if key not in ("commit", "files")}
    return Dataset(**own, files=files)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files(__package__) / name).read_text(encoding="utf-8"))
