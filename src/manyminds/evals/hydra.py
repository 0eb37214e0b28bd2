"""`manyminds bench hydra`: a network of the weakest models, into which all others come one by one.

Learns from the splits calibration and validation; after every newcomer the network answers split test. Asks
nobody: what an expert would have said is what was recorded. Knows no command and draws nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.artefact import Part
from manyminds.evals.metrics import accuracy_gain
from manyminds.evals.processes import processes
from manyminds.learn.assimilate import Assimilator, Newcomer, Verdict
from manyminds.learn.examples import UNASKED, Examples
from manyminds.learn.probing import MOST, POOL, Probing
from manyminds.learn.train import one_thread, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]

__all__ = ["Progress", "Step", "World", "measure", "played"]

_THIRD = 3
_BETTER = 0.10  # of accuracy, by which a newcomer must be passed at once
_RANDOM = (8, 16, 32, 64, 128)  # probes drawn at random, with which adaptive ones are compared
_MANY = 1024  # outcomes with which a newcomer is as good as known
_COMPARED = 4  # newcomers between two on which ways of probing are compared


Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A recorded set: outcomes to learn from, and those of split test, of the same experts."""

    known: Examples
    test: Examples


@dataclass(frozen=True, slots=True)
class Step:
    """A newcomer's coming.

    Attributes:
        name: who came; accuracy: its own, on test, and `estimated`, from its probes.
        probes: questions it was asked; more: of the rest of the pool, since it was to be taken in.
        before, after: the network's accuracy on test; low, high: 95% interval of the difference.
        what: see `learn.assimilate.Verdict`.
    """

    name: str
    accuracy: float
    estimated: float
    probes: int
    more: int
    before: float
    after: float
    low: float
    high: float
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One order of coming: `compared` has the regrets of ways of probing, and how many probes each took."""

    steps: list[Step]
    compared: list[dict[str, tuple[int, float]]]


def measure(
    world: World,
    *,
    orders: int,
    probes: int = MOST,
    live: int,
    seed: int = 0,
    progress: Progress = lambda what, share: None,
) -> dict[str, Any]:
    """What becomes of a network of the weakest third when the others come, in so many random orders.

    Args:
        world: the set.
        orders: random orders of coming.
        probes: of each newcomer at most.
        live: graded questions between two newcomers, which everybody who has come is asked.
        seed: of orders, probes, training and intervals.
        progress: told how far it is.
    """
    weak = _weakest(world.known)
    progress("learn the weakest third", 0.0)
    runs = []
    with processes() as begin:
        whole = begin(_learnt, world.known, seed)
        first = begin(_learnt, world.known.of(weak), seed).result()
        coming = [begin(_run, world, first, order, probes, live, seed) for order in range(orders)]
        progress("newcomers", 0.0)
        for run in coming:
            runs.append(run.result())
            progress("newcomers", len(runs) / orders)
        progress("learn all at once", 0.0)
        all_at_once = float(played(whole.result(), world.test).mean())
    return {
        "models": len(world.known.experts),
        "first": len(weak),
        "n_known": len(world.known),
        "n_test": len(world.test),
        "orders": orders,
        "probes": probes,
        "live": live,
        "seed": seed,
        "first_accuracy": _rounded(float(played(first, world.test).mean())),
        "all_at_once": _rounded(all_at_once),
        **_summary([run.steps for run in runs], all_at_once),
        "probing": _probing([one for run in runs for one in run.compared]),
        "runs": [[_shown(step) for step in run.steps] for run in runs],
    }


def played(part: Part, examples: Examples) -> "Bools":
    """(n,) whether `max` answers each question rightly: as the router and the vote that serve would."""
    right, _ = Assimilator(part, examples.of(part.skills.experts)).answers()
    return right


def _weakest(known: Examples) -> list[str]:
    accuracy = known.correct.sum(axis=0) / np.maximum(known.asked.sum(axis=0), 1)
    order = np.argsort(accuracy, kind="stable")
    return [known.experts[j] for j in order[: max(2, round(len(order) / _THIRD))]]


class _Log:
    """What is known of whom so far."""

    def __init__(self, whole: Examples, first: Sequence[str]) -> None:
        self._whole = whole
        self._known = np.zeros(whole.votes.shape, np.bool_)
        self._known[:, [j for j, name in enumerate(whole.experts) if name in first]] = True

    def learn(self, rows: "NDArray[np.intp]", experts: Sequence[int]) -> None:
        self._known[np.ix_(rows, np.array(experts, np.intp))] = True

    def copy(self) -> "_Log":
        other = copy(self)
        other._known = self._known.copy()
        return other

    @property
    def examples(self) -> Examples:
        """All outcomes that are known; the others as if nobody had been asked."""
        whole, known = self._whole, self._known
        unknown: dict[str, Any] = {
            name: np.where(known, getattr(whole, name), np.nan)
            for name in ("cost_usd", "seconds", "tokens", "confidence")
        }
        votes = np.where(known, whole.votes, UNASKED).astype(np.int32)
        return replace(whole, votes=votes, correct=whole.correct & known, **unknown)


def _learnt(examples: Examples, seed: int) -> Part:
    """In a process of its own."""
    return train(examples, seed).parts[0]


def _run(world: World, first: Part, order: int, probes: int, live: int, seed: int) -> _Run:
    """Takes in everybody in one order. In a process of its own."""
    with one_thread():
        return _come(world, first, order, probes, live, seed)


def _come(world: World, first: Part, order: int, probes: int, live: int, seed: int) -> _Run:
    known, test = world.known, world.test
    rng = np.random.default_rng([seed, order])
    log = _Log(known, first.skills.experts)
    network = Assimilator(first, log.examples)
    others = [j for j, name in enumerate(known.experts) if name not in first.skills.experts]
    before = played(first, test)
    come: list[int] = []
    steps: list[Step] = []
    compared: list[dict[str, tuple[int, float]]] = []
    for i, j in enumerate(rng.permutation(others).tolist()):
        if i % _COMPARED == order % _COMPARED:
            compared.append(_compare(network, log, come, world, j, int(rng.integers(2**31))))
        pool = _pool(network, known, j)
        probing = Probing(*network.answers(pool), int(rng.integers(2**31)), probes)
        newcomer = _probed(pool, known, j, probing)
        verdict, more = _admit(network, log, pool, j, newcomer)
        after = played(network.part(), test)
        gain = accuracy_gain(after, before, seed)
        own, was, now = (float(x.mean()) for x in (test.correct[:, j], before, after))
        steps.append(
            Step(
                name=verdict.name,
                accuracy=own,
                estimated=verdict.accuracy,
                probes=len(newcomer.rows),
                more=more,
                before=was,
                after=now,
                low=gain.low,
                high=gain.high,
                what=verdict.what,
            )
        )
        before = after
        come.append(j)
        log.learn(rng.permutation(len(known))[:live], come)
        network.update(log.examples)
    return _Run(steps, compared)


def _admit(
    network: Assimilator, log: _Log, pool: "NDArray[np.intp]", j: int, newcomer: Newcomer
) -> tuple[Verdict, int]:
    """As a node does it: whoever is to be taken in is judged again by the whole pool; and what that adds."""
    log.learn(newcomer.rows, [j])
    trial = network.copy()
    trial.update(log.examples)
    more = np.setdiff1d(pool, newcomer.rows)
    if trial.admit(newcomer).what == "keep":
        more = more[:0]
    elif len(more):
        log.learn(more, [j])
        newcomer = Newcomer(newcomer.name, pool, np.full(len(pool), 1.0 / len(pool)))
    network.update(log.examples)
    return network.admit(newcomer), len(more)


def _pool(network: Assimilator, known: Examples, j: int) -> "NDArray[np.intp]":
    """Questions on which it is known what the network answers: the first in an order that never changes."""
    order = np.random.default_rng(0).permutation(len(known))
    answered = known.asked[:, j]
    rows = order[np.isin(order, network.known) & answered[order]]
    return np.sort(rows[:POOL] if len(rows) else order[answered[order]][:POOL])


class _AtRandom:
    """Probes in any order, as many as may be asked: what adaptive ones are compared with."""

    def __init__(self, n: int, seed: int, most: int) -> None:
        self._order = np.random.default_rng(seed).permutation(n).tolist()
        self._asked: list[int] = []
        self._most = most

    def next(self) -> int | None:
        return self._order[0] if self._order and len(self._asked) < self._most else None

    def tell(self, position: int, correct: float) -> None:
        self._order.remove(position)
        self._asked.append(position)

    @property
    def asked(self) -> "NDArray[np.intp]":
        return np.array(self._asked, np.intp)

    @property
    def shares(self) -> "NDArray[np.float64]":
        return np.full(len(self._asked), 1.0 / len(self._asked))


def _probed(rows: "NDArray[np.intp]", known: Examples, j: int, probing: "Probing | _AtRandom") -> Newcomer:
    """Asks a newcomer some of these questions, to which it has recorded answers."""
    while (position := probing.next()) is not None:
        probing.tell(position, float(known.correct[rows[position], j]))
    return Newcomer(known.experts[j], rows[probing.asked], probing.shares)


def _compare(
    network: Assimilator, log: _Log, come: Sequence[int], world: World, j: int, seed: int
) -> dict[str, tuple[int, float]]:
    """Probes, and accuracy on test that is lost against knowing a newcomer well, by way of probing.

    All draw from the same questions, to which the answers of everybody else are known.
    """
    known = world.known
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(known.asked[:, j]))[:_MANY]
    log, network = log.copy(), network.copy()
    log.learn(rows, come)
    network.update(log.examples)
    right, chance = network.answers(rows)

    def accuracy(newcomer: Newcomer) -> float:
        then, copied = log.copy(), network.copy()
        then.learn(newcomer.rows, [j])
        copied.update(then.examples)
        copied.admit(newcomer)
        return float(played(copied.part(), world.test).mean())

    best = accuracy(Newcomer(known.experts[j], rows, np.full(len(rows), 1.0 / len(rows))))
    ways = {f"random {n}": _probed(rows, known, j, _AtRandom(len(rows), seed, n)) for n in _RANDOM}
    ways["adaptive"] = _probed(rows, known, j, Probing(right, chance, seed, MOST))
    return {way: (len(one.rows), best - accuracy(one)) for way, one in ways.items()}


# --- what came of it ---------------------------------------------------------------------------------


def _summary(runs: Sequence[Sequence[Step]], all_at_once: float) -> dict[str, Any]:
    steps = [step for run in runs for step in run]
    better = [step for step in steps if step.accuracy >= step.before + _BETTER]
    lost = [step for step in steps if step.high < 0.0]
    last = np.array([run[-1].after for run in runs])
    return {
        "steps": len(steps),
        "significant_losses": len(lost),
        "worst_loss": _rounded(max((step.before - step.after for step in lost), default=0.0)),
        "much_better": len(better),
        "passed": sum(step.after >= step.accuracy for step in better),
        "worst_behind": _rounded(max((step.accuracy - step.after for step in better), default=0.0)),
        "final": {
            "mean": _rounded(float(last.mean())),
            "least": _rounded(float(last.min())),
            "behind_all_at_once": _rounded(all_at_once - float(last.mean())),
            "most_behind": _rounded(all_at_once - float(last.min())),
        },
        "mean_probes": _rounded(float(np.mean([step.probes for step in steps]))),
        "mean_more": _rounded(float(np.mean([step.more for step in steps]))),
        "verdicts": {
            what: sum(step.what == what for step in steps) for what in ("keep", "lead", "join", "all")
        },
    }


def _probing(compared: Sequence[Mapping[str, tuple[int, float]]]) -> dict[str, Any]:
    """Mean probes and regret by way of probing, with its standard error; and how many random probes come to
    the regret of adaptive ones: by the regrets around it, on a logarithmic scale; None beyond all of them.
    """
    if not compared:
        return {}
    ways = {}
    for way in compared[0]:
        regrets = np.array([one[way][1] for one in compared])
        ways[way] = {
            "probes": _rounded(float(np.mean([one[way][0] for one in compared]))),
            "regret": _rounded(float(regrets.mean())),
            "error": _rounded(float(regrets.std() / np.sqrt(len(regrets)))),
        }
    needed = _as_good(ways, ways["adaptive"]["regret"])
    share = None if needed is None else _rounded(ways["adaptive"]["probes"] / needed)
    return {"newcomers": len(compared), **ways, "random_probes_needed": needed, "share_of_random": share}


def _as_good(ways: Mapping[str, Mapping[str, float]], regret: float) -> float | None:
    """Random probes at which their regret, made to fall throughout, is no more than this."""
    logs = np.log([ways[f"random {n}"]["probes"] for n in _RANDOM])
    regrets = np.minimum.accumulate([ways[f"random {n}"]["regret"] for n in _RANDOM])
    if regret < regrets[-1]:
        return None
    return _rounded(float(np.exp(np.interp(-regret, -regrets, logs))))


def _shown(step: Step) -> dict[str, Any]:
    return {k: _rounded(v) if isinstance(v, float) else v for k, v in asdict(step).items()}


def _rounded(x: float) -> float:
    return round(x, 5)
