"""Answers kept in memory: bounded in number, bytes and age, each for the key of the caller who asked.

Knows no expert, no router and no file, and starts no task: whoever asks it does so from one thread.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from manyminds.cache.identity import identify, is_repeatable, lone_question, setting
from manyminds.cache.wording import wording
from manyminds.types import Chunk, Citation, Query, Report, Usage

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["POLICIES", "SIMILARITY", "Cache", "Hit", "Lookup"]

POLICIES: Final = ("auto", "max", "cheap", "fast")
"""Whose answers are kept unless one says otherwise. `pass` is an expert asked by name; `private` never is:
its noise is paid for each time, and must be drawn each time."""

SIMILARITY: Final = 0.94
"""Least cosine of two questions in the same words, as `manyminds bench cache` learns it of the encoder."""

_NEVER: Final = "private"
_LARGEST: Final = 16  # answers of this share of all room at most: one must not drive out the others
_SAME_WORDS: Final = 8  # entries of one wording at most that differ in what does not count
_WHOLE: Final = ("stop", "tool_calls", "function_call")  # the other ends are cuts, and refusals of a filter
_USEFUL: Final = ("ok", "cancelled")  # calls of a panel that was heard as it was meant to be

_ENTRY_BYTES: Final = 3_000  # about: keys, dictionaries, the report and its tuples
_CHUNK_BYTES: Final = 300
_LINE_BYTES: Final = 500  # of the panel, without its text
_CITATION_BYTES: Final = 2_000  # with its words


def _cited(report: Report) -> list[Citation]:
    """All that an answer cites, and what those do who say otherwise."""
    conflicts = report.conflicts or ()
    return [*(report.citations or ()), *(citation for other in conflicts for citation in other.citations)]


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer found. `similarity` is None for the very same request, else the questions' cosine."""

    chunks: tuple[Chunk, ...]
    text: str
    age_s: float
    similarity: float | None = None

    @property
    def report(self) -> Report:
        report = self.chunks[-1].report
        assert report is not None
        return report


@dataclass(frozen=True, slots=True)
class _Entry:
    chunks: tuple[Chunk, ...]
    sources: frozenset[str]
    born_s: float
    size_bytes: int
    wording: tuple[bytes, tuple[str, ...]] | None
    vector: "Vectors | None"


