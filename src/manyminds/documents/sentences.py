"""Sentences and numbers, as a text has them. Pure; O(text), whatever it is."""

import re
import unicodedata
from typing import Final

__all__ = ["numbers", "sentences"]

_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_GROUPED_BY_STOPS: Final = re.compile(r"\d{1,3}(?:\.\d{3})+,\d+")
_NUMBER: Final = re.compile(r"(?<!\w)(?<!\w\.)[-−]?(?:\d+(?:[.,]\d+)*|\.\d+)")
_END: Final = re.compile(
    r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?([A-Z0-9`*_-]|[^\W\d_a-z]))"
    r"|(?<=[。！？])[」』）”’]*\s*(?=[^\s。！？」』）”’])"
    r"|\n+"
)
"""The first group: what comes next, a letter of any script; beyond ASCII it may yet be a small one."""
_SHORTENED: Final = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|vs|cf|etc|approx|ca|St|No|Mr|Mrs|Ms|Dr|Prof)\.$"
)
_LOOKED_BACK: Final = 12  # characters; more than the longest of `_SHORTENED`


def numbers(text: str) -> set[str]:
    """The numbers of a text, without grouping or zeros that say nothing."""
    return {number for found in _NUMBER.findall(text) for number in _read(found)}


def sentences(text: str) -> list[str]:
    """The sentences of a text, lines for themselves; what is shortened with a full stop ends none. None is
    empty, and nothing is lost but white space between them.
    """
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if "\n" not in end[0]:
            before = text[max(start, end.start() - _LOOKED_BACK) : end.start()]
            if (end[1] or "").islower() or _SHORTENED.search(before):
                continue
        if piece := text[start : end.end()].strip():
            found.append(piece)
        start = end.end()
    if rest := text[start:].strip():
        found.append(rest)
    return found


def _read(text: str) -> list[str]:
    """One number, or several that only commas part: in digits and with the minus of ASCII."""
    text = "".join(str(unicodedata.decimal(sign, sign)) for sign in text.replace("−", "-"))
    minus, digits = text[:1] == "-", text.lstrip("-")
    if _GROUPED.fullmatch(digits):
        parts = [digits.replace(",", "")]
    elif _GROUPED_BY_STOPS.fullmatch(digits):
        parts = [digits.replace(".", "").replace(",", ".")]
    elif digits.count(",") == 1 and "." not in digits:
        parts = [digits.replace(",", ".")]
    else:
        parts = digits.split(",")
    short = [_shortened(part) for part in parts]
    return [f"-{short[0]}", *short[1:]] if minus and short[0] != "0" else short


def _shortened(digits: str) -> str:
    """Without zeros at the end that say nothing; before a point, with the one that does."""
    if digits.count(".") == 1:
        digits = digits.rstrip("0").rstrip(".")
    return f"0{digits}" if digits[:1] in ("", ".") else digits
