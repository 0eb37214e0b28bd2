"""Words in canonical form, so that the same fact in other spelling is the same. Knows no question.

Case, accents, punctuation, the grouping of digits and zeros at the end of a decimal make no difference; a
minus before a number does. "10" is not in "100" or "10.5", "Fe" not in "few".
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

__all__ = ["holds", "holds_any", "words"]

_GROUPS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:[,\u00a0\u2009\u202f' ]\d{3})+(?![\d,])")
_TOKEN: Final = re.compile(
    r"(?ix) (?: (?<![\w)]) | (?<=utc) | (?<=gmt) ) -(?=\d)"
    r"| \d+(?:\.\d+)* (?= (?:km2?|k?m|ft|k?g|[kcfu])\b )"  # with its unit behind it
    r"| \d+(?:\.\d+)+ (?!\w) | \w+"
)
_DASHES: Final = dict.fromkeys(map(ord, "−‐‑–"), "-")
_BRIEF: Final = 3  # letters: short symbols and codes are compared with their case


@lru_cache(maxsize=65_536)
def words(text: str, folded: bool = True) -> str:
    """The words of a text with one space before, between and after them."""
    text = unicodedata.normalize("NFKC", text).translate(_DASHES)
    text = "".join(c for c in unicodedata.normalize("NFD", text) if not "\u0300" <= c <= "\u036f")
    if folded:
        text = text.casefold()
    text = _GROUPS.sub(lambda match: re.sub(r"[^\d]", "", match[0]), text)
    found, sign = [], ""
    for word in _TOKEN.findall(text):
        if word == "-":
            sign = word
            continue
        if word.count(".") == 1 and word[0].isdigit():
            word = word.rstrip("0").removesuffix(".")
        found.append(sign + word)
        sign = ""
    return f" {' '.join(found)} "


def holds(text: str, phrase: str) -> bool:
    """Whether the phrase is in the text, word by word. Codes of up to three letters keep their case."""
    brief = len(phrase) <= _BRIEF and phrase.isalpha() and phrase != phrase.lower()
    sought = words(phrase, not brief)
    return bool(sought.strip()) and sought in words(text, not brief)


def holds_any(text: str, phrases: tuple[str, ...]) -> bool:
    """Whether one of them is in the text."""
    return any(holds(text, phrase) for phrase in phrases)
