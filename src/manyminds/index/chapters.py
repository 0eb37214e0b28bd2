"""An expert's skills as its outcomes show them: where it beats its peers. Pure.

Regions follow from the questions alone, and what its peers made of them is as frozen as they are. So chapters
hang on an expert's own outcomes: whoever comes or goes changes no bit of another's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from manyminds.index.shelves import k_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Floats = NDArray[np.float64]

__all__ = ["Region", "chapters", "regions"]

_CHAPTERS: Final = 8
_REGIONS: Final = 128
_PRIOR: Final = 10.0  # questions on which it is as good as its peers, that every region begins with


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A region of past questions in which an expert was better than its peers.

    Attributes:
        vector: (d,) float32 unit mean of the questions that it got right.
        asked: how many it was asked there.
        right: the share that it got right; peers: the share that its peers did.
        better: by how much it is better, as `regions` reckons.
    """

    vector: "Vectors"
    asked: int
    right: float
    peers: float
    better: float


def regions(vectors: "Vectors", right: "Floats", peers: "Floats") -> tuple[Region, ...]:
    """Where an expert is better than its peers by more than chance explains, best first. Deterministic.

    vectors: (n, d) float32 unit rows of the questions; right: (n,) 1 or 0, NaN where it was not asked; peers:
    (n,) the share of its peers that were right, NaN where none was asked. O(n sqrt(n)). Raises: ValueError
    where these are not as many.

    Questions fall into clusters, sqrt(n) of them and 128 at most. With d_i = right_i -
    peers_i, and n_r questions asked in region r, it is better there by

        e_r = sum of d_i in r / (n_r + 10)

    which is the mean after ten questions of no difference. It counts where that is more than one standard
    deviation of it, sqrt(v / (n_r + 10)), v the mean of all d_i^2.
    """
    if vectors.ndim != 2 or not vectors.shape[0] == len(right) == len(peers):
        raise ValueError(f"{vectors.shape} vectors, {len(right)} outcomes and {len(peers)} of peers")
    asked = np.isfinite(right) & np.isfinite(peers)
    if not asked.any():
        return ()
    cluster = _clusters(vectors)
    ahead = np.where(asked, right - peers, 0.0)
    variance = float((ahead[asked] ** 2).mean())
    found = []
    for r in range(int(cluster.max()) + 1):
        own = np.flatnonzero((cluster == r) & asked)
        better = float(ahead[own].sum()) / (len(own) + _PRIOR)
        good = own[right[own] == 1]
        if better <= (variance / (len(own) + _PRIOR)) ** 0.5 or not len(good):
            continue
        vector = _unit(vectors[good].sum(axis=0, dtype=np.float64))
        shares = float(right[own].mean()), float(peers[own].mean())
        found.append(Region(vector, len(own), *shares, better))
    return tuple(sorted(found, key=lambda p: -p.better))


def chapters(vectors: "Vectors", right: "Floats", peers: "Floats") -> "Vectors":
    """(k, d) float32 unit rows, k <= 8: an expert's skill vectors, by its outcomes. Arguments as `regions`.

    They are its regions, while these are up to eight, else eight clusters of them: each the unit mean of its
    regions, weighed by n_r e_r, by how many more answers are right. No row where it is better nowhere.
    """
    found = regions(vectors, right, peers)
    if len(found) <= _CHAPTERS:
        return np.array([region.vector for region in found], np.float32).reshape(len(found), vectors.shape[1])
    units = np.stack([region.vector for region in found])
    weighed = units.astype(np.float64) * np.array([region.asked * region.better for region in found])[:, None]
    of = np.argmax(units @ k_means(units, _CHAPTERS, np.random.default_rng(0)).T, axis=1)
    return np.stack([_unit(weighed[of == one].sum(axis=0)) for one in np.unique(of)])


def _clusters(vectors: "Vectors") -> "NDArray[np.int64]":
    """(n,) the cluster of each question."""
    count = min(_REGIONS, max(1, round(len(vectors) ** 0.5)))
    centroids = k_means(np.ascontiguousarray(vectors, np.float32), count, np.random.default_rng(0))
    clusters: NDArray[np.int64] = np.argmax(vectors @ centroids.T, axis=1)
    return clusters


def _unit(row: "Floats") -> "Vectors":
    unit: Vectors = (row / max(float(np.linalg.norm(row)), 1e-30)).astype(np.float32)
    return unit
