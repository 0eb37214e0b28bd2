"""Whom to ask, in which order, and how to combine: one rule per policy.

Pure. Knows predictions that meet the hard limits, not where they come from. Every tie ends with the
expert's name, so that the order of the candidates changes nothing.

- `auto` asks the three likeliest at once and stops as soon as the vote is sure.
- `max` asks up to eight and waits for all.
- `cheap` asks two cheap experts whose agreement would be worth as much as the best single expert's
  word, and that one only where they disagree; where nothing is to be saved, it alone.
- `fast` asks the two quickest and takes the first answer.

Documents that hold the answer, more likely than not, are among those whom `auto` and `max` ask.
A way of asking (a card with `variant_of`) is chosen by a plan that was learnt; the rules leave it aside
where any other expert is left.
"""

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from manyminds.canonical import classes
from manyminds.errors import InvalidRequestError, ModelNotFoundError
from manyminds.router.limits import weight_of
from manyminds.router.planner import Planner
from manyminds.router.predictor import Load, Prediction, log_odds
from manyminds.types import Call, Card, Limits, Query, Route, Strategy, Task

__all__ = [
    "DIRECT",
    "POLICIES",
    "choose",
    "direct",
    "rates",
    "resolve",
]

POLICIES = ("auto", "max", "cheap", "fast")
DIRECT = "pass"  # the policy of a request whose model is an expert

_SURE = 0.95  # posterior mass at which `auto` stops waiting
_HELD = 0.5  # probability that documents hold an answer, from which on they are always asked
_SLACK = 0.05  # of accuracy that `cheap` gives up where answers cannot be compared
_RATED_CHARS = 320  # of all options together: some 80 tokens, rated in a few seconds by a small model
_RESERVE = 3  # experts asked, one after another, where the whole panel failed or one of it is slow
_CLOSE = 1e-9  # of summed weights in nats: roundings of eight of them are far below it


# --- policies --------------------------------------------------------------------------------------


def resolve(query: Query, cards: Sequence[Card], limits: Limits) -> str:
    """The policy of a request: `pass` where its model is an expert, else what it names.

    Raises: InvalidRequestError for an unknown policy; ModelNotFoundError for an unknown model.
    """
    known = ", ".join(POLICIES)
    if limits.policy is not None and limits.policy not in POLICIES:
        message = f"There is no policy {limits.policy!r:.80}. Policies: {known}."
        raise InvalidRequestError(message, param="manyminds.policy")
    if any(card.name == query.model for card in cards):
        return DIRECT
    if limits.policy is not None:
        return limits.policy
    if query.model not in POLICIES:
        message = f"{query.model!r} is neither a policy ({known}) nor an expert that can be asked now."
        raise ModelNotFoundError(message, param="model")
    return query.model


@dataclass(frozen=True, slots=True)
class _Panel:
    stages: tuple[tuple[Prediction, ...], ...]
    threshold: float = 1.0
    quorum: int | None = None
    escalates: float = 1.0  # probability that a second stage is asked

    @property
    def members(self) -> list[Prediction]:
        return [p for stage in self.stages for p in stage]


def choose(
    policy: str,
    query: Query,
    predictions: Sequence[Prediction],
    limits: Limits,
    load: Load,
    planner: Planner | None = None,
) -> Route:
    """The route of a resolved policy over predictions that meet the hard limits; at least one.

    A plan that was learnt goes before the rules below, where it fits the question and its limits. No plan
    knows of documents: where some hold the answer, more likely than not or than anybody else is right, the
    rules choose, by which they are asked.
    """
    ranked = sorted(predictions, key=_by_value)
    by_documents = max(p.documents for p in ranked)
    if planner is not None and by_documents < min(_HELD, ranked[0].probability):
        planned = _planned(planner, policy, query, ranked, limits, load)
        if planned is not None:
            return planned
    ranked = [p for p in ranked if not p.card.variant_of] or ranked
    comparable = query.task.kind != "text"
    strategy: Strategy = limits.strategy or (
        "vote" if comparable else "race" if policy == "fast" else "select"
    )
    if len(ranked) == 1 and strategy == "select" != limits.strategy:
        strategy = "pass"  # of one there is nothing to select: it is heard as it speaks
    if "tools" in query.demands or query.sampling.n > 1 or strategy == "pass":
        strategy, panel = "pass", _Panel((tuple(ranked[:1]),))
    elif policy == "cheap":
        panel = _cheap(ranked, query.task, limits) if strategy == "vote" else _cheapest(ranked)
    elif policy == "fast":
        quickest = sorted(ranked, key=lambda p: (p.latency_s, *_by_value(p)))[: limits.panel or 2]
        panel = _Panel((tuple(sorted(quickest, key=_by_value)),), quorum=1 if strategy == "vote" else None)
    elif policy == "max":
        panel = _Panel((_likeliest(ranked, limits.panel or 8),))
    else:
        panel = _Panel((_likeliest(ranked, limits.panel or 3),), threshold=_SURE)
    fuser = _fuser(ranked, len(panel.members), load) if strategy == "fuse" else None
    panel = _within(panel, limits.budget_usd, fuser, load)
    if strategy == "fuse" and (fuser is None or len(panel.members) == 1):
        strategy, fuser = "select", None  # one draft is the answer, and documents write none
    return _route(policy, strategy, panel, fuser, ranked, query, limits, load)


