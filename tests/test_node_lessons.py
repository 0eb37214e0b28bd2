"""What a node learns outlives it, and is known to every other gateway on its ledger."""

import asyncio
import logging
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from manyminds.config import Config, load
from manyminds.errors import AlreadyGradedError, LedgerError
from manyminds.ledger import Ledger
from manyminds.node import Node
from manyminds.node.lessons import Lessons
from manyminds.ratings import Ratings
from manyminds.router.grades import Standing
from manyminds.types import Answer, Limits, Outcome, PanelEntry, Query, Report, Usage
from tests.changed import replace

TWO = "".join(
    f'[[expert]]\nname = "{name}"\nurl = "http://127.0.0.1:9/v1"\nprice_out_usd_per_m = 1\n'
    for name in ("far", "off")
)


def configured(folder: Path, text: str = TWO) -> Config:
    (folder / "manyminds.toml").write_text('[local]\ntier = "none"\n' + text)
    return load(folder / "manyminds.toml", {"MANYMINDS_HOME": str(folder / "home")}, {})


def asked(node: Node, request_id: str, expert: str = "far", ttft_s: float = 0.5) -> None:
    """As if its gateway had passed on that expert's answer."""
    spent = Usage(10, 90, cost_usd=0.002)
    answer = Answer(expert, expert, "ok", "4", ttft_s=ttft_s, seconds=1.5, usage=spent, claimed_usd=0.001)
    entry = PanelEntry(expert, expert, 1.0, "4", 0.5, ttft_s, 1.5, 0.002, "ok")
    report = Report(request_id, "pass", "pass", (entry,), None, 0.5, (), 0.002, 0.0)
    node._record(report, Query((), request_id=request_id), [answer], "4", "ok", 1.5)


def known(node: Node) -> dict[str, Standing]:
    return {name: node._router.standing(name) for name in ("far", "off")}


def predicted(node: Node, expert: str) -> tuple[float, float, float]:
    """Probability, cost and seconds that its router goes by."""
    (card,) = (card for card in node.cards if card.name == expert)
    route = node._router.route(Query((), expert), [card], Limits())
    return route.expected_accuracy, route.expected_cost_usd, route.expected_latency_s


def test_grades_are_shared_and_outlive_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        config = configured(tmp_path)
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(Node(config, {})) for _ in range(2)]
            for i in range(12):
                mine = nodes[i % 2]
                asked(mine, f"r{i}", "far" if i % 3 else "off")
                assert await mine.grade(f"r{i}", None, float(i % 4 == 0))
                with pytest.raises(AlreadyGradedError):
                    await nodes[1 - i % 2].grade(f"r{i}", None, 1.0)
            for node in nodes:
                await node._study()
                await node._study()
            first, second = map(known, nodes)
            assert first == second
            assert (first["far"].grades, first["off"].grades) == (8.0, 4.0)
            assert first["far"].correct == 2.0
        async with Node(config, {}) as again:
            assert known(again) == first
            assert predicted(again, "far")[0] < predicted(again, "off")[0] < 0.5

    asyncio.run(story())


def test_how_calls_went_is_heard_of_and_outlives_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        config = configured(tmp_path)
        async with Node(config, {}) as node, Node(config, {}) as other:
            before = predicted(other, "far")
            for i in range(30):
                asked(node, f"r{i}", ttft_s=0.25)
            node._ledger.flush()
            await node._study()
            assert predicted(node, "far") == before  # its own calls it has observed itself, as they ended
            await other._study()
            after = predicted(other, "far")
            assert after[1] > before[1]
            assert after[2] < before[2]
            await other._study()
            assert predicted(other, "far") == after
        async with Node(config, {}) as again:
            assert predicted(again, "far") == after

    asyncio.run(story())


