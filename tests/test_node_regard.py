"""What a node thinks of others, and what it calls them."""

import time
from pathlib import Path

import pytest

from manyminds.errors import ConfigError
from manyminds.network.card import PROTOCOL, Claim, Claims, NodeCard, Vouch, made, read
from manyminds.network.identity import Identity
from manyminds.network.trust import Record
from manyminds.node import deeds
from manyminds.node.names import Names
from manyminds.node.regard import Regard
from manyminds.types import Outcome
from tests.changed import replace

A, B, C = (Identity.of_seed(bytes([i]) * 32) for i in (1, 2, 3))


def card(identity: Identity, accuracy: float, *vouches: Vouch, law: float | None = None) -> NodeCard:
    says = Claims(
        *("", "", time.time_ns() // 10**6, int(time.time()) + 60, (PROTOCOL,)),
        claims=(Claim(accuracy),) if law is None else (Claim(accuracy), Claim(law, "law")),
        vouches=vouches,
    )
    return read(made(identity, says, name="any"))


def graded(name: str, correct: float, place: int, weight: float = 1.0, section: str = "") -> Outcome:
    known = Outcome("r", name, "ok", None, 0.0, 0, correct=correct, weight=weight)
    return replace(known, place=place, section=section)


def measured(**fields: tuple[int, int]) -> Regard:
    """What Ann thinks of Bob, after so many right and wrong answers in each field."""
    regard = Regard(A.id)
    for field, (right, wrong) in fields.items():
        for deed, count in (("right", right), ("wrong", wrong)):
            for _ in range(count):
                regard.note(B.id, deed, field)  # type: ignore[arg-type]
    return regard


def test_claims_are_believed_as_far_as_their_node_is_trusted() -> None:
    cards = [card(B, 0.9), card(C, 0.9)]
    found = Regard(A.id).expected(cards, {B.id: 1.0, C.id: 0.0})
    assert found[B.id].accuracy == pytest.approx(0.9)
    assert found[C.id].accuracy == pytest.approx(0.25)


def test_a_friend_s_word_counts_until_it_turns_out_wrong() -> None:
    cards = [card(B, 0.9, Vouch(C.id, 1.0)), card(C, 0.9)]
    regard = Regard(A.id)
    given = {B.id: 1.0, C.id: 0.0}
    before = regard.expected(cards, given)[C.id].accuracy
    assert before > 0.8
    regard.hear([graded("c", 0.0, place) for place in range(1, 30)], {"c": C.id})
    after = regard.expected(cards, given)
    assert after[C.id].accuracy < 0.1
    assert after[B.id].accuracy == pytest.approx(0.9)


def test_what_was_measured_wins_and_is_told_to_others() -> None:
    regard = Regard(A.id)
    assert not regard.vouches
    regard.hear([graded("b", 1.0, place) for place in range(1, 40)], {"b": B.id})
    (vouch,) = regard.vouches
    assert vouch.node == B.id
    assert vouch.weight > 0.5
    regard.note(B.id, "unsigned")
    assert regard.expected([card(B, 0.9)], {B.id: 1.0})[B.id].accuracy < 0.15


# --- by field --------------------------------------------------------------------------------------


def test_who_is_good_at_one_thing_is_expected_to_be_good_at_that() -> None:
    regard = Regard(A.id)
    places = iter(range(1, 99))
    for name, maths, law in (("b", 1.0, 0.0), ("c", 0.0, 1.0)):
        for _ in range(12):
            regard.hear([graded(name, maths, next(places), section="maths")], {"b": B.id, "c": C.id})
            regard.hear([graded(name, law, next(places), section="law")], {"b": B.id, "c": C.id})
    found = regard.expected([card(B, 0.7), card(C, 0.7)], {})
    b, c = found[B.id], found[C.id]
    assert b.accuracy == pytest.approx(c.accuracy, abs=0.03)
    assert b.accuracy_in["maths"] > 0.75 > 0.25 > c.accuracy_in["maths"]
    assert c.accuracy_in["law"] > 0.75 > 0.25 > b.accuracy_in["law"]


def test_of_a_field_that_nobody_knows_anything_of_there_is_nothing_to_say() -> None:
    found = measured(maths=(9, 0)).expected([card(B, 0.9), card(C, 0.9)], {B.id: 0.5})
    assert found[B.id].accuracy_in.keys() == {"maths"}
    assert found[C.id].accuracy_in == {}


def test_a_swarm_that_is_vouched_for_in_one_field_has_no_weight_in_another() -> None:
    swarm = [Identity.of_seed(bytes([i]) * 32) for i in range(50, 60)]
    words = [[Vouch(other.id, 1.0, "maths") for other in swarm if other is not one] for one in swarm]
    friend = card(B, 0.9, *(Vouch(one.id, 0.9, "maths") for one in swarm), Vouch(C.id, 0.9, "law"))
    cards = [friend, card(C, 0.9), *(card(one, 0.99, *said) for one, said in zip(swarm, words, strict=True))]
    found = measured(law=(9, 0)).expected(cards, {B.id: 0.8})
    assert found[C.id].accuracy_in["law"] > 0.6
    for one in swarm:
        assert found[one.id].accuracy_in["maths"] > 0.6
        assert "law" not in found[one.id].accuracy_in
        assert found[one.id].accuracy == pytest.approx(0.25)


def test_a_word_about_a_field_takes_the_place_of_one_about_all() -> None:
    cards = [card(B, 0.9, Vouch(C.id, 0.9), Vouch(C.id, 0.0, "law")), card(C, 0.9)]
    found = Regard(A.id).expected(cards, {B.id: 1.0})[C.id]
    assert found.accuracy > 0.8
    assert found.accuracy_in["law"] == pytest.approx(0.25)


def test_a_word_about_a_field_counts_until_it_turns_out_wrong_there() -> None:
    cards = [card(B, 0.9, Vouch(C.id, 0.9, "law"), Vouch(C.id, 0.9, "maths")), card(C, 0.9)]
    regard = Regard(A.id)
    regard.hear([graded("c", 0.0, place, section="law") for place in range(1, 40)], {"c": C.id})
    others = [*cards, card(Identity.of_seed(bytes([9]) * 32), 0.9)]
    found = regard.expected(others, {B.id: 1.0})
    assert found[C.id].accuracy_in["law"] < 0.1 < found[C.id].accuracy_in["maths"]


def test_a_claim_about_a_field_counts_there() -> None:
    found = Regard(A.id).expected([card(B, 0.9, law=0.3)], {B.id: 1.0})[B.id]
    assert found.accuracy == pytest.approx(0.9)
    assert found.accuracy_in == {"law": pytest.approx(0.3)}


def test_what_is_said_of_all_fields_was_measured_in_more_than_one() -> None:
    (only,) = measured(maths=(20, 0)).vouches
    assert (only.field, only.node) == ("maths", B.id)
    both = {vouch.field: vouch.weight for vouch in measured(maths=(20, 0), law=(10, 0)).vouches}
    assert both.keys() == {"", "maths", "law"}
    assert both["maths"] > both["law"] > 0.5
    assert {vouch.field for vouch in measured(maths=(7, 0)).vouches} == set()  # too little is known of it


def test_fields_are_bounded_and_are_names() -> None:
    regard = measured(**{f"f{i}": (9 + i, 0) for i in range(70)})
    assert len(regard.vouches) == 33
    assert {vouch.field for vouch in regard.vouches} >= {"", "f69", "f40"}
    regard.note(B.id, "right", "x" * 65)
    regard.note(B.id, "right", "line\nbreak")
    found = regard.expected([card(B, 0.5)], {B.id: 1.0})[B.id]
    assert len(found.accuracy_in) == 16
    assert all(len(field) < 5 for field in found.accuracy_in)


def test_strangers_do_not_choose_the_fields() -> None:
    noise = [Vouch(C.id, 0.9, f"z{i}") for i in range(60)]
    found = measured(law=(9, 0)).expected([card(B, 0.9), card(C, 0.9, *noise)], {B.id: 0.5})
    assert found[B.id].accuracy_in.keys() == {"law"}


def test_an_outcome_counts_once_and_guesses_never() -> None:
    once, again = Regard(A.id), Regard(A.id)
    outcomes = [graded("b", 1.0, place) for place in (1, 2)]
    once.hear(outcomes, {"b": B.id})
    again.hear(outcomes, {"b": B.id})
    again.hear([*outcomes, graded("b", 0.0, 3, weight=0.1), graded("stranger", 0.0, 4)], {"b": B.id})
    cards, given = [card(B, 0.5)], {B.id: 1.0}
    assert once.expected(cards, given) == again.expected(cards, given)


def test_a_name_stays_its_node_s(tmp_path: Path) -> None:
    file = tmp_path / "home" / "nodes.json"
    names = Names(file)
    assert names.of(A.id, "kitchen", ()) == "kitchen"
    assert names.of(B.id, "kitchen", ()) == f"kitchen-{B.id[:6]}"
    assert names.of(A.id, "kitchen", {"kitchen"}) == f"kitchen-{A.id[:6]}"
    assert names.of(C.id, "the attic/../x", ()) == "the-attic-..-x"
    assert names.of(C.id, "§§§", ()) == "node"
    again = Names(file)
    assert again.of(C.id, "kitchen", ()) == f"kitchen-{C.id[:6]}"
    assert again.of(A.id, "kitchen", ()) == "kitchen"
    assert dict(again.nodes) == dict(names.nodes) | {f"kitchen-{C.id[:6]}": C.id}
    file.write_text("[1")
    with pytest.raises(ConfigError, match="move it away"):
        Names(file)


def test_what_nodes_did_is_kept_of_so_many_and_those_least_trusted(tmp_path: Path) -> None:
    file = tmp_path / "home" / "deeds.json"
    assert deeds.read(file) == {}
    every = {f"n{i}": Record(kept=i + 0.25, cut=1.0, right=3.0) for i in range(10_050)}
    every["worst"] = Record(kept=1e6, offences=1e6)
    deeds.write(file, every)
    found = deeds.read(file)
    assert len(found) == 10_000
    assert found["worst"] == Record(kept=1e6, offences=1e6)
    assert found["n7"] == Record(kept=7.25, cut=1.0)
    assert "n10049" not in found
    assert [path.name for path in file.parent.iterdir()] == ["deeds.json"]


def test_answers_are_not_kept_twice() -> None:
    regard = Regard(A.id, {C.id: Record(kept=2.0)})
    regard.note(B.id, "right")
    regard.note(B.id, "kept")
    assert regard.deeds == {B.id: Record(kept=1.0), C.id: Record(kept=2.0)}
    assert Regard(A.id).deeds == {}
