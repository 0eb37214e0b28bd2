"""How fast the gateway is on this machine, and its peers beside it; nothing is estimated."""

from manyminds.evals.speed.rounds import measure, soak

__all__ = ["measure", "soak"]
