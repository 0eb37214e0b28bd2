import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from manyminds import errors
from manyminds.errors import ManymindsError


def walk(kind: type[ManymindsError]) -> Iterator[type[ManymindsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from walk(child)


ERRORS = sorted(
    (kind for kind in walk(ManymindsError) if kind.__module__ == errors.__name__), key=lambda k: k.__name__
)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_explains_itself(kind: type[ManymindsError]) -> None:
    assert kind.__name__.endswith("Error")
    assert kind.__doc__
    assert kind.__doc__.rstrip().endswith(".")
    assert 400 <= kind.status <= 599
    callers = (errors.InvalidRequestError, errors.RefusedError)
    assert issubclass(kind, callers) == (kind.status < 500)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_openais_shape(kind: type[ManymindsError]) -> None:
    error = kind("What happened.", param="messages")
    assert str(error) == "What happened."
    assert msgspec.json.decode(msgspec.json.encode(error.body())) == {
        "error": {"message": "What happened.", "type": kind.type, "param": "messages", "code": kind.code}
    }
    assert kind("").body()["error"]["param"] is None
    ours = ("server_error", "invalid_request_error", "upstream_error", "timeout_error")
    assert kind.type in (*ours, "authentication_error", "rate_limit_error", "insufficient_quota")


def test_every_error_but_the_root_has_its_own_code() -> None:
    codes = [kind.code for kind in ERRORS if kind is not ManymindsError]
    assert ManymindsError.code is None
    assert None not in codes
    assert len(set(codes)) == len(codes)


def drawn() -> dict[str, tuple[str | None, int]]:
    """Name -> parent and status, of the tree in the module's docstring."""
    tree: dict[str, tuple[str | None, int]] = {}
    line_of = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>\w+Error) +(?P<status>\d{3})\b")
    above: list[str] = []
    for line in textwrap.dedent((errors.__doc__ or "").partition("\n")[2]).splitlines():
        if found := line_of.match(line):
            depth = len(found["branch"]) // 4
            above[depth:] = [found["name"]]
            tree[found["name"]] = (above[depth - 1] if depth else None, int(found["status"]))
    return tree


def test_the_tree_is_drawn_as_it_is() -> None:
    real = {
        kind.__name__: (None if kind is ManymindsError else kind.__bases__[0].__name__, kind.status)
        for kind in ERRORS
    }
    assert drawn() == real


def test_all_names_every_error_in_order() -> None:
    assert errors.__all__ == [kind.__name__ for kind in ERRORS]


def test_every_error_is_on_this_screen() -> None:
    """No other module of the package defines a public exception, but for what `experts.openai` maps."""
    stray = [
        f"{file.name}: {node.name}"
        for file in sorted(Path(errors.__file__).parent.rglob("*.py"))
        if file != Path(errors.__file__) and file.parent.name != "upstream"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and re.match(r"[A-Z]\w*(Error|Exception)$", node.name)
    ]
    assert stray == []
