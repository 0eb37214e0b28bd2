"""What newcomers said when they were probed, and the artefact that it makes of the one that was there before.

A function of the base, its bank and the newcomers' outcomes in the order they came: without one of them the
result is what it would be had that one never come. Asks nobody.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from manyminds.artefact import GROWN_FROM, Artefact, Part, left_of
from manyminds.canonical import answer_of
from manyminds.learn import assimilate
from manyminds.learn.assimilate import Assimilator, Verdict
from manyminds.learn.bank import Bank, key_of
from manyminds.learn.enlarge import without
from manyminds.learn.examples import ABSTAINED, UNASKED, Examples
from manyminds.learn.train import one_thread
from manyminds.types import Kind

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Rows = NDArray[np.intp]

__all__ = ["Heard", "Network", "Probed", "changed", "grown", "networks"]

_SURE = 2.0  # standard errors by which one has changed


class Heard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer of a newcomer.

    Attributes:
        question: its key in the bank.
        answer: in canonical form; None abstains.
        correct: whether it was right.
        cost_usd, seconds, tokens, confidence: of this answer; None where it is not known.
        share: of all questions of its sort that it stands for; 0 where it was no probe.
    """

    question: str
    answer: str | None
    correct: bool
    cost_usd: float | None = None
    seconds: float | None = None
    tokens: float | None = None
    confidence: float | None = None
    share: float = 0.0


