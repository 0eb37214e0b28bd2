"""A node among others: who is asked, by what name, on which way, and who is not."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyminds import types
from manyminds.config import load
from manyminds.errors import ConfigError
from manyminds.ledger import Ledger
from manyminds.network import card as cards
from manyminds.network.card import Claims, Skill, Terms, quantised
from manyminds.network.identity import Identity, member_of
from manyminds.network.transport import Sighting
from manyminds.node.membership import Membership
from manyminds.types import Card, Chunk, Expert, Outcome, Query
from manyminds.upstream import Client
from manyminds.web.door import everybody
from tests.changed import replace
from tests.network.sides import heard_of

OWN, ANN, BOB, EVE = (Identity.of_seed(bytes([i]) * 32) for i in range(4))
NETWORK = '[network]\nname = "own"\nurl = "https://own.example"\n'


class House:
    """Stands where the node would: what is taken in, and let go."""

    def __init__(self) -> None:
        self.admission = everybody()
        self.own_cards = [Card("house", "local", skills=("law",), accuracy=0.7)]
        self.own_names = {"house"}
        self.paused: set[str] = set()
        self.here: dict[str, tuple[Expert, Any, Any]] = {}
        self.left: list[str] = []
        self.forgotten: list[str] = []
        self.news = asyncio.Event()

    def skills(self, names: Any = None) -> Any:
        return np.array([[1, 0, 0]], np.float32)

    async def answer(self, query: Query) -> AsyncGenerator[Chunk, None]:
        yield Chunk(query.question)

    def take_in(self, expert: Expert, vectors: Any, made_of: object) -> None:
        self.here[expert.card.name] = (expert, vectors, made_of)
        self.news.set()

    def let_go(self, name: str) -> None:
        del self.here[name]
        self.left.append(name)

    def forget(self, name: str) -> None:
        self.forgotten.append(name)


class Way:
    """A transport that shows nothing by itself."""

    notices = False

    def __init__(self) -> None:
        self.shown: list[bytes] = []

    def announce(self, card: bytes) -> None:
        self.shown.append(card)


def any_way() -> Any:
    return Way()


class Here:
    """A membership with two ways, the first of which was joined."""

    def __init__(self, membership: Membership, house: House) -> None:
        self.membership, self.house = membership, house
        self.joined = any_way()
        self.web: Any = membership._http
        membership._transports = [self.joined, self.web]

    def see(self, node: Identity, way: Any = None, *, gone: bool = False, **more: Any) -> None:
        shown = b"" if gone else card_of(node, **more)
        self.membership._see(way or self.joined, Sighting(node.id, shown))

    @property
    def names(self) -> dict[str, str]:
        """Ids by name, of those that are asked."""
        return {name: expert.card.model for name, (expert, _, _) in self.house.here.items()}

    def way(self, name: str) -> Any:
        expert: Any = self.house.here[name][0]
        return expert._line.transport


def card_of(node: Identity, name: str = "bob", **says: Any) -> bytes:
    now = time.time()
    fields: dict[str, Any] = {"sequence": int(now), "expires": int(now) + 900, "protocols": (1,)}
    return cards.made(node, Claims("", "", **(fields | says)), name=name, words=["tax"], description="d")


def peer(node: Identity, name: str, more: str = "") -> str:
    return f'[[peer]]\nname = "{name}"\nid = "{node.id}"\n{more}\n'


def played(
    folder: Path,
    story: Callable[[Here], Awaitable[None]],
    peers: str = "",
    network: str = "",
    secret: str = "",
) -> None:
    async def run() -> None:
        house = House()
        with closing(Ledger(f"sqlite:///{folder}/l.db")) as ledger:
            async with Client() as client:
                made = Membership(
                    read(folder, peers, network),
                    OWN,
                    house,
                    ledger,
                    client,
                    encoder="e",
                    dimension=3,
                    version="1",
                    secret=secret,
                )
                async with made as membership:
                    await story(Here(membership, house))

    asyncio.run(run())


def read(folder: Path, peers: str = "", network: str = "", experts: str = "") -> Any:
    (folder / "manyminds.toml").write_text(NETWORK + network + experts + peers)
    return load(folder / "manyminds.toml", {"MANYMINDS_HOME": str(folder)}, {})


# --- who is asked ----------------------------------------------------------------------------------


def test_who_does_not_know_the_secret_is_not_asked(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB)
        assert not here.names
        here.see(BOB, sequence=int(time.time()) + 1, member=member_of("hush", BOB.id))
        assert here.names == {"bob": BOB.id}
        here.see(EVE, name="eve", member=member_of("hush", BOB.id))  # another's
        assert here.names == {"bob": BOB.id}

    played(tmp_path, story, secret="hush")


@pytest.mark.parametrize(("claimed", "only"), [(0.0, True), (0.8, False)])
def test_documents_behind_a_node_are_shown_and_count(tmp_path: Path, claimed: float, only: bool) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, paragraphs=70, claims=(cards.Claim(claimed),), offers=("citations", "score"))
        card = here.house.here["bob"][0].card
        assert (card.paragraphs, card.offers) == (70, frozenset({"citations"}))
        assert (card.accuracy == 0.0) is only

    played(tmp_path, story)


def test_who_comes_is_asked_and_who_goes_is_not(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        skill = Skill(quantised(np.array([0, 1, 0], np.float32)))
        here.see(BOB, encoder="e", skills=(skill,), claims=(cards.Claim(0.8),), offers=("tools", "score"))
        expert, vectors, _ = here.house.here["bob"]
        assert (expert.card.kind, expert.card.source, expert.card.model) == ("peer", "bob", BOB.id)
        assert (expert.card.accuracy, expert.card.skills) == (0.8, ("tax",))
        assert expert.card.offers == {"tools"}
        assert vectors.tolist() == [[0, 1, 0]]
        assert [name for name, _ in here.membership.present] == ["bob"]
        here.see(BOB, gone=True)
        assert (here.names, here.house.left, here.membership.present) == ({}, ["bob"], [])
        here.see(BOB)
        assert here.names == {"bob": BOB.id}
        assert here.house.here["bob"][1] is None  # of another encoder, nothing is known of where it is

    played(tmp_path, story)


UNASKED: dict[str, dict[str, Any]] = {
    "other protocol": {"protocols": (2, 3)},
    "no expert": {"experts": 0},
    "other nodes": {"terms": Terms(nodes=(ANN.id, "zz*"))},
    "price": {"price_in_usd_per_m": 0.1},
    "price of answers": {"price_out_usd_per_m": 0.1},
}


@pytest.mark.parametrize("why", UNASKED)
def test_who_is_not_asked(tmp_path: Path, why: str) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, **UNASKED[why])
        assert here.names == {}
        here.see(BOB, sequence=int(time.time()) + 1)
        assert here.names == {"bob": BOB.id}
        here.see(BOB, sequence=int(time.time()) + 2, **UNASKED[why])
        assert here.names == {}

    played(tmp_path, story)


def test_who_has_a_price_is_asked_where_that_was_agreed(tmp_path: Path) -> None:
    limits = "pay_usd = 5.0\nprice_in_usd_per_m = 1.0\nprice_out_usd_per_m = 2.0"
    peers = peer(ANN, "ann", limits) + peer(BOB, "rob", "pay_usd = 5.0") + peer(EVE, "eve")

    async def story(here: Here) -> None:
        at = int(time.time())
        for i, (prices, asked) in enumerate(
            [
                ((1.0, 2.0), {"ann", "rob"}),
                ((1.1, 2.0), {"rob"}),
                ((1.0, 2.1), {"rob"}),
                ((0.0, 0.0), {"ann", "rob", "eve"}),
            ]
        ):
            for node in (ANN, BOB, EVE):
                says: dict[str, Any] = {"price_in_usd_per_m": prices[0], "price_out_usd_per_m": prices[1]}
                here.see(node, sequence=at + i, **says)
            assert set(here.names) == asked

    played(tmp_path, story, peers)


@pytest.mark.parametrize(
    ("own", "allowed"), [("research", {"research", "teaching", ""}), ("", {"research", "teaching"})]
)
def test_a_purpose_is_for_a_request_to_name_unless_this_node_does(
    tmp_path: Path, own: str, allowed: set[str]
) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, terms=Terms(("research", "teaching")))
        assert set(here.house.here["bob"][0].card.terms.purposes) == allowed

    played(tmp_path, story, network=f'purpose = "{own}"\n')


def test_a_nodes_terms_are_those_of_a_source(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, terms=Terms(requests_per_min=600, nodes=(OWN.id[:4] + "*",)))
        assert here.house.here["bob"][0].card.terms is types.FREE
        terms: dict[str, Any] = {"budget_nats": 3.0, "period": "day", "epsilon": 2.0, "delta": 1e-7}
        here.see(BOB, sequence=int(time.time()) + 1, terms=Terms(max_share=0.2, **terms))
        assert here.house.here["bob"][0].card.terms == types.Terms(max_share=0.2, **terms)

    played(tmp_path, story)


@pytest.mark.parametrize("asks", ["listed", "network"])
def test_only_peers_that_are_listed_and_asked(tmp_path: Path, asks: str) -> None:
    async def story(here: Here) -> None:
        for node in (ANN, BOB, EVE):
            here.see(node)
        expected = {"ann": ANN.id} | ({"bob": EVE.id} if asks == "network" else {})
        assert here.names == expected

    played(tmp_path, story, peer(ANN, "ann") + peer(BOB, "rob", "asks = false"), f'asks = "{asks}"\n')


def test_whom_it_prefers_depends_on_the_field(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(ANN, name="ann")
        here.see(BOB)
        right = {"ann": "maths", "bob": "law"}
        for place in range(1, 41):
            name, section = ("ann", "bob")[place % 2], ("maths", "law")[place // 2 % 2]
            known = Outcome("r", name, "ok", None, 0.0, 0, correct=float(right[name] == section))
            here.membership.hear([replace(known, place=place, section=section)])
        async with asyncio.timeout(20):
            while "law" not in (here.house.here["bob"][0].card.accuracy_in or ()):
                here.house.news.clear()
                await here.house.news.wait()
        ann, bob = (here.house.here[name][0].card.accuracy_in or {} for name in ("ann", "bob"))
        assert ann["maths"] > 0.7 > 0.3 > ann["law"]
        assert bob["law"] > 0.7 > 0.3 > bob["maths"]
        here.membership._show()
        said = {(one.node, one.field) for one in cards.read(here.membership.card).says.vouches}
        assert {(ANN.id, "maths"), (BOB.id, "law")} <= said

    played(tmp_path, story)


def test_what_nodes_did_is_remembered_over_restarts(tmp_path: Path) -> None:
    async def offend(here: Here) -> None:
        here.see(BOB, claims=(cards.Claim(0.9),))
        here.see(ANN, name="ann", claims=(cards.Claim(0.9),))
        assert here.house.here["bob"][0].card.accuracy == pytest.approx(0.9)
        for deed in ("kept", "kept", "unsigned", "cut"):
            here.house.here["bob"][0]._line.note(deed)  # type: ignore[attr-defined]

    async def remember(here: Here) -> None:
        here.see(BOB, claims=(cards.Claim(0.9),))
        here.see(ANN, name="ann", claims=(cards.Claim(0.9),))
        assert here.house.here["bob"][0].card.accuracy < 0.2
        assert here.house.here["ann"][0].card.accuracy == pytest.approx(0.9)
        kept = here.membership.records[BOB.id]
        assert (kept.kept, kept.cut, kept.offences) == pytest.approx((1.96, 1.0, 0.998), abs=0.02)

    played(tmp_path, offend)
    played(tmp_path, remember)
    played(tmp_path, remember)  # nothing new came


def test_what_cannot_be_read_is_not_taken_for_nothing(tmp_path: Path) -> None:
    async def story(_: Here) -> None:
        raise AssertionError("it was made")

    (tmp_path / "deeds.json").write_text('{"b": [1, 2, -1]}')
    with pytest.raises(ConfigError, match="move it away"):
        played(tmp_path, story)


# --- names -----------------------------------------------------------------------------------------


def test_nobody_takes_anothers_name(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        taken = ["house", "auto", "listed", "far"]
        for i, name in enumerate(taken):
            node = Identity.of_seed(bytes([50 + i]) * 32)
            here.see(node, name=name)
            assert here.names[f"{name}-{node.id[:6]}"] == node.id
        assert not set(taken) & set(here.names)
        here.see(BOB, name="bob")
        here.see(ANN, name=f"bob-{EVE.id[:6]}")
        here.see(EVE, name="bob")
        assert here.names["bob"] == BOB.id
        assert here.names[f"bob-{EVE.id[:6]}"] == ANN.id
        assert here.names[EVE.id] == EVE.id

    house = Identity.of_seed(bytes([99]) * 32)
    here_are = '[[expert]]\nname = "far"\nurl = "http://127.0.0.1:9/v1"\n' + peer(house, "listed")
    played(tmp_path, story, here_are)


def test_a_name_is_of_its_letters(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, name="My Node/1: x")
        here.see(ANN, name="--")
        assert set(here.names) == {"My-Node-1-x", "node"}

    played(tmp_path, story)


@pytest.mark.parametrize("order", [(ANN, BOB), (BOB, ANN)])
def test_a_name_that_is_listed_is_the_listed_nodes_from_then_on(
    tmp_path: Path, order: tuple[Identity, Identity]
) -> None:
    """Whichever of the two comes first among ids."""
    first, second = order

    async def story(here: Here) -> None:
        here.see(first, name="carl")
        here.see(second, name="dora")
        here.membership.relist(read(tmp_path, peer(second, "carl")))
        assert here.names == {"carl": second.id, f"carl-{first.id[:6]}": first.id}
        here.membership.relist(read(tmp_path))
        assert set(here.names.values()) == {first.id, second.id}
        assert here.names["dora"] == second.id

    played(tmp_path, story)


def test_who_is_listed_anew_is_settled_anew(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, price_out_usd_per_m=1.0)
        assert here.names == {}
        here.membership.relist(read(tmp_path, peer(BOB, "rob", "pay_usd = 1.0")))
        assert here.names == {"rob": BOB.id}
        here.membership.relist(read(tmp_path, peer(BOB, "rob", "pay_usd = 1.0\nasks = false")))
        assert here.names == {}

    played(tmp_path, story)


# --- ways ------------------------------------------------------------------------------------------


def test_what_was_joined_goes_before_https_and_https_stays(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, here.web)
        assert here.way("bob") is here.web
        here.see(BOB, here.joined)
        assert here.way("bob") is here.joined
        here.see(BOB, here.joined, gone=True)
        assert (here.way("bob"), here.house.left) == (here.web, [])
        here.see(BOB, here.web, gone=True)
        assert (here.names, here.membership._ways) == ({}, {})

    played(tmp_path, story)


def test_what_is_not_believed_is_no_way_and_is_not_kept(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, here.web)
        for shown in (b"no card", card_of(EVE), card_of(BOB).replace(b'"d"', b'"e"')):
            here.membership._see(here.joined, Sighting(BOB.id, shown))
        assert here.way("bob") is here.web
        for i in range(50):
            here.membership._see(here.joined, Sighting(f"{i:032}", b"no card"))
            here.membership._see(here.joined, Sighting(f"{i:032}"))
        assert set(here.membership._ways) == {BOB.id}

    played(tmp_path, story)


def test_who_says_that_somebody_has_gone_on_a_way_that_is_not_hers_changes_nothing(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, here.web)
        here.see(BOB, here.joined, gone=True)
        assert (here.way("bob"), here.house.left) == (here.web, [])

    played(tmp_path, story)


# --- for whom it speaks ----------------------------------------------------------------------------


def test_for_whom_it_speaks_and_to_whom_questions_are_passed_on(tmp_path: Path) -> None:
    """To other organisations for what it has joined; there for peers that it was told to speak for."""
    peers = peer(ANN, "ann") + peer(EVE, "eve", "speaks_for = true")

    async def story(here: Here) -> None:
        membership = here.membership
        here.see(BOB, here.joined, experts=7)
        here.see(ANN, here.web, experts=11)
        here.see(EVE, here.web, experts=13)
        counted = {}
        membership._show()
        for by_https in (True, False):
            counted[by_https] = cards.read(membership._cards[by_https]).says.experts
        assert counted == {True: 1 + 7 + 13, False: 1 + 13}
        assert membership.card == membership._cards[True]
        stranger = Identity.of_seed(bytes([77]) * 32)
        assert membership._beside(heard_of(stranger, OWN), True) == ["ann"]
        assert membership._beside(heard_of(stranger, OWN), False) == ["ann", "bob"]
        assert membership._beside(heard_of(BOB, OWN), True) == ["ann", "bob"]
        assert membership._beside(heard_of(stranger, OWN, (EVE.id,)), False) == ["ann", "bob", "eve"]

    played(tmp_path, story, peers)


def test_networks_within_networks_end(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.see(BOB, experts=7, levels=cards.LEVELS)
        here.see(ANN, experts=5, levels=cards.LEVELS - 1, name="ann")
        here.membership._show()
        says = cards.read(here.membership.card).says
        assert (says.experts, says.levels) == (6, cards.LEVELS)

    played(tmp_path, story)


def test_each_way_is_shown_its_card(tmp_path: Path) -> None:
    async def story(here: Here) -> None:
        here.membership._show()
        assert here.joined.shown == [here.membership._cards[False]]
        assert cards.read(here.membership.card).id == OWN.id

    played(tmp_path, story)


def test_who_comes_and_goes_where_everybody_sees_everybody_changes_no_card(tmp_path: Path) -> None:
    """Else each that leaves would have all others look at all others' cards."""

    async def story(here: Here) -> None:
        here.membership._show(again=False)
        assert here.joined.shown == []
        here.see(ANN)
        here.see(BOB)
        here.membership._show(again=False)
        here.see(ANN, gone=True)
        here.membership._show(again=False)
        assert here.joined.shown == []
        here.house.own_cards = [*here.house.own_cards, Card("annexe", "local")]
        here.membership._show(again=False)
        here.membership._show(again=False)
        assert len(here.joined.shown) == 1
        here.membership._show()
        assert len(here.joined.shown) == 2

    played(tmp_path, story)


def test_several_processes_are_not_one_node(tmp_path: Path) -> None:
    async def story(_: Here) -> None:
        raise AssertionError("it was made")

    with pytest.raises(ConfigError, match=r"workers = 1"):
        played(tmp_path, story, network="[server]\nworkers = 2\n")
