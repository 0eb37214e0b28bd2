"""Which other nodes there are, by the newest card of each that holds. Pure; knows no transport and no terms.

Of what anybody may send, little is looked at: so many bytes of unknown nodes a second, and so many nodes.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, Literal

from msgspec import Struct

from manyminds.errors import CardError, SignatureError
from manyminds.network.card import NodeCard, read
from manyminds.network.transport import Sighting

__all__ = ["Change", "Directory"]

_MOST: Final = 4_096  # unlisted nodes
_BYTES_PER_S: Final = 1e6  # of cards of nodes that are not known, which are read: the worst takes 1 us a byte
_BURST: Final = 8e6


class Change(Struct, frozen=True):
    """What a sighting says: a node is here, by this card, also where that is known; or it has left."""

    what: Literal["here", "same", "left"]
    card: NodeCard


class Directory:
    """Keeps the newest card of each node.

    Args:
        own: this node's id.
        listed: ids of nodes that always have room.
        most: others at most.
    """

    def __init__(self, own: str, listed: Collection[str] = (), most: int = _MOST) -> None:
        self._own = own
        self._listed = frozenset(listed)
        self._most = most
        self._cards: dict[str, NodeCard] = {}
        self._left: dict[str, NodeCard] = {}  # their cards hold still: none that is older counts
        self._level, self._at_s = _BURST, 0.0
        self.floors: Mapping[str, int] = {}
        """By node id: cards of a lower sequence are old, also where no newer one is known."""
        self.refused: Counter[str] = Counter()
        """Sightings that were not believed, by why: unreadable, forged, old, foreign, crowded."""

    def relist(self, listed: Collection[str]) -> None:
        """These always have room from now on."""
        self._listed = frozenset(listed)

    def __len__(self) -> int:
        return len(self._cards)

    def get(self, node: str) -> NodeCard | None:
        """The card of a node that is here."""
        return self._cards.get(node)

    @property
    def cards(self) -> list[NodeCard]:
        """Of all that are here, by id."""
        return [self._cards[node] for node in sorted(self._cards)]

    def see(self, sighting: Sighting, now_s: float) -> Change | None:
        """Takes a sighting in; None where it is not believed. `now_s`: seconds since 1970."""
        if not sighting.card:
            return self._gone(sighting.node)
        if sighting.node == self._own:
            return None
        before = self._cards.get(sighting.node) or self._left.get(sighting.node)
        if before is None and sighting.node not in self._listed and not self._has_room(sighting, now_s):
            self.refused["crowded"] += 1
            return None
        if before is not None and before.raw == sighting.card and before.id in self._cards:
            return Change("same", before)
        try:
            card = read(sighting.card, now_s)
        except CardError as error:
            forged = isinstance(error.__cause__, SignatureError)
            self.refused["forged" if forged else "unreadable"] += 1
            return None
        if card.id != sighting.node:
            self.refused["foreign"] += 1
            return None
        floor = max(self.floors.get(card.id, 0), before.says.sequence if before is not None else 0)
        if card.says.sequence < floor:
            self.refused["old"] += 1
            return Change("same", before) if before is not None and before.id in self._cards else None
        self._left.pop(card.id, None)
        self._cards[card.id] = card
        return Change("here", card)

    def expire(self, now_s: float) -> list[Change]:
        """Those whose cards have run out have left."""
        for node in [node for node, card in self._left.items() if card.says.expires <= now_s]:
            del self._left[node]
        over = [node for node, card in self._cards.items() if card.says.expires <= now_s]
        return [Change("left", self._cards.pop(node)) for node in sorted(over)]

    def _gone(self, node: str) -> Change | None:
        card = self._cards.pop(node, None)
        if card is None:
            return None
        self._left[node] = card
        return Change("left", card)

    def _has_room(self, sighting: Sighting, now_s: float) -> bool:
        """Whether the card of one more unknown node may be read."""
        if len(self._cards) + len(self._left) >= self._most + len(self._listed):
            return False
        self._level = min(_BURST, self._level + max(0.0, now_s - self._at_s) * _BYTES_PER_S)
        self._at_s = now_s
        if self._level < len(sighting.card):
            return False
        self._level -= len(sighting.card)
        return True
