"""A node with documents: who is made of them, who writes, and what is left when one of them is taken out."""

import asyncio
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manyminds.config import Config, load
from manyminds.documents import Library
from manyminds.errors import ConfigError, ManymindsError
from manyminds.ledger import Ledger
from manyminds.node import Node, revocation
from manyminds.node.following import folder_of
from manyminds.node.libraries import delete, renew
from manyminds.node.wiring import encoder_of
from manyminds.types import Answer, Limits, Message, Outcome, PanelEntry, Query, Report, Usage
from tests.e2e.test_network import model
from tests.pulled import ENCODER, lend, needs_encoder

pytestmark = needs_encoder

TRAVEL = """# Travel handbook

## Receipts

Receipts for business trips are kept for seven years in the finance archive on the second floor.

## Hotels

The hotel limit for employees is 140 euros per night, breakfast included.
"""
GARDEN = """# Garden notes

Tomato seedlings are moved outside in the third week of May, after the last frost.
"""
KEPT = "For how many years are receipts for business trips kept in the finance archive?"
MOVED = "When are tomato seedlings moved outside after the last frost?"


def configured(
    folder: Path, files: Mapping[str, str], *more: str, read: bool = True, top: str = ""
) -> Config:
    """A configuration with an expert of these documents, in a home with the encoder."""
    papers = folder / "papers"
    papers.mkdir(parents=True)
    for name, text in files.items():
        (papers / name).write_text(text)
    lend(folder / "home", ENCODER)
    lines = ('name = "handbook"', 'kind = "documents"', f'path = "{papers}"', 'source = "ann"', *more)
    entry = "[[expert]]\n" + "\n".join(lines)
    file = folder / "manyminds.toml"
    file.write_text(f'[local]\ntier = "none"\n[cache]\nentries = 100\n{top}{entry}\n')
    config = load(file, {"MANYMINDS_HOME": str(folder / "home")}, {})
    if read:
        sync(config)
    return config


def sync(config: Config) -> bool:
    """Whether anything that was there is gone."""
    encoder = encoder_of(config.home)
    assert encoder is not None
    with Library(folder_of(config.home, "handbook"), encoder.encode) as library:
        return library.sync(Path(config.experts[-1].path)).renewed


def take_out(config: Config, ledger: Ledger, document: str) -> None:
    with Library(folder_of(config.home, "handbook"), None) as library:
        library.withdraw(document)
        assert renew(config.home, ledger, config.experts[-1], library)
        assert not renew(config.home, ledger, config.experts[-1], library)


def asking(question: str, name: str = "auto", **limits: Any) -> Query:
    return Query((Message("user", question),), name, limits=Limits(**limits))


async def answered(node: Node, query: Query) -> tuple[str, Report]:
    chunks = [chunk async for chunk in node.gateway.stream(query)]
    report = chunks[-1].report
    assert report is not None
    return "".join(chunk.text for chunk in chunks), report


# --- who is made of them ---------------------------------------------------------------------------


def test_its_card_says_what_it_is_about_unless_that_is_nobody_s_business(tmp_path: Path) -> None:
    async def story() -> None:
        open_, closed = (
            configured(tmp_path / cites, {"travel.md": TRAVEL}, f'cites = "{cites}"', 'skills = ["trips"]')
            for cites in ("place", "none")
        )
        async with Node(open_, {}) as node, Node(closed, {}) as other:
            [card], [reticent] = node.cards, other.cards
            assert (card.kind, card.source, card.accuracy, card.paragraphs) == ("documents", "ann", 0.0, 2)
            assert card.offers == {"citations"}
            assert card.skills[0] == "trips"
            assert len(card.skills) > 1
            assert reticent.skills == ("trips",)
            assert node.skills().tobytes() == other.skills().tobytes()
            assert len(node.skills()) > 0

    asyncio.run(story())


