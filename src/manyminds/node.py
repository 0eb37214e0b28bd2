"""The only wiring: turns a configuration into a running gateway, and ends it again.

Knows every part by name and none from the inside.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from manyminds import catalog
from manyminds.admission import Admission
from manyminds.artefact import Artefact, load
from manyminds.board import Board
from manyminds.combine.fuse import Fuse
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.config import POLICIES, Config, ExpertEntry
from manyminds.encoder import Encoder
from manyminds.errors import ConfigError, LedgerError, UnavailableError
from manyminds.experts.child import Child, Model, Process
from manyminds.experts.guarded import Guarded
from manyminds.experts.local import QUESTION_STOP, QUESTION_TEMPLATE, Local
from manyminds.experts.openai import OpenAI
from manyminds.experts.recorded import open_set
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts, Record, is_spared
from manyminds.index import Index
from manyminds.ledger import Backlog, Ledger
from manyminds.router import SkillRouter
from manyminds.types import Answer, Card, Combiner, Expert, Limits, Query, Report, Strategy
from manyminds.upstream import Client

__all__ = ["ARTEFACT", "ENCODER", "LocalModel", "Node", "Shared", "estimate_mb", "knowledge", "local_models"]

ENCODER = "all-minilm-l6-v2"
"""The catalogue's name of the sentence encoder."""

ARTEFACT = "artefact.npz"
"""Where in the home `manyminds train` leaves what it learnt, and a node looks for it."""

