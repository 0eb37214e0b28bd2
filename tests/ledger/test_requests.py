"""What is recorded is found again, on either database."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyminds.errors import LedgerError
from manyminds.ledger import Group, Ledger
from manyminds.types import Answer, Outcome, Report, Usage
from tests.ledger.samples import ANSWERS, ask, counted, entry, grade, record, report

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def names(ledger: Ledger, **which: object) -> list[str]:
    return [row["request_id"] for row in ledger.requests(100, **which)]  # type: ignore[arg-type]


def test_a_request_is_recorded_whole(ledger: Ledger) -> None:
    record(ledger, key="k1")
    (request,) = ledger.requests()
    first, second = request.pop("calls")
    assert datetime.fromisoformat(request.pop("at_utc")).utcoffset() == timedelta()
    assert request == {
        "id": 1,
        "request_id": "r",
        "key": "k1",
        "policy": "auto",
        "strategy": "vote",
        "status": "ok",
        "seconds": 0.4,
        "cost_usd": 0.003,
        "saved_usd": 0.01,
        "probability": 0.8,
        "agreement": 0.5,
        "section": "",
        "purpose": "",
        "question": None,
        "answer": None,
    }
    assert first == {
        "expert": "a",
        "source": "alice",
        "stage": 0,
        "method": "generate",
        "status": "ok",
        "ttft_s": 0.1,
        "seconds": 0.3,
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "cpu_s": 0.25,
        "cost_usd": 0.001,
        "share": 0.6,
        "probability": 0.7,
        "prior": None,
        "claimed_usd": None,
        "basis": None,
        "error": None,
    }
    assert [second[name] for name in ("stage", "share", "cost_usd", "error")] == [1, 0.4, 0.002, "CutError"]


def test_text_is_kept_when_asked_for(url: str) -> None:
    with closing(Ledger(url, store_text=True)) as ledger:
        ledger.record(report(), ask("a\x00b \ud800 ü"), (), "ü\udfff", "ok", 0.4)
        assert [(row["question"], row["answer"]) for row in ledger.requests()] == [("a?b ? ü", "ü?")]


def test_an_expert_asked_twice_has_a_row_for_each_sample(ledger: Ledger) -> None:
    panel = (entry(ANSWERS[0], 0.6, 0.001), entry(ANSWERS[0], 0.4, 0.002))
    twice = Report("r", "max", "vote", panel, None, None, (), 0.003, 0.0)
    ledger.record(twice, ask(), (ANSWERS[0], ANSWERS[0], ANSWERS[0]), "4", "ok", 0.4)
    (request,) = ledger.requests()
    assert [(call["share"], call["cost_usd"]) for call in request["calls"]] == [
        (0.6, 0.001),
        (0.4, 0.002),
        (None, 0.001),
    ]


def test_a_request_id_is_recorded_once(ledger: Ledger) -> None:
    record(ledger, "twice")
    ledger.flush()
    for name in ("twice", "new", "new"):
        record(ledger, name, policy="max")
    assert counted(ledger) == (2, 4)
    assert [(row["request_id"], row["policy"]) for row in ledger.requests()] == [
        ("new", "max"),
        ("twice", "auto"),
    ]


@pytest.mark.parametrize(
    ("usage", "name", "outcomes"),
    [
        (Usage(prompt_tokens=10**30), "a", ()),
        (Usage(), "\ud800", ()),
        (Usage(), None, ()),
        (Usage(), "a", (Outcome("r", None, "ok", None, 0.0, 0, 1.0),)),  # type: ignore[arg-type]
        (Usage(), "a", (Outcome("r", "a", "ok", None, 0.0, 0, object()),)),  # type: ignore[arg-type]
    ],
    ids=["count", "surrogate", "call", "outcome", "object"],
)
def test_a_value_that_fits_no_column_costs_its_request_alone(
    ledger: Ledger, caplog: pytest.LogCaptureFixture, usage: Usage, name: str, outcomes: tuple[Outcome, ...]
) -> None:
    record(ledger, "before")
    answers = (*ANSWERS, Answer(name, "s", "ok", usage=usage))
    ledger.record(report("bad"), ask(), answers, "", "ok", 0.0, outcomes)
    record(ledger, "after")
    assert sorted(names(ledger)) == ["after", "before"]
    assert counted(ledger) == (2, 4)
    assert (ledger.status.written, ledger.status.dropped, ledger.status.error) == (2, 1, None)
    assert "A request was not recorded." in caplog.text
    assert "PROMPT" not in caplog.text
    assert "INSERT" not in caplog.text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_finite_number_is_refused(ledger: Ledger, value: float) -> None:
    for bad in (Usage(cost_usd=value), Usage(cpu_s=value)):
        with pytest.raises(LedgerError, match="finite"):
            ledger.record(report(), ask(), (Answer("x", "s", "ok", usage=bad),), "", "ok", 0.0)
    assert counted(ledger) == (0, 0)


def test_threads_may_share_it(ledger: Ledger) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: record(ledger, str(i)), range(200)))
    assert counted(ledger) == (200, 400)


def test_it_is_found_again_after_closing(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        record(ledger)
        ledger.close()
        with pytest.raises(LedgerError, match="closed"):
            record(ledger, "late")
    with closing(Ledger(url)) as again:
        assert counted(again) == (1, 2)


# --- queries ---------------------------------------------------------------------------------------


def test_the_newest_come_first(ledger: Ledger) -> None:
    for name in ("1", "2", "3"):
        record(ledger, name)
    assert [row["request_id"] for row in ledger.requests(2)] == ["3", "2"]
    assert [len(row["calls"]) for row in ledger.requests(2)] == [2, 2]


def test_many_requests_come_with_their_calls(ledger: Ledger) -> None:
    for i in range(1_100):
        record(ledger, str(i))
    assert counted(ledger) == (1_100, 2_200)


def test_requests_are_found_by_key_expert_status_and_time(ledger: Ledger) -> None:
    record(ledger, "1", key="k")
    ledger.record(report("2"), ask(), (Answer("c", "carol", "ok"),), "", "failed", 0.1)
    assert names(ledger, key="k") == names(ledger, expert="b") == names(ledger, status="ok") == ["1"]
    assert names(ledger, expert="c") == names(ledger, key="") == names(ledger, status="failed") == ["2"]
    assert names(ledger, key="k", expert="c") == []
    newest, oldest = (datetime.fromisoformat(row["at_utc"]) for row in ledger.requests())
    elsewhere = timezone(timedelta(hours=-9))
    assert names(ledger, since=oldest.astimezone(elsewhere), until=LATER) == ["2", "1"]
    assert names(ledger, since=newest + timedelta(milliseconds=1)) == []
    assert names(ledger, until=oldest) == []
    assert names(ledger, until=(newest + timedelta(milliseconds=1)).replace(tzinfo=None)) == ["2", "1"]


def test_totals_are_by_key_expert_policy_or_day(ledger: Ledger) -> None:
    record(ledger, "1", key="k")
    record(ledger, "2", key="l", policy="max")
    ledger.record(Report("3", "max", "pass", (), None, None, (), 0.0, 0.0), ask(), (), "", "failed", 0.1)
    day = ledger.requests()[0]["at_utc"][:10]
    figures = ("requests", "calls", "cost_usd", "prompt_tokens", "completion_tokens")

    def summed(by: Group, **which: object) -> dict[str, list[float]]:
        found = ledger.totals(by, **which)  # type: ignore[arg-type]
        return {row[by]: [row[name] for name in figures] for row in found}

    one = [1, 2, pytest.approx(0.003), 7, 2]
    assert summed("key") == {"": [1, 0, 0.0, 0, 0], "k": one, "l": one}
    assert summed("policy") == {"auto": one, "max": [2, *one[1:]]}
    assert summed("expert") == {
        "a": [2, 2, pytest.approx(0.002), 14, 4],
        "b": [2, 2, pytest.approx(0.004), 0, 0],
    }
    assert summed("day") == {day: [3, 4, pytest.approx(0.006), 14, 4]}
    assert summed("key", expert="a", key="k") == {"k": [1, 1, pytest.approx(0.001), 7, 2]}
    assert summed("day", until=datetime(2000, 1, 1, tzinfo=UTC)) == {}


NUMBERS = count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(costs=st.lists(st.decimals(0, 10, places=3).map(float), max_size=6))
def test_totals_are_the_sum_of_what_was_recorded(ledger: Ledger, costs: list[float]) -> None:
    key = f"k{next(NUMBERS)}"
    for i, cost_usd in enumerate(costs):
        answer = Answer("a", "alice", "ok", usage=Usage(3, cost_usd=cost_usd))
        one = Report(f"{key}-{i}", "auto", "pass", (), None, None, (), cost_usd, 0.0)
        ledger.record(one, ask(key=key), (answer,), "", "ok", 0.0)
    for by in ("key", "policy", "day", "expert"):
        rows = ledger.totals(by, key=key)
        assert sum(row["cost_usd"] for row in rows) == pytest.approx(math.fsum(costs))
        assert sum(row["prompt_tokens"] for row in rows) == 3 * len(costs)
        assert sum(row["requests"] for row in rows) == len(costs)


def test_what_is_old_is_pruned_with_all_that_belongs_to_it(ledger: Ledger) -> None:
    for i in range(600):
        record(ledger, str(i), key="k")
    ledger.lease("k", "2026-11", 5, 10)
    assert grade(ledger, "599", "k", 1.0) == "learnt"
    newest = datetime.fromisoformat(ledger.requests(1)[0]["at_utc"])
    assert ledger.prune(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert counted(ledger) == (600, 1_200)
    assert ledger.prune(newest + timedelta(milliseconds=1)) == 600
    assert counted(ledger) == (0, 0)
    assert ledger.totals("expert") == []
    assert grade(ledger, "599", "k", 1.0) == "unknown"
    assert ledger.leased("k", "2026-11") == 5
    record(ledger, "599", key="k")
    assert counted(ledger) == (1, 2)
    assert grade(ledger, "599", "k", 0.0) == "learnt"


# --- feedback --------------------------------------------------------------------------------------


def test_a_request_is_graded_by_its_own_key_once(ledger: Ledger) -> None:
    record(ledger, "1", key="k")
    assert grade(ledger, "1", "l", 1.0) == "unknown"
    assert grade(ledger, "2", "k", 1.0) == "unknown"
    assert grade(ledger, "1", "k", 0.25) == "learnt"
    assert grade(ledger, "1", "k", 1.0) == "twice"