def test_without_what_was_read_or_the_encoder_it_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        unread = configured(tmp_path / "unread", {"travel.md": TRAVEL}, read=False)
        async with Node(unread, {}) as node:
            assert node.cards == []
            assert "manyminds experts index handbook" in caplog.text
            sync(unread)
            assert not node._libraries.changed()  # it may be in the midst of it
            assert node._libraries.changed()
            await node.reload()
            assert [card.name for card in node.cards] == ["handbook"]
            assert not node._libraries.changed()
            delete(unread.home, "handbook")
            await node.reload()
            assert node.cards == []
        caplog.clear()
        blind = configured(tmp_path / "blind", {"travel.md": TRAVEL})
        for file in (blind.home / "models").rglob("*.onnx"):
            file.unlink()
        async with Node(blind, {}) as node:
            assert node.cards == []
            assert "encoder" in caplog.text

    asyncio.run(story())


def test_who_is_to_write_must_be_somebody(tmp_path: Path) -> None:
    config = configured(tmp_path, {"travel.md": TRAVEL}, 'writer = "nobody"')

    async def story() -> None:
        with pytest.raises(ConfigError, match="'nobody', which is no expert here"):
            async with Node(config, {}):
                pass

    asyncio.run(story())


def test_documents_that_come_are_answered_from_and_nobody_waits(tmp_path: Path) -> None:
    async def story() -> None:
        config = configured(tmp_path, {"travel.md": TRAVEL})
        async with Node(config, {}) as node:
            text, _ = await answered(node, asking(MOVED, "handbook"))
            assert "third week of May" not in text
            before = node.gateway
            (tmp_path / "papers" / "garden.md").write_text(GARDEN)
            assert not sync(config)
            await node.reload()
            for gateway in (before, node.gateway):  # who asks the old one finds the same library
                chunks = [chunk async for chunk in gateway.stream(asking(MOVED, "handbook"))]
                assert "third week of May" in "".join(chunk.text for chunk in chunks)
            assert node.cards[0].paragraphs == 3
            assert not revocation.read(config.home)

    asyncio.run(story())


# --- who writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["auto", "clerk"])
def test_a_writer_is_asked_by_the_rules_and_never_another_reader(tmp_path: Path, writer: str) -> None:
    """By itself it would be asked by itself; and what it costs is paid once."""

    async def story() -> None:
        with model("Receipts are kept for seven years.") as server:
            clerk = f'[[expert]]\nname = "clerk"\nurl = "{server.url}"\nprice_out_usd_per_m = 1000.0\n'
            config = configured(tmp_path, {"travel.md": TRAVEL}, f'writer = "{writer}"', top=clerk)
            async with Node(config, {}) as node:
                text, report = await answered(node, asking(KEPT, "handbook"))
                assert "seven years" in text
                assert [line.expert for line in report.panel] == ["handbook"]
                assert report.cost_usd == 0.0
                node._ledger.flush()
                paid = {name: node._ledger.requests(10, expert=name) for name in ("clerk", "handbook")}
                assert [len(rows) for rows in paid.values()] == [1, 1]
                assert paid["clerk"][0]["cost_usd"] == pytest.approx(0.006)
                assert paid["handbook"][0]["cost_usd"] == 0.0

    asyncio.run(story())


def test_where_nobody_else_is_here_the_documents_are_quoted(tmp_path: Path) -> None:
    """Another reader of documents is nobody to write, though it might be asked."""

    async def story() -> None:
        config = configured(tmp_path, {"travel.md": TRAVEL}, 'writer = "auto"')
        twin = msgspec.structs.replace(config.experts[0], name="twin", writer="auto")
        both = msgspec.structs.replace(config, experts=(*config.experts, twin))
        shutil.copytree(folder_of(config.home, "handbook"), folder_of(config.home, "twin"))
        async with Node(both, {}) as node:
            assert node._readers() == ("handbook", "twin")
            text, _ = await answered(node, asking(KEPT, "handbook"))
            assert "seven years" in text
            node._ledger.flush()
            assert len(node._ledger.requests(10, expert="handbook")) == 1
            assert node._ledger.requests(10, expert="twin") == []

    asyncio.run(story())


# --- what is left ----------------------------------------------------------------------------------


def graded(node: Node, name: str, correct: float, nth: int) -> None:
    spent = Usage(10, 90)
    answer = Answer("handbook", "ann", "ok", "4", ttft_s=0.1, seconds=1.5, usage=spent)
    entry = PanelEntry("handbook", "ann", 1.0, "4", 0.5, 0.1, 1.5, 0.0, "ok")
    report = Report(f"r{nth}", "max", "vote", (entry,), None, 0.5, (), 0.0, 0.0)
    said = Outcome(f"r{nth}", name, "ok", None, 0.0, 0, correct=correct)
    node._ledger.record(report, Query((), request_id=f"r{nth}"), [answer], "4", "ok", 1.5, [said])
    node._ledger.flush()


