"""What an answer owes to each source: leave the source out, and see how far the posterior moves. Pure.

Knows no combiner: the posterior is a callable.
"""

import math
from collections.abc import Collection, Sequence
from typing import Final

from manyminds.types import Answer, Attribution, Count, Posterior, Route

__all__ = ["ALPHA", "apart_nats", "attribute", "divergences", "most_nats", "shares"]

ALPHA: Final = 2.0
"""Order of the divergence, unless a configuration says otherwise."""

_FLOOR = 1e-3  # a candidate that only one source named would make its divergence infinite
_STEEP = 64.0  # powers of a ratio of up to some thousands that a float holds


def attribute(
    route: Route,
    answers: Sequence[Answer],
    whole: tuple[Sequence[str | None], Posterior],
    count: Count,
    alpha: float = ALPHA,
    estimated: bool = False,
) -> tuple[Attribution, ...]:
    """What each source of `answers` is owed, sorted by source: see `divergences` and `shares`.

    () where there is no answer that counts. `estimated` says that the posterior is not that of what was
    released, as for a fused answer. O(sources) posteriors.
    """
    moved = divergences(answers, whole, count, alpha)
    owed = shares(route, answers, moved)
    return tuple(Attribution(source, moved[source], share, estimated) for source, share in owed.items())


def divergences(
    answers: Sequence[Answer],
    whole: tuple[Sequence[str | None], Posterior],
    count: Count,
    alpha: float = ALPHA,
    of: Collection[str] | None = None,
) -> dict[str, float]:
    """max{D_α(P‖P₋ₛ), D_α(P₋ₛ‖P)} in nats for each source s of `answers`, or those of them in `of`; sorted.

    P₋ₛ is the posterior without the answers of s, all other weights as they are, over the candidates of P and
    "other", each floored at 1e-3. `count` says what some of the answers come to, and `whole` is what all of
    them do; both with the candidates, since clusters change their name, and may fall apart, when a member
    leaves. `alpha` is the order of the Rényi divergence, above 0; 1 is Kullback-Leibler. Never above
    `most_nats(len(answers))`.
    """
    owners = [a.source for a in answers]
    named, full = whole
    before = _floored([*full.probabilities, full.other])
    found: dict[str, float] = {}
    for source in sorted(set(owners) if of is None else set(owners).intersection(of)):
        kept = [i for i, owner in enumerate(owners) if owner != source]
        candidates, rest = count(kept)
        without = _floored(_over(full.candidates, rest, candidates, [named[i] for i in kept]))
        found[source] = max(_renyi(before, without, alpha), _renyi(without, before, alpha), 0.0)
    return found


def shares(route: Route, answers: Sequence[Answer], moved: dict[str, float]) -> dict[str, float]:
    """The divergences over their sum.

    Where nothing moves, such as where all abstained, sources with an answer that counts share alike; {} where
    there is none.
    """
    total = math.fsum(moved.values())
    if total > 0:
        return {source: nats / total for source, nats in moved.items()}
    heard = {a.source for a in answers if a.status == "ok" and not a.declined and _weight(route, a) != 0}
    return {source: (source in heard) / len(heard) for source in moved} if heard else {}


def most_nats(answers: int) -> float:
    """What no divergence of a source is above, whatever so many answers say: ln(1000 + answers + 1).

    They name k <= `answers` candidates, so P has k + 1 entries with "other". Floored, each is max(p, f), with
    f = 1e-3; their sum T is at most 1 + (k + 1) f, since that of all p is at most 1. Over T, none is above 1
    nor below f / T >= f / (1 + (k + 1) f); the same holds for P₋ₛ, which is taken over the entries of P. So
    no ratio of theirs is above (1 + (k + 1) f) / f = 1000 + k + 1, and D_α <= D_∞ = ln of the largest ratio
    at every order (van Erven & Harremoës 2014, theorem 3).
    """
    return math.log(1.0 / _FLOOR + answers + 1)


def apart_nats(alpha: float = ALPHA) -> float:
    """The divergence between two answers that name different candidates, each all of its posterior."""
    here, there = _floored([1.0, 0.0, 0.0]), _floored([0.0, 1.0, 0.0])
    return max(_renyi(here, there, alpha), _renyi(there, here, alpha))


def _over(
    candidates: Sequence[str], without: Posterior, now: Sequence[str | None], before: Sequence[str | None]
) -> list[float]:
    """Probabilities of `candidates` and "other" under a posterior that may name them otherwise.

    `now` and `before` are what the same answers stand for under either posterior.
    """
    if now == before:
        left = dict(zip(without.candidates, without.probabilities, strict=True))
        return [*[left.get(candidate, 0.0) for candidate in candidates], without.other]
    heirs = dict(zip(now, before, strict=True))
    mass: dict[str | None, list[float]] = {candidate: [] for candidate in candidates}
    for name, probability in zip(without.candidates, without.probabilities, strict=True):
        mass.setdefault(heirs.get(name), []).append(probability)
    return [*(math.fsum(mass[candidate]) for candidate in candidates), without.other]


def _floored(probabilities: Sequence[float]) -> list[float]:
    raised = [max(p, _FLOOR) for p in probabilities]
    total = math.fsum(raised)
    return [p / total for p in raised]


def _renyi(p: Sequence[float], q: Sequence[float], alpha: float) -> float:
    """D_α(p‖q) in nats (Rényi 1961); p and q are positive. Exactly 0 where they are equal."""
    if p == q:
        return 0.0
    if math.isclose(alpha, 1.0, abs_tol=1e-9):
        return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    power = alpha - 1
    if power > _STEEP:  # a ratio to such a power may be beyond all floats: their logarithms are not
        logs = [math.log(a) + power * math.log(a / b) for a, b in zip(p, q, strict=True)]
        top = max(logs)
        return (top + math.log(math.fsum([math.exp(x - top) for x in logs]))) / power
    return math.log(math.fsum([a * (a / b) ** power for a, b in zip(p, q, strict=True)])) / power


def _weight(route: Route, answer: Answer) -> float:
    call = route.call_of(answer.expert)
    return call.weight if call is not None else 0.0
