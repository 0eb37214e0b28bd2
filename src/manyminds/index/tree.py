"""The whole index as people read it: sections and shelves named by the questions that lie nearest. Pure.

A name is made of the words that these questions use and their neighbours do not: class-based tf-idf, as in
BERTopic (Grootendorst 2022), in which the questions of one place count as one text.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from manyminds.index.chapters import Region
from manyminds.index.search import Index
from manyminds.index.shelves import Shelves, learn
from manyminds.types import Embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

__all__ = ["Book", "Chapter", "Paragraph", "Section", "Shelf", "claimed_tree", "label", "tree"]

_WORDS: Final = 3  # in a name, of at least two
_NEAREST: Final = 12  # questions that name a place
_FIELDS: Final = 3  # in a section's name, at most
_COMMON: Final = 0.12  # the share of a section's questions that a field in its name has, at least
_FEWEST: Final = 2  # questions that use a word, for it to name a place of several
_WORD: Final = re.compile(r"[^\W\d_]{3,}")
_STOP: Final = """
about above according after again against all also although among and another answer any approximately
are assume assuming based because been before being below best between both but calculate can cannot case
choose compute consider correct could default describe description determine did different does doing
done down due during each either else enough equal equals estimate evaluate even every example explain
false find first following follows for form four frac from function further get give given gives had has
have having help her here hers him his how however includes into its itself just know known last least
left less let like likely made make many may mathbb mathrm mean means method might more most much must
name need needed needs neither never none nor not note nothing now number numbers object obtain off often one
ones only option options order other others our out over own parameters part per please possible problem
properties property question questions rather represent required respectively result right round same
say says second see select set several shall she should show shown shows simplify since single some something
specific state statement statements string such suppose sure take taken takes tell text than that the
their theirs them then there these they thing things third this those three through thus too total true
two type under until upon use used user uses using usually value values very want was way well were what
when where which while who whole whom whose why will with within without work would write wrong yes you
your yours
"""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A region of past questions: how many an expert was asked there, the share right, and its peers'."""

    label: str
    asked: int
    right: float
    peers: float


@dataclass(frozen=True, slots=True)
class Chapter:
    """One skill vector of an expert: what it is about, and what is known of it from outcomes."""

    label: str
    paragraphs: tuple[Paragraph, ...]


