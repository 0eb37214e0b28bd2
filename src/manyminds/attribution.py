"""What an answer owes to each source: leave the source out, and see how far the posterior moves. Pure.

Knows no combiner: the posterior is a callable.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from manyminds.types import Answer, Attribution, Posterior, Query, Route

__all__ = ["attribute"]

_FLOOR = 1e-3  # a candidate that only one source named would make its divergence infinite
_Posterior: TypeAlias = Callable[[Query, Route, Sequence[Answer]], Posterior]
_Candidates: TypeAlias = Callable[[Query, Route, Sequence[Answer]], list[str | None]]


def attribute(
    query: Query,
    route: Route,
    answers: Sequence[Answer],
    posterior: _Posterior,
    candidates: _Candidates,
    alpha: float = 2.0,
    estimated: bool = False,
) -> tuple[Attribution, ...]:
    """max{D_α(P‖P₋ₛ), D_α(P₋ₛ‖P)} for each source s of `answers`, sorted by source.

    P₋ₛ is the posterior without the answers of s, over the candidates of P and "other", each floored at
    1e-3. `candidates` says which of them an answer stands for: clusters change their name, and may fall
    apart, when a member leaves. Shares are the divergences over their sum. Where nothing moves, such as
    where all abstained, sources with an answer that counts share alike; () where there is none.
    `alpha` is the order of the Rényi divergence, above 0; 1 is Kullback-Leibler. `estimated` says that
    the posterior is not that of what was released, as for a fused answer. O(sources) posteriors.
    """
    sources = sorted({a.source for a in answers})
    full = posterior(query, route, answers)
    named = candidates(query, route, answers)
    whole = _floored([*full.probabilities, full.other])
    divergences: list[float] = []
    for source in sources:
        kept = [i for i, a in enumerate(answers) if a.source != source]
        rest = [answers[i] for i in kept]
        heirs = dict(zip(candidates(query, route, rest), (named[i] for i in kept), strict=True))
        without = _floored(_over(full.candidates, posterior(query, route, rest), heirs))
        divergences.append(max(_renyi(whole, without, alpha), _renyi(without, whole, alpha), 0.0))
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


def _over(candidates: Sequence[str], without: Posterior, heirs: dict[str | None, str | None]) -> list[float]:
    """Probabilities of `candidates` and "other" under a posterior that may name them otherwise."""
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
    terms = (a * (a / b) ** (alpha - 1) for a, b in zip(p, q, strict=True))
    return math.log(math.fsum(terms)) / (alpha - 1)


def _weight(route: Route, answer: Answer) -> float:
    call = route.call_of(answer.expert)
    return call.weight if call is not None else 0.0
