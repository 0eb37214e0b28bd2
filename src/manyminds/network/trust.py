"""How far a node trusts another one in a field: by what it measured, by what others say, by its card.

Pure: same numbers, same trust, in whatever order they came. Knows no transport, no clock and no signature:
who said what has been verified before, and whoever calls says what day it is. There is no global score:
every node has its own view, and two may rightly differ.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Final, Literal, TypeAlias

from msgspec import Struct

__all__ = [
    "HOPS",
    "MOST_EDGES",
    "STRANGER",
    "Canary",
    "Deed",
    "Edge",
    "Record",
    "bacon_rank",
    "canaries",
    "credited",
    "honesty",
    "lent",
    "noted",
    "prior",
    "vouched",
]

HOPS: Final = 3
"""How far trust is passed on: a friend of a friend of a friend."""

MOST_EDGES: Final = 32
"""Nodes that one node may vouch for: of more, those that it trusts most count."""

STRANGER: Final = 0.25
"""Accuracy expected of a node that nobody knows, whatever its card claims: below any that is worth a call."""

Deed: TypeAlias = Literal["right", "wrong", "kept", "cut", "garbled", "unsigned", "overcharged"]
"""What a node did: answered rightly or wrongly, as somebody knows; kept to the protocol, broke off, or
offended against it in one of three ways."""

_OFFENCES: Final = frozenset({"garbled", "unsigned", "overcharged"})
_ANSWERS: Final = 50.0  # that count: what is older fades
_DEEDS: Final = 100.0  # likewise
_FORGETS: Final = 1.0 - 1.0 / 1000.0  # what is left of an offence after another deed: half of it after 700
_FIRST: Final = 2.0  # deeds that a node is given on credit, as kept
_OFFENDS: Final = 20.0  # deeds that must be kept to make up for half of one offence
_CLAIM: Final = 2.0  # answers that a card's claim counts for, where nobody vouches
_WORD: Final = 6.0  # and as many more where others vouch without reserve
_ELSEWHERE: Final = 8.0  # answers that what is expected of it anywhere counts for in one field
_UNSURE: Final = 8.0  # answers without which nobody's word is good for anything: see `vouched`
_BROKEN: Final = 4.0  # answers short of what was promised, by which a word loses half of its worth
_TWICE: Final = 2  # canaries for one node a day at most


class Record(Struct, frozen=True):
    """What one node has seen of another in one field. All are counts, >= 0, faded: see `noted`.

    `right` and `wrong` are answers that somebody graded, those to canary questions among them.
    """

    right: float = 0.0
    wrong: float = 0.0
    kept: float = 0.0
    cut: float = 0.0
    offences: float = 0.0


class Edge(Struct, frozen=True):
    """One node vouches for another, in one field, as far as `weight`: w^d(source, target)."""

    source: str
    target: str
    weight: float


class Canary(Struct, frozen=True):
    """A question with a known answer for a node, to be put at this share of the day, in [0, 1)."""

    node: str
    question: str
    at: float


_NOTHING: Final = Record()


# --- what was measured -------------------------------------------------------------------------------


def noted(record: Record, deed: Deed) -> Record:
    """The record with one more deed. Each kind fades as more of it comes.

    Answers as if the last fifty counted, deeds as if the last hundred: so a node that was right a thousand
    times and then lies is found out as soon as one that was right a hundred times. Offences fade by a
    thousandth with each further deed.
    """
    r = record
    if deed in ("right", "wrong"):
        left = 1.0 - 1.0 / _ANSWERS
        is_right = deed == "right"
        return Record(left * r.right + is_right, left * r.wrong + (not is_right), r.kept, r.cut, r.offences)
    if deed in _OFFENCES:
        return Record(r.right, r.wrong, r.kept, r.cut, r.offences + 1.0)
    left, is_kept = 1.0 - 1.0 / _DEEDS, deed == "kept"
    return Record(
        r.right, r.wrong, left * r.kept + is_kept, left * r.cut + (not is_kept), _FORGETS * r.offences
    )


def honesty(record: Record) -> float:
    """How far a node keeps to the protocol, in (0, 1]: (2 + kept) / (2 + kept + cut + 20 offences).

    One offence of a newcomer leaves a tenth of its trust; and since no more than some hundred kept deeds
    count, one of anybody leaves less than .84, and it takes hundreds of deeds to make up for it.
    """
    r = record
    kept = _FIRST + max(r.kept, 0.0)
    return kept / (kept + max(r.cut, 0.0) + _OFFENDS * max(r.offences, 0.0))


def vouched(record: Record) -> float:
    """What a node may say of another to others, in [0, 1): honesty x right / (right + wrong + 8).

    By what it has measured alone: nothing of whom it does not know, so that hearsay is not passed on as
    knowledge. Rises with every right answer and falls with every wrong one.
    """
    right, wrong = max(record.right, 0.0), max(record.wrong, 0.0)
    return honesty(record) * right / (right + wrong + _UNSURE)


# --- what others say ---------------------------------------------------------------------------------


def bacon_rank(asker: str, edges: Iterable[Edge], hops: int = HOPS) -> dict[str, float]:
    """T(m) in (0, 1] of every node that trust reaches from the asker within so many hops, its own 1 included.

    T_0(asker) = 1; T_{h+1}(m) = 1 - prod over edges i -> m of (1 - T_h(i) w(i, m)); the last hop is the
    result. The asker's own trust stays 1 at each hop: so T_h counts all paths of at most h edges and never
    falls with h, while over paths of exactly h edges, whom the asker itself trusts would be forgotten after
    the first. Source: BaconRank, in A. Trask's thesis on attribution-based control; what becomes of the
    asker at later hops is our reading, since the formula leaves it open.

    Weights are clipped to [0, 1], and are 0 where they are no number; an edge to its own source, or back to
    the asker, says nothing; of two edges between the same nodes the lesser counts; of one node's edges the
    `MOST_EDGES` heaviest. Paths are taken as independent, so nodes that vouch for one another in a circle
    raise each other: it stands up to liars by themselves, and not to Sybils. See `lent`.
    O(edges x hops), beside sorting them; no bit depends on their order.
    """
    return _ranked(asker, _heard(edges), hops)


def lent(asker: str, edges: Iterable[Edge], hops: int = HOPS) -> dict[str, float]:
    """Trust in [0, 1] that others lend every node but the asker: what comes by one friend is capped by it.

    lent(m) = 1 - prod over the asker's own edges to n of (1 - w(asker, n) R_n(m)), where R_n is `bacon_rank`
    as n sees it, with one hop less, without the asker. R_n(m) is 1 at most: so whatever a swarm behind one
    friend says of itself, none of it is trusted more than that friend, and k friends who were deceived lend
    1 - prod(1 - w) at most. Where paths do not cross it is the same as `bacon_rank`; it is never more than
    the trust in the friends by whom a node is reached. The asker's own edge to m counts too.
    O(friends x edges x hops), friends <= `MOST_EDGES`.
    """
    heard = _heard(edge for edge in edges if edge.target != asker)
    doubts: dict[str, list[float]] = {}
    friends = heard.pop(asker, ())
    for friend, weight in friends:
        for node, trust in _ranked(friend, heard, hops - 1).items():
            doubts.setdefault(node, []).append(1.0 - weight * trust)
    return {node: 1.0 - math.prod(sorted(of)) for node, of in sorted(doubts.items())} if hops > 0 else {}


def credited(edges: Iterable[Edge], records: Mapping[str, Record]) -> list[Edge]:
    """The same edges, each as heavy as its source's word has turned out to be worth so far.

    A source that vouches for n nodes promises w of each of their answers to be right; where the asker has
    `records` of them, what was right less is short. Its word is worth honesty x 4 / (4 + all that is short),
    and what it was itself wrong more often than right is short, too. So whoever let a swarm in loses his
    voice with the first of its lies that are found out, and with it all of the swarm loses what he lent it,
    those included that nobody has tested. Who vouches for no more than `vouched` allows is hardly ever
    short. Sums over nodes are exact; O(edges).
    """
    said: dict[str, dict[str, float]] = {}
    every = list(edges)
    for edge in every:
        weight = min(max(edge.weight, 0.0), 1.0) if math.isfinite(edge.weight) else 0.0
        promised = said.setdefault(edge.source, {})
        promised[edge.target] = max(weight, promised.get(edge.target, 0.0))
    worth = {}
    for source, promised in said.items():
        own = records.get(source, _NOTHING)
        short = [max(own.wrong - own.right, 0.0)]
        for target, weight in promised.items():
            r = records.get(target, _NOTHING)
            short.append(max(weight * (r.right + r.wrong) - r.right, 0.0))
        worth[source] = honesty(own) * _BROKEN / (_BROKEN + math.fsum(short))
    return [Edge(edge.source, edge.target, edge.weight * worth[edge.source]) for edge in every]


_Heard: TypeAlias = dict[str, tuple[tuple[str, float], ...]]


def _heard(edges: Iterable[Edge]) -> _Heard:
    """Of each source, whom it vouches for and how far: what counts, the heaviest first."""
    said: dict[tuple[str, str], float] = {}
    for edge in edges:
        weight = min(max(edge.weight, 0.0), 1.0) if math.isfinite(edge.weight) else 0.0
        pair = edge.source, edge.target
        said[pair] = min(weight, said.get(pair, 1.0))
    by_source: dict[str, list[tuple[str, float]]] = {}
    for (source, target), weight in said.items():
        if source != target and weight > 0.0:
            by_source.setdefault(source, []).append((target, weight))
    return {
        source: tuple(sorted(targets, key=lambda edge: (-edge[1], edge[0]))[:MOST_EDGES])
        for source, targets in by_source.items()
    }


def _ranked(asker: str, heard: _Heard, hops: int) -> dict[str, float]:
    trust = {asker: 1.0}
    for _ in range(hops):
        doubts: dict[str, list[float]] = {}
        for source, known in trust.items():
            for target, weight in heard.get(source, ()):
                if target != asker:
                    doubts.setdefault(target, []).append(1.0 - known * weight)
        trust = {asker: 1.0} | {node: 1.0 - math.prod(sorted(of)) for node, of in doubts.items()}
    return dict(sorted(trust.items()))


# --- both, and the card ------------------------------------------------------------------------------


def prior(
    claimed_accuracy: float, record: Record = _NOTHING, lent: float = 0.0, within: Record = _NOTHING
) -> float:
    """The accuracy in [0, 1] to expect of a node: it takes the place of its card's claim for the router.

        believed = S + lent x (claimed - S),  S = `STRANGER`, or what is claimed where that is less
        measured = (right + (2 + 6 lent) believed) / (right + wrong + 2 + 6 lent)
        within   = (right_f + 8 measured) / (right_f + wrong_f + 8)
        prior    = honesty x within

    In a field f, what was measured there counts on top: `record` is of all answers, right_f and wrong_f of
    those in f alone; what is claimed and lent is of f, too, where anybody said so. Without an answer in f,
    `within` is `measured`; after eight it is half f's own.

    What was measured wins over what others say as it grows: they count for eight answers at most. What others
    say wins over the card: without anybody's word a claim is worth nothing, and with all of it no more than
    was claimed. Never falls with `right` or with what is claimed, nor with `lent` while no more was measured
    than is believed; never rises with `wrong` or with offences. The router takes it for eight
    graded answers and adds the grades that it knows itself: those that are in `record` too count twice,
    which makes it sooner sure and changes no limit.

    Args:
        claimed_accuracy: by its card; what is no number counts as 0.
        record: what was measured here.
        lent: of this node, by `lent` or `bacon_rank`, in [0, 1].
        within: what was measured here in the field that is asked about.
    """
    claimed = min(max(claimed_accuracy, 0.0), 1.0) if math.isfinite(claimed_accuracy) else 0.0
    word = min(max(lent, 0.0), 1.0) if math.isfinite(lent) else 0.0
    nothing = min(STRANGER, claimed)
    believed = nothing + word * (claimed - nothing)
    right, wrong, counts = max(record.right, 0.0), max(record.wrong, 0.0), _CLAIM + _WORD * word
    measured = (right + counts * believed) / (right + wrong + counts)
    right, wrong = max(within.right, 0.0), max(within.wrong, 0.0)
    return honesty(record) * min((right + _ELSEWHERE * measured) / (right + wrong + _ELSEWHERE), 1.0)


# --- canary questions --------------------------------------------------------------------------------


def canaries(
    records: Mapping[str, Record],
    relied: Mapping[str, float],
    known: Sequence[str],
    asked: Mapping[str, Collection[str]],
    *,
    most: int,
    seed: str,
    day: int,
) -> list[Canary]:
    """Whom to test today, by which question, and when; sorted by when.

    A node that is honest only while it is tested must not be able to tell. So a canary is a question that
    was really asked once and whose answer is known by now: no node gets one twice, and no two nodes get
    the same on one day, so that they cannot compare notes. When is drawn evenly over the day; whoever puts
    it does so as one more question among others, by the same code and with the same limits. Nodes are
    drawn without replacement in each of two rounds, with weights 1 / sqrt(1 + right + wrong) for what is not
    known of them, plus the share of requests that rely on them: strangers first, and whoever matters.

    Deterministic by `seed` and `day`, whatever the order of the arguments. The seed is a secret of the
    asking node: who knows it knows the canaries. O(most x (nodes + questions)).

    Args:
        records: of every node that may be asked.
        relied: share in [0, 1] of requests for which the routing asks each; 0 without.
        known: ids of questions with known answers.
        asked: ids that each node has been asked before, as canaries or otherwise.
        most: canaries of all nodes together.
        seed: a secret.
        day: any number that differs from day to day.
    """
    draw = Random(f"{seed} {day}")  # noqa: S311 - a secret seed makes it secret enough: nothing is signed by it
    left, found = sorted(set(known)), list[Canary]()
    for _ in range(_TWICE):
        nodes = {name: _due(records[name], relied.get(name, 0.0)) for name in sorted(records)}
        while nodes and left and len(found) < most:
            (node,) = draw.choices(list(nodes), list(nodes.values()))
            del nodes[node]
            fresh = [question for question in left if question not in asked.get(node, ())]
            if fresh:
                question = draw.choice(fresh)
                left.remove(question)
                found.append(Canary(node, question, draw.random()))
    return sorted(found, key=lambda canary: (canary.at, canary.node))


def _due(record: Record, relied: float) -> float:
    known = max(record.right, 0.0) + max(record.wrong, 0.0)
    return 1.0 / math.sqrt(1.0 + known) + min(max(relied, 0.0), 1.0)
