"""A gateway of experts that are there, by what was learnt of them. Starts nothing."""

import time
from collections.abc import Mapping
from random import SystemRandom
from typing import TypeAlias

from manyminds.admission import Admission
from manyminds.artefact import Artefact
from manyminds.cache import SIMILARITY, Cache
from manyminds.combine.bounded import Bounded
from manyminds.combine.fuse import Fuse
from manyminds.combine.grounded import Grounded
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.config import Config
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts, Record
from manyminds.index import Index
from manyminds.node.accounts import bank
from manyminds.node.variants import named
from manyminds.router import SkillRouter
from manyminds.router.explorer import Explorer
from manyminds.types import Card, Combiner, Embed, Expert, Limits, Strategy

__all__ = ["DIMENSION", "Made", "cache_of", "wired"]

DIMENSION = 384
"""Of the encoder's vectors."""

Made: TypeAlias = tuple[dict[str, Expert], Index, SkillRouter, Gateway]


def wired(
    config: Config,
    members: Mapping[str, Expert],
    artefact: Artefact | None,
    embed: Embed | None,
    record: Record,
    admission: Admission,
    cache: Cache | None,
    *,
    explores: bool,
) -> Made:
    """The experts, in every way of asking that was learnt of; the index; the router; and the gateway.

    Args:
        config: its `policy` and `network`.
        members: the experts, by name.
        artefact: what was learnt, if anything was.
        embed: turns texts into vectors, where that can be.
        record: see `gateway.Parts`.
        admission: lets callers in; has budgets and accounts.
        cache: see `gateway.Parts`.
        explores: whether experts are asked, too, of which little is known.
    """
    policy = config.policy
    index = Index(DIMENSION)
    experts = dict(members)
    if artefact is not None:
        experts |= named(experts, artefact.experts)
    router = SkillRouter(index, embed, artefact)
    for name in sorted(experts):
        router.admit(experts[name].card)
    alpha = policy.attribution_alpha
    vote = Bounded(Grounded(Vote(artefact)), alpha)
    select = Bounded(Grounded(Select(embed)), alpha) if embed else vote
    race = Race()
    combiners: dict[Strategy, Combiner] = {
        "vote": vote,
        "select": select,
        "fuse": Fuse(select, vote),
        "race": race,
        "pass": race,
    }
    explorer = Explorer(router, policy.explore_rate, SystemRandom())
    parts = Parts(
        *(experts, index, router, combiners, record, embed, admission.reserve, cache),
        explore=explorer.explored if explores and policy.explore_rate else None,
        bank=bank(admission, config.private, alpha),
        sources=admission.sources,
        alpha=alpha,
    )
    patience = Patience(policy.first_token_s, policy.idle_s, policy.deadline_s)
    defaults = Limits(policy=policy.default, budget_usd=policy.budget_usd, deadline_s=policy.deadline_s)
    card = Card("manyminds", "gateway", source="manyminds")
    gateway = Gateway(card, parts, patience, defaults, time.perf_counter, config.network.hops)
    return experts, index, router, gateway


def cache_of(config: Config) -> Cache | None:
    """Where answers are kept, if that is wanted."""
    settings = config.cache
    if not settings.entries:
        return None
    similarity = SIMILARITY if settings.semantic else None
    most_bytes = int(settings.max_mb * 1e6)
    return Cache(
        settings.entries, most_bytes, settings.ttl_s, similarity=similarity, policies=settings.policies
    )
