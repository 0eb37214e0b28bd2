"""Ways to ask, what they come to, and whom a byte is owed to."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[specialists]'")

from experiments.specialists import ways  # noqa: E402
from experiments.specialists.corpora import Document  # noqa: E402
from experiments.specialists.credit import owed  # noqa: E402
from experiments.specialists.measures import auc, by_domain, interval  # noqa: E402
from experiments.specialists.models import Size, Transformer  # noqa: E402
from experiments.specialists.network import PREFIX_BYTES  # noqa: E402
from experiments.specialists.scaling import fit  # noqa: E402
from experiments.specialists.scoring import _spans, distributions, excerpts, likelihoods  # noqa: E402

from manyminds.types import Call, Route  # noqa: E402

SIZE = Size(width=16, layers=1, heads=1, context=32)
SEEN = {name: np.log(np.random.default_rng(i).uniform(0.01, 0.9, (3, 80))) for i, name in enumerate("abc")}


def test_a_mixture_is_bayes_rule_and_a_switch_of_one_the_uniform_one() -> None:
    joint = np.cumsum(np.stack([SEEN[name] for name in "abc"], axis=-1), axis=1)
    direct = np.log(np.exp(joint).mean(axis=-1))
    assert np.allclose(np.cumsum(ways.asked(SEEN, "abc", 0.0), axis=1), direct)
    uniform = np.log(np.mean([np.exp(SEEN[name]) for name in "abc"], axis=0))
    assert np.allclose(ways.asked(SEEN, "abc", 1.0), uniform)


def test_routes_and_oracles_pick_their_experts() -> None:
    routes = [Route("max", "select", (Call(name, name, 0.5, share=1.0),)) for name in "bca"]
    expected = np.stack([SEEN[name][i] for i, name in enumerate("bca")])
    assert np.allclose(ways.routed(SEEN, routes), expected)
    assert np.array_equal(ways.oracle(SEEN, list("bca")), expected)
    assert np.allclose(ways.bits(expected), -expected[:, PREFIX_BYTES:].mean(axis=1) / math.log(2))


def test_a_switch_is_chosen_by_bits() -> None:
    steady = {"a": np.full((2, 200), -0.1), "b": np.full((2, 200), -5.0)}
    assert ways.chosen_switch([steady], "ab") == 0.0
    half = np.where(np.arange(200) < 120, -0.1, -5.0) * np.ones((2, 1))
    assert ways.chosen_switch([{"a": half, "b": -5.1 - half}], "ab") > 0.0


@given(st.integers(1, 90))
def test_each_byte_is_counted_once(length: int) -> None:
    told: list[int] = []
    for start, new in _spans(length, 32):
        told += range(start + new, min(start + 32, length))
    assert told == list(range(length))


def test_likelihoods_are_those_of_a_direct_look(tmp_path: Any) -> None:
    model = Transformer(SIZE, 0).eval()
    texts = [bytes(range(40, 70)), bytes(range(60, 90))]
    with torch.no_grad():
        found = likelihoods(model, texts, kept=tmp_path / "kept.npz")
        for text, row in zip(texts, found, strict=True):
            logits = model(torch.tensor([list(b"\0" + text)]))[0, :-1]
            direct = torch.log_softmax(logits.double(), -1)[range(len(text)), list(text)]
            assert np.allclose(row, direct.numpy(), atol=1e-5)
        told = distributions(model, texts, [0, 29])
    assert np.allclose([told[i, 1, text[29]] for i, text in enumerate(texts)], found[:, 29], atol=1e-5)
    assert np.array_equal(likelihoods(None, texts, kept=tmp_path / "kept.npz"), found)
    with pytest.raises(FileNotFoundError):
        likelihoods(None, texts, kept=tmp_path / "other.npz")


def test_excerpts_are_of_documents_that_are_long_enough() -> None:
    documents = {"a": [Document(str(i), b"line\n" * (10 * i)) for i in range(1, 9)]}
    found = excerpts(documents, 4, 100, 0)
    assert found == excerpts(documents, 4, 100, 0)
    assert len(found) == 4
    assert all(len(one.text) == 100 and int(one.name) >= 2 for one in found)


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_the_area_is_the_share_of_pairs(inside: list[int], outside: list[int]) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in inside for b in outside]
    assert auc(np.array(inside, float), np.array(outside, float)) == pytest.approx(sum(pairs) / len(pairs))


def test_an_interval_weighs_domains_alike() -> None:
    values = np.array([1.0, 1.0, 1.0, 3.0])
    found = interval(values, ["a", "a", "a", "b"])
    assert found == {"mean": 2.0, "low": 2.0, "high": 2.0}
    assert by_domain(values, ["a", "a", "a", "b"]) == {"a": 1.0, "b": 3.0}
    spread = interval(np.random.default_rng(0).normal(size=400), ["a"] * 200 + ["b"] * 200)
    assert spread["low"] < spread["mean"] < spread["high"]
    assert 0.1 < spread["high"] - spread["low"] < 0.3


def test_credit_goes_to_who_moves_the_next_byte() -> None:
    flat = np.full(256, -math.log(256))
    sure = np.log(np.full(256, 0.05 / 255))
    sure[65] = math.log(0.95)
    found = {
        one.source: one.share for one in owed("abc", np.array([0.3, 0.3, 0.4]), np.stack([flat, flat, sure]))
    }
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["c"] > 0.5 > found["a"]
    alike = owed("abc", np.full(3, 1 / 3), np.stack([sure, sure, sure]))
    assert sum(one.share for one in alike) == pytest.approx(1.0)


def test_a_power_law_is_found_again() -> None:
    specialists, weights = np.array([1, 2, 3, 6, 1, 6]), np.array([1e4, 1e4, 1e4, 1e4, 1e5, 1e5])
    found = fit(specialists, weights, 5.0 * specialists**-0.05 * weights**-0.1)
    assert found["specialists"]["exponent"] == pytest.approx(-0.05)
    assert found["weights"]["exponent"] == pytest.approx(-0.1)
    assert found["largest_error"] < 1e-9
