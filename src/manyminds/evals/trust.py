"""`manyminds bench trust`: who answers in a network of recorded models that liars join.

Learns nothing: honest nodes claim what they were right in on calibration and validation, and answer split
test. Knows no command and draws nothing.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from random import Random
from typing import Any
from zlib import crc32

import numpy as np

from manyminds.combine.vote import Vote
from manyminds.errors import AnswerError, DataError
from manyminds.evals.metrics import mean_interval
from manyminds.evals.report import Selection
from manyminds.learn.examples import Examples, gather
from manyminds.network.trust import (
    Canary,
    Edge,
    Record,
    bacon_rank,
    canaries,
    credited,
    lent,
    noted,
    prior,
    vouched,
)
from manyminds.router.grades import Standing
from manyminds.router.predictor import Load, predict_one
from manyminds.types import Answer, Call, Card, Route

__all__ = ["ATTACKS", "VIEWS", "Progress", "measure"]

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""

ATTACKS = {
    "independent": (1, 3, 10, 30),
    "colluding": (1, 3, 10, 30),
    "sleepers": (1, 3, 5, 10),
    "sybils": (10, 100, 1000),
}
"""How many attackers of each sort there are."""

VIEWS = ("claims", "formula", "lent")
"""What a node goes by: cards and grades alone; with trust by `bacon_rank`; by `lent`, of `credited` words."""

_PANEL = 5
_GRADED = 0.1  # share of questions of which somebody says who was right
_DAY = 50  # questions from one reading of what others say to the next
_TESTED = 5  # canaries a day, of all nodes together
_FRIENDS = 3  # honest nodes that the asker has known before, and that every honest node has
_KNOWN = 40  # graded answers by which they know one another
_PATIENCE = 40  # right answers of a sleeper before it lies
_LET_IN = 3  # of a swarm that behave like sleepers: each has made one honest node its friend
_CLAIM = 0.99
_PARTS = 4  # of the time, that are told apart
_LOAD = Load(0, 0, 0)
_ME, _LIE = "me", "the same lie"


@dataclass(slots=True)
class _Node:
    """Who can be asked. `column` is the recorded model that it runs; an attacker does so while it sleeps."""

    name: str
    claim: float
    column: int
    kind: str = "honest"
    patience: int = 0  # right answers that it still gives
    record: Record = field(default_factory=Record)
    graded: float = 0.0
    right: float = 0.0
    lent: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _World:
    """Questions of split test in an order, with what honest nodes answer; queries and routes as they vote."""

    examples: Examples
    queries: Sequence[Any]
    skills: Mapping[str, float]  # of each model, on what is not test
    known: Examples  # what is not test: by which honest nodes know one another


def measure(
    selection: Selection,
    *,
    questions: int,
    runs: int,
    seed: int = 0,
    progress: Progress = lambda what, share: None,
) -> dict[str, Any]:
    """Accuracy and lies released while liars of four sorts join, with trust and without.

    Every model is an honest node of its own; it claims its accuracy, knows three others by forty graded
    answers, and vouches for them. The asker knows three of them so. A tenth of the questions is graded
    afterwards; a day is fifty questions, and with trust five canaries. Attackers claim .99:

    - independent: each answers wrongly, as some model did.
    - colluding: all give the same wrong answer, and vouch for one another.
    - sleepers: answer like the best model until they were right 40 times, then like those.
    - sybils: identities of one, colluding; three of them sleep at first, and each has made one of the asker's
      own friends vouch for it, as for a node that was right 36 times of 40.

    A panel of five is asked. Router and vote are a reduction: the nodes of highest probability, by the
    router's own formula from what takes the place of the card's claim and from grades, which is its rule for
    `max` where nodes differ neither in price nor in skills; and the vote that serves, by log-odds.

    Raises: DataError where answers cannot be compared, or there are fewer models than a panel takes.
    """
    world = _world(selection, questions, seed)
    cases: list[tuple[str, int]] = [("none", 0), *((kind, n) for kind, many in ATTACKS.items() for n in many)]
    found: dict[str, list[dict[str, Any]]] = {}
    for done, (kind, attackers) in enumerate(cases):
        row: dict[str, Any] = {"attackers": attackers}
        for view in VIEWS:
            played = [_play(world, kind, attackers, view, Random(f"{seed} {run}")) for run in range(runs)]  # noqa: S311
            row[view] = _figures(np.array(played, np.float64), seed)
        found.setdefault(kind, []).append(row)
        progress("attacks", (done + 1) / len(cases))
    return {
        "set": selection.name,
        "seed": seed,
        "runs": runs,
        "honest": len(world.examples.experts),
        "questions": len(world.examples),
        "panel": _PANEL,
        "attacks": found,
    }


def _world(selection: Selection, questions: int, seed: int) -> _World:
    every = selection.of("test")
    if not every or len(selection.experts) < _PANEL:
        raise DataError(f"{selection.name}: it takes {_PANEL} models and questions of split test to lie to.")
    known = gather(selection.experts, selection.of("calibration", "validation"), selection.recorded)
    rng = np.random.default_rng(seed)
    drawn = [every[i] for i in rng.permutation(len(every))[:questions]]
    examples = gather(selection.experts, drawn, selection.recorded)
    if not (examples.votes >= 0).any():
        raise DataError(
            f"{selection.name}: a lie must differ from an answer, and the set has verdicts alone."
        )
    skills = known.correct.sum(axis=0) / np.maximum(known.asked.sum(axis=0), 1)
    queries = [q.query(kind) for q, kind in zip(drawn, examples.kinds, strict=True)]
    return _World(examples, queries, dict(zip(known.experts, skills.tolist(), strict=True)), known)


# --- one course of events ----------------------------------------------------------------------------


def _play(world: _World, kind: str, attackers: int, view: str, draw: Random) -> list[tuple[bool, bool]]:
    """For each question, whether the answer released is right, and whether it is an attacker's."""
    nodes = [_Node(name, world.skills[name], j) for j, name in enumerate(world.examples.experts)]
    edges = _friendships(world, nodes, draw)
    nodes, edges = _joined(nodes, edges, kind, attackers, draw)
    network = _Network(world, nodes, edges, view, draw)
    return [network.ask(i) for i in draw.sample(range(len(world.queries)), len(world.queries))]


