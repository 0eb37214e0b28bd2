"""A ledger that goes away under load and comes back: nothing that was answered is lost, nothing overspent."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest

from manyminds.errors import LedgerError
from manyminds.ledger import Ledger
from tests.e2e.node import Served, served, wait_until
from tests.faults.network import (
    WORD_USD,
    Client,
    Faulty,
    Load,
    books,
    configured,
    crowd,
    figure,
    logged,
    made,
    upstream,
)
from tests.ledger import postgres
from tests.ledger.conftest import server
from tests.ledger.samples import record

__all__ = ["server"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

BUDGET_USD = 10.0
SHARE_USD = BUDGET_USD / 100
ANSWER_USD = 3 * WORD_USD
TOLD = "Requests wait in memory until it can be written."
AWAY = "The ledger does not answer, and without it the key 'ann' can spend none of its budget: try again."


class Place:
    """A node whose ledger is at `url`, with a key that has a budget and one that has none."""

    def __init__(self, folder: Path, node: Served, url: str, keys: dict[str, tuple[str, str]]) -> None:
        self.folder, self.node, self.url = folder, node, url
        self.clients = {name: Client(node, secret) for name, (_, secret) in keys.items()}
        self._ids = {name: key_id for name, (key_id, _) in keys.items()}

    def written(self) -> bool:
        return figure(self.node, "ledger_queued") == 0

    def check(self, *loads: Load, outages: int) -> None:
        """Ends the node. Every answer is in the ledger once; budgets are exact but for a block an outage."""
        assert wait_until(self.written)
        assert figure(self.node, "ledger_dropped") == figure(self.node, "in_flight") == 0
        self.node.process.send_signal(signal.SIGTERM)
        assert self.node.process.wait(timeout=20) == 0
        for name, key_id in self._ids.items():
            found = books(self.url, key_id)
            assert found.count == len(found.rows)
            assert found.rows.keys() == {request for load in loads for request in load.ids(name)}
            if name == "poor":
                forfeited = found.leased_usd - found.spent_usd
                assert -1e-7 < forfeited < outages * SHARE_USD + 1e-7
                assert found.leased_usd <= BUDGET_USD
        log = logged(self.folder)
        assert log.count(TOLD) <= outages
        assert log.count("The ledger can be written again; 0 requests were lost so far.") <= outages
        assert log.count("No lease for the key 'ann'") <= outages
        assert "Traceback" not in log


@contextmanager
def serving(folder: Path, url: str) -> Iterator[Place]:
    with upstream() as faulty:
        keys = keyed(folder, faulty, url, BUDGET_USD)
        with served(folder, "--tier", "none") as node:
            yield Place(folder, node, url, keys)


def keyed(folder: Path, faulty: Faulty, url: str, budget_usd: float) -> dict[str, tuple[str, str]]:
    """Writes a configuration, and makes the keys."""
    configured(folder, faulty, ["well=20", "talk=5"], f'[ledger]\nurl = "{url}"\n')
    return {"poor": made(url, budget_usd), "free": made(url)}


def refusals(load: Load) -> set[tuple[int, str, str | None]]:
    """What those without an answer were told, and when to try again."""
    every = [got for replies in load.replies.values() for got in replies if got.status != 200]
    return {(got.status, got.error["message"], got.headers.get("retry-after")) for got in every}


# --- PostgreSQL ------------------------------------------------------------------------------------


def test_postgresql_is_restarted_under_load(tmp_path: Path, server: postgres.Server) -> None:
    with serving(tmp_path, server.new()) as place:
        with Load(place.clients, "well-20") as load:
            assert load.more("poor")
            server.stop("immediate")
            server.start()
            assert load.more("poor")
            server.stop("immediate")
            assert wait_until(lambda: figure(place.node, "ledger_queued") > 100)
            assert load.more("poor", 503)
            server.start()
            assert load.more("poor")
            assert wait_until(place.written)
        assert (load.broken, load.count("free")) == (0, len(load.replies["free"]))
        assert refusals(load) == {(503, AWAY, "1")}
        place.check(load, outages=2)
    assert TOLD in logged(tmp_path)


@contextmanager
def frozen(server: postgres.Server) -> Iterator[None]:
    """It takes connections and requests, and answers nothing; as when its disk hangs."""
    with closing(psycopg.connect(server.url("postgres"))) as connection:
        status = Path(f"/proc/{connection.info.backend_pid}/status").read_text()
    first = int(status.partition("PPid:")[2].split()[0])
    every = [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
    for pid in every:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in every:
            os.kill(pid, signal.SIGCONT)


def test_postgresql_that_answers_nothing_holds_nobody_up_for_ever(
    tmp_path: Path, server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    leasing, ending = (Ledger(server.new(), busy_s=0.0) for _ in range(2))
    record(ending)
    ending.flush()
    assert leasing.lease("k", "total", 1, 2) == 1
    with serving(tmp_path, server.new()) as place, ThreadPoolExecutor() as pool:
        with Load(place.clients, "well-20") as load:
            assert load.more("poor")
            with frozen(server):
                record(ending, "s")
                leased, closed = pool.submit(leasing.lease, "k", "total", 1, 2), pool.submit(ending.close)
                assert load.more("poor", 503, times=2)
                assert load.more("free")
                with pytest.raises(LedgerError, match="cannot be reached"):
                    leased.result()
                closed.result()
            assert load.more("poor")
        assert load.count("free") == len(load.replies["free"])
        assert refusals(load) == {(503, AWAY, "1")}
        place.check(load, outages=1)
    assert "1 requests are lost: the ledger was closed before they were written." in caplog.text
    leasing.close()


# --- a full disk -----------------------------------------------------------------------------------

Fill = Callable[[Path, int], Callable[[], object]]
"""Leaves a ledger in that folder, of that process, no room. Returns what gives it back."""


def fill_disk(folder: Path, pid: int) -> Callable[[], object]:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler.unlink


def limit_files(folder: Path, pid: int) -> Callable[[], object]:
    """No file may grow any further."""
    largest = max(file.stat().st_size for file in folder.iterdir())
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    return partial(resource.prlimit, pid, resource.RLIMIT_FSIZE, before)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Fill]]:
    """A small disk where this user may mount one; else a folder, whose files can be kept from growing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        yield folder, limit_files
        return
    yield folder, fill_disk
    subprocess.run(["umount", str(folder)], check=True)


