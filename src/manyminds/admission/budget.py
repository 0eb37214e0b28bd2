"""How much a key may spend: money is leased from the ledger in blocks, and only what is leased is spent.

Counts in nano-dollars. Knows no ledger but two callables, and nothing of what the money is for.
"""

import asyncio
import logging
import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Final, TypeAlias

from manyminds.board import Board, Cell
from manyminds.errors import BudgetError, ManymindsError, UnavailableError
from manyminds.types import Key

__all__ = ["Budgets", "GiveBack", "Hold", "Lease", "Recall", "nano", "period_of"]

Lease: TypeAlias = Callable[[str, str, int, int], Awaitable[int]]
"""Key id, period, nano-dollars wanted and the budget's limit to what is granted, durably.

Grants min(wanted, limit - leased so far), and never less than nothing. Raises when it cannot tell.
"""

GiveBack: TypeAlias = Callable[[str, str, int], Awaitable[None]]
"""Key id, period and nano-dollars that were leased and not spent."""

Recall: TypeAlias = Callable[[str], Awaitable[None]]
"""Has other processes give back what they leased for a key and have not put aside. Never raises."""

_PERIOD: Final = struct.Struct("<16s")  # what a mark is of; how much, is its hint
_SHARES: Final = 100  # a budget is leased in so many blocks
_PLENTY: Final = 10  # blocks; of more than that in hand, other gateways get what is above one
_PATIENCE_S: Final = 5.0  # of one request, for a ledger that does not answer
_DRY_S: Final = 1.0  # how long a ledger that had too little left is not asked for as much again
_MOST_USD: Final = 1e9  # nano-dollars then fit 63 bits
_FINE_USD: Final = 1e6  # up to here a float tells one nano-dollar from the next
_ADVICE: Final = "Lower max_tokens, ask for a cheaper policy"

log = logging.getLogger(__name__)


def nano(usd: float) -> int:
    """The fewest whole nano-dollars that are not less: 0.1 is 100,000,000, and no noise rounds it up.

    Raises:
        ValueError: negative, not a number, or above a billion dollars.
    """
    if not 0.0 <= usd <= _MOST_USD:
        raise ValueError(f"{usd} is no sum of money")
    if usd > _FINE_USD:
        return math.ceil(Fraction(usd) * 10**9)
    nusd = math.ceil(usd * 1e9)
    if nusd / 1e9 < usd:
        return nusd + 1
    return nusd - 1 if (nusd - 1) / 1e9 >= usd else nusd


def period_of(key: Key, now: datetime) -> str:
    """The period of the key's budget that a moment lies in, in UTC: "2026-11-22", "2026-11" or "total"."""
    if key.period == "total":
        return "total"
    return now.astimezone(UTC).isoformat()[: 10 if key.period == "day" else 7]


def _end_of(key: Key, now: datetime) -> datetime | None:
    """When that period is over."""
    if key.period == "total":
        return None
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if key.period == "day":
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


class Hold:
    """Money put aside for one request. Who never settles it has spent all of it."""

    __slots__ = ("_purse", "nusd")

    def __init__(self, purse: "_Purse | None", nusd: int) -> None:
        self._purse = purse
        self.nusd = nusd

    def settle(self, spent_usd: float) -> None:
        """Gives back what was not spent, or takes what was spent beyond. Only the first call counts.

        What is no sum of money counts as all that was put aside.
        """
        purse, self._purse = self._purse, None
        if purse is not None:
            purse.holds -= 1
            purse.block += self.nusd - (nano(spent_usd) if 0.0 <= spent_usd <= _MOST_USD else self.nusd)


