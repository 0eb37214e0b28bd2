"""The local models that a configuration asks for: which there are, what they take, which fit. Runs none."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from manyminds import catalog
from manyminds.config import Config, ExpertEntry
from manyminds.types import FREE, Card, Terms

__all__ = ["LocalModel", "cores", "estimate_mb", "fitting", "local_models", "size_bytes", "terms_of"]

_MB = 1_000_000
_MEASURED_TOKENS = 4096  # context with which the catalogue's memory_mb was measured
_LOCAL_OFFERS = frozenset({"logprobs", "json_schema", "score", "samples", "grammar"})  # what llama.cpp gives

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model file of this machine, and what it takes to run it."""

    card: Card
    path: Path
    memory_mb: float
    remedy: str  # what to do where the file is missing or damaged
    chat: bool = True  # has a chat template


def estimate_mb(file_bytes: int, context_tokens: int, measured_mb: float = 0) -> float:
    """Resident memory of a local model's process, in MB: weights, cache of its context, and the rest.

    A token's cache grows with the model: 27 KB for a file of 100 MB, 131 KB for one of 4.8 GB, as in an 8B
    with grouped queries. `measured_mb` is what a context of 4,096 tokens was measured to take; without it
    the estimate is one that no model of the catalogue surpasses.
    """
    token_bytes = 25_000 + file_bytes / 45_000
    if measured_mb:
        return measured_mb + token_bytes * max(0, context_tokens - _MEASURED_TOKENS) / _MB
    return 50 + (1.25 * file_bytes + token_bytes * context_tokens) / _MB


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
                terms=terms_of(entry),
            )
            models.append(_of_ones_own(card, path, f"see the `path` of [[expert]] {entry.name}"))
    return models


def terms_of(entry: ExpertEntry) -> Terms:
    """What an expert's owner allows, as the configuration says it."""
    terms = Terms(
        purposes=entry.purposes,
        callers=entry.callers,
        max_share=entry.max_share,
        budget_nats=entry.budget_nats,
        period=entry.period,
        requests_per_min=entry.requests_per_min,
        epsilon=entry.epsilon,
        delta=entry.delta,
    )
    return FREE if terms == FREE else terms


def fitting(config: Config, planned: Sequence[LocalModel], *, together: bool) -> list[LocalModel]:
    """The local models that are here and fit into memory, alone or all `together`; the smallest first."""
    home, local = config.home, config.local
    for lacking in catalog.wanted(home, local.tier):
        if catalog.missing(home, lacking):
            log.warning("%s is not on this machine: run `manyminds pull %s`.", lacking.name, lacking.name)
    left_mb = local.max_memory_gb * 1000
    fitting = []
    for model in sorted(planned, key=lambda m: (m.memory_mb, m.card.name)):
        if model.memory_mb <= left_mb:
            left_mb -= model.memory_mb if together else 0
            fitting.append(model)
            continue
        log.warning(
            "%s is not offered: with a context of %d tokens it needs about %.0f MB, and %.0f MB are left"
            " of local.max_memory_gb = %g. Raise that, or lower context_tokens.",
            model.card.name,
            model.card.context_tokens,
            model.memory_mb,
            left_mb,
            local.max_memory_gb,
        )
    return fitting


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may compute on, at least 1; a container's quota can be below the machine's."""
    counted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed_us, period_us = map(int, quota.read_text().split())
    except (OSError, ValueError):  # none, or "max"
        return counted
    return max(1, min(counted, allowed_us // period_us))


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
        tasks=frozenset() if model.chat else frozenset({"option"}),  # base models follow no instruction
        parameters=model.parameters,
        licence=model.licence,
    )
    memory_mb = estimate_mb(model.files[0].bytes, card.context_tokens, model.memory_mb)
    return LocalModel(card, path, memory_mb, f"run `manyminds pull {model.name}`", chat=model.chat)


def _of_ones_own(card: Card, path: Path, remedy: str) -> LocalModel:
    return LocalModel(card, path, estimate_mb(size_bytes(path), card.context_tokens), remedy)


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


def size_bytes(path: Path) -> int:
    """Of a file; 0 of one that cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:  # loading it will say what is wrong
        return 0
