"""What a caller is told of how an answer came about. Pure; knows no transport."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from msgspec.structs import replace

from manyminds import canonical
from manyminds.attribution import ALPHA, apart_nats, attribute, most_nats
from manyminds.types import (
    Answer,
    Attribution,
    Call,
    Combiner,
    Count,
    PanelEntry,
    Posterior,
    Query,
    Report,
    Route,
    Weighed,
)

__all__ = ["fused_anew", "of_one", "of_panel", "waited_s", "weighed"]

_SHOWN = 280  # characters of a draft in the panel, unless `explain` is set


def of_one(query: Query, route: Route, answer: Answer, alpha: float = ALPHA) -> Report:
    """The report of an expert that was asked alone and by name: nothing is compared, all is its own.

    `alpha` is the order of the divergence.
    """
    call = route.calls[0]
    heard = answer.status == "ok"
    text = answer.text
    if len(text) > _SHOWN and not query.limits.explain:
        text = text[: _SHOWN - 1] + "…"
    cost = answer.usage.cost_usd
    entry = PanelEntry(
        expert=answer.expert,
        source=answer.source,
        weight=call.share,
        answer=text,
        correct_probability=call.probability if heard else None,
        ttft_s=answer.ttft_s,
        seconds=answer.seconds,
        cost_usd=cost,
        status=answer.status,
        error=answer.error.message if answer.error else None,
    )
    return Report(
        request_id=query.request_id,
        policy=route.policy,
        strategy=route.strategy,
        panel=(entry,),
        agreement=None,
        probability=call.probability if heard else None,
        attribution=_owed(call.expert, call.source, call.probability, alpha) if heard else (),
        cost_usd=cost,
        saved_usd=0.0 if heard else route.best_single_cost_usd - cost,
    )


def waited_s(report: Report) -> float | None:
    """Seconds to the slowest answers that were needed, stage after stage; None where nobody answered."""
    stages: dict[int, float] = {}
    for entry in report.panel:
        if entry.status == "ok":
            stages[entry.stage] = max(stages.get(entry.stage, 0.0), entry.seconds)
    return sum(stages.values()) if stages else None


@lru_cache(maxsize=1024)
def _owed(expert: str, source: str, probability: float, alpha: float) -> tuple[Attribution, ...]:
    """What an answer owes to the only source that was asked: without it there would be none."""

    def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
        alone = Posterior(("answer",), (probability,), 1 - probability)
        return ["answer"] * len(kept), alone if kept else Posterior()

    route = Route("pass", "pass", (Call(expert, source, probability),))
    return attribute(route, [Answer(expert, source, "ok")], count([0]), count, alpha)


def weighed(query: Query, route: Route, combiner: Combiner, answers: Sequence[Answer]) -> Weighed:
    """What a combiner makes of the answers that are not its own, where sources have bounds and where not."""
    drafts = [answer for answer in answers if answer.method != "fuse"]
    weighing: Callable[[Query, Route, Sequence[Answer]], Weighed] | None = getattr(combiner, "weighed", None)
    if weighing is not None:
        return weighing(query, route, drafts)
    return Weighed(route, {}, _counting(query, route, combiner, drafts))


def of_panel(
    query: Query,
    route: Route,
    combiner: Combiner,
    answers: Sequence[Answer],
    found: Weighed | None = None,
    alpha: float = ALPHA,
) -> Report:
    """The report of a panel, from all of its answers and what the combiner makes of them: see `weighed`."""
    found = found or weighed(query, route, combiner, answers)
    drafts = [answer for answer in answers if answer.method != "fuse"]
    fused = any(a.method == "fuse" and a.status == "ok" and a.text.strip() for a in answers)
    strategy = route.strategy
    if strategy == "fuse" and not fused:
        strategy = "select" if query.task.kind == "text" else "vote"
    count = found.count
    candidates, posterior = whole = count(range(len(drafts)))
    cost = sum(answer.usage.cost_usd for answer in answers)
    voters = [c for c in candidates if c is not None]
    winner = _winner(posterior)
    owed = attribute(found.route, drafts, whole, count, alpha, estimated=fused)
    comparable = bool(voters) and strategy not in ("race", "pass")
    return Report(
        request_id=query.request_id,
        policy=route.policy,
        strategy=strategy,
        panel=_panel(query, route, posterior, answers, dict(zip(map(id, drafts), candidates, strict=True))),
        agreement=sum(c == winner for c in voters) / len(voters) if comparable else None,
        probability=posterior.best if voters and not fused else None,
        attribution=_fused_owed(answers, owed) if fused else owed,
        cost_usd=cost,
        saved_usd=_best_single_cost(route, answers) - cost,
    )


def _fused_owed(answers: Sequence[Answer], owed: Sequence[Attribution]) -> tuple[Attribution, ...]:
    """With the fuser's own source: without it there would be no such answer, so that it is owed the most."""
    fuser = next(a for a in answers if a.method == "fuse" and a.status == "ok" and a.text.strip())
    most = most_nats(sum(answer.method != "fuse" for answer in answers))
    nats = {row.source: row.divergence for row in owed} | {fuser.source: most}
    return _of(nats, {row.source for row in owed if row.source != fuser.source and row.estimated})


