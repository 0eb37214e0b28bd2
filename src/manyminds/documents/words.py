"""Words by which a question and a text are compared: without case, accents, endings and common words. Pure."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

__all__ = ["COMMON", "numbers", "sentences", "stem", "words"]

COMMON: Final = frozenset(
    """a about above after again all also although always am among an and another any anybody anyone anything
    are aren as ask at be because been before being below between both but by call called can cannot could did
    do does doing done down each either else ever every few find for from further gets give given gives go goes
    had has have having he her here hers him his how i if in into is isn it its itself just kind know known
    let like made make makes many may me mean means might more most much must my name named need no nor not
    of off often on once one only or other our out over own per please same say says see shall she should show
    so some someone something sort such take tell than that the their them then there these they thing this
    those though through to too under until up upon us use used using very was we were what when where whether
    which while who whose why will with within without would you your""".split()
)
"""What says nothing of what a question is about."""

_WORD: Final = re.compile(r"--?[a-z][\w-]*|\w+(?:[.,:+'’/-]\w+)*(?:\+\+|#)?")
_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{3})+")
_NUMBER: Final = re.compile(r"[-−]?\d+(?:[.,]\d+)*")
_INNER: Final = re.compile(r"[.,:'’/-]")
_END: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9`*_-])|\n+")
_SHORTENED: Final = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|vs|cf|etc|approx|ca|St|No|Mr|Mrs|Ms|Dr|Prof)\.$"
)
_ENDINGS: Final = (
    "ations",
    "ation",
    "ingly",
    "ings",
    "ing",
    "edly",
    "ies",
    "ied",
    "ers",
    "ed",
    "es",
    "ly",
    "er",
    "s",
)
_SHORTEST: Final = 3


def words(text: str) -> list[str]:
    """The telling words of a text, in their order, as `stem` makes them; numbers without grouping."""
    plain = unicodedata.normalize("NFKD", text.replace("_", " ").casefold())
    plain = "".join(c for c in plain if not "\u0300" <= c <= "\u036f")
    found = []
    for word in _WORD.findall(plain):
        if word in COMMON:
            continue
        if _NUMBER.fullmatch(word):
            found.append(_number(word))
            continue
        found += [stem(part) for part in _INNER.split(word.strip("-")) if part and part not in COMMON]
    return found


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """An English word without its ending, roughly: what remains need be no word."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST:
            word = word[: -len(ending)]
            break
    if len(word) > _SHORTEST and word[-1] in "eyi":
        word = word[:-1]
    if len(word) > _SHORTEST and word[-1] == word[-2] and word[-1] not in "aeiousl":
        word = word[:-1]
    return word


def numbers(text: str) -> set[str]:
    """The numbers of a text, as `words` has them."""
    return {_number(found) for found in _NUMBER.findall(text)}


def sentences(text: str) -> list[str]:
    """The sentences of a text, lines for themselves; what is shortened with a full stop ends none. None is
    empty.
    """
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        piece = text[start : end.start()].strip()
        if "\n" not in end[0] and _SHORTENED.search(piece):
            continue
        if piece:
            found.append(piece)
        start = end.end()
    if rest := text[start:].strip():
        found.append(rest)
    return found


def _number(text: str) -> str:
    """Without grouping, sign of minus as ASCII has it, and zeros that say nothing."""
    text = text.replace("−", "-")
    text = text.replace(",", "") if _GROUPED.search(text) else text.replace(",", ".")
    sign, digits = text[:1] == "-", text.lstrip("-")
    if digits.count(".") == 1:
        digits = digits.rstrip("0").rstrip(".")
    return ("-" if sign else "") + (digits or "0")
