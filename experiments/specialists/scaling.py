"""How quality moves with the number of specialists and their size, and a fit of it. Trains nothing."""

import math
from typing import Any

import numpy as np

from experiments.specialists import ways
from experiments.specialists.measures import by_domain
from experiments.specialists.models import parameters
from experiments.specialists.plan import GROUPS
from experiments.specialists.scoring import Floats
from experiments.specialists.study import Study

__all__ = ["controls", "fit", "fitted", "points"]


def points(study: Study) -> list[dict[str, float]]:
    """Bits a byte by domain's own specialist, by how many specialists there are and how large each is.

    One specialist is the small dense model. All see as many bytes of each domain. One seed.
    """
    size = study.scale.size
    found = [
        _point(study, 1, size.width, study.seen("dense-small", study.held.test)),
        _point(study, len(study.domains), size.width, _own(study, "domain")),
    ]
    for count, members in GROUPS.items():
        of = {domain: f"of{count}.{i}" for i, group in enumerate(members) for domain in group}
        seen = {name: study.seen(name, study.held.test) for name in set(of.values())}
        logs = ways.oracle(seen, [of[one.domain] for one in study.held.test])
        found.append(_point(study, count, size.width, logs))
    for other in study.scale.widths:
        found.append(_point(study, 1, other.width, study.seen(f"{other.width}.dense", study.held.test)))
        own = _own(study, f"{other.width}.domain")
        found.append(_point(study, len(study.domains), other.width, own))
    return sorted(found, key=lambda point: (point["width"], point["specialists"]))


def controls(study: Study) -> list[dict[str, Any]]:
    """Bits a byte of as many experts whose texts were split by lot, and of the gated network's sources.

    Random splits by their mixture, since no text has one of its own. No part of the fit.
    """
    test, width = study.held.test, study.scale.size.width
    by_lot = {name: study.seen(name, test) for name in study.experts("random")}
    gated = {name: study.seen(name, test) for name in study.experts("gated")}
    own = ways.oracle(gated, [f"gated.{one.domain}" for one in test])
    return [
        {"arm": "random", **_point(study, len(by_lot), width, ways.asked(by_lot, tuple(by_lot), 0.0))},
        {"arm": "gated", **_point(study, len(gated), width, own)},
    ]


def fitted(found: list[dict[str, float]]) -> dict[str, Any]:
    """See `fit`."""
    return fit(
        np.array([point["specialists"] for point in found]),
        np.array([point["parameters"] for point in found]),
        np.array([point["bits"] for point in found]),
    )


def fit(specialists: Floats, weights: Floats, bits: Floats) -> dict[str, Any]:
    """Least squares of logarithms: bits ~ specialists^b weights^c.

    Returns exponents with their standard errors, the largest relative error of a point, and how many points
    there are for how many numbers.
    """
    x = np.stack([np.ones(len(bits)), np.log(specialists), np.log(weights)], axis=1)
    y = np.log(bits)
    solved, *_ = np.linalg.lstsq(x, y, rcond=None)
    left = y - x @ solved
    free = len(bits) - x.shape[1]
    errors = [math.nan] * x.shape[1]
    if free > 0:
        covariance = np.linalg.pinv(x.T @ x) * float(left @ left) / free
        errors = np.sqrt(np.diag(covariance)).tolist()
    return {
        "constant": float(solved[0]),
        "specialists": {"exponent": float(solved[1]), "standard_error": errors[1]},
        "weights": {"exponent": float(solved[2]), "standard_error": errors[2]},
        "largest_error": float(np.abs(np.expm1(left)).max()),
        "points": len(bits),
        "free": free,
    }


def _own(study: Study, kind: str) -> Floats:
    seen = {f"{kind}.{d}": study.seen(f"{kind}.{d}", study.held.test) for d in study.domains}
    return ways.oracle(seen, [f"{kind}.{one.domain}" for one in study.held.test])


def _point(study: Study, count: int, width: int, logs: Floats) -> dict[str, float]:
    sizes = {size.width: size for size in (study.scale.size, *study.scale.widths)}
    means = by_domain(ways.bits(logs), [one.domain for one in study.held.test])
    return {
        "specialists": count,
        "width": width,
        "parameters": parameters(sizes[width]),
        "bits": float(np.mean(list(means.values()))),
    }
