"""Banks keep what was learnt from, and what newcomers said makes of it what `assimilate` would."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from manyminds.artefact import Artefact, left_of, load, save
from manyminds.errors import ArtefactError
from manyminds.experts.recorded import Question
from manyminds.learn import bank
from manyminds.learn.assimilate import Newcomer, assimilate
from manyminds.learn.bank import Bank, beside, key_of
from manyminds.learn.enlarge import without
from manyminds.learn.examples import Examples
from manyminds.learn.intake import Heard, Probed, changed, grown, networks
from manyminds.learn.train import train
from tests.changed import replace
from tests.learn.quick import weigh_quickly
from tests.learn.worlds import OPTIONS, Mind, world

FIRST = (Mind("first-a", 0.5, 0.01), Mind("first-b", 0.45, 0.02), Mind("first-c", 0.4, 0.03))
NAMES = [mind.name for mind in FIRST]
ANSWERED, ABOUT = {"": tuple(NAMES)}, {"set": "made up", "seed": 0}
EVERYBODY = (*FIRST, Mind("strong", 0.92, 0.005, seconds=0.1), Mind("weak", 0.3), Mind("equal", 0.55))


@cache
def whole() -> Examples:
    return world(EVERYBODY, 300, seed=1)


def questions() -> tuple[Question, ...]:
    return tuple(
        Question(f"q{i}", "", f"What is {i} made of?", OPTIONS, "A", "calibration") for i in range(300)
    )


@cache
def learnt() -> Artefact:
    with pytest.MonkeyPatch.context() as patch:
        weigh_quickly(patch)
        return train(whole().of(NAMES), seed=0)


def banked(folder: Path, examples: Examples | None = None) -> Bank:
    save(learnt(), folder / "artefact.npz")
    bank.save(folder / "artefact.npz", questions(), examples or whole().of(NAMES), ANSWERED, ABOUT)
    return bank.load(folder / "artefact.npz")


def probed(name: str, came: int, n: int = 64) -> Probed:
    """What it said to some questions, the same for all, as the world has it."""
    examples, j = whole(), whole().experts.index(name)
    rows = sorted(np.random.default_rng(0).permutation(300)[:n].tolist())
    heard = tuple(
        Heard(
            question=key_of(questions()[row]),
            answer=examples.candidates[row][vote] if (vote := int(examples.votes[row, j])) >= 0 else None,
            correct=bool(examples.correct[row, j]),
            cost_usd=float(examples.cost_usd[row, j]),
            seconds=float(examples.seconds[row, j]),
            share=1 / n,
        )
        for row in rows
    )
    return Probed(name, name, f"model {name}", came, heard)


def newcomer(one: Probed) -> Newcomer:
    rows = [
        i for i, question in enumerate(questions()) if key_of(question) in {h.question for h in one.heard}
    ]
    return Newcomer(one.name, np.array(rows), np.full(len(rows), 1 / len(rows)))


# --- banks -----------------------------------------------------------------------------------------


def test_a_bank_is_what_was_saved(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    examples = replace(whole().of(NAMES), vectors=vectors)
    kept = banked(tmp_path, examples)
    assert kept.questions == questions()
    for name in Examples.__dataclass_fields__:
        was, now = getattr(examples, name), getattr(kept.examples, name)
        if isinstance(was, np.ndarray):
            np.testing.assert_array_equal(was, now)
        else:
            assert was == now, name


def test_a_bank_of_another_artefact_is_refused(tmp_path: Path) -> None:
    banked(tmp_path)
    save(replace(learnt(), parts=learnt().parts[:1] * 1), tmp_path / "artefact.npz")
    assert bank.load(tmp_path / "artefact.npz").of
    part = learnt().parts[0]
    save(Artefact((replace(part, about={**part.about, "seed": 1}),)), tmp_path / "artefact.npz")
    with pytest.raises(ArtefactError, match=r"it is that of another artefact .* learn anew with `manyminds"):
        bank.load(tmp_path / "artefact.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 100])
def test_a_damaged_bank_is_refused(tmp_path: Path, content: bytes) -> None:
    banked(tmp_path)
    beside(tmp_path / "artefact.npz").write_bytes(content)
    with pytest.raises(ArtefactError, match="is no bank of questions"):
        bank.load(tmp_path / "artefact.npz")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("votes", np.full((300, 3), 9, np.int32)),
        ("votes", np.full((300, 3), -3, np.int32)),
        ("correct", np.zeros((300, 2), np.bool_)),
        ("topics", ("",) * 299),
        ("experts", ("b", "a", "c")),
    ],
)
def test_a_bank_whose_parts_do_not_fit_is_refused(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ArtefactError, match="is no bank of questions"):
        banked(tmp_path, replace(whole().of(NAMES), **{name: value}))


def test_what_makes_a_question_another_one() -> None:
    one = questions()[0]
    assert key_of(replace(one, question_id="x", split="test")) == key_of(one)
    for change in ({"prompt": "?"}, {"choices": ()}, {"gold": "B"}):
        assert key_of(replace(one, **change)) != key_of(one)


# --- growing ---------------------------------------------------------------------------------------


def test_it_grows_as_by_assimilating(tmp_path: Path) -> None:
    come = [probed("strong", 1), probed("equal", 2)]
    kept = banked(tmp_path)
    made = grown(learnt(), kept, networks(learnt(), kept, come, {mind.name for mind in EVERYBODY}))
    assert made is not None
    there = np.zeros((300, 6), np.bool_)
    there[:, [whole().experts.index(name) for name in NAMES]] = True
    for one in come:
        there[newcomer(one).rows, whole().experts.index(one.name)] = True
    known = replace(
        whole(),
        votes=np.where(there, whole().votes, -2).astype(np.int32),
        correct=whole().correct & there,
        **{name: np.where(there, getattr(whole(), name), np.nan) for name in ("cost_usd", "seconds")},
    )
    known = known.of([*NAMES, "strong", "equal"])
    by_hand, _ = assimilate(learnt().parts[0], known, [newcomer(one) for one in come])
    (part,) = made.parts
    assert part.about == {**by_hand.about, "grown_from": kept.of}
    assert part.ranking == by_hand.ranking
    assert [plan.stages for plan in part.plans] == [plan.stages for plan in by_hand.plans]
    save(made, tmp_path / "made")
    save(Artefact((replace(by_hand, about=part.about),)), tmp_path / "by_hand")
    assert (tmp_path / "made").read_bytes() == (tmp_path / "by_hand").read_bytes()


def test_one_that_was_asked_nothing_of_which_the_network_is_known_waits(tmp_path: Path) -> None:
    kept, one, other = banked(tmp_path), probed("strong", 1), probed("equal", 2)
    apart = replace(one, heard=one.heard[:32]), replace(other, heard=other.heard[32:])
    (network,) = networks(learnt(), kept, apart, {mind.name for mind in EVERYBODY})
    assert [(verdict.name, verdict.what) for verdict in network.verdicts] == [("strong", "lead")]


def test_nobody_is_taken_in_for_nothing(tmp_path: Path) -> None:
    kept, have = banked(tmp_path), {mind.name for mind in EVERYBODY}
    assert grown(learnt(), kept, networks(learnt(), kept, [], have)) is None
    assert grown(learnt(), kept, networks(learnt(), kept, [probed("weak", 1)], have)) is None
    strangers = replace(probed("strong", 1), heard=(Heard("no such question", "A", True, share=1.0),))
    assert grown(learnt(), kept, networks(learnt(), kept, [strangers], have)) is None
    assert networks(learnt(), kept, [probed("strong", 1)], {"strong"}) == []


def test_it_is_compared_with_those_that_are_there(tmp_path: Path) -> None:
    kept = banked(tmp_path)
    (network,) = networks(learnt(), kept, [], {"first-c"})
    right, _ = network.network.answers()
    assert right.tolist() == whole().of(["first-c"]).correct[:, 0].tolist()
    (network,) = networks(learnt(), kept, [probed("strong", 1)], {"first-c", "strong"})
    part = network.network.part()
    assert set(part.plans[part.ranking["max"][0]].experts) == {"first-c", "strong"}
    assert part.skills.experts == (*NAMES, "strong")


def test_one_that_has_changed_counts_as_a_newcomer(tmp_path: Path) -> None:
    kept, have = banked(tmp_path), set(NAMES)
    same = probed("first-a", 1)
    assert not changed(same, kept)
    worse = replace(same, heard=tuple(replace(h, correct=False, answer=None) for h in same.heard))
    assert changed(worse, kept)
    assert not changed(replace(same, heard=()), kept)
    made = grown(learnt(), kept, networks(learnt(), kept, [worse], have))
    assert made is not None
    (now,), (was,) = made.parts, learnt().parts
    assert now.skills.experts == ("first-b", "first-c")
    assert now.skills.weights.tobytes() == was.skills.weights[1:].tobytes()


def test_without_some_others_stay_bit_by_bit(tmp_path: Path) -> None:
    (part,) = learnt().parts
    left = without(part, ["first-b"])
    assert left is not None
    save(Artefact((left,)), tmp_path / "left")
    assert load(tmp_path / "left").experts == ("first-a", "first-c")
    assert left.ballot is not None
    assert part.ballot is not None
    for name in ("weights", "dilution", "length", "confidence"):
        assert getattr(left.ballot, name).tobytes() == getattr(part.ballot, name)[[0, 2]].tobytes()
    assert all("first-b" not in plan.experts for plan in left.plans)
    assert set(left.ranking) == set(part.ranking)
    assert without(part, NAMES) is None
    assert without(part, []) is not None


def test_what_is_left_of_a_plan() -> None:
    plan = learnt().parts[0].plans[0]
    panel = replace(plan, stages=(("a", "b", "c", "d"),))
    assert left_of(panel, "abcde") is panel
    left = left_of(panel, "ab")
    assert left is not None
    assert left.stages == (("a", "b"),)
    assert left_of(panel, "a") is None
    assert left_of(replace(panel, stages=(("a", "b"), ("c",))), "ab") is None
    assert left_of(replace(panel, stages=(("a",),)), "b") is None
