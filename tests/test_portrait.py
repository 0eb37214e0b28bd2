"""What a node says of itself: of its experts, and of the nodes that it speaks for."""

import time
from typing import Any

import numpy as np
import pytest

from manyminds.config import Network
from manyminds.network import card as cards
from manyminds.network.card import Claim, Claims, NodeCard, Skill, quantised
from manyminds.node.portrait import Portrait
from manyminds.types import Card
from tests.network.sides import BOB

OWN = [
    Card("law", "local", skills=("law", "tax"), accuracy=0.71239, ttft_s=0.2, tokens_per_s=9.0,
         context_tokens=4000, offers=frozenset({"tools", "score", "grammar"}), parameters=270),
    Card("far", "openai", skills=("tax",), accuracy=0.6, ttft_s=0.5, tokens_per_s=90.0, context_tokens=9000,
         offers=frozenset({"json_schema"}), parameters=30),
    Card("vectors", "openai", accuracy=0.99, ttft_s=0.001, offers=frozenset({"embeddings"})),
]  # fmt: skip


def portrait(encoder: str = "e", dimension: int = 3, **terms: Any) -> Portrait:
    return Portrait(BOB, Network(**({"name": "bob"} | terms)), encoder, dimension, "1.2")


def rows(*every: tuple[float, ...]) -> Any:
    found = np.array(every, np.float32).reshape(len(every), -1 if every else 3)
    return found / np.linalg.norm(found, axis=1, keepdims=True) if every else np.zeros((0, 3), np.float32)


def shown(made: Portrait, own: Any = OWN, skills: Any = None, behind: Any = ()) -> NodeCard:
    return cards.read(made.card(own, rows() if skills is None else skills, behind))


def claims(**more: Any) -> Claims:
    return Claims("", "", 1, 1, (1,), **more)


def test_a_card_says_what_its_experts_can() -> None:
    terms: dict[str, Any] = {
        "price_in_usd_per_m": 0.1,
        "price_out_usd_per_m": 0.3,
        "url": "https://bob.example",
    }
    found = shown(portrait(**terms, purposes=("research",), answers="listed", requests_per_min=7))
    says = found.says
    assert (found.id, found.name, found.url) == (BOB.id, "bob", "https://bob.example")
    assert found.words == ("law", "tax")
    assert (says.experts, says.parameters, says.levels) == (3, 300, 1)
    assert says.claims == (Claim(0.712),)  # of who writes answers: vectors are none
    assert (says.ttft_s, says.tokens_per_s, says.context_tokens) == (0.2, 90.0, 9000)
    assert says.offers == ("json_schema", "tools")  # and none that only works in this house
    assert (says.price_in_usd_per_m, says.price_out_usd_per_m) == (0.1, 0.3)
    assert says.terms == cards.Terms(("research",), "listed", 7)
    assert 800 < says.expires - time.time() <= 900


def test_a_card_says_what_binds_whoever_asks() -> None:
    terms: dict[str, Any] = {"max_share": 0.2, "budget_nats": 3.0, "period": "day", "epsilon": 2.0}
    says = shown(portrait(**terms, callers=(BOB.id[:4] + "*",), delta=1e-7)).says.terms
    assert says == cards.Terms(requests_per_min=600, nodes=(BOB.id[:4] + "*",), delta=1e-7, **terms)
    free = shown(portrait()).raw
    assert not any(name.encode() in free for name in (*terms, "delta", "nodes"))


def test_a_node_without_experts_has_a_card_too() -> None:
    found = shown(portrait(), own=[])
    assert (found.says.experts, found.accuracy, found.words) == (0, None, ("answers questions",))


def test_a_node_without_a_name_is_called_as_its_machine() -> None:
    assert shown(portrait(name="")).name


def test_a_later_card_counts_more() -> None:
    before = time.time() * 1000
    sequence = shown(portrait()).says.sequence
    assert int(before) <= sequence <= time.time() * 1000


def test_who_speaks_for_others_counts_them() -> None:
    behind = [claims(experts=7, parameters=1000, levels=1), claims(experts=5, levels=3)]
    says = shown(portrait(), behind=behind).says
    assert (says.experts, says.parameters, says.levels) == (15, 1300, 4)


