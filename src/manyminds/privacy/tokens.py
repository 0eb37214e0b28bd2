r"""Private next tokens: what many sources would say next, around what a public model would. Pure.

Every step, source i has a distribution p_i over the next token, the public model has q, and one token is
drawn from a pool P of all. Two runs are neighbours where one whole source was replaced by any other: every
p_i of it may be anything, at every token. A bound holds for whatever p_i is, so that everything that is made
of p_i and q alone before the bound is a part of the source: cutting to the tokens that q thinks likeliest,
a temperature, "it did not answer" (then p_i counts as q). How many are polled, N, is fixed beforehand.

**Currency.** A token costs each polled source rho: the Rényi divergence of the two neighbouring
distributions is at most rho * a, both ways, at every order a in (1, w]. That adds up over tokens, also where
q, p_i and the end of the answer depend on the tokens already drawn (adaptive composition; Mironov 2017).
To stop early is to look at what was released. `dp_accounting` converts the sum to (epsilon, delta).

**Logarithmic pool** (`logarithmic`; InvisibleInk, Vinod et al. 2025, arXiv 2507.02974). With r_i = ln(p_i/q)
clipped to [-c, c], P is proportional to q * exp(mean r_i). Another source i moves the mean by at most 2c/N at
each token, so that f = ln(P/P') stays in an interval of length h = 4c/N. Let K(s) = ln E_P'[exp(s f)]. Then
K(0) = K(1) = 0, and K'' is the variance of something within an interval of length h: at most h^2/4. So
h^2/8 * s(s-1) - K(s) is convex in s and 0 at 0 and 1, thus not negative for s > 1, and

    D_a(P||P') = K(a)/(a-1) <= h^2/8 * a,    rho = h^2/8 = 2 c^2/N^2,    at every order: w is infinite.

(Bounded range: Dong, Durfee, Rogers 2020; Cesar, Rogers 2021.)

**Linear pool** (`linear`; PMixED, Flemings et al. 2024, arXiv 2403.15638). P is the mean of
m_i = l_i p_i + (1-l_i) q, with the largest l_i for which m_i is close to q: D_a(m_i||q) <= x a for a in
(1, 2w-1] and D_a(q||m_i) <= x a for a in (2, 2w]. For another m of the same kind and a <= w

    D_a(m_i||m) <= (a-1/u)/(a-1) D_ua(m_i||q) + D_v(a-1/u)(q||m),    1/u + 1/v = 1    (Mironov 2017, prop. 11)

where u = (2a-1)/a makes 2a/(2a-1) of the factor, and 2a-1 and 2a of the orders on the right. Each term is
then at most 2xa, and the sum 4xa (Bun, Steinke 2016, prop. 27 with k = 2). So it takes closeness up to twice
the order: closeness up to w says nothing of order w. exp((a-1) D_a) is jointly convex, and the other N-1
distributions are the same on both sides:

    D_a(P||P') <= ln((N-1 + exp(4 x a (a-1)))/N)/(a-1),    rho = that at w, divided by w,

as ln E[exp(sX)]/s, here with s = a(a-1), never falls with s. The mean over N thus saves a factor N at best,
and the logarithmic pool N^2. `docs/log.md` has what that is worth.

**Rounding.** Weights are float64. `draw` reads them as the exact fractions that they are and draws with
exact integers, so a token's probability is its float64 weight over the exact sum. The weights differ from
those above by a relative error below 1e-12 each; `_SLACK` pays for it.

**Not covered**: how long a source takes, and whether an answer ends at its deadline. Whoever can measure that
learns something of the slowest source. The gateway, which sees all p_i, is trusted.
"""

import math
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from manyminds.errors import PrivacyError
from manyminds.privacy.accounting import epsilon_of, most_rho
from manyminds.privacy.noise import Below

__all__ = [
    "LEAST_REACH",
    "MOST_REACH",
    "ORDERS",
    "Floats",
    "Plan",
    "closeness_orders",
    "draw",
    "linear",
    "linear_reach",
    "linear_rho",
    "linear_total",
    "logarithmic",
    "logarithmic_reach",
    "logarithmic_rho",
    "mixed",
    "plan",
]

Floats: TypeAlias = NDArray[np.float64]

