"""What a node's owner sees of it: its experts, its library, its traffic, its network and its books.

Reads; changes nothing. What takes time is made anew only after a while, however many look.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import msgspec

from manyminds.candidates import candidates
from manyminds.config import Config
from manyminds.errors import ArtefactError, ConfigError
from manyminds.ledger import Ledger
from manyminds.ledger.tables import stamp
from manyminds.node.books import budgeted, limits_of, owed, priced, settled, told
from manyminds.node.learnt import learnt
from manyminds.node.node import Node
from manyminds.node.observed import Last, Observed, State, answered
from manyminds.node.origins import origin
from manyminds.node.shelved import shelved
from manyminds.ratings import WINDOWS, Rated, Rating
from manyminds.types import Card

__all__ = ["Overview"]

_KEPT_S: Final = 5.0
_SHARE: Final = 20.0  # what took a second is kept for so many, so that looking on costs little
_MARKED_S: Final = 0.5
_MOST: Final = 1000  # experts, and peers
_SHOWN: Final = 100  # requests, and receipts
_GROUPS: Final = 500  # of totals
_GRADES: Final = 100_000
_DAYS: Final = 30  # of which totals are

_RECEIPT: Final = (
    *("at_utc", "peer", "role", "purpose", "prompt_tokens", "completion_tokens"),
    *("price_usd", "countersigned", "request_id"),
)
"""What is shown of one."""

_Fields = dict[str, Any]
_T = TypeVar("_T")


class Overview:
    """Each method gives one reply of `/v1/admin/`; see docs/api.md for its fields.

    Args:
        node: looked at.
        observed: what happens on it.
    """

    def __init__(self, node: Node, observed: Observed) -> None:
        self._node = node
        self._observed = observed
        self._sections: tuple[object, list[_Fields]] = (None, [])
        self._shelving = asyncio.Lock()
        self._marks: tuple[float, State | None] = (0.0, None)
        self._considered: tuple[Last | None, list[str]] = (None, [])
        self.frontier = _Kept(self._read_frontier)
        self.ledger = _Kept(self._read_ledger)
        self._traded = _Kept(self._read_trade)

    def events(self) -> AsyncGenerator[_Fields, None]:
        """What happens, from now on: see `Observed.events`."""
        return self._observed.events(self.state)

    def state(self) -> State:
        """What is told every second; at most half a second old."""
        now_s = time.monotonic()
        until_s, state = self._marks
        if state is None or now_s >= until_s:
            state = self._state()
            self._marks = now_s + _MARKED_S, state
        return state

    def _state(self) -> State:
        node, membership = self._node, self._node.membership
        ways = membership.ways if membership is not None else {}
        cards = node.cards
        figures = {
            "in_flight": node.admission.inside,
            "experts": len(cards),
            "running": len(node.running),
            "peers": len(ways),
            "ledger_queued": node.backlog.queued,
        }
        experts = (tuple(card.name for card in cards), tuple(node.running), node.paused)
        spared = tuple(name for name, is_open in node.circuits().items() if is_open)
        return State(figures, {"experts": (experts, spared), "network": ways, "config": id(node.config)})

    # --- experts ---

    async def experts(self) -> _Fields:
        """Every card with what was measured, and how its expert is just now."""
        rated, config = await self._node.rated(), self._node.config
        origins = await asyncio.to_thread(lambda: {card.name: origin(card, config) for card in rated[:_MOST]})
        spared, running = self._node.circuits(), set(self._node.running)
        shown = [
            msgspec.to_builtins(card, order="deterministic")
            | {
                "paused": card.paused,
                "spared": spared.get(card.name, False),
                "running": card.name in running,
                "origin": origins[card.name],
            }
            for card in rated[:_MOST]
        ]
        return {"object": "list", "data": shown, "more": len(rated) - len(shown)}

    # --- library ---

    async def library(self) -> _Fields:
        """Who is good at what, and the way of the last request."""
        node, cards = self._node, await self._node.rated()
        shown = cards[:_MOST]
        async with self._shelving:
            made_of = (id(node.index), id(node.config), [(c.name, c.kind, c.skills, c.paused) for c in shown])
            if self._sections[0] != made_of:
                self._sections = made_of, await asyncio.to_thread(self._shelve, shown)
        models = {card.variant_of or card.name: card.parameters for card in cards}
        return {
            "sections": self._sections[1],
            "experts": len(cards),
            "vectors": node.index.vectors,
            "parameters": sum(models.values()),
            "more": len(cards) - len(shown),
            "last": self._last(),
        }

    def _shelve(self, cards: Sequence[Rated]) -> list[_Fields]:
        node = self._node
        try:
            artefact, _ = learnt(node.config.home, node.gone)
        except ArtefactError:  # which the node said when it read it
            artefact = None
        return shelved(cards, artefact, node.embed)

    def _last(self) -> _Fields | None:
        """Who was considered is found anew: whoever has come or gone since then makes a difference."""
        last = self._observed.last
        if last is None:
            return None
        if self._considered[0] is not last:
            near = candidates(last.query, self._node.experts, self._node.index, spared=False)
            self._considered = last, list(near.names)
        return {
            "request_id": last.report.request_id,
            "at_utc": last.at_utc,
            "section": last.query.section or last.query.limits.topic,
            "considered": self._considered[1],
            "asked": list(dict.fromkeys(entry.expert for entry in last.report.panel)),
            "answered": answered(last.report),
        }

    # --- traffic ---

    async def _read_frontier(self) -> _Fields:
        since = datetime.now(UTC) - WINDOWS["week"]

        def read(ledger: Ledger, _: Config) -> _Fields:
            said: dict[str, list[float]] = {}
            for _window, expert, _section, correct in ledger.grades([WINDOWS["week"]], _GRADES):
                said.setdefault(expert, []).append(correct)
            called = {row["expert"]: row for row in ledger.totals("expert", since=since)}
            cards = {card.name: card for card in self._node.cards}
            names = sorted(cards.keys() | called.keys())
            experts = [_point(name, cards.get(name), called.get(name), said.get(name, [])) for name in names]
            policies = ledger.policies(since)
            return {
                "since_utc": stamp(since),
                "experts": experts[:_MOST],
                "more": len(experts[_MOST:]),
                "policies": [
                    {
                        "policy": row["policy"],
                        "accuracy": float(row["accuracy"]) if row["graded"] else None,
                        "graded": row["graded"],
                        "cost_usd_per_1k": 1000.0 * row["cost_usd"] / row["requests"],
                        "requests": row["requests"],
                    }
                    for row in policies
                ],
            }

        return await self._node.read(read)

    # --- other nodes ---

    async def network(self) -> _Fields:
        """Who is here, how it goes with each, and what is owed; of a node that is alone, receipts at most."""
        membership = self._node.membership
        sums, receipts, more = await self._traded()
        entries = {entry.id: entry for entry in self._node.config.peers}
        present = {card.id: (name, card) for name, card in membership.present} if membership else {}
        names = {node: name for node, (name, _) in present.items()}
        names = {row["id"]: row["id"] for row in sums} | {e.id: e.name for e in entries.values()} | names
        owes = {row["id"]: row for row in sums}
        rated = {card.name: card for card in await self._node.rated() if card.kind == "peer"}
        peers = []
        for node, name in sorted(names.items(), key=lambda item: (item[0] not in present, item[1])):
            entry, here, due = entries.get(node), present.get(node), owes.get(node, {})
            card, way = rated.get(name), membership.ways.get(node) if membership else None
            week = card.ratings.week if card is not None and card.ratings is not None else Rating()
            deeds = membership.deeds if membership is not None else {}
            peers.append(
                {
                    "id": node,
                    "name": name,
                    "up": here is not None,
                    "transport": way or ("https" if entry is not None and entry.url else None),
                    "ttft_p50_s": week.ttft_p50_s,
                    "uptime": week.uptime,
                    "trust": card.accuracy if card is not None and card.accuracy else None,
                    "deeds": {deed: n for (whose, deed), n in sorted(deeds.items()) if whose == name},
                    "experts": here[1].says.experts if here is not None else None,
                    "owed_to_it_usd": due.get("asked_usd", 0.0),
                    "owed_by_it_usd": due.get("answered_usd", 0.0),
                    "answers_from_it": due.get("asked_answers", 0),
                    "answers_to_it": due.get("answered_answers", 0),
                }
            )
        return {
            "node": self._own_card(),
            "peers": peers[:_MOST],
            "more_peers": len(peers[_MOST:]),
            "receipts": [{**row, "peer": names.get(row["peer"], row["peer"])} for row in receipts],
            "more": more,
        }

    def _own_card(self) -> _Fields | None:
        membership = self._node.membership
        if membership is None:
            return None
        name = msgspec.json.decode(membership.card)["name"]
        return {"id": membership.id, "name": name, "url": self._node.config.network.url or None}

    async def _read_trade(self) -> tuple[list[_Fields], list[_Fields], int]:
        """Sums by peer, the latest receipts, and how many more there are."""

        def read(ledger: Ledger, config: Config) -> tuple[list[_Fields], list[_Fields], int]:
            rows = ledger.owed()
            latest = [priced(row) for row in ledger.receipts(_SHOWN)]
            every = sum(row["answers"] for row in rows)
            receipts = [{name: row[name] for name in _RECEIPT} for row in latest]
            return settled(rows, {}), receipts, max(0, every - len(receipts))

        return await self._node.read(read)

    # --- books ---

    async def _read_ledger(self) -> _Fields:
        since = datetime.now(UTC) - timedelta(days=_DAYS)

        def read(ledger: Ledger, config: Config) -> _Fields:
            requests = ledger.requests(_SHOWN, since=since)
            by = {group: ledger.totals(group, since=since) for group in ("day", "key", "expert", "policy")}
            every = sum(row["requests"] for row in by["policy"])
            try:
                privacy = told(ledger, config)
            except ConfigError:  # it takes an extra that is not installed: then nobody was polled here
                privacy = []
            return {
                "since_utc": stamp(since),
                "requests": requests,
                "more": max(0, every - len(requests)),
                "totals": {
                    group: sorted(rows, key=lambda row: -row["requests"])[:_GROUPS]
                    if group != "day"
                    else rows
                    for group, rows in by.items()
                },
                "budgets": budgeted(ledger)[:_GROUPS],
                "privacy": privacy,
                "sources": owed(ledger.sources(since=since), limits_of(config), ledger.leased)[:_GROUPS],
            }

        return await self._node.read(read)


class _Kept(Generic[_T]):
    """What somebody reads, as it was a few seconds ago or is now; read by one at a time."""

    def __init__(self, read: Callable[[], Awaitable[_T]]) -> None:
        self._read = read
        self._reading = asyncio.Lock()
        self._found: tuple[_T] | None = None
        self._until_s = 0.0

    async def __call__(self) -> _T:
        async with self._reading:
            began_s = time.monotonic()
            if self._found is None or began_s >= self._until_s:
                self._found = (await self._read(),)
                ended_s = time.monotonic()
                self._until_s = ended_s + max(_KEPT_S, _SHARE * (ended_s - began_s))
            return self._found[0]


def _point(name: str, card: Card | None, called: _Fields | None, said: Sequence[float]) -> _Fields:
    """Of one expert: what it costs and how right it is, by what came of it and by its own claim."""
    calls = called["calls"] if called is not None else 0
    return {
        "name": name,
        "accuracy": sum(said) / len(said) if said else None,
        "graded": len(said),
        "claimed_accuracy": card.accuracy if card is not None else None,
        "cost_usd_per_1k": 1000.0 * called["cost_usd"] / calls if called is not None and calls else None,
        "calls": calls,
    }