def _likeliest(ranked: Sequence[Prediction], count: int) -> tuple[Prediction, ...]:
    """So many of them; the last of several makes room for documents that hold the answer, if none there do.

    What is written there models may never have seen, however right they are as a rule; and who finds nothing
    there declines.
    """
    first, rest = tuple(ranked[:count]), ranked[count:]
    held = max(rest, key=lambda p: p.documents, default=None)
    if held is None or held.documents < _HELD or count < 2 or any(p.documents >= _HELD for p in first):
        return first
    return (*first[:-1], held)


def direct(alone: Prediction) -> Route:
    """The route of an expert that was asked for by name: it alone, and nobody in its stead."""
    name = alone.card.name
    call = Call(name, alone.source, alone.probability, share=1.0, prior=alone.prior)
    return Route(
        policy=DIRECT,
        strategy="pass",
        calls=(call,),
        expected_accuracy=alone.probability,
        expected_cost_usd=alone.cost_usd,
        expected_latency_s=alone.latency_s,
        best_single=name,
        best_single_cost_usd=alone.cost_usd,
    )


def _planned(
    planner: Planner,
    policy: str,
    query: Query,
    ranked: Sequence[Prediction],
    limits: Limits,
    load: Load,
) -> Route | None:
    """The route of a learnt plan; None where none fits, or where another way of combining is wanted."""
    strategy: Strategy = "select" if query.task.kind == "text" else "vote"
    if "tools" in query.demands or query.sampling.n > 1 or limits.strategy not in (None, strategy):
        return None
    known = {p.card.name: p for p in ranked}
    costs = {name: p.cost_usd for name, p in known.items()}
    shifts = {name: p.shift for name, p in known.items()}
    plan = planner.plan(policy, query, costs, limits.panel, limits.budget_usd, shifts)
    if plan is None:
        return None
    asked = planner.stages(plan, query)
    stages = tuple(tuple(sorted((known[n] for n in stage), key=_by_value)) for stage in asked)
    panel, expected = _Panel(stages, plan.threshold), planner.expect(plan, query)
    return _route(policy, strategy, panel, None, ranked, query, limits, load, expected)


def _reserve(
    calls: Sequence[Call],
    cost_usd: float,
    ranked: Sequence[Prediction],
    strategy: Strategy,
    query: Query,
    limits: Limits,
) -> tuple[Call, ...]:
    """The likeliest of those who are not asked, for when all who are fail, or one of them is slow to start.

    Within the budget one by one, beside what the `calls` cost. Where all of them answer from documents, and
    may decline, the last is the likeliest that needs none.
    """
    asked = {call.expert for call in calls}
    others = [p for p in ranked if p.card.name not in asked]
    if limits.budget_usd is not None:
        others = [p for p in others if cost_usd + p.cost_usd <= limits.budget_usd]
    if any(p.card.variant_of for p in ranked):
        others = _in_one_way(others, {_base(p.card) for p in ranked if p.card.name in asked})
    if not others:
        return ()
    met = {p.card.name: p.card for p in ranked}
    if all(_cites(met[name]) for name in asked):
        others = _with_a_model(others)
    last, rated = max(call.stage for call in calls), _is_rated(strategy, query)
    return tuple(
        Call(
            expert=p.card.name,
            source=p.source,
            probability=p.probability,
            stage=last + i,
            weight=weight_of(p.card, limits.weights),
            method="score" if rated and rates(p.card, query.task) else "generate",
            hedge_s=p.hedge_s,
            prior=p.prior,
        )
        for i, p in enumerate(others[:_RESERVE], 1)
    )


def _cites(card: Card) -> bool:
    return "citations" in card.offers


def _with_a_model(others: Sequence[Prediction]) -> list[Prediction]:
    """As many as are asked, the last of them without documents where there is such a one."""
    first, rest = list(others[:_RESERVE]), others[_RESERVE:]
    if all(_cites(p.card) for p in first) and (model := next((p for p in rest if not _cites(p.card)), None)):
        first[-1] = model
    return first


