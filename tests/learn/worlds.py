"""Worlds of which everything is known: experts with given skills, and artefacts made by hand."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyminds.artefact import Artefact, Ballot, Base, Part, Plan, Skills
from manyminds.combine.vote import Vote
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout import Fanout, Patience
from manyminds.index import Index
from manyminds.learn.examples import ABSTAINED, UNASKED, Examples
from manyminds.router import SkillRouter
from manyminds.types import Answer, Call, Card, Kind, Limits, Message, Query, Route, Status, Task, Usage

__all__ = ["Mind", "Played", "ask", "hand_made", "play", "play_live", "singles", "world"]

OPTIONS = ("iron", "wood", "glass", "wool")


@dataclass(frozen=True)
class Mind:
    """An expert: how often it is right (by topic, if it differs), says nothing, and is asked at all."""

    name: str
    skill: float
    cost_usd: float = 0.01
    by_topic: Mapping[str, float] = field(default_factory=dict)
    silent: float = 0.0
    asked: float = 1.0
    like: str = ""  # the expert whose every answer it repeats
    seconds: float = float("nan")


def world(
    minds: Sequence[Mind], n: int, seed: int = 0, kind: Kind = "option", topics: Sequence[str] = ("",)
) -> Examples:
    """Answers to n questions. Errors fall evenly on three wrong options, apart from one another.

    An expert's answers depend on the seed and its name alone, not on who else there is.
    """
    minds = sorted(minds, key=lambda mind: mind.name)
    draw = np.random.default_rng(seed)
    truth = draw.integers(4, size=n)
    about = [topics[i] for i in draw.integers(len(topics), size=n)]
    said = {mind.name: _answers(mind, truth, about, seed) for mind in minds}
    asked = {
        mind.name: np.random.default_rng([seed, 1, zlib.crc32(mind.name.encode())]).random(n) < mind.asked
        for mind in minds
    }
    votes, correct, candidates = _count(minds, said, asked, truth, kind)
    given = votes != UNASKED
    return Examples(
        experts=tuple(mind.name for mind in minds),
        sources=tuple(mind.name for mind in minds),
        kinds=(kind,) * n,
        read_as=(kind,) * n,
        spread=np.full(n, 4.0),
        classes=4.0,
        candidates=candidates,
        votes=votes,
        correct=correct,
        cost_usd=np.where(given, [mind.cost_usd for mind in minds], np.nan),
        seconds=np.where(given, [mind.seconds for mind in minds], np.nan),
        tokens=np.full(votes.shape, np.nan),
        confidence=np.full(votes.shape, np.nan),
        topics=tuple(about),
        vectors=None,
    )


def _answers(mind: Mind, truth: NDArray[Any], about: Sequence[str], seed: int) -> NDArray[np.int64]:
    """(n,) option said, or `ABSTAINED`."""
    own = np.random.default_rng([seed, 2, zlib.crc32((mind.like or mind.name).encode())])
    skill = np.array([mind.by_topic.get(topic, mind.skill) for topic in about])
    right = own.random(len(truth)) < skill
    wrong = (truth + own.integers(1, 4, size=len(truth))) % 4
    silent = own.random(len(truth)) < mind.silent
    return np.where(silent, ABSTAINED, np.where(right, truth, wrong))


def _count(
    minds: Sequence[Mind],
    said: Mapping[str, NDArray[Any]],
    asked: Mapping[str, NDArray[Any]],
    truth: NDArray[Any],
    kind: Kind,
) -> tuple[NDArray[np.int32], NDArray[np.bool_], tuple[tuple[str, ...], ...]]:
    votes = np.full((len(truth), len(minds)), UNASKED, np.int32)
    correct = np.zeros(votes.shape, np.bool_)
    candidates = []
    for i, right in enumerate(truth.tolist()):
        seen: dict[str, int] = {}
        for j, mind in enumerate(minds):
            if asked[mind.name][i]:
                option = int(said[mind.name][i])
                correct[i, j] = option == right
                comparable = option >= 0 and kind != "text"
                votes[i, j] = seen.setdefault("ABCD"[option], len(seen)) if comparable else ABSTAINED
        candidates.append(tuple(seen))
    return votes, correct, tuple(candidates)


def singles(examples: Examples) -> dict[str, float]:
    """Share of right answers of each expert."""
    means = examples.correct.mean(axis=0).tolist()
    return dict(zip(examples.experts, means, strict=True))


def ask(topic: str = "", kind: Kind = "option", **limits: Any) -> Query:
    """A question as the gateway hands it to its router."""
    options = OPTIONS if kind == "option" else ()
    task = Task(kind, options, "Which is a metal?")
    return Query((Message("user", "Which is a metal?"),), task=task, limits=Limits(topic=topic, **limits))


@dataclass(frozen=True)
class Played:
    """What came of a policy: share right, mean cost of a question, and experts asked on average."""

    accuracy: float
    cost_usd: float
    calls: float


def play(artefact: Artefact, examples: Examples, policy: str) -> Played:
    """Asks the router whom to ask, stage by stage until the vote is sure, as a gateway does."""
    cards = [Card(name, "recorded", name, context_tokens=10**6) for name in examples.experts]
    router, vote = SkillRouter(Index(8), None, artefact), Vote(artefact)
    place = {name: j for j, name in enumerate(examples.experts)}

    @cache
    def route(topic: str, kind: Kind) -> tuple[Query, Route]:
        query = ask(topic, kind, policy=policy)
        return query, router.route(query, cards, query.limits)

    @cache  # the same answers come again and again, and the vote is the same each time: its contract
    def outcome(topic: str, kind: Kind, said: tuple[tuple[str, Status], ...]) -> tuple[str, list[str]]:
        """Who is released and who was asked, by what each call of the route comes to."""
        query, way = route(topic, kind)
        asked = _asked(query, way, vote, dict(zip(way.calls, said, strict=True)))
        chosen = vote.choose(query, way, asked) if way.strategy == "vote" else asked[0]
        return chosen.expert, [answer.expert for answer in asked]

    right, cost, calls = 0, 0.0, 0
    for i, topic in enumerate(examples.topics):
        _, way = route(topic, examples.kinds[i])
        said = tuple(_said(call, examples, i) for call in way.calls)
        chosen, asked = outcome(topic, examples.kinds[i], said)
        right += bool(examples.correct[i, place[chosen]])
        cost += sum(float(np.nan_to_num(examples.cost_usd[i, place[name]])) for name in asked)
        calls += len(asked)
    return Played(right / len(examples), cost / len(examples), calls / len(examples))


async def play_live(artefact: Artefact, examples: Examples, policy: str, seed: int) -> Played:
    """The same through the gateway's fan-out, with experts that each take their time."""
    random = Random(seed)
    cards = [Card(name, "recorded", name, context_tokens=10**6) for name in examples.experts]
    router, vote = SkillRouter(Index(8), None, artefact), Vote(artefact)
    place = {name: j for j, name in enumerate(examples.experts)}
    right, cost, calls = 0, 0.0, 0
    for i, topic in enumerate(examples.topics):
        query = ask(topic, examples.kinds[i], policy=policy)
        way = router.route(query, cards, query.limits)

        async def enough(answers: Sequence[Answer], query: Query = query, way: Route = way) -> bool:
            return way.threshold < 1 and vote.posterior(query, way, answers).best >= way.threshold

        experts = {}
        for card in cards:
            code = int(examples.votes[i, place[card.name]])
            text = examples.candidates[i][code] if code >= 0 else ""
            experts[card.name] = Scripted(card, Script(text, first_token_s=random.uniform(0.01, 5.0)))
        async with Fanout(query, way, experts, Patience(), enough) as fanout:
            answers = [answer async for answer in fanout.finished()]
        right += bool(examples.correct[i, place[vote.choose(query, way, answers).expert]])
        cost += sum(float(np.nan_to_num(examples.cost_usd[i, place[a.expert]])) for a in answers)
        calls += len(answers)
    return Played(right / len(examples), cost / len(examples), calls / len(examples))


