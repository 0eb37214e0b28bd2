"""What a private token reveals: bounds that hold at every order, and that no search can pass."""

import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import PrivacyError
from manyminds.privacy.accounting import epsilon_of, most_rho
from manyminds.privacy.tokens import (
    LEAST_REACH,
    MOST_REACH,
    ORDERS,
    Floats,
    closeness_orders,
    draw,
    linear,
    linear_reach,
    linear_rho,
    linear_total,
    logarithmic,
    logarithmic_reach,
    logarithmic_rho,
    mixed,
    plan,
)

ROUNDING = 1e-9

# --- what is drawn at random -----------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)
REACHES = st.sampled_from([0.003, 0.01, 0.07, 0.3, 1.1])


def distributions(seed: int, rows: int, tokens: int) -> Floats:
    """Log-probabilities, from flat ones to such as leave out most tokens."""
    rng = np.random.default_rng(seed)
    logs = rng.normal(size=(rows, tokens)) * rng.choice([0.1, 1.0, 5.0, 30.0], size=(rows, 1))
    return normal(logs)


def normal(logs: Floats) -> Floats:
    logs = logs - logs.max(axis=-1, keepdims=True)
    found: Floats = logs - np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    return found


def divergence(p: Floats, q: Floats, order: float) -> float:
    """Rényi's, of weights that need not sum to 1."""
    p, q = p / p.sum(), q / q.sum()
    there = p > 0
    logs = order * np.log(p[there]) + (1 - order) * np.log(q[there])
    top = logs.max()
    return float((top + np.log(np.exp(logs - top).sum())) / (order - 1))


# --- mixing ----------------------------------------------------------------------------------------


@given(SEEDS, REACHES, st.sampled_from([3.0, 4.0, 7.0]), st.integers(2, 40))
@settings(deadline=None, max_examples=30)
def test_a_mixture_is_close_at_every_order(seed: int, reach: float, order: float, tokens: int) -> None:
    log_q, *log_p = distributions(seed, 4, tokens)
    mixtures, shares = mixed(log_q, np.array(log_p), reach, order)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert mixtures.sum(axis=1) == pytest.approx(1.0)
    q = np.exp(log_q)
    for mixture in mixtures:
        for a in np.linspace(1.001, 2 * order - 1, 60):
            assert divergence(mixture, q, a) <= reach * a + ROUNDING
        for a in np.linspace(2.001, 2 * order, 60):
            assert divergence(q, mixture, a) <= reach * a + ROUNDING


@given(SEEDS, REACHES, st.sampled_from([3.0, 4.0, 7.0]))
@settings(deadline=None, max_examples=40)
def test_no_larger_share_keeps_the_grid(seed: int, reach: float, order: float) -> None:
    log_q, *log_p = distributions(seed, 4, 12)
    q = np.exp(log_q)
    forward, backward = closeness_orders(order)
    for log_one, share in zip(log_p, mixed(log_q, np.array(log_p), reach, order)[1], strict=True):
        if share == 1.0:
            continue
        larger = min(1.0, share + 1e-6)
        mixture = larger * np.exp(log_one) + (1 - larger) * q
        kept = [divergence(mixture, q, b) <= reach * a for a, b in pairwise(forward)]
        kept += [divergence(q, mixture, b) <= reach * a for a, b in pairwise(backward)]
        assert not all(kept)


def test_without_a_share_it_is_the_public_model_and_with_all_the_source() -> None:
    log_q, log_p = distributions(5, 2, 9)
    assert mixed(log_q, log_p[None], 0.0, 4.0)[0][0] == pytest.approx(np.exp(log_q))
    assert mixed(log_q, log_q[None], 0.1, 4.0)[1] == [1.0]
    assert mixed(log_q, log_p[None], 1e6, 4.0)[0][0] == pytest.approx(np.exp(log_p))


# --- who did not answer ----------------------------------------------------------------------------


@given(SEEDS, REACHES)
@settings(deadline=None, max_examples=15)
def test_who_did_not_answer_counts_as_the_public_model(seed: int, reach: float) -> None:
    log_q, *log_p = distributions(seed, 4, 6)
    silent = np.array([*log_p, log_q, log_q])
    broken = np.array([*log_p, np.full(6, np.nan), np.full(6, -np.inf)])
    for kind in ("log", "lin"):
        expected = pooled(kind, log_q, silent, 5, reach, 4.0)
        assert pooled(kind, log_q, np.array(log_p), 5, reach, 4.0) == pytest.approx(expected, rel=1e-9)
        assert pooled(kind, log_q, broken, 5, reach, 4.0) == pytest.approx(expected, rel=1e-9)
        alone = pooled(kind, log_q, np.empty((0, 6)), 5, reach, 4.0)
        assert alone / alone.sum() == pytest.approx(np.exp(log_q))


