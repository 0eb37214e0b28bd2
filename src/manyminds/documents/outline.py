"""Blocks under their headings, lists and tables: what all readers make of a document. Knows no format."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from manyminds.documents.split import Block

__all__ = ["Outline", "grouped", "rows_of"]

_MOST_LEVELS: Final = 12
_GROUPED: Final = 400  # characters up to which items and rows stay together


class Outline:
    """Blocks under their headings, as a document is read from its beginning to its end."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._above: list[tuple[int, str]] = []
        self._bare = False  # the last heading has nothing under it yet

    def head(self, level: int, heading: str) -> None:
        """A heading begins; those of its level and below it have ended."""
        heading = " ".join(heading.split())
        if not heading:
            return
        self._close(level)
        while self._above and self._above[-1][0] >= level:
            self._above.pop()
        if len(self._above) < _MOST_LEVELS:
            self._above.append((level, heading))
            self._bare = True

    def add(self, text: str) -> None:
        """A block of text stands under the last heading."""
        text = text.strip()
        if text:
            self._bare = False
            self.blocks.append(Block(tuple(heading for _, heading in self._above), text))

    def end(self) -> list[Block]:
        """All blocks. A heading with nothing under it is a block itself."""
        self._close(0)
        return self.blocks

    def _close(self, level: int) -> None:
        if self._bare and self._above[-1][0] >= level:
            above = tuple(heading for _, heading in self._above[:-1])
            self.blocks.append(Block(above, self._above[-1][1]))
        self._bare = False


def grouped(parts: Iterable[str]) -> Iterator[str]:
    """Items of a list, or rows of a table, together as long as they are few words. Pure."""
    held = ""
    for part in parts:
        if held and len(held) + len(part) > _GROUPED:
            yield held
            held = ""
        held = f"{held}\n{part}" if held else part
    if held:
        yield held


def rows_of(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as text, each cell behind its column's name, as the first row has it. Pure."""
    if len(rows) < 2:
        return [" | ".join(cell for cell in row if cell) for row in rows]
    names = rows[0]
    texts = []
    for row in rows[1:]:
        cells = [
            f"{names[i]}: {cell}" if i < len(names) and names[i] else cell
            for i, cell in enumerate(row)
            if cell
        ]
        texts.append("; ".join(cells))
    return [text for text in texts if text] or [" | ".join(names)]
