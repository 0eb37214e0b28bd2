"""From what an expert says of its certainty to how often it is right: isotonic regression.

Pure. Knows no expert.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["isotonic"]


def isotonic(raw: "Floats", right: "NDArray[np.bool_]", points: int) -> "tuple[Floats, Floats]":
    """`points` raw values, ascending, and the share right at each: (b,), (b,), never falling.

    The values are quantiles of `raw` (n,), n >= 1; shares are smoothed by one right and one wrong, so that
    none is 0 or 1. Pool adjacent violators (Ayer et al. 1955). O(n log n).
    """
    values, place = np.unique(raw, return_inverse=True)
    even = (np.bincount(place, right, len(values)) / np.bincount(place))[place]  # equal values are as one
    order = np.argsort(raw, kind="stable")
    groups = np.array_split(order, min(points, len(order)))
    at = [float(np.mean(raw[group])) for group in groups]
    mean = float(right.mean())  # a group of few is drawn to it
    blocks: list[list[float]] = []  # right, all, groups pooled
    for group in groups:
        blocks.append([float(even[group].sum()) + 2.0 * mean, len(group) + 2.0, 1.0])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            hits, total, pooled = blocks.pop()
            blocks[-1][0] += hits
            blocks[-1][1] += total
            blocks[-1][2] += pooled
    shares = [hits / total for hits, total, pooled in blocks for _ in range(int(pooled))]
    short = points - len(groups)
    xs, ys = [*at, *[at[-1]] * short], [*shares, *[shares[-1]] * short]
    return np.array(xs), np.clip(np.array(ys), 1e-3, 1.0 - 1e-3)
