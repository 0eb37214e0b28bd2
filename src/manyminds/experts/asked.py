"""One way of asking an expert, as an expert of its own.

What a small model gets right depends on how it is asked: for its word alone, which is cheap; to think step
by step (chain of thought: Wei et al. 2022); to write a program that finds the answer, which is then run
(program of thoughts: Chen et al. 2022; PAL: Gao et al. 2022); once, or several times with the most frequent
answer (self-consistency: Wang et al. 2022). So the router may choose the way as it chooses the model.

Knows no kind of expert: it asks whatever it wraps. Prose, code and JSON, which are not compared, are passed
on as they are asked for.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from manyminds import sandbox
from manyminds.canonical import answer_of
from manyminds.errors import DataError, GarbageError, RefusedError
from manyminds.experts.prompts import FORMS, By, examples, wish
from manyminds.types import (
    Card,
    Chunk,
    Expert,
    Message,
    Query,
    Sampler,
    Samples,
    Scorer,
    Scores,
    Task,
    Usage,
)
from manyminds.wire import at_temperature

__all__ = ["WAYS", "Asked", "Way", "changes", "variant"]

_NUMBER: Final = 'root ::= "-"? [0-9]{1,20} ("." [0-9]{1,12})? ("/" [0-9]{1,12})?'
_LINE: Final = "root ::= [^ \\n] [^\\n]{0,80}"
_BLOCK: Final = re.compile(r"(?s)```[^\n]*\n(.*?)(?:```|\Z)")
_WORDS: Final = re.compile(r"[\w\s'’.,-]{1,80}")
"""No program, but an answer."""
_YES_NO: Final = re.compile(r"(?i)\byes\b.{0,10}\bno\b")
_IMPORTS: Final = (
    "import collections, datetime, fractions, itertools, math, re, string\n"
    "from datetime import date, timedelta\n"
    "from math import ceil, comb, factorial, floor, gcd, isqrt, lcm, log, perm, pi, prod, sqrt\n"
)
"""Before every program: models forget them."""


class Way(Struct, frozen=True):
    """How an expert is asked. `samples` are answers that it gives independently, of which most count."""

    name: str
    by: By
    max_tokens: int  # of one answer
    samples: int = 1
    temperature: float = 0.0
    top_p: float | None = None


WAYS: Final[Mapping[str, Way]] = MappingProxyType(
    {
        way.name: way
        for way in (
            Way("direct", "word", 48),
            Way("code", "code", 160),
            Way("code3", "code", 160, samples=3, temperature=0.7, top_p=0.95),
            Way("cot", "steps", 224),
            Way("cot3", "steps", 224, samples=3, temperature=0.7, top_p=0.95),
        )
    }
)
"""By name."""


def variant(name: str) -> tuple[str, str] | None:
    """The expert and the way of which `name` is made, as in "qwen:cot"; None where it is not."""
    base, colon, way = name.rpartition(":")
    return (base, way) if base and colon and way in WAYS else None


def changes(task: Task) -> bool:
    """Whether an expert is asked in other words than the caller's. The other kinds are passed on."""
    return task.kind in FORMS


