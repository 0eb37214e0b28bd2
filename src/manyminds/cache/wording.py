"""What two questions must have in common, word for word, to be taken for the same one. Pure; knows no vector.

A sentence encoder hears the topic, not the claim: "from Paris to Rome" and "from Rome to Paris" have a cosine
of .99, "larger" and "smaller" of .98, "Fermi energy" and "Fermi temperature" of .89, and a question with a
greeting before it of .88. So no threshold tells them apart, and words do: but for those that ask for nothing,
the same must come in the same order, in whatever language.
"""

import re
from typing import Final

from manyminds.types import Task

__all__ = ["wording"]

_MOST_CHARS: Final = 500  # of a question: an encoder reads the first 256 tokens, and must have read it all
_FEWEST_WORDS: Final = 2  # that count: with fewer, what is asked lies elsewhere

_SOFT: Final = frozenset(
    ("is", "are", "what", "which", "please", "kindly", "just", "exactly", "really", "actually")
)
_ARTICLES: Final = frozenset(("a", "an", "the"))
_BEFORE_ARTICLES: Final = _SOFT | frozenset(
    (
        *(
            "about",
            "after",
            "and",
            "as",
            "at",
            "before",
            "between",
            "but",
            "by",
            "did",
            "do",
            "does",
            "during",
        ),
        *("for", "from", "had", "has", "have", "if", "in", "into", "like", "not", "of", "on", "or", "over"),
        *("than", "through", "to", "under", "using", "was", "were", "when", "with", "without"),
    )
)  # behind another word it may be a name: "hepatitis a"

_ASKING: Final = re.compile(
    r"(?:(?:hi|hello|hey)[,!.]+\s*)?(?:please[\s,]+)?"
    r"(?:(?:can|could|would|will) (?:you|someone|anyone) (?:please |kindly )?tell me\b[\s,:]*)?"
    r"(?:(?:do|does) (?:you|anyone) know\b[\s,:]*)?(?:please[\s,]+)?(?:tell me\b[\s,:]*)?"
)
_THANKS: Final = re.compile(r"[,.;!?–—-]\s*(?:please|thanks|thank you)[\s.!]*$")
_HOW: Final = re.compile(r"\bhow (?:do|can|could) (?:i|we|one)\b")
_VERDICT: Final = re.compile(
    r"(?:is|are|am|was|were|do|does|did|can|could|will|would|should|shall|may|might|must|has|have|had"
    r"|if|whether)\b"
)
_PROSE: Final = re.compile(r"(?:[^\W_]|[\s.,;:?!–—-]|(?<=[^\W\d_])['’](?=[^\W\d_])|(?<=\d)%)+")
_WORD: Final = re.compile(
    r"[-–—]?\.?\d[^\W_]*(?:[.,:/-]\d[^\W_]*)*[%!]?|[^\W_]+(?:['’][^\W\d_]+)*|(?<=\s)[-–—](?=\s)"
)


def wording(question: str, task: Task) -> tuple[str, ...] | None:
    """What must be the same, in order; None where only the very same text will do. Linear.

    That is so for long questions, for those with code, formulas, tables or quoted words, where every sign
    counts, and for those that hardly say anything. Options count as they are, in their order.
    """
    stem = (task.stem if task.kind == "option" else question).strip()
    if len(question) > _MOST_CHARS or not _PROSE.fullmatch(stem):
        return None
    # Not casefold: "ß" and "ss" are two things in words such as Maße and Masse.
    asked = _THANKS.sub("", _ASKING.sub("", stem.lower().replace("’", "'"), count=1))
    verdict = "whether" if _VERDICT.match(asked) else ""  # "is a virus the cause", "what virus is the cause"
    words = _counting(_HOW.sub("how to", asked), _in_capitals(stem))
    return (verdict, *words, "|", *task.options) if len(words) >= _FEWEST_WORDS else None


def _counting(asked: str, named: frozenset[str]) -> list[str]:
    """The words that count, in the singular, where that is a matter of an s."""
    found, before = [], ""
    for word in _WORD.findall(asked):
        spelt = word.removesuffix("'s") if word in ("what's", "how's", "where's", "who's", "when's") else word
        soft = spelt in _SOFT or (spelt in _ARTICLES and (not before or before in _BEFORE_ARTICLES))
        if not soft or spelt in named:
            plural = len(spelt) > 3 and spelt[-1] == "s" and spelt[-2] not in "sui'" and spelt.isalpha()
            found.append(spelt[:-1] if plural else spelt)
        before = spelt
    return found


def _in_capitals(stem: str) -> frozenset[str]:
    """Words written so, where not all are: the A of a vitamin, IT, WHO. A question may begin with an A."""
    if stem.isupper():
        return frozenset()
    words = (word.strip(".,;:?!") for word in stem.split())
    return frozenset(
        word.casefold() for i, word in enumerate(words) if word.isupper() and (i or len(word) > 1)
    )
