"""Group commit on its own: nothing is lost or doubled, whatever the database does."""

import logging
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import LedgerError
from manyminds.ledger.writer import Writer


@dataclass
class Disk:
    """Fails as told, one try after another, before or after it has taken the batch."""

    failures: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    away: bool = False

    def write(self, batch: Sequence[int]) -> int:
        failure = self.failures.pop() if self.failures else ""
        if self.away or failure == "before":
            raise LedgerError("The disk is away.")
        self.kept += [item for item in batch if item not in self.kept]
        if failure == "after":
            raise LedgerError("Nobody knows whether it was written.")
        self.batches.append(len(batch))
        return sum(item < 0 for item in batch)


def writer(disk: Disk, window_s: float = 0.0, drain_s: float = 60.0) -> Writer[int]:
    return Writer(disk.write, window_s, drain_s)


@given(
    st.lists(st.sampled_from(["", "flush"]), max_size=30),
    st.lists(st.sampled_from(["", "before", "after"]), max_size=3),
)
def test_everything_is_kept_once_and_in_order(puts: list[str], failures: list[str]) -> None:
    disk = Disk(failures)
    with closing(writer(disk)) as opened:
        for item, then in enumerate(puts):
            opened.put(item, 1)
            if then:
                opened.flush()
                assert disk.kept == list(range(item + 1))
    assert disk.kept == list(range(len(puts)))
    assert (opened.backlog.queued, opened.backlog.written, opened.backlog.dropped) == (0, len(puts), 0)


def test_a_window_is_one_transaction() -> None:
    disk = Disk()
    with closing(writer(disk, window_s=3600)) as opened:
        for item in range(100):
            opened.put(item, 1)
        assert opened.backlog.queued == 100
        opened.flush()
        assert disk.batches == [100]
        opened.put(100, 1)
    assert disk.batches == [100, 1]


def test_threads_may_put_and_flush_at_once() -> None:
    disk = Disk()

    def work(first: int) -> None:
        for item in range(first, first + 200):
            opened.put(item, 1)
            if item % 50 == 0:
                opened.flush()
                assert item in disk.kept

    with closing(writer(disk)) as opened:
        threads = [threading.Thread(target=work, args=(i * 1000,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(disk.kept) == [i * 1000 + j for i in range(4) for j in range(200)]


def test_trouble_is_told_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(["before"] * 3)
    with caplog.at_level(logging.WARNING), closing(writer(disk)) as opened:
        opened.put(1, 1)
        opened.flush()
        assert opened.backlog.error is None
    assert [r.getMessage() for r in caplog.records] == [
        "The disk is away. Requests wait in memory until it can be written.",
        "The ledger can be written again; 0 requests were lost so far.",
    ]


def test_what_waits_is_bounded_and_the_newest_are_dropped() -> None:
    disk = Disk(away=True)
    with closing(writer(disk)) as opened:
        for item in range(100_002):
            opened.put(item, 1)
        with pytest.raises(LedgerError, match="The disk is away"):
            opened.flush(0.2)
        backlog = opened.backlog
        assert (backlog.queued, backlog.written, backlog.dropped) == (100_000, 0, 2)
        assert backlog.error == "The disk is away."
        disk.away, disk.kept = False, _Set()
    assert len(disk.kept) == 100_000
    assert 100_000 not in disk.kept
    assert (opened.backlog.queued, opened.backlog.written, opened.backlog.dropped) == (0, 100_000, 2)


class _Set(list[int]):
    """A list that is quick to ask."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[int] = set()

    def __contains__(self, item: object) -> bool:
        return item in self._seen

    def __iadd__(self, items: Sequence[int]) -> "_Set":  # type: ignore[override,misc]
        self._seen.update(items)
        self.extend(items)
        return self


def test_what_waits_is_bounded_in_bytes() -> None:
    disk = Disk(away=True)
    with closing(writer(disk)) as opened:
        for item, size in enumerate((60_000_000, 5_000_000, 4_000_000, 1)):
            opened.put(item, size)
        assert (opened.backlog.queued, opened.backlog.dropped) == (2, 2)
        disk.away = False
        opened.flush()
        opened.put(4, 64_000_000)
    assert disk.kept == [0, 2, 4]


def test_what_is_refused_counts_as_dropped() -> None:
    with closing(writer(Disk())) as opened:
        for item in (1, -1, 2):
            opened.put(item, 1)
    assert (opened.backlog.written, opened.backlog.dropped) == (2, 1)


def test_closing_gives_up_where_the_database_stays_away(caplog: pytest.LogCaptureFixture) -> None:
    opened = writer(Disk(away=True), drain_s=0.0)
    opened.put(1, 1)
    opened.close()
    opened.close()
    assert (opened.backlog.queued, opened.backlog.dropped) == (0, 1)
    assert "1 requests are lost" in caplog.text
    opened.flush()
    with pytest.raises(LedgerError, match="closed"):
        opened.put(2, 1)


def test_nothing_is_started_for_nothing() -> None:
    before = threading.active_count()
    opened = writer(Disk())
    opened.flush()
    assert threading.active_count() == before
    opened.close()
