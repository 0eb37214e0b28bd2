"""A node among other nodes: who is here, whom it asks, and what came of that.

Wires the network's parts; knows no gateway from the inside.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Final

import msgspec

from manyminds.config import POLICIES, Config, PeerEntry
from manyminds.errors import CardError, ConfigError, ForbiddenError, LedgerError
from manyminds.experts.peer import Deed, Line, Peer
from manyminds.ledger import Event, Gone, Kept, Ledger, Role, Withdrawal
from manyminds.network.answering import Answering, Guest
from manyminds.network.ask import Heard
from manyminds.network.card import LEVELS, NodeCard
from manyminds.network.directory import Directory
from manyminds.network.http import Http
from manyminds.network.identity import Identity, member_of
from manyminds.network.receipt import Receipt, Signed
from manyminds.network.transport import Sighting, Transport
from manyminds.network.trust import Record
from manyminds.network.zenoh import LAN, Zenoh, settings
from manyminds.node import deeds, revocation
from manyminds.node.agreed import Unsettled, terms_of, unasked
from manyminds.node.guests import Guests, keys_of, paying
from manyminds.node.host import Host
from manyminds.node.names import NAMES, Names
from manyminds.node.portrait import PASSED, Portrait
from manyminds.node.regard import Expected, Regard
from manyminds.types import Card, Hold, Key, Outcome, Query, Report
from manyminds.upstream import Client

__all__ = ["Membership"]

_ANNOUNCE_S: Final = 240.0  # after which the card is shown anew
_SETTLED_S: Final = 1.0  # after a change, before it is made anew
_EXPIRE_S: Final = 5.0
_RECKON_S: Final = 2.0  # between two looks at what nodes are worth
_REMEMBER_S: Final = 10.0  # after which what nodes did is kept: a crash forgets no more
_NOTABLE: Final = 0.01  # of accuracy
_NOBODY: Final = Gone()
_MANY: Final = 50  # peers on a LAN, from which on one of them should be a router

log = logging.getLogger(__name__)


class Membership:
    """Use with `async with`: it joins, and leaves again.

    Args:
        config: `network` and `peers` of it.
        identity: this node's.
        host: the node.
        ledger: keeps receipts.
        client: to reach nodes by HTTPS.
        encoder: sha256 of the encoder whose vectors skills are, "" where there is none.
        dimension: of these vectors.
        version: of the software.
        secret: that all nodes of what it joins share, "" where there is none.
        gone: who was withdrawn.

    Raises: ConfigError.
    """

    def __init__(
        self,
        config: Config,
        identity: Identity,
        host: Host,
        ledger: Ledger,
        client: Client,
        *,
        encoder: str,
        dimension: int,
        version: str,
        secret: str = "",
        gone: Gone = _NOBODY,
    ) -> None:
        if config.server.workers > 1:
            raise ConfigError(
                "A node among others answers in one process: set server.workers = 1, or leave [network] and "
                "[[peer]] out. Several nodes may share one ledger."
            )
        self._terms = config.network
        self._identity = identity
        self._host = host
        self._ledger = ledger
        self._client = client
        self._portrait = Portrait(identity, config.network, encoder, dimension, version)
        self._guests = Guests(
            *(identity.id, config.network, host.admission, host.answer),
            lambda: host.own_cards,
            self._beside,
            secret,
        )
        self._secret = secret
        self._names: dict[str, str] = {}  # what each node is called here, by id
        self._called = Names(config.home / NAMES)
        self._ways: dict[str, list[Transport]] = {}  # to each node that is here, by id
        self._kept = config.home / deeds.DEEDS
        self._regard = Regard(identity.id, deeds.read(self._kept))
        self._remembered = self._regard.noted
        self._expected: dict[str, Expected] = {}  # of each node that is here, as last reckoned, by id
        self._changed = asyncio.Event()
        self._cards: dict[bool, bytes] = {}  # as shown by HTTPS, and where it has joined
        self._made_of: dict[bool, object] = {}
        self._home, self._word = config.home, revocation.read(config.home)
        self._gone, self._revoked = gone, revocation.Revocations(gone.documents)
        self._heeded: asyncio.Queue[list[Withdrawal]] = asyncio.Queue()  # to be written into the ledger
        self.directory = Directory(identity.id)
        self.directory.floors = self._revoked.floors
        self._unsettled = Unsettled()
        self.deeds: Counter[tuple[str, str]] = Counter()
        """What each peer did, by its name here: see `experts.peer.Deed`."""
        self.strange = 0  # frames that were of no answer
        self.answering = Answering(identity, self._admit, partial(self._keep, "answered"), _new_id)
        self._list(config)

    async def __aenter__(self) -> "Membership":
        """Raises: ConfigError."""
        async with AsyncExitStack() as stack:
            transports: list[Transport] = []
            stack.enter_context(revocation.serving(self._home))
            terms, answering = self._terms, self.answering
            if terms.join or terms.listen:
                made = settings(terms.join, terms.listen)
                file = Path(terms.zenoh) if terms.zenoh else None
                zenoh = Zenoh(self._identity.id, made, answering.answer, answering.tell, file)
                transports.append(await stack.enter_async_context(zenoh))
            self._http = await stack.enter_async_context(Http(self._client))
            self._transports = transports = [*transports, self._http]
            stack.push_async_callback(self._remember)
            self._http.direct(self._urls())
            self._show()
            log.info("This node is %s.", self._identity.id)
            works = (*(self._announce(), self._expire(), self._reckon(), self._remember_all()), self._write())
            for work in (*map(self._watch, transports), *works):
                stack.push_async_callback(_ended, asyncio.create_task(work))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def card(self) -> bytes:
        """This node's card, for nodes of other organisations."""
        return self._cards[True]

    @property
    def keys(self) -> list[Key]:
        """What peers may ask of this node, and what may be spent with them, as `admission` counts it."""
        return keys_of(self._terms, list(self._listed.values()))

    @property
    def present(self) -> list[tuple[str, NodeCard]]:
        """The nodes that are here, by what they are called here."""
        return sorted((self._names[card.id], card) for card in self.directory.cards if card.id in self._names)

    @property
    def id(self) -> str:
        """This node's."""
        return self._identity.id

    @property
    def ways(self) -> dict[str, str]:
        """How each node that is here is asked, by id: `zenoh` or `https`."""
        return {
            node: "https" if ways[0] is self._http else "zenoh" for node, ways in self._ways.items() if ways
        }

    @property
    def records(self) -> dict[str, Record]:
        """What was seen of each node that is here, by id."""
        return {card.id: self._regard.record(card.id) for _, card in self.present}

    @property
    def relied(self) -> dict[str, float]:
        """Share of other nodes' answers that came from each, by id."""
        kept = {card.id: self.deeds[name, "kept"] for name, card in self.present}
        return {node: count / max(1, sum(kept.values())) for node, count in kept.items()}

    @property
    def secret_seed(self) -> str:
        """A secret of this node, to draw by."""
        return self._identity.sign(b"manyminds canaries 1").hex()

    def relist(self, config: Config) -> None:
        """These are the peers that are listed, and these the experts, from now on."""
        self._word = revocation.read(self._home)
        self._list(config)
        cards = self.directory.cards
        for card in cards:  # all names are free before one of them is another's
            name = self._names.get(card.id)
            if name is not None and name != self._name(card, self._listed.get(card.id)):
                self._host.let_go(self._names.pop(card.id))
        for card in cards:
            self._settle(card)
        self._http.direct(self._urls())

    def refresh(self) -> None:
        """Has the card made anew soon: experts have come or gone."""
        self._changed.set()

    def _list(self, config: Config) -> None:
        self._listed = self._guests.listed = {entry.id: entry for entry in config.peers}
        self._taken_names = {entry.name for entry in config.experts} | set(POLICIES)
        self.directory.relist(self._listed)

    def _urls(self) -> dict[str, str]:
        asked = [entry for entry in self._listed.values() if entry.url and entry.asks]
        return {entry.id: entry.url.rstrip("/") for entry in asked}

    # --- what this node says of itself ---

    async def _announce(self) -> None:
        """Shows the cards anew, in time and whenever they have changed."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _ANNOUNCE_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._changed.wait()
                await asyncio.sleep(_SETTLED_S)
            self._changed.clear()
            if is_due := loop.time() >= due_s:
                due_s = loop.time() + _ANNOUNCE_S
            try:
                self._show(again=is_due)
            except CardError as error:
                log.error("%s", error.message)
            except Exception:
                log.exception("this node's card was not made anew")

    def _show(self, *, again: bool = True) -> None:
        """Makes the cards as they are now, and shows them. Some milliseconds. Raises: CardError.

        Unless `again`, only what has changed: where a node that many know leaves, all of them would have
        each other's cards looked at.
        """
        own, skills, changed = self._host.own_cards, self._host.skills(), set()
        word = self._word
        if word is not None:
            own = tuple(c for c in own if not word.whole and (c.source or c.name) not in word.sources)
            skills = self._host.skills([card.name for card in own])
        for by_https in (True, False):
            behind = [card.says for card in self._behind(by_https=by_https)]
            member = "" if by_https else member_of(self._secret, self._identity.id)
            made_of = (own, skills.tobytes(), behind, vouches := self._regard.vouches, member, word)
            if again or made_of != self._made_of.get(by_https):
                self._cards[by_https] = self._portrait.card(own, skills, behind, vouches, member, word)
                self._made_of[by_https] = made_of
                changed.add(by_https)
        for transport in self._transports:
            if (by_https := transport is self._http) in changed:
                transport.announce(self._cards[by_https])

    def _behind(self, *, by_https: bool) -> list[NodeCard]:
        """The nodes that this one speaks for. To other organisations that is the network it has joined; in
        that network it is not, since there everybody sees everybody.
        """
        found: list[NodeCard] = []
        for name, card in self.present if self._word is None or not self._word.whole else ():
            if name in self._host.paused:
                continue
            entry = self._listed.get(card.id)
            joined = self._ways[card.id][0] is not self._http
            speaks = (entry is not None and entry.speaks_for) or (by_https and joined)
            if speaks and card.says.levels < LEVELS:
                found.append(card)
        return found

    def _beside(self, heard: Heard, by_https: bool) -> list[str]:
        """Whom a question of another node is not passed on to: who has had it, or can be asked directly."""
        behind = {card.id for card in self._behind(by_https=by_https)} - {heard.asker, *heard.ask.visited}
        withdrawn = () if self._word is None else self._word.sources
        return sorted({*withdrawn, *(name for node, name in self._names.items() if node not in behind)})

    def _admit(self, heard: Heard, query: Query, by_https: bool) -> AbstractAsyncContextManager[Guest]:
        """See `Guests.admit`. Raises: ForbiddenError."""
        if self._word is not None and self._word.whole:
            raise ForbiddenError("its owner has withdrawn this node.")
        return self._guests.admit(heard, query, by_https)

    # --- other nodes ---

    async def _watch(self, transport: Transport) -> None:
        async for sighting in transport.watch():
            try:
                self._see(transport, sighting)
            except Exception:
                log.exception("what was seen of %s was not understood", sighting.node)
            await asyncio.sleep(0)  # however many there are, others have their turn

    def _see(self, transport: Transport, sighting: Sighting) -> None:
        """Notes who is here, and by which ways each can be reached: by what was joined, before HTTPS."""
        node, ways = sighting.node, self._ways.get(sighting.node, [])
        others = [way for way in ways if way is not transport]
        if not sighting.card and others:  # it can be reached still
            self._ways[node] = others
            card = self.directory.get(node)
            if card is not None and others != ways:
                self._settle(card)
            return
        change = self.directory.see(sighting, time.time())
        if change is None:
            return
        if change.what == "left":
            self._ways.pop(node, None)
        elif transport not in ways:
            self._ways[node] = sorted([*ways, transport], key=self._transports.index)
        elif change.what == "same":
            return
        self._heed(change.card)
        self._settle(change.card)

    # --- who was withdrawn ---

    def _heed(self, card: NodeCard) -> None:
        """What a node takes back of itself is forgotten at once, and put down with its signature."""
        what, name = self._revoked.hear(card), self._known_as(card)
        if what is None:
            return
        seen = self._regard.record(card.id) != Record() or card.id in self._listed or card.id in self._names
        log.info("%s, node %s, says of itself: %s.", name, card.id, what)
        if what != "returned":
            self._forget(card.id, name)
        if seen or self._gone.documents.get(card.id):  # a stranger's word would only fill the ledger
            events: tuple[Event, ...] = ("withdrawn", "returned") if what == "renewed" else (what,)
            sources = ", ".join(card.says.withdrawal.sources) if card.says.withdrawal else ""
            self._heeded.put_nowait(
                [
                    Withdrawal(event, name, sources or name, (name,), card.id, card.raw.decode())
                    for event in events
                ]
            )

    def part(self, gone: Gone) -> None:
        """These were withdrawn, by whomever; those that were before may be asked."""
        self._gone = gone
        for card in self._revoked.learn(gone.documents):  # which another gateway of this ledger heard
            self._forget(card.id, self._known_as(card))
        for node, name in list(self._names.items()):
            if gone.has(name):
                self._forget(node, name)
        for card in self.directory.cards:
            self._settle(card)

    def _forget(self, node: str, name: str) -> None:
        self._regard.forget(node)
        self._expected.pop(node, None)
        for key in [key for key in self.deeds if key[0] == name]:
            del self.deeds[key]
        self._host.forget(name)

    def _known_as(self, card: NodeCard) -> str:
        """What a node is called here, or would be."""
        entry = self._listed.get(card.id)
        named = (name for name, node in self._called.nodes.items() if node == card.id)
        return entry.name if entry is not None else self._names.get(card.id) or next(named, card.name)

    async def _write(self) -> None:
        """Writes down who took back what: first what is not remembered any more, then that it is so."""
        while True:
            rows = await self._heeded.get()
            await self._remember()
            for row in rows:
                while True:
                    try:
                        await asyncio.to_thread(self._ledger.withdraw, row)
                        break
                    except LedgerError as error:
                        log.error("that %s was %s is not in the ledger yet: %s", row.expert, row.event, error)
                        await asyncio.sleep(_EXPIRE_S)

    def hear(self, outcomes: Sequence[Outcome]) -> None:
        """What callers said of answers, of this node's own experts too."""
        listed = {entry.name: node for node, entry in self._listed.items()}
        self._regard.hear(outcomes, {**self._called.nodes, **listed})

    def settle(self, report: Report) -> None:
        """Tells the nodes that had a part in an answer how far each moved it, where they count that."""
        self._unsettled.settle(report)

    async def _reckon(self) -> None:
        """Takes nodes anew whose worth has changed. At most a tenth of a processor's time is for that."""
        took_s, before = 0.0, None
        while True:
            await asyncio.sleep(max(_RECKON_S, 9.0 * took_s))
            cards = [card for _, card in self.present]
            given = {card.id: self._trusted(card.id) for card in cards}
            said = [(card.id, card.says.vouches, card.says.claims) for card in cards]
            now = (self._regard.noted, said, given)
            if now == before:
                continue
            began_s, before, forgotten = time.monotonic(), now, self._regard.forgotten
            found = await asyncio.to_thread(self._regard.copy().expected, cards, given)
            took_s = time.monotonic() - began_s
            if forgotten != self._regard.forgotten:
                continue  # it was reckoned with what is void
            for _, card in self.present:
                known, expected = self._expected.get(card.id), found.get(card.id)
                if expected is not None and (known is None or expected.differs(known, _NOTABLE)):
                    self._expected[card.id] = expected
                    self._take_in(card, self._listed.get(card.id))

    async def _remember_all(self) -> None:
        while True:
            await asyncio.sleep(_REMEMBER_S)
            await self._remember()

    async def _remember(self) -> None:
        """Keeps what nodes did, if there is anything new; in a thread."""
        if self._regard.noted == self._remembered:
            return
        self._remembered = self._regard.noted
        try:
            await asyncio.to_thread(deeds.write, self._kept, self._regard.deeds)
        except OSError as error:
            log.error("what other nodes did is not remembered in %s: %s", self._kept, error)

    def _reckoned(self, card: NodeCard) -> Expected:
        """How right a node is expected to be: as last reckoned; at first, by itself."""
        if card.id not in self._expected:
            self._expected |= self._regard.expected([card], {card.id: self._trusted(card.id)})
        return self._expected[card.id]

    def _trusted(self, node: str) -> float:
        """How far it is trusted beforehand."""
        entry = self._listed.get(node)
        return self._terms.trust if entry is None else entry.trust

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_S)
            for change in self.directory.expire(time.time()):
                self._ways.pop(change.card.id, None)
                try:
                    self._settle(change.card)
                except Exception:
                    log.exception("node %s was not let go", change.card.id)

    def _settle(self, card: NodeCard) -> None:
        """Takes a node in as an expert, or lets it go, as it is now."""
        node, entry = card.id, self._listed.get(card.id)
        here = self.directory.get(node) is not None and bool(self._ways.get(node))
        why = self._unasked(card, entry)
        if here and not why:
            if node not in self._names:
                self._names[node] = self._name(card, entry)
                log.info("%s has come: node %s, %d experts.", self._names[node], node, card.says.experts)
            self._take_in(card, entry)
        elif (name := self._names.pop(node, None)) is not None:
            self._host.let_go(name)
            log.info("%s has left: node %s.", name, node)
        elif why:
            log.info("node %s (%s) is not asked: %s", node, card.name, why)
        if LAN in self._terms.join and not self._terms.listen and len(self._names) == _MANY:
            log.warning(
                "%d nodes are on this network: let one of them `listen` and the others join through it, so "
                "that they need not all be connected with each other.",
                _MANY,
            )

    def _unasked(self, card: NodeCard, entry: PeerEntry | None) -> str:
        """Why a node is not asked, "" where it is."""
        if self._revoked.is_out(card.id):
            return "its owner has withdrawn it"
        if self._gone.has(self._known_as(card)):
            return "it was withdrawn: see `manyminds ledger withdrawals`"
        return unasked(card, entry, self._terms, self._identity.id, self._secret)

    def _name(self, card: NodeCard, entry: PeerEntry | None) -> str:
        """A listed peer has the name by which it is listed; others have their own, if that is free."""
        if entry is not None:
            return entry.name
        others = {name for node, name in self._names.items() if node != card.id}
        taken = {*others, *(e.name for e in self._listed.values()), *self._taken_names}
        taken |= {*self._host.own_names}
        return self._called.of(card.id, card.name, taken)

    def _take_in(self, card: NodeCard, entry: PeerEntry | None) -> None:
        node, name, says = card.id, self._names[card.id], card.says
        transport, expected = self._ways[node][0], self._reckoned(card)
        reads = says.paragraphs > 0 and card.accuracy == 0.0  # it has documents, and nothing else
        shown = Card(
            name=name,
            kind="peer",
            source=name,
            model=node,
            description=card.description,
            skills=card.words,
            accuracy=0.0 if reads else expected.accuracy,
            accuracy_in=None if reads else expected.accuracy_in or None,
            ttft_s=says.ttft_s,
            tokens_per_s=max(says.tokens_per_s, 0.1),
            price_in_usd_per_m=says.price_in_usd_per_m,
            price_out_usd_per_m=says.price_out_usd_per_m,
            context_tokens=says.context_tokens,
            offers=frozenset(says.offers) & PASSED,
            parameters=says.parameters,
            paragraphs=says.paragraphs,
            terms=terms_of(card, self._terms.purpose),
        )
        line = Line(
            node,
            card.public,
            card.exchange,
            transport,
            self._identity,
            self._reserving(entry),
            partial(self._keep, "asked"),
            partial(self._note, node, name),
            self._note_strange,
            self._terms.purpose,
            "" if transport is self._http else member_of(self._secret, self._identity.id),
            self._terms.hops,
            partial(self._unsettled.note, name),
        )
        same = says.encoder == self._portrait.encoder
        vectors = card.vectors(self._portrait.dimension) if same else None
        self._host.take_in(Peer(shown, line), vectors, (node, id(transport)))

    def _reserving(self, entry: PeerEntry | None) -> Callable[[float], Awaitable[Hold | None]]:
        admission = self._host.admission

        async def reserve(most_usd: float) -> Hold | None:
            if entry is None or not most_usd:
                return None
            return await admission.reserve(paying(entry), most_usd)

        return reserve

    def _note(self, node: str, name: str, deed: Deed) -> None:
        self.deeds[name, deed] += 1
        self._regard.note(node, deed)
        if deed not in ("kept", "cut"):
            log.warning("%s sent an answer that does not count: %s.", name, deed)

    def _note_strange(self) -> None:
        self.strange += 1

    def _keep(
        self,
        role: Role,
        receipt: Receipt,
        signed: Signed,
        request_id: str,
        settled_nats: float | None = None,
    ) -> None:
        other = receipt.answerer_id if role == "asked" else receipt.asker_id
        self._ledger.keep(
            Kept(
                ask=receipt.ask,
                role=role,
                peer=other,
                request_id=request_id,
                at_s=receipt.at,
                prompt_tokens=receipt.prompt_tokens,
                completion_tokens=receipt.completion_tokens,
                price_usd=receipt.price_usd,
                countersigned=signed.is_countersigned,
                document=msgspec.json.encode(signed).decode(),
                purpose=receipt.purpose,
                max_share=receipt.max_share,
                granted_nats=receipt.nats,
                settled_nats=settled_nats,
            )
        )


def _new_id() -> str:
    """As `web.replies` names requests: later ones sort later."""
    return f"{time.time_ns() // 1_000_000:012x}{token_hex(6)}"


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
