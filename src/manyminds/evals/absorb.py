"""Interviews a newcomer: asks it live what a prober chooses, one question after the other.

What it says is graded and kept as `record` does, in the same journal: so nothing is asked twice, and
`record` makes a set of it without asking. Knows nothing of how questions are chosen.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from manyminds.errors import ExpertError, UnavailableError
from manyminds.evals.calls import PATIENCE, SAMPLING, Calls, ask
from manyminds.evals.journal import Entry, Journal, entry_of, opened
from manyminds.evals.questions import Graded
from manyminds.fanout import Patience
from manyminds.types import Expert, Sampling

__all__ = ["Interview", "Met", "Prober"]


class Prober(Protocol):
    """Chooses questions by position. Each that `next` names is answered by one `tell` or `skip`."""

    def next(self) -> int | None:
        """Position of the next question; None: enough."""
        ...

    def tell(self, position: int, correct: float) -> None:
        """How right its answer was, in [0, 1]."""
        ...

    def skip(self, position: int) -> None:
        """It could not be asked."""
        ...


@dataclass(frozen=True, slots=True)
class Met:
    """What an interview brought.

    Attributes:
        answered: questions of this run; kept: answers of earlier ones that were told again; failed: calls.
        cost_usd: of this run's answers.
        heard: by position, what it said and how right that was.
        ended: why: the prober had `enough`, or the `budget` or the `time` was spent.
    """

    answered: int
    kept: int
    failed: int
    cost_usd: float
    heard: Mapping[int, tuple[Entry, float]]
    ended: Literal["enough", "budget", "time"]


class Interview:
    """One expert's, with graded questions.

    Args:
        name: the expert's in the set.
        expert: who is asked.
        questions: with ids that differ; a prober's positions are among these.
        folder: of the recorded set; made if it is not there.
        budget_usd: no further call begins if with another as dear as the dearest so far more would be spent.
        until_s: by the loop's clock, when no further call begins.
        sampling: how it generates. Options are rated instead where live traffic would rate them.
        patience: how long to wait for one call.
    """

    def __init__(
        self,
        name: str,
        expert: Expert,
        questions: Sequence[Graded],
        folder: Path,
        *,
        budget_usd: float = math.inf,
        until_s: float = math.inf,
        sampling: Sampling = SAMPLING,
        patience: Patience = PATIENCE,
    ) -> None:
        self._calls = Calls(name, expert, questions, sampling)
        self._questions = questions
        self._folder = folder
        self._budget_usd = budget_usd
        self._until_s = until_s
        self._patience = patience
        self._spent_usd = self._dearest_usd = 0.0

    async def run(self, prober: Prober) -> Met:
        """Asks until the prober has enough, or nothing more may be spent. To be called once.

        Cancelled or killed, it loses the call under way, nothing else: the next run tells what was said
        without asking. A call that fails is skipped, not wrong.

        Raises:
            UnavailableError: The expert failed several times in a row, or in a way that will not pass.
            DataError: The folder is in use, or not ours, or its journal is damaged; a program that was
                answered cannot be run here.
            OSError: The disk failed.
        """
        kept = failed = 0
        heard: dict[int, tuple[Entry, float]] = {}
        async with opened(self._folder) as journal:
            said = {(entry.expert, entry.call): entry for entry in journal.entries()}
            while (position := prober.next()) is not None:
                graded = self._questions[position]
                call = self._calls.call(graded)
                entry = said.get(call)
                kept += entry is not None
                if entry is None and (spent := self._spent()):
                    prober.skip(position)
                    return Met(self._calls.answered, kept, failed, self._spent_usd, heard, spent)
                entry = entry or await self._ask(graded, journal)
                if entry is None:
                    failed += 1
                    prober.skip(position)
                    await self._rest()
                    continue
                said[call] = entry
                correct = float(await asyncio.to_thread(graded.right, entry.text, cut=entry.cut))
                heard[position] = entry, correct
                prober.tell(position, correct)
        return Met(self._calls.answered, kept, failed, self._spent_usd, heard, "enough")

    def _spent(self) -> Literal["budget", "time"] | None:
        if self._spent_usd >= self._budget_usd or self._spent_usd + self._dearest_usd > self._budget_usd:
            return "budget"
        return "time" if asyncio.get_running_loop().time() >= self._until_s else None

    async def _ask(self, graded: Graded, journal: Journal) -> Entry | None:
        """None where the call failed."""
        calls = self._calls
        answer = await ask(calls, graded, self._patience)
        if answer.error is not None:
            calls.fail(answer.error)
            return None
        entry = entry_of(calls.call(graded), graded, answer)
        journal.add(entry)
        calls.answered += 1
        calls.failures = 0
        cost_usd = entry.price_usd(calls.expert.card)
        self._spent_usd += cost_usd
        self._dearest_usd = max(self._dearest_usd, cost_usd)
        return entry

    async def _rest(self) -> None:
        """After a failure. Raises: UnavailableError where it is left alone."""
        calls = self._calls
        if calls.given_up:
            assert isinstance(calls.failure, ExpertError)
            raise UnavailableError(
                f"{calls.name} is left alone, it fails: {calls.failure.message.rstrip('.')}. What it answered"
                " is kept; run the same again when it is back."
            )
        await asyncio.sleep(calls.rest_s)
