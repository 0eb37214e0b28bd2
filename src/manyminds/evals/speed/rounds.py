"""The speed of the gateway and of its peers: every case in turn, again and again, on a core of its own.

Knows no wire format: what is asked is in `cases`, who is asked in `targets`. `measure` finds:

- `seconds` of each measurement, `runs` of each, `cores` of this machine, and `apart`: whether what was
  measured had one of them alone.
- `targets`: true for each that was measured, null for one that is not here.
- `rows`, one per case and target:
  - `unit`: what is counted, requests or the chunks of streams; `per_s`: how many of it.
  - `p50_ms`: of a request, its time; of a chunk, its delay; of fuse50, the time to its first token.
  - `added_p50_ms`: what of that is not the upstream's. fanout8 is compared with one voter, fuse50 with the
    slowest draft and then the fuser's first token.
  - `cpu_us`: CPU time of the target's processes, for each unit; `memory_mb`: what they hold at the end.
  - `pace`: tokens per second within a stream, as a share of what they are without a gateway.
  - `asked_per_request`: models asked; `requests`: warm-up included; `errors` among these.
  Figures are {median, min, max} over the runs, null where there are none.
- `times_litellm`: requests per second on pass_64 over those of litellm's best run; `of_nginx_per_cpu_s`:
  requests per CPU second on pass_64 as a share of nginx's.
- `requests` that manyminds was sent in all, and its `ledger_rows`.
"""

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from manyminds.errors import ManymindsError
from manyminds.evals.speed.cases import (
    FANOUT,
    FUSE,
    FUSER,
    PASS_MODELS,
    PASSES,
    VOTER,
    Case,
    drafters,
    voters,
)
from manyminds.evals.speed.machine import divide_cores
from manyminds.evals.speed.targets import Model, count_rows, find_nginx, litellm, manyminds, nginx
from manyminds.evals.speed.tools import Load, Sample, Target, Tools, Upstream, build

__all__ = ["Say", "measure", "soak", "spread"]

Say = Callable[[str], None]
"""Takes a sentence for people."""

_WARM_UP_S = 0.3
_PROBE_S = 2.0  # in which a soak finds out what is half of the load; it warms up, too
_SETTLED_S = 60.0  # a soak that is shorter tells nothing of growing memory
_GROWTH_MB = 5.0  # from then on, at most


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Median, minimum and maximum of what is there, to four figures after the point; None without any."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    middle = statistics.median(there)
    return {"median": round(middle, 4), "min": round(min(there), 4), "max": round(max(there), 4)}


@dataclass(slots=True)
class _Bench:
    """What is shared by all measurements, and what they found: samples by case and target, one per run."""

    tools: Tools
    upstream: Upstream
    folder: Path
    seconds: float
    say: Say
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    asked: dict[tuple[str, str], int] = field(default_factory=dict)
    complained: set[tuple[str, str]] = field(default_factory=set)

    def ask(self, case: Case, target: Target) -> None:
        """One run of a case, with what the upstream was asked in it."""
        key = (case.name, target.name)
        before = sum(self.upstream.asked().values())
        sample, said = self.tools.ask(target, case.load, self.seconds, _WARM_UP_S)
        self.samples.setdefault(key, []).append(sample)
        self.asked[key] = self.asked.get(key, 0) + sum(self.upstream.asked().values()) - before
        if sample.errors and key not in self.complained:
            self.complained.add(key)
            self.say(f"{target.name} failed {sample.errors} of {sample.total} on {case.name}: {said}")

    @property
    def direct(self) -> Target:
        return Target("direct", self.upstream.port)

    @contextmanager
    def network(self, name: str, models: Sequence[Model]) -> Iterator[Target]:
        """A node of this package with these models; its ledger can be read when it has ended."""
        with manyminds(self.folder / name, models, self.upstream, self.tools.cores) as target:
            yield target

    def figures(
        self, case: Case, target: str, figure: Callable[[Sample], float | None]
    ) -> list[float | None]:
        """A figure of each run."""
        return [figure(sample) for sample in self.samples[case.name, target]]

    def row(
        self,
        case: Case,
        target: str,
        *,
        unit: Literal["request", "chunk"] = "request",
        time: Callable[[Sample], float | None],
        without: Sequence[float | None],
        pace: Sequence[float | None] = (),
    ) -> dict[str, Any]:
        """`without`: what `time` is without a gateway, in each run; empty for what has none."""
        samples = self.samples[case.name, target]
        times = [time(sample) for sample in samples]
        added = [
            a - b if a is not None and b is not None else None for a, b in zip(times, without, strict=False)
        ]
        counts = [s.answered if unit == "request" else s.chunks for s in samples]
        total = sum(s.total for s in samples)
        return {
            "case": case.name,
            "target": target,
            "unit": unit,
            "per_s": spread([n / s.seconds if n else None for n, s in zip(counts, samples, strict=True)]),
            "p50_ms": spread(times),
            "added_p50_ms": spread(added),
            "cpu_us": spread([s.per(n) for n, s in zip(counts, samples, strict=True)]),
            "pace": spread(pace),
            "memory_mb": spread([s.memory_mb[1] if s.memory_mb else None for s in samples]),
            "asked_per_request": round(self.asked[case.name, target] / total, 4) if total else None,
            "requests": total,
            "errors": sum(s.errors for s in samples),
        }


