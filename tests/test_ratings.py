"""Ratings: what rows of the ledger come to, by window."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.ratings import CallRow, GradeRow, Ratings, Section, rate
from manyminds.types import Card

HOUR, DAY, WEEK = range(3)
CARD = Card("a", "scripted", price_in_usd_per_m=1.0, price_out_usd_per_m=3.0)


def called(window: int = HOUR, expert: str = "a", status: str = "ok", **more: Any) -> CallRow:
    given = {
        "error": None,
        "ttft_s": 0.5,
        "seconds": 1.5,
        "read": 10,
        "written": 21,
        "cost": 7e-5,
        "claimed": 7e-5,
    }
    return (window, expert, status, *(given | more).values())


def rated(*calls: CallRow, grades: tuple[GradeRow, ...] = ()) -> Ratings:
    return rate([CARD], calls, grades)["a"]


def test_a_call_is_measured_in_every_window_that_it_is_in() -> None:
    found = rated(called(), called(DAY), called(WEEK), called(expert="b"))
    assert [found.hour.calls, found.day.calls, found.week.calls] == [1, 2, 3]
    figures = {
        "calls": 1,
        "uptime": 1.0,
        "ttft_p50_s": 0.5,
        "ttft_p95_s": 0.5,
        "tokens_per_s_p50": 20.0,
        "tokens_per_s_p95": 20.0,
        "usd_per_m": 7e-5 / 31 * 1e6,
        "claimed_usd_per_m": 73.0 / 31,
        "charged_ratio": 1.0,
        "graded": 0,
    }
    assert {name: getattr(found.hour, name) for name in figures} == pytest.approx(figures)
    assert (found.hour.errors, found.hour.accuracy, found.hour.sections) == ({}, None, ())


def test_whom_nobody_asked_has_no_figures() -> None:
    assert rated() == Ratings()
    assert rated(called(expert="b")) == Ratings()


def test_an_expert_is_measured_in_every_way_that_it_is_asked() -> None:
    calls = [called(), called(expert="a:cot"), called(expert="a:code"), called(expert="a:7b")]
    grades = ((HOUR, "a:cot", "law", 1.0), (HOUR, "a", "law", 0.0), (HOUR, "a:7b", "law", 0.0))
    found = rated(*calls, grades=grades)
    assert (found.hour.calls, found.hour.graded, found.hour.accuracy) == (3, 2, 0.5)
    both = rate([CARD, Card("a:cot", "openai")], calls, grades)
    assert [both[name].hour.calls for name in ("a", "a:cot")] == [2, 1]


def test_only_what_an_expert_failed_itself_counts_against_it() -> None:
    cut = called(status="cut", error="CutError")
    failed = [called(status="failed", error=kind, ttft_s=None) for kind in ("SlowError", "RefusedError")]
    cancelled = [called(status="cancelled", ttft_s=None)] * 5
    found = rated(called(), cut, called(status="late"), *failed, *cancelled).hour
    assert found.uptime == pytest.approx(2 / 5)
    assert found.errors == {"CutError": 1, "RefusedError": 1, "SlowError": 1}
    assert found.calls == 10
    assert rated(*cancelled).hour.uptime is None


def test_a_wrong_price_shows_and_so_do_tokens_that_nobody_wrote() -> None:
    dear = rated(called(cost=70e-5)).hour
    assert dear.usd_per_m == pytest.approx(70e-5 / 31 * 1e6)
    assert dear.charged_ratio == pytest.approx(10.0)
    inflated = rated(called(written=990, cost=298e-5)).hour
    assert inflated.usd_per_m == pytest.approx(inflated.claimed_usd_per_m)
    assert inflated.charged_ratio == pytest.approx(298 / 7)


def test_accuracy_goes_by_section() -> None:
    grades = ((HOUR, "a", "law", 1.0), (DAY, "a", "law", 0.0), (DAY, "a", "", 0.5), (HOUR, "b", "law", 1.0))
    found = rated(grades=grades)
    assert (found.hour.accuracy, found.hour.sections) == (1.0, (Section("law", 1.0, 1),))
    assert (found.day.accuracy, found.day.graded) == (0.5, 3)
    assert found.day.sections == (Section("law", 0.5, 2), Section("", 0.5, 1))


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.floats(0.0, 9.0)), max_size=40))
def test_no_expert_changes_another(rows: list[tuple[int, str, float]]) -> None:
    calls = [called(window, expert, ttft_s=ttft_s, seconds=9.0) for window, expert, ttft_s in rows]
    assert rated(*calls) == rated(*(row for row in calls if row[1] == "a"))
    assert rated(*calls[::-1]).week.ttft_p95_s == rated(*calls).week.ttft_p95_s
