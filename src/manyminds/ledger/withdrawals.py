"""Who was withdrawn, and since when: nobody asks it, and what was recorded of it before teaches nobody.

What was recorded stays as it was. Of who is paused, see `pauses`, this keeps the
events, and no more. Knows no expert: names are texts.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from msgspec import Struct

from manyminds.ledger.database import Database
from manyminds.ledger.tables import stamp

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Event", "Gone", "Withdrawal", "gone", "note", "uncounted", "withdrawals"]

Event: TypeAlias = Literal["withdrawn", "dropped", "relearnt", "returned"]
"""Nobody asks it from then on; a gateway let it go; what was learnt is without it; it is asked, as new."""

_TURNS: Final = ("withdrawn", "returned")
_STILL: Final = ("dropped", "paused", "resumed")  # which change nothing of who was withdrawn


class Withdrawal(Struct, frozen=True):
    """One event of a withdrawal.

    Attributes:
        event: what happened.
        expert: by its name; "" is every expert of the source.
        source: whom it belonged to.
        names: all that outcomes call it: ways of asking it, too.
        who: "owner", the id of a node that revoked, or that of the gateway that let it go.
        document: what the node signed; "" where nobody did.
        answers: cached ones that were dropped.
        artefact_before, artefact_after: SHA-256 of what was learnt, "" where there is none.
        state: SHA-256 over all that is learnt after.
    """

    event: Event
    expert: str
    source: str
    names: tuple[str, ...] = ()
    who: str = "owner"
    document: str = ""
    answers: int = 0
    artefact_before: str = ""
    artefact_after: str = ""
    state: str = ""


class Gone(Struct, frozen=True):
    """How things stand.

    Attributes:
        last: place of the last event that changed it; 0 where there is none.
        experts: names that nobody may ask; sources: those of whom nobody may be asked. Nodes that withdrew
            themselves are not among them: their names are others' elsewhere.
        returned: when each that was withdrawn once came back, in seconds since 1970.
        documents: by node id the last that it signed.
    """

    last: int = 0
    experts: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    returned: dict[str, float] = {}
    documents: dict[str, str] = {}

    def has(self, name: str, source: str = "") -> bool:
        """Whether that expert was withdrawn, by its name or by its source."""
        return name in self.experts or (source or name) in self.sources


def note(database: Database, said: Withdrawal) -> int:
    """Writes it down with the time, how far the logs go, and in how much it had a part. Returns its place."""
    import sqlalchemy as sa

    tables = database.tables
    requests, calls, outcomes = tables.requests, tables.calls, tables.outcomes
    named = calls.c.expert.in_(said.names)
    values = {name: getattr(said, name) for name in said.__struct_fields__}
    values |= {"names": json.dumps(said.names), "at_utc": stamp()}
    values |= {
        "last_request": _one(sa.select(sa.func.coalesce(sa.func.max(requests.c.id), 0))),
        "last_outcome": _one(sa.select(sa.func.coalesce(sa.func.max(outcomes.c.id), 0))),
        "requests": _one(sa.select(sa.func.count(calls.c.request_id.distinct())).where(named)),
        "outcomes": _one(sa.select(sa.func.count()).where(_touches(database, outcomes, said.names))),
    }
    new = sa.insert(tables.withdrawals).values(**values).returning(tables.withdrawals.c.id)
    with database.begin() as connection:
        return int(connection.execute(new).scalar_one())


def withdrawals(database: Database) -> list[dict[str, Any]]:
    """All of them, oldest first, `names` as a list. They only grow, and are read anew when they have."""
    import sqlalchemy as sa

    table = database.tables.withdrawals
    with database.read() as connection:
        last, count = connection.execute(sa.select(sa.func.max(table.c.id), sa.func.count())).one()
        known, rows = database.withdrawals
        if known != (last, count):
            read = connection.execute(sa.select(table).order_by(table.c.id)).mappings().all()
            rows = [{**row, "names": json.loads(row["names"])} for row in read]
            database.withdrawals = (last, len(rows)), rows
    return list(rows)


def gone(database: Database) -> Gone:
    """How things stand now."""
    last = 0
    returned: dict[str, float] = {}
    documents: dict[str, str] = {}
    experts: set[str] = set()
    sources: set[str] = set()
    out: dict[str, set[str]] = {}  # by whom each was withdrawn who has not taken that back
    for row in withdrawals(database):
        if row["event"] not in _STILL:
            last = row["id"]
        if row["event"] not in _TURNS:
            continue
        at_s = datetime.fromisoformat(row["at_utc"]).timestamp()
        is_out = row["event"] == "withdrawn"
        if row["document"]:
            documents[row["who"]] = row["document"]
        elif not row["expert"]:
            sources = sources | {row["source"]} if is_out else sources - {row["source"]}
        names = _names(row)
        if not row["document"]:
            experts = experts | names if is_out else experts - names
        for name in names:
            if _held(out, name, row):
                returned.pop(name, None)
            else:
                returned[name] = at_s
    return Gone(last, frozenset(experts), frozenset(sources), returned, documents)


def uncounted(
    database: Database, log: "sa.FromClause", place: "sa.ColumnElement[int]"
) -> "sa.ColumnElement[bool]":
    """Whether a row teaches nothing, since who it is about, or one who voted for it, was withdrawn.

    Of who came back, what is of a request that was recorded by then. A withdrawal by source counts by the
    names that it was written down with.

    Args:
        database: whose withdrawals count.
        log: outcomes, with `voters` and `id`; or calls.
        place: of the row's request in their log; null where that is not there any more.
    """
    import sqlalchemy as sa

    turns: dict[str, tuple[str, int, int]] = {}
    out: dict[str, set[str]] = {}
    for row in withdrawals(database):
        if row["event"] in _TURNS:
            back = ("returned", row["last_request"], row["last_outcome"])
            for name in _names(row):
                turns[name] = ("withdrawn", 0, 0) if _held(out, name, row) else back
    since: dict[tuple[str, int, int], list[str]] = {}
    for name, turn in turns.items():
        since.setdefault(turn, []).append(name)
    found: list[sa.ColumnElement[bool]] = []
    for (event, last_request, last_outcome), names in sorted(since.items()):
        touches = _touches(database, log, names)
        if event == "withdrawn":
            found.append(touches)
            continue
        before = place <= last_request
        if "voters" in log.c:
            before = sa.or_(before, log.c.id <= last_outcome)
        found.append(sa.and_(touches, sa.func.coalesce(before, sa.false())))
    return sa.or_(*found) if found else sa.false()


def _names(row: Mapping[str, Any]) -> set[str]:
    return {row["expert"], *row["names"]} - {""}


def _held(out: dict[str, set[str]], name: str, row: Mapping[str, Any]) -> bool:
    """Whether it is out after this event: only who withdrew it can have it back. Changes `out`."""
    by = out.setdefault(name, set())
    if row["event"] == "withdrawn":
        by.add(row["who"])
    else:
        by.discard(row["who"])
    return bool(by)


def _touches(database: Database, log: "sa.FromClause", names: Sequence[str]) -> "sa.ColumnElement[bool]":
    """Whether a row is about one of these, or one of these voted for it, or it is a judgement of what only
    these had said: by that others were right or wrong who said something else.
    """
    import sqlalchemy as sa

    about = log.c.expert.in_(names)
    if "voters" not in log.c:
        return about
    array = sa.case((log.c.voters == "", "[]"), else_=log.c.voters)
    if database.engine.dialect.name == "sqlite":
        each = sa.func.json_each(array).table_valued("value").alias("voter")
    else:
        from sqlalchemy.dialects.postgresql import JSONB

        each = sa.func.jsonb_array_elements_text(sa.cast(array, JSONB)).table_valued("value").alias("voter")
    voted = sa.exists(sa.select(sa.literal(1)).select_from(each).where(each.c.value.in_(names)))
    theirs, others = database.tables.calls.alias("theirs"), database.tables.calls.alias("others")
    released = sa.exists().where(
        others.c.request_id == theirs.c.request_id,
        others.c.expert.not_in(names),
        others.c.status == "ok",
        others.c.probability >= theirs.c.probability,
    )
    alone = sa.exists().where(
        theirs.c.request_id == log.c.request_id,
        theirs.c.expert.in_(names),
        theirs.c.status == "ok",
        theirs.c.probability.is_not(None),
        ~released,
    )
    return sa.or_(about, sa.and_(log.c.voters != "", voted), sa.and_(log.c.voters == "", alone))


def _one(selected: "sa.Select[Any]") -> "sa.ScalarSelect[Any]":
    return selected.scalar_subquery()
