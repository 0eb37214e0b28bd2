"""`manyminds eval`: learns from the splits calibration and validation, then replays test once.

Returns what DESIGN.md section 15 prints, as plain values; None is what the set cannot measure.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from manyminds.artefact import Artefact
from manyminds.combine.vote import Vote
from manyminds.errors import DataError
from manyminds.evals import baselines
from manyminds.evals.baselines import Control
from manyminds.evals.metrics import accuracy_gain, calibration_error
from manyminds.evals.replay import Replayed, replay
from manyminds.experts.recorded import Question, Recorded, RecordedSet
from manyminds.index import Index
from manyminds.learn.examples import Examples, answered_in, gather
from manyminds.learn.train import train
from manyminds.router import SkillRouter
from manyminds.types import Embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

__all__ = ["Learnt", "Progress", "Selection", "Train", "evaluate", "learn", "narrow", "outcomes", "play"]

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""

_POLICIES = ("max", "cheap", "auto", "fast")
_DIMENSION = 384  # of the index where questions have no vectors: nothing is placed in it
_SHOWN = 20  # names that an error lists
_KNOWN = 0.95  # share of questions whose cost must be recorded for a mean to be told
_TEXTS = 32  # embedded by a thread before it tells


class Train(Protocol):
    """`manyminds.learn.train.train`, or another way to learn."""

    def __call__(
        self, examples: Examples, seed: int, about: Mapping[str, Any], progress: Progress | None = None, /
    ) -> Artefact: ...


# --- what is evaluated -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """The models and questions of a set that count, with what chose them.

    `questions` are those that at least one of the models was asked; the models all have answers outside test.
    """

    recorded: RecordedSet
    name: str
    category: str | None
    exclude: tuple[str, ...]
    leave: tuple[str, ...]
    experts: tuple[Recorded, ...]
    questions: tuple[Question, ...]

    def of(self, *splits: str) -> tuple[Question, ...]:
        """Split by split, each in the order of the file."""
        return tuple(q for split in splits for q in self.questions if q.split == split)

    @property
    def about(self) -> dict[str, Any]:
        """For people: what an artefact or a result was made from."""
        return {
            "set": self.name,
            "category": self.category,
            "exclude": list(self.exclude),
            **({"leave_category": list(self.leave)} if self.leave else {}),
            "n_calibration": len(self.of("calibration")),
            "n_validation": len(self.of("validation")),
        }


def narrow(
    recorded: RecordedSet, name: str, category: str | None, exclude: Sequence[str], leave: Sequence[str] = ()
) -> Selection:
    """Chooses the models and questions. A model without an answer to learn from is dropped.

    Only `category` counts, where it is given, and none of those in `leave`.

    Raises: DataError for an unknown category, a pattern that matches nothing, categories that are tasks of
        their own, fewer than two models, or no questions of calibration.
    """
    questions = recorded.questions()
    for pattern in exclude:
        if not any(fnmatchcase(model, pattern) for model in recorded.models):
            raise DataError(
                f"{name}: no model matches {pattern!r:.80}. There are: {_listed(recorded.models)}."
            )
    if exclude and not recorded.experts(exclude):
        raise DataError(f"{name}: all {len(recorded.models)} models are excluded: exclude fewer.")
    categories = sorted({question.category for question in questions})
    for one in (category, *leave):
        if one is not None and one not in categories:
            raise DataError(f"{name}: there is no category {one!r:.80}. There are: {_listed(categories)}.")
    wanted = np.array(
        [category in (None, q.category) and q.category not in leave for q in questions], np.bool_
    )
    learning = np.array([question.split != "test" for question in questions], np.bool_) & wanted
    experts = [e for e in recorded.experts(exclude) if learning[e.recording.rows].any()]
    asked = np.zeros(len(questions), np.bool_)
    for expert in experts:
        asked[expert.recording.rows] = True
    left = tuple(q for q, keep in zip(questions, asked & wanted, strict=True) if keep)
    if category is None:
        _check_one_task(experts, questions, name)
    if not any(question.split == "calibration" for question in left):
        raise DataError(
            f"{name}: there is nothing to learn from: no question of split calibration has answers."
        )
    if len(experts) < 2:
        only = f"only {experts[0].card.name} is" if experts else "no model is"
        raise DataError(f"{name}: {only} left, and a network takes two: exclude fewer.")
    return Selection(recorded, name, category, tuple(exclude), tuple(leave), tuple(experts), left)


def _check_one_task(experts: Sequence[Recorded], questions: Sequence[Question], name: str) -> None:
    """Raises: DataError where no model has answers in more than one of several categories."""
    names, codes = np.unique([question.category for question in questions], return_inverse=True)
    found = [np.unique(codes[expert.recording.rows]) for expert in experts]
    seen = {int(code) for codes_of in found for code in codes_of}
    if len(seen) > 1 and max(map(len, found)) == 1:
        tasks = _listed([str(names[code]) for code in sorted(seen)])
        raise DataError(f"{name} holds tasks that have no model in common: choose one, --category {tasks}.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more


# --- learning --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """The artefact, what it was learnt from and how, see `learn.bank.Bank`, and the seconds that took."""

    artefact: Artefact
    questions: tuple[Question, ...]
    examples: Examples
    answered: Mapping[str, tuple[str, ...]]
    about: Mapping[str, Any]
    train_s: float
    embed_s: float


def learn(
    selection: Selection,
    seed: int,
    embed: Embed | None = None,
    progress: Progress = lambda what, share: None,
    train: Train = train,
) -> Learnt:
    """Learns from calibration and validation. `embed` may be called by several threads at once."""
    encoder = _Encoder(embed, "embed what is learnt from", progress) if embed else None
    known = selection.of("calibration", "validation")
    examples = gather(selection.experts, known, selection.recorded, encoder)
    began = time.perf_counter()
    about = {**selection.about, "seed": seed}
    artefact = train(examples, seed, about, lambda what, share: progress("learn", share))
    train_s, embed_s = time.perf_counter() - began, encoder.seconds if encoder else 0.0
    answered = answered_in(selection.experts, selection.recorded)
    return Learnt(artefact, known, examples, answered, about, train_s, embed_s)


def outcomes(
    selection: Selection, splits: Sequence[str], embed: Embed | None, what: str, progress: Progress
) -> Examples:
    """What the chosen models made of the questions of some splits. `progress` is told of `what`."""
    encoder = _Encoder(embed, what, progress) if embed else None
    return gather(selection.experts, selection.of(*splits), selection.recorded, encoder)


class _Encoder:
    """An `Embed` that uses all cores, tells how far it is, and counts its seconds."""

    def __init__(self, embed: Embed, what: str, progress: Progress) -> None:
        self._embed = embed
        self._what = what
        self._progress = progress
        self.seconds = 0.0

    def __call__(self, texts: Sequence[str], /) -> "Vectors":
        began = time.perf_counter()
        parts = [texts[i : i + _TEXTS] for i in range(0, len(texts), _TEXTS)]
        vectors = []
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            for part in pool.map(self._embed, parts):
                vectors.append(part)
                self._progress(self._what, len(vectors) / len(parts))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
        self.seconds += time.perf_counter() - began
        return np.concatenate(vectors) if vectors else self._embed(texts)


# --- measuring -------------------------------------------------------------------------------------


def evaluate(
    recorded: RecordedSet,
    name: str,
    *,
    category: str | None = None,
    exclude: Sequence[str] = (),
    leave: Sequence[str] = (),
    by_category: bool = False,
    seed: int = 0,
    embed: Embed | None = None,
    train: Train = train,
    progress: Progress = lambda what, share: None,
) -> dict[str, Any]:
    """The result of a set, as JSON has it. Split test is read after all has been learnt, and once.

    `seed` governs the folds of training and the bootstrap: same seed, same result but for `seconds`. Without
    `embed`, or on a set without prompts, nothing is learnt from texts.

    Raises: DataError, as `narrow` does; also without questions of test, or where only they have choices.
    """
    selection = narrow(recorded, name, category, exclude, leave)
    questions = selection.of("test")
    if not questions:
        raise DataError(f"{name}: there is nothing to measure: no question of split test has answers.")
    learnt = learn(selection, seed, embed, progress, train)
    encoder = _Encoder(embed, "embed test", progress) if embed else None
    test = gather(selection.experts, questions, recorded, encoder)
    if not _compare_alike(learnt.examples, test):
        raise DataError(f"{name}: some splits have choices or answers and others none: evaluate them apart.")
    began = time.perf_counter()
    replayed = play(learnt.artefact, selection, test, _POLICIES, lambda share: progress("replay test", share))
    replay_s = time.perf_counter() - began
    route_s = np.concatenate([one.route_s for one in replayed.values()])
    seconds = {
        "embed": round(learnt.embed_s + (encoder.seconds if encoder else 0.0), 3),
        "train": round(learnt.train_s, 3),
        "replay": round(replay_s, 3),
        "route_p50_ms": round(1e3 * float(np.median(route_s)), 4),
    }
    found = _result(learnt, test, replayed, seed)
    if any(expert.card.variant_of for expert in selection.experts):
        found |= _by_member(selection, learnt, test, replayed["max"], found["max"], seed, train, progress)
    if by_category:
        found["categories"] = _by_category(test, replayed)
    return {**selection.about, "seed": seed, "n_test": len(test), **found, "seconds": seconds}


def _compare_alike(known: Examples, test: Examples) -> bool:
    """Whether what is measured is of kinds that were learnt from, and so answered."""
    return set(test.kinds) <= set(known.kinds) and (test.votes >= 0).any() == (known.votes >= 0).any()


def play(
    artefact: Artefact,
    selection: Selection,
    test: Examples,
    policies: Sequence[str],
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Replayed]:
    """What each policy makes of the questions of split test, through the router and the vote that serve."""
    router = SkillRouter(Index(_dimension(test)), artefact=artefact)
    for expert in selection.experts:
        router.admit(expert.card)
    vote = Vote(artefact=artefact)
    return replay(router, vote, selection.experts, selection.of("test"), test, policies, progress)


def _dimension(examples: Examples) -> int:
    return _DIMENSION if examples.vectors is None else examples.vectors.shape[1]


def _result(learnt: Learnt, test: Examples, replayed: Mapping[str, Replayed], seed: int) -> dict[str, Any]:
    best = baselines.best_single(learnt.examples)
    controls = baselines.controls(learnt.examples, test, learnt.artefact)
    single, parsed = baselines.single(test, best), controls["first_parsed"]
    singles = [baselines.single(test, j) for j in range(len(test.experts))]
    policies = {
        name: {
            **_figures(one.correct, one.cost_usd, single, seed),
            **_ratios(one, single, test.seconds[:, best]),
            **_gain("gain_over_first_parsed", one.correct, parsed, seed),
            "ece": _rounded(calibration_error(one.probability, one.correct)),
            "calls": _rounded(float(one.calls.mean())),
        }
        for name, one in replayed.items()
    }
    network = [
        {"name": name, "kind": "network", **_point(one.correct, one.cost_usd)}
        for name, one in replayed.items()
    ]
    chances = baselines.probabilities(test, learnt.artefact)
    stated = test.asked & np.isfinite(chances)
    return {
        "kind": _kind(test),
        "models": len(test.experts),
        "best_single": {"model": single.about, **_point(single.correct, single.cost_usd)},
        "baselines": {
            name: {**_figures(one.correct, one.cost_usd, single, seed), **_chosen(one)} if one else None
            for name, one in controls.items()
        },
        **policies,
        "frontier": [
            *({"name": one.about, "kind": "model", **_point(one.correct, one.cost_usd)} for one in singles),
            *sorted(network, key=lambda entry: (entry["cost_usd_per_1k"] or 0.0, entry["name"])),
        ],
        "co_failure": _rounded(1.0 - float(test.correct.any(axis=1).mean())),
        "predictor": {"ece": _rounded(calibration_error(chances[stated], test.correct[stated]))},
    }


def _kind(test: Examples) -> str:
    """Of all questions: "mixed" where only some answers can be compared."""
    found = set(test.kinds)
    return next(iter(found)) if len(found) == 1 else "mixed" if "text" in found else "exact"


def _by_member(
    selection: Selection,
    learnt: Learnt,
    test: Examples,
    network: Replayed,
    figures: Mapping[str, Any],
    seed: int,
    train: Train,
    progress: Progress,
) -> dict[str, Any]:
    """What every model comes to in its best way of being asked, and as a network of all its own ways.

    `network` is what `max` made of test, `figures` is what is said of that already.
    """
    per_category = baselines.best_per_category(learnt.examples, test)
    bases = sorted({expert.card.variant_of or expert.card.name for expert in selection.experts})
    members, ensembles = {}, {}
    for i, base in enumerate(bases):
        ways = tuple(e for e in selection.experts if base in (e.card.variant_of, e.card.name))
        best = next(
            j for j in baselines.ranked(learnt.examples) if test.experts[j] in {e.card.name for e in ways}
        )
        alone = baselines.single(test, int(best))
        members[base] = {"model": alone.about, **_point(alone.correct, alone.cost_usd)}
        own: Control | Replayed = alone
        if len(ways) > 1:
            with suppress(DataError):  # too few questions to learn from
                own = _alone(replace(selection, experts=ways), learnt.examples, test, seed, train)
        ensembles[base] = {
            **_point(own.correct, own.cost_usd),
            **_gain("network_gain", network.correct, own, seed),
        }
        progress("members by themselves", (i + 1) / len(bases))
    over = _gain("gain_over_best_per_category", network.correct, per_category, seed)
    return {"max": {**figures, **over}, "members": members, "self_ensemble": ensembles}


def _by_category(test: Examples, replayed: Mapping[str, Replayed]) -> dict[str, Any]:
    """Accuracy on test of every policy and of every model that was asked any question, by category."""
    topics = np.array(test.topics)
    found = {}
    for topic in sorted(set(test.topics)):
        rows = topics == topic
        asked = np.flatnonzero(test.asked[rows].any(axis=0))
        models = {test.experts[j]: _rounded(float(test.correct[rows, j].mean())) for j in asked}
        policies = {name: _rounded(float(one.correct[rows].mean())) for name, one in replayed.items()}
        found[topic] = {"n": int(rows.sum()), **policies, "models": models}
    return found


def _alone(selection: Selection, known: Examples, test: Examples, seed: int, train: Train) -> Replayed:
    """What `max` makes of test with these experts alone, which are all that is learnt from."""
    asked = np.zeros(len(selection.recorded.questions()), np.bool_)
    for expert in selection.experts:
        asked[expert.recording.rows] = True
    place = {q.question_id: i for i, q in enumerate(selection.recorded.questions())}
    kept = [i for i, q in enumerate(selection.of("calibration", "validation")) if asked[place[q.question_id]]]
    examples = _gathered(selection, selection.of("calibration", "validation"), known).rows(np.array(kept))
    artefact = train(examples, seed, selection.about)
    return play(artefact, selection, _gathered(selection, selection.of("test"), test), ["max"])["max"]


def _gathered(selection: Selection, questions: Sequence[Question], all_: Examples) -> Examples:
    """What these experts made of the questions; their vectors are in `all_` already."""
    vectors = all_.vectors
    embed = None if vectors is None else lambda texts, /: vectors
    return gather(selection.experts, questions, selection.recorded, embed)


def _gain(name: str, ours: "Bools", theirs: Control | Replayed | None, seed: int) -> dict[str, Any]:
    """Of accuracy, with its interval, under this name; None where there is nothing to compare with."""
    if theirs is None:
        return {name: None, f"{name}_ci95": None}
    gain = accuracy_gain(ours, theirs.correct, seed)
    return {name: _rounded(gain.gain), f"{name}_ci95": [_rounded(gain.low), _rounded(gain.high)]}


def _figures(correct: "Bools", cost_usd: "Floats | None", single: Control, seed: int) -> dict[str, Any]:
    return {**_point(correct, cost_usd), **_gain("gain", correct, single, seed)}


def _chosen(control: Control) -> dict[str, str]:
    return {"about": control.about} if control.about else {}


def _ratios(one: Replayed, single: Control, single_s: "Floats") -> dict[str, Any]:
    """Means over the best single expert's, on the questions where both are recorded."""
    assert single.cost_usd is not None
    return {
        "cost_ratio": _ratio(one.cost_usd, single.cost_usd),
        "latency_ratio": _ratio(one.seconds, single_s),
    }


def _ratio(ours: "Floats", theirs: "Floats") -> float | None:
    """None where `theirs` is nothing, or more than one question in twenty lacks one of them.

    Whether a cost is known may depend on who was asked, and so on how hard the question was.
    """
    both = np.isfinite(ours) & np.isfinite(theirs)
    if both.mean() < _KNOWN or not theirs[both].sum() > 0:
        return None
    return _rounded(float(ours[both].sum() / theirs[both].sum()))


def _point(correct: "Bools", cost_usd: "Floats | None") -> dict[str, Any]:
    """Cost is the mean over the questions where it is recorded; None where it is for too few."""
    known = np.zeros(0) if cost_usd is None else cost_usd[np.isfinite(cost_usd)]
    unknown = cost_usd is None or not len(known) or len(known) < _KNOWN * len(cost_usd)
    return {
        "accuracy": _rounded(float(correct.mean())),
        "cost_usd_per_1k": None if unknown else _rounded(1e3 * float(known.mean())),
    }


def _rounded(x: float) -> float:
    """To six significant digits: the last bits of a sum are no measurement."""
    return x if x == 0 or not math.isfinite(x) else round(x, 5 - math.floor(math.log10(abs(x))))
