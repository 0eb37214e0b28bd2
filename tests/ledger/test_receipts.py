"""Receipts, on either database: kept once, replaced by the same one countersigned, and summed up."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manyminds.ledger import SCHEMA, Kept, Ledger
from tests.changed import replace
from tests.ledger.samples import record

AT = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
ONE = Kept(
    ask="ask-1",
    role="asked",
    peer="bob",
    request_id="r1",
    at_s=AT.timestamp() + 0.125,
    prompt_tokens=7,
    completion_tokens=3,
    price_usd=0.3,
    countersigned=False,
    document='{"payload":"x"}',
)


def keep(ledger: Ledger, *every: Kept) -> None:
    for one in every:
        ledger.keep(one)


def asks(rows: list[dict[str, Any]]) -> list[str]:
    return [row["ask"] for row in rows]


def test_a_receipt_is_kept_as_it_is(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        keep(ledger, ONE)
    with closing(Ledger(url)) as ledger:
        assert ledger.receipts() == [
            {
                "ask": "ask-1",
                "role": "asked",
                "peer": "bob",
                "request_id": "r1",
                "at_utc": "2027-01-15T08:00:00.125+00:00",
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "price_nusd": 300_000_000,
                "countersigned": 0,
                "document": '{"payload":"x"}',
                "purpose": "",
                "max_share": None,
                "granted_nats": None,
                "settled_nats": None,
            }
        ]


@pytest.mark.parametrize("apart", [True, False], ids=["later", "in one batch"])
def test_the_same_one_countersigned_takes_its_place(ledger: Ledger, apart: bool) -> None:
    both = replace(ONE, countersigned=True, document="both")
    keep(ledger, ONE)
    if apart:
        ledger.flush()
    keep(ledger, both, ONE, ONE)
    (row,) = ledger.receipts()
    assert (row["countersigned"], row["document"]) == (1, "both")


@pytest.mark.parametrize(
    "change", [{"price_usd": 0.1}, {"peer": "eve"}, {"at_s": ONE.at_s + 1}, {"completion_tokens": 1}]
)
def test_another_one_of_the_same_ask_does_not(ledger: Ledger, change: dict[str, Any]) -> None:
    """Who asks chooses an ask's id: by a cheap answer of the same one, a dear one would be forgotten."""
    keep(ledger, ONE)
    ledger.flush()
    keep(ledger, replace(ONE, countersigned=True, document="other", **change))
    kept = [row for row in ledger.receipts() if row["document"] == ONE.document]
    assert [(row["countersigned"], row["price_nusd"]) for row in kept] == [(0, 300_000_000)]


def test_both_roles_of_one_ask_are_kept(ledger: Ledger) -> None:
    """As where two nodes have one ledger."""
    keep(ledger, ONE, replace(ONE, role="answered", peer="ann"))
    assert {(row["role"], row["peer"]) for row in ledger.receipts()} == {
        ("asked", "bob"),
        ("answered", "ann"),
    }


def test_the_latest_that_are_asked_for_are_shown(ledger: Ledger) -> None:
    for i in range(10):
        peer, request_id = ("bob", "r1") if i % 2 else ("eve", f"q{i}")
        keep(ledger, replace(ONE, ask=f"a{i}", at_s=ONE.at_s + i, peer=peer, request_id=request_id))
    assert asks(ledger.receipts(3)) == ["a9", "a8", "a7"]
    assert asks(ledger.receipts(peer="eve", limit=2)) == ["a8", "a6"]
    assert asks(ledger.receipts(request_id="q4")) == ["a4"]
    since, until = AT + timedelta(seconds=2.125), AT + timedelta(seconds=5.125)
    assert asks(ledger.receipts(since=since, until=until)) == ["a4", "a3", "a2"]
    assert asks(ledger.receipts(since=since.replace(tzinfo=None), until=until)) == ["a4", "a3", "a2"]
    assert ledger.receipts(peer="nobody") == []


def test_what_is_owed_is_summed_by_peer_and_role(ledger: Ledger) -> None:
    for i in range(3):
        keep(ledger, replace(ONE, ask=f"a{i}", countersigned=i == 0, price_usd=0.1))
    keep(ledger, replace(ONE, ask="b", role="answered", price_usd=0.7))
    keep(ledger, replace(ONE, ask="c", peer="ann", price_usd=1e-9, at_s=ONE.at_s + 60))
    keep(ledger, replace(ONE, ask="d", peer="ann", price_usd=0.0, at_s=ONE.at_s + 60))
    sums = [
        (
            row["peer"],
            row["role"],
            row["answers"],
            row["price_usd"],
            row["countersigned"],
            row["countersigned_usd"],
        )
        for row in ledger.owed()
    ]
    assert sums == [
        ("ann", "asked", 2, 1e-9, 0, 0.0),
        ("bob", "answered", 1, 0.7, 0, 0.0),
        ("bob", "asked", 3, 0.3, 1, 0.1),
    ]
    assert [row["prompt_tokens"] for row in ledger.owed()] == [14, 7, 21]
    later = ledger.owed(since=AT + timedelta(seconds=30))
    assert [(row["peer"], row["answers"]) for row in later] == [("ann", 2)]
    assert ledger.owed(until=AT) == []


