"""What other nodes may ask of this one, and how much of it. Knows terms and keys, no transport."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from hmac import compare_digest
from typing import Final

from msgspec.structs import replace

from manyminds.admission import Admission
from manyminds.config import POLICIES, Network, PeerEntry
from manyminds.errors import ForbiddenError
from manyminds.network.answering import Grant, Guest, Price
from manyminds.network.ask import MOST_NATS, Accepted, Ask, Heard
from manyminds.network.identity import member_of
from manyminds.types import Card, Chunk, Key, Limits, Query, Terms

__all__ = ["Guests", "keys_of", "paying"]

_UNLISTED: Final = "guests"  # the key of all nodes that are not listed

_LEAST_NATS: Final = 1e-9  # less is nothing
_WINDOW_TOKENS: Final = 8192  # of an answer, where no expert says


class Guests:
    """Lets asks in; `admit` is for `network.answering.Answering`.

    Of a request's `manyminds` object, policy, deadline, whom to leave out and whether answers need grounds
    count here: whom this node asks is not for others to say. What that costs is no more than may be charged,
    unless its owner said otherwise.

    Args:
        node: this node's id.
        terms: under which it answers.
        admission: counts what they ask.
        answer: asks this node's network.
        cards: of this node's experts; another sequence once any has changed.
        beside: names of the experts that a question from there is not passed on to.
        secret: that all nodes of what it has joined share, "" where there is none.
    """

    def __init__(
        self,
        node: str,
        terms: Network,
        admission: Admission,
        answer: Callable[[Query], AsyncGenerator[Chunk, None]],
        cards: Callable[[], Sequence[Card]],
        beside: Callable[[Heard, bool], Sequence[str]],
        secret: str = "",
    ) -> None:
        self.listed: Mapping[str, PeerEntry] = {}
        """Peers by node id."""
        self._node = node
        self._terms = terms
        self._admission = admission
        self._answer = answer
        self._cards = cards
        self._beside = beside
        self._secret = secret
        self._price = Price(terms.price_in_usd_per_m, terms.price_out_usd_per_m)
        self._known: Sequence[Card] | None = None  # by which both of these were reckoned
        self._dear: tuple[str, ...] = ()
        self._window = 0

    @asynccontextmanager
    async def admit(self, heard: Heard, query: Query, by_https: bool) -> AsyncGenerator[Guest, None]:
        """See `network.answering.Admit`. Raises: ForbiddenError, RateLimitError, BudgetError."""
        entry = self.listed.get(heard.asker)
        self._allow(heard, query, entry, by_https=by_https)
        assert query.journey is not None
        key = Key(f"from:{entry.id}", entry.name) if entry else Key(_UNLISTED, "other nodes")
        admission, spent = self._admission, 0.0
        self._look()

        def charge(usd: float) -> None:
            nonlocal spent
            spent += usd

        with admission.enter():
            sampling = query.sampling
            tokens = query.estimated_tokens + (sampling.max_tokens or 0) * sampling.n
            admission.take(key, tokens)
            most_usd = min(heard.ask.budget_usd, self._most_usd(query))
            hold = await admission.reserve(key, most_usd)
            try:
                dear = () if entry else self._dear
                exclude = (*query.limits.exclude, *self._beside(heard, by_https), *dear)
                limits = Limits(query.limits.policy, exclude=exclude, deadline_s=query.limits.deadline_s)
                limits = replace(limits, purpose=heard.ask.purpose, grounded=query.limits.grounded)
                treated = entry is not None and entry.treats
                journey = replace(query.journey, budget_usd=None if treated else most_usd)
                guest = replace(query, limits=limits, journey=journey)
                grant = await self._granted(heard.ask, entry)
                yield Guest(guest, self._answer, self._price, charge, grant)
            finally:
                hold.settle(spent)

    def _allow(self, heard: Heard, query: Query, entry: PeerEntry | None, *, by_https: bool) -> None:
        """Raises: ForbiddenError."""
        terms, ask = self._terms, heard.ask
        if entry is not None and not entry.answers:
            raise ForbiddenError("this node does not answer yours.")
        proof = "" if by_https or entry else member_of(self._secret, heard.asker)
        if proof and not compare_digest(ask.member.encode(), proof.encode()):
            raise ForbiddenError(
                "this network has a secret that your node does not know: ask its owner for it, and set "
                "network.secret_env."
            )
        if entry is None and (terms.answers == "listed" or (by_https and terms.answers != "anyone")):
            raise ForbiddenError(
                f"this node answers nodes that it knows: ask its owner to list {heard.asker} as a peer."
            )
        if terms.purposes and ask.purpose not in terms.purposes:
            raise ForbiddenError(
                f"this node answers for {', '.join(terms.purposes)} only, and not for "
                f"{ask.purpose or 'what is not said'!r:.70}."
            )
        if terms.callers and not any(fnmatchcase(heard.asker, one) for one in terms.callers):
            raise ForbiddenError(f"this node answers some nodes, and {heard.asker} is none of them.")
        self._hold_to(ask)
        if self._node in ask.visited:
            raise ForbiddenError("this question came by here already.")
        if query.model not in POLICIES or query.fallbacks:
            asked = f"{query.model!r:.60}"
            raise ForbiddenError(f"other nodes may ask for {', '.join(POLICIES)}, not for {asked}.")

    def _hold_to(self, ask: Ask) -> None:
        """Raises: ForbiddenError where who asks will not hold to what binds."""
        terms, accepted = self._terms, ask.terms or Accepted()
        if accepted.max_share > terms.max_share:
            raise ForbiddenError(
                f"of what an answer owes to all sources, at most {terms.max_share:g} may be owed to this "
                f"node: hold to that, and send `terms.max_share` of {terms.max_share:g} or less."
            )
        if terms.budget_nats is not None and not accepted.nats:
            raise ForbiddenError(
                f"this node may move others' answers by {terms.budget_nats:g} nats in its period "
                f"({terms.period}): say by how many this answer may move yours at most, in `terms.nats`."
            )

    async def _granted(self, ask: Ask, entry: PeerEntry | None) -> Grant:
        """What is agreed, leased from the budget. Raises: BudgetError, UnavailableError."""
        terms, accepted = self._terms, ask.terms or Accepted()
        max_share = accepted.max_share if terms.max_share < 1.0 else None
        if terms.budget_nats is None:
            return Grant(max_share)
        most = min(accepted.nats or 0.0, MOST_NATS)
        least = min(max(accepted.least_nats, _LEAST_NATS), most)
        budget, source = Terms(budget_nats=terms.budget_nats, period=terms.period), self._node
        if entry is not None and entry.budget_nats is not None:
            budget = replace(budget, budget_nats=entry.budget_nats)
            source = f"{self._node} for {entry.id}"
        hold = await self._admission.sources.reserve(source, budget, most, least)
        return Grant(max_share, min(hold.amount, most), hold.settle)  # it is held in whole billionths

    def _look(self) -> None:
        """At the experts, where they have changed: there may be very many.

        Those whose owners are paid more than this node charges are dear: nobody in particular has them asked.
        """
        cards, price = self._cards(), self._price
        if cards is self._known:
            return
        self._known = cards
        self._window = max((card.context_tokens for card in cards), default=_WINDOW_TOKENS)
        self._dear = tuple(
            card.name
            for card in cards
            if card.price_in_usd_per_m > price.in_usd_per_m or card.price_out_usd_per_m > price.out_usd_per_m
        )

    def _most_usd(self, query: Query) -> float:
        """The most that an answer may be charged, by the longest that there can be."""
        written = (query.sampling.max_tokens or self._window) * query.sampling.n
        price = self._price
        return (query.most_tokens * price.in_usd_per_m + written * price.out_usd_per_m) / 1e6


def keys_of(terms: Network, peers: Sequence[PeerEntry]) -> list[Key]:
    """What peers may ask of this node, and what may be spent with them, as `admission` counts it."""
    found = [Key(_UNLISTED, "other nodes", requests_per_min=terms.requests_per_min)]
    for entry in peers:
        rate, owe_usd = entry.requests_per_min, entry.owe_usd
        found.append(Key(f"from:{entry.id}", entry.name, requests_per_min=rate, budget_usd=owe_usd))
        found.append(replace(paying(entry), budget_usd=entry.pay_usd))
    return found


def paying(entry: PeerEntry) -> Key:
    """As whom this node counts what it spends with a peer."""
    return Key(f"to:{entry.id}", entry.name)
