"""The whole experiment, from texts to results: what is there already is not done again.

Knows every part; does no arithmetic.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from experiments.specialists import arms, credit, owners, scaling, speed
from experiments.specialists.corpora import DOMAINS, NEWCOMER, Corpus, build, fetch
from experiments.specialists.held import hold
from experiments.specialists.network import clustered
from experiments.specialists.plan import Scale, tuning
from experiments.specialists.pool import Tell, cores, read_all, train_all
from experiments.specialists.study import KINDS, Study
from experiments.specialists.training import Lesson, load
from manyminds.encoder import Encoder, StaticEncoder, distil
from manyminds.errors import CatalogError
from manyminds.types import Embed

__all__ = ["experiment", "tune"]

_HELD_BYTES: Final = 600_000


def experiment(scale: Scale, folder: Path, encoder: Encoder, model: Path, tell: Tell) -> dict[str, Any]:
    """Runs it, or goes on where it was ended, and returns the results.

    Args:
        scale: how much is done.
        folder: for packages, models, and what these read; some 300 MB.
        encoder: the sentence encoder, of which a fast one is distilled.
        model: the folder of its files.
        tell: hears how far it is.

    Raises:
        DownloadError: Packages cannot be brought.
        OSError: The disk failed.
    """
    warnings: list[str] = []
    corpora = _corpora(scale, folder, warnings.append, tell)
    embed = _fast(encoder, model, folder / "static.npz", tell)
    domains = {name: _texts(corpora[name]) for name in DOMAINS}
    held = hold(corpora, NEWCOMER, scale)
    kept = folder / scale.name
    studies = []
    for seed in scale.seeds:
        clusters = clustered(domains, len(domains), embed, seed)
        studies.append(
            Study(seed, scale, domains, NEWCOMER, _texts(corpora[NEWCOMER]), clusters, held, kept, embed)
        )
    for before, study in zip([studies[-1], *studies], studies, strict=False):
        if before is not study:
            study.others = (before.members(), before.members("random"))
    train_all([lesson for study in studies for lesson in study.lessons.values()], kept, tell)
    read_all([reading for study in studies for reading in study.readings()], kept, tell)
    tell("measure", 0.0)
    points = scaling.points(studies[0])
    parts: dict[str, Callable[[], Any]] = {
        "quality": lambda: arms.quality(studies),
        "switches": lambda: arms.switches(studies),
        "routing": lambda: arms.routing(studies),
        "training": lambda: _training(studies),
        "added": lambda: owners.added(studies),
        "removed": lambda: owners.removed(studies),
        "attacked": lambda: owners.attacked(studies),
        "credited": lambda: {kind: credit.credited(studies[0], kind) for kind in KINDS},
        "scaling": lambda: {
            "points": points,
            "controls": scaling.controls(studies[0]),
            "fit": scaling.fitted(points),
        },
        "speed": lambda: speed.measured(studies[0]),
    }
    found: dict[str, Any] = {
        "scale": asdict(scale),
        "machine": _machine(),
        "texts": {name: _described(corpus) for name, corpus in corpora.items()},
        "warnings": warnings,
    }
    for i, (name, part) in enumerate(parts.items()):
        found[name] = part()
        tell("measure", (i + 1) / len(parts))
    return found


def tune(scale: Scale, folder: Path, tell: Tell) -> list[dict[str, Any]]:
    """The loss, in bits a byte, of each arm by learning rate: see `plan.tuning`. Raises: as `experiment`."""
    corpora = _corpora(scale, folder, lambda warning: None, tell)
    lessons = tuning(scale, {name: _texts(corpora[name]) for name in DOMAINS})
    kept = folder / scale.name
    train_all(list(lessons.values()), kept, tell)
    return [
        {"arm": arm, "rate": rate, "bits": load(lesson, kept).loss} for (arm, rate), lesson in lessons.items()
    ]


def _corpora(scale: Scale, folder: Path, warn: Callable[[str], None], tell: Tell) -> dict[str, Corpus]:
    tell("bring the texts", 0.0)
    every, packages = (*DOMAINS, NEWCOMER), folder / "packages"
    fetch(packages, every, warn)
    found = build(packages, every, train_bytes=scale.train_bytes, held_bytes=_HELD_BYTES)
    tell("bring the texts", 1.0)
    return found


def _fast(encoder: Encoder, model: Path, table: Path, tell: Tell) -> Embed:
    """The fast encoder, distilled once: a minute."""
    try:
        return StaticEncoder(model, table).encode
    except CatalogError:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.unlink(missing_ok=True)
        distil(encoder, model, table, progress=lambda n, total: tell("distil the fast encoder", n / total))
    return StaticEncoder(model, table).encode


def _training(studies: list[Study]) -> list[dict[str, Any]]:
    """By arm: what its training cost, and how long it takes where each model has a core of its own."""
    rows: dict[str, list[dict[str, float]]] = {}
    for study in studies:
        groups: dict[str, list[Lesson]] = {}
        for name, lesson in study.lessons.items():
            kind = name.partition(".")[0]
            if name == f"domain.{study.newcomer}":
                kind = "newcomer"
            elif kind.isdigit():
                kind = "dense" if name.endswith(".dense") else "domain"
                kind = f"{kind}, width {lesson.size.width}"
            groups.setdefault(kind, []).append(lesson)
        for kind, lessons in groups.items():
            runs = [load(lesson, study.folder) for lesson in lessons]
            rows.setdefault(kind, []).append(
                {
                    "models": len(runs),
                    "flops": sum(run.flops for run in runs),
                    "seen_bytes": sum(run.seen_bytes for run in runs),
                    "cpu_s": sum(run.cpu_s for run in runs),
                    "longest_cpu_s": max(run.cpu_s for run in runs),
                }
            )
    return [
        {"arm": kind, "seeds": len(runs), **{key: float(np.mean([r[key] for r in runs])) for key in runs[0]}}
        for kind, runs in rows.items()
    ]


def _texts(corpus: Corpus) -> tuple[bytes, ...]:
    return tuple(document.text for document in corpus.train)


def _described(corpus: Corpus) -> Mapping[str, Any]:
    parts = {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}
    return {
        **{
            name: {"documents": len(documents), "bytes": sum(len(one.text) for one in documents)}
            for name, documents in parts.items()
        },
        "near_duplicates": {"documents": corpus.dropped, "bytes": corpus.dropped_bytes},
        "packages": [asdict(package) for package in corpus.packages],
    }


def _machine() -> dict[str, Any]:
    return {
        "cores": cores(),
        "processor": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
