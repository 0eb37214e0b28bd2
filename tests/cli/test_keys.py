"""`manyminds keys` and `manyminds ledger`, as a person calls them."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from manyminds.admission import digest
from manyminds.cli import main
from manyminds.ledger import Ledger
from tests.ledger.samples import record


@pytest.fixture
def home(here: Path) -> Path:
    return here / "home"


def manyminds(*words: str, **more: Any) -> Result:
    return CliRunner().invoke(main, words, **more)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(home: Path) -> None:
    limits = ("--requests-per-min", "7", "--budget-usd", "0.3", "--period", "day")
    made = manyminds("keys", "create", "ann", "--model", "a", "--model", "b*", *limits)
    secret = made.stdout.strip()
    assert (made.exit_code, secret[:3]) == (0, "mm-")
    assert secret not in made.stderr
    (listed,) = json.loads(manyminds("keys", "list", "--json").stdout)
    assert {**listed, "id": ""} == {
        "id": "",
        "name": "ann",
        "models": ["a", "b*"],
        "requests_per_min": 7,
        "tokens_per_min": None,
        "budget_usd": 0.3,
        "period": "day",
        "admin": False,
        "leased_usd": 0.0,
    }
    assert listed["id"] in made.stderr
    assert listed["id"] in manyminds("keys", "list").stdout
    with sqlite3.connect(home / "ledger.db") as file:
        kept = file.execute("select * from keys").fetchall()
    file.close()
    assert digest(secret) in kept[0]
    assert secret not in str(kept)


def test_an_administrator_is_shown_as_one(home: Path) -> None:
    made = json.loads(manyminds("keys", "create", "ann", "--admin", "--json").stdout)
    assert made["admin"] is True
    (listed,) = json.loads(manyminds("keys", "list", "--json").stdout)
    assert listed["admin"] is True
    (row,) = [line for line in manyminds("keys", "list").stdout.splitlines() if made["id"] in line]
    assert "yes" in row


def test_a_revoked_key_is_gone(home: Path) -> None:
    made = json.loads(manyminds("keys", "create", "ann", "--json").stdout)
    assert manyminds("keys", "revoke", made["id"]).exit_code == 0
    assert json.loads(manyminds("keys", "list", "--json").stdout) == []
    again = manyminds("keys", "revoke", made["id"])
    assert again.exit_code == 1
    assert "manyminds keys list" in again.stderr


@pytest.mark.parametrize("limit", [("--budget-usd", "-1"), ("--requests-per-min", "0"), ("--period", "year")])
def test_limits_that_make_no_sense_are_refused(home: Path, limit: tuple[str, str]) -> None:
    result = manyminds("keys", "create", "ann", *limit)
    assert result.exit_code == 2
    assert limit[0] in result.stderr


def test_the_ledger_is_shown_summed_and_pruned(home: Path) -> None:
    home.mkdir()
    ledger = Ledger(f"sqlite:///{home}/ledger.db")
    record(ledger, "r1", key="key_1")
    record(ledger, "r2")
    ledger.close()
    shown = json.loads(manyminds("ledger", "show", "--json").stdout)
    found = [(row["request_id"], row["key"], len(row["calls"])) for row in shown]
    assert found == [("r2", "", 2), ("r1", "key_1", 2)]
    mine = json.loads(manyminds("ledger", "show", "--key", "key_1", "--days", "1", "--json").stdout)
    assert [row["request_id"] for row in mine] == ["r1"]
    assert "r1" in manyminds("ledger", "show").stdout
    (by_key, mine_alone) = json.loads(manyminds("ledger", "totals", "--by", "key", "--json").stdout)
    assert (by_key["requests"], mine_alone["key"], mine_alone["calls"]) == (1, "key_1", 2)
    assert "key_1" in manyminds("ledger", "totals", "--by", "key").stdout
    assert manyminds("ledger", "prune", "--days", "0", input="n\n").exit_code == 1
    assert "2 requests" in manyminds("ledger", "prune", "--days", "0", "--yes").stderr
    assert json.loads(manyminds("ledger", "show", "--json").stdout) == []
