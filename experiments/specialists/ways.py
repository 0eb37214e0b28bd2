"""How the experts of a network are asked for a text, and how many bits a byte each way takes.

Knows likelihoods, no model: experts are columns.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from experiments.specialists.network import PREFIX_BYTES
from experiments.specialists.scoring import Floats
from manyminds.combine.mixture import along
from manyminds.types import Route

__all__ = ["SWITCHES", "asked", "bits", "chosen_switch", "oracle", "routed"]

SWITCHES: Final = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03)
"""Chances that a text goes on as another expert's, of which validation chooses."""


def bits(logs: Floats) -> Floats:
    """(n,) bits for each byte behind the prefix, of (n, length) nats."""
    found: Floats = -logs[:, PREFIX_BYTES:].mean(axis=1) / math.log(2)
    return found


def asked(seen: Mapping[str, Floats], experts: Sequence[str], switch: float) -> Floats:
    """(n, length) nats of each byte by the Bayesian mixture of these experts, all of them alike at first.

    A switch of 1 is the uniform mixture: its weights never move.
    """
    stacked = np.stack([seen[name] for name in experts], axis=-1)
    return along(stacked, np.ones(len(experts)), switch).log_likelihoods


def routed(seen: Mapping[str, Floats], routes: Sequence[Route]) -> Floats:
    """(n, length) nats of each byte by the mixture of whom each text was routed to, by their shares."""
    rows = []
    for i, route in enumerate(routes):
        stacked = np.stack([seen[call.expert][i] for call in route.calls], axis=-1)
        rows.append(along(stacked, np.array([call.share for call in route.calls])).log_likelihoods)
    return np.stack(rows)


def oracle(seen: Mapping[str, Floats], experts: Sequence[str]) -> Floats:
    """(n, length) nats by the expert that each text, by its domain, belongs to."""
    return np.stack([seen[name][i] for i, name in enumerate(experts)])


def chosen_switch(texts: Sequence[Mapping[str, Floats]], experts: Sequence[str]) -> float:
    """That of `SWITCHES` with the fewest bits over these sets of texts, each of them as weighty."""
    return min(SWITCHES, key=lambda s: sum(float(bits(asked(seen, experts, s)).mean()) for seen in texts))
