"""Who watches a panel is told of every call: that it began, what it wrote, and how it ended."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manyminds.experts.scripted import Script
from manyminds.fanout import Fanout, Patience
from manyminds.types import Answer, Began, Ended, Event, Expert, Grounds, Query, Route, Routed, Wrote
from tests.changed import replace
from tests.clock import run
from tests.network import network, scripted
from tests.test_fanout import QUERY, calls, ended, expert
from tests.test_gateway_private import CHOICE, Books, ask, heard
from tests.web.client import call
from tests.web.test_app import app, events, post, request


def watched(
    panel: Sequence[Expert], reserve: Sequence[Expert] = (), **more: Any
) -> tuple[list[Answer], list[Event]]:
    """What came of these calls, and what was told."""
    told: list[Event] = []
    fields = {"quorum": None, "hedge_s": None, "deadline_s": 60.0} | more
    asked = tuple(
        replace(one, stage=stage)
        for one, stage in zip(
            calls(*panel, hedge_s=fields["hedge_s"]), more.get("stages") or [0] * len(panel), strict=True
        )
    )
    route = Route("auto", "vote", asked, quorum=fields["quorum"], reserve=calls(*reserve))
    experts = {e.card.name: e for e in (*panel, *reserve)}
    query = replace(QUERY, watch=told.append)
    fanout = Fanout(query, route, experts, Patience(deadline_s=fields["deadline_s"]))
    run(ended(fanout))
    return fanout.answers, told


def of(told: Sequence[Event], kind: type) -> list[Any]:
    return [event for event in told if isinstance(event, kind)]


seconds = st.sampled_from([0.0, 0.4, 1.1, 3.0])
scripts = st.fixed_dictionaries(
    {"first_token_s": seconds, "per_chunk_s": seconds},
    optional={
        "refuse": st.just(True),
        "garbage": st.just(True),
        "cut_after": st.integers(0, 2),
        "stall_after": st.integers(0, 2),
        "grounds": st.just(Grounds(0.1, declined=True)),
    },
)


@given(
    st.lists(st.tuples(scripts, st.integers(0, 2)), min_size=1, max_size=5),
    st.integers(0, 2),
    st.sampled_from([None, 0.3]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([2.0, 60.0]),
)
def test_what_is_told_is_what_happened(
    plan: list[tuple[dict[str, Any], int]],
    spare: int,
    hedge_s: float | None,
    quorum: int | None,
    deadline_s: float,
) -> None:
    panel = [expert(f"e{i}", "some words of it", **script) for i, (script, _) in enumerate(plan)]
    reserve = [expert(f"r{i}", "others of it") for i in range(spare)]
    stages = [stage for _, stage in plan]
    more = {"stages": stages, "hedge_s": hedge_s, "quorum": quorum, "deadline_s": deadline_s}
    answers, told = watched(panel, reserve, **more)
    began, finished = of(told, Began), of(told, Ended)
    assert isinstance(told[0], Routed)
    assert [event.call for event in began] == list(range(len(answers)))
    assert sorted(event.call for event in finished) == list(range(len(answers)))
    for number, answer in enumerate(answers):
        own = [event for event in told[1:] if not isinstance(event, Routed) and event.call == number]
        first, *written, last = own
        assert isinstance(first, Began)
        assert isinstance(last, Ended)
        assert (first.expert, first.source, first.stage) == (answer.expert, answer.source, answer.stage)
        assert "".join(event.text for event in written if isinstance(event, Wrote)) == answer.text
        assert len(written) == len([chunk for chunk in answer.chunks if chunk.text])
        assert (last.status, last.declined) == (answer.status, answer.declined)
        assert (last.seconds, last.ttft_s) == (answer.seconds, answer.ttft_s)
        assert last.cost_usd == answer.usage.cost_usd
        assert (last.error is None) == (answer.error is None)


def test_who_is_asked_beside_whom_and_who_lost() -> None:
    slow, spare = expert("slow", first_token_s=9.0), expert("spare", first_token_s=0.2)
    _, told = watched([slow], [spare], hedge_s=1.0)
    first, second = of(told, Began)
    assert (first.expert, first.hedges, first.at_s) == ("slow", None, 0.0)
    assert (second.expert, second.hedges, second.at_s) == ("spare", "slow", 1.0)
    lost = {event.call: (event.status, event.lost) for event in of(told, Ended)}
    assert lost == {0: ("cancelled", True), 1: ("ok", False)}


def test_what_is_planned_is_told_first() -> None:
    _, told = watched([expert("a"), expert("b")], [expert("c")], stages=[0, 1])
    (plan,) = of(told, Routed)
    assert [(one.expert, one.source, one.stage, one.probability) for one in plan.calls] == [
        ("a", "a's", 0, 0.7),
        ("b", "b's", 1, 0.7),
    ]
    assert plan.reserve == ("c",)


def test_no_expert_learns_that_somebody_watches() -> None:
    asked: list[Query] = []

    def reply(query: Query) -> str:
        asked.append(query)
        return "ok"

    _, told = watched([expert("a", replies=reply)])
    assert len(told) == 4
    assert [query.watch for query in asked] == [None]


# --- as callers see it -----------------------------------------------------------------------------


def split(found: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What was told of the panel, and the chunks of the answer."""
    told = [one["manyminds"] for one in found if not one["choices"] and "event" in one.get("manyminds", {})]
    return told, [one for one in found if "event" not in one.get("manyminds", {})]


