"""Those who mean ill on the same network: what of it is believed, and what requests cost meanwhile."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from manyminds.evals.attacker import KINDS
from manyminds.evals.fleet import Fleet, Running, says
from manyminds.evals.times import slower, spread

__all__ = ["compared", "measure"]

_BEGUN_S: Final = 1.0  # for which an attack lasts, or has ended, before anything is timed


def measure(
    fleet: Fleet, asker: Running, victim: Running, port: int, asked: int, seed: int
) -> dict[str, Any]:
    """Each kind of attack by Zenoh, while another node is asked.

    Args:
        fleet: of both nodes.
        asker: asks the victim.
        victim: whose cards and answers are attacked.
        port: where others join it.
        asked: questions that are timed while an attack lasts, and without it.
        seed: of intervals.
    """
    listed = asker.get("/v1/experts")["data"]
    node = next(expert["model"] for expert in listed if expert["name"] == victim.name)
    shown = fleet.keep("victim.json", victim.raw("/.well-known/agent-card.json"))
    found: dict[str, Any] = {}
    for kind in KINDS:
        before = asker.experts()
        news: list[int] = []
        found[kind] = compared(
            lambda: says(asker, victim.name).startswith("B)"),
            lambda kind=kind: fleet.running("manyminds.evals.attacker", kind, str(port), node, str(shown)),  # type: ignore[misc]
            asked,
            seed,
            at_end=lambda news=news, before=before: news.append(len(asker.experts() - before)),  # type: ignore[misc]
        )
        found[kind]["new_experts"] = news[0]
    return found


def compared(
    ask: Callable[[], bool],
    attack: Callable[[], AbstractContextManager[None]],
    asked: int,
    seed: int,
    *,
    pause_s: float = 0.0,
    at_end: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Latency while an attack lasts, and just before and after it, when nobody attacks.

    Args:
        ask: an honest request: whether it was answered rightly.
        attack: begins it; it ends with the block.
        asked: requests meanwhile, and as many half before and half after it.
        seed: of the interval.
        pause_s: before each of them.
        at_end: called while the attack still lasts.
    """

    def times(count: int) -> tuple[list[float], int]:
        found, wrong = [], 0
        for _ in range(count):
            time.sleep(pause_s)
            began = time.perf_counter()
            wrong += not ask()
            found.append(1000 * (time.perf_counter() - began))
        return found, wrong

    before, _ = times(asked - asked // 2)
    with attack():
        time.sleep(_BEGUN_S)
        attacked, wrong = times(asked)
        at_end()
    time.sleep(_BEGUN_S)
    after, _ = times(asked // 2)
    quiet = before + after
    share, *interval = slower(quiet, attacked, seed)
    return {
        "wrong_or_none": wrong,
        "quiet_ms": spread(quiet),
        "attacked_ms": spread(attacked),
        "slower_p50": share,
        "slower_p50_interval": interval,
    }
