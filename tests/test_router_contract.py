from collections.abc import Callable

import pytest

from manyminds.artefact import Artefact
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.types import Router
from tests.contracts import routers
from tests.learn.worlds import hand_made


def learnt(**prices: float) -> Artefact:
    """Of four of the contract's experts, and of one that is not there; `max` is left to the rules."""
    costs = {"bee": 0.00001, "cat": 0.0001, "dog": 0.006, "fox": 0.00002, "yak": 0.00003}
    return hand_made(
        {"bee": 0.71, "cat": 0.66, "dog": 0.83, "fox": 0.69, "yak": 0.97},
        [([["bee", "fox"], ["dog"]], 0.9), ([["bee", "cat", "fox"]], 1.0), ([["bee"], ["yak"]], 0.7)],
        {"auto": 6, "cheap": 5, "fast": 7},
        cost_usd=costs,
        kinds=("number", "option"),
        prices=prices,
    )


KINDS: dict[str, Callable[[], Router]] = {
    "skill": lambda: SkillRouter(Index(routers.DIMENSION), routers.embed),
    "skill_without_encoder": lambda: SkillRouter(Index(routers.DIMENSION)),
    "learnt": lambda: SkillRouter(Index(routers.DIMENSION), routers.embed, learnt()),
    "learnt_anew_for_each_question": lambda: SkillRouter(
        Index(routers.DIMENSION), routers.embed, learnt(auto=0.03, cheap=0.0002)
    ),
}


@pytest.mark.parametrize("check", routers.CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_router_keeps_contract(kind: str, check: str) -> None:
    routers.CHECKS[check](KINDS[kind])