def _asked(query: Query, way: Route, vote: Vote, said: Mapping[Call, tuple[str, Status]]) -> list[Answer]:
    answers: list[Answer] = []
    for stage in range(max(call.stage for call in way.calls) + 1):
        for call in (call for call in way.calls if call.stage == stage):
            text, status = said[call]
            answers.append(Answer(call.expert, call.source, status, text, stage=stage, usage=Usage()))
        if way.threshold < 1 and vote.posterior(query, way, answers).best >= way.threshold:
            break
    return answers


def _said(call: Call, examples: Examples, i: int) -> tuple[str, Status]:
    """As asked; who was not asked in this world failed."""
    code = int(examples.votes[i, examples.experts.index(call.expert)])
    return examples.candidates[i][code] if code >= 0 else "", "failed" if code == UNASKED else "ok"


# --- artefacts made by hand --------------------------------------------------------------------------


def hand_made(
    accuracy: Mapping[str, float],
    plans: Sequence[tuple[Sequence[Sequence[str]], float]] = (),
    choice: Mapping[str, int] | None = None,
    *,
    cost_usd: Mapping[str, float] | None = None,
    worth: Mapping[int, float] | None = None,
    topics: Mapping[str, Mapping[str, float]] | None = None,
    **fields: Any,
) -> Artefact:
    """An artefact over these experts.

    Args:
        accuracy: of each expert; also the plan of it alone, which come first, by name.
        plans: further plans, stages and threshold.
        choice: position of each policy's plan; single experts come first. The others follow by accuracy.
        cost_usd: of a question, by expert; a plan costs what all of its experts do.
        worth: accuracy of a plan by its position; that of its best expert where none is given.
        topics: log-odds by which an expert is better on a topic, and worse on the other, by topic.
        fields: of the artefact, as they are.
    """
    names = sorted(accuracy)
    about = sorted(topics or {})
    costs = np.array([(cost_usd or {}).get(name, 0.0) for name in names])
    extra = np.array([[(topics or {})[t].get(name, 0.0) for t in about] for name in names])
    extra = extra.reshape(len(names), len(about))
    odds = np.array([_logit(accuracy[name]) for name in names])
    every = [*(([[name]], 1.0) for name in names), *plans]
    made = []
    for i, (stages, threshold) in enumerate(every):
        members = [names.index(name) for stage in stages for name in stage]
        likely = (worth or {}).get(i, max(accuracy[names[j]] for j in members))
        spend = float(costs[members].sum())
        weights = np.concatenate([[_logit(likely)], extra[members].max(axis=0)])
        spends = np.concatenate([[spend], np.zeros(len(about))])
        made.append(Plan(tuple(map(tuple, stages)), threshold, likely, spend, float("nan"), weights, spends))
    base = Base(
        tuple(about),
        np.full(len(about), 1.0 / max(len(about), 1)),
        np.zeros(0),
        np.zeros((1, len(about))),
        np.zeros((0, 0)),
    )
    others = set(range(len(made)))
    given = {"about": {"priced": cost_usd is not None}, "kinds": ("option",), "prices": {}}
    part = Part(
        **{**given, **fields},
        base=base,
        skills=_skills(names, accuracy, np.column_stack([odds, extra]), costs),
        ballot=_ballot(odds, len(about)),
        wide=None,
        plans=tuple(made),
        best_single=max(names, key=lambda name: accuracy[name]),
        ranking={
            policy: (first, *sorted(others - {first}, key=lambda i: _rank(made[i], policy == "fast")))
            for policy, first in (choice or {}).items()
        },
    )
    return Artefact((part,))