def test_the_disk_is_full_under_load(tmp_path: Path, disk: tuple[Path, Fill]) -> None:
    folder, fill = disk
    with serving(tmp_path, f"sqlite:///{folder / 'ledger.db'}") as place:
        with Load(place.clients, "well-20") as load:
            assert load.more("poor")
            free = fill(folder, place.node.pid)
            assert wait_until(lambda: figure(place.node, "ledger_queued") > 100)
            assert load.more("poor", 503)
            assert load.more("free")
            free()
            assert load.more("poor")
            assert wait_until(place.written)
        assert (load.broken, load.count("free")) == (0, len(load.replies["free"]))
        assert refusals(load) == {(503, AWAY, "1")}
        place.check(load, outages=1)
    assert TOLD in logged(tmp_path)


# --- the gateway is killed -------------------------------------------------------------------------


def test_killed_under_load_it_loses_what_was_not_yet_written_and_overspends_nothing(tmp_path: Path) -> None:
    url, budget_usd = f"sqlite:///{tmp_path}/ledger.db", 2.0
    with upstream() as faulty:
        key_id, secret = keyed(tmp_path, faulty, url, budget_usd)["poor"]
        with served(tmp_path, "--tier", "none") as node:
            client = Client(node, secret)
            streams = [client.begin("talk-5") for _ in range(8)]
            with Load({"poor": client}, "well-20") as load:
                assert load.more("poor", times=30)
                seen = set(load.ids("poor"))
                assert wait_until(lambda: figure(node, "ledger_queued") == 0)
                node.process.kill()
                node.process.wait(timeout=20)
        assert [stream.end() for stream in streams] == [None] * 8
        assert wait_until(lambda: faulty.stats()["under_way"] == faulty.stats()["connections"] == 0)
        found, answers = books(url, key_id), load.ids("poor")
        assert found.count == len(found.rows)
        assert seen <= found.rows.keys()
        assert len(found.rows.keys() - set(answers)) <= 3, "more than had their reply on its way"
        assert len(answers) * ANSWER_USD <= found.leased_usd <= budget_usd
        with served(tmp_path, "--tier", "none") as node:
            after = crowd(Client(node, secret), [{"model": "well-20"}] * 30)
        assert {got and got.status for got in after} == {200}
        found = books(url, key_id)
        assert (len(answers) + len(after)) * ANSWER_USD <= found.leased_usd <= budget_usd
