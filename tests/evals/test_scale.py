import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manyminds.evals.scale import measure

TIMES = {"p50_ms", "p95_ms", "cpu_p50_ms", "memory_mb", "built_s", "add_ms", "remove_ms"}


def unit(seed: int, count: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def test_few_are_found_exactly_and_the_same_every_time() -> None:
    told: list[float] = []
    bases, queries = unit(0, 50), unit(1, 30)
    one = measure(bases, queries, (800, 4000), 3, lambda what, share: told.append(share))
    other = measure(bases, queries, (800, 4000), 3)
    assert told
    assert [(row["kind"], row["vectors"]) for row in one["rows"]] == [
        *(("questions", 800), ("random", 800), ("questions", 4000), ("random", 4000))
    ]
    for row, again in zip(one["rows"], other["rows"], strict=True):
        assert {key: row[key] for key in row.keys() - TIMES} == {
            key: again[key] for key in row.keys() - TIMES
        }
        assert (row["recall"], row["recall_ci95"]) == (1.0, [1.0, 1.0])
        assert (row["compared"], row["considered"], row["shelves"]) == (row["vectors"], row["experts"], 0)
        assert row["touched"] == 10 / row["experts"]
    assert set(one["exponents"].values()) == {None}


def test_many_are_found_on_shelves() -> None:
    found = measure(unit(0, 500), unit(1, 30), (100_800,), 0)
    [topics, control] = found["rows"]
    assert topics["shelves"] > 1000
    assert topics["compared"] < 25 * topics["vectors"] ** 0.5
    assert topics["recall"] > 0.9
    assert control["recall"] < topics["recall"]


def test_every_key_that_is_printed_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
    table = page.partition("| `bench index --json` | |")[2]
    keys = set(re.findall(r"`([\w.]+)`", "".join(re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE))))
    found = measure(unit(0, 50), unit(1, 5), (800,))
    assert keys == {*found, *(f"rows.{key}" for key in found["rows"][0])}
