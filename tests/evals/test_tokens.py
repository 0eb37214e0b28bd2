"""What private tokens are worth, measured with a real model."""

import asyncio

import numpy as np
import pytest

from manyminds.evals.packs.translation import WHEEL
from manyminds.evals.packs.wheels import path_of
from manyminds.evals.tokens import Recorded, compare, most_tokens, record
from tests import pulled

pytest.importorskip("dp_accounting")


def test_with_more_sources_private_comes_nearer_to_what_is_not() -> None:
    rng = np.random.default_rng(3)
    public = np.log(rng.dirichlet(np.ones(30), size=12))
    true = rng.integers(0, 30, size=12)
    private = np.repeat(public[None], 40, axis=0) + rng.normal(size=(40, 12, 30)) * 0.3
    private[:, np.arange(12), true] += 2.0  # what all of them know
    few, many = (compare(Recorded(public, private, true), n, 50, 8.0, 1e-5) for n in (8, 40))
    assert few["public"] == pytest.approx(many["public"])
    for found in (few, many):
        assert found["not_private"]["logarithmic"] <= found["logarithmic"]["nats"] < found["public"]
        assert all(found["logarithmic"]["nats"] < each["nats"] < found["public"] for each in found["linear"])
    assert many["logarithmic"]["nats"] < few["logarithmic"]["nats"]


def test_true_tokens_that_nobody_may_say_are_left_out() -> None:
    public = np.log(np.full((3, 4), 0.25))
    found = compare(Recorded(public, public[None], np.array([0, -1, 2])), 1, 10, 8.0, 1e-5)
    assert found["public"] == pytest.approx(np.log(4))
    assert found["one_source"] == pytest.approx(np.log(4))


def test_four_times_the_sources_say_sixteen_times_as_much() -> None:
    few, many = (most_tokens(n, 8.0, 1e-5) for n in (8, 32))
    assert many["least_reach"] == pytest.approx(16 * few["least_reach"], rel=0.01)


def test_a_real_model_is_recorded() -> None:
    pulled.need("smollm2-135m")
    if not path_of(WHEEL, pulled.HOME / "packs").exists():
        pytest.skip(f"{WHEEL.requirement} is not in {pulled.HOME}: `manyminds bench tokens` brings it")
    found = asyncio.run(record(pulled.HOME, 1, 1, 1))
    assert found.public.shape == found.private[0].shape == (len(found.true), 1000)
    assert (np.diff(found.public) <= 0).all()
    assert (found.private <= 0).all()
    assert np.mean(found.true >= 0) > 0.7
