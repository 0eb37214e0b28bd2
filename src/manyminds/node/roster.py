"""The experts of a configuration: made, or taken over from the one before. Runs none."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from manyminds import catalog
from manyminds.board import Board
from manyminds.config import POLICIES, Config, ExpertEntry, check_writers
from manyminds.errors import ConfigError
from manyminds.experts.child import Child, Model, Process
from manyminds.experts.documents import Documents
from manyminds.experts.guarded import Guarded
from manyminds.experts.local import QUESTION_STOP, QUESTION_TEMPLATE, Local
from manyminds.experts.openai import Embedder, OpenAI
from manyminds.experts.recorded import open_set
from manyminds.experts.room import Room
from manyminds.ledger import Gone
from manyminds.node.libraries import Opened
from manyminds.node.models import LocalModel, cores, fitting, local_models, size_bytes, terms_of
from manyminds.node.writer import Writer
from manyminds.types import Card, Embed, Expert
from manyminds.upstream import Client

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Member", "Neighbour", "Roster", "Shared"]

_MB = 1_000_000
_NOBODY = Gone()
_NOTHING: Final[Mapping[str, Opened]] = MappingProxyType({})
_WINDOW_TOKENS = 8192  # of a remote expert that states none

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What a node shares with the other processes that serve its address."""

    board: Board  # what keys may still ask, who is inside, which experts are spared
    column: int  # where this process counts on it
    owner: int  # as whom it holds something on it
    start: Callable[[str, Model], Awaitable[Process]]  # has a local model's child, which all ask
    recall: Callable[[str], Awaitable[None]]  # see `admission.Recall`
    tidies: bool  # one of them deletes for all what need not be kept


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """An expert of this node."""

    made_of: Any  # what it was made of: equal to another's where it would be the same
    expert: Guarded
    local: Local | None  # it, where it runs here
    vectors: "Vectors | None" = None  # where its skills lie, if that is not where its words do


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """Another node as an expert."""

    expert: Guarded
    vectors: "Vectors | None"  # where its skills lie
    made_of: object


