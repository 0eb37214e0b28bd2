"""Source code, tables and notebooks to blocks: each function and class by itself, each row with its header.

Nothing is run or imported.
"""

import ast
import csv
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from manyminds.documents.outline import Outline, rows_of
from manyminds.documents.split import Block
from manyminds.errors import DocumentsError

__all__ = ["LANGUAGES", "code", "notebook", "python", "table"]

LANGUAGES: Final = frozenset(
    (
        *("bash", "c", "cc", "clj", "cpp", "cs", "cxx", "dart", "erl", "ex", "exs", "f90", "go", "h", "hpp"),
        *("hs", "java", "jl", "js", "jsx", "kt", "lua", "m", "mjs", "ml", "nim", "php", "pl", "ps1", "r"),
        *("rb", "rs", "scala", "sh", "sql", "swift", "ts", "tsx", "zig"),
    )
)
"""Suffixes of source code in which functions and classes are looked for."""

_BEFORE_NAMES: Final = frozenset(
    (
        *("class", "def", "defmodule", "defp", "enum", "fn", "func", "fun", "function", "impl", "interface"),
        *("module", "namespace", "object", "proc", "procedure", "struct", "sub", "trait", "type", "union"),
    )
)
_LEADING: Final = re.compile(r"\s*(//|/\*|\*|#|--|;|@|%|\"\"\")")

_SHELL: Final = re.compile(r"^(?:function +)?([\w.:-]+) *\(\)", re.MULTILINE)

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


# --- Python ----------------------------------------------------------------------------------------


def python(text: str) -> list[Block]:
    """Functions, classes and their methods under their names, and what stands between them."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError):
        return code("py", text)
    outline = Outline()
    _definitions(outline, text.split("\n"), module.body, 0, len(text.split("\n")), 1)
    return outline.end()


def _definitions(
    outline: Outline, lines: Sequence[str], body: Sequence[ast.stmt], start: int, stop: int, level: int
) -> None:
    """Adds lines [start, stop), in which this body is."""
    for node in body:
        if not isinstance(node, _Definition):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        while first > start and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        end = min(node.end_lineno or node.lineno, stop)
        _between(outline, lines[start:first])
        outline.head(level, node.name)
        if isinstance(node, ast.ClassDef):
            _definitions(outline, lines, node.body, first, end, level + 1)
        else:
            outline.add(_lines(lines[first:end]))
        outline.leave(level)
        start = end
    _between(outline, lines[start:stop])


def _between(outline: Outline, lines: Sequence[str]) -> None:
    for part in re.split(r"\n(?:[ \t]*\n)+", _lines(lines)):
        outline.add(part)


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(line.rstrip() for line in lines).strip("\n")


# --- other languages -------------------------------------------------------------------------------


def code(suffix: str, text: str) -> list[Block]:
    """Pieces of source code, each under the names of what it defines, as far as these can be told."""
    lines = text.split("\n")
    names = dict(_names(suffix, text))
    outline = Outline()
    starts = {}
    for line in sorted(names):
        first = line
        while first > 0 and first - 1 not in names and _LEADING.match(lines[first - 1]):
            first -= 1
        starts[first] = line
    held: list[str] = []
    for number, content in enumerate(lines):
        if number in starts:
            _between(outline, held)
            held = []
            named = lines[starts[number]]
            outline.head(1 + len(named) - len(named.lstrip()), names[starts[number]])
        held.append(content)
    _between(outline, held)
    return outline.end()


def _names(suffix: str, text: str) -> Iterator[tuple[int, str]]:
    """Line, from 0, and name of what is defined there: the first of each line."""
    from pygments.lexers import get_lexer_for_filename
    from pygments.token import Token
    from pygments.util import ClassNotFound

    if suffix in ("bash", "sh"):
        yield from ((text.count("\n", 0, found.start()), found[1]) for found in _SHELL.finditer(text))
        return
    try:
        lexer = get_lexer_for_filename(f"a.{suffix}", stripnl=False, ensurenl=False)
    except ClassNotFound:
        return
    line, last, before = 0, -1, ""
    for kind, value in lexer.get_tokens(text):
        named = kind in Token.Name and before in _BEFORE_NAMES
        if line != last and (named or kind in Token.Name.Function or kind in Token.Name.Class):
            yield line, value.strip()
            last = line
        if value.strip():
            before = value.strip()
        line += value.count("\n")


# --- tables and notebooks --------------------------------------------------------------------------


def table(text: str) -> list[Block]:
    """Rows of separated values, each value behind the name of its column."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    csv.field_size_limit(1_000_000)
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter)]
    return [Block((), row) for row in rows_of([row for row in rows if any(row)])]


class _Cell(msgspec.Struct):
    cell_type: str = ""
    source: str | list[str] = ""


class _Notebook(msgspec.Struct):
    cells: list[_Cell] = []


def notebook(text: str) -> list[Block]:
    """A Jupyter notebook's cells, without what they printed. Raises: DocumentsError where it is none."""
    from manyminds.documents.markup import markdown

    try:
        cells = msgspec.json.decode(text, type=_Notebook).cells
    except msgspec.MsgspecError:
        raise DocumentsError("it is damaged: no Jupyter notebook") from None
    said = ""
    for cell in cells:
        source = cell.source if isinstance(cell.source, str) else "".join(cell.source)
        said += f"{source}\n\n" if cell.cell_type == "markdown" else f"```\n{source}\n```\n\n"
    return markdown(said)