def test_a_stream_that_is_watched_tells_of_the_panel_and_ends_with_the_same_report() -> None:
    application = app(
        scripted("a", Script(text="It is 43.", first_token_s=0.2)), scripted("b", Script(refuse=True))
    )
    found = events(post(application, request(stream=True, manyminds={"watch": True, "panel": 2})))
    assert found.pop() == "[DONE]"
    assert {one["object"] for one in found} == {"chat.completion.chunk"}
    assert len({one["id"] for one in found}) == 1
    told, chunks = split(found)
    assert told[0]["event"] == "routed"
    assert {one["expert"] for one in told if one["event"] == "began"} == {"a", "b"}
    number = next(one["call"] for one in told if one["event"] == "began" and one["expert"] == "a")
    drafted = [one["text"] for one in told if one["event"] == "wrote" and one["call"] == number]
    assert "".join(drafted) == "It is 43."
    assert {one["status"] for one in told if one["event"] == "ended"} == {"ok", "failed"}
    said = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
    assert said == "It is 43."
    plain = events(post(application, request(stream=True, manyminds={"panel": 2})))
    report, other = chunks[-1]["manyminds"], plain[-2]["manyminds"]
    assert [entry["answer"] for entry in report["panel"]] == [entry["answer"] for entry in other["panel"]]
    assert split(plain[:-1])[0] == []


def test_only_streams_of_chat_completions_are_watched() -> None:
    application = app(scripted("a", Script(text="It is 43.")))
    whole = post(application, request(manyminds={"watch": True}))
    assert json.loads(whole.body)["choices"][0]["message"]["content"] == "It is 43."
    body = {"model": "auto", "input": "17 + 26?", "stream": True, "manyminds": {"watch": True}}
    other = run(call(application, "POST", "/v1/responses", json.dumps(body).encode()))
    assert (other.status, b'"began"' in other.body) == (200, False)


def test_a_panel_that_fails_is_told_before_the_error() -> None:
    application = app(scripted("a", Script(refuse=True)))
    reply = post(application, request(stream=True, manyminds={"watch": True}))
    found = events(reply)
    assert reply.status == 200
    assert "error" in found[-1]
    assert [one["manyminds"]["event"] for one in found[:-1]] == ["routed", "began", "ended"]


def test_nobody_watches_a_private_poll() -> None:
    told: list[Event] = []
    experts = [scripted(f"e{i}", Script(text="B) Canberra")) for i in range(12)]
    gateway = network(*experts, bank=Books().bank())
    query = replace(ask(CHOICE, epsilon=8.0), watch=told.append, stream=True)
    chunks = run(heard(gateway, query))
    assert chunks[-1].report is not None
    assert chunks[-1].report.privacy
    assert told == []