@dataclass(frozen=True, slots=True)
class Book:
    """An expert on a shelf, with as many chapters as it has skill vectors there."""

    name: str
    chapters: tuple[Chapter, ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """A topic, and whoever has a skill in it, by name."""

    label: str
    books: tuple[Book, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A broad field."""

    label: str
    shelves: tuple[Shelf, ...]


def label(places: Sequence[Sequence[str]]) -> list[str]:
    """A name of two to four words for each place, from its questions; no two names are alike.

    Fewer words where the questions have no more that say anything. The same whatever the order of questions.
    """
    counts = [_words(questions) for questions in places]
    everywhere = sum(counts, Counter[str]())
    usual = sum(everywhere.values()) / max(1, len(places))
    names: list[str] = []
    for i, words in enumerate(counts):
        weights = {word: n * math.log(1 + usual / everywhere[word]) for word, n in words.items()}
        ranked = sorted(weights, key=lambda word: (-weights[word], word))
        name = " ".join(ranked[:_WORDS]) or "other"
        if name in names and len(ranked) > _WORDS:
            name = " ".join(ranked[: _WORDS + 1])
        names.append(name if name not in names else f"{name} {i + 1}")
    return names


def tree(
    index: Index,
    questions: Sequence[str],
    vectors: "Vectors",
    fields: Sequence[str] = (),
    outcomes: Mapping[str, Sequence[Region]] = MappingProxyType({}),
) -> tuple[Section, ...]:
    """Sections, their shelves and the books on these, named from n questions and their unit rows (n, d).

    Shelves are the index's own; while it compares all vectors, they are learnt from these questions. Those
    without a book are left out. A section is named by the fields of its questions where these have any, and
    each of an expert's regions is a paragraph of the chapter nearest to it. O(chapters x questions). Raises:
    ValueError where vectors, or fields, are not as many.
    """
    rows = np.ascontiguousarray(vectors, np.float32)
    if not len(questions) or rows.ndim != 2 or len(rows) != len(questions):
        raise ValueError(f"{len(questions)} questions have vectors of shape {rows.shape}")
    if fields and len(fields) != len(questions):
        raise ValueError(f"{len(questions)} questions have {len(fields)} fields")
    if fields:  # what a question is said to be about may name a place as well as its own words
        questions = [f"{question} {field}" for question, field in zip(questions, fields, strict=True)]
    shelves = index.shelves or learn(rows, len(rows), max(1, round(len(rows) ** 0.5 / 2)))
    held = _books(index, shelves, _Named(questions, rows), outcomes)
    sections: dict[int, list[int]] = {}
    for shelf in sorted(held):
        sections.setdefault(int(shelves.section_of(np.array(shelf))), []).append(shelf)
    where = shelves.section_of(shelves.assign(rows))
    members = [np.flatnonzero(where == section).tolist() for section in sections]
    of_section = [
        [questions[i] for i in own] or _near(questions, rows, shelves.sections[section])
        for section, own in zip(sections, members, strict=True)
    ]
    names = label(of_section)
    if fields:
        names = _by_field([[fields[i] for i in own] for own in members], names)
    found = []
    for name, own in zip(names, sections.values(), strict=True):
        of_shelf = label([_near(questions, rows, shelves.shelves[shelf]) for shelf in own])
        found.append(Section(name, tuple(map(Shelf, of_shelf, (held[shelf] for shelf in own)))))
    return tuple(found)


def claimed_tree(skills: Mapping[str, Sequence[str]], embed: Embed) -> tuple[Section, ...]:
    """By nothing but the experts' own words for their skills; at least one expert must have any."""
    texts = sorted({text for own in skills.values() for text in own})
    vectors = dict(zip(texts, embed(texts), strict=True))
    rows = np.stack([vectors[text] for text in texts])
    index = Index(rows.shape[1])
    for name, own in skills.items():
        if own:
            index.add(name, np.stack([vectors[text] for text in own]))
    return tree(index, texts, rows)


def _by_field(places: Sequence[Sequence[str]], words: Sequence[str]) -> list[str]:
    """Names of sections: the fields of most of their questions; their words where two would be alike."""
    names = []
    for place in places:
        ranked = sorted(Counter(filter(None, place)).items(), key=lambda item: (-item[1], item[0]))
        common = [field.replace("_", " ") for field, n in ranked[:_FIELDS] if n >= _COMMON * len(place)]
        names.append(", ".join(common))
    again = Counter(names)
    return [
        name if name and again[name] == 1 else f"{name}: {own}" if name else own
        for name, own in zip(names, words, strict=True)
    ]


class _Named:
    """Names of vectors, by the questions nearest to them; each is looked for once."""

    def __init__(self, questions: Sequence[str], rows: "Vectors") -> None:
        self._questions, self._rows = questions, rows
        self._known: dict[bytes, str] = {}

    def __call__(self, vector: "Vectors") -> str:
        key = vector.tobytes()
        if key not in self._known:
            [self._known[key]] = label([_near(self._questions, self._rows, vector)])
        return self._known[key]


def _books(
    index: Index, shelves: Shelves, named: _Named, outcomes: Mapping[str, Sequence[Region]]
) -> dict[int, tuple[Book, ...]]:
    """The books of each shelf that has any, by name."""
    held: dict[int, list[Book]] = {}
    for name in index.names():
        vectors, told = index.vectors_of(name), outcomes.get(name, ())
        nearest = [int(np.argmax(np.vecdot(vectors, region.vector))) for region in told]
        chapters: dict[int, list[Chapter]] = {}
        for i, shelf in enumerate(shelves.assign(vectors).tolist()):
            own = [region for region, at in zip(told, nearest, strict=True) if at == i]
            past = [Paragraph(named(r.vector), r.asked, r.right, r.peers) for r in own]
            chapters.setdefault(shelf, []).append(Chapter(named(vectors[i]), tuple(past)))
        for shelf, found in chapters.items():
            found.sort(key=lambda chapter: (chapter.label, repr(chapter.paragraphs)))
            held.setdefault(shelf, []).append(Book(name, tuple(found)))
    return {shelf: tuple(books) for shelf, books in held.items()}


def _near(questions: Sequence[str], rows: "Vectors", vector: "NDArray[np.float32]") -> list[str]:
    return [questions[i] for i in np.argsort(-np.vecdot(rows, vector), kind="stable")[:_NEAREST]]


def _words(questions: Sequence[str]) -> Counter[str]:
    """In how many questions each word is; words of one question alone only where no others are."""
    stop = frozenset(_STOP.split())
    said = Counter(word for question in questions for word in set(_WORD.findall(question.lower())) - stop)
    shared = Counter({word: n for word, n in said.items() if n >= _FEWEST})
    return shared if len(shared) >= _WORDS else said
