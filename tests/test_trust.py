"""The mathematics of trust: bounds, order, what wins over what, and what a swarm can gain."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.network.trust import (
    HOPS,
    MOST_EDGES,
    STRANGER,
    Deed,
    Edge,
    Record,
    bacon_rank,
    canaries,
    credited,
    honesty,
    lent,
    noted,
    prior,
    vouched,
)
from tests.changed import replace

Rank = Callable[..., dict[str, float]]

NODES = [f"n{i}" for i in range(7)]
ME = NODES[0]

shares = st.integers(0, 100).map(lambda i: i / 100)
counts = st.integers(0, 500).map(lambda i: i / 7)
any_weights = shares | st.sampled_from((-1.0, 2.0, math.inf, -math.inf, math.nan))
edges = st.builds(Edge, st.sampled_from(NODES), st.sampled_from(NODES), shares)
graphs = st.lists(edges, max_size=25, unique_by=lambda edge: (edge.source, edge.target))
records = st.builds(Record, counts, counts, counts, counts, st.integers(0, 5).map(float))
DEEDS: tuple[Deed, ...] = ("right", "wrong", "kept", "cut", "garbled", "unsigned", "overcharged")
deeds = st.lists(st.sampled_from(DEEDS), max_size=60)
RANKS: list[Rank] = [bacon_rank, lent]


def after(deeds: Iterable[Deed], record: Record | None = None) -> Record:
    record = record or Record()
    for deed in deeds:
        record = noted(record, deed)
    return record


# --- what others say -------------------------------------------------------------------------------


def naive(asker: str, graph: Sequence[Edge], hops: int) -> dict[str, float]:
    """Straight from the formula, for every node and every hop."""
    trust = {node: float(node == asker) for node in NODES}
    for _ in range(hops):
        trust = {
            m: 1.0
            if m == asker
            else 1.0 - math.prod(1.0 - trust[e.source] * e.weight for e in graph if e.target == m != e.source)
            for m in NODES
        }
    return trust


@settings(max_examples=300)
@given(graphs, st.integers(0, 5))
def test_bacon_rank_is_its_formula(graph: list[Edge], hops: int) -> None:
    found = bacon_rank(ME, graph, hops)
    for node, trust in naive(ME, graph, hops).items():
        assert found.get(node, 0.0) == pytest.approx(trust, abs=1e-12)


@settings(max_examples=200)
@given(
    st.lists(st.builds(Edge, st.sampled_from(NODES), st.sampled_from(NODES), any_weights), max_size=25),
    st.integers(0, 4),
    st.integers(0, 99),
)
@pytest.mark.parametrize("rank", RANKS)
def test_trust_is_a_share_and_no_bit_hangs_on_the_order(
    rank: Rank, graph: list[Edge], hops: int, seed: int
) -> None:
    found = rank(ME, graph, hops)
    assert all(0.0 <= trust <= 1.0 for trust in found.values())
    again = rank(ME, Random(seed).sample(graph, len(graph)), hops)
    assert list(again.items()) == list(found.items())


@settings(max_examples=200)
@given(graphs, st.integers(0, 24), shares, st.integers(1, 4))
@pytest.mark.parametrize("rank", RANKS)
def test_a_heavier_edge_and_a_further_hop_never_lessen_trust(
    rank: Rank, graph: list[Edge], at: int, more: float, hops: int
) -> None:
    heavier = [
        replace(edge, weight=max(edge.weight, more)) if i == at else edge for i, edge in enumerate(graph)
    ]
    before, after_, further = (
        rank(ME, graph, hops),
        rank(ME, heavier, hops),
        rank(ME, graph, hops + 1),
    )
    for node, trust in before.items():
        assert after_.get(node, 0.0) >= trust - 1e-12
        assert further.get(node, 0.0) >= trust - 1e-12


@given(st.lists(shares, min_size=1, max_size=6), st.integers(1, 8))
def test_along_a_path_trust_is_a_product_and_ends_with_the_hops(weights: list[float], hops: int) -> None:
    graph = [Edge(a, b, w) for (a, b), w in zip(pairwise(NODES), weights, strict=False)]
    ranked, lent_to = bacon_rank(ME, graph, hops), lent(ME, graph, hops)
    for i in range(1, len(weights) + 1):
        expected = math.prod(weights[:i]) if i <= hops else 0.0
        assert ranked.get(NODES[i], 0.0) == pytest.approx(expected, abs=1e-12)
        assert lent_to.get(NODES[i], 0.0) == pytest.approx(expected, abs=1e-12)


def test_what_does_not_count() -> None:
    said = [
        Edge(ME, "a", 0.5),
        Edge("a", "a", 1.0),
        Edge("a", ME, 1.0),
        Edge("b", "c", 1.0),
        Edge(ME, ME, 1.0),
    ]
    assert bacon_rank(ME, said) == {ME: 1.0, "a": 0.5}
    assert lent(ME, said) == {"a": 0.5}
    assert bacon_rank(ME, [Edge(ME, "a", 0.9), Edge(ME, "a", 0.2)])["a"] == pytest.approx(0.2)
    wild = [Edge(ME, "a", 7.0), Edge(ME, "b", -1.0), Edge(ME, "c", math.nan), Edge(ME, "d", math.inf)]
    assert bacon_rank(ME, wild) == {ME: 1.0, "a": 1.0}
    assert lent(ME, said, 0) == {}
    assert bacon_rank(ME, said, 0) == {ME: 1.0}


@pytest.mark.parametrize("rank", RANKS)
def test_who_vouches_for_very_many_is_heard_of_the_first(rank: Rank) -> None:
    crowd = [Edge("a", f"s{i:04}", 0.5 + (i >= 40) / 4) for i in range(1000)]
    found = rank(ME, [Edge(ME, "a", 1.0), *crowd])
    assert sorted(set(found) - {ME, "a"}) == [f"s{i:04}" for i in range(40, 40 + MOST_EDGES)]


def swarm(size: int, entry: float) -> list[Edge]:
    """Nodes that vouch for one another without reserve; the asker trusts one of them."""
    names = [f"s{i}" for i in range(size)]
    circle = [Edge(a, b, 1.0) for a in names for b in names if a != b]
    return [Edge(ME, "s0", entry), *circle]


@given(st.integers(2, 20), shares, st.integers(1, 5))
def test_a_swarm_is_trusted_no_more_than_the_friend_who_let_it_in(size: int, entry: float, hops: int) -> None:
    assert max(lent(ME, swarm(size, entry), hops).values(), default=0.0) <= entry + 1e-12


def test_the_formula_alone_lets_a_swarm_raise_itself() -> None:
    """Known of it, and why `lent` is another one."""
    assert bacon_rank(ME, swarm(10, 0.3), 1)["s0"] == pytest.approx(0.3)
    assert bacon_rank(ME, swarm(10, 0.3), 3)["s0"] > 0.9


@settings(max_examples=200)
@given(graphs, st.integers(1, 4))
def test_nobody_is_trusted_more_than_the_friends_by_whom_he_is_reached(graph: list[Edge], hops: int) -> None:
    friends = {edge.target: edge.weight for edge in graph if edge.source == ME != edge.target}
    reached = {
        friend: bacon_rank(friend, [e for e in graph if ME not in (e.source, e.target)], HOPS + 2)
        for friend in friends
    }
    for node, trust in lent(ME, graph, hops).items():
        most = 1.0 - math.prod(1.0 - weight for friend, weight in friends.items() if node in reached[friend])
        assert trust <= most + 1e-12


seen = st.dictionaries(st.sampled_from(NODES), records)


@settings(max_examples=200)
@given(graphs, seen, st.integers(0, 99))
def test_a_word_is_never_worth_more_than_was_said_and_knows_no_order(
    graph: list[Edge], known: dict[str, Record], seed: int
) -> None:
    found = credited(graph, known)
    assert [(e.source, e.target) for e in found] == [(e.source, e.target) for e in graph]
    assert all(0.0 <= now.weight <= then.weight for now, then in zip(found, graph, strict=True))
    shuffled = Random(seed).sample(graph, len(graph))
    key = lambda edge: (edge.source, edge.target)  # noqa: E731
    assert sorted(credited(shuffled, known), key=key) == sorted(found, key=key)
    assert credited(graph, {}) == graph


@given(st.integers(1, 30), st.integers(0, 30))
def test_who_promises_no_more_than_he_measured_keeps_his_word(right: int, wrong: int) -> None:
    record = Record(right=float(right), wrong=float(wrong))
    (edge,) = credited([Edge("a", "b", vouched(record))], {"b": record})
    assert edge.weight == vouched(record)


def test_a_swarm_falls_with_the_first_of_it_that_are_found_out() -> None:
    crowd = [Edge("door", f"s{i}", 1.0) for i in range(20)]
    graph = [Edge("friend", "door", 0.8), *crowd]
    own = Edge(ME, "friend", 0.9)
    assert lent(ME, [own, *credited(graph, {})])["s19"] == pytest.approx(0.72)
    lied = {f"s{i}": Record(wrong=4.0) for i in range(5)}
    assert lent(ME, [own, *credited(graph, lied)])["s19"] < 0.72 / 5
    lied["door"] = Record(right=5.0, wrong=15.0)
    found = lent(ME, [own, *credited(graph, lied)])
    assert found["s19"] < 0.04
    assert found["friend"] == pytest.approx(0.9)  # whom the asker knows itself


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0])
def test_what_is_no_weight_promises_nothing_that_is_not_clipped_later(weight: float) -> None:
    (edge,) = credited([Edge("a", "b", weight)], {"b": Record(wrong=3.0)})
    assert bacon_rank("a", [edge]).get("b", 0.0) in (0.0, 1.0)


# --- what was measured -----------------------------------------------------------------------------


@given(deeds, records)
def test_records_stay_counts_and_shares_stay_shares(done: list[Deed], record: Record) -> None:
    found = after(done, record)
    assert all(getattr(found, name) >= 0.0 for name in Record.__struct_fields__)
    assert 0.0 < honesty(found) <= 1.0
    assert 0.0 <= vouched(found) < 1.0


@given(records, shares, shares)
def test_a_prior_is_a_share_whatever_comes(record: Record, claimed: float, word: float) -> None:
    assert 0.0 <= prior(claimed, record, word) <= 1.0
    for wild in (math.nan, math.inf, -math.inf, -3.0, 3.0):
        assert 0.0 <= prior(wild, record, word) <= 1.0
        assert 0.0 <= prior(claimed, record, wild) <= 1.0


@given(records, shares, shares, st.floats(0.0, 50.0))
def test_what_is_better_is_never_trusted_less(
    record: Record, claimed: float, word: float, more: float
) -> None:
    before = prior(claimed, record, word)
    for name in ("right", "kept"):
        better = replace(record, **{name: getattr(record, name) + more})
        assert prior(claimed, better, word) >= before - 1e-12
        assert vouched(better) >= vouched(record) - 1e-12
    for name in ("wrong", "cut", "offences"):
        worse = replace(record, **{name: getattr(record, name) + more})
        assert prior(claimed, worse, word) <= before + 1e-12
        assert vouched(worse) <= vouched(record) + 1e-12
    assert prior(min(claimed + more / 100, 1.0), record, word) >= before - 1e-12


@given(st.builds(Record, st.just(0.0), counts, counts, counts), shares, shares, shares)
def test_the_word_of_others_never_hurts_who_was_not_seen_to_be_better(
    record: Record, claimed: float, one: float, two: float
) -> None:
    low, high = sorted((one, two))
    assert prior(claimed, record, high) >= prior(claimed, record, low) - 1e-12


@given(records, records, shares, shares, st.floats(0.0, 50.0))
def test_what_was_measured_in_a_field_counts_on_top(
    record: Record, within: Record, claimed: float, word: float, more: float
) -> None:
    anywhere, there = prior(claimed, record, word), prior(claimed, record, word, within)
    own = honesty(record) * within.right / max(within.right + within.wrong, 1e-9)
    assert min(anywhere, own) - 1e-9 <= there <= max(anywhere, own) + 1e-9 or not within.right + within.wrong
    assert prior(claimed, record, word, Record(kept=9.0)) == anywhere
    better, worse = replace(within, right=within.right + more), replace(within, wrong=within.wrong + more)
    assert prior(claimed, record, word, worse) <= there + 1e-12
    assert prior(claimed, record, word, better) >= there - 1e-12


def test_eight_answers_in_a_field_are_half_of_what_is_expected_there() -> None:
    good = Record(right=1000.0)
    assert prior(0.9, good, 0.0, Record(wrong=8.0)) == pytest.approx(prior(0.9, good) / 2)


def test_what_was_measured_wins_over_hearsay_and_hearsay_over_the_card() -> None:
    assert prior(0.99) == STRANGER
    assert prior(0.1) == pytest.approx(0.1)  # who claims less is believed
    assert prior(0.99, lent=1.0) == pytest.approx(0.99)
    assert prior(0.99, lent=0.4) < 0.6
    liar = Record(wrong=100.0)
    assert prior(0.99, liar, 1.0) < 0.08
    good = Record(right=90.0, wrong=10.0)
    assert prior(0.0, good, 0.0) == pytest.approx(0.9, abs=0.03)
    assert abs(prior(0.99, good, 1.0) - prior(0.0, good, 1.0)) < 0.08
    twenty = Record(right=10.0, wrong=10.0)
    assert abs(prior(0.9, twenty, 1.0) - 0.5) < abs(0.9 - 0.5) / 2  # so many weigh more than all words


def test_one_offence_is_sharp_and_hundreds_of_deeds_do_not_undo_it() -> None:
    new, old = after(["unsigned"]), after(["kept"] * 1000)
    assert honesty(new) < 0.1
    assert honesty(old) == 1.0
    assert honesty(noted(old, "overcharged")) < 0.84
    assert honesty(after(["kept"] * 50, new)) < 0.8
    assert honesty(after(["kept"] * 300, new)) < 0.9
    assert honesty(after(["kept"] * 5000, new)) > 0.99
    broke_off = after(["cut"], old)
    assert 0.95 < honesty(broke_off) < 1.0  # which may happen to anybody


@pytest.mark.parametrize("before", [100, 10_000])
def test_a_sleeper_is_found_out_as_soon_after_ten_thousand_right_answers_as_after_a_hundred(
    before: int,
) -> None:
    record, lies = after(["right"] * before), 0
    while prior(0.99, record, 1.0) > 0.5:
        record, lies = noted(record, "wrong"), lies + 1
    assert 30 <= lies <= 45


def test_nobody_vouches_for_whom_it_does_not_know() -> None:
    assert vouched(Record()) == 0.0
    assert vouched(Record(kept=1000.0)) == 0.0
    assert vouched(Record(right=8.0)) == 0.5


# --- canaries --------------------------------------------------------------------------------------

KNOWN = [f"q{i}" for i in range(200)]


def planned(
    day: int = 1, most: int = 5, seed: str = "secret", shuffle: int = 0
) -> list[tuple[str, str, float]]:
    seen = {"new": Record(), "old": Record(right=80.0, wrong=20.0), "leader": Record(right=90.0, wrong=10.0)}
    names, known = Random(shuffle).sample(sorted(seen), 3), Random(shuffle).sample(KNOWN, len(KNOWN))
    found = canaries(
        {name: seen[name] for name in names},
        {"leader": 0.8},
        known,
        {"new": KNOWN[:150]},
        most=most,
        seed=seed,
        day=day,
    )
    return [(canary.node, canary.question, canary.at) for canary in found]


def test_canaries_hang_on_the_secret_and_the_day_alone() -> None:
    assert planned() == planned(shuffle=3)
    assert planned() != planned(seed="another")
    assert planned() != planned(day=2)


def test_strangers_and_who_is_relied_on_are_tested_most() -> None:
    drawn = Counter(node for day in range(600) for node, _, _ in planned(day, most=1))
    assert drawn["new"] > 5 * drawn["old"]
    assert drawn["leader"] > 4 * drawn["old"] > 0


def test_a_canary_looks_like_any_other_question() -> None:
    """None comes twice to a node, none to two nodes on a day, and no hour of the day is special."""
    every = [planned(day) for day in range(200)]
    for day in every:
        assert len(day) == 5
        assert len({question for _, question, _ in day}) == 5
        assert max(Counter(node for node, _, _ in day).values()) <= 2
        assert [at for *_, at in day] == sorted(at for *_, at in day)
        assert all(question not in KNOWN[:150] for node, question, _ in day if node == "new")
    hours = Counter(int(4 * at) for day in every for *_, at in day)
    assert all(200 <= hours[quarter] <= 300 for quarter in range(4))


def test_without_questions_or_nodes_there_are_none() -> None:
    assert canaries({}, {}, KNOWN, {}, most=3, seed="s", day=0) == []
    assert canaries({"a": Record()}, {}, [], {}, most=3, seed="s", day=0) == []
    assert canaries({"a": Record()}, {}, KNOWN, {}, most=0, seed="s", day=0) == []
    assert canaries({"a": Record()}, {}, ["q"], {"a": ["q"]}, most=3, seed="s", day=0) == []
    assert len(canaries({"a": Record()}, {}, KNOWN, {}, most=9, seed="s", day=0)) == 2