def routes(node: Node) -> list[Any]:
    """What its router would do, with every float."""
    vectors = node.embed([KEPT, MOVED]) if node.embed else ()
    found: list[Any] = [node.skills().tobytes(), node._router.standing("handbook")]
    for question, vector in zip((KEPT, MOVED), vectors, strict=True):
        query = msgspec.structs.replace(asking(question), vector=vector)
        for policy in ("max", "auto", "cheap", "fast"):
            route = node._router.route(query, node.cards, Limits(policy=policy))
            found.append(msgspec.to_builtins(route))
    return found


async def answers(node: Node, cache: str | None = None) -> list[Any]:
    found = []
    for question in (KEPT, MOVED):
        for name in ("auto", "handbook"):
            text, report = await answered(node, asking(question, name, cache=cache))
            lines = [(p.expert, p.weight, p.answer, p.correct_probability, p.status) for p in report.panel]
            found.append([text, lines, report.probability, report.attribution, report.citations])
    return found


def test_without_a_document_it_is_a_node_that_never_had_it(tmp_path: Path) -> None:
    """Cache, vectors, grades, routes, answers and posteriors; now, and after a restart."""

    async def story() -> None:
        had_it = configured(tmp_path / "had", {"travel.md": TRAVEL, "garden.md": GARDEN})
        never_did = configured(tmp_path / "never", {"travel.md": TRAVEL})
        async with Node(had_it, {}) as had, Node(never_did, {}) as never:
            before = await answers(had)
            assert "third week of May" in before[-1][0]
            cache, gateway = had._cache, had.gateway
            assert cache is not None
            assert len(cache) > 0
            for nth in range(9):
                graded(had, "handbook", float(nth % 3 > 0), nth)
            await had._study()
            assert had._router.standing("handbook").grades > 5
            assert routes(had) != routes(never)

            take_out(had_it, had._ledger, "garden.md")
            await had._part(had._ledger.gone())
            assert len(cache) == 0
            assert routes(had) == routes(never)
            assert await answers(had) == await answers(never)
            assert await answers(had) == await answers(never)  # as they are kept now
            late = [chunk async for chunk in gateway.stream(asking(MOVED, "handbook", cache="off"))]
            assert "third week of May" not in "".join(chunk.text for chunk in late)
            word = revocation.read(had_it.home)
            assert word is not None
            assert not word.whole
        async with Node(had_it, {}) as again, Node(never_did, {}) as never:
            for mine, other in zip(routes(again)[2:], routes(never)[2:], strict=True):
                assert mine["calls"] == other["calls"]  # how long calls took is as it happened
            assert routes(again)[:2] == routes(never)[:2]
            assert await answers(again) == await answers(never)

    asyncio.run(story())


def test_what_a_sync_took_out_is_void_too_and_a_node_notices_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        config = configured(tmp_path, {"travel.md": TRAVEL, "garden.md": GARDEN})
        async with Node(config, {}) as node:
            node._renew_documents()
            assert node._ledger.gone().returned == {}
            (tmp_path / "papers" / "garden.md").unlink()
            assert sync(config)
            node._renew_documents()
            gone = node._ledger.gone()
            assert set(gone.returned) == {"handbook"}
            word = revocation.read(config.home)
            node._renew_documents()
            assert node._ledger.gone() == gone
            assert revocation.read(config.home) == word
            await node._part(gone)
            assert node.cards[0].paragraphs == 2

    asyncio.run(story())


def test_where_a_library_lies_is_no_callers_concern(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configured(tmp_path, {"travel.md": TRAVEL})

    async def told() -> str:
        async with Node(config, {}) as node:
            file = folder_of(config.home, "handbook") / "library.sqlite"
            file.write_bytes(b"\xff" * file.stat().st_size)
            with pytest.raises(ManymindsError) as caught:
                await answered(node, asking(KEPT, "handbook"))
            return caught.value.message

    message = asyncio.run(told())
    assert "handbook cannot search its documents at present" in message
    assert str(tmp_path) not in message
    assert str(tmp_path) in caplog.text
