"""Which of the other nodes are asked. Pure."""

from manyminds.config import Network, PeerEntry
from manyminds.network.card import PROTOCOL, NodeCard
from manyminds.network.identity import member_of

__all__ = ["unasked"]


def unasked(card: NodeCard, entry: PeerEntry | None, terms: Network, secret: str) -> str:
    """Why a node is not asked under these terms, "" where it is.

    Args:
        card: the node's.
        entry: where it is listed, what is agreed with it.
        terms: of this node.
        secret: that all nodes of what this one has joined share, "" where there is none.
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
    if says.terms.purposes and terms.purpose not in says.terms.purposes:
        return f"it answers for {', '.join(says.terms.purposes)} only: see network.purpose"
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
