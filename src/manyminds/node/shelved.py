"""The experts of a node on shelves: by what was learnt of them, else by their own words. Pure but for words.

What was learnt says of each topic how often an expert is right there, as `manyminds train` estimated it from
that expert's own answers, and by how many of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from manyminds.artefact import Artefact, Part
from manyminds.index import claimed_tree
from manyminds.ratings import Rated
from manyminds.types import Embed, Kind

__all__ = ["shelved"]

_KINDS: Final[Mapping[Kind, str]] = {
    "option": "multiple choice",
    "number": "numbers",
    "exact": "exact answers",
    "span": "short answers",
    "json": "JSON",
    "text": "free text",
}
_OTHERS: Final = "others"
_SILENT: Final = "say nothing of themselves"
_Fields = dict[str, Any]


@dataclass(slots=True)
class _Shelf:
    """Chapters by the name of their book."""

    label: str
    books: dict[str, list[_Fields]] = field(default_factory=dict)


def shelved(cards: Sequence[Rated], artefact: Artefact | None, embed: Embed | None) -> list[_Fields]:
    """Sections, their shelves, and on these the experts with what is known of each; see docs/api.md.

    Each expert is on one shelf at least. Seconds for a thousand experts with words of their own.
    """
    known = {card.name: card for card in cards}
    sections = [_learnt(part, known) for part in artefact.parts] if artefact is not None else []
    placed = {name for _, shelves in sections for shelf in shelves for name in shelf.books}
    words = {
        card.name: [text for text in (*card.skills, card.description) if text]
        for card in cards
        if card.name not in placed
    }
    spoken = {name: own for name, own in words.items() if own}
    if spoken and embed is not None:
        for section in claimed_tree(spoken, embed):
            shelves = [
                _Shelf(
                    shelf.label,
                    {book.name: [_chapter(c.label) for c in book.chapters] for book in shelf.books},
                )
                for shelf in section.shelves
            ]
            sections.append((section.label, shelves))
        words = {name: own for name, own in words.items() if not own}
    if words:
        of_kind: dict[str, _Shelf] = {}
        for name, own in sorted(words.items()):
            label = known[name].kind if own else f"{known[name].kind}: {_SILENT}"
            shelf = of_kind.setdefault(label, _Shelf(label))
            shelf.books[name] = [_chapter(text) for text in own]
        sections.append((_OTHERS, list(of_kind.values())))
    return [_section(label, shelves, known) for label, shelves in sections if shelves]


def _learnt(part: Part, known: Mapping[str, Rated]) -> tuple[str, list[_Shelf]]:
    """What one part of an artefact tells of these experts, by topic; a chapter for each way of asking one."""
    base, skills = part.base, part.skills
    questions = skills.asked * base.shares
    total = questions.sum(axis=1, keepdims=True)
    asked = np.rint(skills.answered[:, None] * questions / np.where(total > 0.0, total, 1.0))
    x = np.stack([base.features(None, topic) for topic in base.topics]) if base.topics else np.zeros((0, 0))
    shelves = []
    for t, topic in enumerate(base.topics):
        logits = skills.weights[:, 0] + skills.weights[:, 1:] @ x[t]
        right = 1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))
        there = asked[:, t] > 0.0
        shelf = _Shelf(topic.replace("_", " "))
        for i in np.flatnonzero(there):
            name, _, way = skills.experts[i].partition(":")
            if skills.experts[i] in known:
                name, way = skills.experts[i], ""
            if name in known:
                others = there & np.array([source != skills.sources[i] for source in skills.sources])
                peers = float(right[others].mean()) if others.any() else None
                chapter = _chapter(way or shelf.label, int(asked[i, t]), float(right[i]), peers)
                shelf.books.setdefault(name, []).append(chapter)
        if shelf.books:
            shelves.append(shelf)
    return ", ".join(_KINDS.get(kind, kind) for kind in part.kinds), shelves


def _chapter(label: str, asked: int = 0, right: float | None = None, peers: float | None = None) -> _Fields:
    return {"label": label, "asked": asked, "right": right, "peers": peers}


def _section(label: str, shelves: Sequence[_Shelf], known: Mapping[str, Rated]) -> _Fields:
    shown = [
        {
            "label": shelf.label,
            "size": len(shelf.books),
            "books": [_book(known[name], chapters) for name, chapters in sorted(shelf.books.items())],
        }
        for shelf in shelves
    ]
    return {"label": label, "size": len({name for s in shelves for name in s.books}), "shelves": shown}


def _book(card: Rated, chapters: Sequence[_Fields]) -> _Fields:
    return {
        "name": card.name,
        "kind": card.kind,
        "source": card.source or card.name,
        "paused": card.paused,
        "chapters": list(chapters),
    }
