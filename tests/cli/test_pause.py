"""`experts pause` and `resume`: kept, shown, and told apart from who is not there."""

import json
from pathlib import Path

import pytest

from tests.cli.test_eval import call

TWO = "".join(f'[[expert]]\nname = "{n}"\nurl = "http://127.0.0.1:9/v1"\n' for n in ("near", "far"))


@pytest.fixture
def two(home: Path) -> Path:
    (home / "manyminds.toml").write_text(TWO)
    return home


def paused() -> list[str]:
    shown = json.loads(call("experts", "list", "--json").stdout)["experts"]
    return [card["name"] for card in shown if card["paused"]]


def test_who_is_paused_is_shown_until_it_is_resumed(two: Path) -> None:
    done = call("experts", "pause", "far", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [{"name": "far", "paused": True}])
    again = call("experts", "pause", "far", "near")
    assert again.exit_code == 0
    assert "far is paused: nobody asks it, as it was." in again.stderr
    assert "All experts are paused now" in again.stderr
    assert paused() == ["far", "near"]
    assert "`manyminds experts resume far`" in call("experts", "list").stderr
    assert call("experts", "resume", "near", "far", "far").exit_code == 0
    assert paused() == []
    events = [row["event"] for row in json.loads(call("ledger", "withdrawals", "--json").stdout)]
    assert events == ["paused", "paused", "resumed", "resumed"]
    assert "as it was" in call("ledger", "withdrawals").stdout


def test_a_name_that_nobody_has_changes_nothing(two: Path) -> None:
    done = call("experts", "pause", "far", "nera")
    assert done.exit_code == 1
    assert "No expert is named 'nera'. Did you mean near" in done.stderr
    assert paused() == []


def test_events_are_json_a_line_and_so_is_what_goes_wrong(two: Path) -> None:
    done = call("experts", "add", "http://127.0.0.1:9/v1", "--events")
    assert done.exit_code == 1
    (event,) = map(json.loads, done.stdout.splitlines())
    assert (event["event"], "127.0.0.1:9" in event["message"]) == ("error", True)
    assert call("experts", "add", "--discover", "--events").exit_code == 2
