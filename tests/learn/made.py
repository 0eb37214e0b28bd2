"""Outcomes made up with known truth: what learning ought to find is what was put in."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from manyminds.artefact import Artefact, Ballot, Base, Part, Plan, Skills
from manyminds.combine.vote import Vote
from manyminds.learn import ballots, base, skills
from manyminds.learn.ballots import COMPLEXITIES, Complexity
from manyminds.learn.examples import ABSTAINED, UNASKED, Examples
from manyminds.types import Answer, Call, Chunk, Kind, Limits, Message, Query, Route, Task, Usage
from tests.changed import replace

Floats = NDArray[np.float64]

TOPICS = ("art", "law", "sea")
FOUR = {"ann": 0.85, "bob": 0.7, "cat": 0.6, "dan": 0.5}
MIDDLE = COMPLEXITIES[3]

_WIDTH = 6  # of a question's vector


def outcomes(
    experts: Mapping[str, float] = FOUR,
    n: int = 400,
    seed: int = 0,
    *,
    together: float = 0.0,
    same_errors: float = 0.25,
    classes: int = 4,
    unasked: float = 0.0,
    abstained: float = 0.0,
    labels: bool = True,
    told: bool = True,
    topics: bool = True,
    copies: Mapping[str, str] | None = None,
) -> Examples:
    """Experts by their share of right answers; each one's outcomes depend on its own name alone.

    Args:
        experts: accuracy by name.
        n: questions.
        seed: of everything.
        together: correlation of who is right, from 0 to 1.
        same_errors: share of the wrong answers that are the question's favourite mistake.
        classes: possible answers to each question.
        unasked: share of questions that an expert does not get.
        abstained: share of those it gets that it does not answer.
        labels: whether answers are the same few words throughout, or each question's own.
        told: whether cost, seconds, tokens and confidence are recorded.
        topics: whether questions have topics and vectors, and experts are better at their own topic.
        copies: experts that do exactly what another does.
    """
    shared = np.random.default_rng([seed, 1])
    truth, favourite = shared.integers(classes, size=n), shared.integers(1, classes, size=n)
    hard = shared.normal(size=n)
    about = shared.integers(len(TOPICS), size=n)
    vectors = shared.normal(size=(n, _WIDTH)) + 2.0 * np.eye(len(TOPICS), _WIDTH)[about]
    names = sorted(experts)
    said, correct = np.full((n, len(names)), UNASKED), np.zeros((n, len(names)), np.bool_)
    figures = np.full((4, n, len(names)), np.nan)
    for j, name in enumerate(names):
        code = crc32((copies or {}).get(name, name).encode())
        own = np.random.default_rng([seed, code])
        level = NormalDist().inv_cdf(experts[name]) + (
            0.5 * (about == code % len(TOPICS)) - 0.25 if topics else 0.0
        )
        luck = np.sqrt(together) * hard + np.sqrt(1.0 - together) * own.normal(size=n)
        wrong = np.where(own.random(n) < same_errors, favourite, own.integers(1, classes, size=n))
        right = luck < level
        answer = np.where(right, truth, (truth + wrong) % classes)
        share = own.random((2, n))
        said[:, j] = np.where(share[1] < abstained, ABSTAINED, answer)
        said[share[0] < unasked, j] = UNASKED
        sure = np.clip(0.5 + 0.2 * (level - luck) + 0.1 * own.normal(size=n), 0.01, 0.99).round(2)
        tokens = np.ceil(np.exp(3.0 + 0.5 * (luck > level) + 0.4 * own.normal(size=n)))
        figures[:, :, j] = 1e-5 * tokens, 0.01 * tokens, tokens, sure
        correct[:, j] = right & (said[:, j] >= 0)
        figures[:, said[:, j] == UNASKED, j] = np.nan
    if not told:
        figures[:] = np.nan
    votes, candidates = _numbered(
        said, lambda i, answer: f"{chr(65 + answer)}" if labels else f"{i}.{answer}"
    )
    return Examples(
        experts=tuple(names),
        sources=tuple(f"source of {name}" for name in names),
        kinds=tuple("exact" for _ in range(n)),
        read_as=tuple("text" for _ in range(n)),
        spread=np.full(n, float(classes)),
        classes=float(classes),
        candidates=candidates,
        votes=votes,
        correct=correct,
        cost_usd=figures[0],
        seconds=figures[1],
        tokens=figures[2],
        confidence=figures[3],
        topics=tuple(TOPICS[k] if topics else "" for k in about),
        vectors=_unit(vectors) if topics else None,
    )


def without(examples: Examples, expert: str) -> Examples:
    """The same outcomes as gathered from a set that lacks this expert."""
    j = examples.experts.index(expert)
    old = examples.candidates
    votes, candidates = _numbered(np.delete(examples.votes, j, axis=1), lambda i, vote: old[i][vote])
    arrays = ("correct", "cost_usd", "seconds", "tokens", "confidence")
    return replace(
        examples,
        experts=tuple(name for name in examples.experts if name != expert),
        sources=examples.sources[:j] + examples.sources[j + 1 :],
        votes=votes,
        candidates=candidates,
        **{name: np.delete(getattr(examples, name), j, axis=1) for name in arrays},
    )


def learnt(examples: Examples, complexity: Complexity = MIDDLE, seed: int = 0) -> Part:
    """What is learnt, with both ballots and one plan: everybody at once."""
    made = base.make(examples)
    x = base.features(made, examples)
    own = skills.fit(made, x, examples, skills.Shrinkage(30.0, 30.0))
    ballot = ballots.fit(own, x[:, : len(made.topics)], examples, complexity, seed)
    wide = ballots.fit(own, x[:, : len(made.topics)], examples, complexity, seed, wide=True)
    nothing = np.zeros(made.width + 1)
    plan = Plan((examples.experts,), 1.0, 0.75, 0.001, float("nan"), nothing, nothing)
    return Part(
        about={"set": "made up", "seed": seed},
        kinds=tuple(sorted(set(examples.kinds))),
        base=made,
        skills=own,
        ballot=ballot,
        wide=wide,
        plans=(plan,),
        best_single=examples.experts[0],
        prices={"cheap": 0.1},
        ranking={"max": (0,)},
    )


def by_hand(experts: Sequence[str], kind: Kind, labels: Sequence[str] = (), seed: int = 0) -> Part:
    """Something learnt of the same shape in which every number is some other number."""
    rng = np.random.default_rng(seed)
    m, t = len(experts), len(TOPICS)
    gate, directions = rng.normal(size=(_WIDTH + 1, t)), rng.normal(size=(_WIDTH, 4))
    made = Base(TOPICS, np.array([0.2, 0.5, 0.3]), rng.normal(size=_WIDTH), gate, directions)
    p = made.width + 1
    own = Skills(
        experts=tuple(sorted(experts)),
        sources=tuple(sorted(experts)),
        weights=rng.normal(size=(m, p)),
        answered=np.full(m, 70.0),
        accuracy=rng.uniform(0.3, 0.9, m),
        asked=rng.uniform(0.0, 1.0, (m, t)),
        cost_usd=rng.uniform(0.0, 0.1, (m, p)),
        seconds=np.full(m, np.nan),
        ln_tokens=np.stack([rng.normal(1.0, 1.0, m), rng.uniform(0.3, 1.0, m)], axis=1),
        confidence=np.stack([np.sort(rng.random((m, 12))), np.sort(rng.normal(size=(m, 12)))], axis=1),
    )
    ballot, wide = (
        Ballot(
            weights=rng.normal(1.0, 0.7, (m, t + 1)),
            length=rng.normal(0.0, 0.7, m),
            confidence=rng.normal(1.0, 0.3, m),
            labels=tuple(sorted(labels)),
            label=rng.normal(0.0, 0.3, (m, len(labels))),
            other=rng.normal(0.0, 1.0, t + 1),
            prior=np.array([0.7, slope, 0.3]),
            dilution=rng.uniform(0.05, 0.6, m),
            classes=4.0,
        )
        for slope in (0.1, 0.2)
    )
    return Part({}, (kind,), made, own, ballot, wide, (), own.experts[0], {}, {})


def voting(part: Part) -> Vote:
    """The vote by what was learnt of these kinds, and of no other."""
    return Vote(Artefact((part,)))


def topic_features(made: Base, examples: Examples) -> Floats:
    return base.features(made, examples)[:, : len(made.topics)]


def asked(examples: Examples, i: int) -> Query:
    """Question i as a gateway sees it."""
    vector = None if examples.vectors is None else examples.vectors[i]
    return Query(
        (Message("user", f"Question {i}?"),),
        limits=Limits(topic=examples.topics[i]),
        task=Task(examples.kinds[i]),
        vector=vector,
    )


def panel_of(examples: Examples) -> Route:
    return Route(
        "max", "vote", tuple(Call(n, s, 0.6) for n, s in zip(examples.experts, examples.sources, strict=True))
    )


def answers_to(examples: Examples, i: int, votes: NDArray[np.int32]) -> list[Answer]:
    """What came back from those that were asked question i: `votes` (m,), negative where nothing was said."""
    answers = []
    for j, vote in enumerate(votes.tolist()):
        if vote == UNASKED:
            continue
        text = examples.candidates[i][vote] if vote >= 0 else ""
        tokens, sure = examples.tokens[i, j], examples.confidence[i, j]
        usage = Usage(completion_tokens=0 if np.isnan(tokens) else int(tokens))
        answers.append(
            Answer(
                examples.experts[j],
                examples.sources[j],
                "ok",
                text,
                (Chunk(text, "stop", usage),),
                confidence=None if np.isnan(sure) else float(sure),
                usage=usage,
            )
        )
    return answers


def same(a: Any, b: Any) -> bool:
    """Whether two things learnt are equal, bit by bit."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == np.asarray(b).tobytes()
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _unit(vectors: Floats) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _numbered(said: NDArray[Any], name: Any) -> tuple[NDArray[np.int32], tuple[tuple[str, ...], ...]]:
    """Votes as positions among each question's candidates, in order of their first voter."""
    votes, candidates = np.array(said, np.int32), []
    for i, row in enumerate(said.tolist()):
        seen: dict[int, int] = {}
        for j, answer in enumerate(row):
            if answer >= 0:
                votes[i, j] = seen.setdefault(answer, len(seen))
        candidates.append(tuple(name(i, answer) for answer in seen))
    return votes, tuple(candidates)
