"""PDF and DOCX to blocks. Nothing that is embedded in them is opened or run."""

import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from manyminds.documents.outline import Outline, rows_of
from manyminds.documents.split import Block
from manyminds.errors import DocumentsError

if TYPE_CHECKING:
    from pypdf import PdfReader

__all__ = ["docx", "pdf"]

_PAGES: Final = 10_000
_INFLATED_BYTES: Final = 200_000_000
_RATIO: Final = 100
_SMALL_BYTES: Final = 1_000_000  # inflated: no bomb, however well it was packed
_FULL: Final = 0.7  # of a page's usual line: what is shorter and ends a sentence ends a paragraph
_ENDED: Final = re.compile(r"[.!?:;…][\"')\]»”’]*$")
_HYPHEN: Final = re.compile(r"(?<=[^\W\d_])[-\u00ad]$")


def pdf(content: bytes) -> list[Block]:
    """The text of a PDF's pages, under its bookmarks. Raises: DocumentsError where there is none."""
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(content), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise DocumentsError("it is locked with a password")
    if len(reader.pages) > _PAGES:
        raise DocumentsError(f"it has {len(reader.pages)} pages: no more than {_PAGES} are read")
    headings = dict[int, list[tuple[int, str]]]()
    for at, level, title in _bookmarks(reader):
        headings.setdefault(at, []).append((level, title))
    outline = Outline()
    for number, page in enumerate(reader.pages):
        for level, title in headings.get(number, ()):
            outline.head(level, title)
        for text in _paragraphs(page.extract_text()):
            outline.add(text)
    blocks = outline.end()
    if not any(len(block.text) > 1 for block in blocks):
        raise DocumentsError("it has no text: its pages may be pictures")
    return blocks


def _bookmarks(reader: "PdfReader") -> Iterator[tuple[int, int, str]]:
    """Page, level and title of each, where they can be told."""
    try:
        entries: list[tuple[int, Any]] = [(1, entry) for entry in reversed(reader.outline)]
    except Exception:  # a damaged list of bookmarks: the pages are read all the same
        return
    while entries:
        level, entry = entries.pop()
        if isinstance(entry, list):
            entries.extend((level + 1, inner) for inner in reversed(entry))
            continue
        page = reader.get_destination_page_number(entry)
        if page is not None and page >= 0:
            yield page, level, str(entry.title)


def _paragraphs(page: str) -> Iterator[str]:
    """Lines to paragraphs: one ends with an empty line, or with a short one that ends a sentence."""
    lines = [line.strip() for line in page.split("\n")]
    usual = median([len(line) for line in lines if line] or [0])
    held = ""
    for line in lines:
        if held and not line:
            yield held
            held = ""
        elif _HYPHEN.search(held) and line[:1].islower():
            held = held[:-1] + line
        else:
            held = f"{held} {line}".strip()
        if held and len(line) < _FULL * usual and _ENDED.search(line):
            yield held
            held = ""
    if held:
        yield held


def docx(content: bytes) -> list[Block]:
    """The headings, paragraphs, items and tables of a Word document. Raises: DocumentsError."""
    _check_zip(content)
    import docx as word
    from docx.table import Table

    outline = Outline()
    for part in word.Document(BytesIO(content)).iter_inner_content():
        if isinstance(part, Table):
            for text in rows_of([[_cell(cell) for cell in row.tc_lst] for row in part._tbl.tr_lst]):
                outline.add(text)
            continue
        style = (part.style.name if part.style is not None else None) or ""
        level = re.fullmatch(r"Heading (\d)", style)
        if level is not None or style == "Title":
            outline.head(int(level[1]) if level else 0, part.text)
        else:
            outline.add(f"- {part.text}" if style.startswith("List") and part.text.strip() else part.text)
    return outline.end()


def _cell(cell: Any) -> str:
    texts = cell.iter("{http://schemas.openxmlformats.org/wordprocessingml/2006/main}t")
    return " ".join("".join(text.text or "" for text in texts).split())


def _check_zip(content: bytes) -> None:
    """Raises: DocumentsError where it would inflate to more than a document has. Inflates nothing."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as packed:
            inflated = sum(member.file_size for member in packed.infolist())
    except zipfile.BadZipFile:
        raise DocumentsError("it is damaged: no Word document") from None
    if inflated > _INFLATED_BYTES or inflated > max(_SMALL_BYTES, _RATIO * len(content)):
        raise DocumentsError(
            f"its {len(content) / 1e6:.1f} MB would inflate to {inflated / 1e6:.0f} MB: it is no document"
        )
