"""Asks live experts one's own questions, and keeps what they say as a recorded set.

Knows no file of questions and no command. The folder has, beside the three tables, journal.jsonl: every
answer that ever came, a line each, only appended to. Answers are kept as they were said and read anew for
the tables, so that a corrected gold costs no call. What is asked in other words, of another model upstream
or with another sampling, is another call; what was said to the old one stays in the journal.
"""

import asyncio
import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

import msgspec

from manyminds.catalog.lock import locked
from manyminds.errors import DataError, ExpertError, RefusedError, RejectedError
from manyminds.evals.datasets.schema import (
    FILES,
    AnswerRow,
    ModelRow,
    QuestionRow,
    Tables,
    need_pyarrow,
    write,
)
from manyminds.evals.questions import Graded
from manyminds.experts.asked import Asked
from manyminds.fanout import Fanout, Patience
from manyminds.router.policy import rates
from manyminds.types import Answer, Call, Card, Expert, Limits, Message, Method, Query, Route, Sampling

__all__ = ["JOURNAL", "Harvest", "Progress", "Suits", "record"]

JOURNAL: Final = "journal.jsonl"
"""In the folder: every answer that ever came."""

_SYNCED: Final = 32  # answers that a failure of power may lose; an end of the process loses none
_AT_ONCE: Final = 4  # calls to a remote expert; a local one has one slot
_GIVE_UP: Final = 8  # failures in a row after which an expert is left alone until the next run
_BLOCK: Final = 16  # questions; a local model remembers the prompts of its last 8
_REST_S: Final = 30.0  # at most, between two failures: upstreams limit rates, and come back
_RAW_CHARS: Final = 8_000  # of an answer in the tables, from its end
_MOST: Final = 1e12  # what an expert says of its usage is untrusted
_PATIENCE: Final = Patience(first_token_s=120.0, idle_s=60.0, deadline_s=600.0)
_SAMPLING: Final = Sampling(max_tokens=1024, temperature=0.0)


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
    sampling: Sampling = _SAMPLING,
    patience: Patience = _PATIENCE,
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
    if not (folder / JOURNAL).exists() and any((folder / name).exists() for name in FILES):
        raise DataError(f"{folder} holds a set that was not recorded here: choose another folder.")

    def busy() -> None:
        raise DataError(
            f"Another run is recording into {folder}: wait for its end, or choose another folder."
        )

    async with locked(folder / ".lock", busy):
        every = [
            _Plan(name, expert, [graded for graded in questions if suits(expert, graded)], sampling)
            for name, expert in sorted(experts.items())
        ]
        plans = [plan for plan in every if plan.name not in leave]
        with _Journal(folder / JOURNAL) as journal:
            said = {(entry.expert, entry.call) for entry in journal.entries()}
            for plan in plans:
                plan.wait_for([graded for graded in asked if suits(plan.expert, graded)], said)
                if progress is not None:
                    progress.start(plan.name, plan.asked, plan.asked - len(plan.waiting))
            kept = sum(plan.asked - len(plan.waiting) for plan in plans)
            await _ask_all(plans, journal, patience, at_once, until_s, progress)
            rows = _rows(every, journal)
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


class _Plan:
    """One expert's calls: which there are, which wait, and how it fares."""

    def __init__(self, name: str, expert: Expert, questions: Sequence[Graded], sampling: Sampling) -> None:
        self.name = name
        self.expert = expert
        self.sampling = sampling
        self.calls: dict[tuple[str, str], list[Graded]] = {}
        for graded in questions:
            self.calls.setdefault(self.call(graded), []).append(graded)
        self.asked = 0  # questions of this run
        self.waiting: list[Graded] = []
        self.answered = 0
        self.failures = 0  # in a row
        self.failure: ExpertError | None = None

    def wait_for(self, asked: Sequence[Graded], said: Collection[tuple[str, str]]) -> None:
        """These questions wait, but for calls that were answered before."""
        self.asked = len(asked)
        self.waiting = [graded for graded in asked if self.call(graded) not in said]

    @property
    def queue(self) -> str:
        """Local experts answer one call at a time, in whatever way they are asked."""
        return self.expert.card.variant_of or self.name

    def fail(self, error: ExpertError) -> None:
        self.failure = error
        if isinstance(error, RejectedError) or type(error) is ExpertError:
            self.failures = _GIVE_UP
        elif not isinstance(error, RefusedError):  # which is of this question, not of all
            self.failures += 1

    def route(self, graded: Graded) -> Route:
        """This expert alone. Options are rated where live votes rate them: tiny models follow letters."""
        card = self.expert.card
        method: Method = "score" if rates(card, graded.task) else "generate"
        call = Call(self.name, card.source, 1.0, method=method)
        return Route("record", "pass", (call,))

    def query(self, graded: Graded) -> Query:
        return Query(
            messages=(Message("user", graded.text),),
            model=self.name,
            sampling=self.sampling,
            request_id=graded.question.question_id,
            limits=Limits(topic=graded.question.category),
            task=graded.task,
        )

    def call(self, graded: Graded) -> tuple[str, str]:
        """Whose answer it is, and what makes a call another one, as a digest.

        Ways of asking that come to the same for a question are one call.
        """
        task, card, method = graded.task, self.expert.card, self.route(graded).calls[0].method
        name, sampling = card.variant_of or self.name, msgspec.to_builtins(self.sampling)
        how: object
        if isinstance(self.expert, Asked):
            way = self.expert.way(task)
            # "sure": with how likely the answer is, which calls of before did not ask for.
            wished = ["calm"] if way is None else ["sure", msgspec.to_builtins(way), self.expert.wish(task)]
            how = [sampling, *wished]
        else:  # as before there were grammars: what journals hold is not to be asked again
            how = {key: value for key, value in sampling.items() if key != "grammar" or value}
        if method == "score":
            how = list(task.options)
        asked = msgspec.json.encode([graded.text, card.kind, card.model, method, how])
        return name, hashlib.sha256(asked).hexdigest()[:32]


