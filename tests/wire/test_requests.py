"""Ordered models, and what of a request reaches whoever is asked with other messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import InvalidRequestError
from manyminds.types import Message, Query, Sampling
from manyminds.wire import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    Dialect,
    onward_body,
    request_body,
    rewritten,
)
from tests.test_wire import asked, names, values

BODIES: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": [{"role": "user", "content": "Why?"}]}),
    "completions": (COMPLETIONS, {"prompt": "Why?"}),
    "messages": (MESSAGES, {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9}),
    "responses": (RESPONSES, {"input": "Why?"}),
}
models = st.text(st.characters(codec="utf-8"), max_size=8)


def parsed(kind: str, **fields: Any) -> Query:
    dialect, body = BODIES[kind]
    return dialect.parse(json.dumps(body | fields).encode(), "r1")


# --- ordered models --------------------------------------------------------------------------------


@given(st.sampled_from(sorted(BODIES)), st.none() | models, st.lists(models, min_size=1, max_size=7))
def test_models_are_asked_in_order_and_each_once(kind: str, first: str | None, others: list[str]) -> None:
    query = parsed(kind, models=others, **({} if first is None else {"model": first}))
    expected = [*([] if first is None else [first]), *others]
    assert [query.model, *query.fallbacks] == sorted(set(expected), key=expected.index)
    sent = json.loads(request_body(query, "upstream"))
    assert (sent["model"], "models" in sent) == ("upstream", False)


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("none", [None, []])
def test_no_models_are_no_fallbacks(kind: str, none: Any) -> None:
    query = parsed(kind, model="a", models=none)
    assert (query.model, query.fallbacks) == ("a", ())


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"models": "a"}, "models"),
        ({"models": ["a", 5]}, "models[1]"),
        ({"models": list("abcdefghi")}, "models"),
        ({"models": ["a"] * 9}, "models"),
    ],
)
def test_what_is_no_list_of_models_is_named(kind: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsed(kind, **fields)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


@pytest.mark.parametrize("kind", ["chat", "completions", "messages"])
@pytest.mark.parametrize("fields", [{}, {"model": None}, {"models": []}, {"model": None, "models": None}])
def test_somebody_must_be_asked(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="send `auto`") as caught:
        parsed(kind, **fields)
    assert caught.value.param == "model"


# --- other messages --------------------------------------------------------------------------------


@given(st.dictionaries(names, values, max_size=4), st.lists(st.text(), min_size=1, max_size=3), st.booleans())
def test_other_messages_leave_all_other_fields_as_they_came(
    extra: dict[str, Any], texts: list[str], stream: bool
) -> None:
    kept = {
        "max_completion_tokens": 99,
        "temperature": 0.3,
        "stop": ["END"],
        "reasoning_effort": "low",
    } | extra
    query = asked(**kept, n=2, stream=stream, manyminds={"strategy": "fuse"}, models=["b"])
    messages = [Message("user", text) for text in texts]
    other = rewritten(query, messages)
    assert other.messages == tuple(messages)
    assert (other.sampling.n, other.sampling.max_tokens, other.sampling.stop) == (1, 99, ("END",))
    sent = json.loads(request_body(other, "writer", whole=True))
    turns = [{"role": "user", "content": text} for text in texts]
    assert sent == kept | {"model": "writer", "stream": False, "messages": turns}


def test_a_query_made_here_takes_other_messages_too() -> None:
    query = Query((Message("user", "Why?"),), sampling=Sampling(max_tokens=9, n=3))
    sent = json.loads(request_body(rewritten(query, [Message("user", "How?")]), "m", whole=True))
    turns = [{"role": "user", "content": "How?"}]
    assert sent == {"model": "m", "stream": False, "messages": turns, "max_tokens": 9}


# --- bounds ----------------------------------------------------------------------------------------


def test_no_tokens_at_all_may_be_asked_for() -> None:
    """Which some servers take for "read the prompt into your cache": whether it is one, they know."""
    query = asked(max_tokens=0)
    assert query.sampling.max_tokens == 0
    assert json.loads(request_body(query, "m"))["max_tokens"] == 0


@given(st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 10**6))
def test_the_newer_limit_of_tokens_counts(newer: int | None, older: int | None) -> None:
    query = asked(max_completion_tokens=newer, max_tokens=older)
    assert query.sampling.max_tokens == (older if newer is None else newer)


def test_functions_of_old_are_tools() -> None:
    assert asked(functions=[{"name": "f"}]).demands == {"tools"}
    assert asked(functions=[]).demands == frozenset()
    with pytest.raises(InvalidRequestError) as caught:
        asked(functions={})
    assert caught.value.param == "functions"


@pytest.mark.parametrize("kind", BODIES)
def test_that_grounds_are_wanted_goes_to_no_expert_but_to_other_networks(kind: str) -> None:
    query = parsed(kind, model="auto", manyminds={"grounded": True})
    assert query.limits.grounded
    assert query.demands == {"citations"}
    assert "manyminds" not in json.loads(request_body(query, "m"))
    assert json.loads(onward_body(query, "auto"))["manyminds"] == {"grounded": True}
    plain = parsed(kind, model="auto", manyminds={"panel": 2})
    assert onward_body(plain, "auto") == request_body(plain, "auto")
