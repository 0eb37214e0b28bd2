"""An owner who knows algorithms on graphs: the manual of networkx, as its authors wrote it."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

from manyminds.evals.knowledge.docstrings import Function, functions
from manyminds.evals.knowledge.facts import Corpus, Entry, draw
from manyminds.evals.knowledge.manuals import ATTRIBUTES, entries
from manyminds.evals.packs.wheels import Wheel, members

__all__ = ["WHEEL", "corpus", "others"]

WHEEL: Final = Wheel(
    package="networkx",
    version="3.6.1",
    bytes=2_068_504,
    sha256="d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
    licence="BSD-3-Clause",
)

_FUNCTIONS: Final = 230


def _described(folder: Path) -> list[Function]:
    """All public algorithms. Raises: DataError."""
    files = {
        **members(WHEEL, "networkx/algorithms/", folder),
        **members(WHEEL, "networkx/generators/", folder),
    }
    found = []
    for name, raw in files.items():
        if name.endswith(".py") and "/tests/" not in name:
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            found += functions(module, raw.decode())
    return found


def others(folder: Path, without: Container[str]) -> list[Entry]:
    """Algorithms of other names, module by module. Raises: DataError."""
    return entries([f for f in _described(folder) if f.name not in without], "networkx")


def corpus(folder: Path) -> Corpus:
    """Some modules whole, drawn from all. Raises: DataError."""
    every = _described(folder)
    modules: Sequence[str] = sorted({function.module for function in every})
    chosen: list[Function] = []
    for module in draw("networkx").sample(modules, len(modules)):
        of_module = [function for function in every if function.module == module]
        if len(chosen) + len(of_module) <= _FUNCTIONS:
            chosen += of_module
    return Corpus(
        owner="mathematician",
        about=(
            "Algorithms on graphs, as described by those who wrote them.",
            "From the manual of a library for networks and graphs.",
        ),
        attributes=ATTRIBUTES,
        entries=tuple(entries(chosen, "networkx")),
        invented=(
            "networkx.lantern_decomposition",
            "networkx.braided_spanning_forest",
            "networkx.quorum_centrality",
            "networkx.tidal_flow_cut",
            "networkx.mirror_chromatic_index",
            "networkx.echo_percolation",
            "networkx.harbour_distance",
        ),
    )
