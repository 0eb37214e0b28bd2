"""What a caller is told of how an answer came about. Pure; knows no transport."""

from collections.abc import Sequence
from functools import lru_cache

from manyminds import canonical
from manyminds.attribution import attribute
from manyminds.types import (
    Answer,
    Attribution,
    Call,
    Combiner,
    PanelEntry,
    Posterior,
    Query,
    Report,
    Route,
    Strategy,
)

__all__ = ["of_one", "of_panel", "waited_s"]

_SHOWN = 280  # characters of a draft in the panel, unless `explain` is set


def of_one(query: Query, route: Route, answer: Answer) -> Report:
    """The report of an expert that was asked alone and by name: nothing is compared, all is its own."""
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
        attribution=_owed(call) if heard else (),
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
def _owed(call: Call) -> tuple[Attribution, ...]:
    """What an answer owes to the only source that was asked: without it there would be none."""

    def posterior(query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        return Posterior(("answer",), (call.probability,), 1 - call.probability) if answers else Posterior()

    def candidates(query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        return ["answer"] * len(answers)

    alone = Answer(call.expert, call.source, "ok")
    return attribute(Query(()), Route("pass", "pass", (call,)), [alone], posterior, candidates)


def of_panel(query: Query, route: Route, combiner: Combiner, answers: Sequence[Answer]) -> Report:
    """The report of a panel, from all of its answers and what the combiner makes of them."""
    drafts = [answer for answer in answers if answer.method != "fuse"]
    fused = any(a.method == "fuse" and a.status == "ok" and a.text.strip() for a in answers)
    strategy: Strategy = "select" if route.strategy == "fuse" and not fused else route.strategy
    posterior = combiner.posterior(query, route, drafts)
    candidates = combiner.candidates(query, route, drafts)
    shown = dict(zip(map(id, drafts), candidates, strict=True))
    cost = sum(answer.usage.cost_usd for answer in answers)
    voters = [c for c in candidates if c is not None]
    winner = _winner(posterior)
    comparable = bool(voters) and strategy not in ("race", "pass")
    return Report(
        request_id=query.request_id,
        policy=route.policy,
        strategy=strategy,
        panel=tuple(_entry(query, route, posterior, answer, shown.get(id(answer))) for answer in answers),
        agreement=sum(c == winner for c in voters) / len(voters) if comparable else None,
        probability=posterior.best if voters and not fused else None,
        attribution=attribute(query, route, drafts, combiner.posterior, combiner.candidates, estimated=fused),
        cost_usd=cost,
        saved_usd=_best_single_cost(route, answers) - cost,
    )


def _winner(posterior: Posterior) -> str | None:
    pairs = zip(posterior.candidates, posterior.probabilities, strict=True)
    return max(pairs, key=lambda pair: pair[1], default=(None, 0.0))[0]


def _entry(
    query: Query, route: Route, posterior: Posterior, answer: Answer, candidate: str | None
) -> PanelEntry:
    call = route.call_of(answer.expert)
    probabilities = dict(zip(posterior.candidates, posterior.probabilities, strict=True))
    text = canonical.answer_of(query.task, answer.text) or answer.text
    if not query.limits.explain and len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    return PanelEntry(
        expert=answer.expert,
        source=answer.source,
        weight=call.share if call and answer.method != "fuse" else 0.0,
        answer=text,
        correct_probability=None if candidate is None else probabilities.get(candidate),
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