class _Purse:
    """One key's money for one period, as far as this process has it."""

    __slots__ = (
        "_block",
        "dry_nusd",
        "dry_until_s",
        "end",
        "filling",
        "holds",
        "key",
        "limit",
        "mark",
        "period",
        "waiting",
    )

    def __init__(self, key: Key, now: datetime) -> None:
        self.key = key
        self.limit = nano(key.budget_usd or 0.0)
        self.period = period_of(key, now)
        self.end = _end_of(key, now)
        self.mark: Cell | None = None  # by which others know the block, should this process die
        self._block = 0
        self.holds = 0
        self.waiting: deque[tuple[int, int, asyncio.Future[Hold]]] = deque()  # how much; at least
        self.filling: asyncio.Task[None] | None = None
        self.dry_nusd = 0  # the most that was to be had ...
        self.dry_until_s = -math.inf  # ... as far as is known until then

    @property
    def block(self) -> int:
        """Leased and neither held nor spent; below 0 it is spent and not yet leased."""
        return self._block

    @block.setter
    def block(self, nusd: int) -> None:
        self._block = nusd
        if self.mark is not None:
            self.mark.suggest(nusd)

    @property
    def share(self) -> int:
        return -(-self.limit // _SHARES)

    def hold(self, nusd: int) -> Hold:
        self.block -= nusd
        self.holds += 1
        return Hold(self, nusd)

    def serve(self) -> int:
        """Gives to those who wait, first come first served. Returns what the rest lack together."""
        while self.waiting:
            nusd, _, future = self.waiting[0]
            if not future.done():  # else it was cancelled
                if nusd > self.block:
                    rest = sum(nusd for nusd, _, future in self.waiting if not future.done())
                    return rest - self.block
                future.set_result(self.hold(nusd))
            self.waiting.popleft()
        return 0

    def dismiss(self, refusal: Callable[[int], ManymindsError]) -> None:
        """Gives to those who wait for what is there, or less; and refuses the others."""
        waiting, self.waiting = self.waiting, deque()
        for nusd, least, future in waiting:
            if future.done():
                continue
            if least <= self.block:
                future.set_result(self.hold(min(nusd, self.block)))
            else:
                future.set_exception(refusal(nusd))


class Budgets:
    """The purses of all keys that have a budget.

    A ledger that fails is never guessed at: what it may have granted or taken back is forfeited.
    """

    def __init__(
        self,
        lease: Lease,
        give_back: GiveBack,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        recall: Recall | None = None,
        board: Board | None = None,
        column: int = 0,
    ) -> None:
        self._lease = lease
        self._give_back = give_back
        self._clock = clock
        self._now = now
        self._recall = recall
        self._board = board
        self._column = column
        self._purses: dict[str, _Purse] = {}  # by key id
        self._retired: list[_Purse] = []  # of periods, budgets and keys that are over
        self._under_way: set[asyncio.Task[None]] = set()
        self._failing = False  # has the ledger, and that was logged

    def replace(self, keys: Mapping[str, Key]) -> None:
        """Takes over budgets that changed, keys by id. The old ones' blocks go back at the next lease."""
        for purse in list(self._purses.values()):
            key = keys.get(purse.key.id)
            if key and (key.budget_usd, key.period) == (purse.key.budget_usd, purse.key.period):
                purse.key = key
            else:
                self._retire(self._purses.pop(purse.key.id))

    async def reserve(self, key: Key, usd: float, least_usd: float | None = None) -> Hold:
        """Puts money aside. `key` has a budget. A caller that is cancelled meanwhile leaves it all there.

        With `least_usd` all that is left will do, where that is less than `usd`, but at least so much, and
        not nothing.

        Raises:
            BudgetError: there is not as much left.
            UnavailableError: it needs a lease, and the ledger failed or does not answer.
        """
        now = self._now()
        purse = self._purses.get(key.id)
        if purse is None or (purse.end is not None and now >= purse.end):
            if purse is not None:
                self._retire(purse)
            purse = self._purses[key.id] = _Purse(key, now)
            self._mark(purse)
        nusd = least = nano(usd)
        if least_usd is not None:
            least = min(nusd, max(1, nano(least_usd)))
            nusd = max(least, min(nusd, purse.limit))
        if nusd > purse.block or purse.waiting:
            return await self._wait(purse, nusd, least)
        if purse.block > _PLENTY * purse.share:
            self._fill(purse)
        return purse.hold(nusd)

    def left_usd(self, key_id: str) -> float:
        """What was left of a key's budget when that was last found too little."""
        purse = self._purses.get(key_id)
        return 0.0 if purse is None else purse.dry_nusd / 1e9

    async def release(self, key_id: str) -> None:
        """Gives back what is not put aside for a request, also where one waits for more. Never raises.

        Cancelled, as one who no longer waits for it does, it gives back all the same.
        """
        purse = self._purses.get(key_id)
        if purse is None:
            return
        purse.dry_until_s = -math.inf  # others give back, too
        if purse.block > 0:
            spare, purse.block = purse.block, 0
            await asyncio.shield(self._begin(self._released(purse, spare)))

    async def _released(self, purse: _Purse, spare: int) -> None:
        try:
            await self._give_back(purse.key.id, purse.period, spare)
        except Exception as error:
            log.warning("What is left of the budget of %r was not given back: %s", purse.key.name, error)

    def _begin(self, does: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """What `close` waits for, whoever else no longer does."""
        task = asyncio.ensure_future(does)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def close(self) -> None:
        """Gives back what is unspent. What is still held stays leased: it is forfeited."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        for purse in self._purses.values():
            self._retire(purse)
        self._purses.clear()
        await self._clear()

    async def recover(self, key_ids: Iterable[str]) -> None:
        """Gives back what a process that died in this one's place had in its purses. Never raises.

        What it had put aside is not among it: it may have been spent.
        """
        for key_id in key_ids:
            mark = self._marked(self._column, key_id)
            if mark is None or mark.hint <= 0:
                continue
            (period,) = mark.load(_PERIOD)
            spare = mark.hint
            mark.suggest(0)
            try:
                await self._give_back(key_id, period.rstrip(b"\0").decode(), spare)
            except Exception as error:
                log.warning("What is left of the budget of %s was not given back: %s", key_id, error)

    def _is_elsewhere(self, purse: _Purse, nusd: int) -> bool:
        """Whether all together have that much in hand, which the ledger does not know."""
        if self._board is None or self._recall is None:
            return False
        marks = (self._marked(column, purse.key.id) for column in range(self._board.columns))
        return sum(max(0, mark.hint) for mark in marks if mark is not None) >= nusd

    def _marked(self, column: int, key_id: str, *, make: bool = False) -> Cell | None:
        """By which all know what a process has in its purse."""
        return self._board.cell(f"purse {column} {key_id}", make=make) if self._board else None

    def _mark(self, purse: _Purse) -> None:
        if (mark := self._marked(self._column, purse.key.id, make=True)) is not None:
            mark.suggest(0)
            with mark:
                mark.store(_PERIOD, purse.period.encode())
            purse.mark = mark

    def _retire(self, purse: _Purse) -> None:
        """Its money goes back at the next lease; until then a crash forfeits it."""
        if purse.mark is not None:
            purse.mark.suggest(0)
            purse.mark = None
        self._retired.append(purse)

    async def _wait(self, purse: _Purse, nusd: int, least: int) -> Hold:
        known_dry = nusd > purse.dry_nusd and self._clock() < purse.dry_until_s
        if nusd > purse.limit or (known_dry and not purse.waiting and not self._is_elsewhere(purse, nusd)):
            if least <= purse.block:
                return purse.hold(purse.block)
            raise self._refusal(purse, nusd)
        future: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        purse.waiting.append((nusd, least, future))
        self._fill(purse)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().settle(0.0)  # cancelled just when it was served
            if isinstance(error, TimeoutError):
                raise _unavailable(purse) from None
            raise

    def _fill(self, purse: _Purse) -> None:
        """Lets one task at a time lease for all who wait.

        It belongs to the key: a request that ends must not take along what the ledger is about to grant.
        """
        if purse.filling is None:
            purse.filling = self._begin(self._filled(purse))

    async def _filled(self, purse: _Purse) -> None:
        try:
            await self._clear()
            while True:
                if short := purse.serve():
                    await self._lease_for(purse, max(short, purse.share))
                elif purse.block > _PLENTY * purse.share:
                    spare, purse.block = purse.block - purse.share, purse.share
                    await self._give_back(purse.key.id, purse.period, spare)
                    purse.dry_until_s = -math.inf  # there is that much again
                else:
                    break
        except Exception as error:
            self._complain(f"No lease for the key {purse.key.name!r}: {error}")
            purse.dismiss(lambda _: _unavailable(purse))
        finally:
            purse.filling = None

    async def _lease_for(self, purse: _Purse, wanted: int) -> None:
        granted = await self._lease(purse.key.id, purse.period, wanted, purse.limit)
        self._failing = False
        purse.block += granted
        if granted < wanted and self._recall is not None and purse.serve():
            await self._recall(purse.key.id)
            if wanted := purse.serve():  # others may have had from here what there was
                granted = await self._lease(purse.key.id, purse.period, wanted, purse.limit)
                purse.block += granted
        if granted < wanted:
            purse.dismiss(lambda nusd: self._refusal(purse, nusd))
            purse.dry_nusd, purse.dry_until_s = max(0, purse.block), self._clock() + _DRY_S

    async def _clear(self) -> None:
        """Gives back what retired purses have left, and leases what they owe. Never raises."""
        retired, self._retired = self._retired, []  # so that no two do it at once
        kept = []
        try:
            while retired:
                purse = retired[-1]
                left = purse.block
                if left > 0:
                    purse.block = 0
                    await self._give_back(purse.key.id, purse.period, left)
                elif left < 0:
                    granted = await self._lease(purse.key.id, purse.period, -left, purse.limit)
                    purse.block += granted
                retired.pop()
                if purse.holds or purse.block > 0 or purse.filling:
                    kept.append(purse)
        except Exception as error:
            self._complain(f"What is left of old budgets was not given back: {error}")
        finally:
            self._retired += retired + kept

    def _complain(self, said: str) -> None:
        """Once, until a lease succeeds: every request tries a ledger that is away."""
        if not self._failing:
            log.warning("%s This is not said again until it works.", said)
        self._failing = True

    def _refusal(self, purse: _Purse, nusd: int) -> BudgetError:
        spent = (
            f"The key {purse.key.name!r} has spent or reserved all but {_dollars(max(0, purse.block))} of its"
        )
        budget = f"{_dollars(purse.limit)} for {'ever' if purse.end is None else purse.period}"
        cost = f"and this request may cost {_dollars(nusd)}"
        if purse.end is None:
            return BudgetError(f"{spent} {budget}, {cost}. {_ADVICE}, or ask the node's owner for more.")
        return BudgetError(
            f"{spent} {budget}, {cost}. {_ADVICE}, or wait until {purse.end:%Y-%m-%d %H:%M} UTC.",
            retry_after_s=max(0.0, (purse.end - self._now()).total_seconds()),
        )


def _unavailable(purse: _Purse) -> UnavailableError:
    return UnavailableError(
        f"The ledger does not answer, and without it the key {purse.key.name!r} can spend none "
        "of its budget: try again.",
        retry_after_s=_DRY_S,
    )


def _dollars(nusd: int) -> str:
    whole, rest = divmod(nusd, 10**9)
    return f"${whole}.{f'{rest:09d}'.rstrip('0'):0<2}"
