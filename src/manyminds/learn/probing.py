"""Which questions to ask a newcomer next, and when enough is known of it: stratified, one by one.

Knows of each question whether the network answers it rightly and how sure it is, and of the newcomer what
it was told. Where the network is right the newcomer can only lose, where it is wrong only win; each probe
goes where its result is least certain and counts most (Neyman allocation), within the stratum at random, so
that what was asked stands for all questions. Source: Neyman 1934; stopping by the posterior of the gain.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

__all__ = ["MOST", "POOL", "Probing"]

MOST = 64
"""Probes at most, unless somebody says otherwise."""

POOL = 128
"""Questions that newcomers are asked of: whoever is to be taken in is asked all of them."""

_STRATA = 4
_ALIKE = ((0.5, 1.5), (1.5, 0.5))  # right and wrong answers assumed where the network is wrong, and right
_FEWEST, _FEWEST_WORSE = 8, 16  # probes before it may be found better, and worse
_EVERY = 4  # probes between two looks at whether enough is known: fewer looks, fewer false alarms
_SURE = 0.98  # posterior probability of a gain, or of none


class Probing:
    """The probes of one newcomer. Deterministic by seed.

    Args:
        right: (n,) whether the network answers each question rightly.
        chance: (n,) how likely it says that is.
        seed: of the order within strata.
        most: probes at most.
        sure: posterior probability at which it stops; above 1 never.
    """

    def __init__(
        self, right: "Bools", chance: "Floats", seed: int, most: int = MOST, sure: float = _SURE
    ) -> None:
        stratum = 2 * right.astype(np.int64) + (chance >= np.median(chance))
        self._share = np.bincount(stratum, minlength=_STRATA) / len(stratum)
        order = np.random.default_rng(seed).permutation(len(stratum))
        self._left = [[int(i) for i in order if stratum[i] == h] for h in range(_STRATA)]
        self._stratum, self._most, self._sure = stratum, most, sure
        self._asked: list[int] = []
        self._won = np.zeros(_STRATA)
        self._told = np.zeros(_STRATA)

    def next(self) -> int | None:
        """The position of the next question; None when enough is known, or nothing is left to ask."""
        told = len(self._asked)
        if told >= self._most or (told >= _FEWEST and told % _EVERY == 0 and self._is_clear()):
            return None
        _, variance = self._moments()
        worth = self._share**2 * variance / (self._told + 2.0)
        worth[[not left for left in self._left]] = -1.0
        h = int(worth.argmax())
        return self._left[h][-1] if worth[h] >= 0.0 else None

    def tell(self, position: int, correct: float) -> None:
        """What came of a question that `next` gave: in [0, 1]."""
        h = int(self._stratum[position])
        self._left[h].remove(position)
        self._asked.append(position)
        self._told[h] += 1.0
        self._won[h] += correct

    def skip(self, position: int) -> None:
        """The question could not be asked: another one stands for it."""
        self._left[int(self._stratum[position])].remove(position)

    @property
    def asked(self) -> "NDArray[np.intp]":
        """(k,) positions, in order of asking."""
        return np.array(self._asked, np.intp)

    @property
    def shares(self) -> "Floats":
        """(k,) of all questions that each one asked stands for; they sum to 1."""
        h = self._stratum[self.asked]
        each = self._share[h] / self._told[h]
        shares: Floats = each / each.sum()
        return shares

    @property
    def gain(self) -> tuple[float, float]:
        """Accuracy that the newcomer has over the network, were it asked alone: posterior mean, deviation."""
        mean, variance = self._moments()
        return float(self._share @ mean), math.sqrt(float(self._share**2 @ variance))

    def _moments(self) -> "tuple[Floats, Floats]":
        """(4,) posterior mean and variance of the gain, by stratum."""
        alike = np.array([_ALIKE[h // 2] for h in range(_STRATA)])
        won, lost = alike[:, 0] + self._won, alike[:, 1] + self._told - self._won
        share = won / (won + lost)
        ours = np.arange(_STRATA) // 2
        return share - ours, share * (1.0 - share) / (won + lost + 1.0)

    def _is_clear(self) -> bool:
        mean, deviation = self.gain
        better = 0.5 * (1.0 + math.erf(mean / (deviation * math.sqrt(2.0))))
        return better > self._sure or (better < 1.0 - self._sure and len(self._asked) >= _FEWEST_WORSE)
