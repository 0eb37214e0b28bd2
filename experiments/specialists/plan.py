"""Which models are trained on what, for how much: the arms of the experiment.

Pure. Knows no file; see `training` for how, and `corpora` for the texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from experiments.specialists.models import Size, parameters, train_flops
from experiments.specialists.training import Lesson

__all__ = [
    "FULL",
    "GROUPS",
    "QUICK",
    "Scale",
    "Texts",
    "base",
    "large",
    "later",
    "names",
    "once",
    "randomly",
    "tuning",
]

Texts = Mapping[str, tuple[bytes, ...]]
"""By group, its training documents; groups come in sorted order."""

GROUPS: Final = {
    2: (("c", "json", "python"), ("french", "german", "legal")),
    3: (("c", "python"), ("french", "german"), ("json", "legal")),
}
"""Domains that share a specialist, where there are fewer specialists than domains."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done.

    Attributes:
        size: of a specialist, and of the dense model with as many active parameters.
        dense: of the dense model with at least the parameters of all specialists together.
        each_bytes: what one specialist learns from. All other budgets follow: see `base`.
        seeds: of first weights, of the order of documents, of clusters and random splits.
        rate: learning rate of models of `size`; large_rate: of the large dense one.
        rows: windows in a batch; large_rows: of the large dense model, which makes fewer steps.
        widths: of further specialists and dense models, from whose quality the scaling is read.
        documents: held-out texts of each domain at most; excerpt_bytes: of each.
        train_bytes: of each domain, at most, from which documents are drawn.
    """

    name: str
    size: Size
    dense: Size
    each_bytes: int
    seeds: tuple[int, ...]
    rate: float
    large_rate: float
    rows: int
    large_rows: int
    widths: tuple[Size, ...]
    documents: int
    excerpt_bytes: int
    train_bytes: int

    @property
    def own_flops(self) -> float:
        """What one specialist's training costs."""
        return self.each_bytes * train_flops(self.size)


FULL: Final = Scale(
    name="full",
    size=Size(width=64, layers=3, heads=2),
    dense=Size(width=168, layers=3, heads=4),
    each_bytes=1_250_000,
    seeds=(0, 1, 2),
    rate=8e-3,
    large_rate=8e-3,
    rows=2,
    large_rows=2,
    widths=(Size(width=32, layers=3, heads=1), Size(width=96, layers=3, heads=3)),
    documents=60,
    excerpt_bytes=1024,
    train_bytes=5_000_000,
)

QUICK: Final = replace(
    FULL,
    name="quick",
    size=Size(width=32, layers=2, heads=1),
    dense=Size(width=96, layers=2, heads=3),
    each_bytes=120_000,
    seeds=(0,),
    widths=(Size(width=16, layers=2, heads=1),),
    documents=16,
    excerpt_bytes=512,
    train_bytes=1_000_000,
)


def base(scale: Scale, domains: Texts, clusters: Texts, seed: int) -> dict[str, Lesson]:
    """The six arms of one seed, by name: equal floating-point operations in each, F in all.

    `domain.NAME`, `cluster.I` and `random.I` are specialists: a cluster's budget is its share of all bytes.
    `dense-small` and `gated` cost as much a byte as a specialist, and so see as much as all of these
    together; `dense-large` costs more a byte and sees less.
    """
    total = scale.own_flops * len(domains)
    splits = {**_named("cluster", clusters), **_named("random", randomly(domains, len(domains), seed))}
    found = {
        f"domain.{name}": _specialist(scale, domains[name], scale.own_flops, seed) for name in sorted(domains)
    }
    for kind in ("cluster", "random"):
        of = {name: texts for name, texts in splits.items() if name.startswith(kind)}
        size = sum(len(text) for texts in of.values() for text in texts)
        found |= {
            name: _specialist(scale, texts, total * sum(map(len, texts)) / size, seed)
            for name, texts in of.items()
        }
    groups = tuple(domains[name] for name in sorted(domains))
    found["dense-large"] = large(scale, groups, total, seed)
    found["dense-small"] = Lesson("", scale.size, groups, scale.rows, total, scale.rate, seed)
    gated = replace(scale.size, sources=len(groups))
    found["gated"] = replace(found["dense-small"], size=gated, rows=len(groups))
    return _titled(found, seed)


def later(
    scale: Scale,
    domains: Texts,
    newcomer: str,
    texts: tuple[bytes, ...],
    before: Mapping[str, Lesson],
    seed: int,
) -> dict[str, Lesson]:
    """A further owner comes: what each kind of network does about it, at the price of one specialist.

    `tuned-small` and `tuned-large` learn the newcomer's texts alone from where they were; `gated-added` gives
    it units of its own and moves nothing else.
    """
    found = {
        f"domain.{newcomer}": _specialist(scale, texts, scale.own_flops, seed),
        "tuned-small": _tuned(before["dense-small"], texts, scale),
        "tuned-large": _tuned(before["dense-large"], texts, scale),
        "gated-added": replace(
            _tuned(before["gated"], texts, scale),
            size=replace(scale.size, sources=len(domains) + 1),
            only=len(domains),
        ),
    }
    return _titled(found, seed)


