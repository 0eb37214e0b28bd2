"""Withdrawn for good, as its owner sees it: from gateways of one ledger, and from the nodes of others."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import Served, served, wait_until
from tests.e2e.test_network import QUESTION, Nodes, ask, expert, free_port, manyminds, model, seen

BODY = {
    "model": "max",
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 50,
    "manyminds": {"panel": 2, "strategy": "vote"},
}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


def asked(reply: dict[str, Any]) -> set[str]:
    return {line["expert"] for line in reply["manyminds"]["panel"]}


def from_cache(reply: dict[str, Any]) -> bool:
    return reply["manyminds"]["cache"] not in ("miss", None, "off")


def calls_of(folder: Path, name: str) -> int:
    return len(manyminds(folder, "ledger", "show", "--expert", name))


def test_gateways_of_one_ledger_part_with_an_expert(tmp_path: Path) -> None:
    ledger = {"MANYMINDS_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db"}
    with model("The answer is B) 23") as one, model("The answer is B) 23") as two, ExitStack() as stack:
        toml = (
            f"[cache]\nentries = 100\n{expert('one', one.url)}{expert('two', two.url)}"
            f'[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n[local]\ntier = "none"\n'
        )
        gateways = []
        for name, workers in (("first", "1"), ("second", "2")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "manyminds.toml").write_text(toml)
            flags = ("--workers", workers)
            gateways.append(stack.enter_context(served(tmp_path / name, *flags, tier="none", env=ledger)))
        for gateway in gateways:
            for _ in range(6):
                assert asked(ask(gateway, BODY)) == {"one", "two"}
            assert any(from_cache(ask(gateway, BODY)) for _ in range(6))
        before = calls_of(tmp_path / "first", "two")
        removed = manyminds(tmp_path / "first", "experts", "remove", "two")
        assert [row["name"] for row in removed["removed"]] == ["two"]
        events = ["withdrawn", "relearnt", "dropped", "dropped", "dropped"]
        assert wait_until(
            lambda: sorted(row["event"] for row in rows(tmp_path / "first")) == sorted(events)
        ), rows(tmp_path / "first")
        for gateway in gateways:
            assert seen(gateway) == {"one"}
            for _ in range(6):
                reply = ask(gateway, BODY)
                assert asked(reply) == {"one"}
            assert ask(gateway, {**BODY, "model": "two"})["error"]["code"] == "model_not_found"
        assert calls_of(tmp_path / "first", "two") == before
        assert sum(row["answers"] for row in rows(tmp_path / "first") if row["event"] == "dropped") >= 2
        (proof,) = (row for row in rows(tmp_path / "second") if row["event"] == "withdrawn")
        assert (proof["expert"], proof["source"], proof["who"]) == ("two", "two's owner", "owner")
        assert proof["requests"] > 0
        again = stack.enter_context(served(tmp_path / "first", tier="none", env=ledger))
        assert seen(again) == {"one"}
        manyminds(tmp_path / "second", "experts", "remove", "--undo", "two")
        assert wait_until(lambda: all("two" in seen(node) for node in (*gateways, again)))


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manyminds(folder, "ledger", "withdrawals")
    return found


def verified(folder: Path, content: Any) -> int:
    (folder / "proof.json").write_text(json.dumps(content))
    command = [sys.executable, "-m", "manyminds", "verify", "proof.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def heard(folder: Path, node: str) -> list[str]:
    """What is put down of a node's own words."""
    return [row["event"] for row in rows(folder) if row["who"] == node and row["document"]]


def test_a_node_withdraws_itself_and_comes_back(tmp_path: Path, nodes: Nodes) -> None:
    pytest.importorskip("zenoh", reason="needs Zenoh: pip install 'manyminds[net]'")
    port, web = free_port(), free_port()
    with model("The answer is B) 23") as here, model("The answer is B) 23") as there:
        seed = nodes.start(
            "seed",
            f"{expert('steady', there.url)}{expert('other', there.url)}"
            f'[network]\nname = "seed"\nlisten = "tcp/127.0.0.1:{port}"\n[server]\nport = {web}\n',
        )
        joined = (
            f"[cache]\nentries = 100\n{expert('own', here.url)}"
            f'[network]\nname = "asker"\njoin = ["tcp/127.0.0.1:{port}"]\n'
        )
        asker = nodes.start("asker", joined)
        byweb = nodes.start("byweb", f'{expert("mine", here.url)}[network]\nname = "byweb"\n')
        manyminds(tmp_path / "byweb", "federate", seed.url.removesuffix("/v1"), "--name", "seed")
        assert wait_until(lambda: "seed" in seen(asker)), nodes.said("asker")
        assert wait_until(lambda: "seed" in seen(byweb)), nodes.said("byweb")
        reply = ask(asker, BODY)
        assert asked(reply) == {"own", "seed"}
        assert from_cache(ask(asker, BODY))

        said = manyminds(tmp_path / "seed", "withdraw", "--source", "other's owner")
        node = said["id"]
        assert said["running"] is True
        assert wait_until(lambda: heard(tmp_path / "asker", node) == ["withdrawn", "returned"])
        assert wait_until(lambda: not from_cache(ask(asker, BODY)))
        assert asked(ask(asker, BODY)) == {"own", "seed"}  # it is asked still, as new

        manyminds(tmp_path / "seed", "withdraw")
        assert wait_until(lambda: "seed" not in seen(asker)), nodes.said("asker")
        assert wait_until(lambda: "seed" not in seen(byweb), 40.0), nodes.said("byweb")
        assert wait_until(lambda: heard(tmp_path / "asker", node)[2:] == ["withdrawn"])
        assert wait_until(lambda: not from_cache(ask(asker, BODY)))
        assert asked(ask(asker, BODY)) == {"own"}
        _check_proof(tmp_path / "asker", node)
        assert "steady" in seen(seed)  # its own callers have it

        manyminds(tmp_path / "seed", "withdraw", "--undo")
        assert wait_until(lambda: heard(tmp_path / "asker", node)[3:] == ["returned"])
        assert wait_until(lambda: "seed" in seen(asker)), nodes.said("asker")

        seed.process.terminate()
        seed.process.wait(20)
        said = manyminds(tmp_path / "seed", "withdraw", "--seconds", "12")
        assert said["running"] is False
        assert wait_until(lambda: heard(tmp_path / "asker", node)[4:] == ["withdrawn"])
        nodes.start("seed", (tmp_path / "seed" / "manyminds.toml").read_text().partition("[local]")[0])
        again = _restarted(tmp_path / "asker", asker, nodes, joined)
        assert "seed" not in seen(again)


def _restarted(folder: Path, node: Served, nodes: Nodes, toml: str) -> Served:
    node.process.terminate()
    node.process.wait(20)
    return nodes.start(folder.name, toml)


def _check_proof(folder: Path, node: str) -> None:
    """It holds offline; a card that somebody changed does not, nor one under another's name."""
    found = [row for row in rows(folder) if row["who"] == node]
    assert verified(folder, found) == 0
    last = found[-1]
    changed = last["document"].replace('"whole":true', '"whole":false')
    assert changed != last["document"]
    assert verified(folder, [{**last, "document": changed}]) == 1
    assert verified(folder, [{**last, "who": "a" * 32}]) == 1
