"""`manyminds bench network` as a person calls it."""

import json

from click.testing import CliRunner

from manyminds.cli import main


def test_a_scenario_that_needs_more_says_so() -> None:
    words = ["bench", "network", "--only", "best"]
    said = CliRunner().invoke(main, words)
    assert said.exit_code == 0
    assert "it needs a recorded set: give one by --set DIR" in said.stdout
    found = json.loads(CliRunner().invoke(main, [*words, "--seed", "7", "--json"]).stdout)
    assert found["seed"] == 7
    assert set(found) == {"asked", "seed", "best_killed"}
    assert set(found["best_killed"]) == {"skipped"}


def test_unknown_scenarios_are_refused() -> None:
    said = CliRunner().invoke(main, ["bench", "network", "--only", "flood"])
    assert said.exit_code == 2
    assert "'mesh', 'best', 'sites', 'prices', 'https'" in said.stderr
