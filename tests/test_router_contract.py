from collections.abc import Callable

import pytest

from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.types import Router
from tests.contracts import routers

KINDS: dict[str, Callable[[], Router]] = {
    "skill": lambda: SkillRouter(Index(routers.DIMENSION), routers.embed),
    "skill_without_encoder": lambda: SkillRouter(Index(routers.DIMENSION)),
}


@pytest.mark.parametrize("check", routers.CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_router_keeps_contract(kind: str, check: str) -> None:
    routers.CHECKS[check](KINDS[kind])
