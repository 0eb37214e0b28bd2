"""How much may be spent: it is leased from the ledger in blocks, and only what is leased is spent.

Of dollars by whoever has a key, of nats by whoever stands behind an expert. Counts in `units`, billionths of
either. Knows no ledger but two callables, and nothing of what it is spent on.
"""

import asyncio
import logging
import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Final, Literal, NamedTuple, TypeAlias

from manyminds.board import Board, Cell
from manyminds.errors import BudgetError, ManymindsError, UnavailableError
from manyminds.types import Key, Period

__all__ = ["Budget", "Budgets", "GiveBack", "Hold", "Lease", "Recall", "nano", "period_of"]

Lease: TypeAlias = Callable[[str, str, int, int], Awaitable[int]]
"""Budget's id, period, units wanted and the budget's limit to what is granted, durably.

Grants min(wanted, limit - leased so far), and never less than nothing. Raises when it cannot tell.
"""

GiveBack: TypeAlias = Callable[[str, str, int], Awaitable[None]]
"""Budget's id, period and units that were leased and not spent."""

Recall: TypeAlias = Callable[[str], Awaitable[None]]
"""Has other processes give back what they leased of a budget and have not put aside. Never raises."""

_PERIOD: Final = struct.Struct("<16s")  # what a mark is of; how much, is its hint
_SHARES: Final = 100  # a budget is leased in so many blocks
_PLENTY: Final = 10  # blocks; of more than that in hand, other gateways get what is above one
_PATIENCE_S: Final = 5.0  # of one request, for a ledger that does not answer
_DRY_S: Final = 1.0  # how long a ledger that had too little left is not asked for as much again
_MOST: Final = 1e9  # dollars or nats: their billionths then fit 63 bits
_FINE: Final = 1e6  # up to here a float tells one billionth from the next

log = logging.getLogger(__name__)


class Budget(NamedTuple):
    """Who may spend how much of what in a period."""

    id: str  # by which it is leased
    name: str  # whose it is, in its owner's words
    limit: float
    period: Period
    unit: Literal["usd", "nats", "rho"] = "usd"


def nano(amount: float) -> int:
    """The fewest whole billionths that are not less: 0.1 is 100,000,000, and no noise rounds it up.

    Raises:
        ValueError: negative, not a number, or above a billion.
    """
    if not 0.0 <= amount <= _MOST:
        raise ValueError(f"{amount} is no amount")
    if amount > _FINE:
        return math.ceil(Fraction(amount) * 10**9)
    units = math.ceil(amount * 1e9)
    if units / 1e9 < amount:
        return units + 1
    return units - 1 if (units - 1) / 1e9 >= amount else units


def period_of(budget: Budget | Key, now: datetime) -> str:
    """The period of a budget that a moment lies in, in UTC: "2026-11-22", "2026-11" or "total"."""
    if budget.period == "total":
        return "total"
    return now.astimezone(UTC).isoformat()[: 10 if budget.period == "day" else 7]


def _end_of(budget: Budget, now: datetime) -> datetime | None:
    """When that period is over."""
    if budget.period == "total":
        return None
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if budget.period == "day":
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


class Hold:
    """What is put aside for one request. Who never settles it has spent all of it."""

    __slots__ = ("_purse", "units")

    def __init__(self, purse: "_Purse | None", units: int) -> None:
        self._purse = purse
        self.units = units

    @property
    def amount(self) -> float:
        """In dollars or nats."""
        return self.units / 1e9

    def settle(self, spent: float) -> None:
        """Gives back what was not spent, or takes what was spent beyond. Only the first call counts.

        What is no amount counts as all that was put aside.
        """
        purse, self._purse = self._purse, None
        if purse is not None:
            purse.holds -= 1
            purse.block += self.units - (nano(spent) if 0.0 <= spent <= _MOST else self.units)


