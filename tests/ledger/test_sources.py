"""What answers owe to whom is kept with them, and summed by source and purpose."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from manyminds.admission import Budget
from manyminds.ledger import SCHEMA, Ledger
from manyminds.node.books import owed
from manyminds.types import Attribution, Granted, Journey, Limits
from tests.changed import replace
from tests.ledger.samples import ANSWERS, ask, counted, record, report


def keep(
    ledger: Ledger, name: str, purpose: str, *rows: Attribution, granted: tuple[Granted, ...] = ()
) -> None:
    made = replace(report(name), attribution=rows, **({"granted": granted} if granted else {}))
    query = replace(ask(), limits=Limits(purpose=purpose))
    ledger.record(made, query, ANSWERS, "4", "ok", 0.4)


def test_what_is_owed_is_summed_by_source_and_purpose(ledger: Ledger) -> None:
    keep(ledger, "r1", "care", Attribution("ann", 0.25, 0.5), Attribution("bob", 0.25, 0.5))
    keep(ledger, "r2", "care", Attribution("ann", 1.5, 1.0, estimated=True), Attribution("bob", 0.0, 0.0))
    keep(
        ledger,
        "r3",
        "",
        Attribution("ann", 0.5, 1.0),
        granted=(Granted("ann", nats=2.0), Granted("bob", nats=1.0)),
    )
    rows = ledger.sources()
    assert [(row["source"], row["purpose"], row["answers"]) for row in rows] == [
        ("ann", "", 1),
        ("ann", "care", 2),
        ("bob", "care", 1),
    ]
    assert [row["nats"] for row in rows] == pytest.approx([0.5, 1.75, 0.25])
    assert [row["shares"] for row in rows] == pytest.approx([1.0, 1.5, 0.5])
    assert [row["estimated"] for row in rows] == [0, 1, 0]
    assert ledger.sources(since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_another_node_s_purpose_counts_where_the_request_says_none(ledger: Ledger) -> None:
    made = replace(report("r1"), attribution=(Attribution("ann", 0.25, 1.0),))
    ledger.record(made, replace(ask(), journey=Journey(1.0, 1, ("n",), "care")), ANSWERS, "4", "ok", 0.4)
    assert [row["purpose"] for row in ledger.sources()] == ["care"]
    assert ledger.requests()[0]["purpose"] == "care"


def test_they_go_with_their_request(ledger: Ledger) -> None:
    keep(ledger, "r1", "care", Attribution("ann", 0.25, 1.0))
    ledger.flush()
    ledger.prune(datetime.now(UTC) + timedelta(hours=1))
    assert ledger.sources() == []


RECEIPT_TERMS = ("purpose", "max_share", "granted_nats", "settled_nats")


def test_schema_4_is_taken_over_whole(file: Path) -> None:
    with closing(Ledger(f"sqlite:///{file}")) as ledger:
        record(ledger, "r1")
        ledger.lease("k", "total", 40, 100)
    with closing(sqlite3.connect(file)) as raw:  # as it was
        raw.executescript(
            "DROP TABLE attributions; ALTER TABLE requests DROP COLUMN purpose;"
            + "".join(f"ALTER TABLE receipts DROP COLUMN {name};" for name in RECEIPT_TERMS)
            + "ALTER TABLE budgets RENAME COLUMN leased_units TO leased_nusd; UPDATE schema SET version = 4;"
        )
    with closing(Ledger(f"sqlite:///{file}")) as ledger:
        assert (ledger.leased("k", "total"), ledger.lease("k", "total", 100, 100)) == (40, 60)
        keep(ledger, "r2", "care", Attribution("ann", 0.25, 1.0))
        assert [row["source"] for row in ledger.sources()] == ["ann"]
        assert [row["purpose"] for row in ledger.requests()] == ["care", None]
        assert counted(ledger) == (2, 4)
    with closing(sqlite3.connect(file)) as raw:
        assert raw.execute("SELECT version FROM schema").fetchall() == [(SCHEMA,)]


def test_a_source_stands_beside_its_budget() -> None:
    rows = [
        {"source": "ann", "purpose": p, "answers": 1, "nats": 0.5, "shares": 0.25, "estimated": 0}
        for p in ("", "care")
    ]
    budgets = {name: Budget(f"source:{name}", name, 3.0, "total", "nats") for name in ("ann", "zoe")}
    ann, zoe = owed(rows, budgets, lambda account, _: 10**9 if account == "source:ann" else 0)
    assert (ann["answers"], ann["nats"], ann["budget_spent_nats"]) == (2, 1.0, 1.0)
    assert (zoe["answers"], zoe["budget_nats"], zoe["budget_spent_nats"]) == (0, 3.0, 0.0)
