"""Trains lessons, and reads texts with what was trained, in one process a core; says how far all are.

Each runs on one thread, so what comes out does not depend on how many run at once.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.managers import DictProxy
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from experiments.specialists.training import Lesson

__all__ = ["Reading", "Tell", "cores", "read_all", "train_all"]

_LOOK_S: Final = 1.0

Tell: TypeAlias = Callable[[str, float], None]
"""Hears what is being done, and the share of it that is done."""


class Reading(NamedTuple):
    """Texts for a trained model: see `scoring.likelihoods`."""

    lesson: "Lesson"
    texts: tuple[bytes, ...]
    source: int | None
    kept: Path


def train_all(lessons: Sequence["Lesson"], folder: Path, tell: Tell, processes: int | None = None) -> None:
    """Trains all that are not yet in `folder`. Who starts from another's weights waits for it.

    Ended by Ctrl-C it ends its processes; what they kept is where the next run goes on.

    Raises: whatever a lesson raises; the others are then ended, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = {lesson.stem: lesson for lesson in lessons if not (folder / f"{lesson.stem}.pt").is_file()}
    costs = {lesson.stem: lesson.flops for lesson in lessons}
    total = sum(costs.values()) or 1.0
    count, spawn = processes or cores(), multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, _processes(count) as pool:
        shares: DictProxy[str, float] = manager.dict()
        running: dict[Future[None], str] = {}
        while todo or running:
            for stem in [stem for stem, lesson in todo.items() if _ready(lesson, folder)]:
                running[pool.submit(_train, todo.pop(stem), folder, shares)] = stem
            if not running:
                raise ValueError(f"{sorted(todo)} start from what nobody trains")
            ended, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
                del running[future]
            tell("train", _done(costs, todo, running, dict(shares)) / total)
    tell("train", 1.0)


def read_all(readings: Sequence[Reading], folder: Path, tell: Tell, processes: int | None = None) -> None:
    """Reads all that is not yet kept. Raises: as `train_all`."""
    todo = [reading for reading in readings if not reading.kept.is_file()]
    with _processes(processes or cores()) as pool:
        running = {pool.submit(_read, reading, folder) for reading in todo}
        while running:
            ended, running = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
            tell("read held-out texts", 1.0 - len(running) / len(todo))


def cores() -> int:
    """That this process may use."""
    return max(1, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """They end with the block, at once where that fails."""
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_alone) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise


def _ready(lesson: "Lesson", folder: Path) -> bool:
    return not lesson.start or (folder / f"{lesson.start}.pt").is_file()


def _done(
    costs: Mapping[str, float],
    todo: Mapping[str, object],
    running: Mapping[Future[None], str],
    shares: Mapping[str, float],
) -> float:
    open_ = {*todo, *running.values()}
    return sum(cost * (shares.get(stem, 0.0) if stem in open_ else 1.0) for stem, cost in costs.items())


def _alone() -> None:
    """One thread, no report of Ctrl-C: the process that began it ends it."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _train(lesson: "Lesson", folder: Path, shares: "DictProxy[str, float]") -> None:
    from experiments.specialists.training import train

    def tell(share: float) -> None:
        shares[lesson.stem] = share

    train(lesson, folder, tell)


def _read(reading: Reading, folder: Path) -> None:
    from experiments.specialists.scoring import likelihoods
    from experiments.specialists.training import load

    likelihoods(load(reading.lesson, folder).model, reading.texts, reading.source, reading.kept)
