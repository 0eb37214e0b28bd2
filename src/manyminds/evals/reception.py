"""Receives a newcomer: asks it live what tells most of what it adds, until that is clear.

Of each sort of question it is asked up to some probes, in turns. Where it is to be taken in it is asked the
rest of the pool, too, by which that is then judged again: so a gain that was luck is found out, and whoever
comes next meets a network whose answers are known. Keeps nothing itself but the journal of the interview.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec
import numpy as np

from manyminds.errors import DataError
from manyminds.evals.absorb import Interview, Met
from manyminds.evals.calls import SAMPLING, suits
from manyminds.evals.journal import Entry
from manyminds.evals.questions import again
from manyminds.learn.bank import Bank, key_of
from manyminds.learn.intake import Heard, Network, Probed
from manyminds.learn.probing import MOST, POOL, Probing
from manyminds.types import Card, Expert, Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Received", "Reception", "Takes", "Telling"]

Takes = Callable[[Probed], Sequence[Network]]
"""What becomes of the network with this newcomer as the last."""


@dataclass(frozen=True, slots=True)
class Received:
    """A newcomer that was asked, and how that went.

    Attributes:
        probed: all it said.
        probes, more: questions that it was asked first, and since it was taken in; failed: calls.
        cost_usd: of this run's answers.
        ended: see `Met`.
    """

    probed: Probed
    probes: int
    more: int
    failed: int
    cost_usd: float
    ended: str


Telling = Callable[[int], None]
"""Is told how many questions were answered. Called from the event loop; must not block."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sort:
    """One sort of questions: the network it meets, its probes, and which of the bank's questions they are."""

    network: Network
    probing: Probing
    rows: "NDArray[np.intp]"

    @property
    def shares(self) -> dict[int, float]:
        """Of what each question asked stands for."""
        if not len(self.probing.asked):
            return {}
        asked = self.rows[self.probing.asked].tolist()
        return dict(zip(asked, self.probing.shares.tolist(), strict=True))


