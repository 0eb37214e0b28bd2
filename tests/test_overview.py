"""What an owner sees of a node: its shelves, what is owed, and what is not known."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from manyminds.config import load
from manyminds.ledger import Kept, Ledger, Role
from manyminds.node import Node
from manyminds.node.observed import Observed
from manyminds.node.overview import Overview
from manyminds.node.shelved import shelved
from manyminds.ratings import Rated
from tests.learn.worlds import hand_made
from tests.network import words

FAR = '[[expert]]\nname = "far"\nurl = "http://127.0.0.1:9/v1"\n'


def books(sections: Any) -> dict[tuple[str, str], list[str]]:
    """Names by section and shelf."""
    return {
        (section["label"], shelf["label"]): [book["name"] for book in shelf["books"]]
        for section in sections
        for shelf in section["shelves"]
    }


def test_who_was_learnt_of_stands_by_topic() -> None:
    topics = {"law": {"a": 1.0, "b": -1.0}, "sums": {"a": -1.0, "b": 1.0}}
    artefact = hand_made({"a": 0.7, "b": 0.7, "gone": 0.9}, topics=topics)
    cards = [Rated("a", "openai", source="a"), Rated("b", "openai", source="b", paused=True)]
    found = shelved(cards, artefact, None)
    (section,) = [section for section in found if section["label"] != "others"]
    assert [(shelf["label"], shelf["size"]) for shelf in section["shelves"]] == [("law", 2), ("sums", 2)]
    law = {book["name"]: book for book in section["shelves"][0]["books"]}
    (of_a,), (of_b,) = law["a"]["chapters"], law["b"]["chapters"]
    assert of_a["right"] > of_b["right"]
    assert of_a["asked"] > 0
    assert of_b["peers"] > of_b["right"]
    assert law["b"]["paused"]


def test_ways_of_asking_are_chapters_of_one_book() -> None:
    artefact = hand_made({"a:direct": 0.4, "a:code": 0.8}, topics={"sums": {}})
    (section,) = shelved([Rated("a", "local")], artefact, None)
    (book,) = section["shelves"][0]["books"]
    assert (book["name"], book["source"]) == ("a", "a")
    assert {chapter["label"] for chapter in book["chapters"]} == {"direct", "code"}


def test_everybody_is_on_a_shelf() -> None:
    cards = [
        Rated("baker", "openai", skills=("baking bread",)),
        Rated("cook", "openai", skills=("cooking soup", "baking bread")),
        Rated("mute", "openai"),
    ]
    for embed in (words, None):
        found = books(shelved(cards, None, embed))
        assert {name for names in found.values() for name in names} == {"baker", "cook", "mute"}
        assert found["others", "openai: say nothing of themselves"] == ["mute"]
    assert shelved([], None, None) == []


def looked(folder: Path, text: str, look: Callable[[Overview], Awaitable[Any]]) -> Any:
    """What there is to see of the node of this manyminds.toml."""

    async def story() -> Any:
        (folder / "manyminds.toml").write_text('[local]\ntier = "none"\n' + text)
        config = load(folder / "manyminds.toml", {"MANYMINDS_HOME": str(folder / "home")}, {})
        async with Node(config, {}) as node:
            return await look(Overview(node, Observed()))

    return asyncio.run(story())


def test_where_nothing_was_asked_nothing_is_known(tmp_path: Path) -> None:
    async def look(overview: Overview) -> Any:
        return await overview.frontier(), await overview.library(), await overview.ledger()

    frontier, library, ledger = looked(tmp_path, FAR, look)
    (point,) = frontier["experts"]
    assert (point["accuracy"], point["cost_usd_per_1k"], point["calls"]) == (None, None, 0)
    assert frontier["policies"] == []
    assert (library["last"], library["experts"]) == (None, 1)
    assert (ledger["requests"], ledger["more"], ledger["budgets"]) == ([], 0, [])


def test_what_is_owed_stands_beside_the_node(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}")
    roles: list[Role] = ["asked", "answered", "answered"]
    for number, role in enumerate(roles):
        ledger.keep(Kept(f"ask{number}", role, "stranger", "r", float(number), 7, 3, 0.5, True, "{}"))
    ledger.close()
    found = looked(tmp_path, FAR, lambda overview: overview.network())
    (peer,) = found["peers"]
    assert (peer["id"], peer["up"], peer["experts"], peer["trust"]) == ("stranger", False, None, None)
    assert (peer["owed_to_it_usd"], peer["owed_by_it_usd"]) == (0.5, 1.0)
    assert (peer["answers_from_it"], peer["answers_to_it"], peer["deeds"]) == (1, 2, {})
    assert (found["node"], len(found["receipts"]), found["more"]) == (None, 3, 0)
    assert {receipt["role"] for receipt in found["receipts"]} == {"asked", "answered"}


def test_what_was_read_is_shown_for_a_while(tmp_path: Path) -> None:
    async def look(overview: Overview) -> Any:
        return [await overview.ledger() for _ in range(2)]

    first, second = looked(tmp_path, FAR, look)
    assert first is second
