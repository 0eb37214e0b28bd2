"""Questions with known answers, put to other nodes as any other."""

import asyncio
import json
from pathlib import Path
from typing import Any

from manyminds.cli.canaries import ASKED, canaries
from manyminds.config import load
from manyminds.experts.scripted import Script, Scripted
from manyminds.network.trust import Record
from manyminds.node import Node
from manyminds.types import Card, Outcome, Report
from manyminds.web.replies import new_id

SAGE = "a" * 32


class Sage:
    id = SAGE


class Company:
    """A node's membership, of one other node."""

    secret_seed = "hush"
    keys = ()

    def __init__(self) -> None:
        self.heard: list[Outcome] = []

    @property
    def present(self) -> list[tuple[str, Any]]:
        return [("sage", Sage)]

    @property
    def records(self) -> dict[str, Record]:
        return {SAGE: Record()}

    @property
    def relied(self) -> dict[str, float]:
        return {SAGE: 1.0}

    def hear(self, outcomes: list[Outcome]) -> None:
        self.heard += outcomes

    def settle(self, report: Report) -> None:
        pass

    def refresh(self) -> None:
        pass


def played(folder: Path, periods: int, toml: str = "") -> tuple[Scripted, Company, dict[str, Any]]:
    (folder / "manyminds.toml").write_text(f'[local]\ntier = "none"\n{toml}')
    config = load(folder / "manyminds.toml", {"MANYMINDS_HOME": str(folder / "home")}, {})
    sage, company = Scripted(Card("sage", "peer"), Script("I do not know.")), Company()

    async def run() -> None:
        async with Node(config, {}) as node:
            node.membership = company  # type: ignore[assignment]
            node.take_in(sage, None, 1)
            testing = asyncio.create_task(canaries(node, lambda: config, new_id, period_s=0.1))
            for _ in range(periods):
                await asyncio.sleep(0.1)
                if len(company.heard) >= 3:
                    break
            testing.cancel()
            await asyncio.gather(testing, return_exceptions=True)
            node.membership = None

    asyncio.run(run())
    asked = folder / "home" / ASKED
    return sage, company, json.loads(asked.read_text()) if asked.exists() else {}


def test_what_it_says_is_graded_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    sage, company, asked = played(tmp_path, 300)
    assert len(company.heard) >= 3
    assert {outcome.expert for outcome in company.heard} == {"sage"}
    assert {outcome.correct for outcome in company.heard} == {0.0}
    assert all(outcome.section for outcome in company.heard)  # what it is trusted in is known
    keys = asked[SAGE]
    assert len(keys) == len(set(keys)) >= sage.asked >= 3
    _, _, later = played(tmp_path, 300)
    assert set(keys) < set(later[SAGE])


def test_none_is_put_where_none_is_wanted(tmp_path: Path) -> None:
    sage, company, asked = played(tmp_path, 5, "[network]\ncanaries = 0\n")
    assert (sage.asked, company.heard, asked) == (0, [], {})