def _friendships(world: _World, honest: Sequence[_Node], draw: Random) -> list[Edge]:
    """Who vouches for whom: the asker and every honest node for a few that they have known for a while."""
    edges = []
    for source in (_ME, *(node.name for node in honest)):
        friends = draw.sample([node for node in honest if node.name != source], _FRIENDS)
        for friend in friends:
            record = _met(world.known, friend.column, draw)
            edges.append(Edge(source, friend.name, vouched(record)))
            if source == _ME:
                friend.record = record
    return edges


def _met(known: Examples, column: int, draw: Random) -> Record:
    """What forty answers of a model, drawn from what is not test, say of it."""
    rows = np.flatnonzero(known.asked[:, column]).tolist()
    record = Record()
    for row in draw.sample(rows, min(_KNOWN, len(rows))):
        record = noted(record, "right" if known.correct[row, column] else "wrong")
    return record


def _joined(
    honest: Sequence[_Node], edges: Sequence[Edge], kind: str, attackers: int, draw: Random
) -> tuple[list[_Node], list[Edge]]:
    """With the attackers, and what they say of one another."""
    best = max(honest, key=lambda node: (node.claim, node.name)).column
    sleeping = {"sleepers": attackers, "sybils": min(_LET_IN, attackers)}.get(kind, 0)
    joined = [
        _Node(f"attacker {i:04}", _CLAIM, best, kind, _PATIENCE if i < sleeping else 0)
        for i in range(attackers)
    ]
    said = list(edges)
    if kind != "independent":  # everybody for the sleepers, and for the next ones in a ring
        for i, node in enumerate(joined):
            ring = [joined[(i + k) % attackers] for k in range(1, min(attackers, 32))]
            said += [
                Edge(node.name, other.name, 1.0) for other in (*joined[:sleeping], *ring) if other is not node
            ]
    if kind == "sybils":
        friends = sorted(edge.target for edge in edges if edge.source == _ME)
        deceived = vouched(Record(right=0.9 * _KNOWN, wrong=0.1 * _KNOWN))
        for node, friend in zip(joined[:sleeping], friends, strict=False):
            said.append(Edge(friend, node.name, deceived))
    return [*honest, *joined], said


