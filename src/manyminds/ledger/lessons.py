"""What can be learnt from the ledger: which calls were right, and how calls of other gateways went.

Both are read from a place on, for whoever has learnt what comes before it.
"""

import json
from typing import TYPE_CHECKING

from manyminds.ledger.database import Database
from manyminds.ledger.withdrawals import uncounted
from manyminds.types import Outcome, Prior

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["graded", "heard"]


def graded(database: Database, after: int, each: int) -> list[Outcome]:
    """Outcomes that were graded, in the order of the log, whose `place` is behind that one.

    Each has the section of its request, if that is here still. Of every expert the last `each` at most, of
    those that somebody judged and of those that votes did. None that touches who was withdrawn: see
    `withdrawals.uncounted`.
    """
    import sqlalchemy as sa

    table, requests = database.tables.outcomes, database.tables.requests
    kinds = (table.c.expert, table.c.voters == "")
    nth = sa.func.row_number().over(partition_by=kinds, order_by=table.c.id.desc()).label("nth")
    mine = table.outerjoin(requests, requests.c.request_id == table.c.request_id)
    section = sa.func.coalesce(requests.c.section, "").label("section")
    counted = ~uncounted(database, table, requests.c.id)
    last = sa.select(table, section, nth).select_from(mine).where(table.c.id > after, counted).subquery()
    with database.read() as connection:
        rows = connection.execute(sa.select(last).where(last.c.nth <= each).order_by(last.c.id)).all()
    return [_graded(row) for row in rows]


def _graded(row: "sa.Row[tuple[object, ...]]") -> Outcome:
    return Outcome(
        request_id=row.request_id,
        expert=row.expert,
        status="ok",
        ttft_s=None,
        seconds=0.0,
        completion_tokens=0,
        correct=row.correct,
        prior=None if row.prior is None else Prior(row.prior, row.basis or ""),
        weight=row.weight,
        voters=tuple(json.loads(row.voters)) if row.voters else (),
        at_utc=row.at_utc,
        place=row.id,
        section=row.section,
    )


def heard(database: Database, after: int, gateway: str, most: int) -> tuple[int, list[Outcome]]:
    """The last place of any request, and calls that other gateways recorded up to there, oldest first.

    Of their latest requests, up to `most` calls; `place` is their request's, behind that one. As of its own
    calls, nothing is heard of a named expert's that ended before its first token; nor of who was withdrawn.
    """
    import sqlalchemy as sa

    requests, calls = database.tables.requests, database.tables.calls
    of = requests.join(calls, requests.c.request_id == calls.c.request_id)
    newest = (
        sa.select(requests.c.id, calls)
        .select_from(of)
        .where(requests.c.id > after, sa.func.coalesce(requests.c.gateway, "") != gateway)
        .where(calls.c.ttft_s.is_not(None) | (requests.c.policy != "pass"))
        .where(~uncounted(database, calls, requests.c.id))
        .order_by(requests.c.id.desc(), calls.c.number.desc())
        .limit(most)
    )
    with database.read() as connection:
        last = connection.execute(sa.select(sa.func.max(requests.c.id))).scalar_one() or 0
        rows = connection.execute(newest.where(requests.c.id <= last)).all()
    return last, [_heard(row) for row in reversed(rows)]


def _heard(row: "sa.Row[tuple[object, ...]]") -> Outcome:
    return Outcome(
        request_id=row.request_id,
        expert=row.expert,
        status=row.status,
        ttft_s=row.ttft_s,
        seconds=row.seconds,
        completion_tokens=row.completion_tokens,
        cost_usd=row.cost_usd,
        claimed_usd=row.claimed_usd,
        place=row.id,
    )
