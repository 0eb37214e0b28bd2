"""Who was asked what, what it cost, how it ended, and what each key may spend: SQLite or PostgreSQL.

Knows nothing of how requests are answered. Importing it imports no database.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Final

from manyminds.errors import LedgerError
from manyminds.ledger import budgets, history, keys, lessons, pauses, queries, receipts, withdrawals
from manyminds.ledger.database import Database
from manyminds.ledger.queries import Filter, Grade, Group, Judge
from manyminds.ledger.receipts import Kept, Receipts, Role
from manyminds.ledger.records import Records, Rows, rows
from manyminds.ledger.tables import SCHEMA
from manyminds.ledger.withdrawals import Event, Gone, Withdrawal
from manyminds.ledger.writer import Backlog, Writer
from manyminds.types import Answer, Key, Outcome, Query, Report

__all__ = [
    "SCHEMA",
    "Backlog",
    "Event",
    "Gone",
    "Grade",
    "Group",
    "Judge",
    "Kept",
    "Ledger",
    "Role",
    "Withdrawal",
]

_RECEIPT_BYTES: Final = 500  # of memory, about, besides its document


class Ledger:
    """One database, which several processes and threads may use at once.

    `record` costs microseconds and never waits: what it takes is durable within `window_s`, or after
    `flush`. Everything else blocks, and is durable when it returns: call it in a thread.

    Raises: LedgerError, from every method, with one sentence on what to do.
    """

    def __init__(
        self, url: str, store_text: bool = False, *, busy_s: float = 5.0, window_s: float = 0.05
    ) -> None:
        """Opens it; makes what is missing, and takes older tables to the present schema.

        Args:
            url: `sqlite:///FILE`, made with its folder for its owner's eyes only, or `postgresql://...`.
            store_text: whether questions and answers are kept.
            busy_s: how long to wait for another process that is writing, or for a connection.
            window_s: for how long requests gather until they are written in one transaction. That many
                seconds of them are all that a crash can lose.
        """
        self._database = Database(url, busy_s)
        self._gateway = token_hex(6)  # what it records is told from what others do
        self._store_text = store_text
        self._busy_s = busy_s
        self._writer: Writer[Rows] = Writer(Records(self._database).write, window_s, drain_s=busy_s)
        self._receipts: Writer[Kept] = Writer(Receipts(self._database).write, window_s, drain_s=busy_s)

    @property
    def gateway(self) -> str:
        """As whom this one records."""
        return self._gateway

    # --- requests ---

    def record(
        self,
        report: Report,
        query: Query,
        answers: Sequence[Answer],
        text: str,
        status: str,
        seconds: float,
        outcomes: Sequence[Outcome] = (),
    ) -> None:
        """Takes a request with all its calls; of outcomes, those that somebody graded. Never blocks.

        While the database is away, requests wait in memory; see `status`. A request id is recorded once.

        `text` is the released answer; `status` is ok, cut, failed or cancelled; `seconds` is how long the
        whole request took.
        """
        figures = (report, query, answers, text, status, seconds, outcomes)
        taken = rows(*figures, gateway=self._gateway, store_text=self._store_text)
        self._writer.put(taken, taken.size_bytes)

    @property
    def status(self) -> Backlog:
        """How the writing goes."""
        return self._writer.backlog

    def flush(self, budget_s: float | None = None) -> None:
        """Blocks until what was recorded before is durable. Raises: LedgerError when `budget_s` is over."""
        self._writer.flush(budget_s)
        self._receipts.flush(budget_s)

    def close(self) -> None:
        """Writes what waits, as far as it can in `busy_s`, and lets go. Closing twice does no harm."""
        self._writer.close()
        self._receipts.close()
        self._database.close()

    def requests(
        self,
        limit: int = 20,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
        expert: str | None = None,
        status: str | None = None,
        request_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """The latest requests, newest first, each with its `calls`: since <= at < until."""
        self._settle()
        return queries.requests(self._database, limit, Filter(since, until, key, expert, status, request_id))

    def totals(
        self,
        by: Group,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        key: str | None = None,
        expert: str | None = None,
        status: str | None = None,
    ) -> list[dict[str, Any]]:
        """Sums by group: requests, calls, cost_usd, prompt_tokens, completion_tokens."""
        self._settle()
        return queries.totals(self._database, by, Filter(since, until, key, expert, status))

    def sources(
        self, *, since: datetime | None = None, until: datetime | None = None, key: str | None = None
    ) -> list[dict[str, Any]]:
        """See `queries.sources`: what answers owe to whom, by source and purpose."""
        self._settle()
        return queries.sources(self._database, Filter(since, until, key))

    def grade(self, request_id: str, key_id: str, correct: float, judge: Judge, most: int) -> Grade:
        """Keeps what the caller says of an answer, in [0, 1]: of a request of its key only, and once.

        With it, as outcomes, what `judge` makes of that; of so many grades of the key a day at `most`.
        """
        self._settle()
        return queries.grade(self._database, request_id, key_id, correct, judge, most)

    # --- between nodes ---

    def keep(self, kept: Kept) -> None:
        """Takes a receipt, as `record` takes a request; of one that is there, the countersigned counts."""
        self._receipts.put(kept, len(kept.document) + _RECEIPT_BYTES)

    def receipts(
        self,
        limit: int = 20,
        *,
        peer: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        request_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """See `receipts.receipts`: the latest, newest first."""
        self._settle()
        return receipts.receipts(
            self._database, limit, peer=peer, since=since, until=until, request_id=request_id
        )

    def owed(self, *, since: datetime | None = None, until: datetime | None = None) -> list[dict[str, Any]]:
        """See `receipts.owed`: sums by peer."""
        self._settle()
        return receipts.owed(self._database, since=since, until=until)

    # --- who was withdrawn ---

    def withdraw(self, said: Withdrawal) -> int:
        """See `withdrawals.note`: what is recorded of it by now teaches nobody from then on."""
        self._settle()
        return withdrawals.note(self._database, said)

    def withdrawals(self) -> list[dict[str, Any]]:
        """See `withdrawals.withdrawals`: all events, oldest first."""
        return withdrawals.withdrawals(self._database)

    def gone(self) -> Gone:
        """See `withdrawals.gone`: who is out."""
        return withdrawals.gone(self._database)

    def welcome(self, name: str, names: Sequence[str]) -> None:
        """Whoever is added under a name that was withdrawn is as new: nothing that was before counts."""
        if name in self.gone().experts:
            self.withdraw(Withdrawal("returned", name, "", tuple(names)))
        self.pause(name, "", pause=False)

    def asked(self) -> list[tuple[str, str]]:
        """Every expert that was ever asked, with its source then, but for ways of asking one. O(calls)."""
        return queries.asked(self._database)

    # --- who is paused ---

    def pause(self, name: str, source: str, *, pause: bool = True) -> bool:
        """See `pauses.turn`: nobody asks it, or it is asked again. False where that was so already."""
        return pauses.turn(self._database, name, source, pause=pause)

    def paused(self) -> frozenset[str]:
        """See `pauses.paused`: who is."""
        return pauses.paused(self._database)

    # --- what can be learnt ---

    def graded(self, after: int, each: int) -> list[Outcome]:
        """See `lessons.graded`: outcomes behind that place of their log."""
        return lessons.graded(self._database, after, each)

    def heard(self, after: int, most: int) -> tuple[int, list[Outcome]]:
        """See `lessons.heard`: calls that others than this one recorded, and how far the log goes."""
        return lessons.heard(self._database, after, self._gateway, most)

    def prune(self, before: datetime) -> int:
        """Deletes older requests with all that belongs to them. Returns how many. Budgets stay."""
        return queries.prune(self._database, before)

    # --- of late ---

    def calls(self, windows: Sequence[timedelta], most: int) -> list[Any]:
        """See `history.calls`: how calls went in windows of time up to now."""
        return history.calls(self._database, windows, most)

    def grades(self, windows: Sequence[timedelta], most: int) -> list[Any]:
        """See `history.grades`: how right answers were."""
        return history.grades(self._database, windows, most)

    def policies(self, since: datetime) -> list[dict[str, Any]]:
        """See `history.policies`: requests, costs and grades by policy."""
        self._settle()
        return history.policies(self._database, since)

    # --- keys ---

    def add_key(self, key: Key, digest: bytes) -> None:
        """Raises: LedgerError also when the id or the digest, the key's sha256, is taken."""
        keys.add(self._database, key, digest)

    def keys(self) -> dict[bytes, Key]:
        """Every key that is not revoked, by its digest."""
        return keys.valid(self._database)

    def update_key(self, key: Key) -> bool:
        """Changes what the key of that id allows. False where there is none, or it is revoked."""
        return keys.update(self._database, key)

    def revoke_key(self, key_id: str) -> bool:
        """Ends a key for ever. False where there is none, or it is revoked already."""
        return keys.revoke(self._database, key_id)

    # --- budgets, in billionths of a dollar or of a nat ---

    def lease(self, budget_id: str, period: str, want: int, limit: int) -> int:
        """See `budgets.lease`: what was granted, never more than the limit over all processes together."""
        return budgets.lease(self._database, budget_id, period, want, limit)

    def give_back(self, budget_id: str, period: str, units: int) -> None:
        """See `budgets.give_back`: once, and never again after an error."""
        budgets.give_back(self._database, budget_id, period, units)

    def leased(self, budget_id: str, period: str) -> int:
        """What all gateways have leased and not given back."""
        return budgets.leased(self._database, budget_id, period)

    def accounts(self, prefix: str) -> dict[str, int]:
        """See `budgets.accounts`: what was leased and not given back, by the rest of each id."""
        return budgets.accounts(self._database, prefix)

    def _settle(self) -> None:
        """What this process recorded shall be found; while it cannot be written, what is there is."""
        with suppress(LedgerError):
            self._writer.flush(self._busy_s)
            self._receipts.flush(self._busy_s)
