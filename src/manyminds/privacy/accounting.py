"""What was spent of a source's privacy, and what that is worth in words: ρ of zCDP, epsilon and delta.

Two sets of sources are neighbours where one whole source is replaced by any other: all it is, all it says.
A mechanism is ρ-zCDP where the Rényi divergences between its outputs on neighbours are at most ρα, for all
orders α > 1 (Bun & Steinke 2016). ρ adds up over answers, also where what is asked next depends on the
answers before; a source that stops being polled before the sum passes its ρ has lost no more than that (a
Rényi filter; Feldman & Zrnic 2021, at the order that the conversion takes). `dp_accounting` converts.

Amounts of ρ are floats above 0 here. Whoever keeps sums of them rounds costs up.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from manyminds.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["epsilon_of", "most_rho"]

_STEPS = 60  # of a bisection: more than a double has bits between the ends
_MOST_RHO = 1e4
_UNIT = 1e9


@lru_cache(maxsize=1024)
def epsilon_of(rho: float, delta: float) -> float:
    """The least epsilon, as Rényi orders up to 1024 tell, of what is ρ-zCDP, at `delta` in (0, 1).

    Raises: ConfigError where dp-accounting is not installed.
    """
    if rho <= 0.0:
        return 0.0
    accounting = _accounting()
    account = accounting.rdp.RdpAccountant()
    account.compose(accounting.ZCDpEvent(rho))
    return float(account.get_epsilon(delta))


@lru_cache(maxsize=1024)
def most_rho(epsilon: float, delta: float) -> float:
    """The most ρ whose `epsilon_of` is no more than this, in whole billionths. Same errors.

    As the ledger counts; never rounded up, so that what costs no more fits into an account of as much.
    """
    low, high = 0.0, 1.0
    while high < _MOST_RHO and epsilon_of(high, delta) <= epsilon:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if epsilon_of(middle, delta) <= epsilon:
            low = middle
        else:
            high = middle
    return math.floor(low * _UNIT) / _UNIT or low


def _accounting() -> "ModuleType":
    """Importing it takes about a second: whoever answers others meanwhile does that in a thread."""
    try:
        import dp_accounting
    except ImportError as error:
        raise ConfigError(
            "Private answers need dp-accounting on this node: pip install 'manyminds[private]'."
        ) from error
    module: ModuleType = dp_accounting
    return module
