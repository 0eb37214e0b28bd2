"""What a node thinks of others, and what it calls them."""

import time
from pathlib import Path

import pytest

from manyminds.errors import ConfigError
from manyminds.network.card import PROTOCOL, Claim, Claims, NodeCard, Vouch, made, read
from manyminds.network.identity import Identity
from manyminds.node.names import Names
from manyminds.node.regard import Regard
from manyminds.types import Outcome

A, B, C = (Identity.of_seed(bytes([i]) * 32) for i in (1, 2, 3))


def card(identity: Identity, accuracy: float, *vouches: Vouch) -> NodeCard:
    says = Claims(
        *("", "", time.time_ns() // 10**6, int(time.time()) + 60, (PROTOCOL,)),
        claims=(Claim(accuracy),),
        vouches=vouches,
    )
    return read(made(identity, says, name="any"))


def graded(name: str, correct: float, place: int, weight: float = 1.0) -> Outcome:
    return Outcome("r", name, "ok", None, 0.0, 0, correct=correct, weight=weight, place=place)


def test_claims_are_believed_as_far_as_their_node_is_trusted() -> None:
    cards = [card(B, 0.9), card(C, 0.9)]
    found = Regard(A.id).accuracies(cards, {B.id: 1.0, C.id: 0.0})
    assert found[B.id] == pytest.approx(0.9)
    assert found[C.id] == pytest.approx(0.25)


def test_a_friend_s_word_counts_until_it_turns_out_wrong() -> None:
    cards = [card(B, 0.9, Vouch(C.id, 1.0)), card(C, 0.9)]
    regard = Regard(A.id)
    given = {B.id: 1.0, C.id: 0.0}
    before = regard.accuracies(cards, given)[C.id]
    assert before > 0.8
    regard.hear([graded("c", 0.0, place) for place in range(1, 30)], {"c": C.id})
    after = regard.accuracies(cards, given)
    assert after[C.id] < 0.1
    assert after[B.id] == pytest.approx(0.9)


def test_what_was_measured_wins_and_is_told_to_others() -> None:
    regard = Regard(A.id)
    assert not regard.vouches
    regard.hear([graded("b", 1.0, place) for place in range(1, 40)], {"b": B.id})
    (vouch,) = regard.vouches
    assert vouch.node == B.id
    assert vouch.weight > 0.5
    regard.note(B.id, "unsigned")
    assert regard.accuracies([card(B, 0.9)], {B.id: 1.0})[B.id] < 0.15


def test_an_outcome_counts_once_and_guesses_never() -> None:
    once, again = Regard(A.id), Regard(A.id)
    outcomes = [graded("b", 1.0, place) for place in (1, 2)]
    once.hear(outcomes, {"b": B.id})
    again.hear(outcomes, {"b": B.id})
    again.hear([*outcomes, graded("b", 0.0, 3, weight=0.1), graded("stranger", 0.0, 4)], {"b": B.id})
    cards, given = [card(B, 0.5)], {B.id: 1.0}
    assert once.accuracies(cards, given) == again.accuracies(cards, given)


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
