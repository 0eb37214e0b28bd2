"""Blocks under their headings, lists and tables: what all readers make of a document. Knows no format."""

from collections.abc import Sequence
from typing import Final

from manyminds.documents.split import Block

__all__ = ["Outline", "rows_of"]

_MOST_LEVELS: Final = 12


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
        self.leave(level)
        if len(self._above) < _MOST_LEVELS:
            self._above.append((level, heading))
            self._bare = True

    def leave(self, level: int) -> None:
        """Headings of this level and below it have ended."""
        self._close(level)
        while self._above and self._above[-1][0] >= level:
            self._above.pop()

    def add(self, text: str) -> None:
        """A block of text stands under the last heading."""
        if text.strip():
            self._bare = False
            self.blocks.append(Block(tuple(heading for _, heading in self._above), text.rstrip()))

    def end(self) -> list[Block]:
        """All blocks. A heading with nothing under it is a block itself."""
        self._close(0)
        return self.blocks

    def _close(self, level: int) -> None:
        if self._bare and self._above[-1][0] >= level:
            above = tuple(heading for _, heading in self._above[:-1])
            self.blocks.append(Block(above, self._above[-1][1]))
        self._bare = False


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
