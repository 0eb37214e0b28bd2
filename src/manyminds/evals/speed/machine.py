"""Processes on cores of their own: starting, ending, and what they take. Reads /proc, so Linux only."""

import os
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "cpu_s", "divide_cores", "memory_mb", "on_cores", "running", "tree"]

_END_S = 20.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Where what is measured runs, and where everything else does; the same where there is one core."""

    measured: frozenset[int]
    rest: frozenset[int]

    @property
    def apart(self) -> bool:
        """Whether nothing else runs on the core of what is measured."""
        return not self.measured & self.rest


def divide_cores(cores: Collection[int]) -> Cores:
    """One core, the last, for what is measured; the others for the rest. `cores` is not empty."""
    measured = frozenset({max(cores)})
    return Cores(measured, frozenset(cores) - measured or measured)


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """This thread, and what it starts, runs on these cores within."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str],
    cores: Collection[int],
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    errors: Path | None = None,
    output: Path | None = None,
) -> "Iterator[subprocess.Popen[bytes]]":
    """A process on these cores, in `folder`, that ends with the block, and all that it started with it.

    Ctrl-C does not reach it: it ends when the block does. Its standard error goes to the file `errors`, its
    standard output to `output`, by default a pipe.
    """
    with ExitStack() as stack:
        log = stack.enter_context((errors or folder / "errors.log").open("ab"))
        out = stack.enter_context(output.open("ab")) if output else subprocess.PIPE
        stack.enter_context(on_cores(cores))
        process = subprocess.Popen(  # noqa: S603  # commands of our own
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Asks the process to end, then makes it and what it left behind."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


def tree(pid: int) -> list[int]:
    """The process with all that it started and that still runs; empty once it has ended."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        with suppress(OSError):
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            found.append(one)
            for task in tasks:
                with suppress(OSError):
                    waiting += map(int, (task / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of the process with all that it started; exact to 0.01 s each."""
    ticks = 0
    for one in tree(pid):
        with suppress(OSError):  # it has just ended
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Resident memory of the process with all that it started, in MB (1e6 bytes)."""
    pages = 0
    for one in tree(pid):
        with suppress(OSError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
