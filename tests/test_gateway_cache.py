"""Answers that were given before, where they are asked for: through a whole gateway."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyminds.cache import POLICIES, Cache
from manyminds.errors import ManymindsError, UnavailableError
from manyminds.experts.guarded import Guarded
from manyminds.experts.scripted import Script, Scripted
from manyminds.gateway import Gateway
from manyminds.ledger import Ledger
from manyminds.types import Chunk, Key, Limits, Message, Query, Report
from tests.clock import run
from tests.network import Records, network, scripted, words

SUM = "What is 17 + 26?"
DOWN = UnavailableError("It is down.")


def ask(text: str = SUM, **fields: Any) -> Query:
    return Query((Message("user", text),), **{"request_id": "r1", **fields})


def room(**fields: Any) -> Cache:
    return Cache(100, 10_000_000, 3600.0, **{"clock": lambda: 0.0, **fields})


def by_name() -> Cache:
    return room(policies=(*POLICIES, "pass"))


def panel() -> list[Scripted]:
    return [scripted(name, Script(text="It is 43.")) for name in "ab"]


def asked(experts: Sequence[Scripted]) -> int:
    return sum(expert.asked for expert in experts)


async def stream(gateway: Gateway, query: Query) -> list[Chunk]:
    async with aclosing(gateway.stream(query)) as chunks:
        return [chunk async for chunk in chunks]


async def whole(gateway: Gateway, query: Query) -> list[Chunk]:
    return list(await gateway.complete(query))


def told(chunks: Sequence[Chunk]) -> Report:
    assert all(chunk.report is None and chunk.finish_reason is None for chunk in chunks[:-1])
    report = chunks[-1].report
    assert report is not None
    assert chunks[-1].finish_reason == "stop"
    return report


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


ways = pytest.mark.parametrize("way", [stream, whole])


@ways
@pytest.mark.parametrize("model", ["auto", "a"])
def test_a_miss_then_a_hit_that_asks_nobody(way: Any, model: str) -> None:
    experts, records = panel(), Records()
    net = network(*experts, records=records, cache=by_name())
    first = run(way(net, ask(model=model)))
    before = asked(experts)
    again = run(way(net, ask(model=model, request_id="r2")))
    assert asked(experts) == before > 0
    assert [chunk.text for chunk in again] == [chunk.text for chunk in first]
    assert text_of(again) == "It is 43."
    missed, hit = told(first), told(again)
    assert (missed.cache, hit.cache) == ("miss", "hit")
    assert missed.cost_usd > 0
    assert hit.cost_usd == 0
    assert hit.saved_usd == pytest.approx(missed.saved_usd + missed.cost_usd)
    assert hit.request_id == "r2"
    assert hit.attribution == missed.attribution
    assert [entry.expert for entry in hit.panel] == [entry.expert for entry in missed.panel]
    usage = again[-1].usage
    assert usage is not None
    assert usage.cost_usd == 0
    assert usage.completion_tokens > 0
    assert records.rows[1] == (hit, "It is 43.", "ok")
    assert len(records.answers) == before, "calls were recorded that were not made"


@pytest.mark.parametrize("model", ["auto", "a"])
def test_streams_and_whole_answers_stand_for_each_other(model: str) -> None:
    for first, then in ((stream, whole), (whole, stream)):
        experts = panel()
        net = network(*experts, cache=by_name())
        run(first(net, ask(model=model, stream=first is stream)))
        before = asked(experts)
        found = run(then(net, ask(model=model, stream=then is stream)))
        assert told(found).cache == "hit"
        assert asked(experts) == before
        assert text_of(found) == "It is 43."


class _Whole(Scripted):
    """Sends its completion in one piece to who wants no stream."""

    async def complete(self, query: Query) -> Sequence[Chunk]:
        chunks = [chunk async for chunk in self.stream(query)]
        last = chunks[-1]
        return [Chunk(text_of(chunks), last.finish_reason, last.usage, raw=b"{}", whole=True)]


def test_what_came_in_one_piece_is_no_stream() -> None:
    expert = _Whole(scripted("a", Script()).card, Script(text="It is 43."))
    net = network(expert, cache=by_name())
    run(whole(net, ask(model="a")))
    streamed = run(stream(net, ask(model="a", stream=True)))
    assert expert.asked == 2
    assert told(streamed).cache == "miss"
    assert len(streamed) > 2
    found = run(whole(net, ask(model="a")))
    assert expert.asked == 2
    assert told(found).cache == "hit"


def test_the_ledger_has_a_row_without_calls(tmp_path: Path) -> None:
    experts = panel()
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        net = network(*experts, cache=room(), records=ledger)
        run(stream(net, ask()))
        run(stream(net, ask(request_id="r2")))
        hit, miss = ledger.requests()
    finally:
        ledger.close()
    assert (miss["request_id"], hit["request_id"]) == ("r1", "r2")
    assert {call["expert"] for call in miss["calls"]} == {"a", "b"}
    assert (hit["calls"], hit["cost_usd"], hit["status"]) == ([], 0.0, "ok")


@pytest.mark.parametrize("model", ["auto", "a"])
def test_each_key_has_its_own(model: str) -> None:
    experts = panel()
    net = network(*experts, cache=by_name())
    ann, bob = Key("key_ann", "ann"), Key("key_bob", "bob")
    found = [told(run(stream(net, ask(model=model, key=key)))).cache for key in (ann, bob, None)]
    assert found == ["miss"] * 3
    found = [told(run(stream(net, ask(model=model, key=key)))).cache for key in (ann, bob, None)]
    assert found == ["hit"] * 3


@ways
@pytest.mark.parametrize("model", ["auto", "a"])
def test_off_neither_reads_nor_keeps(way: Any, model: str) -> None:
    cache = by_name()
    net = network(*panel(), cache=cache)
    off = ask(model=model, limits=Limits(cache="off"))
    assert told(run(way(net, off))).cache == "off"
    assert len(cache) == 0
    assert told(run(way(net, ask(model=model)))).cache == "miss"
    assert told(run(way(net, off))).cache == "off"
    assert told(run(way(net, ask(model=model)))).cache == "hit"


@ways
@pytest.mark.parametrize("model", ["auto", "a"])
def test_refresh_asks_and_keeps_the_new_answer(way: Any, model: str) -> None:
    said = ["old"]
    net = network(scripted("a", Script(replies=lambda _: said[-1])), cache=by_name())
    run(way(net, ask(model=model)))
    said.append("new")
    refreshed = run(way(net, ask(model=model, limits=Limits(cache="refresh"))))
    assert (text_of(refreshed), told(refreshed).cache) == ("new", "miss")
    found = run(way(net, ask(model=model)))
    assert (text_of(found), told(found).cache) == ("new", "hit")


@pytest.mark.parametrize(
    "script",
    [Script(fail_before=DOWN), Script(refuse=True), Script(text="one two three", cut_after=1)],
    ids=["down", "refusing", "cut"],
)
def test_a_panel_in_which_somebody_failed_is_not_kept(script: Script) -> None:
    cache = room()
    net = network(scripted("good", Script(text="It is 43.")), scripted("bad", script), cache=cache)
    assert told(run(stream(net, ask()))).cache == "miss"
    assert len(cache) == 0
    assert told(run(stream(net, ask()))).cache == "miss"


@ways
@pytest.mark.parametrize("script", [Script(fail_before=DOWN), Script(text="one two three", cut_after=1)])
def test_an_expert_that_fails_by_name_is_not_kept(way: Any, script: Script) -> None:
    cache = by_name()
    net = network(scripted("a", script), cache=cache)
    with pytest.raises(ManymindsError):
        run(way(net, ask(model="a")))
    assert len(cache) == 0


def test_nothing_is_kept_while_somebody_is_spared() -> None:
    cache, broken = by_name(), scripted("b", Script(fail_before=DOWN))
    guarded = Guarded(broken, lambda: 0.5, failures=1, retries=0)
    net = network(scripted("a", Script(text="It is 43.")), guarded, cache=cache)

    async def main() -> None:
        with pytest.raises(UnavailableError):
            await stream(net, ask(model="b"))
        assert guarded.open_until is not None
        for model in ("auto", "a"):
            for _ in range(2):
                assert told(await stream(net, ask(model=model))).cache == "miss"
                assert told(await whole(net, ask(model=model))).cache == "miss"
        assert len(cache) == 0

    run(main())
    assert broken.asked == 1


def test_who_leaves_leaves_nothing_behind() -> None:
    cache = room()
    net = network(*panel(), cache=cache)

    async def leave() -> None:
        chunks = net.stream(ask())
        await anext(chunks)
        await chunks.aclose()

    run(leave())
    assert len(cache) == 0


@pytest.mark.parametrize("policies", [POLICIES, ("pass",)])
def test_only_what_was_wished_for_is_kept(policies: tuple[str, ...]) -> None:
    cache = room(policies=policies)
    net = network(*panel(), cache=cache)
    for model in ("auto", "cheap", "a"):
        kept = ("pass" if model == "a" else model) in policies
        run(stream(net, ask(model=model)))
        assert told(run(stream(net, ask(model=model)))).cache == ("hit" if kept else "off")


def test_models_in_order_count_as_experts_by_name() -> None:
    net = network(*panel(), cache=room(policies=("pass",)))
    both = ask(model="a", fallbacks=("b",))
    assert told(run(stream(net, both))).cache == "miss"
    assert told(run(stream(net, both))).cache == "hit"
    assert told(run(stream(net, ask(model="a")))).cache == "miss"


def test_the_same_question_in_other_words() -> None:
    experts = panel()
    net = network(*experts, embed=words, cache=room(similarity=0.5))
    run(stream(net, ask("What is the capital of Australia?")))
    before = asked(experts)
    found = run(stream(net, ask("Please tell me what is the capital of Australia?", request_id="r2")))
    assert asked(experts) == before
    assert told(found).cache == "hit"
    assert told(found).request_id == "r2"
    other = run(stream(net, ask("What is the capital of Austria?")))
    assert told(other).cache == "miss"


def test_words_that_only_look_alike_are_not_enough() -> None:
    def apart(texts: Sequence[str]) -> Any:
        rows = np.zeros((len(texts), 27), dtype=np.float32)
        rows[range(len(texts)), [len(text) % 27 for text in texts]] = 1.0
        return rows

    net = network(*panel(), embed=apart, cache=room(similarity=0.5))
    run(stream(net, ask("What is the capital of Australia?")))
    found = run(stream(net, ask("Please tell me what is the capital of Australia?")))
    assert told(found).cache == "miss"


@pytest.mark.parametrize("model", ["auto", "a"])
def test_cleared_it_asks_again(model: str) -> None:
    cache = by_name()
    net = network(*panel(), cache=cache)
    run(stream(net, ask(model=model)))
    cache.clear()
    assert told(run(stream(net, ask(model=model)))).cache == "miss"
    assert told(run(stream(net, ask(model=model)))).cache == "hit"


@pytest.mark.parametrize("model", ["auto", "a"])
def test_cleared_while_it_answers_keeps_nothing(model: str) -> None:
    """What was asked before the experts changed says nothing of those that are there now."""
    cache = by_name()
    net = network(*panel(), cache=cache)

    async def main() -> None:
        async with aclosing(net.stream(ask(model=model))) as chunks:
            await anext(chunks)
            cache.clear()
            assert [chunk async for chunk in chunks]

    run(main())
    assert len(cache) == 0


def test_a_hit_costs_a_key_nothing() -> None:
    reserved: list[float] = []

    class Hold:
        def settle(self, spent_usd: float) -> None:
            reserved.append(spent_usd)

    async def reserve(key: Key, most_usd: float) -> Hold:
        return Hold()

    net = network(*panel(), cache=by_name(), reserve=reserve)
    key = Key("key_ann", "ann", budget_usd=1.0)
    for model in ("auto", "a"):
        run(stream(net, ask(model=model, key=key)))
        settled = len(reserved)
        assert told(run(stream(net, ask(model=model, key=key)))).cache == "hit"
        assert len(reserved) == settled
    assert len(reserved) == 2
    assert all(spent > 0 for spent in reserved)