def _base(card: Card) -> str:
    return card.variant_of or card.name


def _in_one_way(others: Sequence[Prediction], met: Collection[str]) -> list[Prediction]:
    """One for each expert, itself before a way of asking it; of those met already, itself and last.

    What failed in one way may well fail in another.
    """
    left: dict[str, Prediction] = {}
    for p in sorted(others, key=lambda p: (_base(p.card) in met, bool(p.card.variant_of))):
        if not (p.card.variant_of and _base(p.card) in met):
            left.setdefault(_base(p.card), p)
    return list(left.values())


def _by_value(p: Prediction) -> tuple[float, float, str]:
    return (-p.probability, p.cost_usd, p.card.name)


def _by_cost(p: Prediction) -> tuple[float, float, str]:
    return (p.cost_usd, -p.probability, p.card.name)


def _cheapest(ranked: Sequence[Prediction]) -> _Panel:
    """One expert: the cheapest that is nearly as likely to be right as the best."""
    good = [p for p in ranked if p.probability >= ranked[0].probability - _SLACK]
    return _Panel(((min(good, key=_by_cost),),))


def _cheap(ranked: Sequence[Prediction], task: Task, limits: Limits) -> _Panel:
    """A pair of cheap experts, then the best; or the best alone where that costs no more.

    One cheap expert first would never do: alone it is less sure than the best single expert, which is
    what stops the cascade. So two are asked at once. Of the pairs whose agreement passes that
    threshold (errors independent and even, science of the weighted vote), the one of lowest expected
    cost: c_i + c_j + P(they disagree) c_best.
    """
    best = ranked[0]
    others = classes(task) - 1
    chosen = (best.cost_usd, _Panel(((best,),), threshold=best.probability))
    if limits.panel is not None and limits.panel < 3:
        return chosen[1]
    cheaper = sorted((p for p in ranked if p.cost_usd < best.cost_usd), key=_by_cost)
    for a, b in itertools.combinations(cheaper, 2):
        right = a.probability * b.probability
        wrong = (1.0 - a.probability) * (1.0 - b.probability) / others
        if right < best.probability * (right + wrong):
            continue
        escalates = 1.0 - right - wrong
        cost = math.fsum((a.cost_usd, b.cost_usd, escalates * best.cost_usd))
        whole = math.fsum((a.cost_usd, b.cost_usd, best.cost_usd))
        if cost < chosen[0] and (limits.budget_usd is None or whole <= limits.budget_usd):
            pair = tuple(sorted((a, b), key=_by_value))
            chosen = (cost, _Panel((pair, (best,)), best.probability, None, escalates))
    return chosen[1]


def _fuser(ranked: Sequence[Prediction], drafts: int, load: Load) -> Prediction | None:
    """The best writer by its card, of those that can hold all drafts if there are any.

    None where all have nothing but documents.
    """
    needed = load.context_tokens + drafts * load.completion_tokens
    writers = [p for p in ranked if p.card.accuracy > 0 or not p.card.paragraphs]
    roomy = [p for p in writers if p.card.context_tokens >= needed] or writers
    return min(roomy, key=lambda p: (-p.card.accuracy, p.card.name), default=None)


def _fuser_cost_usd(fuser: Prediction | None, drafts: int, load: Load) -> float:
    if fuser is None:
        return 0.0
    return fuser.cost_usd + drafts * load.completion_tokens * fuser.card.price_in_usd_per_m / 1e6


def _within(panel: _Panel, budget_usd: float | None, fuser: Prediction | None, load: Load) -> _Panel:
    """Drops the least valuable member until all of them together fit the budget; one always does."""
    if budget_usd is None or len(panel.stages) > 1:  # a cascade has been checked
        return panel
    left = sorted(panel.members, key=_by_value)
    while len(left) > 1:
        fuser_usd = _fuser_cost_usd(fuser, len(left), load)
        if math.fsum([fuser_usd, *(p.cost_usd for p in left)]) <= budget_usd:
            break
        left.pop()
    return _Panel((tuple(left),), panel.threshold, panel.quorum)


# --- routes ----------------------------------------------------------------------------------------