ORDERS: Final[tuple[float, ...]] = (*(1 + i / 10 for i in range(1, 100)), *(float(i) for i in range(11, 65)))
"""At which the linear pool's sum is converted: those up to its w."""

LEAST_REACH: Final = 0.5
"""Nats. With less, an answer would be the public model's: no odds of two tokens change by more than e."""

MOST_REACH: Final = 4.0
"""Nats. More was never better by 0.02 nats a token: the rest of the budget is left for other answers."""

_SLACK: Final = 1e-9  # of a log-ratio of weights, for their rounding: a thousand times what there can be
_FLOOR: Final = -600.0  # of a log-probability: its weight is no zero yet
_HALVINGS: Final = 26


class Plan(Struct, frozen=True):
    """What one answer of at most `tokens` may use of each of its `sources`.

    `rho` is for one token. A source pays for those that were drawn: the limit of its budget is fixed
    beforehand, so when to stop may depend on what was released (Rényi filter; Feldman, Zrnic 2021).
    `epsilon` is that of all `tokens`, at most what was asked for.
    """

    sources: int
    tokens: int
    reach: float
    rho: float
    epsilon: float
    delta: float

    def weights(self, public: Floats, private: Floats) -> Floats:
        """See `logarithmic`."""
        return logarithmic(public, private, self.sources, self.reach)


def logarithmic(public: Floats, private: Floats, sources: int, reach: float) -> Floats:
    """Weights of the logarithmic pool.

    Args:
        public: (v,) log-probabilities, finite; how they are normalised does not matter.
        private: (m, v) of the m <= `sources` that answered. -inf is fine; a row with a NaN is no answer.
        sources: how many were polled, N.
        reach: c, how far a log-ratio may go, in nats.

    Returns:
        (v,) above 0, at most exp(c) times apart from the public ones. Not normalised.
    """
    log_q = _normal(public)
    ratios = np.clip(_answers(private) - log_q, -reach, reach)
    weights: Floats = np.exp(np.maximum(log_q, _FLOOR) + ratios.sum(axis=0) / sources)
    return weights


def logarithmic_rho(reach: float, sources: int) -> float:
    """What a token costs each source polled."""
    return (4 * reach / sources + _SLACK) ** 2 / 8


def logarithmic_reach(rho: float, sources: int) -> float:
    """The farthest that a token for `rho` may reach, in nats; 0 where that is none."""
    return max(0.0, (math.sqrt(8 * rho) - _SLACK) * sources / 4)


def plan(epsilon: float, delta: float, sources: int, tokens: int) -> Plan:
    """The farthest reach with which an answer of so many tokens stays within (epsilon, delta).

    Raises:
        PrivacyError: That is no reach worth its name; says what would do.
        ConfigError: dp-accounting is not installed.
    """
    total = most_rho(epsilon, delta) * (1 - 1e-9)  # for the rounding of sums
    rho = total / max(tokens, 1)
    reach = min(logarithmic_reach(rho, sources), MOST_REACH)
    if reach < LEAST_REACH or tokens < 1:
        most = int(total / logarithmic_rho(LEAST_REACH, max(sources, 1)))
        needed = math.ceil(LEAST_REACH * 4 / max(math.sqrt(8 * rho) - _SLACK, 1e-9))
        raise PrivacyError(
            f"{tokens} tokens at epsilon {epsilon:g} and delta {delta:g} need {needed} sources that can be"
            f" polled, and there are {sources}: with those, at most {most} tokens are possible.",
            param="max_tokens",
        )
    rho = logarithmic_rho(reach, sources)
    return Plan(sources, tokens, reach, rho, epsilon_of(rho * tokens, delta), delta)


def linear(public: Floats, private: Floats, sources: int, reach: float, order: float) -> Floats:
    """Weights of the linear pool; arguments as in `logarithmic`, where `reach` is x and `order` w."""
    log_q = _normal(public)
    q = np.exp(log_q)
    mixtures, _ = mixed(log_q, _answers(private), reach, order)
    weights: Floats = (mixtures.sum(axis=0) + (sources - len(mixtures)) * q) / sources
    return weights


def linear_rho(reach: float, sources: int, order: float) -> float:
    """What a token costs each source polled, at every order up to `order`."""
    s = order * (order - 1)
    return float(np.log1p(np.expm1(4 * reach * s) / sources) / s)