@pytest.mark.parametrize("apart", [True, False], ids=["later", "in one batch"])
def test_what_was_settled_is_added_and_stays(ledger: Ledger, apart: bool) -> None:
    both = replace(ONE, countersigned=True, document="both", granted_nats=0.5, purpose="law", max_share=0.2)
    for one in (replace(both, countersigned=False), replace(both, settled_nats=0.3), both):
        keep(ledger, one)
        if apart:
            ledger.flush()
    (row,) = ledger.receipts()
    terms = (row["purpose"], row["max_share"], row["granted_nats"], row["settled_nats"])
    assert (row["countersigned"], *terms) == (1, "law", 0.2, 0.5, 0.3)


def test_what_was_granted_is_summed_by_purpose(ledger: Ledger) -> None:
    granted = replace(ONE, role="answered", purpose="law", granted_nats=0.5, countersigned=True)
    keep(ledger, granted, replace(granted, ask="b", settled_nats=0.125))
    keep(ledger, replace(granted, ask="c", purpose="", granted_nats=None))
    sums = [(row["purpose"], row["granted_nats"], row["settled_nats"]) for row in ledger.owed()]
    assert sums == [("", 0.0, 0.0), ("law", 1.0, 0.625)]  # what nobody settled counts whole


def test_schema_4_had_no_terms(url: str) -> None:
    import sqlalchemy as sa

    with closing(Ledger(url)) as ledger:
        keep(ledger, ONE)
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as raw:
        for name in ("purpose", "max_share", "granted_nats", "settled_nats"):
            raw.exec_driver_sql(f"ALTER TABLE receipts DROP COLUMN {name}")
        raw.exec_driver_sql("ALTER TABLE requests DROP COLUMN purpose")
        raw.exec_driver_sql("UPDATE schema SET version = 4")
    engine.dispose()
    with closing(Ledger(url)) as ledger:
        assert asks(ledger.receipts()) == ["ask-1"]
        assert [row["purpose"] for row in ledger.owed()] == [""]
        keep(ledger, replace(ONE, ask="b", purpose="law", granted_nats=1.0))
        assert {row["purpose"]: row["granted_nats"] for row in ledger.owed()} == {"": 0.0, "law": 1.0}


def test_what_no_column_holds_costs_no_other_receipt(ledger: Ledger) -> None:
    keep(ledger, ONE, replace(ONE, ask="far", at_s=1e300), replace(ONE, ask="dear", price_usd=1e300))
    keep(ledger, replace(ONE, ask="last"))
    ledger.flush()
    assert set(asks(ledger.receipts())) == {"ask-1", "last"}


def test_receipts_outlive_the_requests_that_are_pruned(ledger: Ledger) -> None:
    record(ledger, "r1")
    keep(ledger, ONE)
    ledger.flush()
    assert ledger.prune(datetime(2100, 1, 1, tzinfo=UTC)) == 1
    assert asks(ledger.receipts()) == ["ask-1"]


def test_schema_3_had_none(url: str) -> None:
    import sqlalchemy as sa

    with closing(Ledger(url)) as ledger:
        record(ledger, "r1", key="k")
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as raw:
        raw.exec_driver_sql("DROP TABLE receipts")
        raw.exec_driver_sql("DROP TABLE attributions")
        raw.exec_driver_sql("ALTER TABLE requests DROP COLUMN purpose")
        raw.exec_driver_sql("UPDATE schema SET version = 3")
    with closing(Ledger(url)) as ledger:
        assert [row["request_id"] for row in ledger.requests()] == ["r1"]
        assert ledger.receipts() == []
        keep(ledger, ONE)
        assert asks(ledger.receipts()) == ["ask-1"]
    with engine.begin() as raw:
        assert raw.exec_driver_sql("SELECT version FROM schema").scalar_one() == SCHEMA
    engine.dispose()


def test_a_receipt_is_as_durable_as_a_request(file: Path) -> None:
    with closing(Ledger(f"sqlite:///{file}", window_s=60)) as ledger:
        keep(ledger, ONE)
    with closing(Ledger(f"sqlite:///{file}")) as ledger:
        assert asks(ledger.receipts()) == ["ask-1"]
