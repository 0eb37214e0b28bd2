"""Several models in one request, asked in order: the next one where the last fails before its first word."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import (
    AllExpertsFailedError,
    CutError,
    ManymindsError,
    ModelNotFoundError,
    NoExpertError,
    UnavailableError,
)
from manyminds.experts.guarded import Guarded
from manyminds.experts.scripted import Script
from manyminds.fanout import Patience
from manyminds.gateway import Gateway
from manyminds.ledger import Ledger
from manyminds.router.order import in_order
from manyminds.types import Call, Chunk, Key, Limits, Message, Query, Report, Route
from tests.clock import run
from tests.network import Records, network, scripted

DOWN = Script(fail_before=UnavailableError("It is down."))


def ask(*models: str, **fields: Any) -> Query:
    model, *fallbacks = models
    return Query(
        (Message("user", "Why do cats purr?"),),
        model=model,
        fallbacks=tuple(fallbacks),
        **{"request_id": "r1", **fields},
    )


async def stream(gateway: Gateway, query: Query) -> list[Chunk]:
    async with aclosing(gateway.stream(query)) as chunks:
        return [chunk async for chunk in chunks]


async def whole(gateway: Gateway, query: Query) -> list[Chunk]:
    return list(await gateway.complete(query))


def told(chunks: Sequence[Chunk]) -> tuple[str, Report]:
    report = chunks[-1].report
    assert report is not None
    return "".join(chunk.text for chunk in chunks), report


def statuses(report: Report) -> dict[str, str]:
    return {entry.expert: entry.status for entry in report.panel}


ways = pytest.mark.parametrize("way", [stream, whole])


@ways
@pytest.mark.parametrize("script", [DOWN, Script(refuse=True), Script(garbage=True), Script(stall_after=0)])
def test_the_next_one_answers(way: Any, script: Script, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        third = scripted("c", Script(text="never"))
        net = network(
            scripted("a", script), scripted("b", Script(text="they are content")), third, records=ledger
        )
        text, report = told(run(way(net, ask("a", "b", "c"))))
        (row,) = ledger.requests()
    finally:
        ledger.close()
    assert text == "they are content"
    found = statuses(report)
    assert found.pop("a") in ("failed", "late")
    assert found == {"b": "ok"}
    assert third.asked == 0
    assert [owed.source for owed in report.attribution if owed.share > 0] == ["b"]
    assert [call["expert"] for call in row["calls"]] == ["a", "b"]
    assert (row["request_id"], row["status"]) == ("r1", "ok")


@ways
def test_the_first_one_answers_alone(way: Any) -> None:
    experts = [scripted(name, Script(text=name), accuracy=0.9 if name == "b" else 0.2) for name in "ab"]
    text, report = told(run(way(network(*experts), ask("a", "b"))))
    assert (text, statuses(report)) == ("a", {"a": "ok"})
    assert experts[1].asked == 0


def test_a_slow_first_one_is_waited_for_as_long_as_any() -> None:
    async def timed() -> tuple[str, float]:
        slow = scripted("a", Script(text="a", first_token_s=29.0))
        net = network(slow, scripted("b", Script(text="b")), patience=Patience(30.0, 20.0, 60.0))
        text, _ = told(await stream(net, ask("a", "b")))
        return text, asyncio.get_running_loop().time()

    assert run(timed()) == ("a", 29.0)


def test_words_come_as_they_are_made() -> None:
    async def times() -> list[float]:
        net = network(scripted("a", DOWN), scripted("b", Script(text="one two three", per_chunk_s=1.0)))
        async with aclosing(net.stream(ask("a", "b"))) as chunks:
            return [asyncio.get_running_loop().time() async for _ in chunks]

    assert run(times()) == [0.0, 1.0, 2.0, 2.0]


@ways
@pytest.mark.parametrize(
    "script", [Script(text="one two", cut_after=1), Script(text="one two", stall_after=1)]
)
def test_after_its_first_word_nobody_takes_over(way: Any, script: Script) -> None:
    records, second = Records(), scripted("b", Script(text="b"))
    net = network(scripted("a", script), second, records=records)
    with pytest.raises(ManymindsError):
        run(way(net, ask("a", "b")))
    assert second.asked == 0
    assert [status for _, _, status in records.rows] == ["cut"]


def test_a_cut_stream_says_so() -> None:
    net = network(scripted("a", Script(text="one two", cut_after=1)), scripted("b", Script()))
    chunks: list[Chunk] = []

    async def read() -> None:
        async with aclosing(net.stream(ask("a", "b"))) as found:
            async for chunk in found:
                chunks.append(chunk)

    with pytest.raises(CutError):
        run(read())
    assert [(chunk.text.strip(), chunk.finish_reason) for chunk in chunks] == [("one", None)]


@ways
def test_all_fail_and_each_says_how(way: Any) -> None:
    records = Records()
    net = network(scripted("a", DOWN), scripted("b", Script(refuse=True)), records=records)
    with pytest.raises(AllExpertsFailedError, match="It is down"):
        run(way(net, ask("a", "b")))
    ((report, _, status),) = records.rows
    assert (statuses(report), status) == ({"a": "failed", "b": "failed"}, "failed")


@ways
def test_names_that_nobody_knows_are_left_out(way: Any) -> None:
    net = network(scripted("a", DOWN), scripted("b", Script(text="b")))
    for models in (("x", "b"), ("a", "x", "b"), ("x", "a", "y", "b", "z")):
        assert told(run(way(net, ask(*models))))[0] == "b"
    with pytest.raises(ModelNotFoundError, match="'x'") as refused:
        run(way(net, ask("x", "y")))
    assert refused.value.status == 404


@ways
@pytest.mark.parametrize("name", ["auto", "max", "cheap", "fast", "net"])
def test_a_policy_follows_the_experts(way: Any, name: str) -> None:
    experts = [scripted("a", DOWN, accuracy=0.1), *(scripted(n, Script(text=n)) for n in "bcd")]
    text, report = told(run(way(network(*experts), ask("a", name))))
    assert text in tuple("bcd")
    assert statuses(report) == {"a": "failed", text: "ok"}
    assert experts[0].asked == 1, "it was asked twice"


@ways
def test_a_policy_that_comes_first_is_asked_as_ever(way: Any) -> None:
    experts = [scripted(name, Script(text="content")) for name in "abc"]
    _, alone = told(run(way(network(*experts), ask("auto"))))
    _, report = told(run(way(network(*experts), ask("x", "auto", "a"))))
    assert len(report.panel) > 1
    assert statuses(report) == statuses(alone)
    assert report.policy == alone.policy == "auto"


@ways
def test_who_cannot_do_what_is_asked_is_passed_over(way: Any) -> None:
    plain = scripted("a", Script(text="a"))
    able = scripted("b", Script(text="b"), offers=frozenset({"tools"}))
    net = network(plain, able)
    for models in (("a", "b"), ("b", "a"), ("a", "auto")):
        text, report = told(run(way(net, ask(*models, demands=frozenset({"tools"})))))
        assert (text, statuses(report)) == ("b", {"b": "ok"})
    assert plain.asked == 0
    with pytest.raises(NoExpertError, match="image"):
        run(way(net, ask("a", "b", demands=frozenset({"image"}))))


def test_one_that_is_spared_is_passed_over() -> None:
    broken = scripted("a", DOWN)
    guarded = Guarded(broken, lambda: 0.5, failures=1, retries=0)
    net = network(guarded, scripted("b", Script(text="b")))

    async def main() -> None:
        for _ in range(3):
            assert told(await stream(net, ask("a", "b")))[0] == "b"

    run(main())
    assert broken.asked == 1


def test_all_that_may_be_asked_are_paid_for_beforehand() -> None:
    most: list[float] = []

    class Hold:
        def settle(self, spent_usd: float) -> None:
            most.append(spent_usd)

    async def reserve(key: Key, most_usd: float) -> Hold:
        most.append(most_usd)
        return Hold()

    key = Key("key_ann", "ann", budget_usd=1.0)
    net = network(scripted("a", Script(text="a")), scripted("b", Script(text="b")), reserve=reserve)
    run(stream(net, ask("a", key=key)))
    run(stream(net, ask("a", "b", key=key)))
    alone, spent_alone, both, spent = most
    assert both == pytest.approx(2 * alone)
    assert spent == spent_alone < alone


def test_a_limit_of_a_request_holds_for_each() -> None:
    dear = scripted("a", Script(text="a"), price_out_usd_per_m=1_000_000.0)
    net = network(dear, scripted("b", Script(text="b")))
    text, _ = told(run(stream(net, ask("a", "b", limits=Limits(budget_usd=0.5)))))
    assert text == "b"
    assert dear.asked == 0


def test_who_leaves_cancels_whoever_answers() -> None:
    second, records = scripted("b", Script(text="a " * 99, per_chunk_s=1.0)), Records()
    net = network(scripted("a", DOWN), second, records=records)

    async def leave() -> None:
        chunks = net.stream(ask("a", "b"))
        await anext(chunks)
        await chunks.aclose()

    run(leave())
    assert (second.running, [status for _, _, status in records.rows]) == (0, ["cancelled"])


# --- the order itself --------------------------------------------------------------------------------

_calls = st.builds(
    Call,
    st.sampled_from("abcdef"),
    st.just("s"),
    st.sampled_from([0.1, 0.2, 0.3, 0.7, 0.9]),
    stage=st.integers(0, 2),
    samples=st.integers(1, 3),
    hedge_s=st.sampled_from([None, 0.3]),
)
_unique = st.lists(_calls, min_size=1, max_size=4, unique_by=lambda call: call.expert)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    calls = draw(_unique)
    cut = draw(st.integers(1, len(calls)))
    policy = draw(st.sampled_from(["pass", "auto"]))
    return Route(policy, "vote", tuple(calls[:cut]), 0.9, 1, "f", tuple(calls[cut:]))


@given(st.lists(routes(), min_size=1, max_size=4))
def test_each_is_asked_once_and_in_order(given_routes: list[Route]) -> None:
    found = in_order(given_routes)
    names = [call.expert for call in found.everyone]
    assert len(set(names)) == len(names)
    assert set(names) == {call.expert for route in given_routes for call in route.everyone}
    first = {
        name: min(i for i, route in enumerate(given_routes) if route.call_of(name) is not None)
        for name in names
    }
    assert [first[name] for name in names] == sorted(first.values()), (
        "a later route came before an earlier one"
    )
    for before, after in zip(found.everyone, found.everyone[1:], strict=False):
        assert first[before.expert] < first[after.expert] or before.probability >= after.probability
    assert (len(found.calls), found.strategy, found.fuser, found.quorum) == (1, "race", None, None)
    assert found.threshold == 1.0
    assert sum(call.share for call in found.everyone) == 1.0
    assert {(call.stage, call.samples, call.hedge_s) for call in found.everyone} == {(0, 1, None)}


@given(st.lists(routes(), min_size=1, max_size=4))
def test_what_is_in_order_stays_so(given_routes: list[Route]) -> None:
    found = in_order(given_routes)
    singly = [Route("pass", "pass", (call,)) for call in found.everyone]
    assert [call.expert for call in in_order(singly).everyone] == [call.expert for call in found.everyone]
