"""A finished request as rows, and the rows of many in one transaction.

Keeps figures and names; questions and answers only when told to, and of errors only their kind, since
messages may quote a prompt.
"""

import json
import logging
import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from manyminds.errors import LedgerError
from manyminds.ledger.database import Database
from manyminds.ledger.tables import stamp
from manyminds.ledger.trouble import explain, is_passing
from manyminds.types import Answer, Outcome, PanelEntry, Query, Report

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Records", "Rows", "outcome_row", "rows"]

_SECTION_CHARS: Final = 64
_ROW_BYTES: Final = 500  # of memory, about, without the texts

log = logging.getLogger(__name__)

_Row = tuple[Any, ...]


class Rows(Struct, frozen=True):
    """One request, as tuples in the order of the tables' columns."""

    request: _Row
    calls: Sequence[_Row]
    attributions: Sequence[_Row]
    outcomes: Sequence[_Row]

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        texts = sum(len(text) for text in self.request[-2:] if text)
        rows = 1 + len(self.calls) + len(self.attributions) + len(self.outcomes)
        return _ROW_BYTES * rows + 4 * texts


class Records:
    """Writes requests to a database, each with all its rows or not at all, and each once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        tables = database.tables
        every = (tables.requests, tables.calls, tables.attributions, tables.outcomes)
        self._insert = [database.compiled(database.insert(table)) for table in every]

    def write(self, batch: Sequence[Rows]) -> int:
        """Makes them durable, but for those with a value that no column holds: returns how many.

        A request whose id is there already is left as it is: writing twice does no harm.

        Raises: LedgerError when the database is away; the batch may be written again.
        """
        try:
            if self._write(batch):
                return 0
        except Exception as error:
            if is_passing(error):
                raise explain(error, self._database.where) or error from None
        return sum(not self._write_one(rows) for rows in batch)

    def _write(self, batch: Sequence[Rows]) -> bool:
        """Writes all, or nothing: False where one is there already."""
        requests, calls, attributions, outcomes = self._insert
        with self._database.engine.begin() as connection:
            # Tuples past the compiler: half the time. Drivers take them from any iterable of rows.
            new = connection.exec_driver_sql(requests, [rows.request for rows in batch]).rowcount
            if new < len(batch):
                connection.rollback()
                return False
            _execute(connection, calls, chain.from_iterable(rows.calls for rows in batch))
            _execute(connection, attributions, chain.from_iterable(rows.attributions for rows in batch))
            _execute(connection, outcomes, chain.from_iterable(rows.outcomes for rows in batch))
        return True

    def _write_one(self, rows: Rows) -> bool:
        try:
            self._write([rows])
        except Exception as error:
            explained = explain(error, self._database.where) or error
            if is_passing(error):
                raise explained from None
            log.error("A request was not recorded. %s", explained)
            return False
        return True


def rows(
    report: Report,
    query: Query,
    answers: Sequence[Answer],
    text: str,
    status: str,
    seconds: float,
    outcomes: Sequence[Outcome],
    *,
    gateway: str,
    store_text: bool,
) -> Rows:
    """A request as rows. Raises: LedgerError for an amount that is no finite number."""
    name, at_utc = report.request_id, stamp()
    request = (
        name,
        at_utc,
        query.key.id if query.key else "",
        report.policy,
        report.strategy,
        status,
        seconds,
        report.cost_usd,
        report.saved_usd,
        report.probability,
        report.agreement,
        _clean((query.section or query.limits.topic)[:_SECTION_CHARS]),
        gateway,
        _clean(query.limits.purpose or (query.journey.purpose if query.journey else "")),
        _clean(query.question) if store_text else None,
        _clean(text) if store_text else None,
    )
    calls = _calls(report, answers)
    amounts = seconds + report.cost_usd + report.saved_usd
    for call in calls:
        amounts += call[8] + call[11] + call[12] + (call[16] or 0.0)
    if not math.isfinite(amounts):  # one would make every sum over it useless
        raise LedgerError("The ledger cannot hold a value: a cost or a time is no finite number.")
    graded = [outcome_row(name, i, o, at_utc) for i, o in enumerate(outcomes) if o.correct is not None]
    return Rows(request, calls, _attributions(report), graded)


def outcome_row(request_id: str, number: int, outcome: Outcome, at_utc: str) -> _Row:
    """One that was graded; `number` tells those of a request apart."""
    prior = outcome.prior
    return (
        request_id,
        number,
        outcome.expert,
        outcome.correct,
        outcome.weight,
        prior.probability if prior else None,
        prior.basis if prior else None,
        json.dumps(sorted(outcome.voters)) if outcome.voters else "",
        at_utc,
    )


def _calls(report: Report, answers: Sequence[Answer]) -> list[_Row]:
    """A row for each answer, with the share, probability and cost that its line of the panel showed."""
    if len(answers) == len(report.panel) == 1:
        return [_call(report.request_id, 0, answers[0], report.panel[0])]
    lines: dict[tuple[str, int, str], list[PanelEntry]] = {}
    for entry in reversed(report.panel):
        lines.setdefault((entry.expert, entry.stage, entry.method), []).append(entry)
    rows = []
    for number, answer in enumerate(answers):
        same = lines.get((answer.expert, answer.stage, answer.method))
        rows.append(_call(report.request_id, number, answer, same.pop() if same else None))
    return rows


def _attributions(report: Report) -> list[_Row]:
    """What it owes to each source that has a part in it, or might have had a certain one."""
    if not report.granted:
        return [
            (report.request_id, i, owed.source, owed.divergence, owed.share, int(owed.estimated), None)
            for i, owed in enumerate(report.attribution)
        ]
    nats = {line.source: line.nats for line in report.granted if not line.refused}
    rows = [
        (owed.source, owed.divergence, owed.share, int(owed.estimated), nats.pop(owed.source, None))
        for owed in report.attribution
    ]
    rows += [(source, 0.0, 0.0, 0, most) for source, most in nats.items() if most is not None]
    return [(report.request_id, i, *row) for i, row in enumerate(rows)]


def _call(name: str, number: int, answer: Answer, line: PanelEntry | None) -> _Row:
    usage = answer.usage
    return (
        name,
        number,
        answer.expert,
        answer.source,
        answer.stage,
        answer.method,
        answer.status,
        answer.ttft_s,
        answer.seconds,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cpu_s,
        line.cost_usd if line else usage.cost_usd,
        line.weight if line else None,
        line.correct_probability if line else None,
        answer.prior.probability if answer.prior else None,
        answer.claimed_usd,
        answer.prior.basis if answer.prior else None,
        type(answer.error).__name__ if answer.error else None,
    )


def _execute(connection: "sa.Connection", statement: str, rows: Iterable[_Row]) -> None:
    if every := list(rows):
        connection.exec_driver_sql(statement, every)


def _clean(text: str) -> str:
    """What JSON may carry and a database may not: lone surrogates and NUL become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "?")
