"""Milliseconds, and how they spread. Knows not what took them."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["rounded", "slower", "spread", "timed"]

_RESAMPLES = 2000


def timed(do: Callable[[], Any]) -> float:
    """Milliseconds that it takes."""
    began = time.perf_counter()
    do()
    return 1000 * (time.perf_counter() - began)


def spread(times_ms: Sequence[float], *, longest: bool = False) -> dict[str, float]:
    """Median and 99th percentile; if `longest`, also the longest. Of at least one."""
    ordered = sorted(times_ms)
    found = {
        "p50": rounded(statistics.median(ordered)),
        "p99": rounded(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]),
    }
    return found | {"longest": rounded(ordered[-1])} if longest else found


def slower(before_ms: Sequence[float], after_ms: Sequence[float], seed: int) -> tuple[float, float, float]:
    """By what share the median grew, and the ends of its 95% interval.

    The percentile interval of a bootstrap (Efron and Tibshirani 1993, chapter 13) that draws from both.
    Same seed, same interval.
    """
    before, after = np.asarray(before_ms), np.asarray(after_ms)
    draw = np.random.default_rng(seed)

    def medians(times: Any) -> Any:
        return np.median(times[draw.integers(len(times), size=(_RESAMPLES, len(times)))], axis=1)

    low, high = np.quantile(medians(after) / medians(before) - 1.0, [0.025, 0.975])
    share = float(np.median(after) / np.median(before)) - 1.0
    return rounded(share), rounded(float(low)), rounded(float(high))


def rounded(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")
