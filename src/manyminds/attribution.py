"""What an answer owes to each source: leave the source out, and see how far the posterior moves. Pure.

Knows no combiner: the posterior is a callable.
"""

import math
from collections.abc import Sequence

from manyminds.types import Answer, Attribution, Count, Posterior, Route

__all__ = ["attribute"]

_FLOOR = 1e-3  # a candidate that only one source named would make its divergence infinite


def attribute(
    route: Route,
    answers: Sequence[Answer],
    whole: tuple[Sequence[str | None], Posterior],
    count: Count,
    alpha: float = 2.0,
    estimated: bool = False,
) -> tuple[Attribution, ...]:
    """max{D_α(P‖P₋ₛ), D_α(P₋ₛ‖P)} for each source s of `answers`, sorted by source.

    P₋ₛ is the posterior without the answers of s, over the candidates of P and "other", each floored at
    1e-3. `count` says what some of the answers come to, and `whole` is what all of them do; both with the
    candidates, since clusters change their name, and may fall apart, when a member leaves. Shares are the
    divergences over their sum. Where nothing moves, such as where all abstained, sources with an answer
    that counts share alike; () where there is none.
    `alpha` is the order of the Rényi divergence, above 0; 1 is Kullback-Leibler. `estimated` says that
    the posterior is not that of what was released, as for a fused answer. O(sources) posteriors.
    """
    owners = [a.source for a in answers]
    sources = sorted(set(owners))
    named, full = whole
    before = _floored([*full.probabilities, full.other])
    divergences: list[float] = []
    for source in sources:
        kept = [i for i, owner in enumerate(owners) if owner != source]
        candidates, rest = count(kept)
        without = _floored(_over(full.candidates, rest, candidates, [named[i] for i in kept]))
        divergences.append(max(_renyi(before, without, alpha), _renyi(without, before, alpha), 0.0))
    total = math.fsum(divergences)
    if total > 0:
        shares = [d / total for d in divergences]
    else:
        heard = {a.source for a in answers if a.status == "ok" and _weight(route, a) != 0}
        if not heard:
            return ()
        shares = [(source in heard) / len(heard) for source in sources]
    rows = zip(sources, divergences, shares, strict=True)
    return tuple(Attribution(source, d, share, estimated) for source, d, share in rows)


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
    return math.log(math.fsum([a * (a / b) ** power for a, b in zip(p, q, strict=True)])) / power


def _weight(route: Route, answer: Answer) -> float:
    call = route.call_of(answer.expert)
    return call.weight if call is not None else 0.0