class Probed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A newcomer, and all it said.

    Attributes:
        name: what it is called; source: whom it belongs to.
        identity: what makes it another model under the same name.
        came: its place among all newcomers.
    """

    name: str
    source: str
    identity: str
    came: int
    heard: tuple[Heard, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """One sort of questions, and the network that answers them, with everybody who was taken in.

    Attributes:
        kinds: of task; rows: (k,) of the bank's questions, in the order of the network's examples.
        part: as it was learnt; verdicts: on the newcomers, in the order they came.
    """

    kinds: tuple[Kind, ...]
    rows: "Rows"
    part: Part
    network: Assimilator
    verdicts: tuple[Verdict, ...]


def networks(artefact: Artefact, bank: Bank, come: Sequence[Probed], have: Collection[str]) -> list[Network]:
    """Takes these newcomers in, each in its turn.

    Where nobody of a part can be asked, there is no network for its questions. Answers to questions that
    the bank does not have count for nothing, and so do probes on which it is not known what the network
    answers. One that was learnt from and is among the newcomers, since it has changed, counts as one of
    these alone.

    Args:
        artefact: what was learnt of those that were there first.
        bank: what that was learnt from.
        come: newcomers, in any order: `came` counts.
        have: names of all that can be asked now.
    """
    with one_thread():
        return _networks(artefact, bank, come, have)


def _networks(artefact: Artefact, bank: Bank, come: Sequence[Probed], have: Collection[str]) -> list[Network]:
    place = {key_of(question): i for i, question in enumerate(bank.questions)}
    come = sorted(come, key=lambda one: one.came)
    found = []
    for rows, examples in bank.parts():
        part = artefact.part(examples.kinds[0])
        if part is None or part.skills.experts != examples.experts:
            continue
        at = {int(row): i for i, row in enumerate(rows)}
        answers = [
            {at[row]: h for h in one.heard if (row := place.get(h.question, -1)) in at} for one in come
        ]
        own = {one: heard for one, heard in zip(come, answers, strict=True) if heard}
        anew = {one.name for one in own} & set(examples.experts)
        if anew:
            part = without(part, anew)
            examples = examples.of(set(examples.experts) - anew)
        if part is None or not _can_be_asked(part, have):
            continue
        network = Assimilator(part, _with(examples, bank, rows, own), have)
        verdicts = [
            network.admit(newcomer)
            for one, heard in own.items()
            if (newcomer := _newcomer(one.name, heard, network.known)) is not None
        ]
        found.append(Network(part.kinds, rows, part, network, tuple(verdicts)))
    return found


def changed(one: Probed, bank: Bank) -> bool:
    """Whether an expert that was learnt from has changed: by the same questions, then and now.

    Two standard errors apart, of which one question that came out otherwise is the least.
    """
    place = {key_of(question): i for i, question in enumerate(bank.questions)}
    j = bank.examples.experts.index(one.name)
    rows = [(place[h.question], h.correct) for h in one.heard if h.question in place]
    rows = [(row, now) for row, now in rows if bank.examples.asked[row, j]]
    if not rows:
        return False
    then = bank.examples.correct[[row for row, _ in rows], j]
    gained = np.array([now for _, now in rows], np.float64) - then
    return bool(abs(gained.sum()) > _SURE * np.sqrt(max(float((gained**2).sum()), 1.0)))


def grown(artefact: Artefact, bank: Bank, found: Sequence[Network]) -> Artefact | None:
    """The artefact with whoever was taken in; None where that is nobody."""
    parts = {network.kinds: network.network.part() for network in found}
    new = [parts.get(part.kinds, part) for part in artefact.parts]
    if all(now is before for now, before in zip(new, artefact.parts, strict=True)):
        return None
    new[0] = replace(new[0], about={**new[0].about, GROWN_FROM: bank.of})
    return Artefact(tuple(new))


def _can_be_asked(part: Part, have: Collection[str]) -> bool:
    return any(left_of(part.plans[i], have) is not None for i in part.ranking["max"])


def _newcomer(name: str, heard: "Mapping[int, Heard]", known: "Rows") -> assimilate.Newcomer | None:
    """None where it was asked nothing of which it is known what the network answers."""
    probes = np.array(sorted(row for row, h in heard.items() if h.share > 0.0), np.intp)
    probes = np.intersect1d(probes, known)
    if not len(probes):
        return None
    shares = np.array([heard[int(row)].share for row in probes])
    return assimilate.Newcomer(name, probes, shares / shares.sum())


def _with(
    examples: Examples,
    bank: Bank,
    rows: "Rows",
    own: "Mapping[Probed, Mapping[int, Heard]]",
) -> Examples:
    """The examples of one part with a column for each newcomer, of what it said to which row."""
    n, k = len(examples), len(own)
    candidates = [list(answers) for answers in examples.candidates]
    votes = np.full((n, k), UNASKED, np.int32)
    correct = np.zeros((n, k), np.bool_)
    numbers = {name: np.full((n, k), np.nan) for name in ("cost_usd", "seconds", "tokens", "confidence")}
    for j, heard in enumerate(own.values()):
        for i, h in sorted(heard.items()):
            task = bank.questions[rows[i]].query(examples.kinds[i]).task
            answer = None if h.answer is None else answer_of(task, h.answer)
            if answer is not None and answer not in candidates[i]:
                candidates[i].append(answer)
            votes[i, j] = ABSTAINED if answer is None else candidates[i].index(answer)
            correct[i, j] = h.correct
            for name, table in numbers.items():
                value = getattr(h, name)
                table[i, j] = np.nan if value is None else value
    names = [*examples.experts, *(one.name for one in own)]
    sources = [*examples.sources, *(one.source for one in own)]
    order = sorted(range(len(names)), key=names.__getitem__)

    def beside(old: "NDArray[Any]", new: "NDArray[Any]") -> "NDArray[Any]":
        return np.concatenate([old, new], axis=1)[:, order]

    columns: dict[str, Any] = {
        name: beside(getattr(examples, name), table) for name, table in numbers.items()
    }
    return replace(
        examples,
        experts=tuple(names[j] for j in order),
        sources=tuple(sources[j] for j in order),
        candidates=tuple(tuple(answers) for answers in candidates),
        votes=beside(examples.votes, votes),
        correct=beside(examples.correct, correct),
        **columns,
    )
