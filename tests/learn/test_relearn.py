"""A bank without some experts is that of a set without them, and so is what is learnt of it: byte by byte."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import manyminds.node
from manyminds.artefact import load, save
from manyminds.errors import ArtefactError, DataError
from manyminds.evals.report import learn, narrow
from manyminds.experts.recorded import RecordedSet, open_set
from manyminds.learn import bank
from manyminds.learn.examples import Examples, answered_in, gather
from manyminds.learn.relearn import Left, left, relearnt
from tests.evals.test_replay import made_up
from tests.experts.test_recorded import answer, model, question, write_set
from tests.learn.quick import weigh_quickly

NAMES = ("a", "b", "b:direct", "c", "d")
_SHIPPED = Path(manyminds.node.__file__).with_name("shipped.npz")
SAID = ("A", "B", "C", "12", "1/3", None, "no option")


def vectors(texts: Sequence[str], /) -> NDArray[np.float32]:
    return np.array([[len(text) / 7, crc32(text.encode()) % 97 / 31] for text in texts], np.float32)


@st.composite
def recorded(draw: st.DrawFn) -> dict[str, Any]:
    """Questions of some categories, some without text or options; who was asked what, and what came of it."""
    n = draw(st.integers(1, 9))
    questions = [
        question(
            f"q{i}",
            category=draw(st.sampled_from(("x", "y", "z"))),
            prompt=draw(st.sampled_from((f"What is {i} and 3?", None))),
            choices=draw(st.sampled_from((["red", "green", "blue"], None))),
            split=draw(st.sampled_from(("calibration", "validation", "test"))),
        )
        for i in range(n)
    ]
    judged = draw(st.sets(st.sampled_from(NAMES)))  # of whom verdicts alone are known
    answers = [
        answer(
            f"q{i}",
            name,
            answer=None if name in judged else draw(st.sampled_from(SAID)),
            correct=draw(st.sampled_from((0.0, 1.0))),
            cost_usd=draw(st.sampled_from((None, 0.1, 0.3))),
            confidence=draw(st.sampled_from((None, 0.7))),
        )
        for i in range(n)
        for name in NAMES
        if draw(st.booleans())
    ]
    return {"questions": questions, "answers": answers}


def opened(folder: Path, said: Mapping[str, Any], names: Sequence[str]) -> RecordedSet:
    folder.mkdir()
    answers = [row for row in said["answers"] if row["model"] in names]
    assume(answers)
    return open_set(write_set(folder, said["questions"], answers, [model(name) for name in names]))


def learnt_from(recorded: RecordedSet) -> Left | None:
    """As `manyminds train` has it; None where it refuses."""
    try:
        chosen = narrow(recorded, "made up", None, ())
    except DataError:
        return None
    known = chosen.of("calibration", "validation")
    examples = gather(chosen.experts, known, recorded, vectors)
    answered = answered_in(chosen.experts, recorded)
    return Left(known, examples, answered, {**chosen.about, "seed": 0})


def same(one: Left, other: Left) -> None:
    assert (one.questions, one.answered, one.about) == (other.questions, other.answered, other.about)
    for name in Examples.__dataclass_fields__:
        was, now = getattr(one.examples, name), getattr(other.examples, name)
        if isinstance(was, np.ndarray):
            assert was.dtype == now.dtype
            np.testing.assert_array_equal(was, now, name)
        else:
            assert was == now, name


@settings(deadline=None)
@given(recorded(), st.sampled_from(("a", "b", "c")))
def test_a_bank_without_an_expert_is_that_of_a_set_without_it(said: dict[str, Any], gone: str) -> None:
    kept = [name for name in NAMES if name.partition(":")[0] != gone]
    with TemporaryDirectory() as folder:
        whole = learnt_from(opened(Path(folder) / "whole", said, NAMES))
        never = learnt_from(opened(Path(folder) / "never", said, kept))
    if whole is None or never is None:
        return
    known = bank.Bank("", whole.questions, whole.examples, whole.answered, whole.about)
    same(left(known, [gone]), never)


@pytest.mark.parametrize("kind", ["exact", "option", "text"])
@pytest.mark.parametrize("gone", ["a", "c"])
def test_what_is_learnt_again_is_what_would_have_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, gone: str
) -> None:
    """The artefact and its bank: the best of all leaves, or the worst."""
    weigh_quickly(monkeypatch)
    minds = {"a": 0.9, "b": 0.6, "c": 0.4, "d": 0.5}
    others = {name: right for name, right in minds.items() if name != gone}
    for name, recorded in (
        ("whole", made_up(tmp_path / "all", minds, kind=kind)),
        ("never", _without(made_up(tmp_path / "some", minds, kind=kind), gone)),
    ):
        learnt = learn(narrow(recorded, "made up", None, ()), 0, vectors)
        save(learnt.artefact, tmp_path / f"{name}.npz")
        of = (learnt.questions, learnt.examples, learnt.answered, learnt.about)
        bank.save(tmp_path / f"{name}.npz", *of)
    rest = left(bank.load(tmp_path / "whole.npz"), [gone])
    again = relearnt(rest)
    assert again is not None
    assert again.experts == tuple(others)
    save(again, tmp_path / "again.npz")
    bank.save(tmp_path / "again.npz", rest.questions, rest.examples, rest.answered, rest.about)
    for end in (".npz", ".bank.npz"):
        found, never, whole = ((tmp_path / (name + end)).read_bytes() for name in ("again", "never", "whole"))
        assert found == never != whole


def _without(recorded: RecordedSet, gone: str) -> RecordedSet:
    return RecordedSet(recorded.questions(), [e for e in recorded.experts() if e.card.name != gone])


def test_too_few_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = made_up(tmp_path / "set", {"a": 0.9, "b": 0.6})
    chosen = narrow(recorded, "made up", None, ())
    known = chosen.of("calibration", "validation")
    examples = gather(chosen.experts, known, recorded)
    one = bank.Bank("", known, examples, answered_in(chosen.experts, recorded), {"seed": 0})
    assert relearnt(left(one, ["a"])) is None
    assert relearnt(left(one, [], ["a", "b"])) is None


def test_a_bank_keeps_vectors_to_the_last_bit_and_leaves_nothing_behind(tmp_path: Path) -> None:
    kept = bank.load(_SHIPPED)
    assert kept.examples.vectors is not None
    artefact = tmp_path / "mine.npz"
    for vectors in (kept.examples.vectors, kept.examples.vectors[::-1]):
        save(load(_SHIPPED), artefact)
        bank.save(
            artefact, kept.questions, replace(kept.examples, vectors=vectors), kept.answered, kept.about
        )
        again = bank.load(artefact).examples.vectors
        assert again is not None
        assert again.dtype == np.float32
        assert again.tobytes() == np.ascontiguousarray(vectors).tobytes()
        assert len(list(tmp_path.glob("mine.bank*"))) == 2
    (lower,) = tmp_path.glob("mine.bank.????????.npz")
    lower.unlink()
    with pytest.raises(ArtefactError, match="There is no half"):
        bank.load(artefact)
    bank.remove(artefact)
    assert not list(tmp_path.glob("mine.bank*"))
