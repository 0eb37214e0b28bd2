"""Three nodes in a row as real processes: one that asks, a hub that has to pay, and a node with a price."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import Served, wait_until
from tests.e2e.test_network import Nodes, ask, expert, manyminds, model, seen

pytest.importorskip("zenoh", reason="needs Zenoh: pip install 'manyminds[net]'")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


def node(nodes: Nodes, name: str, prices: tuple[float, float], experts: str = "") -> Served:
    """One that answers whom it knows, at these prices for a million tokens of question and answer."""
    terms = f"price_in_usd_per_m = {prices[0]}\nprice_out_usd_per_m = {prices[1]}\n"
    network = f'[network]\nname = "{name}"\nurl = "http://127.0.0.1"\nanswers = "listed"\n'
    return nodes.start(name, network + terms + experts)


def agree(nodes: Nodes, asks: str, answers: str, url: str) -> None:
    """Each lists the other: the first to ask and to pay, and to pass others' questions on.

    Both know when it ends.
    """

    def read_anew() -> list[int]:
        return [nodes.said(name).count("was read anew") for name in (asks, answers)]

    before = read_anew()
    terms = ("--pay-usd", "1", "--name", answers, "--speaks-for")
    agreed = manyminds(nodes.folder / asks, "federate", url.removesuffix("/v1"), *terms)
    manyminds(nodes.folder / answers, "federate", agreed["own_id"], "--name", asks, "--owe-usd", "1")
    assert wait_until(lambda: all(now > then for now, then in zip(read_anew(), before, strict=True)))


def settled(nodes: Nodes, name: str) -> tuple[float, float]:
    """What a node owes others and is owed by them, by its ledger, in US dollars."""
    rows: list[dict[str, Any]] = manyminds(nodes.folder / name, "ledger", "settle")
    return sum(row["asked_usd"] for row in rows), sum(row["answered_usd"] for row in rows)


def last(nodes: Nodes, name: str) -> dict[str, float]:
    """What the experts cost of whom a node asked last, by its ledger, in US dollars."""
    (row,) = manyminds(nodes.folder / name, "ledger", "show", "--limit", "1")
    return {call["expert"]: call["cost_usd"] for call in row["calls"]}


def test_a_hub_pays_what_it_is_paid_and_no_more(nodes: Nodes) -> None:
    dear = "price_out_usd_per_m = 100.0\n"
    with model("one two three four five") as far, model("near") as own:
        priced = node(nodes, "priced", (20.0, 200.0), expert("sage", far.url) + dear)
        hub = node(nodes, "hub", (0.0, 1000.0))
        asker = node(nodes, "asker", (0.0, 0.0))
        agree(nodes, "hub", "priced", priced.url)
        agree(nodes, "asker", "hub", hub.url)
        assert wait_until(lambda: seen(hub) == {"priced"}), nodes.said("hub")
        assert wait_until(lambda: seen(asker) == {"hub"}), nodes.said("asker")

        def asked(max_tokens: int) -> dict[str, Any]:
            body = {"model": "hub", "max_tokens": max_tokens, "manyminds": {"cache": "off"}}
            return ask(asker, body | {"messages": [{"role": "user", "content": "go on"}]})

        # A word brings the hub $0.001, and the other node may take $0.002 to read the question alone.
        refused = asked(1)
        assert "hub says" in refused["error"]["message"]
        assert "not enough for anybody here" in refused["error"]["message"]
        assert settled(nodes, "asker") == settled(nodes, "hub") == settled(nodes, "priced") == (0.0, 0.0)

        # A hundred words bring $0.1: enough for the longest answer of the other node.
        assert asked(100)["choices"][0]["message"]["content"].split() == far.words
        for name, owes_and_is_owed, cost_usd in (
            ("asker", (0.005, 0.0), {"hub": 0.005}),
            ("hub", (20 * 20e-6 + 5 * 200e-6, 0.005), {"priced": 0.0014}),
            ("priced", (0.0, 0.0014), {"sage": 0.0005}),
        ):
            assert wait_until(lambda: settled(nodes, name) == pytest.approx(owes_and_is_owed))  # noqa: B023
            assert last(nodes, name) == pytest.approx(cost_usd)

        # With a model of its own, it answers by that what does not pay for the other node.
        before = settled(nodes, "priced")
        with (nodes.folder / "hub/manyminds.toml").open("a") as file:
            file.write(expert("own", own.url))
        assert wait_until(lambda: seen(hub) == {"own", "priced"}), nodes.said("hub")
        assert asked(1)["choices"][0]["message"]["content"].strip() == "near"
        assert wait_until(lambda: last(nodes, "hub") == {"own": 0.0})
        assert settled(nodes, "priced") == before
    for name in ("asker", "hub", "priced"):
        assert "Traceback" not in nodes.said(name)