class Cache:
    """Answers by request. A lookup costs what hashing the request does, however many there are.

    Args:
        entries: how many answers at most.
        most_bytes: how many bytes of them at most, as estimated.
        ttl_s: how old an answer may be.
        similarity: least cosine of a question that was asked in the same words but for those that ask for
            nothing; None finds only the very same request.
        policies: whose answers are kept; `pass` stands for experts that are asked by name.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        entries: int,
        most_bytes: int,
        ttl_s: float,
        *,
        similarity: float | None = None,
        policies: Collection[str] = POLICIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_entries = entries
        self._most_bytes = most_bytes
        self._ttl_s = ttl_s
        self._similarity = similarity
        self._policies = frozenset(policies) - {_NEVER}
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the one used last is last
        self._born: dict[bytes, None] = {}  # the oldest is first
        self._worded: dict[tuple[bytes, tuple[str, ...]], list[bytes]] = {}
        self._generation = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, query: Query, policy: str, *, read: bool = True) -> "Lookup | None":
        """What a request has to do with the cache; None for nothing.

        Args:
            query: with all of its limits filled in, as they will be kept.
            policy: that it is answered by, `pass` for an expert asked by name.
            read: False asks anew, and keeps the new answer in place of the old one.
        """
        if policy not in self._policies or not is_repeatable(query):
            return None
        try:
            return Lookup(self, query, policy, identify(query, policy), self._generation, read=read)
        except UnicodeEncodeError:  # half of a surrogate pair
            return None

    def forget(self, source: str) -> int:
        """Drops every answer that this source had a part in, if only a vote; returns how many. O(n).

        Nor will one be kept that is under way now.
        """
        self._generation += 1
        gone = [key for key, entry in self._entries.items() if source in entry.sources]
        for key in gone:
            self._drop(key)
        return len(gone)

    def clear(self) -> None:
        """Drops everything, and what is under way: when experts, their terms or what was learnt change."""
        self._generation += 1
        self._entries.clear()
        self._born.clear()
        self._worded.clear()
        self.size_bytes = 0

    # --- for a lookup ---

    def _find(self, key: bytes, *, stream: bool) -> _Entry | None:
        self._expire()
        entry = self._entries.get(key)
        if entry is None or (stream and entry.chunks[0].whole):  # one piece cannot be streamed
            return None
        self._entries.move_to_end(key)
        return entry

    def _nearest(
        self, words: tuple[bytes, tuple[str, ...]], vector: "Vectors", *, stream: bool
    ) -> tuple[_Entry, float] | None:
        self._expire()
        best: tuple[float, bytes] | None = None
        for key in self._worded.get(words, ()):
            entry = self._entries[key]
            if entry.vector is None or (stream and entry.chunks[0].whole):
                continue
            cosine = float(entry.vector @ vector)
            if self._similarity is not None and cosine >= self._similarity:
                best = max(best, (cosine, key)) if best else (cosine, key)
        if best is None:
            return None
        self._entries.move_to_end(best[1])
        return self._entries[best[1]], best[0]

    def _keep(self, key: bytes, entry: _Entry, generation: int) -> bool:
        if generation != self._generation or entry.size_bytes > self._most_bytes // _LARGEST:
            return False
        self._drop(key)
        self._expire()
        self._entries[key] = entry
        self._born[key] = None
        self.size_bytes += entry.size_bytes
        if entry.wording is not None:
            same = self._worded.setdefault(entry.wording, [])
            same.append(key)
            if len(same) > _SAME_WORDS:
                self._drop(same[0])
        while len(self._entries) > self._most_entries or self.size_bytes > self._most_bytes:
            self._drop(next(iter(self._entries)))
        return key in self._entries

    def _expire(self) -> None:
        now_s = self._clock()
        while self._born:
            key = next(iter(self._born))
            if now_s - self._entries[key].born_s < self._ttl_s:
                return
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        del self._born[key]
        self.size_bytes -= entry.size_bytes
        if entry.wording is not None:
            same = self._worded[entry.wording]
            same.remove(key)
            if not same:
                del self._worded[entry.wording]


class Lookup:
    """One request's way past the cache: it looks, and where it finds nothing it may leave its answer.

    The answer is taken chunk by chunk, as it is sent, and kept only when it came whole.
    """

    def __init__(
        self, cache: Cache, query: Query, policy: str, key: bytes, generation: int, *, read: bool
    ) -> None:
        self._cache = cache
        self._query = query
        self._policy = policy
        self._key = key
        self._generation = generation
        self._read = read
        self._words: tuple[bytes, tuple[str, ...]] | None = None
        self._vector: Vectors | None = None
        self._chunks: list[Chunk] = []
        self._size_bytes = _ENTRY_BYTES

    def exact(self) -> Hit | None:
        """The answer to the very same request."""
        if not self._read:
            return None
        found = self._cache._find(self._key, stream=self._query.stream)
        return None if found is None else self._hit(found, None)

    def near(self, query: Query) -> Hit | None:
        """The answer to the same question in other words, and all else equal.

        Also notes how this one is worded. `query` is the same one with its task and its vector.
        """
        cache = self._cache
        if cache._similarity is None or query.vector is None or not lone_question(query):
            return None
        words = wording(query.question, query.task)
        if words is None:
            return None
        try:
            self._words = (setting(query, self._policy), words)
        except UnicodeEncodeError:
            return None
        self._vector = query.vector.copy()  # it may be a row of many
        if not self._read:
            return None
        found = cache._nearest(self._words, query.vector, stream=query.stream)
        return None if found is None else self._hit(*found)

    def take(self, chunk: Chunk) -> None:
        """A piece of the answer on its way. One that grows too large is let go of."""
        self._size_bytes += _CHUNK_BYTES + len(chunk.raw) + 4 * len(chunk.text)
        if self._size_bytes > self._cache._most_bytes // _LARGEST:
            self._chunks.clear()
        else:
            self._chunks.append(chunk)

    def keep(self) -> bool:
        """Keeps the answer that was taken, its last chunk with the report; says whether it did.

        Not one that was cut, filtered or is empty, nor one of a panel where somebody failed or was late: the
        next one would be better.
        """
        if not self._chunks:
            return False
        chunks = tuple(self._chunks)
        last, report = chunks[-1], chunks[-1].report
        said = any(chunk.text.strip() or chunk.raw for chunk in chunks)
        if last.finish_reason not in _WHOLE or report is None or not said:
            return False
        if any(line.status not in _USEFUL for line in report.panel):
            return False
        size = self._size_bytes + sum(_LINE_BYTES + 4 * len(line.answer) for line in report.panel)
        if self._words is not None and self._vector is not None:
            size += self._vector.nbytes + 100 * len(self._words[1])
        sources = {line.source for line in report.panel} | {owed.source for owed in report.attribution}
        size += _CITATION_BYTES * len(cited := _cited(report))
        sources |= {citation.source for citation in cited}
        entry = _Entry(chunks, frozenset(sources), self._cache._clock(), size, self._words, self._vector)
        return self._cache._keep(self._key, entry, self._generation)

    def _hit(self, entry: _Entry, similarity: float | None) -> Hit:
        *before, last = entry.chunks
        assert last.report is not None
        report = _again(last.report, self._query.request_id)
        usage = replace(last.usage or Usage(), cpu_s=0.0, cost_usd=0.0)
        text = "".join(chunk.text for chunk in entry.chunks)
        age_s = self._cache._clock() - entry.born_s
        return Hit((*before, replace(last, usage=usage, report=report)), text, age_s, similarity)


def _again(report: Report, request_id: str) -> Report:
    """Who answered then, and to whom it is owed; nobody was asked now, so nothing was paid or waited for."""
    panel = tuple(replace(line, ttft_s=None, seconds=0.0, cost_usd=0.0) for line in report.panel)
    saved_usd = report.saved_usd + report.cost_usd
    return replace(report, request_id=request_id, panel=panel, cost_usd=0.0, saved_usd=saved_usd, cache="hit")