def _latency_ms(sample: Sample) -> float | None:
    return sample.latency_us[0] / 1e3 if sample.latency_us else None


def _delay_ms(sample: Sample) -> float | None:
    return sample.delay_us[0] / 1e3 if sample.delay_us else None


def _first_ms(sample: Sample) -> float | None:
    return sample.first_us[0] / 1e3 if sample.first_us else None


def _pace(sample: Sample) -> float | None:
    return sample.chunks_per_s[0] if sample.chunks_per_s else None


def measure(
    seconds: float,
    runs: int,
    litellm_program: str | None,
    say: Say,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """All figures; see above. A peer that is not here is left out, and `say` is told why.

    Raises: ManymindsError where the load generator cannot be built, or the node does not start or goes away.
    """
    with _bench(seconds, say) as bench:
        here = _passes(bench, runs, litellm_program, progress)
        _fanouts(bench, runs, progress)
        _fuses(bench, runs, progress)
        rows = [*_pass_rows(bench, here), *_fanout_rows(bench), _fuse_row(bench)]
        ledger_rows = sum(count_rows(bench.folder / name) for name in ("pass", "fanout", "fuse"))
        cores = bench.tools.cores
    sent = [row["requests"] for row in rows if row["target"] == "manyminds"]
    return {
        "seconds": seconds,
        "runs": runs,
        "cores": len(cores.measured | cores.rest),
        "apart": cores.apart,
        "targets": {
            name: True if name in here else None for name in ("direct", "manyminds", "nginx", "litellm")
        },
        "rows": rows,
        **_ratios(rows),
        "requests": sum(sent),
        "ledger_rows": ledger_rows,
    }


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    by_target = {row["target"]: row for row in rows if row["case"] == "pass_64"}
    ours, peer, yardstick = (by_target.get(name) for name in ("manyminds", "litellm", "nginx"))
    times = share = None
    if ours and peer and ours["per_s"] and peer["per_s"]:
        times = round(ours["per_s"]["median"] / peer["per_s"]["max"], 1)
    if ours and yardstick and ours["cpu_us"] and yardstick["cpu_us"] and ours["cpu_us"]["median"]:
        share = round(yardstick["cpu_us"]["median"] / ours["cpu_us"]["median"], 4)
    return {"times_litellm": times, "of_nginx_per_cpu_s": share}


@contextmanager
def _bench(seconds: float, say: Say) -> Iterator[_Bench]:
    if not hasattr(os, "sched_getaffinity"):
        raise ManymindsError(
            "The gateway is measured on Linux only: cores and CPU times are read from its kernel."
        )
    cores = divide_cores(os.sched_getaffinity(0))
    if not cores.apart:
        say(
            "There is one core: the gateway shares it with the load generator, and wall-clock times are high."
        )
    with tempfile.TemporaryDirectory() as name:
        tools = build(Path(name), cores)
        with tools.upstream() as upstream:
            yield _Bench(tools, upstream, Path(name), seconds, say)


# --- one model -------------------------------------------------------------------------------------


def _passes(
    bench: _Bench, runs: int, litellm_program: str | None, progress: Callable[[str, float], None]
) -> list[str]:
    """Names of the targets, all of which run while each is measured in turn."""
    with ExitStack() as stack:
        targets = [bench.direct, stack.enter_context(bench.network("pass", PASS_MODELS))]
        targets += _peers(bench, stack, litellm_program)
        for run in range(runs):
            for i, case in enumerate(PASSES):
                progress("pass through", (run + i / len(PASSES)) / runs)
                for target in targets:
                    bench.ask(case, target)
        progress("pass through", 1.0)
    return [target.name for target in targets]


def _peers(bench: _Bench, stack: ExitStack, litellm_program: str | None) -> list[Target]:
    """Those that are here and start."""
    found = []
    cores, upstream = bench.tools.cores, bench.upstream
    program = find_nginx()
    if program is None:
        bench.say("nginx is not here, so it is not compared: install it.")
    else:
        found.append(nginx(bench.folder / "nginx", program, upstream, cores))
    if litellm_program is None:
        bench.say("litellm is not compared: name its program with --litellm PATH.")
    else:
        found.append(litellm(bench.folder / "litellm", litellm_program, PASS_MODELS, upstream, cores))
    targets = []
    for peer in found:
        try:
            targets.append(stack.enter_context(peer))
        except (ManymindsError, OSError) as error:
            bench.say(f"A peer is left out: {error}")
    return targets


def _pass_rows(bench: _Bench, here: Sequence[str]) -> Iterator[dict[str, Any]]:
    for case in PASSES:
        time = _delay_ms if case.stream else _latency_ms
        unit: Literal["request", "chunk"] = "chunk" if case.stream else "request"
        without = bench.figures(case, "direct", time)
        for target in here:
            yield bench.row(case, target, unit=unit, time=time, without=() if target == "direct" else without)


# --- many models -----------------------------------------------------------------------------------


def _fanouts(bench: _Bench, runs: int, progress: Callable[[str, float], None]) -> None:
    with bench.network("fanout", voters()) as target:
        for run in range(runs):
            progress("fan-out of 8", run / runs)
            bench.ask(VOTER, bench.direct)
            for case in FANOUT:
                bench.ask(case, target)
    progress("fan-out of 8", 1.0)


def _fanout_rows(bench: _Bench) -> Iterator[dict[str, Any]]:
    without = bench.figures(VOTER, "direct", _latency_ms)
    for case in FANOUT:
        yield bench.row(case, "manyminds", time=_latency_ms, without=without)


def _fuses(bench: _Bench, runs: int, progress: Callable[[str, float], None]) -> None:
    models, slowest = drafters()
    with bench.network("fuse", models) as target:
        for run in range(runs):
            progress("fifty and a fuser", run / runs)
            bench.ask(slowest, bench.direct)
            bench.ask(FUSER, bench.direct)
            bench.ask(FUSE, target)
    progress("fifty and a fuser", 1.0)


def _fuse_row(bench: _Bench) -> dict[str, Any]:
    """A draft is needed whole, the fuser's first token is enough."""
    _, slowest = drafters()
    drafts = bench.figures(slowest, "direct", _latency_ms)
    firsts = bench.figures(FUSER, "direct", _first_ms)
    without = [a + b if a and b else None for a, b in zip(drafts, firsts, strict=True)]
    alone, behind = (bench.figures(*where, _pace) for where in ((FUSER, "direct"), (FUSE, "manyminds")))
    pace = [a / b if a and b else None for a, b in zip(behind, alone, strict=True)]
    return bench.row(FUSE, "manyminds", time=_first_ms, without=without, pace=pace)


# --- a long time -----------------------------------------------------------------------------------


def soak(seconds: float, say: Say) -> dict[str, Any]:
    """Half of the load that it bears, for so long: memory, errors, ledger rows against requests.

    `memory_growth_mb` is from the end of the warm-up, which is at full load, to the last request. `missed`
    says in sentences which of its goals were not met: no error, a row for every request, little growth.

    Raises: as `measure`.
    """
    case = PASSES[1]
    with _bench(min(seconds, _PROBE_S), say) as bench:
        with bench.network("soak", PASS_MODELS[:1]) as target:
            bench.ask(case, target)
            (probe,) = bench.samples[case.name, target.name]
            per_s = max(1.0, probe.answered / probe.seconds / 2)
            say(f"{per_s:,.0f} requests a second for {seconds:g} s, half of what it bears")
            half = Load(case.load.body, case.load.connections, per_s)
            sample, said = bench.tools.ask(target, half, seconds, _WARM_UP_S)
        if sample.errors:
            say(f"{sample.errors} of {sample.total} failed: {said}")
        rows = count_rows(bench.folder / "soak")
    assert sample.memory_mb is not None
    start_mb, end_mb = sample.memory_mb
    p50_us, p99_us = sample.latency_us or (None, None)
    requests, errors = probe.total + sample.total, probe.errors + sample.errors
    return {
        "seconds": round(sample.seconds, 3),
        "per_s": round(sample.answered / sample.seconds, 1),
        "p50_ms": p50_us and round(p50_us / 1e3, 3),
        "p99_ms": p99_us and round(p99_us / 1e3, 3),
        "cpu_us": (cpu_us := sample.per(sample.answered)) and round(cpu_us, 1),
        "memory_start_mb": round(start_mb, 2),
        "memory_end_mb": round(end_mb, 2),
        "memory_growth_mb": round(end_mb - start_mb, 2),
        "requests": requests,
        "errors": errors,
        "ledger_rows": rows,
        "missed": list(_missed(requests, errors, rows, end_mb - start_mb if seconds >= _SETTLED_S else 0.0)),
    }


def _missed(requests: int, errors: int, rows: int, growth_mb: float) -> Iterator[str]:
    """The goals of a soak that were not met, in sentences."""
    if errors:
        yield f"{errors:,} of {requests:,} requests failed."
    if rows != requests:
        yield f"The ledger has {rows:,} rows of {requests:,} requests."
    if growth_mb >= _GROWTH_MB:
        yield f"Memory grew by {growth_mb:.1f} MB, which is not less than {_GROWTH_MB:g} MB."