class Reception:
    """Of one newcomer, by the network that is there.

    Args:
        bank: the questions.
        networks: of the newcomers before it.
        takes: the same with this one.
        most: probes of each sort at most.
        thorough: asks the whole pool, whatever the probes say.
        budget_usd, until_s, sampling: see `Interview`.
        told: how far it is.
    """

    def __init__(
        self,
        bank: Bank,
        networks: Sequence[Network],
        takes: Takes,
        *,
        most: int = MOST,
        thorough: bool = False,
        budget_usd: float = math.inf,
        until_s: float = math.inf,
        sampling: Sampling = SAMPLING,
        told: Telling = lambda asked: None,
    ) -> None:
        self._bank, self._networks, self._takes = bank, networks, takes
        self._most, self._thorough = most, thorough
        self._budget_usd, self._until_s = budget_usd, until_s
        self._sampling, self._told = sampling, told
        graded = {row: again(question) for row, question in enumerate(bank.questions)}
        self._graded = {row: one for row, one in graded.items() if one is not None}

    async def receive(self, name: str, identity: str, expert: Expert, folder: Path) -> Received:
        """Asks it. Cancelled or killed it loses the call under way: the same again goes on.

        Raises: DataError: there is nothing that it could be asked; and see `Interview.run`.
        """
        found = (self._sort(network, expert, name) for network in self._networks)
        sorts = [one for one in found if one is not None]
        if not sorts:
            raise DataError(
                f"{name} cannot be asked what the network was learnt from: those questions have no text, no"
                " gold to compare an answer with, or are of a kind that it does not answer."
            )
        met = await self._ask(
            name, expert, folder, _Turns([(s.probing, s.rows.tolist()) for s in sorts]), 0.0
        )
        shares = {row: share for s in sorts for row, share in s.shares.items()}
        probed = Probed(
            name, expert.card.source or name, identity, 0, self._heard(met.heard, shares, expert.card)
        )
        more = None
        if met.ended == "enough":
            wanted = self._wanted(probed, sorts)
            left = [row for s in wanted for row in s.rows.tolist() if row not in shares]
            more = await self._ask(name, expert, folder, _Listed(left), met.cost_usd)
            if more.ended == "enough":  # all of these sorts: each question stands for as much
                shares |= {row: 1.0 / len(s.rows) for s in wanted for row in s.rows.tolist()}
            heard = self._heard({**met.heard, **more.heard}, shares, expert.card)
            probed = msgspec.structs.replace(probed, heard=heard)
        return Received(
            probed,
            probes=len(met.heard),
            more=len(more.heard) if more else 0,
            failed=met.failed + (more.failed if more else 0),
            cost_usd=met.cost_usd + (more.cost_usd if more else 0.0),
            ended=more.ended if more else met.ended,
        )

    async def _ask(
        self, name: str, expert: Expert, folder: Path, prober: "_Turns | _Listed", spent_usd: float
    ) -> Met:
        """Positions that the prober gives, and that `heard` goes by, are rows of the bank."""
        rows = sorted(self._graded)
        interview = Interview(
            *(name, expert, [self._graded[row] for row in rows], folder),
            budget_usd=self._budget_usd - spent_usd,
            until_s=self._until_s,
            sampling=self._sampling,
        )
        met = await interview.run(_Rows(prober, rows, self._told))
        return dataclasses.replace(met, heard={rows[position]: said for position, said in met.heard.items()})

    def _sort(self, network: Network, expert: Expert, name: str) -> _Sort | None:
        """What it may be asked: of the pool, where it is known what the network answers. None: nothing."""
        rows = network.rows.tolist()
        pool = sorted(
            (i for i in network.network.known.tolist() if rows[i] in self._graded),
            key=lambda i: key_of(self._bank.questions[rows[i]]),
        )[:POOL]
        known = np.array(sorted(i for i in pool if suits(expert, self._graded[rows[i]])), np.intp)
        if not len(known):
            return None
        right, chance = network.network.answers(known)
        return _Sort(network, Probing(right, chance, crc32(name.encode()), self._most), network.rows[known])

    def _wanted(self, probed: Probed, sorts: Sequence[_Sort]) -> list[_Sort]:
        """The sorts of questions of which it is asked the whole pool: for which it is to be taken in."""
        if self._thorough:
            return list(sorts)
        taken = {
            network.kinds
            for network in self._takes(probed)
            for verdict in network.verdicts
            if verdict.name == probed.name and verdict.what != "keep"
        }
        return [s for s in sorts if s.network.kinds in taken]

    def _heard(
        self, heard: Mapping[int, tuple[Entry, float]], shares: Mapping[int, float], card: Card
    ) -> tuple[Heard, ...]:
        return tuple(
            Heard(
                question=key_of(self._bank.questions[row]),
                answer=self._graded[row].read(entry.text, cut=entry.cut),
                correct=correct > 0.5,
                cost_usd=entry.price_usd(card),
                seconds=entry.seconds,
                tokens=entry.completion_tokens or None,
                confidence=entry.confidence,
                share=shares.get(row, 0.0),
            )
            for row, (entry, correct) in sorted(heard.items())
        )


class _Rows:
    """A prober that knows questions by their row, as one that knows them by their position; tells how far."""

    def __init__(self, prober: "_Turns | _Listed", rows: Sequence[int], told: Telling) -> None:
        self._prober, self._rows, self._told = prober, rows, told
        self._place = {row: i for i, row in enumerate(rows)}
        self._asked = 0

    def next(self) -> int | None:
        row = self._prober.next()
        return None if row is None else self._place[row]

    def tell(self, position: int, correct: float) -> None:
        self._prober.tell(self._rows[position], correct)
        self._asked += 1
        self._told(self._asked)

    def skip(self, position: int) -> None:
        self._prober.skip(self._rows[position])


class _Turns:
    """Several probers, a question of each in turn; each with the rows that its positions stand for."""

    def __init__(self, probers: "Sequence[tuple[Probing, Sequence[int]]]") -> None:
        self._probers = deque(probers)
        self._at: tuple[Probing, int] | None = None

    def next(self) -> int | None:
        while self._probers:
            prober, rows = self._probers[0]
            position = prober.next()
            if position is not None:
                self._probers.rotate(-1)
                self._at = prober, position
                return rows[position]
            self._probers.popleft()
        return None

    def tell(self, row: int, correct: float) -> None:
        assert self._at is not None
        prober, position = self._at
        prober.tell(position, correct)

    def skip(self, row: int) -> None:
        assert self._at is not None
        prober, position = self._at
        prober.skip(position)


class _Listed:
    """These rows, in order."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._left = deque(rows)

    def next(self) -> int | None:
        return self._left[0] if self._left else None

    def tell(self, row: int, correct: float) -> None:
        self._left.popleft()

    def skip(self, row: int) -> None:
        self._left.popleft()