@given(SEEDS, st.sampled_from([0.1, 1.0, 4.0]))
def test_the_order_of_sources_and_how_the_public_is_normalised_change_nothing(
    seed: int, reach: float
) -> None:
    log_q, *log_p = distributions(seed, 5, 8)
    rows = np.array(log_p)
    first = logarithmic(log_q, rows, 4, reach)
    assert logarithmic(log_q + 3.3, rows[::-1] - 1.7, 4, reach) == pytest.approx(first, rel=1e-9)


# --- what it costs ---------------------------------------------------------------------------------


def pooled(kind: str, log_q: Floats, rows: Floats, sources: int, reach: float, order: float) -> Floats:
    if kind == "log":
        return logarithmic(log_q, rows, sources, reach)
    return linear(log_q, rows, sources, reach, order)


def worst(rho: float, pools: tuple[Floats, Floats], order: float) -> float:
    """How much of what was paid two neighbours show, at the order where that is most. Above 1 is a breach."""
    shares = [
        divergence(p, q, a) / (rho * a)
        for p, q in (pools, pools[::-1])
        for a in (1.01, 1.3, 2.0, 3.0, 4.0, 6.0, 16.0, 64.0)
        if a <= order
    ]
    return max(shares)


def attack(kind: str, sources: int, reach: float, order: float, seed: int, steps: int = 120) -> float:
    """Climbs from random distributions to neighbours that are as different as can be."""
    rng = np.random.default_rng(seed)
    tokens = int(rng.integers(2, 6))
    rho = logarithmic_rho(reach, sources) if kind == "log" else linear_rho(reach, sources, order)

    def shown(logs: Floats) -> float:
        log_q, one, other, *rest = normal(logs)
        spread = np.array(rest)[np.arange(sources - 1) % len(rest)]
        rows = [np.vstack([spread, mine[None]]) for mine in (one, other)]
        here, there = (pooled(kind, log_q, each, sources, reach, order) for each in rows)
        return worst(rho, (here, there), order)

    here = rng.normal(size=(5, tokens)) * rng.choice([0.3, 2.0, 8.0])
    best = shown(here)
    for _ in range(steps):
        moved = here + rng.normal(size=here.shape) * rng.choice([3.0, 0.5, 0.05]) * (
            rng.random(here.shape) < 0.4
        )
        if (found := shown(moved)) > best:
            here, best = moved, found
    return best


@pytest.mark.parametrize(("sources", "reach"), [(1, 0.4), (2, 1.0), (8, 0.6), (8, 4.0), (100, 8.0)])
def test_no_search_passes_the_bound_of_the_logarithmic_pool(sources: int, reach: float) -> None:
    found = max(attack("log", sources, reach, np.inf, seed) for seed in range(6))
    assert found <= 1 + 1e-9
    if reach / sources < 0.1:
        assert found > 0.75  # and it is no bound that nobody can come near


@pytest.mark.parametrize(("sources", "reach"), [(1, 0.02), (2, 0.02), (8, 0.02), (32, 0.08)])
@pytest.mark.parametrize("order", [3.0, 6.0])
def test_no_search_passes_the_bound_of_the_linear_pool(sources: int, reach: float, order: float) -> None:
    found = max(attack("lin", sources, reach, order, seed, 30) for seed in range(2))
    assert 0 < found <= 1 + 1e-9


def test_closeness_up_to_the_same_order_only_would_not_do() -> None:
    """Why mixtures are kept close up to twice the order: else one source of one shows more than it pays."""
    # Two distributions whose divergences from q keep x*a at every order up to w alone, on opposite sides.
    w, x = 3.0, 0.2
    shown = 0.0
    for tail in np.geomspace(1e-6, 0.3, 60):
        q = np.array([1 - 2 * tail, tail, tail])
        up = _farthest(q, np.array([-1.0, 1.0, 0.0]), x, w)
        down = _farthest(q, np.array([1.0, -1.0, 0.0]), x, w)
        shown = max(shown, divergence(up, down, w) / (4 * x * w))
    assert shown > 1


def _farthest(q: Floats, way: Floats, reach: float, order: float) -> Floats:
    """The farthest from q that keeps both bounds up to `order` and no further."""
    low, high = 0.0, 60.0
    grid = np.linspace(1.01, order, 12)
    for _ in range(40):
        middle = (low + high) / 2
        m = q * np.exp(middle * way)
        m /= m.sum()
        kept = all(divergence(m, q, a) <= reach * a and divergence(q, m, a) <= reach * a for a in grid)
        low, high = (middle, high) if kept else (low, middle)
    m = q * np.exp(low * way)
    return np.asarray(m / m.sum())


