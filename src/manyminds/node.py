"""The only wiring: turns a configuration into a running gateway, and ends it again.

Knows every part by name and none from the inside.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import aiohttp

from manyminds import catalog
from manyminds.combine.fuse import Fuse
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.config import Config, ExpertEntry
from manyminds.encoder import Encoder
from manyminds.errors import ConfigError, UnavailableError
from manyminds.experts.child import Model
from manyminds.experts.local import QUESTION_STOP, QUESTION_TEMPLATE, Local
from manyminds.experts.openai import OpenAI
from manyminds.experts.recorded import open_set
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts
from manyminds.index import Index
from manyminds.ledger import Ledger
from manyminds.router import SkillRouter
from manyminds.types import Card, Combiner, Expert, Limits, Strategy

__all__ = ["ENCODER", "Node"]

ENCODER = "all-minilm-l6-v2"
"""The catalogue's name of the sentence encoder."""

_DIMENSION = 384
_CONNECT_S = 5.0
_MB = 1_000_000

log = logging.getLogger(__name__)


class Node:
    """A gateway with everything it needs. `async with` opens it; `load` then loads the local models.

    Args:
        config: what to run.
        environ: where the keys are that `key_env` names.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._config = config
        self._environ = environ
        self._stack = AsyncExitStack()
        self.experts: dict[str, Expert] = {}
        self.locals: list[Local] = []
        self.loaded = False

    async def __aenter__(self) -> "Node":
        """Opens the ledger and makes the experts; loads no model. Raises: ConfigError, LedgerError."""
        async with AsyncExitStack() as stack:
            self._ledger = Ledger(self._config.ledger.url, store_text=self._config.ledger.store_text)
            stack.callback(self._ledger.close)
            self._session = await stack.enter_async_context(_session(aiohttp.TCPConnector(limit=0)))
            self._loopback = await stack.enter_async_context(_session(aiohttp.TCPConnector(force_close=True)))
            for expert in self._make_experts():
                self.experts[expert.card.name] = expert
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
            except UnavailableError as error:
                log.error("%s", error)

        await asyncio.gather(*(start(expert) for expert in self.locals))
        self.loaded = True

    @property
    def cards(self) -> list[Card]:
        """Every expert's card, by name."""
        return [self.experts[name].card for name in sorted(self.experts)]

    # --- experts ---

    def _make_experts(self) -> list[Expert]:
        entries = [self._make_entry(entry) for entry in self._config.experts]
        made = [*self._make_tier(), *self._make_own(), *entries]
        names = [expert.card.name for expert in made]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two experts are named {twice[0]}: give the [[expert]] another name.")
        return made

    def _make_tier(self) -> list[Local]:
        """The local models that are here and fit into memory together, the smallest first."""
        home, left_mb = self._config.home, self._config.local.max_memory_gb * 1000
        made = []
        for model in sorted(catalog.wanted(home, self._config.local.tier), key=lambda m: m.memory_mb):
            if catalog.missing(home, model):
                log.warning("%s is not on this machine: run `manyminds pull %s`.", model.name, model.name)
            elif model.memory_mb > left_mb:
                log.warning(
                    "%s needs %d MB and only %d MB are left of local.max_memory_gb: it is not loaded.",
                    model.name,
                    model.memory_mb,
                    left_mb,
                )
            else:
                left_mb -= model.memory_mb
                made.append(self._make_catalogued(model))
        return made

    def _make_catalogued(self, model: catalog.Model) -> Local:
        card = Card(
            name=model.name,
            kind="local",
            source=model.name,
            model=model.name,
            description=model.description,
            skills=model.skills,
            accuracy=model.accuracy,
            ttft_s=model.ttft_s,
            tokens_per_s=model.tokens_per_s,
            price_cpu_usd_per_hour=self._config.local.price_cpu_usd_per_hour,
            context_tokens=min(model.context_tokens, self._config.local.context_tokens),
            offers=frozenset(
                {"logprobs", "json_schema", "score"} if model.scores else {"logprobs", "json_schema"}
            ),
            parameters=model.parameters,
            licence=model.licence,
        )
        path = catalog.path_of(self._config.home, model.files[0])
        return self._make_local(card, path, chat=model.chat)

    def _make_own(self) -> list[Local]:
        if self._config.local.tier == "none":
            return []
        return [
            self._make_local(self._own_card(m.name, m.path), m.path) for m in catalog.own(self._config.home)
        ]

    def _own_card(self, name: str, path: Path) -> Card:
        local = self._config.local
        return Card(
            name=name,
            kind="local",
            source=name,
            model=name,
            description=path.stem,
            price_cpu_usd_per_hour=local.price_cpu_usd_per_hour,
            context_tokens=local.context_tokens,
            offers=frozenset({"logprobs", "json_schema", "score"}),
        )

    def _make_local(self, card: Card, path: Path, *, chat: bool = True) -> Local:
        size = path.stat().st_size if path.exists() else 0
        model = Model(
            path=path,
            context_tokens=self._config.local.context_tokens,
            threads=self._config.local.threads,
            # Twice what was measured, and room for the cache of an 8B model's context: for runaways only.
            memory_bytes=512 * _MB + 2 * size + 131_072 * self._config.local.context_tokens,
            chat_template="" if chat else QUESTION_TEMPLATE,
            stop=() if chat else QUESTION_STOP,
        )
        return Local(card, model, lambda url, key: OpenAI(card, url, self._loopback, key), self._loopback)

    def _make_entry(self, entry: ExpertEntry) -> Expert:
        card = Card(
            name=entry.name,
            kind=entry.kind,
            source=entry.source,
            model=entry.model,
            description=entry.model,
            skills=entry.skills,
            accuracy=entry.accuracy,
            price_in_usd_per_m=entry.price_in_usd_per_m,
            price_out_usd_per_m=entry.price_out_usd_per_m,
            context_tokens=entry.context_tokens,
            offers=frozenset(entry.offers),
        )
        if entry.kind == "local":
            own = self._own_card(entry.name, Path(entry.path))
            return self._make_local(own, Path(entry.path))
        if entry.kind == "recorded":
            return _recorded(entry)
        return OpenAI(card, entry.url, self._session, self._key(entry))

    def _key(self, entry: ExpertEntry) -> str | None:
        if not entry.key_env:
            return None
        key = self._environ.get(entry.key_env, "")
        if not key:
            raise ConfigError(
                f"{entry.name} takes its key from {entry.key_env}, which is not set: export it first."
            )
        return key

    # --- gateway ---

    def _make_gateway(self) -> Gateway:
        policy = self._config.policy
        encoder = self._make_encoder()
        embed = encoder.encode if encoder else None
        index = Index(_DIMENSION)
        router = SkillRouter(index, embed)
        for card in self.cards:
            router.admit(card)
        vote = Vote()
        select = Select(embed) if embed else vote
        race = Race()
        combiners: dict[Strategy, Combiner] = {
            "vote": vote,
            "select": select,
            "fuse": Fuse(select),
            "race": race,
            "pass": race,
        }
        parts = Parts(self.experts, index, router, combiners, self._ledger.record, embed)
        patience = Patience(policy.first_token_s, policy.idle_s, policy.deadline_s)
        defaults = Limits(policy=policy.default, budget_usd=policy.budget_usd, deadline_s=policy.deadline_s)
        return Gateway(Card("manyminds", "gateway", source="manyminds"), parts, patience, defaults)

    def _make_encoder(self) -> Encoder | None:
        """The encoder where it has been pulled; without it the router goes by prices and priors alone."""
        model = catalog.find(ENCODER)
        if not self.experts or catalog.missing(self._config.home, model):
            return None
        return Encoder(catalog.path_of(self._config.home, model.files[0]).parent)


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """No limit of time but for connecting: the fan-out has its own."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


def _recorded(entry: ExpertEntry) -> Expert:
    recorded = open_set(Path(entry.path))
    for expert in recorded.experts():
        if expert.card.model == entry.model:
            return expert.behind(replace(expert.card, name=entry.name, source=entry.source))
    raise ConfigError(f"{entry.path} has no model {entry.model!r}: it has {', '.join(recorded.models)}.")
