"""Sentences and numbers, as a text has them. Pure."""

import re
from typing import Final

__all__ = ["numbers", "sentences"]

_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{3})+")
_NUMBER: Final = re.compile(r"(?<![\w.])[-−]?\d+(?:[.,]\d+)*")
_END: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9`*_-])|\n+")
_SHORTENED: Final = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|vs|cf|etc|approx|ca|St|No|Mr|Mrs|Ms|Dr|Prof)\.$"
)


def numbers(text: str) -> set[str]:
    """The numbers of a text, without grouping or zeros that say nothing."""
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
