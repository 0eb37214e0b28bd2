"""A gateway of more experts than its router looks at: the index narrows them."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from manyminds.combine.vote import Vote
from manyminds.experts.scripted import Script
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.types import Card, Expert, Limits, Message, Query, Report
from tests.clock import run
from tests.network import Records, network, scripted, words
from tests.test_gateway import answer

TOPICS = ("aaab", "ccdd", "eeff", "gghh", "iijj", "kkll", "mmnn", "oopp", "qqrr", "sstt")


class Many(dict[str, Expert]):
    """Experts that are too many to go through, where `closed`."""

    closed = True

    def __iter__(self) -> Iterator[str]:
        assert not self.closed, "all experts were gone through"
        return super().__iter__()


def topic(i: int) -> str:
    """Of an expert: one of ten, with a letter that tells it from its neighbours."""
    return TOPICS[i % 10] * 4 + chr(97 + i // 10 % 26)


def many(count: int, flat: int) -> tuple[Gateway, Many]:
    index = Index(27, flat=flat)
    router = SkillRouter(index, words)
    experts = Many()
    for i in range(count):
        name = f"{TOPICS[i % 10]}-{i}"
        experts[name] = scripted(name, Script(text="B"), skills=(topic(i),), parameters=1_000 + i)
        router.admit(experts[name].card)
    if count > flat:
        index.shelve()
    combiner = Vote()
    parts = Parts(
        experts=experts,
        index=index,
        router=router,
        combiners={"vote": combiner, "race": combiner, "pass": combiner, "select": combiner},
        record=Records().record,
        embed=words,
    )
    defaults = Limits(policy="auto", deadline_s=60.0)
    return Gateway(Card("net", "gateway"), parts, Patience(), defaults), experts


def ask(about: str, **limits: object) -> Query:
    return Query((Message("user", about),), limits=Limits(explain=True, **limits), request_id="r")  # type: ignore[arg-type]


def asked(report: Report) -> set[str]:
    return {entry.expert for entry in report.panel}


@pytest.mark.parametrize("flat", [400, 100_000])
def test_the_nearest_of_many_are_asked_without_going_through_all(flat: int) -> None:
    net, experts = many(3_000, flat)
    for about in TOPICS:
        _, report = run(answer(net, ask(about * 4)))
        assert {name.partition("-")[0] for name in asked(report)} == {about}
        assert isinstance(report.search, msgspec.Struct)
        if flat < 3_000:
            assert 64 <= report.search.considered < 3_000
            assert 64 <= report.search.compared < 2_000
        else:
            assert (report.search.considered, report.search.compared) == (3_000, 3_000)
        own = sum(experts[name].card.parameters for name in asked(report))
        assert report.search.touched == own / sum(1_000 + i for i in range(3_000))


def test_the_next_nearest_are_asked_where_the_nearest_may_not_be() -> None:
    net, experts = many(2_000, 100_000)
    index = Index(27)
    for expert in experts.values():
        index.add(expert.card.name, words(list(expert.card.skills)))
    order = [name for name, _ in index.search(words([TOPICS[3] * 4])[0], 2_000).hits]
    _, report = run(answer(net, ask(TOPICS[3] * 4, exclude=tuple(order[:300]))))
    assert asked(report) <= set(order[300:364])
    assert isinstance(report.search, msgspec.Struct)
    assert report.search.compared > 2_000  # it was looked for more than once


def test_who_is_too_far_for_the_index_is_found_where_nobody_else_may_answer() -> None:
    net, experts = many(1_000, 100)
    experts.closed = False
    far = f"{TOPICS[7]}-7"
    _, report = run(answer(net, ask(TOPICS[0] * 4, include=(far,))))
    assert asked(report) == {far}


def test_of_few_the_router_looks_at_all() -> None:
    net = network(
        *(scripted(name, Script(text="B"), parameters=size) for name, size in (("a", 100), ("b", 300)))
    )
    query = ask("Which?\nA) one\nB) two", include=("a",))
    _, report = run(answer(net, query))
    assert msgspec.to_builtins(report.search) == {"compared": 0, "considered": 2, "touched": 0.25}
    _, report = run(answer(net, msgspec.structs.replace(query, limits=Limits())))
    assert report.search is msgspec.UNSET
    assert "search" not in msgspec.to_builtins(report)
    assert np.isclose(sum(entry.weight for entry in report.panel), 1.0)
