"""The ways in which a node's experts can be asked."""

import logging

import pytest

from manyminds import sandbox
from manyminds.errors import DataError
from manyminds.experts.scripted import Script, Scripted
from manyminds.node.variants import in_every_way, named
from manyminds.types import Card, Expert


def experts(*names: str, kind: str = "local") -> dict[str, Expert]:
    return {name: Scripted(Card(name, kind), Script()) for name in names}


def test_a_model_of_the_catalogue_is_asked_in_the_ways_that_are_worth_it() -> None:
    found = in_every_way(experts("smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b", "own"))
    ways = ["code", "code3", "cot", "cot3", "direct"]
    assert sorted(found) == sorted(
        ["smollm2-135m:direct", "gemma-3-270m:direct"]
        + [f"own:{way}" for way in ways]
        + [f"qwen2.5-coder-0.5b:{way}" for way in ("code", "direct")]
    )


def test_who_is_elsewhere_is_asked_as_it_is() -> None:
    assert list(in_every_way(experts("remote", kind="openai"))) == ["remote"]


def test_only_named_ways_of_experts_that_are_here_are_made() -> None:
    here = experts("a", "b") | experts("b:cot", kind="openai")
    assert list(named(here, ["a:direct", "a:loud", "c:cot", "a", "b:cot", ":cot"])) == ["a:direct"]


def test_without_a_sandbox_nobody_is_asked_for_a_program(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def need() -> None:
        raise DataError("install bubblewrap")

    monkeypatch.setattr(sandbox, "need", need)
    with caplog.at_level(logging.WARNING):
        assert list(named(experts("a"), ["a:code", "a:code3", "a:cot"])) == ["a:cot"]
    assert caplog.messages == ["a:code, a:code3: left out. install bubblewrap"]
