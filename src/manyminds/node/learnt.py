"""Where a node finds what was learnt of its experts, and of how many of them."""

from collections.abc import Collection
from importlib import resources
from pathlib import Path

from manyminds.artefact import Artefact, load

__all__ = ["ARTEFACT", "knowledge", "learnt"]

ARTEFACT = "artefact.npz"
"""Where in the home `manyminds train` leaves what it learnt, and a node looks for it."""

_SHIPPED = "shipped.npz"  # in this package: what `manyminds train benchmarks/local` writes


def learnt(home: Path) -> tuple[Artefact, str]:
    """What `manyminds train` has written there, else what came with manyminds; and which of them it is.

    Raises: ArtefactError.
    """
    path = home / ARTEFACT
    if path.exists():
        return load(path), str(path)
    with resources.as_file(resources.files(__package__) / _SHIPPED) as shipped:
        return load(shipped), "what came with manyminds"


def knowledge(artefact: Artefact, experts: Collection[str]) -> tuple[int, str]:
    """How many of these experts it knows, be it in some way of asking; and that in words, with its set."""
    names = set(artefact.experts)
    known = len(set(experts) & (names | {name.rpartition(":")[0] for name in names}))
    source = str(artefact.about.get("set", "a set without a name"))
    said = f"learnt from {source!r:.80}, knows {known} of {len(experts)} experts"
    if experts and not known:
        said += " and so changes nothing: learn from answers of these, `manyminds train DIR`"
    return known, said
