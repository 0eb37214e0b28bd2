"""`manyminds bench poison`: what a network of recorded models releases when some of them lie.

Learns from the splits calibration and validation; on split test, some experts are turned into liars after
that, so that each is trusted for what it was. Knows no command and draws nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec.structs
import numpy as np

from manyminds.artefact import Artefact
from manyminds.combine.ballot import agreed
from manyminds.combine.vote import Vote
from manyminds.errors import AnswerError, DataError
from manyminds.evals.metrics import mean_interval
from manyminds.evals.replay import replay
from manyminds.evals.report import Selection, learn
from manyminds.experts.recorded import Question, Recorded
from manyminds.fanout import Fanout, Patience
from manyminds.index import Index
from manyminds.learn.examples import Examples, gather
from manyminds.router import SkillRouter
from manyminds.router.policy import choose
from manyminds.router.predictor import estimate_load
from manyminds.types import Answer, Chunk, Limits, Query, Route

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]

__all__ = ["SIZE", "Progress", "measure", "poisoned"]

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""

SIZE = 5
"""Experts on a panel."""

_POLICIES = ("max", "auto", "cheap")
_ORDERS = ("at_random", "most_trusted")
_LIE = "no such answer"  # where answers are free, and nobody is wrong whom a liar could join
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, eq=False)
class _Tested:
    """What is measured on: questions of split test, with what every model made of them."""

    artefact: Artefact
    experts: Mapping[str, Recorded]
    questions: Sequence[Question]
    examples: Examples
    trust: Mapping[str, float]  # share of right answers in what was learnt from


@dataclass(frozen=True, slots=True, eq=False)
class _Tally:
    """Of one panel, by number of liars: (SIZE + 1, n) each. `lone` is of one liar: (n,) each."""

    right: "Bools"
    won: "Bools"
    best: "Bools"  # whether the most trusted honest member is right
    agreed: "Bools"  # whether all others agree
    moved: "Bools"  # whether something else than that is released then


def measure(
    selection: Selection,
    *,
    panels: int,
    questions: int,
    seed: int = 0,
    progress: Progress = lambda what, share: None,
) -> dict[str, Any]:
    """How many liars it takes.

    Panels of five are asked all at once, routed by the router's own rule for `max` with what it has learnt of
    each, and decided by the vote that serves. Liars agree on one wrong answer: what is likeliest, of those
    that are wrong, by the votes of the honest; where nobody is wrong, one that nobody gave. They are certain
    of it. Then the network of all models, with the plans that it has learnt, while its most trusted lie.
    Texts are not embedded: what votes weigh does not depend on them.

    Args:
        selection: of a set whose answers can be compared.
        panels: drawn at random, beside the one of the most trusted models.
        questions: of split test at most, drawn.
        seed: of training, panels, liars, questions and intervals.
        progress: told how far it is.

    Raises: DataError where there are fewer than five models, no questions of test, or no answers.
    """
    if len(selection.experts) < SIZE or not selection.of("test"):
        raise DataError(
            f"{selection.name}: it takes {SIZE} models and questions of split test to poison any."
        )
    learnt = learn(selection, seed, None, progress)
    if not (learnt.examples.votes >= 0).any():
        raise DataError(
            f"{selection.name}: a lie must differ from an answer, and the set has verdicts alone."
        )
    rng = np.random.default_rng(seed)
    every = selection.of("test")
    drawn = [every[i] for i in np.sort(rng.permutation(len(every))[:questions])]
    counts = np.maximum(learnt.examples.asked.sum(axis=0), 1)
    accuracy = learnt.examples.correct.sum(axis=0) / counts
    tested = _Tested(
        artefact=learnt.artefact,
        experts={expert.card.name: expert for expert in selection.experts},
        questions=drawn,
        examples=gather(selection.experts, drawn, selection.recorded),
        trust=dict(zip(learnt.examples.experts, accuracy.tolist(), strict=True)),
    )
    names = sorted(tested.trust, key=lambda name: (-tested.trust[name], name))
    any_five = [sorted(rng.choice(names, SIZE, replace=False).tolist()) for _ in range(panels)]
    best = {order: [_play(tested, names[:SIZE], order, rng)] for order in _ORDERS}
    found: dict[str, list[_Tally]] = {order: [] for order in _ORDERS}
    for i, members in enumerate(any_five):
        for order in _ORDERS:
            found[order].append(_play(tested, members, order, rng))
        progress("panels", (i + 1) / panels)
    return {
        **selection.about,
        "seed": seed,
        "models": len(names),
        "n_test": len(drawn),
        "size": SIZE,
        "panels": {
            "best": {order: _summary(tallies, seed) for order, tallies in best.items()},
            "any": {"drawn": panels, **{order: _summary(own, seed) for order, own in found.items()}},
        },
        "network": _network(tested, names, seed, progress),
    }


# --- panels ------------------------------------------------------------------------------------------


def _play(tested: _Tested, members: Sequence[str], order: str, rng: np.random.Generator) -> _Tally:
    """One panel with 0 to 5 liars, who turn one after another in this order."""
    turn = rng.permutation(list(members)).tolist()
    if order == "most_trusted":
        turn = sorted(members, key=lambda name: (-tested.trust[name], name))
    panel = _Panel(tested, members)
    played = asyncio.run(panel.play(turn))
    right, won, best = (np.array([row[i] for row in played], np.bool_).T for i in range(3))
    lone = np.array([row[3] for row in played], np.bool_)
    return _Tally(right, won, best, lone[:, 0], lone[:, 1])


class _Panel:
    """Five experts who are asked everything."""

    def __init__(self, tested: _Tested, members: Sequence[str]) -> None:
        self._tested = tested
        self._experts = {name: tested.experts[name] for name in members}
        self._cards = [self._experts[name].card for name in sorted(members)]
        self._router = SkillRouter(Index(1), artefact=tested.artefact)
        for card in self._cards:
            self._router.admit(card)
        self._vote = Vote(artefact=tested.artefact)
        self._column = {name: j for j, name in enumerate(tested.examples.experts)}

    async def play(self, turn: Sequence[str]) -> list[tuple[list[bool], list[bool], list[bool], list[bool]]]:
        """For each question, by number of liars: right, won, best; and of one liar: agreed, moved."""
        return [await self._ask(i, turn) for i in range(len(self._tested.questions))]

    async def _ask(
        self, i: int, turn: Sequence[str]
    ) -> tuple[list[bool], list[bool], list[bool], list[bool]]:
        query = self._tested.questions[i].query(self._tested.examples.kinds[i])
        limits = Limits(policy="max")
        predictions = self._router.predicted(query, self._cards, limits)
        route = choose("max", query, predictions, limits, estimate_load(query))
        async with Fanout(query, route, self._experts, Patience()) as calls:
            honest = [answer async for answer in calls.finished()]
        right, won, best, lone = [], [], [], [False, False]
        for liars in range(SIZE + 1):
            lying = set(turn[:liars])
            said = [answer for answer in honest if answer.expert not in lying]
            lie = self._lie(i, query, route, said)
            answers = [_lying(answer, lie) if answer.expert in lying else answer for answer in honest]
            released = self._released(query, route, answers)
            is_lie = liars > 0 and released is not None and released.text == lie
            won.append(is_lie)
            right.append(released is not None and not is_lie and self._is_right(i, released))
            left = next((name for name in self._by_trust() if name not in lying), None)
            best.append(left is not None and bool(self._tested.examples.correct[i, self._column[left]]))
            if liars == 1:
                lone = self._lone(query, route, said, released)
        return right, won, best, lone

    def _lone(
        self, query: Query, route: Route, said: Sequence[Answer], released: Answer | None
    ) -> list[bool]:
        """Whether all four others agree, and whether something else was released."""
        named = self._vote.candidates(query, route, said)
        pairs = [(a.source, c) for a, c in zip(said, named, strict=True) if c]
        safe = agreed(pairs) if len({c for _, c in pairs}) == 1 else None
        if safe is None:
            return [False, False]
        (out,) = [None] if released is None else self._vote.candidates(query, route, [released])
        return [True, out != safe]

    def _by_trust(self) -> list[str]:
        return sorted(self._experts, key=lambda name: (-self._tested.trust[name], name))

    def _released(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer | None:
        try:
            return self._vote.choose(query, route, answers)
        except AnswerError:
            return None

    def _is_right(self, i: int, answer: Answer) -> bool:
        return bool(self._tested.examples.correct[i, self._column[answer.expert]])

    def _lie(self, i: int, query: Query, route: Route, said: Sequence[Answer]) -> str:
        """The likeliest wrong answer by the votes of the honest, else one that none of them gave."""
        candidates, posterior = self._vote.counting(query, route, said)(range(len(said)))
        right = {c for a, c in zip(said, candidates, strict=True) if c and self._is_right(i, a)}
        ranked = sorted(zip(posterior.candidates, posterior.probabilities, strict=True), key=lambda p: -p[1])
        wrong = [candidate for candidate, _ in ranked if candidate not in right]
        return wrong[0] if wrong else _made_up(self._tested.questions[i], right)


def _made_up(question: Question, right: "set[str]") -> str:
    """An answer that is not right, as far as the set tells; of options the first such letter."""
    letters = _LETTERS[: len(question.choices)]
    return next((c for c in letters if c not in right and c != question.gold), _LIE)


def _lying(answer: Answer, lie: str) -> Answer:
    """What this expert says instead, also where it failed: sure of it, and as long as it was."""
    sure = None if answer.confidence is None else 1.0
    chunk = Chunk(lie, "stop", answer.usage, confidence=sure)
    return msgspec.structs.replace(
        answer, status="ok", text=lie, chunks=(chunk,), confidence=sure, error=None
    )


# --- the whole network -------------------------------------------------------------------------------


def poisoned(expert: Recorded, lies: Mapping[int, str]) -> Recorded:
    """The same expert that says something else, and wrong, to some questions, by row of the set."""
    made = expert.recording
    texts = list(dict.fromkeys([*made.texts, *lies.values()]))
    place = {text: code for code, text in enumerate(texts)}
    old = np.array([place[text] for text in made.texts], np.int32)
    codes = np.where(made.codes >= 0, old[np.maximum(made.codes, 0)], -1).astype(np.int32)
    correct, confidence = made.correct.copy(), made.confidence.copy()
    for i, row in enumerate(made.rows.tolist()):
        if row in lies:
            codes[i], correct[i] = place[lies[row]], False
            confidence[i] = confidence[i] if np.isnan(confidence[i]) else 1.0
    told = replace(made, texts=texts, codes=codes, correct=correct, confidence=confidence)
    return Recorded(expert.card, told)


def _network(tested: _Tested, names: Sequence[str], seed: int, progress: Progress) -> list[dict[str, Any]]:
    """All models, as the learnt plans ask them, while none to five of the most trusted lie."""
    lies = _common_lies(tested)
    honest = _replayed(tested, tested.experts)
    rows = []
    for liars in range(SIZE + 1):
        experts = dict(tested.experts)
        for name in names[:liars]:
            experts[name] = poisoned(experts[name], lies)
        played = _replayed(tested, experts) if liars else honest
        rows.append({"liars": liars, **{policy: _figure(right, seed) for policy, right in played.items()}})
        progress("the whole network", (liars + 1) / (SIZE + 1))
    return rows


def _replayed(tested: _Tested, experts: Mapping[str, Recorded]) -> "dict[str, Bools]":
    """(n,) whether each policy's answer is right, through router, fan-out and vote."""
    router = SkillRouter(Index(1), artefact=tested.artefact)
    for expert in experts.values():
        router.admit(expert.card)
    told = tested.examples
    columns = [experts[name] for name in told.experts]
    correct = np.stack([_flags(one, tested.questions) for one in columns], axis=1)
    examples = replace(told, correct=correct)
    vote = Vote(artefact=tested.artefact)
    played = replay(router, vote, columns, tested.questions, examples, _POLICIES)
    return {policy: one.correct for policy, one in played.items()}


