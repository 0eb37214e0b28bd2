"""Blocks of a document to paragraphs of a size that can be found, read and quoted. Pure; knows no format."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct

__all__ = ["LONGEST", "Block", "Paragraph", "split"]

LONGEST: Final = 900
"""Characters of the longest paragraph: an encoder of 256 tokens reads about a thousand."""

_SHORT: Final = 40  # what is shorter joins a neighbour under its heading
_JOINED: Final = 400  # up to which neighbours are joined
_PART: Final = 120  # characters of one heading
_HEADING: Final = 300  # of all headings above each other
_SEPARATOR: Final = " > "
_ENDS: Final = (
    re.compile(r"\n\s*"),
    re.compile(r"(?<=[.!?…])[\"')\]»”’]*\s+|(?<=[。！？])"),
    re.compile(r"(?<=[;:,])\s+"),
    re.compile(r"\s+"),
)
"""Where a long text may be cut, the best places first."""


class Block(Struct, frozen=True, array_like=True):
    """A piece of a document as its author made it: the headings that it stands under, and its text."""

    headings: tuple[str, ...]
    text: str


class Paragraph(Struct, frozen=True, array_like=True):
    """What is searched, read and quoted. `heading`: the outermost first, with " > " between."""

    heading: str
    text: str


def split(blocks: Iterable[Block]) -> list[Paragraph]:
    """Paragraphs of at most `LONGEST` characters, in the order of the blocks. Pure; O(text).

    Short neighbours under one heading are joined, long blocks are cut at the ends of lines or sentences.
    Nothing is lost but white space at the edges.
    """
    paragraphs: list[Paragraph] = []
    heading, held = "", ""
    for block in blocks:
        above = _heading(block.headings)
        if above != heading:
            _put(paragraphs, heading, held)
            heading, held = above, ""
        for piece in _pieces(_trimmed(block.text)):
            most = LONGEST if min(len(held), len(piece)) < _SHORT else _JOINED
            if held and len(held) + 1 + len(piece) <= most:
                held = f"{held}\n{piece}"
                continue
            _put(paragraphs, heading, held)
            held = piece
    _put(paragraphs, heading, held)
    return paragraphs


def _heading(headings: Sequence[str]) -> str:
    """The path of headings; where it is too long the innermost ones stay."""
    parts: list[str] = []
    size = 0
    for heading in reversed(headings):
        part = " ".join(heading.split())[:_PART].rstrip()
        if part and size + len(part) <= _HEADING:
            parts.append(part)
            size += len(part) + len(_SEPARATOR)
    return _SEPARATOR.join(reversed(parts))


def _put(paragraphs: list[Paragraph], heading: str, text: str) -> None:
    if text:
        paragraphs.append(Paragraph(heading, text))


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of about the same size, none longer than `LONGEST`."""
    start = 0
    while len(text) - start > LONGEST:
        left = len(text) - start
        aim = left // -(-left // LONGEST)
        stop = start + _cut(text[start : start + LONGEST], aim)
        if piece := _trimmed(text[start:stop]):
            yield piece
        start = stop
    if piece := _trimmed(text[start:]):
        yield piece


def _trimmed(text: str) -> str:
    """Without white space at its edges, but for that which indents its first line."""
    return text.strip("\n").rstrip()


def _cut(text: str, aim: int) -> int:
    """Where to cut: as near to `aim` as a good place is, in (0, len(text)]."""
    for places in _ENDS:
        near = [match.end() for match in places.finditer(text) if match.end() >= aim // 2]
        if near:
            return min(near, key=lambda place: abs(place - aim))
    return len(text)
