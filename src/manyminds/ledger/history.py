"""What the ledger says of calls and grades of late, as plain rows for whoever rates experts.

Of who was withdrawn nothing counts that came before.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from manyminds.ledger.database import Database
from manyminds.ledger.tables import stamp
from manyminds.ledger.withdrawals import uncounted

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["calls", "grades", "policies"]


def calls(database: Database, windows: Sequence[timedelta], most: int) -> list[Any]:
    """The newest calls, so many at most: window, expert, status, error, ttft_s, seconds, prompt_tokens,
    completion_tokens, cost_usd, claimed_usd.

    `window` is the place of the shortest of `windows`, which rise, that the request is in up to now; what is
    in none is left out. One pass over an index of time.
    """
    import sqlalchemy as sa

    requests, of = database.tables.requests, database.tables.calls
    names = (*("expert", "status", "error", "ttft_s", "seconds"),)
    figures = (*("prompt_tokens", "completion_tokens", "cost_usd", "claimed_usd"),)
    window, since = _windows(requests.c.at_utc, windows)
    newest = (
        sa.select(window, *(of.c[name] for name in (*names, *figures)))
        .select_from(requests.join(of, requests.c.request_id == of.c.request_id))
        .where(requests.c.at_utc >= since, ~uncounted(database, of, requests.c.id))
        .order_by(requests.c.at_utc.desc())
        .limit(most)
    )
    return _rows(database, newest)


def grades(database: Database, windows: Sequence[timedelta], most: int) -> list[Any]:
    """What somebody who knew said of late: window, expert, section, correct."""
    import sqlalchemy as sa

    requests, outcomes = database.tables.requests, database.tables.outcomes
    window, since = _windows(outcomes.c.at_utc, windows)
    newest = (
        sa.select(window, outcomes.c.expert, sa.func.coalesce(requests.c.section, ""), outcomes.c.correct)
        .select_from(outcomes.join(requests, requests.c.request_id == outcomes.c.request_id))
        .where(outcomes.c.at_utc >= since, outcomes.c.voters == "")
        .where(~uncounted(database, outcomes, requests.c.id))
        .order_by(outcomes.c.at_utc.desc())
        .limit(most)
    )
    return _rows(database, newest)


def policies(database: Database, since: datetime) -> list[dict[str, Any]]:
    """By policy since then: requests, cost_usd, and of how many the caller said how right they were: graded,
    accuracy. O(requests since then).
    """
    import sqlalchemy as sa

    requests, said = database.tables.requests, database.tables.feedback
    every = sa.select(
        requests.c.policy,
        sa.func.count().label("requests"),
        sa.func.coalesce(sa.func.sum(requests.c.cost_usd), 0.0).label("cost_usd"),
        sa.func.count(said.c.request_id).label("graded"),
        sa.func.avg(said.c.correct).label("accuracy"),
    )
    every = every.select_from(requests.join(said, requests.c.request_id == said.c.request_id, isouter=True))
    every = every.where(requests.c.at_utc >= stamp(since))
    with database.read() as connection:
        found = connection.execute(every.group_by(requests.c.policy).order_by(requests.c.policy))
        return [dict(row) for row in found.mappings()]


def _rows(database: Database, wanted: "sa.Select[Any]") -> list[Any]:
    """As the driver has them: a row's names would take as long again."""
    with database.read() as connection:
        cursor = connection.execute(wanted).cursor
        assert cursor is not None
        return list(cursor.fetchall())


def _windows(at_utc: "sa.Column[Any]", windows: Sequence[timedelta]) -> "tuple[sa.ColumnElement[int], str]":
    """The place of the shortest window that a time is in, and when the longest begins."""
    import sqlalchemy as sa

    now = datetime.now(UTC)
    begins = [stamp(now - window) for window in windows]
    within: list[Any] = [(at_utc >= begin, sa.literal_column(str(i))) for i, begin in enumerate(begins)]
    return sa.case(*within, else_=sa.literal_column(str(len(begins)))), begins[-1]
