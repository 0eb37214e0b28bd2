"""Terms between real nodes: an owner's that holds to its own, who obeys, who does not, and a crash."""

import base64
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest

from manyminds.network import card, jws, receipt
from manyminds.network.ask import Accepted, Ask, new_ask, seal_ask
from manyminds.network.frames import Frame, Sealer, Told
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt
from manyminds.network.transport import pack
from tests.e2e.node import Served, wait_until
from tests.e2e.test_network import QUESTION, Nodes, ask, expert, manyminds, model, nodes, seen

__all__ = ["nodes"]

BUDGET = 5.0
OWNER = (
    '[network]\nname = "owner"\nurl = "https://owner.example"\nanswers = "anyone"\nmax_share = 0.4\n'
    f'budget_nats = {BUDGET}\nperiod = "total"\n'
)


class Hand:
    """An asker that was written by hand from docs/protocol.md, and asks as it likes."""

    def __init__(self, node: Served) -> None:
        self.identity = Identity.of_seed(os.urandom(32))
        self.url = node.url.removesuffix("/v1")
        with urllib.request.urlopen(f"{self.url}/.well-known/agent-card.json", timeout=10) as response:
            self.card = card.read(response.read())

    def ask(self, terms: Accepted | None = None, purpose: str = "") -> tuple[Ask, Sealer, Iterator[Frame]]:
        """The ask, how to open and seal, and the frames as they come."""
        request = json.dumps({"model": "max", "messages": [{"role": "user", "content": QUESTION}]}).encode()
        own = new_ask(
            *(self.identity, self.card.id, request),
            deadline_s=30.0,
            budget_usd=0.0,
            hops=2,
            visited=(self.identity.id,),
            purpose=purpose,
            terms=terms,
        )
        sealer = Sealer(jws.from_base64url(own.reply_key), answers=False)
        return own, sealer, self._frames(own, sealer)

    def _frames(self, own: Ask, sealer: Sealer) -> Iterator[Frame]:
        with self._post("ask", seal_ask(self.identity, own, self.card.exchange)) as response:
            for line in response:
                data = line.removeprefix(b"data: ").strip()
                if data and data != b"[DONE]":
                    frame = sealer.open_frame(base64.b64decode(data))
                    assert frame is not None
                    yield frame

    def last(self, terms: Accepted | None = None, purpose: str = "") -> Frame:
        """The end of the answer."""
        *_, last = self.ask(terms, purpose)[2]
        return last

    def granted(self, nats: float, least_nats: float = 0.0, settled: float | None = None) -> float | None:
        """What was granted, and settled if it was said; None where that was refused."""
        own, sealer, frames = self.ask(Accepted(0.4, nats, least_nats), "law")
        *_, last = frames
        if last.answered is None:
            assert last.failed is not None
            assert (last.failed.code, last.failed.status) == ("insufficient_quota", 429), last.failed
            return None
        made, signed = receipt.read(last.answered.receipt.encode())
        assert (made.purpose, made.max_share, made.nats) == ("law", 0.4, last.answered.nats)
        if settled is not None:
            counter = msgspec.to_builtins(receipt.countersign(self.identity, signed))
            told = sealer.seal(Told(countersigned=counter, settled_nats=settled))
            with self._post("tell", pack(own.id, told)) as response:
                assert response.status == 204
        assert isinstance(made, Receipt)
        return made.nats

    def _post(self, what: str, sent: bytes) -> Any:
        headers = {"content-type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.url}/network/v1/{what}", sent, headers)
        return urllib.request.urlopen(request, timeout=30)