def test_skills_are_those_of_all_that_have_the_same_encoder() -> None:
    skill = Skill(quantised(rows((0, 1, 0))[0]), 5)
    behind = [
        claims(encoder="e", skills=(skill,)),
        claims(encoder="other", skills=(skill,)),
        claims(encoder="e", skills=(Skill("AAAA", 3), skill)),  # one of which is nowhere
        claims(encoder="e", skills=(Skill("AAECAw==", 3),)),  # of another dimension
    ]
    found = shown(portrait(), skills=rows((1, 0, 0)), behind=behind)
    assert [one.count for one in found.says.skills] == [1, 5]
    assert np.allclose(found.vectors(3), [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)], atol=0.01)


def test_of_many_skills_the_centroids_are_shown_and_all_are_counted() -> None:
    random = np.random.default_rng(7)
    skills = rows(*random.normal(size=(500, 8)))
    made = portrait(dimension=8)
    found = shown(made, skills=skills)
    assert 1 < len(found.says.skills) <= 64
    assert sum(one.count for one in found.says.skills) == 500
    assert np.allclose(np.linalg.norm(found.vectors(8), axis=1), 1, atol=1e-5)
    again = shown(made, skills=skills)
    assert again.says.skills == found.says.skills


def test_skills_are_called_as_the_nearest_of_those_that_they_stand_for() -> None:
    own, behind = rows((1, 0, 0), (0, 1, 0)), Skill(quantised(rows((0, 0, 1))[0]), 2, "tax")
    made = portrait().card(OWN, own, [claims(encoder="e", skills=(behind,))], labels=("fees", "x" * 99))
    assert [one.label for one in cards.read(made).says.skills] == ["fees", "x" * 60, "tax"]
    assert not any(one.label for one in cards.read(portrait().card(OWN, own, ())).says.skills)
    random = np.random.default_rng(7)
    many = np.repeat(np.eye(80, dtype=np.float32)[:70], 5, axis=0) + random.normal(size=(350, 80)) * 0.01
    many = (many / np.linalg.norm(many, axis=1, keepdims=True)).astype(np.float32)
    labels = [f"field {i // 5}" for i in range(350)]
    for skill in cards.read(portrait(dimension=80).card(OWN, many, (), labels=labels)).says.skills:
        (vector,) = cards.unit_rows([skill], 80)
        close = {labels[i] for i in np.flatnonzero(many @ vector > (many @ vector).max() - 0.05)}
        assert skill.label in close


def test_a_card_has_room_for_all_skills_with_what_they_are_called() -> None:
    skills = rows(*np.random.default_rng(7).normal(size=(64, 384)))
    made = portrait(dimension=384, callers=(BOB.id,) * 64)
    vouches = [cards.Vouch(BOB.id, 0.123, "f" * 64)] * 64
    raw = made.card(OWN, skills, (), vouches, labels=["x" * 60] * 64)
    assert len(raw) < cards.CARD_BYTES
    assert len(cards.read(raw).says.skills) == 64


def test_paragraphs_are_counted_and_citations_offered_also_of_those_behind() -> None:
    docs = Card("docs", "documents", accuracy=0.0, paragraphs=40, offers=frozenset({"citations"}))
    says = shown(portrait(), own=[docs], behind=[claims(paragraphs=2)]).says
    assert (says.paragraphs, says.offers, says.claims) == (42, ("citations",), (Claim(0.0),))
    assert shown(portrait(), own=[*OWN, docs]).accuracy == 0.712
    assert "citations" in shown(portrait(), behind=[claims(offers=("citations", "tools"))]).says.offers
    plain = shown(portrait())
    assert "paragraphs" not in plain.raw.decode()
    assert "citations" not in plain.says.offers


def test_without_an_encoder_there_are_no_skills() -> None:
    found = shown(portrait(encoder="", dimension=0), skills=np.zeros((0, 0), np.float32))
    assert (found.says.encoder, found.says.skills) == ("", ())


@pytest.mark.parametrize("words", [["x" * 401], ["ü" * 300] * 3000])
def test_words_do_not_make_a_card_that_nobody_can_read(words: list[str]) -> None:
    own = [Card("a", "local", skills=tuple(words))]
    assert shown(portrait(), own=own).id == BOB.id
