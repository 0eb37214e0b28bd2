"""A ledger of leases in memory, and time that passes when it is told to."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from manyminds.admission import Admission, digest
from manyminds.errors import LedgerError
from manyminds.types import Key

SECRET = "mm-alice"
NANO = 10**9


@dataclass
class Time:
    """Seconds and dates, which go on together."""

    s: float = 1000.0
    start: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def clock(self) -> float:
        return self.s

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.s - 1000.0)

    def pass_s(self, seconds: float) -> None:
        self.s += seconds


@dataclass
class FakeLedger:
    """Grants durably before it answers, as the real one does. `delay_s` is in the loop's time."""

    delay_s: float = 0.0
    away: bool = False
    leased: Counter[tuple[str, str]] = field(default_factory=Counter)  # by key id and period
    asked: list[tuple[str, str, int, int]] = field(default_factory=list)
    returned: list[tuple[str, str, int]] = field(default_factory=list)

    async def lease(self, key_id: str, period: str, want_nusd: int, limit_nusd: int) -> int:
        assert want_nusd > 0
        self.asked.append((key_id, period, want_nusd, limit_nusd))
        if self.away:
            raise LedgerError("The ledger is locked.")
        granted = min(want_nusd, max(0, limit_nusd - self.leased[key_id, period]))
        self.leased[key_id, period] += granted
        await asyncio.sleep(self.delay_s)
        if self.away:
            raise LedgerError("The answer was lost.")
        return granted

    async def give_back(self, key_id: str, period: str, nusd: int) -> None:
        assert nusd > 0
        if self.away:
            raise LedgerError("The ledger is locked.")
        self.returned.append((key_id, period, nusd))
        self.leased[key_id, period] -= nusd
        assert self.leased[key_id, period] >= 0, "more given back than was leased"
        await asyncio.sleep(self.delay_s)


def key(name: str = "alice", **fields: Any) -> Key:
    return Key(id=f"k-{name}", name=name, **fields)


def door(
    keys: Mapping[bytes, Key] | Key,
    ledger: FakeLedger | None = None,
    time: Time | None = None,
    open: bool = False,  # noqa: A002
    most_at_once: int = 100,
    **shared: Any,
) -> Admission:
    ledger, time = ledger or FakeLedger(), time or Time()
    return Admission(
        {digest(SECRET): keys} if isinstance(keys, Key) else keys,
        open=open,
        most_at_once=most_at_once,
        lease=ledger.lease,
        give_back=ledger.give_back,
        clock=time.clock,
        now=time.now,
        **shared,
    )


ALICE = key(budget_usd=1.0)
MONTH = ("k-alice", "2026-11")  # in which Time begins


async def spend(admission: Admission, usd: float, spent_usd: float | None = None) -> None:
    (await admission.reserve(ALICE, usd)).settle(usd if spent_usd is None else spent_usd)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