class Asked:
    """An expert that asks another in one way; keeps the contracts of `types.Expert` and `types.Scorer`.

    Args:
        expert: who is asked. Rated options and several samples need one that offers them.
        way: how.
        run: a program to what it comes to; see `sandbox.value_of`.
    """

    def __init__(
        self,
        expert: Expert,
        way: Way,
        *,
        run: Callable[[str], Any] = sandbox.value_of,
    ) -> None:
        base = expert.card
        offers = base.offers - {"tools", "image", "n", "samples"}
        self._expert, self._way, self._run = expert, way, run
        self._sampler = expert if "samples" in base.offers and isinstance(expert, Sampler) else None
        self._card = replace(
            base,
            name=f"{base.name}:{way.name}",
            variant_of=base.name,
            source=base.source or base.name,
            offers=offers,
        )

    @property
    def card(self) -> Card:
        return self._card

    def way(self, task: Task) -> Way | None:
        """How it asks on such a task; None where it passes the question on.

        Thinking aloud and programs serve to find numbers and short answers. Options are rated in every way,
        or where that is not offered, chosen.
        """
        if not changes(task):
            return None
        return WAYS["direct"] if task.kind == "option" else self._way

    @property
    def open_until(self) -> float | None:
        """Whoever cannot be asked, cannot be asked in any way. See `experts.guarded`."""
        until: float | None = getattr(self._expert, "open_until", None)
        return until

    def note_slow(self) -> None:
        """See `experts.guarded`."""
        if (note := getattr(self._expert, "note_slow", None)) is not None:
            note()

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        if self._card.tasks and query.task.kind not in self._card.tasks:
            raise RefusedError(
                f"{self._card.name} only answers tasks of kind {', '.join(sorted(self._card.tasks))}."
            )
        way = self.way(query.task)
        if way is not None and (way.samples > 1 or way.by == "code" or (self._sampler and way.by == "word")):
            yield await self._find(query, way)
            return
        asked = _calm(query) if way is None else self._put(query, way)
        async with aclosing(self._expert.stream(asked)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def score(self, query: Query, options: Sequence[str]) -> Scores:
        """See `types.Scorer`."""
        if not isinstance(self._expert, Scorer):
            raise RefusedError(f"{self._card.name} cannot rate options.")
        return await self._expert.score(query, options)

    def wish(self, task: Task) -> str:
        """All that is added to a question, "" where it is passed on as it is."""
        way = self.way(task)
        if way is None:
            return ""
        shown = [text for example in examples(way.by, task.kind) for text in example]
        return "\n\n".join([*shown, wish(way.by, task.kind)])

    def _put(self, query: Query, way: Way) -> Query:
        """The question, asked in this way; what the caller has set is kept."""
        sampling = query.sampling
        messages = list(query.messages)
        last = max(i for i, message in enumerate(messages) if message.role == "user")
        messages[last] = Message("user", f"{messages[last].text}\n\n{wish(way.by, query.task.kind)}")
        first = next(i for i, message in enumerate(messages) if message.role not in ("system", "developer"))
        messages[first:first] = [
            Message(role, text)
            for example in examples(way.by, query.task.kind)
            for role, text in zip(("user", "assistant"), example, strict=True)
        ]
        most = way.max_tokens if sampling.max_tokens is None else min(way.max_tokens, sampling.max_tokens)
        sampling = replace(
            sampling,
            max_tokens=most,
            temperature=way.temperature if sampling.temperature is None else sampling.temperature,
            top_p=way.top_p if sampling.top_p is None else sampling.top_p,
            seed=0 if sampling.seed is None else sampling.seed,
            grammar=sampling.grammar or (self._grammar(query.task) if way.by == "word" else ""),
        )
        return replace(query, messages=tuple(messages), sampling=sampling, raw=b"")

    def _grammar(self, task: Task) -> str:
        if "grammar" not in self._card.offers:
            return ""
        match task.kind:
            case "option":
                return f"root ::= [A-{chr(ord('A') + max(len(task.options), 2) - 1)}]"
            case "number":
                return _NUMBER
            case _:
                return _LINE

    async def _find(self, query: Query, way: Way) -> Chunk:
        """What most of its answers come to, in the words of the first of these.

        Its confidence is the share of these; of one answer alone, how likely the expert found its own words.
        A tie goes to whoever came first. Where no program gives an answer, what was said in words is taken,
        or it is asked for its word alone.
        """
        found = await self._ask(self._put(query, way), way.samples)
        ended = zip(found.texts, found.finish_reasons, strict=True)
        said = texts = [text if reason == "stop" else "" for text, reason in ended]
        if way.by == "code":
            texts = list(await asyncio.gather(*(self._ran(query, text) for text in said)))
        read = [answer_of(query.task, text) for text in texts]
        counts = Counter(answer for answer in read if answer is not None)
        if counts:
            best, count = counts.most_common(1)[0]  # of equal ones the first
            first = read.index(best)
            sure = count / len(read) if len(read) > 1 else _likelihood(found)
            return Chunk(texts[first], "stop", found.usage, confidence=sure)
        if way.by == "code":
            words = [text for text in said if _WORDS.fullmatch(text) and answer_of(query.task, text)]
            if words:
                return Chunk(words[0], "stop", found.usage, confidence=0.0)
            word = await self._ask(self._put(query, WAYS["direct"]), 1)
            usage = _sum(found.usage, word.usage)
            return Chunk(word.texts[0], word.finish_reasons[0], usage, confidence=0.0)
        return Chunk(found.texts[0], found.finish_reasons[0], found.usage, confidence=0.0)

    async def _ask(self, query: Query, count: int) -> Samples:
        """Raises: ExpertError."""
        if self._sampler is not None:  # which says how likely it finds its words
            found = await self._sampler.sample(query, count)
            if not len(found.texts) == len(found.finish_reasons) == count:
                raise GarbageError(f"{self._card.name} gave {len(found.texts)} answers instead of {count}.")
            return found
        if count > 1:
            raise RefusedError(f"{self._card.name} cannot be asked several times at once.")
        text, last = "", Chunk()
        async with aclosing(self._expert.stream(query)) as chunks:
            async for chunk in chunks:
                text, last = text + chunk.text, chunk
        return Samples((text,), (last.finish_reason or "cut",), last.usage or Usage())

    async def _ran(self, query: Query, text: str) -> str:
        """The program in a text, with what it came to; "" where that is no answer.

        Raises: RefusedError, where programs cannot be run here.
        """
        blocks = _BLOCK.findall(text)
        program = blocks[0] if blocks else text
        try:
            value = await asyncio.to_thread(self._run, _IMPORTS + program)
        except DataError as error:
            raise RefusedError(f"{self._card.name} cannot be asked: {error.message}") from None
        answer = _written(value, query.question)
        return f"```python\n{program.strip()}\n```\n\nAnswer: {answer}" if answer else ""


def _calm(query: Query) -> Query:
    """Without chance, unless the caller wants it: small models err more the more they are left to it."""
    return query if query.sampling.temperature is not None else at_temperature(query, 0.0)


def _written(value: Any, question: str) -> str:
    """A program's result as a person would write it, in a line; "" where it is none."""
    match value:
        case bool():
            yes, no = ("yes", "no") if _YES_NO.search(question) else ("true", "false")
            return yes if value else no
        case float():
            return f"{value:.12g}" if math.isfinite(value) else ""
        case int():
            return str(value) if abs(value) < 10**40 else ""
        case str():
            return " ".join(value.split())[:200]
        case list() | tuple() if value and all(isinstance(part, int | float | str) for part in value):
            return ", ".join(_written(part, question) for part in value)[:200]
        case _:
            return ""


def _likelihood(found: Samples) -> float | None:
    """Of the only answer, in [0, 1]."""
    return math.exp(found.log_likelihoods[0]) if found.log_likelihoods else None


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cpu_s + other.cpu_s,
        one.cost_usd + other.cost_usd,
    )
