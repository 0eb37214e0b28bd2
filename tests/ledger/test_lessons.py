"""The log of outcomes: durable, in one order for all, and each once."""

from contextlib import closing
from datetime import UTC, datetime

from manyminds.ledger import Ledger
from manyminds.types import Answer, Outcome, Prior, Usage
from tests.changed import replace
from tests.ledger.samples import ANSWERS, ask, grade, report


def told(ledger: Ledger, request_id: str, *outcomes: Outcome) -> None:
    """A request with outcomes that came with it."""
    ledger.record(report(request_id), ask(key="k"), ANSWERS, "4", "ok", 0.4, outcomes)


def outcome(expert: str, correct: float, *voters: str, request_id: str = "r") -> Outcome:
    return Outcome(
        request_id, expert, "ok", None, 0.0, 0, correct, weight=0.1 if voters else 1.0, voters=voters
    )


def test_what_a_grade_says_of_each_call_is_durable_before_it_is_confirmed(url: str) -> None:
    with closing(Ledger(url)) as ledger, closing(Ledger(url)) as other:
        prior = Prior(0.625, "abc")
        answers = (replace(ANSWERS[0], prior=prior), ANSWERS[1])
        ledger.record(report("r"), ask(key="k"), answers, "4", "ok", 0.4)
        assert grade(ledger, "r", "k", 0.75) == "learnt"
        (found,) = other.graded(0, 10)
        assert replace(found, at_utc="", place=0) == Outcome("r", "a", "ok", None, 0.0, 0, 0.75, prior=prior)
        assert datetime.fromisoformat(found.at_utc) <= datetime.now(UTC)
        assert grade(other, "r", "k", 0.0) == "twice"
        assert other.graded(0, 10) == [found]


def test_a_key_is_learnt_from_so_many_times_a_day(ledger: Ledger) -> None:
    for i in range(4):
        told(ledger, str(i))
        assert grade(ledger, str(i), "k", 1.0, most=3) == ("learnt" if i < 3 else "kept")
    ledger.record(report("other"), ask(key="l"), ANSWERS, "4", "ok", 0.4)
    assert grade(ledger, "other", "l", 1.0, most=3) == "learnt"
    assert {found.request_id for found in ledger.graded(0, 100)} == {"0", "1", "2", "other"}


def test_the_log_is_read_from_a_place_on(ledger: Ledger) -> None:
    for i in range(6):
        told(ledger, str(i), outcome("a", i / 10, request_id=str(i)), outcome("b", 1.0, request_id=str(i)))
    ledger.flush()
    log = ledger.graded(0, 10)
    assert [found.place for found in log] == sorted(found.place for found in log)
    assert [found.correct for found in log if found.expert == "a"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert ledger.graded(log[7].place, 10) == log[8:]
    assert ledger.graded(0, 2) == [*log[-4:]]


def test_an_outcome_is_about_what_its_request_was(ledger: Ledger) -> None:
    for i, section in enumerate(("law", "maths", "")):
        asked = replace(ask(key="k"), section=section)
        ledger.record(report(str(i)), asked, ANSWERS, "4", "ok", 0.4, [outcome("a", 1.0, request_id=str(i))])
    ledger.flush()
    assert [found.section for found in ledger.graded(0, 10)] == ["law", "maths", ""]


def test_votes_do_not_push_out_what_somebody_said(ledger: Ledger) -> None:
    told(ledger, "0", outcome("a", 1.0, request_id="0"))
    for i in range(1, 6):
        told(ledger, str(i), outcome("a", 0.0, "a", "b", "c", request_id=str(i)))
    ledger.flush()
    found = ledger.graded(0, 2)
    assert [(one.request_id, one.weight) for one in found] == [("0", 1.0), ("4", 0.1), ("5", 0.1)]
    assert found[1].voters == ("a", "b", "c")


def test_places_are_never_given_again(ledger: Ledger) -> None:
    told(ledger, "old", outcome("a", 1.0, request_id="old"))
    ledger.flush()
    (before,) = ledger.graded(0, 10)
    assert ledger.prune(datetime(2100, 1, 1, tzinfo=UTC)) == 1
    told(ledger, "new", outcome("a", 1.0, request_id="new"))
    ledger.flush()
    (after,) = ledger.graded(before.place, 10)
    assert after.request_id == "new"


def test_a_gateway_hears_of_the_calls_of_others_only(url: str) -> None:
    spent = Usage(3, 9, cost_usd=0.004)
    mine, theirs = (
        Answer(name, name, "ok", "text", ttft_s=0.1, seconds=0.5, usage=spent, claimed_usd=0.001)
        for name in ("mine", "theirs")
    )
    with closing(Ledger(url)) as ledger, closing(Ledger(url)) as other:
        for i in range(3):
            ledger.record(report(f"m{i}"), ask(), (mine,), "", "ok", 0.5)
            other.record(report(f"t{i}"), ask(), (theirs,), "", "ok", 0.5)
        ledger.flush()
        other.flush()
        last, found = ledger.heard(0, 2)
        assert last == 6
        assert [one.request_id for one in found] == ["t1", "t2"]
        assert replace(found[0], place=0) == Outcome(
            "t1", "theirs", "ok", 0.1, 0.5, 9, cost_usd=0.004, claimed_usd=0.001
        )
        assert ledger.heard(found[0].place, 9) == (6, found[1:])
    with closing(Ledger(url)) as again:  # after a restart, what it did itself is news, too
        assert len(again.heard(0, 99)[1]) == 6


def test_a_named_expert_that_said_nothing_tells_nothing(ledger: Ledger, url: str) -> None:
    silent = Answer("a", "a", "cancelled", seconds=9.0)
    ledger.record(report("named", policy="pass"), ask(), (silent,), "", "cancelled", 9.0)
    ledger.record(report("panel"), ask(), (silent,), "", "cancelled", 9.0)
    ledger.flush()
    with closing(Ledger(url)) as other:
        assert [one.request_id for one in other.heard(0, 9)[1]] == ["panel"]
