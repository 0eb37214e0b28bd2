"""What the cache adds to a request, and what it holds. Knows no gateway: the answers are made up."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.cache import Cache
from manyminds.types import Chunk, Key, Limits, Message, PanelEntry, Query, Report, Usage

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["measure"]


def measure(entries: int, runs: int) -> dict[str, Any]:
    """Median µs of what the cache adds to a request, and bytes it holds, with so many made-up answers."""
    draw = np.random.default_rng(0)
    cache = Cache(entries, 2**40, 1e9, similarity=0.8)
    vectors = draw.normal(size=(entries, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = [_made_up(i, vectors[i]) for i in range(entries)]
    chunks = [Chunk("word " * 40) for _ in range(10)]
    for query in queries:
        _left(cache, query, chunks)
    asked = [queries[i] for i in draw.integers(entries, size=runs)]
    unknown = [_made_up(entries + i, vectors[i % entries]) for i in range(runs)]

    def exact(query: Query) -> None:
        lookup = cache.lookup(query, "auto")
        assert lookup is not None
        lookup.exact()

    def near(query: Query) -> None:
        lookup = cache.lookup(query, "auto")
        assert lookup is not None
        lookup.near(query)

    return {
        "entries": entries,
        "bytes_each": cache.size_bytes // entries,
        "exact_hit_us": _median_us(exact, asked),
        "exact_miss_us": _median_us(exact, unknown),
        "near_hit_us": _median_us(near, asked),
        "near_miss_us": _median_us(near, unknown),
        "keep_us": _median_us(lambda query: _left(cache, query, chunks), unknown),
    }


def _made_up(number: int, vector: "Vectors") -> Query:
    text = f"How do the tides of the {number}th harbour change when the moon is full in autumn?"
    raw = b'{"model":"auto","messages":[{"role":"user","content":"%s"}],"max_tokens":256}' % text.encode()
    message, key = Message("user", text), Key("key", "somebody")
    return Query((message,), limits=Limits("auto", deadline_s=60.0), raw=raw, key=key, vector=vector)


def _left(cache: Cache, query: Query, chunks: Sequence[Chunk]) -> None:
    lookup = cache.lookup(query, "auto")
    assert lookup is not None
    lookup.near(query)
    for chunk in chunks:
        lookup.take(chunk)
    line = PanelEntry("expert", "source", 1.0, "word", 0.9, 0.1, 1.0, 0.001, "ok")
    report = Report("id", "auto", "vote", (line,), 1.0, 0.9, (), 0.001, 0.0)
    lookup.take(Chunk("", "stop", Usage(20, 100), report=report))
    lookup.keep()


def _median_us(call: Callable[[Query], None], queries: Sequence[Query]) -> float:
    took = []
    gc.disable()
    try:
        for query in queries:
            began = time.perf_counter()
            call(query)
            took.append(time.perf_counter() - began)
    finally:
        gc.enable()
    return round(1e6 * statistics.median(took), 1)
