"""Where a node finds what was learnt of its experts, and of how many of them."""

from collections.abc import Collection
from pathlib import Path

from manyminds import archive
from manyminds.artefact import GROWN_FROM, Artefact, load

__all__ = ["ARTEFACT", "GROWN", "NEWCOMERS", "base", "knowledge", "learnt"]

ARTEFACT = "artefact.npz"
"""Where in the home `manyminds train` leaves what it learnt, and a node looks for it."""

GROWN = "grown.npz"
"""Where in the home the same is with newcomers in it, made anew whenever one comes or goes."""

NEWCOMERS = "newcomers"
"""Folder of the home that holds what newcomers said, a folder for each."""

_SHIPPED = "shipped.npz"  # in this package: what `manyminds train benchmarks/local` writes


def base(home: Path) -> tuple[Path, bool]:
    """What was learnt before any newcomer came: its file, and whether it is that of this home.

    Else it is what came with manyminds.
    """
    own = home / ARTEFACT
    return (own, True) if own.exists() else (Path(__file__).with_name(_SHIPPED), False)


def learnt(home: Path) -> tuple[Artefact, str]:
    """What was learnt, with newcomers where any were taken in; and where that is from.

    What has grown from another base than the one that is there now does not count.

    Raises: ArtefactError.
    """
    path, own = base(home)
    source = str(path) if own else "what came with manyminds"
    grown = home / GROWN
    if grown.exists():
        artefact = load(grown)
        if artefact.about.get(GROWN_FROM) == archive.digest(path):
            return artefact, source
    return load(path), source


def knowledge(artefact: Artefact, experts: Collection[str]) -> tuple[int, str]:
    """How many of these experts it knows, be it in some way of asking; and that in words, with its set."""
    names = set(artefact.experts)
    known = len(set(experts) & (names | {name.rpartition(":")[0] for name in names}))
    source = str(artefact.about.get("set", "a set without a name"))
    said = f"learnt from {source!r:.80}, knows {known} of {len(experts)} experts"
    come = sorted({name for part in artefact.parts for name in part.about.get("newcomers", ())})
    said += f", {len(come)} of them newcomers" if come else ""
    if experts and not known:
        said += " and so changes nothing: learn from answers of these, `manyminds train DIR`"
    return known, said
