"""An owner comes, and an owner leaves: what each kind of network makes of it, and what it cannot forget.

Knows studies and what they have read; trains nothing.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from experiments.specialists import ways
from experiments.specialists.measures import auc_interval, interval
from experiments.specialists.scoring import Excerpt, Floats
from experiments.specialists.study import Study

__all__ = ["added", "attacked", "removed"]

_ATTACKED: Final = (
    "network without the owner",
    "random splits",
    "gated, source off",
    "dense-small",
    "dense-large",
)


def added(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """What a further owner brings and costs, by what is done about it.

    Bits a byte of the newcomer's texts and of the six others', before and after; what it cost to train,
    beyond what was there.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for study in studies:
        for name, row in _coming(study).items():
            rows.setdefault(name, []).append(row)
    held = studies[0].held
    domains = [one.domain for one in held.test]
    found = []
    for name, runs in rows.items():
        row = {
            "way": name,
            "flops": float(np.mean([run["flops"] for run in runs])),
            "cpu_s": float(np.mean([run["cpu_s"] for run in runs])),
            "seeds": len(runs),
            "newcomer": interval(
                np.mean([ways.bits(run["new"]) for run in runs], axis=0), [o.domain for o in held.newcomer]
            ),
            "others": interval(np.mean([ways.bits(run["old"]) for run in runs], axis=0), domains),
        }
        moved = np.mean([ways.bits(run["old"]) - ways.bits(run["old_before"]) for run in runs], axis=0)
        row["others_worse_by"] = interval(moved, domains)
        found.append(row)
    return found


def _coming(study: Study) -> dict[str, dict[str, Any]]:
    from experiments.specialists.training import load

    test, new = study.held.test, study.held.newcomer
    before, newcomer = study.experts("domain"), f"domain.{study.newcomer}"

    def routed(experts: Sequence[str], texts: Sequence[Excerpt]) -> Floats:
        seen = {name: study.seen(name, texts) for name in experts}
        return ways.routed(seen, study.routes(experts, texts, 2))

    def asked(experts: Sequence[str], texts: Sequence[Excerpt]) -> Floats:
        return ways.asked({name: study.seen(name, texts) for name in experts}, experts, 0.0)

    def cost(*names: str) -> dict[str, float]:
        runs = [load(study.lessons[name], study.folder) for name in names]
        return {"flops": sum(run.flops for run in runs), "cpu_s": sum(run.cpu_s for run in runs)}

    after = (*before, newcomer)
    by_lot = study.experts("random")
    gated = study.experts("gated")
    grown = tuple(f"added.{name.partition('.')[2]}" for name in (*gated, newcomer))
    found: dict[str, dict[str, Any]] = {
        "network, before": {"new": asked(before, new), "old": asked(before, test), **cost()},
        "network, one more specialist": {
            "new": asked(after, new),
            "old": asked(after, test),
            **cost(newcomer),
        },
        "network, routed to two": {"new": routed(after, new), "old": routed(after, test), **cost(newcomer)},
        "random splits, one more specialist": {
            "new": asked((*by_lot, newcomer), new),
            "old": asked((*by_lot, newcomer), test),
            **cost(newcomer),
        },
        "gated, units added": {"new": asked(grown, new), "old": asked(grown, test), **cost("gated-added")},
    }
    was = {
        "network, before": found["network, before"]["old"],
        "network, one more specialist": found["network, before"]["old"],
        "network, routed to two": routed(before, test),
        "random splits, one more specialist": asked(by_lot, test),
        "gated, units added": asked(gated, test),
    }
    for size in ("small", "large"):
        dense = f"dense-{size}"
        for way, name in (
            (f"{dense}, fine-tuned", f"tuned-{size}"),
            (f"{dense}, trained anew", f"again-{size}"),
        ):
            if name in study.lessons:
                found[way] = {"new": study.seen(name, new), "old": study.seen(name, test), **cost(name)}
                was[way] = study.seen(dense, test)
    return {way: row | {"old_before": was[way]} for way, row in found.items()}


