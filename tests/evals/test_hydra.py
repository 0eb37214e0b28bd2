"""A network that grows from the weakest models on, and what is said of it."""

import numpy as np
import pytest

from manyminds.evals import growth
from manyminds.evals.hydra import World, measure
from tests.learn.worlds import Mind, world

MINDS = [Mind(f"mind-{i}", skill) for i, skill in enumerate((0.35, 0.4, 0.45, 0.5, 0.7, 0.9))]


@pytest.fixture(scope="module")
def made() -> World:
    return World(world(MINDS, 300, seed=1), world(MINDS, 900, seed=2))


def test_it_grows_stronger_and_says_how(made: World) -> None:
    found = measure(made, orders=3, live=32)
    assert (found["models"], found["first"], found["steps"]) == (6, 2, 12)
    assert found["first_accuracy"] < 0.6
    assert found["final"]["mean"] >= 0.88
    assert found["passed"] == found["much_better"] > 0
    assert found["significant_losses"] <= 1
    assert sum(found["verdicts"].values()) == 12
    assert all(step["probes"] <= 64 for run in found["runs"] for step in run)
    for run in found["runs"]:
        assert {step["name"] for step in run} == {"mind-2", "mind-3", "mind-4", "mind-5"}
        assert [step["before"] for step in run[1:]] == [step["after"] for step in run[:-1]]
    ways = found["probing"]
    assert ways["random 8"]["probes"] == 8.0
    assert ways["adaptive"]["probes"] <= 64.0


def test_the_same_seed_gives_the_same_and_another_another_order() -> None:
    few = World(world(MINDS[:4], 60, seed=1), world(MINDS[:4], 60, seed=2))
    one, again, other = (measure(few, orders=1, live=0, seed=seed)["runs"] for seed in (0, 0, 3))
    assert one == again
    assert [step["name"] for step in one[0]] != [step["name"] for step in other[0]]


def test_it_is_drawn_from_the_first_network_to_the_last(made: World) -> None:
    run = [{"before": 0.5, "after": 0.6}, {"before": 0.6, "after": 0.7}]
    assert growth.growth(run, 4) == [(4, 0.5), (5, 0.6), (6, 0.7)]
    result = {"runs": [run, run], "first": 4, "all_at_once": 0.8}
    assert growth.draw(result, "toy", "png").startswith(b"\x89PNG")
    assert b"<svg" in growth.draw(result, "toy", "svg")


def test_who_lacks_answers_is_asked_others(made: World) -> None:
    minds = [*MINDS[:5], Mind("rare", 0.9, asked=0.3)]
    sparse = World(world(minds, 300, seed=1), world(minds, 900, seed=2))
    (run,) = measure(sparse, orders=1, live=0)["runs"]
    probes = {step["name"]: step["probes"] for step in run}
    assert 0 < probes["rare"] <= 64
    assert np.isfinite(run[-1]["after"])