def receipts(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manyminds(folder, "ledger", "receipts", "--limit", "1000")
    return found


def test_an_owners_node_refuses_who_ignores_its_terms(tmp_path: Path, nodes: Nodes) -> None:
    with model("The answer is B) 23") as words:
        owner = nodes.start("owner", expert("thinker", words.url) + OWNER)
        hand = Hand(owner)
        says = hand.card.says.terms
        assert (says.max_share, says.budget_nats, says.period) == (0.4, BUDGET, "total")
        for terms, why in (
            (None, "`terms.max_share` of 0.4 or less"),
            (Accepted(0.5, 1.0), "`terms.max_share` of 0.4 or less"),
            (Accepted(0.4), "5 nats in its period (total)"),
            (Accepted(0.4, 0.0), "`terms.nats`"),
        ):
            failed = hand.last(terms).failed
            assert failed is not None
            assert (failed.status, failed.code) == (403, "forbidden")
            assert why in failed.message
        assert words.asked.is_set() is False

        assert hand.granted(2.0, settled=0.5) == 2.0
        assert wait_until(lambda: [row["settled_nats"] for row in receipts(tmp_path / "owner")] == [0.5])
        assert hand.granted(4.0, settled=9.0) == 4.0  # half a nat is spent; no more than was granted is
        assert hand.granted(4.0, least_nats=1.0) is None
        left = hand.granted(4.0)
        assert left == pytest.approx(0.5)
        assert hand.granted(0.1) is None
    assert wait_until(lambda: len(receipts(tmp_path / "owner")) == 3)
    (row,) = manyminds(tmp_path / "owner", "ledger", "settle", "--by-purpose")
    assert (row["id"], row["purpose"], row["answered_answers"]) == (hand.identity.id, "law", 3)
    assert row["answered_granted_nats"] == pytest.approx(6.5)
    assert row["answered_settled_nats"] == pytest.approx(BUDGET)
    assert "Traceback" not in nodes.said("owner")


def test_an_owner_that_is_killed_in_the_midst_has_given_no_more_than_there_was(
    tmp_path: Path, nodes: Nodes
) -> None:
    toml, given = OWNER, []
    with model("The answer is B) 23", waits=True) as words:
        owner = nodes.start("owner", expert("thinker", words.url) + toml)
        hand = Hand(owner)

        def hang() -> None:
            """Two nats are granted to this one; nobody ever hears of its end."""
            with suppress(OSError, ValueError):
                hand.last(Accepted(0.4, 2.0))

        hanging = Thread(target=hang)
        hanging.start()
        words.asked.wait()
        words.asked.clear()
        os.kill(owner.pid, signal.SIGKILL)
        hanging.join()
        given.append(2.0)
    with model("The answer is B) 23") as words:
        owner = nodes.start("owner", expert("thinker", words.url) + toml)
        hand = Hand(owner)
        while (granted := hand.granted(0.7)) is not None:
            given.append(granted)
        assert 2.0 + 0.7 <= sum(given) <= BUDGET + 1e-9
        os.kill(owner.pid, signal.SIGKILL)
        owner = nodes.start("owner", expert("thinker", words.url) + toml)
        assert Hand(owner).granted(0.01) is None


def test_a_call_that_is_no_longer_needed_costs_its_owner_nothing(tmp_path: Path, nodes: Nodes) -> None:
    """Two others are enough while the owner is in the midst of its answer: what it granted comes back."""
    right = "The answer is B) 23"
    with (
        model(right, waits=True) as own,
        model(right, waits=True) as one,
        model(right, waits=True) as two,
    ):
        owner = nodes.start("owner", expert("thinker", own.url) + OWNER)
        asker = nodes.start(
            "asker", expert("first", one.url) + expert("second", two.url) + '[network]\nname = "asker"\n'
        )
        manyminds(tmp_path / "asker", "federate", owner.url.removesuffix("/v1"), "--name", "owner")
        assert wait_until(lambda: "owner" in seen(asker)), nodes.said("asker")

        def go_on() -> None:
            own.asked.wait()
            one.more.set()
            two.more.set()

        others = Thread(target=go_on)
        others.start()
        body = {
            "model": "max",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 50,
            "manyminds": {"panel": 3, "strategy": "vote", "quorum": 2, "cache": "off"},
        }
        panel = {entry["expert"]: entry for entry in ask(asker, body)["manyminds"]["panel"]}
        others.join()
        assert panel["owner"]["status"] == "cancelled", panel
        own.more.set()
        hand = Hand(owner)
        assert wait_until(lambda: hand.granted(BUDGET, BUDGET, settled=0.0) == BUDGET)
    assert [row["peer"] for row in receipts(tmp_path / "owner")] == [hand.identity.id]


def test_who_stands_for_an_owner_holds_to_his_terms_for_others(tmp_path: Path, nodes: Nodes) -> None:
    """An asker asks a hub, which has two experts and asks the owner: the purpose goes on, the hub settles."""
    right = "The answer is B) 23"
    with model(right) as own, model(right) as one, model(right) as two:
        owner = nodes.start("owner", expert("thinker", own.url) + OWNER + 'purposes = ["law"]\n')
        hub = nodes.start(
            "hub",
            expert("first", one.url)
            + expert("second", two.url)
            + '[network]\nname = "hub"\nurl = "https://hub.example"\nanswers = "anyone"\npurpose = "sales"\n',
        )
        url = owner.url.removesuffix("/v1")
        agreed = manyminds(tmp_path / "hub", "federate", url, "--name", "owner", "--speaks-for")
        assert wait_until(lambda: "owner" in seen(hub)), nodes.said("hub")
        hand = Hand(hub)
        assert hand.card.says.terms.budget_nats is None

        def settled() -> list[tuple[str, str]]:
            rows = receipts(tmp_path / "owner")
            return [(row["peer"], row["purpose"]) for row in rows if row["settled_nats"] is not None]

        for purpose, asked in (("law", 1), ("sales", 1), ("law", 2)):
            assert hand.last(purpose=purpose).answered is not None
            assert wait_until(lambda count=asked: len(settled()) == count), settled()
        assert settled() == [(agreed["own_id"], "law")] * 2
    assert len(receipts(tmp_path / "owner")) == 2
    for name in ("hub", "owner"):
        assert "Traceback" not in nodes.said(name)


def test_an_asker_that_obeys_is_answered_and_settles(tmp_path: Path, nodes: Nodes) -> None:
    """Each question takes all that is left of the budget, and what it did not move comes back."""
    right = "The answer is B) 23"
    with model(right) as own, model(right) as one, model(right) as two:
        owner = nodes.start("owner", expert("thinker", own.url) + OWNER)
        asker = nodes.start(
            "asker", expert("first", one.url) + expert("second", two.url) + '[network]\nname = "asker"\n'
        )
        manyminds(tmp_path / "asker", "federate", owner.url.removesuffix("/v1"), "--name", "owner")
        assert wait_until(lambda: "owner" in seen(asker)), nodes.said("asker")
        body = {
            "model": "max",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 50,
            "manyminds": {"panel": 3, "strategy": "vote", "purpose": "law", "cache": "off"},
        }

        def settled() -> list[float]:
            rows = reversed(receipts(tmp_path / "owner"))
            return [row["settled_nats"] for row in rows if row["settled_nats"] is not None]

        moved: list[float] = []
        for _ in range(3):
            told = ask(asker, body)["manyminds"]
            panel = {entry["expert"]: entry for entry in told["panel"]}
            assert panel["owner"]["status"] == "ok", panel
            (owed,) = [found for found in told["attribution"] if found["source"] == "owner"]
            (bound,) = [found for found in told["granted"] if found["source"] == "owner"]
            assert 0 < owed["share"] <= 0.4 == bound["max_share"]
            assert 0 < owed["divergence"] <= bound["nats"]
            moved.append(owed["divergence"])
            assert wait_until(lambda: len(settled()) == len(moved))
        assert settled() == pytest.approx(moved)
        granted = [row["granted_nats"] for row in reversed(receipts(tmp_path / "owner"))]
        left = [BUDGET - sum(moved[:i]) for i in range(3)]
        assert granted == pytest.approx(left, abs=1e-6)
        assert sum(granted) > BUDGET > sum(moved)
    (row,) = manyminds(tmp_path / "owner", "ledger", "settle", "--by-purpose")
    (asked,) = manyminds(tmp_path / "asker", "ledger", "settle", "--by-purpose")
    assert (row["purpose"], asked["purpose"], asked["peer"]) == ("law", "law", "owner")
    assert row["answered_settled_nats"] == asked["asked_settled_nats"] == pytest.approx(sum(moved))
    for name in ("asker", "owner"):
        assert "Traceback" not in nodes.said(name)
