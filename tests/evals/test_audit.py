"""The audit finds what is broken, and does not cry wolf."""

import json
import math
from random import Random

import pytest
from click.testing import CliRunner

from manyminds.cli import main
from manyminds.evals.audit import audit, epsilon_bound

RUNS = 600


def answers(random: Random, truth: float, runs: int) -> list[float]:
    return [float(random.random() < truth) for _ in range(runs)]


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_it_seldom_says_more_than_is_true(epsilon: float) -> None:
    """Randomised response tells exactly epsilon (Warner 1965): of 95% bounds, few may be above it."""
    random, truth = Random(7), math.exp(epsilon) / (1 + math.exp(epsilon))
    bounds = [
        epsilon_bound([answers(random, truth, 2000), answers(random, 1 - truth, 2000)], 0.0)
        for _ in range(60)
    ]
    assert sum(bound > epsilon for bound in bounds) <= 6
    assert max(bounds) > 0.7 * epsilon - 0.1  # and it comes near


def test_it_sees_what_cannot_be_told_apart_otherwise() -> None:
    assert epsilon_bound([[1.0] * 5000, [0.0] * 5000], 1e-6) > 6
    assert epsilon_bound([[1.0] * 5000, [1.0] * 5000], 1e-6) == 0.0


def test_a_delta_is_granted() -> None:
    """What happens with a chance below delta refutes nothing."""
    random = Random(3)
    seen = [answers(random, 0.05, 4000), [0.0] * 4000]
    assert epsilon_bound(seen, 0.0) > 2
    assert epsilon_bound(seen, 0.1) == 0.0


def test_what_is_sound_holds_and_what_is_broken_is_caught() -> None:
    found = audit(RUNS, 0, lambda what, share: None)
    assert found["failed"] == []
    broken = [row for row in found["games"] if not row["sound"]]
    assert {row["game"].partition(": ")[2] for row in broken} >= {"no noise", "weights that peek"}
    assert all(row["epsilon_at_least"] > row["epsilon"] for row in broken)
    assert all(row["epsilon_at_least"] <= row["epsilon"] for row in found["games"] if row["sound"])
    assert any("gateway" in row["game"] for row in found["games"])


def test_too_few_runs_catch_nobody_and_the_command_says_so() -> None:
    """With so few, a lower bound cannot come above any claim: the audit fails, and does not pass."""
    result = CliRunner().invoke(main, ["bench", "private", "--runs", "100", "--json"])
    assert result.exit_code != 0
    assert "The audit failed: broken: no noise" in result.output
    assert json.loads(result.stdout)["failed"]
