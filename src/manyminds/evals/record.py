"""Asks live experts one's own questions, and keeps what they say as a recorded set.

Knows no file of questions and no command. The folder has, beside the three tables, the journal of every
answer that ever came; answers are read anew for the tables. What was said to another call, see `calls`,
stays in the journal.
"""

import asyncio
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from manyminds.errors import DataError
from manyminds.evals.calls import PATIENCE, SAMPLING, Calls, ask
from manyminds.evals.datasets.schema import (
    FILES,
    AnswerRow,
    ModelRow,
    QuestionRow,
    Tables,
    need_pyarrow,
    write,
)
from manyminds.evals.journal import Entry, Journal, entry_of, opened
from manyminds.evals.questions import Graded
from manyminds.fanout import Patience
from manyminds.types import Card, Expert, Sampling

__all__ = ["Harvest", "Progress", "Suits", "record"]

_AT_ONCE: Final = 4  # calls to a remote expert; a local one has one slot
_BLOCK: Final = 16  # questions; a local model remembers the prompts of its last 8
_RAW_CHARS: Final = 8_000  # of an answer in the tables, from its end


class Progress(Protocol):
    """Whoever shows how far a recording is. Called from the event loop; must not block."""

    def start(self, expert: str, total: int, done: int) -> None:
        """Of so many questions, `done` were answered in earlier runs."""
        ...

    def advance(self, expert: str) -> None:
        """One more call has ended, answered or not."""
        ...


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a run brought.

    Attributes:
        answered: calls of this run; kept: answers of earlier ones to what this run would have asked.
        missing: answers that an expert still lacks, if any; the next run asks for them again.
        reasons: how the last failed call of this run failed, by expert.
        open_ended: questions graded by exact match, for which a right answer in a whole sentence is wrong.
    """

    answered: int
    kept: int
    missing: Mapping[str, int]
    reasons: Mapping[str, str]
    open_ended: int


Suits = Callable[[Expert, Graded], bool]
"""Whether an expert is to be asked a question at all."""


async def record(
    questions: Sequence[Graded],
    experts: Mapping[str, Expert],
    folder: Path,
    *,
    leave: Collection[str] = (),
    category: str | None = None,
    sampling: Sampling = SAMPLING,
    patience: Patience = PATIENCE,
    at_once: int = _AT_ONCE,
    suits: Suits = lambda expert, graded: True,
    until_s: float = math.inf,
    progress: Progress | None = None,
) -> Harvest:
    """Asks every expert every question once and writes the folder in the schema of recorded sets.

    Who is left out, and what is of another category, is not asked; what was said earlier stays in the set.

    Cancelled or killed, it loses the calls under way, nothing else: the next run asks only what is missing.
    A call that fails is not a wrong answer; it is missing. An expert that fails rests longer and longer, and
    after several failures in a row, or one that will not pass by itself, is left alone for this run. The
    ways of one local expert take turns, many questions at a time: so a run that is stopped has asked all of
    them alike, and none finds in the model's cache what another has read.

    Args:
        questions: with ids that differ.
        experts: by the name that they get in the set.
        folder: made if it is not there; its last part names the set.
        leave: experts that are not asked.
        category: that of the questions that are asked, if not all.
        sampling: how experts generate. Options are rated instead where live traffic would rate them.
        patience: how long to wait for one call.
        at_once: calls to a remote expert at a time.
        suits: who is asked what.
        until_s: by the loop's clock, when no further call begins; what is left then is missing.
        progress: told how far it is.

    Raises:
        DataError: There is nobody to ask or nobody answered, another run is at work in the folder, its
            journal is damaged, it holds a set from elsewhere, or pyarrow is missing.
        OSError: The disk failed.
    """
    need_pyarrow()
    asked = [graded for graded in questions if category in (None, graded.question.category)]
    if not asked or not experts.keys() - set(leave):
        raise DataError("There is no question, or no expert to ask: see `manyminds experts list`.")
    async with opened(folder) as journal:
        every = [
            Calls(name, expert, [graded for graded in questions if suits(expert, graded)], sampling)
            for name, expert in sorted(experts.items())
        ]
        plans = [plan for plan in every if plan.name not in leave]
        said = {(entry.expert, entry.call) for entry in journal.entries()}
        for plan in plans:
            plan.wait_for([graded for graded in asked if suits(plan.expert, graded)], said)
            if progress is not None:
                progress.start(plan.name, plan.asked, plan.asked - len(plan.waiting))
        kept = sum(plan.asked - len(plan.waiting) for plan in plans)
        await _ask_all(plans, journal, patience, at_once, until_s, progress)
        rows = _rows(every, journal)
        journal.sync()
        _build(questions, every, rows, folder)
    ids = {graded.question.question_id for graded in asked}
    told = Counter(row.model for row in rows if row.question_id in ids)
    return Harvest(
        answered=sum(plan.answered for plan in plans),
        kept=kept,
        missing={p.name: p.asked - told[p.name] for p in plans if told[p.name] < p.asked},
        reasons={p.name: p.failure.message for p in plans if p.failure},
        open_ended=sum(graded.open_ended for graded in asked),
    )


# --- asking ----------------------------------------------------------------------------------------


async def _ask_all(
    plans: Sequence[Calls],
    journal: Journal,
    patience: Patience,
    at_once: int,
    until_s: float,
    progress: Progress | None,
) -> None:
    """Some calls at a time of each expert, all experts side by side."""
    clock = asyncio.get_running_loop().time
    said: set[tuple[str, str]] = set()

    async def work(waiting: Iterator[tuple[Calls, Graded]]) -> None:
        for plan, graded in waiting:
            if clock() >= until_s:
                return
            call = plan.call(graded)
            if plan.given_up:
                continue
            if call not in said:
                answer = await ask(plan, graded, patience)
                if answer.error is None:
                    said.add(call)
                    journal.add(entry_of(call, graded, answer))
                    plan.answered += 1
                    plan.failures = 0
                else:
                    plan.fail(answer.error)
            if progress is not None:
                progress.advance(plan.name)
            if plan.failures and not plan.given_up:
                await asyncio.sleep(plan.rest_s)

    queues: dict[str, list[Calls]] = {}
    for plan in plans:
        queues.setdefault(plan.queue, []).append(plan)
    try:
        async with asyncio.TaskGroup() as group:
            for queue in queues.values():
                waiting = iter(_merged(queue))
                for _ in range(1 if queue[0].expert.card.kind == "local" else at_once):
                    group.create_task(work(waiting))
    except ExceptionGroup as failures:  # of the disk
        raise failures.exceptions[0] from None


def _merged(plans: Sequence[Calls]) -> list[tuple[Calls, Graded]]:
    """All that wait, in the order of the longest, some questions at a time by one expert after another."""
    place: dict[str, int] = {}
    for plan in sorted(plans, key=lambda plan: -len(plan.waiting)):
        for graded in plan.waiting:
            place.setdefault(graded.question.question_id, len(place))
    every = [(plan, graded) for plan in plans for graded in plan.waiting]
    return sorted(every, key=lambda pair: place[pair[1].question.question_id] // _BLOCK)


# --- the tables ------------------------------------------------------------------------------------


def _rows(plans: Sequence[Calls], journal: Journal) -> list[AnswerRow]:
    """One for each question and expert that has answered; of several answers to one call the last."""
    said: dict[tuple[str, str], Entry] = {}
    for entry in journal.entries():
        said[entry.expert, entry.call] = entry
    asked = {
        (*call, graded.question.question_id): (graded, plan.expert.card)
        for plan in plans
        for call, every in plan.calls.items()
        for graded in every
        if call in said
    }  # ways that pass a question on have one answer

    def read(key: tuple[str, str, str]) -> AnswerRow:
        graded, card = asked[key]
        return _row(graded, said[key[:2]], card)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # programs run in processes of their own
        known = dict(zip(asked, pool.map(read, asked), strict=True))
    return [
        known[*call, graded.question.question_id]._replace(model=plan.name)
        for plan in plans
        for call, every in plan.calls.items()
        for graded in every
        if call in said
    ]


def _row(graded: Graded, entry: Entry, card: Card) -> AnswerRow:
    answer = graded.read(entry.text, cut=entry.cut)
    return AnswerRow(
        question_id=graded.question.question_id,
        model=entry.expert,
        answer=answer,
        correct=graded.right(entry.text, cut=entry.cut),
        extracted=graded.check is not None or answer is not None,
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        completion_chars=len(entry.text),
        latency_s=entry.seconds,
        cost_usd=entry.price_usd(card),
        confidence=entry.confidence,
        raw=entry.text[-_RAW_CHARS:],
    )


def _model(name: str, card: Card) -> ModelRow:
    return ModelRow(
        model=name,
        family=card.source,
        params_b=card.parameters / 1e9 if card.parameters else None,
        active_params_b=None,
        open_weights=card.kind == "local",
        released="",
        price_in_usd_per_m=card.price_in_usd_per_m,
        price_out_usd_per_m=card.price_out_usd_per_m,
        price_source="the expert's card",
    )


def _build(
    questions: Sequence[Graded], plans: Sequence[Calls], rows: Sequence[AnswerRow], folder: Path
) -> None:
    """Writes and checks the tables beside their place, then moves them there. Raises: DataError, OSError.

    An end of the process between two moves leaves tables of two runs; the next run mends that.
    """
    from manyminds.experts.recorded import open_set

    if not rows:
        reasons = " ".join(plan.failure.message for plan in plans if plan.failure)
        raise DataError(f"No expert answered any question. {reasons:.1000}".strip())
    answering = {row.model for row in rows}
    asked = [graded.question for graded in questions]
    tables = Tables(
        questions=[
            QuestionRow(q.question_id, folder.name, q.category, q.prompt, q.choices or None, q.gold, q.split)
            for q in asked
        ],
        answers=rows,
        models=[_model(plan.name, plan.expert.card) for plan in plans if plan.name in answering],
    )
    new = folder / ".new"
    new.mkdir(exist_ok=True)
    write(tables, new)
    open_set(new)
    for name in FILES:
        os.replace(new / name, folder / name)
    new.rmdir()
