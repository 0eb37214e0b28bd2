"""`manyminds bench network`: nodes as real processes on one machine, in scenarios of their own.

Each scenario starts its own nodes and ends them. Knows no command.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from manyminds.evals import intrusion, mesh, outage, prices, sites
from manyminds.evals.fleet import Progress

__all__ = ["measure"]


def measure(
    nodes: int,
    asked: int,
    only: Collection[str] = (),
    folder: Path | None = None,
    seed: int = 0,
    progress: Progress = lambda what, share: None,
) -> dict[str, Any]:
    """All figures; of a scenario that cannot be had here, why: {"skipped": reason}.

    Args:
        nodes: of the mesh, with the one that asks; at least 12.
        asked: questions of each kind that are timed.
        only: scenarios, of mesh, best, sites, prices and https; empty is all.
        folder: a recorded set, which the scenario best needs.
        seed: of what is drawn, and of intervals.
        progress: told how far it is.

    Raises: ManymindsError.
    """

    def best() -> dict[str, Any]:
        if folder is None:
            return {"skipped": "it needs a recorded set: give one by --set DIR"}
        return outage.measure(folder, asked, seed, progress)

    scenarios: dict[str, Callable[[], dict[str, Any]]] = {
        "mesh": lambda: {"nodes": nodes, **mesh.measure(nodes, asked, seed, progress)},
        "best": lambda: {"best_killed": best()},
        "sites": lambda: {"sites": sites.measure(progress)},
        "prices": lambda: {"lying_price": prices.measure(asked, seed, progress)},
        "https": lambda: {"https": intrusion.measure(asked, seed, progress)},
    }
    found: dict[str, Any] = {"asked": asked, "seed": seed}
    for name, scenario in scenarios.items():
        if not only or name in only:
            found |= scenario()
    return found
