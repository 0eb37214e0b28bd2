"""`manyminds bench private`: attacks our own private answers, and mechanisms that are broken on purpose.

A distinguishing game, thousands of times: one source is replaced by another, all others and the question are
of the adversary's choice, and he sees what is released. If he tells the two worlds apart better than epsilon
and delta allow, the claim is refuted: P(E | one world) ≤ e^ε P(E | other world) + δ for every event E (for
the method, Jagielski, Ullman & Oprea 2020). The event is chosen on one half of the runs and counted on the
other; the bound is what both counts allow at 95% confidence. That it stays below the claim proves nothing:
the proof does.
"""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeAlias

from manyminds.combine.private import GRAIN, counted, noised, variance_of
from manyminds.errors import DataError
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts
from manyminds.index import Index
from manyminds.privacy.accounting import most_rho
from manyminds.privacy.noise import Below, discrete_gaussian
from manyminds.private import Account, Bank
from manyminds.router import SkillRouter
from manyminds.types import Card, Hold, Limits, Message, Query

__all__ = ["Progress", "audit", "epsilon_bound"]

Progress: TypeAlias = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""

_DELTA: Final = 1e-6
_CANDIDATES: Final = 4
_OTHERS: Final = 24  # sources besides the one that is replaced; half of them for either answer
_MANY: Final = 50  # answers of the longer game
_FEWER: Final = 10  # times fewer runs where each takes many answers or calls
_CONFIDENCE: Final = 0.95
_EVENTS: Final = 200  # thresholds that are tried

_World: TypeAlias = tuple[Sequence[int | None], Sequence[int]]  # votes of all sources, and their weights
_Play: TypeAlias = Callable[[_World, Below], float]  # what the adversary makes of what he sees


@dataclass(frozen=True, slots=True)
class _Game:
    """Two worlds, what is claimed of them, and what the adversary sees of each run."""

    name: str
    sees: str
    epsilon: float
    worlds: tuple[_World, _World]
    play: _Play
    sound: bool = True
    share: int = 1  # one of so many runs is played