@given(st.floats(1e-4, 0.3), st.integers(1, 300), st.sampled_from([3.0, 4.0, 9.0]))
def test_reach_and_price_are_each_others_inverse(rho: float, sources: int, order: float) -> None:
    assert logarithmic_rho(logarithmic_reach(rho, sources), sources) == pytest.approx(rho)
    assert linear_rho(linear_reach(rho, sources, order), sources, order) == pytest.approx(rho)


@given(st.floats(1e-3, 0.5), st.integers(1, 100), st.sampled_from([3.0, 4.0, 9.0]))
def test_the_price_of_a_linear_token_holds_at_lower_orders(reach: float, sources: int, order: float) -> None:
    rho = linear_rho(reach, sources, order)
    for a in np.linspace(1.01, order, 30):
        bound = np.log1p(np.expm1(4 * reach * a * (a - 1)) / sources) / (a - 1)
        assert bound <= rho * a * (1 + 1e-9)


# --- the account -----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(0.3, 4.0), st.integers(4, 100), st.integers(1, 60)), min_size=1, max_size=5)
)
@settings(deadline=None, max_examples=25)
def test_the_sum_of_prices_is_what_dp_accounting_makes_of_the_tokens(
    bought: list[tuple[float, int, int]],
) -> None:
    """Of the divergences of every token, at every order that it looks at."""
    rdp = pytest.importorskip("dp_accounting.rdp")
    total = sum(logarithmic_rho(reach, sources) * tokens for reach, sources, tokens in bought)
    orders = rdp.RdpAccountant()._orders
    curve = [sum(t * (4 * c / n) ** 2 / 8 * a for c, n, t in bought) for a in orders]
    assert epsilon_of(total, 1e-5) == pytest.approx(rdp.compute_epsilon(orders, curve, 1e-5)[0], rel=1e-6)


def test_with_fewer_orders_the_same_epsilon_buys_less() -> None:
    rdp = pytest.importorskip("dp_accounting.rdp")
    for epsilon, order in ((8.0, 4.0), (8.0, 16.0), (1.0, 32.0)):
        rho = linear_total(epsilon, 1e-5, order)
        orders = [a for a in ORDERS if a <= order]
        assert rdp.compute_epsilon(orders, [rho * a for a in orders], 1e-5)[0] <= epsilon
        assert 0 < rho <= most_rho(epsilon, 1e-5) * (1 + 1e-3)


@given(st.floats(0.5, 20), st.integers(1, 200), st.integers(1, 400))
@settings(deadline=None, max_examples=25)
def test_a_plan_keeps_what_was_asked_or_says_what_would_do(epsilon: float, sources: int, tokens: int) -> None:
    pytest.importorskip("dp_accounting")
    try:
        made = plan(epsilon, 1e-5, sources, tokens)
    except PrivacyError as error:
        numbers = re.search(
            r"need (\d+) sources .* and there are (\d+): .* at most (\d+) tokens", error.message
        )
        assert numbers is not None
        needed, there, most = map(int, numbers.groups())
        assert there == sources < needed
        assert plan(epsilon, 1e-5, needed, tokens).epsilon <= epsilon
        assert most < tokens
        if most:
            assert plan(epsilon, 1e-5, sources, most).epsilon <= epsilon
        return
    assert LEAST_REACH <= made.reach <= MOST_REACH
    assert made.epsilon <= epsilon
    assert made.epsilon == pytest.approx(epsilon_of(tokens * logarithmic_rho(made.reach, sources), 1e-5))
    if made.reach < MOST_REACH:
        assert made.epsilon == pytest.approx(epsilon, rel=1e-3)


# --- drawing ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=8), SEEDS)
def test_a_draw_has_exactly_the_share_of_its_weight(weights: list[float], seed: int) -> None:
    """It asks for one integer below the exact sum, and no float is rounded on the way."""
    total = sum(map(Fraction, weights))
    exact = [Fraction(w) / total for w in weights]

    def at(place: Fraction) -> Callable[[int], int]:
        return lambda stop: int(place * stop)

    below = Fraction(0)
    for position, share in enumerate(exact):
        assert draw(np.array(weights), at(below)) == position
        assert draw(np.array(weights), at(below + share * Fraction(999, 1000))) == position
        below += share
    assert 0 <= draw(np.array(weights), random.Random(seed).randrange) < len(weights)


def test_draws_are_distributed_as_their_weights() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.4, 1e-12])
    seeded = random.Random(11).randrange
    counts = Counter(draw(weights, seeded) for _ in range(20_000))
    chi2 = sum((counts[i] - 20_000 * w) ** 2 / (20_000 * w) for i, w in enumerate(weights[:4]))
    assert chi2 < 30  # three degrees of freedom: chance is below 1e-5
    assert counts[4] == 0