class Roster:
    """Makes experts. The local ones have their memory from one room, and compute on the same cores.

    Where several processes share them, none gives way to another: what does not fit together is left out.

    Args:
        environ: where the keys are that `key_env` names.
        client: to ask experts elsewhere.
        loopback: to ask the processes of local models.
        shared: where several processes serve one address.
        network: the gateway of these experts, as it is now.
        readers: who is asked nothing that documents say: other experts of documents, and other nodes.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        client: Client,
        loopback: Client,
        shared: Shared | None,
        network: Callable[[], Expert],
        readers: Callable[[], tuple[str, ...]],
    ) -> None:
        self._network = network
        self._readers = readers
        self._environ = environ
        self._client = client
        self._loopback = loopback
        self._shared = shared
        self._room = Room(0.0)
        self._cores: dict[int, asyncio.Semaphore] = {}  # by threads of a model

    def make(
        self,
        config: Config,
        before: Mapping[str, Member],
        gone: Gone = _NOBODY,
        opened: Mapping[str, Opened] = _NOTHING,
        embed: Embed | None = None,
    ) -> dict[str, Member]:
        """The experts by name, but for those who are `gone`. One of `before` that would be the same is kept.

        Args:
            config: what it says of them.
            before: those that there are.
            gone: who was withdrawn.
            opened: what documents were read, by expert. Without, such an expert is left out.
            embed: turns texts into vectors, which documents take.

        Raises: ConfigError where a name is taken, where every expert lacks its key, or where an alias stands
            for what there is not.
        """
        _refuse_taken(config)
        planned = local_models(config)
        entries = [entry for entry in config.experts if entry.kind != "local"]
        names = [model.card.name for model in planned] + [entry.name for entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"two experts are named {twice[0]}: give the [[expert]] another name.")
        _check_aliases(config, names)
        writers = {model.name for model in catalog.load().values() if model.kind == "gguf"}
        check_writers(config.experts, {*names, *writers})
        planned = [model for model in planned if not gone.has(model.card.name, model.card.source)]
        entries = [entry for entry in entries if not gone.has(entry.name, entry.source)]
        for name in names:
            if name not in {model.card.name for model in planned} | {entry.name for entry in entries}:
                log.info("%s was withdrawn, and is not asked: see `manyminds ledger withdrawals`.", name)
        _check_terms(config)
        offered = fitting(config, planned, together=self._shared is not None)
        members = [self._local(config, model, before, gone) for model in offered]
        keyless = [entry for entry in entries if entry.key_env and not self._key(entry)]
        asked = [entry for entry in entries if entry not in keyless]
        members += [self._remote(entry, before, gone) for entry in asked if entry.kind != "documents"]
        members += self._all_documents(
            [e for e in asked if e.kind == "documents"], before, gone, opened, embed
        )
        for entry in keyless:
            why = f"{entry.name} takes its key from {entry.key_env}, which is not set: export it first."
            if not members:
                raise ConfigError(why)
            log.warning("%s It is left out.", why)
        self._room.limit_mb = config.local.max_memory_gb * 1000
        return {member.expert.card.name: member for member in members}

    def _local(self, config: Config, planned: LocalModel, before: Mapping[str, Member], gone: Gone) -> Member:
        card, threads = planned.card, config.local.threads
        made_of = (planned, threads, gone.returned.get(card.name))
        if (known := before.get(card.name)) is not None and known.made_of == made_of:
            return known
        model = Model(
            path=planned.path,
            context_tokens=card.context_tokens,
            threads=threads,
            # Twice what was measured, and room for the cache of an 8B model's context: for runaways only.
            needs_mb=planned.memory_mb,
            memory_bytes=512 * _MB + 2 * size_bytes(planned.path) + 131_072 * card.context_tokens,
            chat_template="" if planned.chat else QUESTION_TEMPLATE,
            stop=() if planned.chat else QUESTION_STOP,
            remedy=planned.remedy,
        )
        loopback = self._loopback
        start = Child.start if self._shared is None else self._shared.start
        local = Local(
            card,
            model,
            lambda url, key: OpenAI(card, url, loopback, key),
            loopback,
            start,
            room=self._room,
            cores=self._cores.setdefault(threads, asyncio.Semaphore(max(1, cores() // threads))),
        )
        return Member(
            made_of, self._guarded(local, 0, planned.path), local
        )  # it starts its process anew itself

    def _remote(self, entry: ExpertEntry, before: Mapping[str, Member], gone: Gone) -> Member:
        made_of = (entry, self._key(entry), gone.returned.get(entry.name))
        if (known := before.get(entry.name)) is not None and known.made_of == made_of:
            return known
        expert: Expert
        if entry.kind == "recorded":
            expert = _recorded(entry)
        else:
            kind = Embedder if "embeddings" in entry.offers else OpenAI
            expert = kind(_card(entry), entry.url, self._client, self._key(entry))
        return Member(made_of, self._guarded(expert, 1, made_of), None)

    def _all_documents(
        self,
        entries: Sequence[ExpertEntry],
        before: Mapping[str, Member],
        gone: Gone,
        opened: Mapping[str, Opened],
        embed: Embed | None,
    ) -> list[Member]:
        found = []
        for entry in entries:
            shelf = opened.get(entry.name)
            if embed is None:
                log.warning("%s is left out: documents need the encoder, `manyminds pull` it.", entry.name)
            elif shelf is None and entry.watch:
                log.info("%s is left out until its documents have been read.", entry.name)
            elif shelf is None:
                what = "its documents have not been read: run `manyminds experts index"
                log.warning("%s is left out, since %s %s`.", entry.name, what, entry.name)
            else:
                found.append(self._documents(entry, shelf, embed, before, gone))
        return found

    def _documents(
        self, entry: ExpertEntry, shelf: Opened, embed: Embed, before: Mapping[str, Member], gone: Gone
    ) -> Member:
        made_of = (entry, shelf.mark, gone.returned.get(entry.name))
        if (known := before.get(entry.name)) is not None and known.made_of == made_of:
            return known
        if not shelf.paragraphs:
            log.warning("%s has nothing to answer from: no paragraph was read in %s.", entry.name, entry.path)
        writer = Writer(entry.writer, self._network, self._readers) if entry.writer else None
        expert = Documents(_card_of(entry, shelf), shelf.library, embed, writer, entry.cites)
        return Member(made_of, self._guarded(expert, 0, made_of), None, shelf.profile.vectors)

    def _guarded(self, expert: Expert, retries: int, made_of: object) -> Guarded:
        """All processes know of its failures; not of those of what had its name before."""
        shared = self._shared
        name = f"expert {expert.card.name} {made_of!r}"  # of which the board keeps no more than a hash
        cell = shared.board.cell(name, shared.owner) if shared else None
        return Guarded(expert, SystemRandom().random, retries=retries, cell=cell)

    def _key(self, entry: ExpertEntry) -> str:
        return self._environ.get(entry.key_env, "").strip() if entry.key_env else ""


def _refuse_taken(config: Config) -> None:
    """An own model recorded under the name of a policy would be asked in its place. Raises: ConfigError."""
    for model in catalog.own(config.home):
        if model.name in (*POLICIES, *catalog.load()):
            record = catalog.record_of(config.home, model.name)
            raise ConfigError(
                f"{record} gives a file the name {model.name}, which is taken: remove it, then run"
                f" `manyminds pull --gguf {model.path} --name` with another name."
            )


def _check_aliases(config: Config, experts: Sequence[str]) -> None:
    """A model of the catalogue may be missing here, which is said elsewhere. Raises: ConfigError."""
    known = {*POLICIES, *experts, *catalog.load()}
    for name, targets in config.aliases.items():
        if strange := [target for target in targets if target not in known]:
            raise ConfigError(
                f"aliases.{name} stands for {strange[0]!r:.80}, which is neither a policy nor an expert. "
                f"There are: {', '.join([*POLICIES, *sorted(experts)])}."
            )


def _check_terms(config: Config) -> None:
    """What a source allows of itself, all of its experts say alike. Raises: ConfigError."""
    said: dict[str, ExpertEntry] = {}
    for entry in config.experts:
        first = said.setdefault(entry.source or entry.name, entry)
        for key in ("max_share", "budget_nats", "period", "requests_per_min"):
            if getattr(first, key) != getattr(entry, key):
                raise ConfigError(
                    f"{first.name} and {entry.name} are both of the source {first.source or first.name}, and "
                    f"their {key} differ: give both [[expert]] the same, or each a source of its own."
                )


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
        terms=terms_of(entry),
    )


def _card_of(entry: ExpertEntry, shelf: Opened) -> Card:
    """Of documents, in words: what they are about, unless nothing of them is to be told."""
    labels = () if entry.cites == "none" else shelf.profile.labels
    return replace(
        _card(entry),
        description="documents",
        skills=tuple(dict.fromkeys((*entry.skills, *labels))),
        offers=frozenset({"citations"}),
        paragraphs=shelf.paragraphs,
    )


def _recorded(entry: ExpertEntry) -> Expert:
    recorded = open_set(Path(entry.path))
    for expert in recorded.experts():
        if expert.card.model == entry.model:
            card = replace(expert.card, name=entry.name, source=entry.source, terms=terms_of(entry))
            return expert.behind(card)
    raise ConfigError(f"{entry.path} has no model {entry.model!r}: it has {', '.join(recorded.models)}.")