def once(scale: Scale, domains: Texts, texts: tuple[bytes, ...], seed: int) -> dict[str, Lesson]:
    """What is trained for one seed alone, since it costs as much as all of `base`.

    `more-large` sees as many bytes as the specialists do, for a multiple of their operations. `again-small`
    and `again-large` are trained anew with the newcomer's texts, for its share more. `of2.I` and `of3.I` are
    the two or three specialists that share all domains; `WIDTH.domain.NAME` and `WIDTH.dense` have other
    sizes.
    """
    groups = tuple(domains[name] for name in sorted(domains))
    total = scale.own_flops * len(groups)
    more = (*groups, texts)
    longer = total + scale.own_flops
    found = {
        "more-large": large(scale, groups, scale.each_bytes * len(groups) * train_flops(scale.dense), seed),
        "again-small": Lesson("", scale.size, more, scale.rows, longer, scale.rate, seed),
        "again-large": large(scale, more, longer, seed),
    }
    for count, members in GROUPS.items():
        for i, shared in enumerate(members):
            held = tuple(domains[name] for name in shared)
            budget = scale.own_flops * len(shared)
            found[f"of{count}.{i}"] = Lesson("", scale.size, held, scale.rows, budget, scale.rate, seed)
    for size in scale.widths:
        resized = replace(scale, size=size)
        for name in sorted(domains):
            found[f"{size.width}.domain.{name}"] = _specialist(
                resized, domains[name], resized.own_flops, seed
            )
        budget = resized.own_flops * len(groups)
        found[f"{size.width}.dense"] = Lesson("", size, groups, scale.rows, budget, scale.rate, seed)
    return _titled(found, seed)


def tuning(scale: Scale, domains: Texts) -> dict[tuple[str, float], Lesson]:
    """By arm and learning rate: half, once and twice the rate, for one seed that nothing else uses.

    What is chosen by: the loss over the last tenth of what is learnt from, which no model has seen before.
    """
    seed = max(scale.seeds) + 1
    every = base(scale, domains, {"0": next(iter(domains.values()))}, seed)
    first, second = names(every, "domain")[:2]
    found = {}
    for name in (first, second, "dense-small", "dense-large", "gated"):
        for times in (0.5, 1.0, 2.0):
            rate = every[name].rate * times
            lesson = replace(every[name], rate=rate)
            found[name, rate] = replace(lesson, name=f"tuning.{name}.{rate:g}")
    return found


def large(scale: Scale, groups: Sequence[tuple[bytes, ...]], flops: float, seed: int) -> Lesson:
    """The dense model with the parameters of all specialists.

    Raises: ValueError where it has fewer than they.
    """
    held = parameters(scale.size) * len(groups)
    if parameters(scale.dense) < parameters(scale.size) * min(len(groups), 6):
        raise ValueError(f"the large dense model has fewer than the {held} parameters of all specialists")
    return Lesson("", scale.dense, tuple(groups), scale.large_rows, flops, scale.large_rate, seed)


def randomly(domains: Texts, count: int, seed: int) -> Texts:
    """All documents in so many groups by lot, each with about as many bytes."""
    texts = [text for name in sorted(domains) for text in domains[name]]
    held: list[list[bytes]] = [[] for _ in range(count)]
    sizes = [0] * count
    for i in np.random.default_rng(seed).permutation(len(texts)):
        least = sizes.index(min(sizes))
        held[least].append(texts[i])
        sizes[least] += len(texts[i])
    return {str(i): tuple(group) for i, group in enumerate(held)}


def names(lessons: Mapping[str, Lesson], kind: str) -> tuple[str, ...]:
    """Those of one kind, such as "domain", in order."""
    return tuple(sorted(name for name in lessons if name.startswith(f"{kind}.")))


def _specialist(scale: Scale, texts: tuple[bytes, ...], flops: float, seed: int) -> Lesson:
    return Lesson("", scale.size, (texts,), scale.rows, flops, scale.rate, seed)


def _tuned(before: Lesson, texts: tuple[bytes, ...], scale: Scale) -> Lesson:
    return replace(
        before,
        groups=(texts,),
        rows=scale.rows,
        flops=scale.own_flops,
        rate=before.rate / 2,
        start=before.stem,
    )


def _named(kind: str, texts: Texts) -> dict[str, tuple[bytes, ...]]:
    return {f"{kind}.{name}": texts[name] for name in sorted(texts)}


def _titled(found: Mapping[str, Lesson], seed: int) -> dict[str, Lesson]:
    return {name: replace(lesson, name=f"s{seed}.{name}") for name, lesson in found.items()}
