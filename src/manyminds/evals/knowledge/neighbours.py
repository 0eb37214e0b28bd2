"""Other owners, as many as one likes, who know things of the same kinds: what a router must tell apart.

Each has paragraphs that are in no corpus, and none of them answers a question: airports, languages, provinces
and characters that no corpus has, isotopes of the elements, other algorithms, Python's language reference and
other modules; some lie far from all corpora.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from manyminds.errors import DataError
from manyminds.evals.knowledge import (
    Built,
    airports,
    characters,
    countries,
    elements,
    graphs,
    programming,
    standards,
    strangers,
    zones,
)
from manyminds.evals.knowledge.facts import Corpus, Entry, draw, sections
from manyminds.evals.knowledge.pages import Paragraph, paragraphs
from manyminds.evals.knowledge.questions import Question
from manyminds.evals.knowledge.words import holds_any, words

__all__ = ["LEAST", "Neighbour", "neighbours"]

LEAST: Final = 20
"""Paragraphs of a neighbour, at least."""


class Neighbour(NamedTuple):
    """An owner of whom nothing is asked. `kind` is whose field is nearest; "" where none is near."""

    name: str
    kind: str
    paragraphs: tuple[Paragraph, ...]


def neighbours(built: Built, packs: Path, count: int, seed: int = 0) -> list[Neighbour]:
    """So many beside those that were built, of all kinds in turn; fewer are the first of more.

    Raises: DataError, also where there are not so many.
    """
    harmless = _Harmless(built)
    by_owner = {corpus.owner: corpus for corpus in built.corpora} | {"": strangers.FIELD}
    waiting = [
        _grouped(by_owner[kind], _shuffled(entries, seed), harmless, seed)
        for kind, entries in _others(built.corpora, packs)
    ]
    found: list[Neighbour] = []
    while len(found) < count and waiting:
        drawn = [(of, next(of, None)) for of in waiting]
        waiting = [of for of, neighbour in drawn if neighbour is not None]
        found += [neighbour for _, neighbour in drawn if neighbour is not None]
    if len(found) < count:
        raise DataError(f"There are {len(found)} neighbours: ask for no more than that.")
    return found[:count]


class _Harmless:
    """Tells the paragraphs that answer no question and that no owner has."""

    def __init__(self, built: Built) -> None:
        self._had = {paragraph.text for paragraph in built.paragraphs}
        self._by_word: dict[str, list[tuple[str, Question]]] = defaultdict(list)
        for question in built.questions:
            if question.golds and (name := words(question.entity)).strip():
                self._by_word[max(name.split(), key=len)].append((name, question))

    def __call__(self, paragraph: Paragraph) -> bool:
        if paragraph.text in self._had:
            return False
        told = f"{paragraph.heading} . {paragraph.text}"
        said = words(told)
        near = (pair for word in set(said.split()) for pair in self._by_word.get(word, ()))
        return not any(name in said and holds_any(told, question.golds) for name, question in near)


def _others(corpora: Sequence[Corpus], packs: Path) -> Iterator[tuple[str, list[Entry]]]:
    """By owner whose field is near, what no corpus has."""
    taken = {entry.called or entry.name for corpus in corpora for entry in corpus.entries}
    taken |= {entry.name for corpus in corpora for entry in corpus.entries}
    yield "pilot", airports.others(packs, taken)
    yield "archivist", standards.other_languages(packs, taken)
    yield "geographer", standards.other_regions(packs, taken, countries.names(packs))
    yield "timekeeper", zones.others(packs, taken)
    yield "typographer", characters.others(taken)
    yield "chemist", elements.others(packs)
    yield "mathematician", graphs.others(packs, taken)
    yield "programmer", programming.others()
    yield "programmer", programming.rest()
    yield "", strangers.stories(packs)
    yield "", strangers.websites(packs)


def _shuffled(entries: Sequence[Entry], seed: int) -> list[Entry]:
    """Entries of a document stay together; documents come in an order of the seed's."""
    by_document: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_document[entry.document].append(entry)
    order = draw(seed, "neighbours").sample(sorted(by_document), len(by_document))
    return [entry for document in order for entry in by_document[document]]


def _grouped(corpus: Corpus, entries: Sequence[Entry], harmless: _Harmless, seed: int) -> Iterator[Neighbour]:
    """Owners of entries that follow each other; those at the end that are too few are nobody's."""
    held: list[Paragraph] = []
    for entry in entries:
        title = entry.document.replace("-", " ").capitalize()
        told = paragraphs("", entry.document, title, sections(corpus, entry, seed))
        held += [paragraph for paragraph in told if harmless(paragraph)]
        if len(held) >= LEAST:
            name = f"{corpus.owner or 'stranger'}-near-{'-'.join(words(entry.name).split())}"
            yield Neighbour(name, corpus.owner, tuple(p._replace(corpus=name) for p in held[: 2 * LEAST]))
            held = []