def test_what_is_new_in_the_configuration_is_learnt_from_the_log(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node(configured(tmp_path), {}) as node:
            asked(node, "r", "off")
            assert await node.grade("r", None, 1.0)
            await node.reload(configured(tmp_path, TWO.partition('[[expert]]\nname = "off"')[0]))
            assert node._router.standing("off") == Standing()
            await node.reload(configured(tmp_path))
            await node._study()
            assert node._router.standing("off").grades == 1.0

    asyncio.run(story())


def test_while_the_ledger_is_away_what_is_known_stays(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node(configured(tmp_path), {}) as node:
            asked(node, "r")
            assert await node.grade("r", None, 1.0)
            before = known(node)
            with closing(sqlite3.connect(tmp_path / "home" / "ledger.db", isolation_level=None)) as raw:
                raw.execute("ALTER TABLE outcomes RENAME TO gone")
                with pytest.raises(LedgerError):
                    await node._study()
                assert known(node) == before
                raw.execute("ALTER TABLE gone RENAME TO outcomes")
            await node._study()
            assert known(node) == before

    asyncio.run(story())


def test_ratings_are_of_all_gateways(tmp_path: Path) -> None:
    async def story() -> None:
        config = configured(tmp_path)
        async with Node(config, {}) as node, Node(config, {}) as other:
            for i in range(4):
                asked(node if i % 2 else other, f"r{i}")
            assert await node.grade("r1", None, 1.0)
            for each in (node, other):
                each._ledger.flush()
            far, off = await node.rated()
            assert far.ratings is not None
            week = far.ratings.week
            assert (week.calls, week.graded, week.accuracy, week.ttft_p50_s) == (4, 1, 1.0, 0.5)
            assert week.charged_ratio == pytest.approx(2.0)
            assert (far.name, far.accuracy, far.drifted_utc) == ("far", 0.5, None)
            assert off.ratings == Ratings()

    asyncio.run(story())


def test_without_a_ledger_the_cards_are_shown_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node(configured(tmp_path), {}) as node:
            with closing(sqlite3.connect(tmp_path / "home" / "ledger.db", isolation_level=None)) as raw:
                raw.execute("ALTER TABLE calls RENAME TO gone")
            assert [(card.name, card.ratings) for card in await node.rated()] == [
                ("far", None),
                ("off", None),
            ]

    asyncio.run(story())


def test_a_place_that_is_filled_late_is_read_once(tmp_path: Path) -> None:
    """On a server, who began earlier may end later, and fills a place below those that were read."""
    now_s = [0.0]

    def told(name: str) -> None:
        outcome = Outcome(name, "a", "ok", None, 0.0, 0, 1.0)
        ledger.record(
            Report(name, "auto", "vote", (), None, None, (), 0.0, 0.0),
            Query(()),
            (),
            "",
            "ok",
            0.0,
            [outcome],
        )
        ledger.flush()

    def read() -> list[str]:
        return [outcome.request_id for outcome in lessons.read()[0]]

    file = tmp_path / "ledger.db"
    with closing(Ledger(f"sqlite:///{file}")) as ledger, closing(sqlite3.connect(file)) as raw:
        lessons = Lessons(ledger, lambda: now_s[0])
        told("r1")
        raw.execute("UPDATE outcomes SET id = 2000")
        raw.commit()
        assert read() == ["r1"]
        told("r2")
        assert read() == ["r2"]
        raw.execute("INSERT INTO outcomes SELECT 1990, 'late', 0, 'a', 1, 1, NULL, NULL, '', 'x' FROM schema")
        raw.commit()
        assert read() == ["late"]
        for later_s in (5.0, 20.0, 40.0):
            now_s[0] = later_s
            assert read() == []
        told("r3")
        assert read() == ["r3"]


def test_its_own_calls_are_not_looked_through_again_and_again(tmp_path: Path) -> None:
    now_s = [0.0]
    with closing(Ledger(f"sqlite:///{tmp_path}/ledger.db")) as ledger:
        lessons = Lessons(ledger, lambda: now_s[0])
        for i in range(3):
            report = Report(f"r{i}", "auto", "vote", (), None, None, (), 0.0, 0.0)
            ledger.record(report, Query(()), (), "", "ok", 0.0)
            ledger.flush()
            for _ in range(2):
                assert lessons.read() == ([], [])
                now_s[0] += 20.0
        assert lessons._heard.after == 3


def test_a_change_is_warned_of_and_said_to_be_probed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    async def story() -> None:
        async with Node(configured(tmp_path), {}) as node:
            report = Report("r", "pass", "pass", (), None, None, (), 0.0, 0.0)
            outcome = Outcome("r", "far", "ok", None, 0.0, 0)
            for correct in (1.0, 0.0):
                told = [replace(outcome, correct=correct)] * 60
                named = replace(report, request_id=str(correct))
                node._ledger.record(named, Query(()), (), "", "ok", 0.0, told)
                node._ledger.flush()
                assert (node.drifted, warned()) == ({}, [])
                await node._study()
            assert list(node.drifted) == ["far"]
            assert ["far has changed for the worse since 2" in text for text in warned()] == [True]
            far, off = await node.rated()
            assert (far.drifted_utc, off.drifted_utc) == (node.drifted["far"], None)
            await node._study()
            assert len(warned()) == 1

    asyncio.run(story())
