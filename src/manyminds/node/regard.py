"""How far this node trusts each of the others: by what came of asking it, what friends say, and its card.

Keeps what `network.trust` reckons with, of each field that questions were about. Knows no transport.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from manyminds.network.card import NodeCard, Vouch
from manyminds.network.trust import MOST_EDGES, Deed, Edge, Record, credited, lent, noted, prior, vouched
from manyminds.types import Outcome

__all__ = ["Expected", "Regard"]

_CLAIM: Final = 0.5  # of a card that claims nothing
_WORTH_SAYING: Final = 0.05  # a lesser word is kept to oneself
_MEASURED: Final = 8.0  # answers in a field, from which on it is spoken of
_SURE: Final = 1.0  # the weight of an outcome that somebody judged who knows
_FIELDS: Final = 32  # of one node
_RECKONED: Final = 16  # of all nodes together
_WORDS: Final = 64  # on a card
_FIELD: Final = re.compile(r"[A-Za-z0-9._:/ -]{1,64}")

_NOTHING: Final = Record()
_Words = dict[tuple[str, str], float]  # by who says it and of whom


class Expected(Struct, frozen=True):
    """How right a node is expected to be, in [0, 1]; by field where there is more to say of it."""

    accuracy: float
    accuracy_in: Mapping[str, float]

    def differs(self, other: "Expected", by: float) -> bool:
        """Whether any of it is further off than that."""
        fields = self.accuracy_in.keys()
        if fields != other.accuracy_in.keys() or abs(self.accuracy - other.accuracy) > by:
            return True
        return any(abs(self.accuracy_in[field] - other.accuracy_in[field]) > by for field in fields)


class Regard:
    """What is thought of other nodes, each known by its id.

    Args:
        own: this node's id.
        deeds: what each node did before, by id, without answers.
    """

    def __init__(self, own: str, deeds: Mapping[str, Record] | None = None) -> None:
        self._own = own
        self._records: dict[str, Record] = dict(deeds or {})
        self._fields: dict[str, dict[str, Record]] = {}  # of each node; answers alone
        self._place = 0  # in the log of outcomes, up to which it was heard
        self.forgotten = 0  # nodes of which nothing counts that was seen
        self.noted = 0
        """How many deeds: as long as it stays the same, so does what was seen of anybody."""

    def copy(self) -> "Regard":
        """As it is now: for another thread to reckon with."""
        other = Regard(self._own, self._records)
        other._fields = {node: dict(fields) for node, fields in self._fields.items()}
        return other

    @property
    def deeds(self) -> dict[str, Record]:
        """What each node did, by id, without answers: of these the ledger knows."""
        found = self._records.items()
        return {node: replace(r, right=0.0, wrong=0.0) for node, r in found if r.kept + r.cut + r.offences}

    def record(self, node: str) -> Record:
        """What was seen of it."""
        return self._records.get(node, _NOTHING)

    def forget(self, node: str) -> None:
        """Nothing was ever seen of it."""
        self.noted += 1
        self.forgotten += 1
        self._records.pop(node, None)
        self._fields.pop(node, None)

    def note(self, node: str, deed: Deed, field: str = "") -> None:
        """It did that; in a field, where that is known of an answer."""
        self.noted += 1
        self._records[node] = noted(self.record(node), deed)
        if not _FIELD.fullmatch(field):
            return
        fields = self._fields.setdefault(node, {})
        if field not in fields and len(fields) >= _FIELDS:
            del fields[min(fields, key=lambda name: (_answers(fields[name]), name))]
        fields[field] = noted(fields.get(field, _NOTHING), deed)

    def hear(self, outcomes: Sequence[Outcome], nodes: Mapping[str, str]) -> None:
        """Takes in what callers said of answers; `nodes` are ids by the names that outcomes go by."""
        for outcome in outcomes:
            if outcome.place and outcome.place <= self._place:
                continue  # the log is read from the start again now and then
            self._place = max(self._place, outcome.place)
            node = nodes.get(outcome.expert)
            if node is not None and outcome.correct is not None and outcome.weight >= _SURE:
                self.note(node, "right" if outcome.correct >= _CLAIM else "wrong", outcome.section)

    def expected(self, cards: Sequence[NodeCard], given: Mapping[str, float]) -> dict[str, Expected]:
        """What to expect of each of these nodes, by id: see `network.trust.prior`. Up to half a second.

        In a field, a word about it takes the place of the same node's word about all of them, and so does a
        claim. `given`: how far each is trusted beforehand.
        """
        own = [Edge(self._own, node, weight) for node, weight in given.items()]
        said = _words(cards, "")
        general = credited(_edges(said), self._records)
        trust = lent(self._own, [*own, *general])
        found: dict[str, dict[str, float]] = {card.id: {} for card in cards}
        for field in self._reckoned(cards, given):
            words, there = _words(cards, field), trust
            if words:
                beside = [edge for edge in general if (edge.source, edge.target) not in words]
                particular = credited(_edges(words), self._records_in(field))
                there = lent(self._own, [*own, *beside, *particular])
            for card in cards:
                claimed, word = card.claimed(field), there.get(card.id, 0.0)
                within = self._fields.get(card.id, {}).get(field)
                if within is None and claimed is None and word == trust.get(card.id, 0.0):
                    continue  # nothing but what holds in all of them
                found[card.id][field] = self._prior(card, claimed, word, within or _NOTHING)
        return {
            card.id: Expected(
                self._prior(card, None, trust.get(card.id, 0.0), _NOTHING),
                found[card.id],
            )
            for card in cards
        }

    def _prior(self, card: NodeCard, claimed: float | None, word: float, within: Record) -> float:
        anywhere = _CLAIM if card.accuracy is None else card.accuracy
        return prior(anywhere if claimed is None else claimed, self.record(card.id), word, within)

    def _reckoned(self, cards: Sequence[NodeCard], given: Mapping[str, float]) -> list[str]:
        """The fields that count: those that were measured, and then those of which the trusted speak."""
        measured: dict[str, float] = {}
        for fields in self._fields.values():
            for field, record in fields.items():
                measured[field] = measured.get(field, 0.0) + _answers(record)
        spoken: dict[str, float] = {}
        for card in cards:
            if weight := given.get(card.id, 0.0):
                named = {vouch.field for vouch in card.says.vouches}
                for field in (named | {claim.field for claim in card.says.claims}) - {"", *measured}:
                    spoken[field] = spoken.get(field, 0.0) + weight
        ranked = [sorted(of, key=lambda name: (-of[name], name)) for of in (measured, spoken)]
        return [*ranked[0], *ranked[1]][:_RECKONED]

    def _records_in(self, field: str) -> dict[str, Record]:
        """By node: answers in that field, and all deeds."""
        return {
            node: replace(record, right=within.right, wrong=within.wrong)
            for node, record in self._records.items()
            for within in [self._fields.get(node, {}).get(field, _NOTHING)]
        }

    @property
    def vouches(self) -> tuple[Vouch, ...]:
        """What this node says of others: of those that it has measured, the best; of all fields, and of each.

        Of all fields goes what was measured beyond the one that most of it was in: who is good at one thing,
        or makes believe, is good at that. A field is named once enough answers in it were graded: what single
        callers ask about is not told to others.
        """
        general, particular = [], []
        for node, record in self._records.items():
            fields = self._fields.get(node, {})
            general.append((vouched(_beyond(record, fields.values())), node, ""))
            for field, within in fields.items():
                if _answers(within) >= _MEASURED:
                    known = replace(record, right=within.right, wrong=within.wrong)
                    particular.append((vouched(known), node, field))
        best = [*_best(general)[:MOST_EDGES], *_best(particular)][:_WORDS]
        return tuple(Vouch(node, round(weight, 3), field) for weight, node, field in best)


def _answers(record: Record) -> float:
    return record.right + record.wrong


def _beyond(record: Record, fields: Iterable[Record]) -> Record:
    """What was seen of a node, without the answers in the field that most of them were in."""
    most = max(fields, key=_answers, default=_NOTHING)
    right, wrong = max(record.right - most.right, 0.0), max(record.wrong - most.wrong, 0.0)
    return replace(record, right=right, wrong=wrong)


def _best(words: Iterable[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Those that are worth saying, the heaviest first."""
    found = [word for word in words if word[0] >= _WORTH_SAYING]
    return sorted(found, key=lambda word: (-word[0], *word[1:]))


def _words(cards: Iterable[NodeCard], field: str) -> _Words:
    """What nodes say of each other in a field; of two words about the same node the lesser counts."""
    found: _Words = {}
    for card in cards:
        for vouch in card.says.vouches:
            if vouch.field == field:
                pair = card.id, vouch.node
                found[pair] = min(vouch.weight, found.get(pair, 1.0))
    return found


def _edges(words: _Words) -> list[Edge]:
    return [Edge(source, target, weight) for (source, target), weight in words.items()]
