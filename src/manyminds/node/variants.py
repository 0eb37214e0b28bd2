"""The ways in which this node's experts can be asked, as experts. Runs none."""

import logging
from collections.abc import Iterable, Mapping

from manyminds import catalog, sandbox
from manyminds.errors import DataError
from manyminds.experts.asked import WAYS, Asked, variant
from manyminds.types import Expert

__all__ = ["in_every_way", "named", "runs_programs"]

log = logging.getLogger(__name__)


def in_every_way(experts: Mapping[str, Expert]) -> dict[str, Expert]:
    """Each local model once for every way that is worth trying, all others as they are."""
    ways = {model.name: model.ways for model in catalog.load().values()}
    every: dict[str, Expert] = {}
    for name, expert in sorted(experts.items()):
        if expert.card.kind != "local":
            every[name] = expert
            continue
        for way in ways.get(name, tuple(WAYS)):
            asked = Asked(expert, WAYS[way])
            every[asked.card.name] = asked
    return every


def named(experts: Mapping[str, Expert], names: Iterable[str]) -> dict[str, Expert]:
    """Those ways of asking these experts that are named; names of anything else are passed over.

    Where programs cannot be run, nobody is asked for one.
    """
    found: dict[str, Expert] = {}
    left_out: list[str] = []
    for name in names:
        made = variant(name)
        if made is None or name in experts or (expert := experts.get(made[0])) is None:
            continue
        if WAYS[made[1]].by == "code" and not runs_programs():
            left_out.append(name)
            continue
        found[name] = Asked(expert, WAYS[made[1]])
    if left_out:
        log.warning("%s: left out. %s", ", ".join(left_out), _lacking())
    return found


def runs_programs() -> bool:
    """Whether programs that models write can be run here."""
    return not _lacking()


def _lacking() -> str:
    """What keeps programs from being run here, "" where nothing does."""
    try:
        sandbox.need()
    except DataError as error:
        return error.message
    return ""