def linear_reach(rho: float, sources: int, order: float) -> float:
    """The inverse of `linear_rho`."""
    s = order * (order - 1)
    return float(np.log1p(np.expm1(rho * s) * sources) / (4 * s))


def closeness_orders(order: float) -> tuple[Floats, Floats]:
    """Of D(m||q), and of D(q||m): a grid from 1 to 2w-1, and one from 2 to 2w.

    D_a never falls with a. So D_b <= x a at neighbours a < b of a grid says D <= x * order between them.
    """
    steps = np.arange(1, 33) / 32
    return np.concatenate(([1.0], (2 * order - 1) ** steps)), np.concatenate(([2.0], 2 * order**steps))


def mixed(log_q: Floats, log_p: Floats, reach: float, order: float) -> tuple[Floats, Floats]:
    """Each source's distribution, with as little of the public one as makes it close to that.

    Args:
        log_q: (v,) normalised, finite.
        log_p: (m, v) normalised.
        reach: x.
        order: w, the highest that is accounted for.

    Returns:
        (m, v) distributions, and (m,) the shares l in [0, 1] that are the sources' own.
    """
    q, p = np.exp(log_q), np.exp(log_p)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratios = np.where(q > 0, np.exp(log_p - log_q), 0.0)
    low, high = np.zeros(len(p)), np.ones(len(p))
    low[_close(q, ratios, high, reach, order)] = 1.0
    left = np.flatnonzero(low < 1.0)
    for _ in range(_HALVINGS if len(left) else 0):
        # What is close stays so with less of it: D is convex in the share, and 0 at 0.
        middle = (low[left] + high[left]) / 2
        fits = _close(q, ratios[left], middle, reach, order)
        low[left], high[left] = np.where(fits, middle, low[left]), np.where(fits, high[left], middle)
    return low[:, None] * p + (1 - low)[:, None] * q, low


def _close(q: Floats, ratios: Floats, shares: Floats, reach: float, order: float) -> NDArray[np.bool_]:
    """(m,) whether the mixtures with these shares keep every bound."""
    forward, backward = closeness_orders(order)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        log_ratio = np.log(shares[:, None] * ratios + (1 - shares)[:, None])
        fits = np.ones(len(ratios), dtype=bool)
        for grid, sign in ((forward, 0.0), (backward, -1.0)):
            for a, b in pairwise(grid.tolist()):
                # D_b(m||q) = ln(sum q (m/q)^b)/(b-1); D_b(q||m) has the exponent 1-b
                exponent = b if sign == 0.0 else 1.0 - b
                moment = np.exp(exponent * log_ratio) @ q
                fits &= np.log(moment) <= reach * a * (b - 1)
    return fits


def linear_total(epsilon: float, delta: float, order: float) -> float:
    """The most that one source may pay in all for (epsilon, delta), where orders up to `order` are known."""
    from dp_accounting import rdp

    orders = [a for a in ORDERS if a <= order]
    low, high = 0.0, max(epsilon, 1.0)
    for _ in range(60):
        middle = (low + high) / 2
        found, _ = rdp.compute_epsilon(orders, [middle * a for a in orders], delta)
        low, high = (middle, high) if found <= epsilon else (low, middle)
    return low


def draw(weights: Floats, below: Below) -> int:
    """One position, with exactly its weight's share of the exact sum of all weights, none of which is 0."""
    fractions = [weight.as_integer_ratio() for weight in weights.tolist()]
    scale = max(denominator for _, denominator in fractions)
    left = below(sum(n * (scale // d) for n, d in fractions))
    for position, (numerator, denominator) in enumerate(fractions):
        left -= numerator * (scale // denominator)
        if left < 0:
            return position
    raise AssertionError("what is drawn is below the sum")


def _normal(logs: Floats) -> Floats:
    """Log-probabilities that sum to 1, by row."""
    top = np.max(logs, axis=-1, keepdims=True)
    normal: Floats = logs - top - np.log(np.exp(logs - top).sum(axis=-1, keepdims=True))
    return normal


def _answers(private: Floats) -> Floats:
    """The rows that are distributions, normalised."""
    whole = ~np.isnan(private).any(axis=1) & (private.max(axis=1, initial=-np.inf) > -np.inf)
    return _normal(private[whole & (private.max(axis=1, initial=-np.inf) < np.inf)])
