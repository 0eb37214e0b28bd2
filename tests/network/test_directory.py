"""Who is here: the newest card of each node that holds, and nothing that anybody else says."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.network import card, directory
from manyminds.network.card import Claims
from manyminds.network.directory import Change, Directory
from manyminds.network.identity import Identity
from manyminds.network.transport import Sighting

NODES = [Identity.of_seed(bytes([i]) * 32) for i in range(8)]
OWN, ANN, BOB, EVE = NODES[:4]
NOW = 1_800_000_000.0


def shown(node: Identity = ANN, sequence: int = 1, valid_s: int = 900, name: str = "ann") -> bytes:
    says = Claims("", "", sequence, int(NOW) + valid_s, (1,))
    return card.made(node, says, name=name)


def sighting(node: Identity = ANN, **more: Any) -> Sighting:
    return Sighting(node.id, shown(node, **more))


def sequence_of(found: Directory, node: Identity = ANN) -> int | None:
    held = found.get(node.id)
    return None if held is None else held.says.sequence


def what(change: Change | None) -> tuple[str, str] | None:
    return None if change is None else (change.what, change.card.id)


def test_the_newest_card_counts_in_whatever_order_they_come() -> None:
    here = Directory(OWN.id)
    assert what(here.see(sighting(sequence=5), NOW)) == ("here", ANN.id)
    assert what(here.see(sighting(sequence=4), NOW)) == ("same", ANN.id)
    assert what(here.see(sighting(sequence=5), NOW)) == ("same", ANN.id)
    assert sequence_of(here) == 5
    assert what(here.see(sighting(sequence=6), NOW)) == ("here", ANN.id)
    assert sequence_of(here) == 6
    assert here.refused == {"old": 1}
    assert len(here) == 1


@given(st.permutations(range(6)))
def test_order_does_not_matter(sequences: list[int]) -> None:
    here = Directory(OWN.id)
    for sequence in sequences:
        here.see(sighting(sequence=sequence), NOW)
    assert sequence_of(here) == 5


def test_this_node_does_not_see_itself() -> None:
    here = Directory(OWN.id)
    assert here.see(sighting(OWN), NOW) is None
    assert here.see(Sighting(OWN.id), NOW) is None
    assert (len(here), here.refused.total()) == (0, 0)


def test_what_does_not_hold_is_refused_and_counted() -> None:
    here = Directory(OWN.id)
    here.see(sighting(), NOW)
    good = shown(sequence=9)
    cases = {
        "forged": good.replace(b'"sequence":9', b'"sequence":8'),
        "unreadable": b"no card",
        "foreign": shown(EVE, sequence=9),
    }
    for why, raw in cases.items():
        assert here.see(Sighting(ANN.id, raw), NOW) is None
        assert here.refused[why] == 1
    assert here.see(sighting(sequence=9, valid_s=-1), NOW) is None
    assert here.see(sighting(sequence=9, valid_s=90_000), NOW) is None
    assert here.refused["unreadable"] == 3
    assert sequence_of(here) == 1
    assert here.get(EVE.id) is None


def test_a_node_goes_and_comes_back() -> None:
    here = Directory(OWN.id)
    here.see(sighting(sequence=3), NOW)
    assert what(here.see(Sighting(ANN.id), NOW)) == ("left", ANN.id)
    assert here.see(Sighting(ANN.id), NOW) is None
    assert (len(here), here.cards) == (0, [])
    assert here.see(sighting(sequence=2), NOW) is None  # an older card of hers does not bring her back
    assert here.refused["old"] == 1
    assert what(here.see(sighting(sequence=3), NOW)) == ("here", ANN.id)  # hers does: it was somebody's word


def test_who_was_never_here_does_not_leave() -> None:
    here = Directory(OWN.id)
    assert here.see(Sighting(EVE.id), NOW) is None
    assert here.see(Sighting("no id at all"), NOW) is None
    assert len(here) == 0


def test_cards_run_out() -> None:
    here = Directory(OWN.id)
    for node, valid_s in ((ANN, 10), (BOB, 20), (EVE, 20)):
        here.see(sighting(node, valid_s=valid_s), NOW)
    here.see(Sighting(EVE.id), NOW)
    assert here.expire(NOW + 9.9) == []
    assert [what(change) for change in here.expire(NOW + 10)] == [("left", ANN.id)]
    assert [held.id for held in here.cards] == [BOB.id]
    assert [what(change) for change in here.expire(NOW + 20)] == [("left", BOB.id)]
    assert here._left == {}  # nothing is remembered of who is gone, once her cards hold no more


def test_an_old_card_does_not_come_back_when_a_newer_one_ran_out() -> None:
    here = Directory(OWN.id)
    here.see(sighting(sequence=2, valid_s=10), NOW)
    here.expire(NOW + 10)
    assert here.see(sighting(sequence=2, valid_s=10), NOW + 11) is None
    assert here.refused["unreadable"] == 1


def test_there_is_room_for_so_many_that_are_not_listed() -> None:
    here = Directory(OWN.id, listed=[NODES[6].id, NODES[7].id], most=1)
    for node in NODES[1:]:
        here.see(sighting(node), NOW)
    assert here.refused == {"crowded": 2}  # while who is listed is not here, others have her room
    listed = {NODES[6].id, NODES[7].id}
    assert listed < {held.id for held in here.cards}
    assert what(here.see(sighting(ANN, sequence=2), NOW)) == ("here", ANN.id)  # who is here is heard further


def test_who_is_listed_later_has_room_then() -> None:
    here = Directory(OWN.id, most=0)
    assert here.see(sighting(), NOW) is None
    here.relist([ANN.id])
    assert what(here.see(sighting(), NOW)) == ("here", ANN.id)


def test_who_goes_makes_no_room_for_a_flood() -> None:
    here = Directory(OWN.id, most=1)
    here.see(sighting(ANN), NOW)
    here.see(Sighting(ANN.id), NOW)
    assert here.see(sighting(BOB), NOW) is None
    assert here.refused["crowded"] == 1
    here.expire(NOW + 900)
    late = Sighting(BOB.id, shown(BOB, valid_s=2000))
    assert what(here.see(late, NOW + 900)) == ("here", BOB.id)


def test_a_flood_of_cards_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(shown())
    monkeypatch.setattr(directory, "_BURST", 3.0 * size)
    monkeypatch.setattr(directory, "_BYTES_PER_S", 1.0 * size)
    read = 0

    def counted(raw: bytes, now_s: float) -> card.NodeCard:
        nonlocal read
        read += 1
        return card.read(raw, now_s)

    monkeypatch.setattr(directory, "read", counted)
    here = Directory(OWN.id, listed=[BOB.id])
    for i in range(50):
        here.see(Sighting(f"{i:032}", shown(EVE)), NOW)
    assert (read, here.refused["foreign"], here.refused["crowded"]) == (3, 3, 47)
    assert what(here.see(sighting(BOB), NOW)) == ("here", BOB.id)  # who is listed is always heard
    for i in range(50):
        here.see(Sighting(f"{i:032}", shown(EVE)), NOW + 2)
    assert here.refused["foreign"] == 5
    here.see(Sighting(f"{99:032}", shown(EVE)), NOW - 1000)  # a clock that is set back gives nothing
    assert here.refused["foreign"] == 5


def test_a_card_that_has_not_changed_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Directory(OWN.id)
    here.see(sighting(), NOW)
    monkeypatch.setattr(directory, "read", None)
    assert what(here.see(sighting(), NOW)) == ("same", ANN.id)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(NODES), st.integers(0, 3), st.integers(1, 30), st.booleans(), st.integers(0, 9)
    ),
    max_size=30,
)


@given(EVENTS)
def test_who_is_here_has_a_card_that_holds(events: list[tuple[Identity, int, int, bool, int]]) -> None:
    here, now = Directory(OWN.id, most=4), NOW
    for node, sequence, valid_s, leaves, later_s in events:
        now += later_s
        before = {held.id: held.says.sequence for held in here.cards}
        change = here.see(
            Sighting(node.id) if leaves else sighting(node, sequence=sequence, valid_s=valid_s), now
        )
        assert change is None or (here.get(change.card.id) is not None) == (change.what != "left")
        for held in here.cards:
            assert held.says.sequence >= before.get(held.id, 0)
        here.expire(now)
        assert all(held.says.expires > now for held in here.cards)
        assert len(here) <= 4
        assert here.get(OWN.id) is None
    assert [held.id for held in here.cards] == sorted(held.id for held in here.cards)
    assert msgspec.json.encode([held.raw.decode() for held in here.cards])