class _Purse:
    """One budget for one period, as far as this process has it."""

    __slots__ = (
        "_block",
        "budget",
        "dry_units",
        "dry_until_s",
        "end",
        "filling",
        "holds",
        "limit",
        "mark",
        "period",
        "waiting",
    )

    def __init__(self, budget: Budget, now: datetime) -> None:
        self.budget = budget
        self.limit = nano(budget.limit)
        self.period = period_of(budget, now)
        self.end = _end_of(budget, now)
        self.mark: Cell | None = None  # by which others know the block, should this process die
        self._block = 0
        self.holds = 0
        self.waiting: deque[tuple[int, int, asyncio.Future[Hold]]] = deque()  # for how much, at least
        self.filling: asyncio.Task[None] | None = None
        self.dry_units = 0  # the most that was to be had ...
        self.dry_until_s = -math.inf  # ... as far as is known until then

    @property
    def block(self) -> int:
        """Leased and neither held nor spent; below 0 it is spent and not yet leased."""
        return self._block

    @block.setter
    def block(self, units: int) -> None:
        self._block = units
        if self.mark is not None:
            self.mark.suggest(units)

    @property
    def share(self) -> int:
        return -(-self.limit // _SHARES)

    def hold(self, units: int) -> Hold:
        self.block -= units
        self.holds += 1
        return Hold(self, units)

    def serve(self) -> int:
        """Gives to those who wait, first come first served. Returns what the rest lack together."""
        while self.waiting:
            units, _, future = self.waiting[0]
            if not future.done():  # else it was cancelled
                if units > self.block:
                    rest = sum(units for units, _, future in self.waiting if not future.done())
                    return rest - self.block
                future.set_result(self.hold(units))
            self.waiting.popleft()
        return 0

    def dismiss(self, refusal: Callable[[int], ManymindsError]) -> None:
        """Gives to those who wait for what is there, or are content with it, and refuses the others."""
        waiting, self.waiting = self.waiting, deque()
        for units, least, future in waiting:
            if future.done():
                continue
            if least <= self.block:
                future.set_result(self.hold(min(units, self.block)))
            else:
                future.set_exception(refusal(units))


class Budgets:
    """The purses of all budgets.

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
        self._purses: dict[str, _Purse] = {}  # by the budget's id
        self._retired: list[_Purse] = []  # of periods and budgets that are over
        self._under_way: set[asyncio.Task[None]] = set()
        self._failing = False  # has the ledger, and that was logged

    def replace(self, budgets: Mapping[str, Budget], of: Collection[str] | None = None) -> None:
        """Takes over budgets that changed, by id; of all, or of those. Blocks go back at the next lease."""
        for purse in [p for p in self._purses.values() if of is None or p.budget.id in of]:
            budget = budgets.get(purse.budget.id)
            if budget and (budget.limit, budget.period) == (purse.budget.limit, purse.budget.period):
                purse.budget = budget
            else:
                self._retire(self._purses.pop(purse.budget.id))

    async def reserve(self, budget: Budget, amount: float) -> Hold:
        """Puts that much aside. A caller that is cancelled meanwhile leaves it all there.

        Raises:
            BudgetError: there is not as much left.
            UnavailableError: it needs a lease, and the ledger failed or does not answer.
        """
        return await self.reserve_up_to(budget, amount, amount)

    async def reserve_up_to(self, budget: Budget, most: float, least: float) -> Hold:
        """Puts `most` aside, or what is left where that is at least `least`. See `reserve`."""
        purse, units = self._purse(budget), nano(most)
        if units > purse.block or purse.waiting:
            return await self._wait(purse, units, units if least == most else nano(least))
        if purse.block > _PLENTY * purse.share:
            self._fill(purse)
        return purse.hold(units)

    def _purse(self, budget: Budget) -> _Purse:
        """That of the present period."""
        now = self._now()
        purse = self._purses.get(budget.id)
        if purse is None or (purse.end is not None and now >= purse.end):
            if purse is not None:
                self._retire(purse)
            purse = self._purses[budget.id] = _Purse(budget, now)
            self._mark(purse)
        return purse

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
            await self._give_back(purse.budget.id, purse.period, spare)
        except Exception as error:
            log.warning("What is left of the budget of %r was not given back: %s", purse.budget.name, error)

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

    def _is_elsewhere(self, purse: _Purse, units: int) -> bool:
        """Whether all together have that much in hand, which the ledger does not know."""
        if self._board is None or self._recall is None:
            return False
        marks = (self._marked(column, purse.budget.id) for column in range(self._board.columns))
        return sum(max(0, mark.hint) for mark in marks if mark is not None) >= units

    def _marked(self, column: int, key_id: str, *, make: bool = False) -> Cell | None:
        """By which all know what a process has in its purse."""
        return self._board.cell(f"purse {column} {key_id}", make=make) if self._board else None

    def _mark(self, purse: _Purse) -> None:
        if (mark := self._marked(self._column, purse.budget.id, make=True)) is not None:
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

    async def _wait(self, purse: _Purse, units: int, least: int) -> Hold:
        known_dry = least > purse.dry_units and self._clock() < purse.dry_until_s
        if least > purse.limit or (known_dry and not purse.waiting and not self._is_elsewhere(purse, least)):
            if least <= purse.block:  # which has come back since
                return purse.hold(min(units, purse.block))
            raise self._refusal(purse, units)
        units = min(units, purse.limit)
        future: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        purse.waiting.append((units, least, future))
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

        It belongs to the budget: a request that ends must not take along what the ledger is about to grant.
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
                    await self._give_back(purse.budget.id, purse.period, spare)
                    purse.dry_until_s = -math.inf  # there is that much again
                else:
                    break
        except Exception as error:
            self._complain(f"No lease of the budget of {purse.budget.name!r}: {error}")
            purse.dismiss(lambda _: _unavailable(purse))
        finally:
            purse.filling = None

    async def _lease_for(self, purse: _Purse, wanted: int) -> None:
        granted = await self._lease(purse.budget.id, purse.period, wanted, purse.limit)
        self._failing = False
        purse.block += granted
        if granted < wanted and self._recall is not None and purse.serve():
            await self._recall(purse.budget.id)
            if wanted := purse.serve():  # others may have had from here what there was
                granted = await self._lease(purse.budget.id, purse.period, wanted, purse.limit)
                purse.block += granted
        if granted < wanted:
            purse.dismiss(lambda units: self._refusal(purse, units))
            purse.dry_units, purse.dry_until_s = max(0, purse.block), self._clock() + _DRY_S

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
                    await self._give_back(purse.budget.id, purse.period, left)
                elif left < 0:
                    granted = await self._lease(purse.budget.id, purse.period, -left, purse.limit)
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

    def _refusal(self, purse: _Purse, units: int) -> BudgetError:
        budget, left, limit = purse.budget, _said(purse, max(0, purse.block)), _said(purse, purse.limit)
        period = "ever" if purse.end is None else purse.period
        if budget.unit == "usd":
            message = (
                f"The key {budget.name!r} has spent or reserved all but {left} of its {limit} for {period}, "
                f"and this request may cost {_said(purse, units)}. Lower max_tokens, ask for a cheaper policy"
            )
        elif budget.unit == "rho":
            message = f"The source {budget.name!r} has told all but {left} of the {limit} that it may"
        else:
            message = (
                f"The source {budget.name!r} has given or set aside all but {left} of the {limit} by which "
                f"it moves answers for {period}. Ask for others"
            )
        if purse.end is None:
            return BudgetError(f"{message}, or ask {_owner(budget)} for more.")
        return BudgetError(
            f"{message}, or wait until {purse.end:%Y-%m-%d %H:%M} UTC.",
            retry_after_s=max(0.0, (purse.end - self._now()).total_seconds()),
        )


def _unavailable(purse: _Purse) -> UnavailableError:
    return UnavailableError(
        f"The ledger does not answer, and without it the {'key' if purse.budget.unit == 'usd' else 'source'} "
        f"{purse.budget.name!r} can spend none of its budget: try again.",
        retry_after_s=_DRY_S,
    )


def _owner(budget: Budget) -> str:
    return "the node's owner" if budget.unit == "usd" else "its owner"


def _said(purse: _Purse, units: int) -> str:
    """An amount in words, exactly."""
    whole, rest = divmod(units, 10**9)
    digits = f"{rest:09d}".rstrip("0")
    unit = purse.budget.unit
    if unit == "usd":
        return f"${whole}.{digits:0<2}"
    return f"{whole}.{digits} {unit}" if digits else f"{whole} {unit}"
