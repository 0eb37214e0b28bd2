"""What is told of costs is what dp-accounting says, on any schedule."""

import dp_accounting
import pytest
from dp_accounting import pld
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.admission.budget import nano
from manyminds.combine.private import GRAIN, variance_of
from manyminds.privacy.accounting import epsilon_of, most_rho

DELTAS = st.sampled_from([1e-3, 1e-5, 1e-6, 1e-9])


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.3, 50.0)), min_size=1, max_size=20), DELTAS)
def test_a_schedule_of_polls_costs_what_dp_accounting_says(
    polls: list[tuple[float, float]], delta: float
) -> None:
    """Each is a source's weight and the noise's deviation; another source in its place moves two counts."""
    account = dp_accounting.rdp.RdpAccountant()
    for weight, deviation in polls:
        account.compose(dp_accounting.GaussianDpEvent(deviation / (weight * 2**0.5)))
    rho = sum((weight / deviation) ** 2 for weight, deviation in polls)
    assert epsilon_of(rho, delta) == pytest.approx(account.get_epsilon(delta), rel=1e-9, abs=1e-12)


@settings(max_examples=10)
@given(st.lists(st.floats(0.001, 0.2), min_size=1, max_size=10), st.sampled_from([1e-5, 1e-6]))
def test_the_tightest_account_never_says_more(polls: list[float], delta: float) -> None:
    """Privacy loss distributions are exact where ours, by Rényi divergences, is a bound."""
    account = pld.PLDAccountant()
    for rho in polls:
        account.compose(dp_accounting.GaussianDpEvent((2 * rho) ** -0.5))
    assert account.get_epsilon(delta) <= epsilon_of(sum(polls), delta) + 1e-6


@given(st.floats(0.05, 20.0), DELTAS)
def test_as_much_as_an_epsilon_allows_and_no_more(epsilon: float, delta: float) -> None:
    rho = most_rho(epsilon, delta)
    assert epsilon_of(rho, delta) <= epsilon
    assert epsilon_of(rho * (1 + 1e-6) + 1e-12, delta) > epsilon * (1 - 1e-4)


@given(st.floats(0.05, 20.0), DELTAS)
def test_what_is_allowed_is_counted_whole(epsilon: float, delta: float) -> None:
    """In billionths, where the ledger rounds costs up: an answer may cost all of its source's account."""
    rho = most_rho(epsilon, delta)
    assert nano(rho) == round(rho * 1e9)
    assert nano(GRAIN * GRAIN / variance_of(rho)) <= nano(rho)


def test_nothing_costs_nothing() -> None:
    assert epsilon_of(0.0, 1e-6) == 0.0


def test_figures_of_the_literature() -> None:
    """513 answers at γ = .5, σ = 20, δ = 1e-5: 3.67 by Rényi orders."""
    assert epsilon_of(513 * (0.5 / 20) ** 2, 1e-5) == pytest.approx(3.67, abs=0.005)
