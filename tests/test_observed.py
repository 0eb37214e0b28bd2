"""What happens on a node, as listeners are told; in virtual time."""

import asyncio
from contextlib import aclosing
from typing import Any

from manyminds.node.observed import Observed, State, answered
from manyminds.private import PRIVATE
from manyminds.types import Message, PanelEntry, Query, Report
from tests.changed import replace
from tests.clock import run


def entry(expert: str, probability: float | None = 0.5, weight: float = 0.5, **more: Any) -> PanelEntry:
    fields = PanelEntry(expert, expert, weight, "43", probability, 0.1, 0.2, 0.25, "ok")
    return replace(fields, **more)


def report(name: str = "r1", *panel: PanelEntry, **more: Any) -> Report:
    return replace(Report(name, "auto", "vote", panel or (entry("a"),), 1.0, 0.9, (), 0.25, 0.0), **more)


def asked(observed: Observed, told: Report) -> None:
    observed.record(told, Query((Message("user", "a secret"),), section="sums"), (), "43", "ok", 0.2)


def heard(for_s: float, *, happens: dict[float, Any], states: Any = None) -> list[dict[str, Any]]:
    """The events of so many seconds, in which such reports come, by when."""

    async def whole() -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        observed, begins_s, found = Observed(loop.time), loop.time(), []
        for at_s, told in happens.items():
            loop.call_at(begins_s + at_s, asked, observed, told)

        def state() -> State:
            return states(loop.time() - begins_s) if states else State({"experts": 2}, {})

        async with aclosing(observed.events(state)) as events:
            async for event in events:
                found.append({"s": loop.time() - begins_s} | event)
                if loop.time() - begins_s >= for_s:
                    return found
        return found

    return run(whole())


def test_traffic_comes_at_once_and_every_second() -> None:
    found = heard(3, happens={0.5: report("r1"), 1.5: report("r2")})
    assert [(event["event"], event["s"]) for event in found] == [
        *(("traffic", 0.0), ("request", 0.5), ("traffic", 1.0)),
        *(("request", 1.5), ("traffic", 2.0), ("traffic", 3.0)),
    ]
    traffic = [event for event in found if event["event"] == "traffic"]
    assert [event["requests"] for event in traffic] == [0, 1, 2, 2]
    assert [event["cost_usd_per_min"] for event in traffic] == [0, 0.25, 0.5, 0.5]
    assert traffic[0]["experts"] == 2


def test_a_rate_is_of_the_last_minute() -> None:
    found = heard(70, happens={0.5: report("r1"), 30.5: report("r2")})
    per_min = {event["s"]: event["requests_per_min"] for event in found if event["event"] == "traffic"}
    assert (per_min[59.0], per_min[62.0], found[-1]["requests"]) == (2, 1, 2)


def test_of_private_answers_nothing_is_told_but_how_many() -> None:
    told = report("hidden", policy=PRIVATE, strategy=PRIVATE, panel=())
    found = heard(2, happens={0.5: told})
    assert [event["event"] for event in found] == ["traffic"] * 3
    assert found[-1]["requests"] == 1
    assert "hidden" not in str(found)
    observed = Observed()
    asked(observed, told)
    assert observed.last is None


def test_no_text_is_told_nor_kept() -> None:
    (_, told, *_) = heard(1, happens={0.5: report()})
    assert "secret" not in str(told)
    assert (told["section"], told["answered"], told["panel"][0]["expert"]) == ("sums", "a", "a")
    observed = Observed()
    asked(observed, report())
    assert observed.last is not None
    assert (observed.last.query.messages, observed.last.query.raw) == ((), b"")


def test_only_what_a_policy_chose_is_the_last() -> None:
    observed = Observed()
    for told in (
        report("r1"),
        report("r2", policy="pass"),
        report("r3", cache="hit"),
        report("r4", panel=()),
    ):
        asked(observed, told)
    assert observed.last is not None
    assert observed.last.report.request_id == "r1"


def test_what_has_changed_is_said_once() -> None:
    def state(at_s: float) -> State:
        return State({}, {"experts": at_s > 1.5, "network": 7})

    found = heard(4, happens={}, states=state)
    assert [(e["s"], e["what"]) for e in found if e["event"] == "changed"] == [(2.0, "experts")]


def test_a_slow_listener_is_told_the_latest() -> None:
    async def whole() -> list[str]:
        observed = Observed(asyncio.get_running_loop().time)
        async with aclosing(observed.events(lambda: State({}, {}))) as events:
            assert (await anext(events))["event"] == "traffic"
            for number in range(1000):
                asked(observed, report(f"r{number}"))
            found = [await anext(events) for _ in range(200)]
            return [event["request_id"] for event in found]

    assert run(whole()) == [f"r{number}" for number in range(800, 1000)]


def test_whose_words_were_released() -> None:
    failed = entry("b", None, status="failed")
    assert answered(report("r", entry("a"), failed)) == "a"
    assert answered(report("r", failed)) is None
    assert answered(report("r", entry("a", 0.2), entry("b", 0.7), entry("c", 0.7, 0.9))) == "c"
    assert answered(report("r", entry("a", None), entry("b", None))) is None
    fused = (entry("a"), entry("b"), entry("f", None, method="fuse"))
    assert answered(report("r", *fused, strategy="fuse")) == "f"
    assert answered(report("r", entry("a", 0.9, declined=True), entry("b", 0.1))) == "b"
