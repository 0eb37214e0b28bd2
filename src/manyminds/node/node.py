"""The only wiring: turns a configuration into a running gateway, and ends it again.

Knows every part by name and none from the inside.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from random import SystemRandom
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from msgspec.structs import replace

from manyminds import catalog, network, pauses
from manyminds.artefact import Artefact
from manyminds.candidates import is_spared
from manyminds.config import POLICIES, Config
from manyminds.errors import ConfigError, LedgerError, ManymindsError, UnavailableError
from manyminds.experts.guarded import Guarded
from manyminds.experts.local import Local
from manyminds.feedback import agreed, judged
from manyminds.gateway import Gateway, Record
from manyminds.index import Index
from manyminds.ledger import Backlog, Gone, Ledger, Withdrawal
from manyminds.node.entrance import opened, secret_of
from manyminds.node.learnt import usable
from manyminds.node.lessons import Lessons, drifted, is_learnt, warn
from manyminds.node.libraries import Libraries, renew
from manyminds.node.rated import Recent, beside, rated
from manyminds.node.roster import Member, Neighbour, Roster, Shared
from manyminds.node.wiring import DIMENSION, ENCODER, Made, cache_of, encoder_of, wired
from manyminds.ratings import Rated
from manyminds.types import Answer, Card, Chunk, Embed, Expert, Key, Query, Report
from manyminds.upstream import Client

if TYPE_CHECKING:
    from manyminds.node.membership import Membership
    from manyminds.types import Vectors

__all__ = ["Node"]

_CONNECT_S = 5.0
_TIDY_S = 3600.0
_GRADES = 100  # of each key a day that are learnt from
_PEER_RETRIES = 2  # while the way to a peer is found anew
_THREADS = 4  # in which the ledger is asked
_WATCH_S = 2.0  # until a new key is known, a revoked one is not, and what others learnt is

_P = ParamSpec("_P")
_T = TypeVar("_T")

log = logging.getLogger(__name__)


class Node:
    """A gateway with everything it needs. `async with` opens it; `load` then loads the local models.

    Args:
        config: what to run.
        environ: where the keys are that `key_env` names.
        learnt: whether to use what `manyminds train` left, if it did.
        keys_required: whether only callers with a key are answered.
        explores: whether to ask experts, too, of which little is known.
        also: told of every request, as the ledger is.
        shared: where several processes serve one address.
        follows: whether to take over documents that change in folders that are to be watched.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        learnt: bool = True,
        keys_required: bool = False,
        explores: bool = False,
        also: Record | None = None,
        shared: Shared | None = None,
        follows: bool = False,
    ) -> None:
        self._config = config
        self._follows = follows and (shared is None or shared.tidies)
        self._environ = environ
        self._learnt = learnt
        self._keys_required = keys_required
        self._explores = explores
        self._also = also
        self._shared = shared
        self._stack = AsyncExitStack()
        self._members: dict[str, Member] = {}
        self._paused: frozenset[str] = frozenset()
        self._own_cards: tuple[Card, ...] = ()
        self._loading = True
        self._retiring: dict[asyncio.Task[None], Local] = {}
        self._peers: dict[str, Neighbour] = {}
        self.membership: Membership | None = None
        """Other nodes; None where it is alone."""
        self.renewed: Callable[[], None] = lambda: None
        """Called when this node has another `gateway` by itself: who answers by it takes it over."""

    async def __aenter__(self) -> "Node":
        """Opens the ledger and makes the experts; loads no model.

        Raises: ConfigError, LedgerError, ArtefactError.
        """
        async with AsyncExitStack() as stack:
            ledger = self._config.ledger
            self._ledger = Ledger(ledger.url, store_text=ledger.store_text)
            stack.callback(self._ledger.close)
            self._threads = stack.enter_context(ThreadPoolExecutor(_THREADS, "ledger"))
            self.admission = await opened(
                self._ledger, self._config, self._shared, self._in_ledger, open=not self._keys_required
            )
            stack.push_async_callback(self.admission.close)
            self._gone, self._reloading = await self._in_ledger(self._ledger.gone), asyncio.Lock()
            self._paused = await self._in_ledger(self._ledger.paused)
            self._lessons, self._studying = Lessons(self._ledger, time.monotonic), asyncio.Lock()
            self._recent = Recent(lambda cards: self._in_ledger(rated, self._ledger, cards))
            client = await stack.enter_async_context(Client(_CONNECT_S))
            loopback = await stack.enter_async_context(Client(_CONNECT_S, keep=False))
            self._roster = Roster(
                *(self._environ, client, loopback, self._shared), lambda: self.gateway, self._readers
            )
            stack.push_async_callback(self._close_locals)
            self._encoder = encoder_of(self._config.home)
            self._libraries = Libraries(self._config.home, self._config.own, follows=self._follows)
            stack.push_async_callback(asyncio.to_thread, self._libraries.close)
            self._members = await self._make_members(self._config, {})
            self._cache = cache_of(self._config)
            made = self._make_gateway(self._config, self._members)
            self._every, self._index, self._router, gateway = made
            self._open(gateway)
            self._client = client
            stack.push_async_callback(self._leave)
            await self._join(self._config)
            await self._in_ledger(self._renew_documents)
            await self._study()
            for watch in (self._watch(), self._tidy()):
                stack.push_async_callback(_ended, asyncio.create_task(watch))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def load(self) -> None:
        """Loads the smallest local model, so that the first answer is quick; the others, when they are asked.

        One that fails is logged, its calls say so too, and the next is loaded instead.
        """
        for local in (local for local in self.locals if local.card.name not in self._paused):
            try:
                await local.start()
                break
            except UnavailableError as error:
                log.error("%s", error)
        self._loading = False

    async def reload(self, config: Config | None = None) -> None:
        """Takes over experts, policies and the artefact as they are now. Nobody who is answered notices.

        Without a configuration, those of the one that it has.

        Whoever asks next is to ask the new `gateway`, before anything else is awaited: local models that are
        gone end when they have answered who waits for them. Those that are new are loaded by `load`.
        Experts that stay as they were are kept, with what is known of them; grades go by name. The ledger,
        and how many are answered at once, stay as they are.

        Raises: ConfigError, ArtefactError: nothing has changed.
        """
        async with self._reloading:
            await self._reload(config or self._config, graded=True)

    async def _reload(self, config: Config, *, graded: bool, but: Collection[str] = ()) -> None:
        if self._encoder is None:
            self._encoder = await asyncio.to_thread(encoder_of, config.home)
        members = await self._make_members(config, self._members)
        made = await asyncio.to_thread(self._make_gateway, config, members)
        async with self._studying:
            before, self._members = self._members, members
            known, (self._every, self._index, self._router, gateway) = self._router, made
            for peer in self._peers.values():
                self._place(peer)
            self._open(gateway)
            same = [name for name in members if members[name] is before.get(name)]
            self._router.inherit(known, {*same, *self._peers} - {*but}, graded=graded)
            self._lessons.reread()
            was, self._config = self._config, config
        await self._rejoin(was)
        if self._cache is not None:
            self._cache.clear()
        for name, member in before.items():
            if member.local is not None and members.get(name) is not member:
                retiring = asyncio.create_task(member.local.retire())
                self._retiring[retiring] = member.local
                retiring.add_done_callback(self._retiring.pop)

    async def _make_members(self, config: Config, before: Mapping[str, Member]) -> dict[str, Member]:
        """Raises: ConfigError."""
        entries = [entry for entry in config.experts if not self._gone.has(entry.name, entry.source)]
        opened = await asyncio.to_thread(self._libraries.open, entries, self.embed)
        return self._roster.make(config, before, self._gone, opened, self.embed)

    def _readers(self) -> tuple[str, ...]:
        """Who is not shown what documents say: other experts of documents, and other nodes."""
        return tuple(name for name, expert in self._all.items() if expert.card.kind in ("documents", "peer"))

    async def _close_locals(self) -> None:
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        await asyncio.gather(*(local.aclose() for local in (*self.locals, *retiring.values())))

    def __contains__(self, name: object) -> bool:
        return name in self._members or name in self._peers

    @property
    def experts(self) -> dict[str, Expert]:
        """Those who are asked, by name, peers included: nobody who is paused."""
        return pauses.asked(self._all, self._paused)

    @property
    def _all(self) -> dict[str, Guarded]:
        of_here = {name: member.expert for name, member in self._members.items()}
        return of_here | {name: peer.expert for name, peer in self._peers.items()}

    @property
    def locals(self) -> list[Local]:
        return [member.local for member in self._members.values() if member.local is not None]

    @property
    def embed(self) -> Embed | None:
        """What makes vectors of texts, where it has been pulled."""
        return self._encoder.encode if self._encoder else None

    @property
    def running(self) -> list[str]:
        """Names of the experts that can be asked: not those that are paused, nor local models that have
        failed to load.
        """
        failed = {local.card.name for local in self.locals if local.failed}
        return sorted(self._all.keys() - failed - self._paused)

    @property
    def backlog(self) -> Backlog:
        """How the ledger's writing goes."""
        return self._ledger.status

    async def grade(self, request_id: str, key: Key | None, correct: float) -> bool:
        """Keeps what a caller says of its answer, in [0, 1]; whether the router learns from it.

        It learns from so many grades of each key a day, so that no caller moves it as it likes.

        Raises: UnknownRequestError, AlreadyGradedError, LedgerError.
        """
        key_id = key.id if key is not None else ""
        kept = await self._in_ledger(self._ledger.grade, request_id, key_id, correct, judged, _GRADES)
        if learns := is_learnt(kept, request_id):
            await self._study()
        return learns

    async def _study(self) -> None:
        """Learns what has come to the ledger since it last did. Raises: LedgerError."""
        async with self._studying:
            graded, heard = await self._in_ledger(self._lessons.read)
            router = self._router
            for outcome in heard:
                router.observe(outcome)
            if self.membership is not None:
                self.membership.hear(graded)
            if graded:
                warn(router, await self._in_ledger(router.learn, graded))

    @property
    def drifted(self) -> dict[str, str]:
        """Experts that have become worse than they were, by what was graded, in whatever way they are asked;
        since when, in UTC. Nobody who is paused.
        """
        return drifted(self._router, self._members.keys() - self._paused)

    def circuits(self) -> dict[str, bool]:
        """Of each expert, whether it is left alone for a while because it failed too often."""
        return {name: is_spared(expert) for name, expert in self._all.items()}

    def _record(
        self, report: Report, query: Query, answers: Sequence[Answer], text: str, status: str, seconds: float
    ) -> None:
        self._ledger.record(report, query, answers, text, status, seconds, agreed(report, answers))
        if self.membership is not None:
            self.membership.settle(report)
        if self._also is not None:
            self._also(report, query, answers, text, status, seconds)

    def knows(self, name: str) -> bool:
        """Whether a policy, an expert, the encoder or this network itself has that name."""
        return name in self or name in POLICIES or name in (ENCODER, self.gateway.card.name)

    def look(self, name: str) -> tuple[Card, str] | None:
        """An expert's card, and its address where it has one; None where there is no such expert."""
        expert = self._all.get(name)
        if expert is None:
            return None
        urls = {entry.name: entry.url for entry in self._config.experts}
        urls |= {entry.name: entry.url for entry in self._config.peers}
        return expert.card, urls.get(name, "")

    @property
    def has_keys(self) -> bool:
        return self.admission.has_keys

    @property
    def ready(self) -> bool:
        """Whether loading has ended, and at least one expert can be asked if there is any."""
        return not self._loading and bool(self.running or not self._members)

    @property
    def cards(self) -> list[Card]:
        """The card of everybody who is asked, by name."""
        return [expert.card for _, expert in sorted(self.experts.items())]

    async def rated(self) -> list[Rated]:
        """Every expert's card with what was measured of late, also of those who are paused."""
        cards = [expert.card for _, expert in sorted(self._all.items())]
        found, standing, paused = await self._recent.of(cards), self._router.standing, self._paused
        return [
            beside(card, found.get(card.name), standing(card.name).drifted_utc, paused=card.name in paused)
            for card in cards
        ]

    async def _watch(self) -> None:
        """Takes over what `manyminds keys` changes while this node runs, and what others write down."""
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                others = self.membership.keys if self.membership is not None else ()
                self.admission.replace(await self._in_ledger(self._ledger.keys), others)
                await self._in_ledger(self._renew_documents)
                self._heed(await self._in_ledger(self._ledger.paused))
                gone = await self._in_ledger(self._ledger.gone)
                if gone.last != self._gone.last:
                    await self._part(gone)
                elif await asyncio.to_thread(self._libraries.changed):
                    async with self._reloading:
                        await self._reload(self._config, graded=True)
                    self.renewed()
                await self._study()
            except (ManymindsError, OSError) as error:
                log.error("%s", error)

    def _renew_documents(self) -> None:
        """Where one was taken out, or changed: what was learnt and kept by it is void. One process does it.

        Raises: ConfigError, LedgerError, OSError.
        """
        if self._shared is None or self._shared.tidies:
            for entry in self._config.experts:
                if (library := self._libraries.libraries.get(entry.name)) is not None:
                    renew(self._config.home, self._ledger, entry, library)

    async def _part(self, gone: Gone) -> None:
        """Parts with who was withdrawn, and takes in who has come back, as new.

        At once nobody asks them; then all is made anew as if they had never been, by what the ledger still
        teaches. What was answered before is gone: whom they would have been asked beside is another now.

        Raises: ConfigError, ArtefactError, LedgerError: it is tried again.
        """
        left = [e for e in self._all.values() if gone.has(e.card.name, e.card.source)]
        for expert in left:
            expert.withdraw()
        dropped = {
            card.name: self._forget_answers(card.source or card.name) for card in (e.card for e in left)
        }
        was, self._gone = self._gone, replace(gone, last=self._gone.last)
        if self.membership is not None:
            self.membership.part(gone)
        back = {name for name, at_s in gone.returned.items() if was.returned.get(name) != at_s}
        async with self._reloading:
            await self._reload(self._config, graded=False, but=back)
        await self._study()
        if self._cache is not None:
            self._cache.clear()
        self._gone = gone
        self._recent.forget()
        self.renewed()
        for card in (expert.card for expert in left):
            told = Withdrawal(
                "dropped", card.name, card.source, who=self._ledger.gateway, answers=dropped[card.name]
            )
            await self._in_ledger(self._ledger.withdraw, told)
            log.info(
                "%s was withdrawn: %d answers that it had a part in were dropped.", card.name, told.answers
            )

    def _forget_answers(self, source: str) -> int:
        return self._cache.forget(source) if self._cache is not None else 0

    async def pause(self, name: str, *, pause: bool = True) -> None:
        """Nobody asks that expert from now on, or it is asked again. What is being answered ends as it began.

        Raises: ModelNotFoundError, LedgerError: nothing has changed.
        """
        pauses.need_known(name, {*self._all, *self._paused})
        expert = self._all.get(name)
        source = expert.card.source if expert is not None else ""
        await self._in_ledger(self._ledger.pause, name, source, pause=pause)
        self._heed(await self._in_ledger(self._ledger.paused))

    def _heed(self, paused: frozenset[str]) -> None:
        """These are paused, and nobody else; all that is known of anybody stays."""
        if paused == self._paused:
            return
        self._paused = paused
        self._open(self.gateway)
        if self._cache is not None:
            self._cache.clear()
        if self.membership is not None:
            self.membership.refresh()
        self.renewed()

    def _open(self, gateway: Gateway) -> None:
        """Has everybody asked by such a gateway who is not paused: whoever asks next is to ask that one."""
        self._experts = pauses.asked(self._every, self._paused)
        asked = sorted(self._members.keys() - self._paused)
        self._own_cards = tuple(self._members[name].expert.card for name in asked)
        self.gateway = gateway.asking(self._experts, self._every)

    @property
    def paused(self) -> frozenset[str]:
        """Names of those who are kept, and not asked; some may not be here."""
        return self._paused

    @property
    def gone(self) -> Gone:
        """Who was withdrawn."""
        return self._gone

    async def _tidy(self) -> None:
        """Deletes what the ledger need not keep any longer, now and then; one of several processes does."""
        while self._shared is None or self._shared.tidies:
            days = self._config.ledger.retention_days
            if days is not None:
                try:
                    await self._in_ledger(self._ledger.prune, datetime.now(UTC) - timedelta(days=days))
                except LedgerError as error:
                    log.error("%s", error)
            await asyncio.sleep(_TIDY_S)

    async def _in_ledger(self, do: Callable[_P, _T], /, *args: _P.args, **more: _P.kwargs) -> _T:
        """In threads of its own: where it hangs, nothing else waits."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(do, *args, **more))

    async def read(self, do: Callable[[Ledger, Config], _T]) -> _T:
        """What somebody wants to know of the ledger, and of the configuration. Raises: LedgerError."""
        return await self._in_ledger(do, self._ledger, self._config)

    @property
    def config(self) -> Config:
        return self._config

    @property
    def index(self) -> Index:
        """Where skills lie."""
        return self._index

    # --- other nodes ---

    async def _join(self, config: Config) -> None:
        """Joins the other nodes that this configuration speaks of, if any. Raises: ConfigError."""
        if not config.is_networked:
            return
        network.need()
        from manyminds.network.identity import read_or_make
        from manyminds.node.membership import Membership

        model = catalog.find(ENCODER)
        membership = Membership(
            config,
            read_or_make(config.home),
            self,
            self._ledger,
            self._client,
            encoder=model.files[0].sha256 if self._encoder is not None else "",
            dimension=DIMENSION,
            version=version("manyminds"),
            secret=secret_of(config, self._environ),
            gone=self._gone,
        )
        self.admission.replace(await self._in_ledger(self._ledger.keys), membership.keys)
        self.membership = await membership.__aenter__()

    async def _leave(self) -> None:
        membership, self.membership = self.membership, None
        if membership is not None:
            await membership.__aexit__()
        for name in list(self._peers):
            self.let_go(name)

    async def _rejoin(self, was: Config) -> None:
        """After another configuration: as a member that goes on, or that has left and joined again."""
        now, membership = self._config, self.membership
        if membership is None or not now.is_networked or now.network != was.network:
            await self._leave()
            try:
                await self._join(now)
            except ConfigError as error:
                log.error("This node is alone now: %s", error)
            return
        membership.relist(now)
        self.admission.replace(await self._in_ledger(self._ledger.keys), membership.keys)
        membership.refresh()

    @property
    def own_cards(self) -> Sequence[Card]:
        """See `host.Host`."""
        return self._own_cards

    @property
    def own_names(self) -> Collection[str]:
        """See `host.Host`."""
        return self._members.keys()

    def skills(self, names: Collection[str] | None = None) -> "Vectors":
        """See `host.Host`."""
        of = sorted(self._members.keys() - self._paused if names is None else names)
        made = {name: m.vectors for name, m in self._members.items() if m.vectors is not None}
        found = [made.get(name, self._index.vectors_of(name)) for name in of if name in self._index]
        return np.concatenate([np.zeros((0, DIMENSION), np.float32), *found])

    def answer(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `host.Host`."""
        return self.gateway.stream(query)

    def take_in(self, expert: Expert, vectors: "Vectors | None", made_of: object) -> None:
        """See `host.Host`."""
        name = expert.card.name
        known = self._peers.get(name)
        guarded = Guarded(expert, SystemRandom().random, retries=_PEER_RETRIES)
        if known is not None and known.made_of == made_of:
            guarded.inherit(known.expert)
        self._peers[name] = peer = Neighbour(guarded, vectors, made_of)
        self._place(peer)
        if known is None and self.membership is not None:
            self.membership.refresh()

    def let_go(self, name: str) -> None:
        """See `host.Host`. What was measured of it is remembered."""
        if self._peers.pop(name, None) is not None:
            self._experts.pop(name, None)
            self._every.pop(name, None)
            if self.membership is not None:
                self.membership.refresh()

    def forget(self, name: str) -> None:
        """See `host.Host`."""
        if name in self._peers:
            self._peers[name].expert.withdraw()
        self._forget_answers(name)

    def _place(self, peer: Neighbour) -> None:
        card = peer.expert.card
        self._every[card.name] = peer.expert
        if card.name not in self._paused:
            self._experts[card.name] = peer.expert
        self._router.renew(card, peer.vectors)

    # --- gateway ---

    def _make_gateway(self, config: Config, members: Mapping[str, Member]) -> Made:
        """Raises: ArtefactError."""
        experts = {name: member.expert for name, member in members.items()}
        return wired(
            *(config, experts, self._load_artefact(config, members), self.embed),
            *(self._record, self.admission, self._cache),
            explores=self._explores,
            vectors={name: m.vectors for name, m in members.items() if m.vectors is not None},
        )

    def _load_artefact(self, config: Config, experts: Collection[str]) -> Artefact | None:
        """None where it is not wanted. Raises: ArtefactError."""
        return usable(config.home, self._gone, experts) if self._learnt else None


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
