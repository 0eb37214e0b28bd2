"""What is agreed with another node: why it is not asked, on what terms it is, and what it is told of that."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final

from manyminds.config import Network, PeerEntry
from manyminds.network.card import PROTOCOL, NodeCard
from manyminds.network.identity import member_of
from manyminds.types import FREE, Report, Terms

__all__ = ["Unsettled", "terms_of", "unasked"]

_MOST_UNSETTLED: Final = 10_000  # requests, whose answers nobody has told of


def unasked(card: NodeCard, entry: PeerEntry | None, terms: Network, own: str, secret: str) -> str:
    """Why a node is not asked, "" where it is.

    Args:
        card: its card.
        entry: as it is listed, if it is.
        terms: of this node, by which it asks.
        own: this node's id.
        secret: that all nodes of what it has joined share, "" where there is none.
    """
    says = card.says
    if PROTOCOL not in says.protocols:
        return f"it speaks versions {says.protocols} of the protocol"
    if not says.experts:
        return "it has no expert"
    if entry is None and says.member != member_of(secret, card.id) and secret:
        return "it does not know the secret of this network"
    if entry is None and terms.asks == "listed":
        return "it is not listed, and network.asks is listed"
    if entry is not None and not entry.asks:
        return "its peer.asks is false"
    if says.terms.nodes and not any(fnmatchcase(own, one) for one in says.terms.nodes):
        return "it answers other nodes than this one"
    if says.price_in_usd_per_m or says.price_out_usd_per_m:
        if entry is None or not entry.pay_usd:
            return "it has a price: list it as a peer with pay_usd"
        for limit, price in (
            (entry.price_in_usd_per_m, says.price_in_usd_per_m),
            (entry.price_out_usd_per_m, says.price_out_usd_per_m),
        ):
            if limit is not None and price > limit:
                return f"its price of ${price:g} is above the ${limit:g} that is agreed"
    return ""


def terms_of(card: NodeCard, purpose: str) -> Terms:
    """A node's terms as those of a source, for a node that asks for this purpose where a request names none.

    Whom it answers was looked at before: see `unasked`. How often is for its owner to count: the card says it
    of all nodes together that are not listed.
    """
    says = card.says.terms
    unsaid = ("",) if purpose in says.purposes else ()
    terms = Terms(
        purposes=(*says.purposes, *unsaid),
        max_share=1.0 if says.max_share is None else says.max_share,
        budget_nats=says.budget_nats,
        period=says.period,
        epsilon=says.epsilon,
        delta=says.delta,
    )
    return FREE if terms == FREE else terms


class Unsettled:
    """Answers of other nodes of which these are still to be told how far they moved the whole.

    Who is never told counts all that was granted. O(1) each; forgets the oldest when there are too many.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[str, float, Callable[[float], None]]]] = {}  # by request

    def note(self, source: str, request_id: str, nats: float, settle: Callable[[float], None]) -> None:
        """An answer of a source, which may move the whole so far; `settle` tells how far it did."""
        self._open.setdefault(request_id, []).append((source, nats, settle))
        if len(self._open) > _MOST_UNSETTLED:
            del self._open[next(iter(self._open))]

    def settle(self, report: Report) -> None:
        """Tells each source what was measured: of several answers of one, the first take the most of it.

        What was only estimated is not told.
        """
        left = {found.source: found.divergence for found in report.attribution if not found.estimated}
        for source, nats, settle in self._open.pop(report.request_id, ()):
            if source in left:
                spent = min(nats, left[source])
                left[source] -= spent
                settle(spent)
