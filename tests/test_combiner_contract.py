"""Every kind of combiner keeps every law of `contracts.combiners`."""

import pytest

from manyminds.combine.fuse import Fuse
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from tests.combine.meaning import embed
from tests.contracts.combiners import CHECKS, Make

KINDS: dict[str, Make] = {
    "vote": Vote,
    "select": lambda: Select(embed),
    "fuse": lambda: Fuse(Vote()),
    "race": Race,
}


@pytest.mark.parametrize("law", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_combiner_keeps_contract(kind: str, law: str) -> None:
    CHECKS[law](KINDS[kind])
