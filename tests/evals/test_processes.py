"""Work in processes of their own: begun here, ended from here."""

import signal
import subprocess
import sys
import time
from multiprocessing import active_children

import pytest

from manyminds.errors import DataError
from manyminds.evals.processes import processes
from manyminds.evals.speed.machine import tree
from tests.cli.test_bench import command_line
from tests.e2e.node import wait_until

SLEEPING = """
import time
from manyminds.evals.processes import processes

if __name__ == "__main__":
    with processes() as begin:
        begin(time.sleep, 600).result()
"""


def test_what_is_begun_is_done() -> None:
    with processes() as begin:
        found = [begin(pow, 2, i) for i in range(5)]
        assert [one.result() for one in found] == [1, 2, 4, 8, 16]


def test_an_error_passes_and_ends_what_still_runs() -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match="wrong"), processes() as begin:
        begin(time.sleep, 600)
        raise DataError("wrong")
    assert time.monotonic() - began < 300
    assert active_children() == []


def test_an_error_in_another_process_is_that_error() -> None:
    with pytest.raises(ZeroDivisionError), processes() as begin:
        begin(divmod, 1, 0).result()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_started_them_takes_them_along(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPING]) as run:
        assert wait_until(lambda: any(b"spawn_main" in command_line(pid) for pid in tree(run.pid)), 60)
        started = tree(run.pid)
        run.send_signal(number)
        assert run.wait(60) == -number
    assert wait_until(lambda: not any(map(command_line, started)), 60)