def _route(
    policy: str,
    strategy: Strategy,
    panel: _Panel,
    fuser: Prediction | None,
    ranked: Sequence[Prediction],
    query: Query,
    limits: Limits,
    load: Load,
    expected: tuple[float, float] | None = None,
) -> Route:
    """`expected` is what was learnt of its accuracy and cost; without it they are estimated."""
    calls, best = _calls(panel, strategy, query, limits), ranked[0]
    quorum = panel.quorum if limits.quorum is None else limits.quorum
    cost_usd, latency_s = _expect(panel, quorum, strategy, fuser, load)
    accuracy, cost_usd = expected or (_accuracy(panel, strategy, query.task), cost_usd)
    return Route(
        policy=policy,
        strategy=strategy,
        calls=calls,
        threshold=panel.threshold,
        quorum=quorum,
        fuser=fuser.card.name if fuser else None,
        reserve=_reserve(calls, cost_usd, ranked, strategy, query, limits),
        expected_accuracy=accuracy,
        expected_cost_usd=cost_usd,
        expected_latency_s=latency_s,
        best_single=best.card.name,
        best_single_cost_usd=best.cost_usd,
    )


def _calls(panel: _Panel, strategy: Strategy, query: Query, limits: Limits) -> tuple[Call, ...]:
    members = panel.members
    weights = [weight_of(p.card, limits.weights) for p in members]
    count = classes(query.task)
    votes = [w * max(log_odds(p.probability, count), 0.0) for w, p in zip(weights, members, strict=True)]
    if not any(votes):
        votes = weights
    total, rated = math.fsum(votes), _is_rated(strategy, query)
    stages = [i for i, stage in enumerate(panel.stages) for _ in stage]
    return tuple(
        Call(
            expert=p.card.name,
            source=p.source,
            probability=p.probability,
            stage=stage,
            share=vote / total,
            weight=weight,
            method="score" if rated and rates(p.card, query.task) else "generate",
            hedge_s=p.hedge_s,
            prior=p.prior,
        )
        for p, stage, vote, weight in zip(members, stages, votes, weights, strict=True)
    )


def _is_rated(strategy: Strategy, query: Query) -> bool:
    """Options are rated where that is enough: a vote needs no text, and a lone question no conversation."""
    plain = strategy == "vote" and len(query.messages) == 1
    return plain and not query.demands & {"logprobs", "json_schema"}


def rates(card: Card, task: Task) -> bool:
    """Whether this expert says how likely each option is, instead of writing an answer.

    Rating takes a request for each token of the options, so long ones are left to writing.
    """
    if "score" not in card.offers or task.kind != "option":
        return False
    return 0 < sum(map(len, task.options)) <= _RATED_CHARS


def _expect(
    panel: _Panel, quorum: int | None, strategy: Strategy, fuser: Prediction | None, load: Load
) -> tuple[float, float]:
    """Cost in US dollars of all that is asked, and seconds to the last token that is needed."""
    reached = 1.0
    costs = [_fuser_cost_usd(fuser, len(panel.members), load)]
    latencies = [fuser.latency_s if fuser else 0.0]
    for stage in panel.stages:
        needed = 1 if strategy == "race" else min(quorum or len(stage), len(stage))
        costs += [reached * p.cost_usd for p in stage]
        latencies.append(reached * sorted(p.latency_s for p in stage)[needed - 1])
        reached *= panel.escalates
    return math.fsum(costs), math.fsum(latencies)


def _accuracy(panel: _Panel, strategy: Strategy, task: Task) -> float:
    """Share of right answers to expect.

    A vote: at least its best member's, and at least that of a weighted vote against which all errors
    of independent experts fall on one answer. A race: its quickest member's. Else no gain over the
    best member is counted on.
    """
    members = panel.members
    best = max(p.probability for p in members)
    if strategy == "race":
        return min(members, key=lambda p: (p.latency_s, p.card.name)).probability
    if strategy != "vote" or len(panel.stages) > 1:
        return best
    strongest = sorted(members, key=_by_value)[:8]
    return max(best, _majority(tuple([p.probability for p in strongest]), classes(task)))


@lru_cache(maxsize=1024)
def _majority(probabilities: tuple[float, ...], classes: int) -> float:
    """How likely those who are right outweigh those who are wrong: all 2^n cases are summed."""
    weights = [max(log_odds(p, classes), 0.0) for p in probabilities]
    chances, margins = [1.0], [0.0]  # of each case; its i-th bit says whether the i-th is right
    for p, weight in zip(probabilities, weights, strict=True):
        chances = [c * (1.0 - p) for c in chances] + [c * p for c in chances]
        margins = [m - weight for m in margins] + [m + weight for m in margins]
    cases = enumerate(zip(chances, margins, strict=True))
    return math.fsum(
        [c for case, (c, m) in cases if m > _CLOSE or (m > -_CLOSE and _outweigh(weights, case))]
    )


def _outweigh(weights: Sequence[float], case: int) -> bool:
    """Exactly: what was added up one by one may be off by a rounding."""
    return math.fsum(w if case >> i & 1 else -w for i, w in enumerate(weights)) > 0.0
