"""What a caller is told of how an answer came about. Pure; knows no transport."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from msgspec import UNSET
from msgspec.structs import replace

from manyminds import canonical
from manyminds.attribution import ALPHA, apart_nats, attribute, most_nats
from manyminds.combine.ballot import has_say
from manyminds.combine.support import chance, conflict, contradicts
from manyminds.types import (
    Answer,
    Attribution,
    Call,
    Chunk,
    Citation,
    Combiner,
    Conflict,
    Count,
    Grounds,
    PanelEntry,
    Posterior,
    Query,
    Report,
    Route,
    Weighed,
)

__all__ = ["fused_anew", "grounds_of", "of_one", "of_panel", "waited_s", "weighed"]

_SHOWN = 280  # characters of a draft in the panel, unless `explain` is set
_CITED = 16  # citations of one answer, or of one that conflicts with it


def of_one(query: Query, route: Route, answer: Answer, alpha: float = ALPHA) -> Report:
    """The report of an expert that was asked alone and by name: nothing is compared, all is its own.

    `alpha` is the order of the divergence.
    """
    call = route.calls[0]
    heard = answer.status == "ok" and not answer.declined
    probability = chance(call.probability, answer.grounds) if heard else None
    cost, grounds = answer.usage.cost_usd, answer.grounds
    entry = PanelEntry(
        expert=answer.expert,
        source=answer.source,
        weight=call.share,
        answer=_shown(query, answer.text),
        correct_probability=probability,
        ttft_s=answer.ttft_s,
        seconds=answer.seconds,
        cost_usd=cost,
        status=answer.status,
        error=answer.error.message if answer.error else None,
        support=grounds.support if grounds else None,
        declined=answer.declined,
    )
    return Report(
        request_id=query.request_id,
        policy=route.policy,
        strategy=route.strategy,
        panel=(entry,),
        agreement=None,
        probability=probability,
        attribution=() if probability is None else _owed(call.expert, call.source, probability, alpha),
        cost_usd=cost,
        saved_usd=0.0 if answer.status == "ok" else route.best_single_cost_usd - cost,
        citations=grounds.citations[:_CITED] if grounds else UNSET,
        declined=answer.declined if grounds else UNSET,
    )


def grounds_of(last: Chunk, report: Report) -> Grounds | None:
    """What an answer rests on that ended with this chunk; of a fused one what its drafts do.

    That has the support of the best supported of these.
    """
    if last.grounds is not None or not report.citations:
        return last.grounds
    supports = [entry.support for entry in report.panel if entry.support is not None and not entry.declined]
    return Grounds(max(supports, default=0.0), report.citations)


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
    last: Chunk | None = None,
) -> Report:
    """The report of a panel, from all of its answers and what the combiner makes of them: see `weighed`.

    `last` is the chunk that ended what was released.
    """
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
    report = Report(
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
    if last is None or all(answer.grounds is None for answer in answers):
        return report
    conflicts = _conflicts(query, route, answers, last, list(zip(drafts, candidates, strict=True)), posterior)
    return replace(
        report,
        citations=_citations([a for a in drafts if has_say(route, a)] if fused else (), last),
        declined=last.declines,
        conflicts=conflicts or UNSET,
    )


def _citations(drafts: Sequence[Answer], last: Chunk) -> tuple[Citation, ...]:
    """Those of the answer that ended so; of one without grounds, those of what it was fused from."""
    if last.grounds is not None:
        return last.grounds.citations[:_CITED]
    found = [(a.grounds, a.expert) for a in drafts if a.grounds is not None]
    found.sort(key=lambda one: (-one[0].support, one[1]))
    every = dict.fromkeys(citation for grounds, _ in found for citation in grounds.citations)
    return tuple(every)[:_CITED]


def _conflicts(
    query: Query,
    route: Route,
    answers: Sequence[Answer],
    last: Chunk,
    said: Sequence[tuple[Answer, str | None]],
    posterior: Posterior,
) -> tuple[Conflict, ...]:
    """What others have grounds for that is not what was released, the most probable first.

    One for each candidate, in the words of the best supported of those who say so. `said` are the drafts with
    the candidates that they stand for. Texts that tell different things may mean the same to an encoder: such
    a candidate's probability is parted by how likely each of the two is by itself.
    """
    released = next((a for a in answers if a.chunks and a.chunks[-1] is last), None)
    if released is None or released.declined:
        return ()
    differs = contradicts if released.grounds is None else conflict
    probabilities = dict(zip(posterior.candidates, posterior.probabilities, strict=True))
    same = next((candidate for answer, candidate in said if answer is released), None)
    others: dict[str, list[tuple[Grounds, Answer]]] = {}
    for answer, candidate in said:
        grounds = answer.grounds
        if answer.status != "ok" or grounds is None or grounds.declined or answer.source == released.source:
            continue
        if differs(query, answer.text, released.text):
            others.setdefault(candidate or answer.text, []).append((grounds, answer))
    found = []
    for candidate, many in others.items():
        ranked = sorted(many, key=lambda one: (-one[0].support, one[1].expert, one[1].text))
        cited = dict.fromkeys(citation for grounds, _ in ranked for citation in grounds.citations)
        probability = probabilities.get(candidate, 0.0)
        if candidate == same:
            alone = [_alone(route, answer) for answer in (ranked[0][1], released)]
            probability *= alone[0] / (math.fsum(alone) or 1.0)
        found.append(Conflict(_shown(query, ranked[0][1].text), probability, tuple(cited)[:_CITED]))
    return tuple(sorted(found, key=lambda one: (-one.probability, one.answer)))


def _alone(route: Route, answer: Answer) -> float:
    """How likely it is right, whatever others say."""
    call = route.call_of(answer.expert)
    return chance(call.probability if call is not None else 0.5, answer.grounds)


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
    return PanelEntry(
        expert=answer.expert,
        source=answer.source,
        weight=call.share if call and answer.method != "fuse" else 0.0,
        answer=_shown(query, canonical.answer_of(query.task, answer.text) or answer.text),
        correct_probability=probability,
        ttft_s=answer.ttft_s,
        seconds=answer.seconds,
        cost_usd=answer.usage.cost_usd,
        status=answer.status,
        stage=answer.stage,
        method=answer.method,
        error=answer.error.message if answer.error else None,
        support=answer.grounds.support if answer.grounds else None,
        declined=answer.declined,
    )


def _shown(query: Query, text: str) -> str:
    return text if query.limits.explain or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _best_single_cost(route: Route, answers: Sequence[Answer]) -> float:
    """What the best single expert took, or would have taken as the router expects."""
    asked = [a.usage.cost_usd for a in answers if a.expert == route.best_single and a.status == "ok"]
    return asked[0] if asked else route.best_single_cost_usd
