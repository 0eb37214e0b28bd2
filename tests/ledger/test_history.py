"""Rows for ratings: of late, each in the shortest window that it is in."""

from datetime import UTC, datetime, timedelta

from manyminds.ledger import Ledger
from manyminds.ledger.tables import stamp
from manyminds.types import Answer, Limits, Query, Usage
from tests.changed import replace
from tests.ledger.samples import ask, grade, report

WINDOWS = [timedelta(hours=1), timedelta(days=1)]


def told(ledger: Ledger, name: str, query: Query, ago: timedelta) -> None:
    """A request so long ago, which was graded then."""
    answer = Answer(name, "alice", "ok", "4", ttft_s=0.1, seconds=0.3, usage=Usage(7, 2, 0.0, 0.001))
    entry = replace(report().panel[0], expert=name)
    told = replace(report(name), panel=(entry,))
    ledger.record(told, query, (replace(answer, claimed_usd=0.002),), "4", "ok", 0.4)
    assert grade(ledger, name, "", 0.25) == "learnt"
    at_utc = stamp(datetime.now(UTC) - ago)
    with ledger._database.begin() as connection:
        for table in ("requests", "outcomes"):
            connection.exec_driver_sql(f"UPDATE {table} SET at_utc = '{at_utc}' WHERE request_id = '{name}'")


def test_calls_and_grades_are_told_by_window_with_their_section(ledger: Ledger) -> None:
    told(ledger, "new", replace(ask(), section="law"), timedelta(minutes=5))
    told(ledger, "older", replace(ask(), limits=Limits(topic="x" * 99)), timedelta(hours=5))
    told(ledger, "gone", ask(), timedelta(days=2))
    rest = ("ok", None, 0.1, 0.3, 7, 2, 0.001, 0.002)
    assert [tuple(row) for row in ledger.calls(WINDOWS, 9)] == [(0, "new", *rest), (1, "older", *rest)]
    assert [tuple(row) for row in ledger.calls(WINDOWS, 1)] == [(0, "new", *rest)]
    assert [tuple(row) for row in ledger.grades(WINDOWS, 9)] == [
        (0, "new", "law", 0.25),
        (1, "older", "x" * 64, 0.25),
    ]


def test_what_votes_said_is_no_grade(ledger: Ledger) -> None:
    told(ledger, "new", ask(), timedelta())
    with ledger._database.begin() as connection:
        connection.exec_driver_sql("UPDATE outcomes SET voters = '[]'")
    assert ledger.grades(WINDOWS, 9) == []