def audit(runs: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Plays all games. `refuted` of a sound one, or a broken one that is not `refuted`, is a failure.

    Args:
        runs: of each world; of games whose runs are long, a tenth.
        seed: of the noise, but in the game of the gateway, whose noise is the system's.
        progress: see `Progress`.

    Raises: DataError where scipy is not installed; ConfigError where dp-accounting is not.
    """
    games, rows = _games(), []
    for i, game in enumerate(games):
        progress(game.name, i / (len(games) + 1))
        below = Random(f"{seed} {game.name}").randrange  # noqa: S311 - no secret: it is to be repeated
        count = max(runs // game.share, 20)
        seen = [[game.play(world, below) for _ in range(count)] for world in game.worlds]
        rows.append(_row(game.name, game.sees, game.epsilon, seen, sound=game.sound))
    progress("gateway", len(games) / (len(games) + 1))
    rows.append(_through_a_gateway(max(runs // _FEWER, 20)))
    failed = [row["game"] for row in rows if row["refuted"] == row["sound"]]
    return {"seed": seed, "confidence": _CONFIDENCE, "delta": _DELTA, "games": rows, "failed": failed}


def epsilon_bound(seen: Sequence[Sequence[float]], delta: float, confidence: float = _CONFIDENCE) -> float:
    """The least epsilon, at `delta`, that what was seen in two worlds allows, at that confidence; 0 or more.

    Args:
        seen: figures of each run in one world and in the other, independent of each other.
        delta: of the claim.
        confidence: that the true epsilon is not below it.

    Raises: DataError where scipy is not installed.
    """
    tried = [world[: len(world) // 2] for world in seen]
    kept = [world[len(world) // 2 :] for world in seen]
    event = max(_events(tried), key=lambda event: _value(event, tried, delta, 0.9))
    return max(0.0, _value(event, kept, delta, confidence))


_Event: TypeAlias = tuple[int, float, bool]  # of which world it tells, at which figure, and from there up


def _events(seen: Sequence[Sequence[float]]) -> list[_Event]:
    """Thresholds between what was seen, in both directions, for both worlds."""
    every = sorted({*seen[0], *seen[1]})
    step = max(1, len(every) // _EVENTS)
    return [(world, at, up) for at in every[::step] for world in (0, 1) for up in (False, True)]


def _value(event: _Event, seen: Sequence[Sequence[float]], delta: float, confidence: float) -> float:
    """ln((p - δ)/q), p as small and q as large as the counts allow (Clopper & Pearson 1934)."""
    world, at, up = event
    often, seldom = (
        sum((figure >= at) if up else (figure <= at) for figure in figures)
        for figures in (seen[world], seen[1 - world])
    )
    least = _clopper(often, len(seen[world]), confidence)
    most = 1 - _clopper(len(seen[1 - world]) - seldom, len(seen[1 - world]), confidence)
    return math.log((least - delta) / most) if least > delta else -math.inf


def _clopper(count: int, runs: int, confidence: float) -> float:
    """The least probability of what came `count` times, each of two such bounds holding together."""
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise DataError("The audit needs scipy: pip install 'manyminds[private]'.") from error
    return float(beta.ppf((1 - confidence) / 2, count, runs - count + 1)) if count else 0.0


def _row(
    name: str, sees: str, epsilon: float, seen: Sequence[Sequence[float]], *, sound: bool
) -> dict[str, Any]:
    bound = epsilon_bound(seen, _DELTA)
    return {
        "game": name,
        "sees": sees,
        "sound": sound,
        "runs": len(seen[0]),
        "epsilon": epsilon,
        "epsilon_at_least": bound,
        "refuted": bound > epsilon,
    }


# --- games -----------------------------------------------------------------------------------------


def _worlds(
    vote: int | None, other: int | None, weights: Sequence[int] | None = None
) -> tuple[_World, _World]:
    """All others are split evenly between two answers: nothing makes one vote count for more."""
    split: list[int | None] = [i % 2 for i in range(_OTHERS)]
    heavy = [GRAIN] * (_OTHERS + 1) if weights is None else list(weights)
    return ([vote, *split], heavy), ([other, *split], heavy)


def _games() -> list[_Game]:
    games = []
    for epsilon in (1.0, 4.0, 8.0):
        rho = most_rho(epsilon, _DELTA)
        games += [
            _Game(f"one answer, epsilon {epsilon:g}", "answer", epsilon, _worlds(0, 1), _released(rho)),
            _Game(f"noised counts, epsilon {epsilon:g}", "counts", epsilon, _worlds(0, 1), _counts(rho)),
        ]
    rho = most_rho(4.0, _DELTA)
    light = [GRAIN, *[GRAIN // 3] * _OTHERS]
    silent = (None, *[None] * _OTHERS), [GRAIN] * (_OTHERS + 1)
    alone = (0, *[None] * _OTHERS), [GRAIN] * (_OTHERS + 1)
    games += [
        _Game("it answers or fails", "counts", 4.0, _worlds(0, None), _counts(rho)),
        _Game("it alone answers, or nobody", "counts", 4.0, (alone, silent), _counts(rho)),
        _Game("it is the heaviest", "counts", 4.0, _worlds(0, 1, light), _counts(rho)),
        _Game(
            *(f"{_MANY} answers, epsilon 8 in all", "answers", 8.0, _worlds(0, 1)),
            _released(most_rho(8.0, _DELTA) / _MANY, _MANY),
            share=_FEWER,
        ),
        _Game("broken: no noise", "answer", 4.0, _worlds(0, 1), _without_noise, sound=False),
        _Game("broken: weights that peek", "answer", 4.0, _worlds(0, 1), _peeking(rho), sound=False),
        _Game(
            "broken: weights shared anew by who answered",
            *("answer", 4.0, (alone, ([1, *[None] * _OTHERS], silent[1]))),
            _shared_anew(rho),
            sound=False,
        ),
    ]
    return games


def _released(rho: float, answers: int = 1) -> _Play:
    """How often the answer is the first candidate: all that a caller sees."""
    variance = variance_of(rho)

    def play(world: _World, below: Below) -> float:
        counts = counted(*world, _CANDIDATES)
        return sum(noised(counts, variance, below) == 0 for _ in range(answers))

    return play


def _counts(rho: float) -> _Play:
    """How far the first count is ahead of the second, noise and all: more than anybody sees."""
    variance = variance_of(rho)

    def play(world: _World, below: Below) -> float:
        first, second, *_ = counted(*world, _CANDIDATES)
        ahead = first - second + discrete_gaussian(variance, below) - discrete_gaussian(variance, below)
        return ahead / GRAIN

    return play


def _without_noise(world: _World, below: Below) -> float:
    counts = counted(*world, _CANDIDATES)
    return float(counts.index(max(counts)) == 0)


def _peeking(rho: float) -> _Play:
    """Who agrees with most of the others in this very answer counts; who does not, does not."""
    variance = variance_of(rho)

    def play(world: _World, below: Below) -> float:
        votes, weights = world
        most, _ = Counter(vote for vote in votes if vote is not None).most_common(1)[0]
        peeked = [weight if vote == most else 0 for vote, weight in zip(votes, weights, strict=True)]
        return float(noised(counted(votes, peeked, _CANDIDATES), variance, below) == 0)

    return play


def _shared_anew(rho: float) -> _Play:
    """The weight of those who did not answer goes to those who did."""
    variance = variance_of(rho)

    def play(world: _World, below: Below) -> float:
        votes, weights = world
        heard = sum(w for v, w in zip(votes, weights, strict=True) if v is not None)
        counts = [count * sum(weights) // heard for count in counted(votes, weights, _CANDIDATES)]
        return float(noised(counts, variance, below) == 0)

    return play


# --- the whole way ---------------------------------------------------------------------------------


class _Free:
    """A source's account that nobody counts."""

    def settle(self, spent_usd: float) -> None:
        """Nothing."""


async def _spend(account: Account) -> Hold:
    return _Free()


def _through_a_gateway(runs: int) -> dict[str, Any]:
    """The same game against a gateway as it answers callers, with the system's randomness."""
    text = "Which one?\nA) the first\nB) the second\nC) the third\nD) the fourth"
    query = Query((Message("user", text),), model="private", limits=Limits(epsilon=4.0, delta=_DELTA))

    async def seen(gateway: Gateway) -> float:
        async with aclosing(gateway.stream(query)) as chunks:
            return float("".join([chunk.text async for chunk in chunks]).startswith("A"))

    async def all_of(world: _World) -> list[float]:
        gateway = _gateway(["AB"[vote] for vote in world[0] if vote is not None])
        return [await seen(gateway) for _ in range(runs)]

    figures = [asyncio.run(all_of(world)) for world in _worlds(0, 1)]
    return _row("a gateway, epsilon 4", "answer", 4.0, figures, sound=True)


def _gateway(letters: Sequence[str]) -> Gateway:
    experts: Mapping[str, Scripted] = {
        name: Scripted(Card(name, "scripted", source=name), Script(text=letter))
        for i, letter in enumerate(letters)
        for name in [f"e{i:02}"]
    }
    index = Index(2)
    parts = Parts(
        experts=experts,
        index=index,
        router=SkillRouter(index, None),
        combiners={},
        record=lambda *_: None,
        bank=Bank(_spend, below=secrets.randbelow),
    )
    card, defaults = Card("audited", "gateway"), Limits(policy="auto", deadline_s=60.0)
    return Gateway(card, parts, Patience(), defaults)
