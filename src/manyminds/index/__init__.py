"""Which experts' skills lie nearest to a question: like a librarian, without reading every page.

section > shelf > book > chapter: broad field, topic, expert, skill vector. While chapters are few, all are
compared. Above, a search goes to the sections nearest to the question, from there to their nearest shelves,
and compares the chapters on these: their number grows with the square root of all.

Knows names and vectors, no cards and no policy. `KeptIndex` is the one that stays on disk.
"""

from manyminds.index.chapters import Region, chapters, regions
from manyminds.index.kept import KeptIndex
from manyminds.index.search import Found, Index
from manyminds.index.shelves import Shelves
from manyminds.index.tree import Book, Chapter, Paragraph, Section, Shelf, claimed_tree, label, tree

__all__ = [
    "Book",
    "Chapter",
    "Found",
    "Index",
    "KeptIndex",
    "Paragraph",
    "Region",
    "Section",
    "Shelf",
    "Shelves",
    "chapters",
    "claimed_tree",
    "label",
    "regions",
    "tree",
]