def removed(studies: Sequence[Study]) -> dict[str, Any]:
    """Each owner leaves in turn: whether what is left is, bit for bit, what never had it, and what it loses.

    `identical` holds routes and likelihoods of a network that forgot an owner against those of a network
    that is built without. Bits a byte are those of the owner's own texts.
    """
    identical, domains = True, list[str]()
    left: dict[str, list[Floats]] = {target: [] for target in _ATTACKED}
    for study in studies:
        experts, test = study.experts("domain"), study.held.test
        rows: dict[str, list[Floats]] = {target: [] for target in left}
        domains = []
        for owner in experts:
            domain = owner.partition(".")[2]
            own = [one for one in test if one.domain == domain]
            identical &= _same(study, experts, owner)
            for target, into in rows.items():
                into.append(ways.bits(_target(study, target, domain, own)))
            domains += [one.domain for one in own]
        for target, runs in left.items():
            runs.append(np.concatenate(rows[target]))
    return {
        "identical": identical,
        "owners": len(studies[0].experts("domain")),
        "bits": {target: interval(np.mean(runs, axis=0), domains) for target, runs in left.items()},
    }


def attacked(studies: Sequence[Study]) -> dict[str, Any]:
    """How well a membership test tells documents that were learnt from and held-out ones of the same owner.

    Of random splits and dense models nothing can be taken away: the owner's texts are in all of them.

    By two scores: how likely a text is ("loss"), and by how much more than under a network of another seed
    that never had the owner ("calibrated"; as of Watson et al. 2022). .5 tells nothing.
    """
    found: dict[str, Any] = {}
    for target in _ATTACKED:
        loss, calibrated = [], []
        for i, study in enumerate(studies):
            other = studies[(i + 1) % len(studies)]
            inside = study.members("random" if target == "random splits" else "domain")
            outside = study.held.test
            for domain in sorted(study.domains):
                groups = [[one for one in texts if one.domain == domain] for texts in (inside, outside)]
                if not all(groups):
                    continue
                scores = [-ways.bits(_target(study, target, domain, group)) for group in groups]
                loss.append((scores[0], scores[1]))
                if other is not study:
                    easy = [-ways.bits(_without(other, domain, group)) for group in groups]
                    calibrated.append((scores[0] - easy[0], scores[1] - easy[1]))
        found[target] = {
            "loss": auc_interval(loss),
            "calibrated": auc_interval(calibrated) if calibrated else None,
        }
    return found


def _target(study: Study, target: str, domain: str, texts: Sequence[Excerpt]) -> Floats:
    if target == "network without the owner":
        return _without(study, domain, texts)
    if target == "random splits":
        everyone = study.experts("random")
        return ways.asked({name: study.seen(name, texts) for name in everyone}, everyone, 0.0)
    if target == "gated, source off":
        return _switched_off(study, f"domain.{domain}", texts)
    return study.seen(target, texts)


def _without(study: Study, domain: str, texts: Sequence[Excerpt]) -> Floats:
    rest = tuple(name for name in study.experts("domain") if name != f"domain.{domain}")
    return ways.asked({name: study.seen(name, texts) for name in rest}, rest, 0.0)


def _switched_off(study: Study, owner: str, texts: Sequence[Excerpt]) -> Floats:
    """The gated network as a mixture of its other sources' gates, and of none."""
    rest = tuple(name for name in study.experts("gated") if name.partition(".")[2] != owner.partition(".")[2])
    rest = (*rest, "gated.off")
    return ways.asked({name: study.seen(name, texts) for name in rest}, rest, 0.0)


def _same(study: Study, experts: Sequence[str], owner: str) -> bool:
    """Whether a network that forgot an owner says, bit for bit, what one without it says."""
    rest = tuple(name for name in experts if name != owner)
    test = study.held.test
    texts = [one.text for one in test]
    forgot, never = study.network(experts), study.network(rest)
    forgot.forget(owner)
    here, there = forgot.routes(texts, 2), never.routes(texts, 2)
    if here != there:
        return False
    seen = {name: study.seen(name, test) for name in experts}
    return bool(
        np.array_equal(ways.routed(seen, here), ways.routed({name: seen[name] for name in rest}, there))
    )
