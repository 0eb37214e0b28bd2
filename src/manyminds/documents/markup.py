"""Markdown and HTML to blocks. Fetches nothing and runs nothing; entities are not expanded."""

import codecs
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from manyminds.documents.outline import Outline, rows_of
from manyminds.documents.split import Block

if TYPE_CHECKING:
    from lxml.html import HtmlElement
    from markdown_it.token import Token

__all__ = ["html", "markdown"]

_DROPPED: Final = (
    *("canvas", "form", "head", "iframe", "math", "nav", "noscript", "object", "script", "style", "svg"),
    "template",
)
_INLINE: Final = frozenset(
    (
        *(
            "a",
            "abbr",
            "b",
            "bdi",
            "big",
            "br",
            "cite",
            "code",
            "del",
            "dfn",
            "em",
            "font",
            "i",
            "ins",
            "kbd",
        ),
        *("label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u"),
        *("var", "wbr"),
    )
)
_BREAK: Final = "\x1e"
_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{2,40})", re.IGNORECASE)


def markdown(text: str) -> list[Block]:
    """CommonMark with tables: lists item by item, tables row by row with their header, code whole."""
    from markdown_it import MarkdownIt

    outline = Outline()
    tokens = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable("table").parse(_body(text))
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.type == "heading_open":
            outline.head(int(token.tag[1:]), _plain(tokens[at + 1]))
            at += 3
        elif token.type in ("bullet_list_open", "ordered_list_open", "table_open"):
            end = _end(tokens, at)
            parts = _rows(tokens[at:end]) if token.type == "table_open" else _items(tokens[at:end])
            for part in parts:
                outline.add(part)
            at = end + 1
        else:
            if token.type == "inline":
                outline.add(_plain(token))
            elif token.type in ("fence", "code_block"):
                outline.add(token.content.strip("\n"))
            at += 1
    return outline.end()


def _body(text: str) -> str:
    """A text without the settings that some programs put before it."""
    if text.startswith("---\n"):
        _, closed, rest = text[4:].partition("\n---\n")
        return rest if closed else text
    return text


def _plain(token: "Token") -> str:
    """The words of a line, without their marks."""
    parts = []
    for child in token.children or ():
        if child.type in ("text", "code_inline", "html_inline"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.type == "image":
            parts.append(child.content)
    return "".join(parts).strip()


def _end(tokens: Sequence["Token"], at: int) -> int:
    """Where what opens here closes."""
    closing = tokens[at].type.replace("_open", "_close")
    for end in range(at + 1, len(tokens)):
        if tokens[end].type == closing and tokens[end].level == tokens[at].level:
            return end
    return len(tokens) - 1


def _items(tokens: Sequence["Token"]) -> list[str]:
    """The items of a list, those of lists in it indented."""
    items: list[str] = []
    depth = 0
    for token in tokens:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            depth += 1
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            depth -= 1
        elif token.type == "list_item_open":
            mark = f"{token.info}. " if token.info else "- "
            items.append("  " * (depth - 1) + mark)
        elif token.type == "inline" and items:
            items[-1] = _continued(items[-1], _plain(token))
        elif token.type in ("fence", "code_block") and items:
            items[-1] = _continued(items[-1], token.content.strip("\n"))
    return items


def _continued(item: str, text: str) -> str:
    return item + text if item.endswith(("- ", ". ")) else f"{item}\n{text}"


def _rows(tokens: Sequence["Token"]) -> list[str]:
    """The rows of a table, each cell behind the name of its column."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_plain(token))
    return rows_of(rows)


# --- HTML ------------------------------------------------------------------------------------------


def html(content: bytes) -> list[Block]:
    """What a page says: its headings, paragraphs, items and tables; no scripts, styles, forms or menus."""
    from lxml import etree
    from lxml import html as parsing

    parser = parsing.HTMLParser(
        encoding=_encoding(content), no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    if not content.strip():
        return []
    root = parsing.document_fromstring(content, parser=parser)
    outline = Outline()
    title = " ".join((root.findtext(".//title") or "").split())
    if title and root.find(".//h1") is None:
        outline.head(0, title)
    etree.strip_elements(root, *_DROPPED, with_tail=False)
    words: list[str] = []
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        inline = element.tag in _INLINE
        if event == "end":
            if not inline:
                _flush(outline, words)
            words.append(element.tail or "")
            continue
        if element.tag == "br":
            words.append(_BREAK)
        elif not inline:
            _flush(outline, words)
            words.append("- " if element.tag == "li" else "")
        if _taken(outline, element):
            walk.skip_subtree()
        else:
            words.append(element.text or "")
    _flush(outline, words)
    return outline.end()


def _taken(outline: Outline, element: "HtmlElement") -> bool:
    """Whether it was added as a whole: a heading, code, or a table of plain cells."""
    if element.tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
        outline.head(int(element.tag[1]), "".join(element.itertext()))
    elif element.tag == "pre":
        outline.add("".join(element.itertext()).strip("\n"))
    elif element.tag == "table" and element.find(".//table") is None:
        rows = [[_cell(cell) for cell in row if cell.tag in ("td", "th")] for row in element.iter("tr")]
        for text in rows_of(rows):
            outline.add(text)
    else:
        return False
    return True


def _cell(cell: "HtmlElement") -> str:
    return " ".join(" ".join(cell.itertext()).split())


def _flush(outline: Outline, words: list[str]) -> None:
    lines = (" ".join(line.split()) for line in "".join(words).split(_BREAK))
    text = "\n".join(line for line in lines if line)
    words.clear()
    if text != "-":
        outline.add(text)


def _encoding(content: bytes) -> str:
    """What a page says that it is written in, if that is known; else what it looks like."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:
        said = _CHARSET.search(content[:4096])
        try:
            return codecs.lookup(said[1].decode()).name if said else "cp1252"
        except LookupError:
            return "cp1252"
    return "utf-8"
