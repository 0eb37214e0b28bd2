"""What is said of documents: paragraphs that were found, what all are about, and what became of files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Document", "Found", "Passage", "Profile", "Synced", "counted"]


@dataclass(frozen=True, slots=True)
class Document:
    """A file that is known: its path in the owner's folder, with "/", how many paragraphs it has, and why it
    is left out, "" where it is not.
    """

    path: str
    paragraphs: int
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """One paragraph, as a search found it.

    Attributes:
        id: of the paragraph, while its document stays as it is.
        document: path in the owner's folder, with "/".
        heading: what it stands under, the outermost first, with " > " between; "" where there is none.
        paragraph: which one of the document, from 1.
        text: its words.
        bm25: Okapi BM25 of the question's words, the higher the better; 0 where none is in it.
        cosine: of question and paragraph, heading included.
        coverage: of the question's words, each weighed by its inverse document frequency (of one that is in
            no paragraph: the highest), the share that is in the paragraph or its heading, in [0, 1].
        score: by which passages are ordered, the higher the better.
    """

    id: int
    document: str
    heading: str
    paragraph: int
    text: str
    bm25: float
    cosine: float
    coverage: float
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The best passages, the best first.

    Attributes:
        paragraphs: how many there are.
        unknown: words of the question that are in none of them.
        weights: of its terms (see `words`), each one's inverse document frequency in nats.
    """

    passages: tuple[Passage, ...]
    paragraphs: int
    unknown: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the knowledge lies: a function of the paragraphs that there are, whatever came and went before.

    Attributes:
        vectors: (k, d) float32, each as long as the mean cosine of its paragraphs to it.
        counts: how many paragraphs are near each.
        labels: what those are about, in a few words.
    """

    vectors: "Vectors"
    counts: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(slots=True)
class Synced:
    """What became of the files of a folder.

    Attributes:
        added, changed, removed, kept: how many files.
        paragraphs: how many there are now.
        skipped: by file, why it is left out.
        renewed: whether anything that was there is not there any more.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    paragraphs: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    renewed: bool = False


def counted(count: int, noun: str) -> str:
    """Such as "1 paragraph" and "1,538 paragraphs". Pure."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
