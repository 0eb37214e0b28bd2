"""The nouns of knowledge: what an answer rests on, where it was written, and who says otherwise."""

from msgspec import Struct

__all__ = ["Citation", "Conflict", "Grounds"]


class Citation(Struct, frozen=True, omit_defaults=True):
    """Where an answer's words were found, as far as their owner lets it be told.

    Attributes:
        source: whose documents they are.
        expert: who found it.
        document: its path in the owner's folder.
        heading: what it stands under, the outermost first, with " > " between.
        paragraph: which one of the document, from 1; 0 where that is not told.
        quote: the words themselves; "" where they are not told.
        share: of what the answer owes to the documents of this source, what it owes to this paragraph.
    """

    source: str
    expert: str = ""
    document: str = ""
    heading: str = ""
    paragraph: int = 0
    quote: str = ""
    share: float = 1.0


class Grounds(Struct, frozen=True, omit_defaults=True):
    """What an answer rests on, as who gave it says.

    Attributes:
        support: the calibrated probability, in [0, 1], that its documents hold the answer.
        citations: where; the one that it owes most to comes first.
        declined: whether they do not: then the text says so, and is no answer.
    """

    support: float
    citations: tuple[Citation, ...] = ()
    declined: bool = False


class Conflict(Struct, frozen=True, omit_defaults=True):
    """Another answer than the one that was released, by who has grounds for it."""

    answer: str
    probability: float
    citations: tuple[Citation, ...] = ()