def _rank(plan: Plan, fast: bool) -> tuple[bool, float, float]:
    return fast and len(plan.experts) > 1, -plan.accuracy, plan.cost_usd


def _logit(p: float) -> float:
    return float(np.log(p / (1.0 - p)))


def _skills(
    names: Sequence[str], accuracy: Mapping[str, float], weights: NDArray[Any], costs: NDArray[Any]
) -> Skills:
    m = len(names)
    return Skills(
        experts=tuple(names),
        sources=tuple(names),
        weights=weights,
        answered=np.full(m, 100.0),
        accuracy=np.array([accuracy[name] for name in names]),
        asked=np.ones((m, weights.shape[1] - 1)),
        cost_usd=np.column_stack([costs, np.zeros((m, weights.shape[1] - 1))]),
        seconds=np.full(m, np.nan),
        ln_tokens=np.tile([0.0, 1.0], (m, 1)),
        confidence=np.full((m, 2, 3), np.nan),
    )


def _ballot(odds: NDArray[Any], topics: int) -> Ballot:
    """Votes weigh their log-odds, and "none of these" next to nothing."""
    m = len(odds)
    return Ballot(
        weights=np.column_stack([odds, np.zeros((m, topics))]),
        length=np.zeros(m),
        confidence=np.zeros(m),
        labels=(),
        label=np.zeros((m, 0)),
        other=np.concatenate([[-2.0], np.zeros(topics)]),
        prior=np.array([1.0, 0.0, 0.0]),
        dilution=np.zeros(m),
        classes=4.0,
    )
