"""What a node says of itself counts as it last said it: whatever is replayed, forged or forgotten."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import CardError, ConfigError
from manyminds.network import card as cards
from manyminds.network.card import Claims, NodeCard
from manyminds.network.directory import Directory
from manyminds.network.identity import Identity
from manyminds.network.transport import Sighting
from manyminds.network.withdrawal import Withdrawal
from manyminds.node import revocation
from manyminds.node.revocation import Revocations
from tests.changed import replace

ANN, EVE = (Identity.of_seed(bytes([i]) * 32) for i in range(2))


def shown(word: Withdrawal | None, sequence: int, of: Identity = ANN, valid_s: int = 600) -> bytes:
    says = Claims("", "", sequence, int(time.time()) + valid_s, (1,), withdrawal=word)
    return cards.made(of, says, name="ann")


class Hearer:
    """Another node: its directory, and what it heeds and keeps."""

    def __init__(self, documents: dict[str, str] | None = None) -> None:
        self.kept = dict(documents or {})
        self.revoked = Revocations(self.kept)
        self.directory = Directory("me")
        self.directory.floors = self.revoked.floors

    def sees(self, raw: bytes, node: str = ANN.id) -> str | None:
        change = self.directory.see(Sighting(node, raw), time.time())
        if change is None or change.what != "here":
            return None
        what = self.revoked.hear(change.card)
        if what is not None:
            self.kept[node] = raw.decode()
        return what


def story(turns: Sequence[str]) -> list[bytes]:
    """Cards of a node, each newer than the one before: as it withdraws, comes back, or drops a source."""
    word, found = None, [shown(None, 1)]
    for i, turn in enumerate(turns, start=2):
        if turn == "withdraw":
            word = Withdrawal(i, True)
        elif turn == "source":
            word = Withdrawal(i, word.whole if word else False, ("s",))
        elif word is not None:
            word = replace(word, whole=False)
        found.append(shown(word, i))
    return found


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(("withdraw", "undo", "source", "nothing")), max_size=5), st.data())
def test_the_newest_word_counts_whatever_is_replayed(turns: list[str], data: Any) -> None:
    told = story(turns)
    order = data.draw(st.lists(st.integers(0, len(told) - 1), min_size=1, max_size=12))
    hearer, newest = Hearer(), 0
    for at in order:
        if data.draw(st.booleans()):
            hearer = Hearer(hearer.kept)  # it was started again
            newest = max([i for i, raw in enumerate(told) if raw.decode() in hearer.kept.values()], default=0)
        newest = max(newest, at)
        hearer.sees(told[at])
        word = cards.read(told[newest]).says.withdrawal
        assert hearer.revoked.is_out(ANN.id) == (word is not None and word.whole)


def test_what_each_word_does() -> None:
    hearer = Hearer()
    whole, back = Withdrawal(10, True), Withdrawal(10)
    assert hearer.sees(shown(None, 1)) is None
    old = shown(whole, 2)
    assert hearer.sees(old) == "withdrawn"
    assert hearer.sees(shown(whole, 3)) is None  # it says so again
    assert hearer.sees(shown(None, 1)) is None  # from before
    assert hearer.revoked.is_out(ANN.id)
    assert hearer.sees(shown(back, 4)) == "returned"
    assert hearer.sees(old) is None
    assert hearer.sees(shown(Withdrawal(11, sources=("s",)), 5)) == "renewed"
    again = Hearer(hearer.kept)
    for raw in (old, shown(whole, 3)):  # nor after a restart, in which no newer card is known
        assert again.sees(raw) is None
        assert not again.revoked.is_out(ANN.id)
    assert again.directory.refused["old"] == 2


def test_who_missed_it_forgets_all_the_same() -> None:
    """It was away while the node withdrew and came back."""
    assert Hearer().sees(shown(Withdrawal(10), 4)) == "renewed"


def test_nobody_else_can_say_it() -> None:
    hearer = Hearer()
    hearer.sees(shown(None, 1))
    forged = shown(Withdrawal(10, True), 5, EVE)
    assert hearer.sees(forged) is None  # another's card under this one's id
    changed = shown(Withdrawal(10), 6).replace(b'"at":10', b'"at":10,"whole":true')
    assert hearer.sees(changed) is None
    assert hearer.directory.refused == {"foreign": 1, "forged": 1}
    assert not hearer.revoked.is_out(ANN.id)
    assert Hearer({ANN.id: forged.decode()}).revoked.floors == {}
    with pytest.raises(CardError):
        cards.signed(changed)


def test_a_proof_holds_after_the_card_ran_out() -> None:
    raw = shown(Withdrawal(10, True), 2, valid_s=-5)
    with pytest.raises(CardError, match="ran out"):
        cards.read(raw)
    found: NodeCard = cards.signed(raw)
    assert found.says.withdrawal == Withdrawal(10, True)
    assert Hearer({ANN.id: raw.decode()}).revoked.is_out(ANN.id)


def test_the_word_is_kept(tmp_path: Path) -> None:
    assert revocation.read(tmp_path) is None
    revocation.write(tmp_path, Withdrawal(3, True, ("s",)))
    assert revocation.read(tmp_path) == Withdrawal(3, True, ("s",))
    (tmp_path / revocation.WORD).write_text("{}")
    with pytest.raises(ConfigError, match="manyminds withdraw"):
        revocation.read(tmp_path)


def test_whether_a_node_serves_is_known(tmp_path: Path) -> None:
    assert not revocation.is_served(tmp_path)
    with revocation.serving(tmp_path):
        assert revocation.is_served(tmp_path)
    assert not revocation.is_served(tmp_path)
