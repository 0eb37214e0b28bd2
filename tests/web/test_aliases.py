from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.types import Query
from manyminds.web.aliases import Aliases

KNOWN = ["auto", "fast", "a", "b"]
TABLE = {
    "gpt-*": ["auto"],
    "gpt-4o": ["a", "b"],
    "gpt-4?": ["fast"],
    "claude-[34]-*": ["b"],
    "o1": ["fast", "nobody"],
    "loop": ["gpt-4o"],
    "a": ["b"],
    "*/small": ["a", "a"],
}


def aliases(table: Mapping[str, Sequence[str]] = TABLE) -> Aliases:
    return Aliases(table, KNOWN.__contains__)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("gpt-4o", ("a", "b")),  # a name comes before patterns
        ("gpt-4x", ("auto",)),  # and patterns in their order
        ("gpt-", ("auto",)),
        ("gpt-5\n", ("auto",)),
        ("my-gpt-5", ("my-gpt-5",)),
        ("GPT-5", ("GPT-5",)),
        ("claude-3-x", ("b",)),
        ("claude-5-x", ("claude-5-x",)),
        ("org/small", ("a", "a")),
        ("loop", ("gpt-4o",)),  # what an alias stands for is none
        ("a", ("a",)),  # what is known stands for itself
        ("", ("",)),
        ("nobody", ("nobody",)),
    ],
)
def test_a_name_stands_for_what_the_table_says(name: str, targets: tuple[str, ...]) -> None:
    assert aliases().targets(name) == targets


def test_names_are_listed_without_patterns() -> None:
    assert aliases().names == ["a", "gpt-4o", "loop", "o1"]
    assert aliases({}).names == []


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [
        (("auto",), ("auto",)),
        (("gpt-4o",), ("a", "b")),
        (("gpt-4o", "b", "gpt-5"), ("a", "b", "auto")),
        (("fast", "o1"), ("fast", "nobody")),
        (("org/small",), ("a",)),
        (("nobody", "gpt-4o"), ("nobody", "a", "b")),
        (("nobody", "nobody"), ("nobody",)),
    ],
)
def test_a_query_is_given_names_that_this_node_knows(
    asked: tuple[str, ...], resolved: tuple[str, ...]
) -> None:
    """In the order of the caller's names, each once; what nobody knows stays, to be told of."""
    query = aliases().resolve(Query(messages=(), model=asked[0], fallbacks=asked[1:]))
    assert (query.model, *query.fallbacks) == resolved


@pytest.mark.parametrize(("model", "fallbacks"), [("auto", ()), ("a", ("b",)), ("nobody", ())])
def test_a_query_without_aliases_is_left_alone(model: str, fallbacks: tuple[str, ...]) -> None:
    query = Query(messages=(), model=model, fallbacks=fallbacks, request_id="1")
    assert aliases().resolve(query) is query


names = st.text("ab*?[]-", max_size=4)
tables = st.dictionaries(names, st.lists(st.sampled_from(KNOWN), min_size=1, max_size=3), max_size=5)


@given(tables, st.lists(names, min_size=1, max_size=4))
def test_resolving_is_what_it_says(table: dict[str, list[str]], asked: list[str]) -> None:
    resolver = aliases(table)
    query = resolver.resolve(Query(messages=(), model=asked[0], fallbacks=tuple(asked[1:])))
    expected: list[str] = []
    for name in asked:
        signs = {it: any(sign in it for sign in "*?[") for it in table}
        fitting = [it for it in table if (fnmatchcase(name, it) if signs[it] else name == it)]
        first = sorted(fitting, key=signs.__getitem__)[:1]  # names first, else in their order
        found = [name] if name in KNOWN or not first else table[first[0]]
        expected += [it for it in found if it not in expected]
    assert [query.model, *query.fallbacks] == list(dict.fromkeys(expected))
    again = resolver.resolve(query)
    assert (again.model, again.fallbacks) == (query.model, query.fallbacks)
