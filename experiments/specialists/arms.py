"""Quality: bits a byte of every arm, however its experts are asked, against the dense models.

Knows studies (one a seed) and what they have read; trains nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from experiments.specialists import ways
from experiments.specialists.measures import by_domain, interval
from experiments.specialists.models import parameters
from experiments.specialists.scoring import Excerpt, Floats
from experiments.specialists.study import KINDS, Study

__all__ = ["DENSE", "quality", "routing", "switches"]

DENSE: Final = ("dense-small", "dense-large", "more-large")
"""Single models; the last is trained for one seed, on as many bytes as all specialists."""

_SETS: Final = ("test", "mixed")
_COMPARED: Final = ("dense-small", "dense-large", "more-large")


def quality(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """A row for each arm and way to ask its experts.

    Bits a byte on held-out texts of each domain, and on texts in which the domain switches; each with what it
    is below the dense models on the same texts and seeds. Intervals are over texts; `by_seed` says how far
    seeds are apart.
    """
    found: dict[tuple[str, str], dict[str, list[Floats]]] = {}
    for study in studies:
        for key, logs in _every(study).items():
            into = found.setdefault(key, {name: [] for name in _SETS})
            for name in _SETS:
                if name in logs:
                    into[name].append(ways.bits(logs[name]))
    held = studies[0].held
    texts = {"test": held.test, "mixed": held.mixed}
    rows = []
    for (arm, way), sets in found.items():
        row: dict[str, Any] = {"arm": arm, "way": way, **_size(studies[0], arm, way)}
        for name, runs in sets.items():
            if not runs:
                continue
            domains = [one.domain for one in texts[name]]
            row[name] = {**_measured(runs, domains), "below": {}}
            for other in _COMPARED:
                theirs = found[other, "alone"][name]
                count = min(len(runs), len(theirs))
                if arm != other and count:
                    apart = np.mean(theirs[:count], axis=0) - np.mean(runs[:count], axis=0)
                    row[name]["below"][other] = interval(apart, domains)
        rows.append(row)
    return rows


def switches(studies: Sequence[Study]) -> dict[str, list[float]]:
    """The chance of a switch that validation texts choose, by kind of network and seed."""
    return {kind: [_switch(study, kind) for study in studies] for kind in KINDS}


def routing(studies: Sequence[Study]) -> dict[str, Any]:
    """How often the package's router finds a text's own domain by its first bytes, first and among two."""
    first: dict[str, list[float]] = {}
    both: dict[str, list[float]] = {}
    for study in studies:
        texts = study.held.test
        routes = study.routes(study.experts("domain"), texts, 2)
        named = [[call.expert.partition(".")[2] for call in route.calls] for route in routes]
        domains = [one.domain for one in texts]
        hits = [np.array([d in n[:k] for d, n in zip(domains, named, strict=True)], float) for k in (1, 2)]
        for into, hit in zip((first, both), hits, strict=True):
            for domain, share in by_domain(hit, domains).items():
                into.setdefault(domain, []).append(share)
    return {
        "first": {domain: float(np.mean(shares)) for domain, shares in first.items()},
        "among_two": {domain: float(np.mean(shares)) for domain, shares in both.items()},
    }


def _every(study: Study) -> dict[tuple[str, str], dict[str, Floats]]:
    """(n, length) nats of each set, by arm and way."""
    found: dict[tuple[str, str], dict[str, Floats]] = {}
    sets = {"test": study.held.test, "mixed": study.held.mixed}
    for name in DENSE:
        if name in study.lessons:
            found[name, "alone"] = {of: study.seen(name, texts) for of, texts in sets.items()}
    for kind in KINDS:
        experts, switch = study.experts(kind), _switch(study, kind)
        for of, texts in sets.items():
            seen = {name: study.seen(name, texts) for name in experts}
            for way, logs in _asked(study, kind, seen, texts, switch).items():
                found.setdefault((kind, way), {})[of] = logs
    return found


def _asked(
    study: Study, kind: str, seen: Mapping[str, Floats], texts: Sequence[Excerpt], switch: float
) -> dict[str, Floats]:
    experts = tuple(seen)
    found = {}
    if kind in ("domain", "gated") and texts is not study.held.mixed:
        found["oracle domain"] = ways.oracle(seen, [f"{kind}.{one.domain}" for one in texts])
    found["router, first"] = ways.routed(seen, study.routes(experts, texts, 1))
    found["router, two"] = ways.routed(seen, study.routes(experts, texts, 2))
    found["mixture"] = ways.asked(seen, experts, 0.0)
    found["mixture with switches"] = ways.asked(seen, experts, switch)
    found["uniform"] = ways.asked(seen, experts, 1.0)
    return found


def _switch(study: Study, kind: str) -> float:
    experts = study.experts(kind)
    sets = (study.held.tuning, study.held.tuning_mixed)
    return ways.chosen_switch([{name: study.seen(name, of) for name in experts} for of in sets], experts)


def _measured(runs: Sequence[Floats], domains: Sequence[str]) -> dict[str, Any]:
    mean = np.mean(runs, axis=0)
    seeds = [float(np.mean(list(by_domain(run, domains).values()))) for run in runs]
    return {**interval(mean, domains), "by_domain": by_domain(mean, domains), "by_seed": seeds}


def _size(study: Study, arm: str, way: str) -> dict[str, int]:
    """Weights in all, and those that one answer uses."""
    if arm in DENSE:
        size = study.lessons[arm].size
        return {"parameters": parameters(size, active=False), "active_parameters": parameters(size)}
    experts = study.experts(arm)
    sizes = [study.voice(name)[0].size for name in experts]
    asked = {"oracle domain": 1, "router, first": 1, "router, two": 2}.get(way, len(experts))
    total = sum(parameters(size) for size in sizes)
    if arm == "gated":
        total = parameters(sizes[0], active=False)
    return {"parameters": total, "active_parameters": asked * parameters(sizes[0])}
