"""Functions as their sources describe them: read as text, never imported. Knows no question.

Both plain docstrings and those with underlined headings (Parameters, Raises, References) are understood.
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

__all__ = ["Function", "functions", "prose"]

_HEADING: Final = re.compile(r"(?m)^([A-Z][A-Za-z ]+)\n[-=]{3,}\n")
_ITEM: Final = re.compile(r"(?m)^(?=\S)")
_REFERENCE: Final = re.compile(r"(?m)^\.\. \[[^\]]+\]\s*")
_MARKUP: Final = re.compile(r":\w+:`~?([^`]+)`|``([^`]+)``|\[[0-9]+\]_")
_CHARS: Final = range(20, 1200)  # of a paragraph
_TOLD: Final = 60  # characters of a paragraph that stands alone


class Function(NamedTuple):
    """One public function.

    Attributes:
        module: dotted.
        parameters: names in order, without those that stand for several.
        defaults: of parameters, as the source writes them.
        summary: first paragraph.
        parts: by heading, further paragraphs; "" is the description's.
    """

    module: str
    name: str
    signature: str
    parameters: tuple[str, ...]
    defaults: Mapping[str, str]
    summary: str
    parts: Mapping[str, tuple[str, ...]]


def functions(module: str, source: str) -> list[Function]:
    """The public functions at the top of a module that say what they do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old sources' escapes
        tree = ast.parse(source)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node)
            if text and (function := _function(module, node, text)):
                found[node.name] = function
    return list(found.values())


def prose(source: str) -> list[str]:
    """The paragraphs of all docstrings of a module, in its order; [] of what is not Python."""
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except SyntaxError:
            return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            found += [part for part in _prose(text or "") if len(part) > _TOLD]
    return found


def _function(module: str, node: ast.FunctionDef, text: str) -> Function | None:
    arguments = node.args
    plain = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    pairs = zip(reversed(plain), reversed(arguments.defaults), strict=False)
    defaults = {name: ast.unparse(value) for name, value in pairs}
    for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        plain.append(argument.arg)
        if value is not None:
            defaults[argument.arg] = ast.unparse(value)
    head, parts = _parted(inspect.cleandoc(text))
    paragraphs = _prose(head)
    if not paragraphs or not 20 < len(paragraphs[0]) < 700:
        return None
    described = {"": tuple(paragraphs[1:])} if len(paragraphs) > 1 else {}
    for heading, body in parts:
        if kept := tuple(_listed(heading, body)):
            described[heading] = kept
    signature = f"{node.name}({ast.unparse(arguments)})"
    return Function(module, node.name, signature, tuple(plain), defaults, paragraphs[0], described)


def _parted(text: str) -> tuple[str, list[tuple[str, str]]]:
    pieces = _HEADING.split(text)
    return pieces[0], list(zip(pieces[1::2], pieces[2::2], strict=True))


def _prose(text: str) -> list[str]:
    """Paragraphs without examples, markup and lists of options."""
    found = []
    for part in re.split(r"\n\s*\n", text):
        if ">>>" in part or part.lstrip().startswith(("..", "$$", "- ", "* ")):
            continue
        line = " ".join(_MARKUP.sub(lambda m: m[1] or m[2] or "", part).split())
        if len(line) in _CHARS:
            found.append(line)
    return found


def _listed(heading: str, body: str) -> Iterator[str]:
    """The paragraphs under a heading; of lists, an item each."""
    match heading:
        case "Parameters" | "Returns" | "Yields" | "Raises":
            for item in _ITEM.split(body):
                first, _, rest = item.partition("\n")
                told = _prose(inspect.cleandoc(rest))
                if first.strip() and told:
                    yield f"{' '.join(first.split())}: {' '.join(told)}"[: _CHARS.stop]
        case "References":
            for item in _REFERENCE.split(body):
                line = " ".join(item.split())
                if len(line) in _CHARS:
                    yield line
        case "Examples" | "See Also":
            return
        case _:
            yield from _prose(body)