_DIMENSION = 384
_CONNECT_S = 5.0
_TIDY_S = 3600.0
_KEYS_S = 2.0  # until a new key is known, and a revoked one is not
_MB = 1_000_000
_MEASURED_TOKENS = 4096  # context with which the catalogue's memory_mb was measured
_WINDOW_TOKENS = 8192  # of a remote expert that states none
_LOCAL_OFFERS = frozenset({"logprobs", "json_schema", "score"})  # what llama.cpp gives

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model file of this machine, and what it takes to run it."""

    card: Card
    path: Path
    memory_mb: float
    remedy: str  # what to do where the file is missing or damaged
    chat: bool = True  # has a chat template


@dataclass(frozen=True, slots=True)
class Shared:
    """What a node shares with the other processes that serve its address."""

    board: Board  # what keys may still ask, who is inside, which experts are spared
    column: int  # where this process counts on it
    owner: int  # as whom it holds something on it
    start: Callable[[str, Model], Awaitable[Process]]  # has a local model's child, which all ask
    recall: Callable[[str], Awaitable[None]]  # see `admission.Recall`
    tidies: bool  # one of them deletes for all what need not be kept


def estimate_mb(file_bytes: int, context_tokens: int, measured_mb: float = 0) -> float:
    """Resident memory of a local model's process, in MB: weights, cache of its context, and the rest.

    A token's cache grows with the model: 27 KB for a file of 100 MB, 131 KB for one of 4.8 GB, as in an 8B
    with grouped queries. `measured_mb` is what a context of 4,096 tokens was measured to take; without it
    the estimate is one that no model of the catalogue surpasses.
    """
    token_bytes = 25_000 + file_bytes / 45_000
    if measured_mb:
        return measured_mb + token_bytes * max(0, context_tokens - _MEASURED_TOKENS) / _MB
    return 50 + (1.6 * file_bytes + token_bytes * context_tokens) / _MB


def local_models(config: Config) -> list[LocalModel]:
    """Every local model that this configuration asks for and that is here, also where it finds no room."""
    home, tier = config.home, config.local.tier
    models = [_catalogued(m, config) for m in catalog.wanted(home, tier) if not catalog.missing(home, m)]
    if tier != "none":
        for own in catalog.own(home):
            remedy = f"mend it, or run `manyminds pull --gguf FILE --name {own.name}` with another"
            models.append(_of_ones_own(_own_card(own.name, own.path, config), own.path, remedy))
    for entry in config.experts:
        if entry.kind == "local":
            path = Path(entry.path)
            card = replace(
                _own_card(entry.name, path, config),
                source=entry.source,
                skills=entry.skills,
                accuracy=entry.accuracy,
                context_tokens=entry.context_tokens or config.local.context_tokens,
                offers=_LOCAL_OFFERS | set(entry.offers),
            )
            models.append(_of_ones_own(card, path, f"see the `path` of [[expert]] {entry.name}"))
    return models


def knowledge(artefact: Artefact, experts: Collection[str]) -> tuple[int, str]:
    """How many of these experts it knows; and that in words, with what it was learnt from."""
    known = len(set(experts) & set(artefact.skills.experts))
    source = str(artefact.about.get("set", "a set without a name"))
    said = f"learnt from {source!r:.80}, knows {known} of {len(experts)} experts"
    if experts and not known:
        said += " and so changes nothing: learn from answers of these, `manyminds train DIR`"
    return known, said


def _catalogued(model: catalog.Model, config: Config) -> LocalModel:
    path = catalog.path_of(config.home, model.files[0])
    card = replace(
        _own_card(model.name, path, config),
        description=model.description,
        skills=model.skills,
        accuracy=model.accuracy,
        ttft_s=model.ttft_s,
        tokens_per_s=model.tokens_per_s,
        context_tokens=min(model.context_tokens, config.local.context_tokens),
        offers=_LOCAL_OFFERS if model.scores else _LOCAL_OFFERS - {"score"},
        parameters=model.parameters,
        licence=model.licence,
    )
    memory_mb = estimate_mb(model.files[0].bytes, card.context_tokens, model.memory_mb)
    return LocalModel(card, path, memory_mb, f"run `manyminds pull {model.name}`", chat=model.chat)


def _of_ones_own(card: Card, path: Path, remedy: str) -> LocalModel:
    return LocalModel(card, path, estimate_mb(_size(path), card.context_tokens), remedy)


def _own_card(name: str, path: Path, config: Config) -> Card:
    """What is said of a local model of which nothing else is known."""
    return Card(
        name=name,
        kind="local",
        source=name,
        model=name,
        description=path.stem,
        price_cpu_usd_per_hour=config.local.price_cpu_usd_per_hour,
        context_tokens=config.local.context_tokens,
        offers=_LOCAL_OFFERS,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # loading it will say what is wrong
        return 0


class Node:
    """A gateway with everything it needs. `async with` opens it; `load` then loads the local models.

    Args:
        config: what to run.
        environ: where the keys are that `key_env` names.
        learnt: whether to use what `manyminds train` left, if it did.
        keys_required: whether only callers with a key are answered.
        also: told of every request, as the ledger is.
        shared: where several processes serve one address.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        learnt: bool = True,
        keys_required: bool = False,
        also: Record | None = None,
        shared: Shared | None = None,
    ) -> None:
        self._config = config
        self._environ = environ
        self._learnt = learnt
        self._keys_required = keys_required
        self._also = also
        self._shared = shared
        self._stack = AsyncExitStack()
        self.experts: dict[str, Expert] = {}
        self.locals: list[Local] = []
        self._started: set[str] = set()
        self._loading = True

    async def __aenter__(self) -> "Node":
        """Opens the ledger and makes the experts; loads no model.

        Raises: ConfigError, LedgerError, ArtefactError.
        """
        async with AsyncExitStack() as stack:
            self._ledger = Ledger(self._config.ledger.url, store_text=self._config.ledger.store_text)
            stack.callback(self._ledger.close)
            self.admission = await self._open_admission()
            stack.push_async_callback(self.admission.close)
            watching = asyncio.create_task(self._watch_keys())
            stack.push_async_callback(_ended, watching)
            tidies = self._shared is None or self._shared.tidies
            if tidies and (days := self._config.ledger.retention_days) is not None:
                tidying = asyncio.create_task(self._tidy(timedelta(days=days)))
                stack.push_async_callback(_ended, tidying)
            self._client = await stack.enter_async_context(Client(_CONNECT_S))
            self._loopback = await stack.enter_async_context(Client(_CONNECT_S, keep=False))
            for expert in self._make_experts():
                retries = 0 if isinstance(expert, Local) else 1  # it starts its process anew itself
                draw = random.SystemRandom().random
                name, shared = expert.card.name, self._shared
                cell = shared.board.cell(f"expert {name}", shared.owner) if shared else None
                self.experts[name] = Guarded(expert, draw, retries=retries, cell=cell)
                if isinstance(expert, Local):
                    self.locals.append(expert)
                    stack.push_async_callback(expert.aclose)
            self.gateway = self._make_gateway()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def load(self) -> None:
        """Loads the local models, side by side. One that fails is logged: its calls say so too."""

        async def start(expert: Local) -> None:
            try:
                await expert.start()
                self._started.add(expert.card.name)
            except UnavailableError as error:
                log.error("%s", error)

        await asyncio.gather(*(start(expert) for expert in self.locals))
        self._loading = False

    @property
    def running(self) -> list[str]:
        """Names of the experts that can be asked: all but local models that have not been loaded.

        One that was loaded and died since is among them: the next call starts it anew.
        """
        waiting = {e.card.name for e in self.locals if e.pid is None} - self._started
        return sorted(self.experts.keys() - waiting)

    @property
    def backlog(self) -> Backlog:
        """How the ledger's writing goes."""
        return self._ledger.status

    def circuits(self) -> dict[str, bool]:
        """Of each expert, whether it is left alone for a while because it failed too often."""
        return {name: is_spared(expert) for name, expert in self.experts.items()}

    def _record(
        self, report: Report, query: Query, answers: Sequence[Answer], text: str, status: str, seconds: float
    ) -> None:
        self._ledger.record(report, query, answers, text, status, seconds)
        if self._also is not None:
            self._also(report, query, answers, text, status, seconds)

    @property
    def has_keys(self) -> bool:
        return self.admission.has_keys

    @property
    def ready(self) -> bool:
        """Whether loading has ended, and at least one expert can be asked if there is any."""
        return not self._loading and bool(self.running or not self.experts)

    @property
    def cards(self) -> list[Card]:
        """Every expert's card, by name."""
        return [self.experts[name].card for name in sorted(self.experts)]

    async def _open_admission(self) -> Admission:
        async def lease(key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
            return await asyncio.to_thread(self._ledger.lease, key_id, period, want_nusd, limit_nusd)

        async def give_back(key_id: str, period: str, nusd: int) -> None:
            await asyncio.to_thread(self._ledger.give_back, key_id, period, nusd)

        server, shared = self._config.server, self._shared
        admission = Admission(
            await asyncio.to_thread(self._ledger.keys),
            open=not self._keys_required,
            most_at_once=server.most_at_once,
            lease=lease,
            give_back=give_back,
            board=shared.board if shared else None,
            column=shared.column if shared else 0,
            recall=shared.recall if shared else None,
        )
        await admission.recover()
        return admission

    async def _watch_keys(self) -> None:
        """Takes over what `manyminds keys` changes while this node runs."""
        while True:
            await asyncio.sleep(_KEYS_S)
            try:
                self.admission.replace(await asyncio.to_thread(self._ledger.keys))
            except LedgerError as error:
                log.error("%s", error)

    async def _tidy(self, kept: timedelta) -> None:
        """Deletes what the ledger need not keep any longer, now and then."""
        while True:
            try:
                await asyncio.to_thread(self._ledger.prune, datetime.now(UTC) - kept)
            except LedgerError as error:
                log.error("%s", error)
            await asyncio.sleep(_TIDY_S)

    # --- experts ---

    def _make_experts(self) -> list[Expert]:
        """Raises: ConfigError where a name is taken, or where every expert lacks its key."""
        self._refuse_taken()
        planned = local_models(self._config)
        entries = [entry for entry in self._config.experts if entry.kind != "local"]
        names = [model.card.name for model in planned] + [entry.name for entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two experts are named {twice[0]}: give the [[expert]] another name.")
        keyless = [entry for entry in entries if entry.key_env and not self._key(entry)]
        made: list[Expert] = [self._make_local(model) for model in self._fitting(planned)]
        made += [self._make_entry(entry) for entry in entries if entry not in keyless]
        for entry in keyless:
            why = f"{entry.name} takes its key from {entry.key_env}, which is not set: export it first."
            if not made:
                raise ConfigError(why)
            log.warning("%s It is left out.", why)
        return made

    def _refuse_taken(self) -> None:
        """An own model recorded under the name of a policy would be asked in its place."""
        home = self._config.home
        for model in catalog.own(home):
            if model.name in (*POLICIES, *catalog.load()):
                record = catalog.record_of(home, model.name)
                raise ConfigError(
                    f"{record} gives a file the name {model.name}, which is taken: remove it, then run"
                    f" `manyminds pull --gguf {model.path} --name` with another name."
                )

    def _fitting(self, planned: Sequence[LocalModel]) -> list[LocalModel]:
        """The local models that are here and fit into memory together, the smallest first."""
        home, local = self._config.home, self._config.local
        for lacking in catalog.wanted(home, local.tier):
            if catalog.missing(home, lacking):
                log.warning("%s is not on this machine: run `manyminds pull %s`.", lacking.name, lacking.name)
        left_mb = local.max_memory_gb * 1000
        fitting = []
        for model in sorted(planned, key=lambda m: (m.memory_mb, m.card.name)):
            if model.memory_mb <= left_mb:
                left_mb -= model.memory_mb
                fitting.append(model)
                continue
            log.warning(
                "%s is not loaded: with a context of %d tokens it needs about %.0f MB, and %.0f MB are left"
                " of local.max_memory_gb = %g. Raise that, or lower context_tokens.",
                model.card.name,
                model.card.context_tokens,
                model.memory_mb,
                left_mb,
                local.max_memory_gb,
            )
        return fitting

    def _make_local(self, planned: LocalModel) -> Local:
        card = planned.card
        model = Model(
            path=planned.path,
            context_tokens=card.context_tokens,
            threads=self._config.local.threads,
            # Twice what was measured, and room for the cache of an 8B model's context: for runaways only.
            memory_bytes=512 * _MB + 2 * _size(planned.path) + 131_072 * card.context_tokens,
            chat_template="" if planned.chat else QUESTION_TEMPLATE,
            stop=() if planned.chat else QUESTION_STOP,
            remedy=planned.remedy,
        )
        loopback = self._loopback
        start = Child.start if self._shared is None else self._shared.start
        return Local(card, model, lambda url, key: OpenAI(card, url, loopback, key), loopback, start)

    def _make_entry(self, entry: ExpertEntry) -> Expert:
        if entry.kind == "recorded":
            return _recorded(entry)
        return OpenAI(_card(entry), entry.url, self._client, self._key(entry))

    def _key(self, entry: ExpertEntry) -> str:
        return self._environ.get(entry.key_env, "").strip() if entry.key_env else ""

    # --- gateway ---

    def _make_gateway(self) -> Gateway:
        policy = self._config.policy
        encoder = self._make_encoder()
        self.embed = embed = encoder.encode if encoder else None
        index = Index(_DIMENSION)
        artefact = self._load_artefact()
        router = SkillRouter(index, embed, artefact)
        for card in self.cards:
            router.admit(card)
        vote = Vote(artefact)
        select = Select(embed) if embed else vote
        race = Race()
        combiners: dict[Strategy, Combiner] = {
            "vote": vote,
            "select": select,
            "fuse": Fuse(select),
            "race": race,
            "pass": race,
        }
        parts = Parts(self.experts, index, router, combiners, self._record, embed, self.admission.reserve)
        patience = Patience(policy.first_token_s, policy.idle_s, policy.deadline_s)
        defaults = Limits(policy=policy.default, budget_usd=policy.budget_usd, deadline_s=policy.deadline_s)
        card = Card("manyminds", "gateway", source="manyminds")
        return Gateway(card, parts, patience, defaults, time.perf_counter)

    def _load_artefact(self) -> Artefact | None:
        """What `manyminds train` has written, if it has. Raises: ArtefactError."""
        path = self._config.home / ARTEFACT
        if not self._learnt or not path.exists():
            return None
        artefact = load(path)
        known, said = knowledge(artefact, self.experts)
        log.log(logging.INFO if known or not self.experts else logging.WARNING, "%s: %s.", path, said)
        return artefact

    def _make_encoder(self) -> Encoder | None:
        """The encoder where it has been pulled; without it the router goes by prices and priors alone."""
        model = catalog.find(ENCODER)
        if not self.experts or catalog.missing(self._config.home, model):
            return None
        return Encoder(catalog.path_of(self._config.home, model.files[0]).parent)


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _card(entry: ExpertEntry) -> Card:
    return Card(
        name=entry.name,
        kind=entry.kind,
        source=entry.source,
        model=entry.model,
        description=entry.model,
        skills=entry.skills,
        accuracy=entry.accuracy,
        price_in_usd_per_m=entry.price_in_usd_per_m,
        price_out_usd_per_m=entry.price_out_usd_per_m,
        context_tokens=entry.context_tokens or _WINDOW_TOKENS,
        offers=frozenset(entry.offers),
    )


def _recorded(entry: ExpertEntry) -> Expert:
    recorded = open_set(Path(entry.path))
    for expert in recorded.experts():
        if expert.card.model == entry.model:
            return expert.behind(replace(expert.card, name=entry.name, source=entry.source))
    raise ConfigError(f"{entry.path} has no model {entry.model!r}: it has {', '.join(recorded.models)}.")