async def _ask_all(
    plans: "Sequence[_Plan]",
    journal: "_Journal",
    patience: Patience,
    at_once: int,
    until_s: float,
    progress: Progress | None,
) -> None:
    """Some calls at a time of each expert, all experts side by side."""
    clock = asyncio.get_running_loop().time
    said: set[tuple[str, str]] = set()

    async def work(waiting: "Iterator[tuple[_Plan, Graded]]") -> None:
        for plan, graded in waiting:
            if clock() >= until_s:
                return
            call = plan.call(graded)
            if plan.failures >= _GIVE_UP:
                continue
            if call not in said:
                answer = await _ask(plan, graded, patience)
                if answer.error is None:
                    said.add(call)
                    journal.add(_entry(call, graded, answer))
                    plan.answered += 1
                    plan.failures = 0
                else:
                    plan.fail(answer.error)
            if progress is not None:
                progress.advance(plan.name)
            if 0 < plan.failures < _GIVE_UP:
                await asyncio.sleep(min(2.0**plan.failures, _REST_S))

    queues: dict[str, list[_Plan]] = {}
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


def _merged(plans: "Sequence[_Plan]") -> "list[tuple[_Plan, Graded]]":
    """All that wait, in the order of the longest, some questions at a time by one expert after another."""
    place: dict[str, int] = {}
    for plan in sorted(plans, key=lambda plan: -len(plan.waiting)):
        for graded in plan.waiting:
            place.setdefault(graded.question.question_id, len(place))
    every = [(plan, graded) for plan in plans for graded in plan.waiting]
    return sorted(every, key=lambda pair: place[pair[1].question.question_id] // _BLOCK)


async def _ask(plan: _Plan, graded: Graded, patience: Patience) -> Answer:
    async with Fanout(plan.query(graded), plan.route(graded), {plan.name: plan.expert}, patience) as fanout:
        (answer,) = [answer async for answer in fanout.finished()]
    return answer


# --- the journal -----------------------------------------------------------------------------------


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One answer, as it was said."""

    expert: str
    call: str
    question_id: str  # for people: the call says what was asked
    text: str
    cut: bool
    seconds: float
    prompt_tokens: float
    completion_tokens: float
    cpu_s: float
    cost_usd: float
    confidence: float | None


def _entry(called: tuple[str, str], graded: Graded, answer: Answer) -> _Entry:
    name, call = called
    last, usage = answer.chunks[-1], answer.usage
    sure = answer.confidence
    return _Entry(
        expert=name,
        call=call,
        question_id=graded.question.question_id,
        text=answer.text.encode("utf-8", "replace").decode(),
        cut=last.finish_reason in ("length", "content_filter"),
        seconds=answer.seconds,
        prompt_tokens=_amount(usage.prompt_tokens),
        completion_tokens=_amount(usage.completion_tokens),
        cpu_s=_amount(usage.cpu_s),
        cost_usd=_amount(usage.cost_usd),
        confidence=float(sure) if sure is not None and math.isfinite(sure) else None,
    )


def _amount(said: float) -> float:
    return float(said) if 0 <= said <= _MOST else 0.0


class _Journal:
    """Lines of JSON that outlive whoever writes them. One writer: the folder is locked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsynced = 0
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(_Entry).decode

    def __enter__(self) -> "_Journal":
        self._file = self._path.open("ab+")
        self._mend()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._sync()

    def add(self, entry: _Entry) -> None:
        """Raises: OSError."""
        self._file.write(self._encode(entry) + b"\n")
        self._file.flush()
        self._unsynced += 1
        if self._unsynced >= _SYNCED:
            self._sync()

    def entries(self) -> Iterator[_Entry]:
        """From the first on. Raises: DataError, which names the line."""
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield self._decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise DataError(
                        f"{self._path}, line {number} is damaged ({error!s:.200}): delete that line, and"
                        " its question is asked again."
                    ) from None

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _mend(self) -> None:
        """Drops a last line that was cut off while it was written."""
        size = whole = self._file.seek(0, os.SEEK_END)
        while whole:
            step = min(65_536, whole)
            self._file.seek(whole - step)
            at = self._file.read(step).rfind(b"\n")
            if at >= 0:
                whole += at + 1 - step
                break
            whole -= step
        if whole < size:
            self._file.truncate(whole)


# --- the tables ------------------------------------------------------------------------------------


def _rows(plans: Sequence[_Plan], journal: _Journal) -> list[AnswerRow]:
    """One for each question and expert that has answered; of several answers to one call the last."""
    said: dict[tuple[str, str], _Entry] = {}
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


def _row(graded: Graded, entry: _Entry, card: Card) -> AnswerRow:
    answer = graded.read(entry.text, cut=entry.cut)
    tokens_usd = (
        entry.prompt_tokens * card.price_in_usd_per_m + entry.completion_tokens * card.price_out_usd_per_m
    )
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
        cost_usd=entry.cost_usd or tokens_usd / 1e6 + entry.cpu_s * card.price_cpu_usd_per_hour / 3600,
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
    questions: Sequence[Graded], plans: Sequence[_Plan], rows: Sequence[AnswerRow], folder: Path
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
