"""No limit is ever passed: by whatever number of processes, and whoever is killed."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyminds.errors import LedgerError
from manyminds.ledger import Ledger

NUMBERS = count()
MONTH = "2026-11"


def test_a_lease_is_what_is_left_at_most(ledger: Ledger) -> None:
    assert ledger.leased("k", MONTH) == 0
    assert [ledger.lease("k", MONTH, 40, 100) for _ in range(4)] == [40, 40, 20, 0]
    assert ledger.leased("k", MONTH) == 100
    assert ledger.lease("k", MONTH, 40, 90) == 0  # the limit was lowered
    assert ledger.lease("k", MONTH, 40, 110) == 10
    assert ledger.lease("k", "2026-12", 40, 100) == ledger.lease("l", MONTH, 40, 100) == 40
    assert ledger.lease("m", MONTH, 2**62, 2**62) == 2**62


def test_what_is_given_back_can_be_leased_again(ledger: Ledger) -> None:
    ledger.lease("k", MONTH, 100, 100)
    ledger.give_back("k", MONTH, 30)
    assert (ledger.leased("k", MONTH), ledger.lease("k", MONTH, 100, 100)) == (70, 30)
    for key, nusd in (("k", 101), ("l", 1)):
        with pytest.raises(LedgerError, match="more of its budget"):
            ledger.give_back(key, MONTH, nusd)
    ledger.give_back("l", MONTH, 0)
    assert ledger.leased("k", MONTH) == 100


STEP = st.tuples(st.sampled_from(["lease", "back"]), st.integers(-5, 60), st.integers(0, 150))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(steps=st.lists(STEP, max_size=12))
def test_leases_add_up(ledger: Ledger, steps: list[tuple[str, int, int]]) -> None:
    key, held = f"k{next(NUMBERS)}", 0
    for step, nusd, limit in steps:
        if step == "lease":
            granted = ledger.lease(key, MONTH, nusd, limit)
            assert granted == max(0, min(nusd, limit - held))
            held += granted
        elif nusd <= held:
            ledger.give_back(key, MONTH, nusd)
            held -= max(0, nusd)
        assert ledger.leased(key, MONTH) == held


def test_an_amount_beyond_all_money_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="cannot hold a value"):
        ledger.lease("k", MONTH, 2**70, 2**70)
    assert ledger.leased("k", MONTH) == 0


# --- several processes -----------------------------------------------------------------------------


def spend(url: str, start: Barrier, limit: int, block: int, spent: "SimpleQueue[int]") -> None:
    """Leases with three threads until nothing is left, and gives every seventh block back."""

    def work(_: int) -> int:
        total = n = 0
        while granted := ledger.lease("k", MONTH, block, limit):
            n += 1
            if n % 7 == 0:
                ledger.give_back("k", MONTH, granted)
            else:
                total += granted
        return total

    with closing(Ledger(url, busy_s=60)) as ledger:
        start.wait()
        with ThreadPoolExecutor(3) as pool:
            spent.put(sum(pool.map(work, range(3))))


def test_several_processes_never_pass_the_limit(url: str) -> None:
    Ledger(url).close()
    context = multiprocessing.get_context("spawn")
    start, spent = context.Barrier(3), context.SimpleQueue()
    limit = 1_003
    processes = [context.Process(target=spend, args=(url, start, limit, 10, spent)) for _ in range(3)]
    for process in processes:
        process.start()
    total = sum(spent.get() for _ in processes)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with closing(Ledger(url)) as ledger:
        assert total == ledger.leased("k", MONTH) == limit


def spend_on(url: str, told: Connection, limit: int) -> None:
    """Says of each block how much it got, and goes on."""
    with closing(Ledger(url, busy_s=60)) as ledger:
        while granted := ledger.lease("k", MONTH, 10, limit):
            told.send_bytes(b"%d" % granted)


@pytest.mark.skipif(os.name != "posix", reason="needs a signal that cannot be caught")
def test_a_killed_process_forfeits_its_block_at_most(url: str) -> None:
    Ledger(url).close()
    context = multiprocessing.get_context("spawn")
    limit, spent = 1_000, 0
    for kills_after in (3, 11, 10**9):
        listen, told = context.Pipe(duplex=False)
        process = context.Process(target=spend_on, args=(url, told, limit))
        process.start()
        told.close()
        for block in count(1):
            try:
                spent += int(listen.recv_bytes())
            except EOFError:
                break
            if block == kills_after:
                assert process.pid
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        listen.close()
    with closing(Ledger(url)) as ledger:
        assert ledger.leased("k", MONTH) == limit
        assert limit - 2 * 10 <= spent <= limit
