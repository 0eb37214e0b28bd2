"""One seed of the experiment once its models are trained: who stands behind a name, and what each reads.

Knows which texts are measured, not what is made of the measurements.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.specialists import plan
from experiments.specialists.held import Held, members, seen
from experiments.specialists.models import parameters
from experiments.specialists.network import Network, known
from experiments.specialists.pool import Reading
from experiments.specialists.scoring import Excerpt, Floats, likelihoods
from experiments.specialists.training import Lesson, steps
from manyminds.types import Embed, Route

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["KINDS", "Study"]

KINDS = ("domain", "cluster", "random", "gated")
"""Networks of several experts; of the gated one, each source is one."""


@dataclass(slots=True)
class Study:
    """Everything of one seed.

    Attributes:
        seed: of training.
        scale: how much is done.
        domains: their training documents; newcomer: the domain that comes later, of `newcomer_texts`.
        clusters: what was found without labels.
        held: texts that are measured.
        folder: where models and what they read are kept.
        lessons: by name, as of `plan`.
        others: texts of another seed's models, for which this one's network is the reference of an attack.
    """

    seed: int
    scale: plan.Scale
    domains: Mapping[str, tuple[bytes, ...]]
    newcomer: str
    newcomer_texts: tuple[bytes, ...]
    clusters: Mapping[str, tuple[bytes, ...]]
    held: Held
    folder: Path
    embed: Embed
    lessons: dict[str, Lesson] = field(default_factory=dict)
    others: tuple[tuple[Excerpt, ...], ...] = ()
    _rows: dict[str, dict[bytes, Floats]] = field(default_factory=dict)
    _known: dict[tuple[bytes, ...], "Vectors"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        base = plan.base(self.scale, self.domains, self.clusters, self.seed)
        self.lessons = base | plan.later(
            self.scale, self.domains, self.newcomer, self.newcomer_texts, base, self.seed
        )
        if self.seed == self.scale.seeds[0]:
            self.lessons |= plan.once(self.scale, self.domains, self.newcomer_texts, self.seed)

    # --- who ---

    def experts(self, kind: str) -> tuple[str, ...]:
        """Of a network of one kind, before the newcomer."""
        if kind == "gated":
            return tuple(f"gated.{domain}" for domain in sorted(self.domains))
        every = plan.names(self.lessons, kind)
        return tuple(name for name in every if name != f"domain.{self.newcomer}")

    def texts_of(self, expert: str) -> tuple[bytes, ...]:
        """What an expert has learnt from: a gated source as its domain's specialist."""
        domain = expert.split(".", 1)[1]
        if domain == self.newcomer:
            return self.newcomer_texts
        if expert.startswith("gated."):
            return self.domains[domain]
        return self.lessons[expert].groups[0]

    def network(self, experts: Sequence[str]) -> Network:
        """These behind the package's router."""
        made = Network(self.embed)
        for name in experts:
            texts = self.texts_of(name)
            if texts not in self._known:
                self._known[texts] = known(texts, self.embed, self.seed)
            made.admit(name, self._known[texts], parameters(self.scale.size))
        return made

    def routes(self, experts: Sequence[str], texts: Sequence[Excerpt], panel: int) -> list[Route]:
        """Of each text."""
        return self.network(experts).routes([one.text for one in texts], panel)

    # --- what they read ---

    def members(self, kind: str = "domain") -> tuple[Excerpt, ...]:
        """Texts that were learnt from: by every model of `plan.base` but those of clusters and random splits.

        Of kind "random", those that the random splits' models have learnt from.
        """
        if kind == "random":
            return members(self._seen_by_lot(), self.seed, self.scale)
        large = self.lessons["dense-large"]
        size = min(_seen_bytes(large) // len(self.domains), self.scale.each_bytes)
        return members(
            {d: seen(texts, size, self.seed) for d, texts in self.domains.items()}, self.seed, self.scale
        )

    def _seen_by_lot(self) -> dict[str, list[bytes]]:
        of = {text: domain for domain, texts in self.domains.items() for text in texts}
        found: dict[str, list[bytes]] = {domain: [] for domain in self.domains}
        for name in self.experts("random"):
            lesson = self.lessons[name]
            for text in seen(lesson.groups[0], _seen_bytes(lesson), self.seed):
                found[of[text]].append(text)
        return found

    def sets(self, expert: str) -> dict[str, tuple[Excerpt, ...]]:
        """The texts that an expert is to read, by name."""
        held = self.held
        found = {"test": held.test, "newcomer": held.newcomer}
        single = expert.split(".", 1)[0]
        if single in (*KINDS, "dense-large", "dense-small", "more-large"):
            found |= {"mixed": held.mixed}
        if single in KINDS:
            found |= {"tuning": held.tuning, "tuning-mixed": held.tuning_mixed}
        if single == "domain":
            found |= {f"others-{i}": texts for i, texts in enumerate(self.others)}
        if single in ("domain", "random", "gated", "dense-large", "dense-small"):
            found |= {"members": self.members("random" if single == "random" else "domain")}
        return found

    def readings(self) -> list[Reading]:
        """All that is to be read."""
        every = [name for name in self.lessons if not name.startswith("gated")]
        every += [*self.experts("gated"), "gated.off"]
        every += [f"added.{domain}" for domain in (*sorted(self.domains), self.newcomer)]
        return [self._reading(name, texts) for name in every for texts in self.sets(name).values()]

    def seen(self, expert: str, texts: Sequence[Excerpt]) -> Floats:
        """(n, length) nats of each byte by this expert, of texts that are among its `sets`.

        Raises: FileNotFoundError where it has not read them; KeyError of others.
        """
        if expert not in self._rows:
            readings = [self._reading(expert, of) for of in self.sets(expert).values()]
            self._rows[expert] = {
                text: row
                for reading in readings
                for text, row in zip(reading.texts, likelihoods(None, (), kept=reading.kept), strict=True)
            }
        return np.stack([self._rows[expert][one.text] for one in texts])

    def _reading(self, expert: str, texts: Sequence[Excerpt]) -> Reading:
        lesson, source = self.voice(expert)
        pieces = tuple(one.text for one in texts)
        digest = hashlib.sha256(b"\0".join(pieces)).hexdigest()[:12]
        mark = "" if source is None else f".{source}"
        return Reading(lesson, pieces, source, self.folder / f"{lesson.stem}{mark}.{digest}.npz")

    def voice(self, expert: str) -> tuple[Lesson, int | None]:
        """Whose model speaks for an expert, and, of a gated one, through whose units."""
        kind, _, domain = expert.partition(".")
        if kind not in ("gated", "added"):
            return self.lessons[expert], None
        order = [*sorted(self.domains), *([self.newcomer] if kind == "added" else [])]
        lesson = self.lessons["gated" if kind == "gated" else "gated-added"]
        return lesson, -1 if domain == "off" else order.index(domain)


def _seen_bytes(lesson: Lesson) -> int:
    return steps(lesson) * lesson.rows * lesson.size.context
