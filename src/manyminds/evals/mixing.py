"""Documents and models on one panel: what models know alone, what both do, and how far to believe whom.

How much of its vote a model loses whose answer documents contradict is learnt from questions of calibration,
and measured on others. Asks real models, so that a question takes seconds.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from manyminds.combine.grounded import Grounded
from manyminds.combine.select import Select
from manyminds.combine.support import TRUST
from manyminds.errors import ManymindsError
from manyminds.evals.knowledge.grading import correct
from manyminds.evals.knowledge.questions import Question
from manyminds.evals.metrics import mean_interval
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.types import Answer, Chunk, Expert, Limits, Message, Query, Route, Sampling

if TYPE_CHECKING:
    from manyminds.encoder import Encoder
    from manyminds.types import Vectors

__all__ = ["DOUBTS", "Panel", "mixed"]

DOUBTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of its vote a model may lose: see `combine.support.Trust`."""

_TOKENS: Final = 48  # of a model's answer
_DEADLINE_S: Final = 300.0
_AT_ONCE: Final = 1


class Panel(NamedTuple):
    """Experts of documents with where their knowledge lies, and models."""

    documents: Mapping[str, Expert]
    vectors: "Mapping[str, Vectors]"
    models: Mapping[str, Expert]


class _Asked(NamedTuple):
    """A question, what every expert on its panel said, and how they were asked."""

    question: Question
    query: Query
    route: Route
    answers: tuple[Answer, ...]


async def mixed(
    panel: Panel,
    encoder: "Encoder",
    known: Sequence[tuple[Question, str]],
    tested: Sequence[tuple[Question, str]],
    seed: int,
    done: Callable[[str, float], None],
) -> dict[str, Any]:
    """What a panel of both comes to.

    Args:
        panel: see `Panel`.
        encoder: of questions and answers.
        known: questions with a wording each, by which `Trust.doubt` is chosen.
        tested: those by which it is judged.
        seed: of intervals.
        done: told how far it is.
    """
    learnt = await _all(panel, encoder, known, _told(done, "ask what is learnt from"))
    by_doubt = {doubt: _share(learnt, doubt, encoder) for doubt in DOUBTS}
    doubt = max(DOUBTS, key=lambda d: (by_doubt[d], -abs(d - TRUST.doubt)))
    asked = await _all(panel, encoder, tested, _told(done, "ask models and documents"))
    models = {name: _alone(asked, name) for name in sorted(panel.models)}
    return {
        "learnt_from": len(learnt),
        "right_by_doubt": {str(key): value for key, value in by_doubt.items()},
        "doubt": doubt,
        "asked": len(asked),
        "models": {name: _interval(rows, seed) for name, rows in models.items()},
        "documents": _interval(_released(asked, doubt, encoder, panel.documents), seed),
        "both": _interval(_released(asked, doubt, encoder), seed),
        "both_undoubted": _interval(_released(asked, 0.0, encoder), seed),
    }


def _told(done: Callable[[str, float], None], what: str) -> Callable[[float], None]:
    """Tells how far this is."""
    return lambda share: done(what, share)


async def _all(
    panel: Panel,
    encoder: "Encoder",
    questions: Sequence[tuple[Question, str]],
    done: Callable[[float], None],
) -> list[_Asked]:
    room, found = asyncio.Semaphore(_AT_ONCE), list[_Asked]()

    async def one(question: Question, text: str) -> _Asked:
        async with room:
            asked = await _ask(panel, encoder, question, text)
            found.append(asked)
            done(len(found) / len(questions))
            return asked

    return list(await asyncio.gather(*(one(question, text) for question, text in questions)))


async def _ask(panel: Panel, encoder: "Encoder", question: Question, text: str) -> _Asked:
    """Every model, and the documents that a router finds nearest, whether or not a policy would ask them."""
    (vector,) = await asyncio.to_thread(encoder.encode, [text])
    query = Query(
        (Message("user", text),),
        sampling=Sampling(max_tokens=_TOKENS, temperature=0.0),
        limits=Limits(policy="max", deadline_s=_DEADLINE_S, cache="off"),
        vector=vector,
    )
    router = SkillRouter(Index(encoder.dimension), encoder.encode)
    every: dict[str, Expert] = {**panel.documents, **panel.models}
    for name, expert in every.items():
        router.admit(expert.card, vectors=panel.vectors.get(name))
    route = router.route(query, [expert.card for expert in every.values()], query.limits)
    unbound = replace(query, sampling=Sampling(temperature=0.0))  # a quote takes no longer for being whole
    answers = [
        await _answer(every[call.expert], unbound if call.expert in panel.documents else query)
        for call in route.calls
    ]
    return _Asked(question, query, route, tuple(answers))


async def _answer(expert: Expert, query: Query) -> Answer:
    text, last = "", Chunk()
    source = expert.card.source or expert.card.name
    try:
        async with aclosing(expert.stream(query)) as chunks:
            async for chunk in chunks:
                text, last = text + chunk.text, chunk
    except ManymindsError:
        return Answer(expert.card.name, source, "failed")
    return Answer(expert.card.name, source, "ok", text, (Chunk(text), last), grounds=last.grounds)


# --- figures ---------------------------------------------------------------------------------------


def _share(asked: Sequence[_Asked], doubt: float, encoder: "Encoder") -> float:
    return float(np.mean(_released(asked, doubt, encoder)))


def _released(
    asked: Sequence[_Asked], doubt: float, encoder: "Encoder", among: Mapping[str, Expert] | None = None
) -> list[bool]:
    """Of each question, whether what the panel, or some of it, releases is right; of those that nobody can
    answer, whether that is a decline.
    """
    chooser = Grounded(Select(encoder.encode), replace(TRUST, doubt=doubt))
    found = []
    for one in asked:
        answers = [a for a in one.answers if among is None or a.expert in among]
        released = chooser.choose(one.query, one.route, answers)
        found.append(_is_right(one.question, released))
    return found


def _alone(asked: Sequence[_Asked], name: str) -> list[bool]:
    return [
        any(_is_right(one.question, answer) for answer in one.answers if answer.expert == name)
        for one in asked
    ]


def _is_right(question: Question, answer: Answer) -> bool:
    if not question.answerable:
        return answer.declined
    return not answer.declined and correct(question, answer.text)


def _interval(rows: Sequence[bool], seed: int) -> dict[str, Any]:
    mean, low, high = mean_interval(np.array(rows, float), seed)
    return {"accuracy": mean, "ci95": [low, high]}