def _flags(expert: Recorded, questions: Sequence[Question]) -> "Bools":
    return np.array([bool(expert.correct(question.question_id)) for question in questions], np.bool_)


def _common_lies(tested: _Tested) -> dict[int, str]:
    """By row of the set, the wrong answer that most models gave to each question."""
    examples, lies = tested.examples, {}
    finder = next(iter(tested.experts.values())).recording.finder
    for i, question in enumerate(tested.questions):
        votes, correct = examples.votes[i], examples.correct[i]
        right = set(votes[correct & (votes >= 0)].tolist())
        wrong = [vote for vote in votes[votes >= 0].tolist() if vote not in right]
        named = {examples.candidates[i][vote] for vote in right}
        most = max(sorted(set(wrong)), key=wrong.count, default=None)
        lie = _made_up(question, named) if most is None else examples.candidates[i][most]
        row = finder.row_of(question.question_id)
        assert row is not None
        lies[row] = lie
    return lies


# --- what came of it ---------------------------------------------------------------------------------


def _summary(tallies: Sequence[_Tally], seed: int) -> dict[str, Any]:
    """Of panels in one order of turning: figures by number of liars, and where it breaks."""
    right, won, best = (
        np.mean([getattr(one, name) for one in tallies], axis=0) for name in ("right", "won", "best")
    )
    agreed_on = sum(int(one.agreed.sum()) for one in tallies)
    rows = [
        {
            "liars": k,
            "accuracy": _figure(right[k], seed),
            "best_honest": _figure(best[k], seed),
            "over_best_honest": _figure(right[k] - best[k], seed),
            "lies_released": _figure(won[k], seed),
        }
        for k in range(SIZE + 1)
    ]
    return {
        "by_liars": rows,
        "lone_liar": {"others_agreed": agreed_on, "moved": sum(int(one.moved.sum()) for one in tallies)},
        "worse_than_best_honest_from": _first(right.mean(axis=1) < best.mean(axis=1)),
        "lies_win_from": _first(won.mean(axis=1) > 0.5),
    }


def _first(broken: "Bools") -> int | None:
    """The least number of liars, at least one, from which on it is so; None where it never is."""
    return next((k for k in range(1, len(broken)) if broken[k]), None)


def _figure(values: "NDArray[Any]", seed: int) -> list[float]:
    """The mean over questions with the ends of its 95% interval."""
    return [round(x, 5) for x in mean_interval(np.asarray(values, np.float64), seed)]