def fused_anew(report: Report, apart: Mapping[str, bool | None], fuser: str, alpha: float = ALPHA) -> Report:
    """The report with what a fused answer owes to the sources of its drafts, measured.

    `apart` says of each whether what was fused without it says something else; None where nobody knows, and
    the estimate stays. Either answer is then all of its posterior: see `attribution.apart_nats`.
    """
    nats = {row.source: row.divergence for row in report.attribution}
    guessed = {row.source for row in report.attribution if row.estimated}
    for source, differs in apart.items():
        if differs is not None and source != fuser:
            nats[source] = apart_nats(alpha) if differs else 0.0
            guessed.discard(source)
    return replace(report, attribution=_of(nats, guessed))


def _of(nats: Mapping[str, float], estimated: Collection[str]) -> tuple[Attribution, ...]:
    total = math.fsum(nats.values())
    return tuple(Attribution(s, n, n / total, s in estimated) for s, n in sorted(nats.items()))


def _counting(query: Query, route: Route, combiner: Combiner, answers: Sequence[Answer]) -> Count:
    """What some of the answers come to: a combiner with `counting` reads each of them only once."""
    counting: Callable[[Query, Route, Sequence[Answer]], Count] | None = getattr(combiner, "counting", None)
    if counting is not None:
        return counting(query, route, answers)

    def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
        some = [answers[i] for i in kept]
        return combiner.candidates(query, route, some), combiner.posterior(query, route, some)

    return count


def _winner(posterior: Posterior) -> str | None:
    pairs = zip(posterior.candidates, posterior.probabilities, strict=True)
    return max(pairs, key=lambda pair: pair[1], default=(None, 0.0))[0]


def _panel(
    query: Query,
    route: Route,
    posterior: Posterior,
    answers: Sequence[Answer],
    candidates: Mapping[int, str | None],
) -> tuple[PanelEntry, ...]:
    """`candidates` by the identity of the answer that stands for them."""
    calls = {call.expert: call for call in reversed(route.everyone)}
    probabilities = dict(zip(posterior.candidates, posterior.probabilities, strict=True))
    return tuple(
        [
            _entry(query, calls.get(answer.expert), answer, _said(probabilities, candidates.get(id(answer))))
            for answer in answers
        ]
    )


def _said(probabilities: Mapping[str, float], candidate: str | None) -> float | None:
    return None if candidate is None else probabilities.get(candidate)


def _entry(query: Query, call: Call | None, answer: Answer, probability: float | None) -> PanelEntry:
    text = canonical.answer_of(query.task, answer.text) or answer.text
    if not query.limits.explain and len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    return PanelEntry(
        expert=answer.expert,
        source=answer.source,
        weight=call.share if call and answer.method != "fuse" else 0.0,
        answer=text,
        correct_probability=probability,
        ttft_s=answer.ttft_s,
        seconds=answer.seconds,
        cost_usd=answer.usage.cost_usd,
        status=answer.status,
        stage=answer.stage,
        method=answer.method,
        error=answer.error.message if answer.error else None,
    )


def _best_single_cost(route: Route, answers: Sequence[Answer]) -> float:
    """What the best single expert took, or would have taken as the router expects."""
    asked = [a.usage.cost_usd for a in answers if a.expert == route.best_single and a.status == "ok"]
    return asked[0] if asked else route.best_single_cost_usd
