"""How far this node trusts each of the others: by what came of asking it, what friends say, and its card.

Keeps what `network.trust` reckons with. Knows no transport.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from manyminds.network.card import NodeCard, Vouch
from manyminds.network.trust import MOST_EDGES, Deed, Edge, Record, credited, lent, noted, prior, vouched
from manyminds.types import Outcome

__all__ = ["Regard"]

_CLAIM: Final = 0.5  # of a card that claims nothing
_WORTH_SAYING: Final = 0.05  # a lesser word is kept to oneself
_SURE: Final = 1.0  # the weight of an outcome that somebody judged who knows


class Regard:
    """What is thought of other nodes, each known by its id.

    Args:
        own: this node's id.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._records: dict[str, Record] = {}
        self._place = 0  # in the log of outcomes, up to which it was heard

    def record(self, node: str) -> Record:
        """What was seen of it."""
        return self._records.get(node, Record())

    def note(self, node: str, deed: Deed) -> None:
        """It did that."""
        self._records[node] = noted(self.record(node), deed)

    def hear(self, outcomes: Sequence[Outcome], nodes: Mapping[str, str]) -> None:
        """Takes in what callers said of answers; `nodes` are ids by the names that outcomes go by."""
        for outcome in outcomes:
            if outcome.place and outcome.place <= self._place:
                continue  # the log is read from the start again now and then
            self._place = max(self._place, outcome.place)
            node = nodes.get(outcome.expert)
            if node is not None and outcome.correct is not None and outcome.weight >= _SURE:
                self.note(node, "right" if outcome.correct >= _CLAIM else "wrong")

    def accuracies(self, cards: Sequence[NodeCard], given: Mapping[str, float]) -> dict[str, float]:
        """What to expect of each of these nodes, in [0, 1], by id: see `network.trust.prior`.

        `given`: how far each is trusted beforehand.
        """
        words = [Edge(card.id, vouch.node, vouch.weight) for card in cards for vouch in card.says.vouches]
        edges = [Edge(self._own, node, weight) for node, weight in given.items()]
        trust = lent(self._own, [*edges, *credited(words, self._records)])
        return {
            card.id: prior(
                _CLAIM if card.accuracy is None else card.accuracy,
                self.record(card.id),
                trust.get(card.id, 0.0),
            )
            for card in cards
        }

    @property
    def vouches(self) -> tuple[Vouch, ...]:
        """What this node says of others: of those that it has measured, the best."""
        found = [(vouched(record), node) for node, record in self._records.items()]
        best = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:MOST_EDGES]
        return tuple(Vouch(node, round(weight, 3)) for weight, node in best if weight >= _WORTH_SAYING)
