"""Markdown and HTML to blocks. Fetches nothing and runs nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manyminds.documents.outline import Outline, grouped, rows_of
from manyminds.documents.split import Block

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["markdown"]


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
            for part in grouped(parts):
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
