"""The upstream and the load generator: small C programs of `benchmarks/gateway`, compiled when needed.

They are in the repository, not in the installed package.
"""

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from manyminds.errors import ManymindsError
from manyminds.evals.speed.machine import Cores, cpu_s, memory_mb, running

__all__ = ["Load", "Sample", "Target", "Tools", "Upstream", "build"]

_SOURCES = Path(__file__).resolve().parents[4] / "benchmarks" / "gateway"


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the load generator counted in `seconds`; times are [p50, p99], None where there were none."""

    seconds: float
    answered: int
    chunks: int
    total: int  # with the warm-up and what was answered after the end
    errors: int  # of the total
    latency_us: tuple[float, float] | None
    first_us: tuple[float, float] | None  # from the request to its first chunk
    delay_us: tuple[float, float] | None  # from a chunk's leaving the upstream to its arrival
    chunks_per_s: tuple[float, float] | None  # within one stream
    cpu_s: float | None = None  # what the target took in these seconds
    memory_mb: tuple[float, float] | None = None  # of the target at their begin and end

    def per(self, count: int) -> float | None:
        """CPU microseconds of the target for each of `count`."""
        return 1e6 * self.cpu_s / count if self.cpu_s is not None and count else None


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers on a port of this machine. Without a process there is no CPU time."""

    name: str
    port: int
    pid: int | None = None
    key: str = "none"


@dataclass(frozen=True, slots=True)
class Load:
    """How to ask: over so many connections, `per_s` requests a second or, with 0, as many as it can."""

    body: bytes
    connections: int
    per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """What stands behind every target: models whose names say how they answer."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self) -> dict[str, int]:
        """How often each model has been asked so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as reply:
            return {str(name): int(count) for name, count in json.load(reply).items()}


@dataclass(frozen=True, slots=True)
class Tools:
    """The compiled programs in `folder`, and the cores that they run on."""

    folder: Path
    cores: Cores

    @contextmanager
    def upstream(self) -> Iterator[Upstream]:
        """Runs until the block ends."""
        with running([str(self.folder / "upstream")], self.cores.rest, self.folder) as process:
            assert process.stdout is not None
            yield Upstream(int(process.stdout.readline()))

    def ask(self, target: Target, load: Load, seconds: float, warm_up_s: float) -> tuple[Sample, str]:
        """Loads a target; with what it said to the first request that failed.

        Raises: ManymindsError when the target goes away.
        """
        words = [target.port, load.connections, seconds, warm_up_s, load.per_s, target.key]
        errors = self.folder / "load.log"
        errors.write_bytes(b"")
        command = [str(self.folder / "load"), *map(str, words)]
        with running(command, self.cores.rest, self.folder, errors=errors) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(load.body)
            process.stdin.close()
            taken = []
            line = process.stdout.readline()
            while line in (b"begin\n", b"end\n"):
                if target.pid is not None:
                    taken.append((cpu_s(target.pid), memory_mb(target.pid)))
                line = process.stdout.readline()
        said = errors.read_text("utf-8", "replace").strip()
        if not line:
            raise ManymindsError(f"{target.name} could not be measured: {said or 'it went away'}")
        sample = msgspec.json.decode(line, type=Sample)
        if len(taken) == 2:
            (before, memory_before), (after, memory_after) = taken
            memory = (memory_before, memory_after)
            sample = msgspec.structs.replace(sample, cpu_s=after - before, memory_mb=memory)
        return sample, said


def build(folder: Path, cores: Cores, sources: Path = _SOURCES) -> Tools:
    """Compiles both into `folder`. Raises: ManymindsError where the sources or a compiler are missing."""
    if not (sources / "upstream.c").exists():
        raise ManymindsError("The load generator is in the repository only: run this from a checkout.")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise ManymindsError("The load generator needs a C compiler: install gcc or clang, or set CC.")
    for name in ("upstream", "load"):
        command = [compiler, "-O2", "-o", str(folder / name), str(sources / f"{name}.c")]
        errors = folder / "cc.log"
        environ = os.environ | {"TMPDIR": str(folder)}
        with running(command, cores.rest, folder, environ=environ, errors=errors) as process:
            failed = process.wait()
        if failed:
            said = errors.read_text("utf-8", "replace").strip()
            raise ManymindsError(f"{name}.c cannot be compiled: {said[:500]}")
    return Tools(folder, cores)
