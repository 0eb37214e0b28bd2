"""Every kind of combiner keeps every law of `contracts.combiners`."""

import pytest

from manyminds.artefact import Artefact
from manyminds.combine.fuse import Fuse
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from tests.combine.meaning import embed
from tests.contracts.combiners import CHECKS, Make
from tests.learn.made import by_hand

LEARNT = by_hand(("e0", "e2", "e3", "e6"), "option", labels=("A", "B"))  # of e1, e4, e5 nothing is known

KINDS: dict[str, Make] = {
    "vote": Vote,
    "vote by what was learnt": lambda: Vote(Artefact((LEARNT,))),
    "select": lambda: Select(embed),
    "fuse": lambda: Fuse(Vote()),
    "race": Race,
}


@pytest.mark.parametrize("law", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_combiner_keeps_contract(kind: str, law: str) -> None:
    CHECKS[law](KINDS[kind])