class _Network:
    """What one asker knows of everybody, and what becomes of its questions."""

    def __init__(
        self, world: _World, nodes: Sequence[_Node], edges: Sequence[Edge], view: str, draw: Random
    ) -> None:
        self._world, self._view, self._draw = world, view, draw
        self._nodes = list(nodes)
        self._by_name = {node.name: node for node in nodes}
        self._others = [edge for edge in edges if edge.source != _ME]
        self._vote = Vote()
        self._asked = 0
        self._relied: Counter[str] = Counter()
        self._put: dict[str, set[str]] = {}  # canaries, by node
        self._today: list[Canary] = []
        self._chance: dict[str, float] = {}
        for node in self._nodes:
            self._judge(node)

    def ask(self, i: int) -> tuple[bool, bool]:
        if self._view != "claims":
            if self._asked % _DAY == 0:
                self._listen()
                self._plan()
            self._test()
        self._asked += 1
        panel = nsmallest(_PANEL, self._nodes, key=lambda node: (-self._chance[node.name], node.name))
        self._relied.update(node.name for node in panel)
        said = {node.name: self._answer(node, i) for node in panel}
        released = self._released(i, panel, said)
        if self._draw.random() < _GRADED:
            for node in panel:
                node.graded, node.right = node.graded + 1.0, node.right + said[node.name][1]
                self._note(node, said[node.name][1])
        if released is None:
            return False, False
        return said[released][1], not said[released][1] and released.startswith("attacker")

    def _released(
        self, i: int, panel: Sequence[_Node], said: Mapping[str, tuple[str | None, bool]]
    ) -> str | None:
        calls = tuple(Call(node.name, node.name, self._chance[node.name]) for node in panel)
        answers = [Answer(name, name, "ok", text) for name, (text, _) in said.items() if text is not None]
        try:
            return self._vote.choose(self._world.queries[i], Route("max", "vote", calls), answers).expert
        except AnswerError:
            return None

    def _answer(self, node: _Node, i: int) -> tuple[str | None, bool]:
        """What a node says, None for nothing, and whether that is right."""
        examples = self._world.examples
        honest = node.kind == "honest" or node.patience > 0
        if not honest:
            return self._lie(node, i), False
        vote, right = int(examples.votes[i, node.column]), bool(examples.correct[i, node.column])
        node.patience -= node.kind != "honest" and right
        return (examples.candidates[i][vote] if vote >= 0 else None), right

    def _lie(self, node: _Node, i: int) -> str:
        """What most models that were wrong said; of an independent liar, what any of them said."""
        examples, candidates = self._world.examples, self._world.examples.candidates[i]
        votes: list[int] = examples.votes[i].tolist()
        right = {vote for vote, is_right in zip(votes, examples.correct[i].tolist(), strict=True) if is_right}
        wrong = [vote for vote in votes if vote >= 0 and vote not in right]
        if not wrong:
            return self._made_up(i, node)
        if node.kind == "independent":
            return candidates[wrong[_code(node.name, i) % len(wrong)]]
        return candidates[max(sorted(set(wrong)), key=wrong.count)]

    def _made_up(self, i: int, node: _Node) -> str:
        options = len(self._world.queries[i].task.options)
        named = set(self._world.examples.candidates[i])
        letters = [chr(ord("A") + k) for k in range(options) if chr(ord("A") + k) not in named]
        if letters:
            return letters[_code(node.name, i) % len(letters) if node.kind == "independent" else 0]
        return f"{_LIE} {node.name}" if node.kind == "independent" else _LIE

    def _note(self, node: _Node, right: bool) -> None:
        node.record = noted(node.record, "right" if right else "wrong")
        self._judge(node)

    def _plan(self) -> None:
        """Whom to test in the next fifty questions."""
        records = {node.name: node.record for node in self._nodes}
        relied = {name: times / _DAY for name, times in self._relied.items()}
        self._relied.clear()
        known = [str(i) for i in range(len(self._world.queries))]
        day = self._asked // _DAY
        self._today = canaries(
            records, relied, known, self._put, most=_TESTED, seed=str(self._draw.random()), day=day
        )

    def _test(self) -> None:
        """The canaries that are due."""
        while self._today and self._today[0].at * _DAY <= self._asked % _DAY:
            canary = self._today.pop(0)
            node = self._by_name[canary.node]
            self._put.setdefault(node.name, set()).add(canary.question)
            self._note(node, self._answer(node, int(canary.question))[1])

    def _listen(self) -> None:
        """What everybody says of everybody, with what the asker itself has measured by now."""
        own = [Edge(_ME, node.name, vouched(node.record)) for node in self._nodes if node.record != Record()]
        if self._view == "formula":
            said = bacon_rank(_ME, [*own, *self._others])
        else:
            records = {node.name: node.record for node in self._nodes}
            said = lent(_ME, [*own, *credited(self._others, records)])
        for node in self._nodes:
            word = said.get(node.name, 0.0)
            if word != node.lent:
                node.lent = word
                self._judge(node)

    def _judge(self, node: _Node) -> None:
        claim = node.claim if self._view == "claims" else prior(node.claim, node.record, node.lent)
        card = Card(node.name, "peer", accuracy=claim)
        graded = Standing(grades=node.graded, correct=node.right)
        self._chance[node.name] = predict_one(card, None, _LOAD, graded=graded).probability


def _code(name: str, i: int) -> int:
    return crc32(f"{name} {i}".encode())


# --- what came of it ---------------------------------------------------------------------------------


def _figures(played: Any, seed: int) -> dict[str, Any]:
    """Of (runs, n, 2): right, and an attacker's; over all, and in each quarter of the time."""
    parts = [part.mean(axis=(0, 1)) for part in np.array_split(played, _PARTS, axis=1)]
    return {
        "accuracy": [round(x, 5) for x in mean_interval(played[:, :, 0].mean(axis=0), seed)],
        "lies": [round(x, 5) for x in mean_interval(played[:, :, 1].mean(axis=0), seed)],
        "accuracy_over_time": [round(float(part[0]), 5) for part in parts],
        "lies_over_time": [round(float(part[1]), 5) for part in parts],
    }
