"""Interviews: what is kept is what `record` would have kept, and what ends one loses nothing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import DataError, RefusedError, RejectedError, UnavailableError
from manyminds.evals.absorb import Interview, Met
from manyminds.evals.journal import JOURNAL, opened
from manyminds.evals.questions import Graded
from manyminds.evals.record import record
from manyminds.experts.scripted import Script, Scripted
from manyminds.types import Query
from tests.clock import run
from tests.evals.test_record import SUMS, asked, doubled, rows_of, saying
from tests.network import scripted


@dataclass
class Listed:
    """Asks for these positions in order, and notes what it is told."""

    positions: list[int]
    told: dict[int, float] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)

    def next(self) -> int | None:
        return self.positions.pop(0) if self.positions else None

    def tell(self, position: int, correct: float) -> None:
        assert position not in self.told
        self.told[position] = correct

    def skip(self, position: int) -> None:
        self.skipped.append(position)


def meet(
    folder: Path, expert: Scripted, prober: Listed, questions: Sequence[Graded] = SUMS, **more: float
) -> Met:
    interview = Interview(expert.card.name, expert, questions, folder, **more)  # type: ignore[arg-type]
    return run(interview.run(prober))


def sometimes(query: Query) -> str:
    number = int(query.question.split()[2])
    return f"It is {2 * number + number % 2}."


# --- what is kept ----------------------------------------------------------------------------------

OPTIONS = asked(("Which is a metal?", "B"), A="wood", B="iron", C="glass")


@given(st.permutations(range(6)).flatmap(lambda order: st.integers(0, 6).map(lambda n: order[:n])))
def test_it_keeps_what_recording_would_have_kept(
    tmp_path_factory: pytest.TempPathFactory, positions: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("met")
    one, other = saying(sometimes, first_token_s=0.5), saying(sometimes, first_token_s=0.5)
    prober = Listed(list(positions))
    met = meet(folder / "sums", one, prober)
    assert (met.answered, met.kept, met.failed, met.ended) == (len(positions), 0, 0, "enough")
    assert list(prober.told) == positions
    run(record(SUMS, {"a": one}, folder / "sums"))
    run(record(SUMS, {"a": other}, folder / "recorded" / "sums"))
    assert one.asked == other.asked == 6
    assert rows_of(folder / "sums") == rows_of(folder / "recorded" / "sums")
    correct = {str(row["question_id"]): row["correct"] for row in rows_of(folder / "sums")}
    assert prober.told == {p: correct[SUMS[p].question.question_id] for p in positions}


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    expert = saying(sometimes)
    first, again = Listed([3, 1]), Listed([1, 2, 3])
    meet(tmp_path, expert, first)
    met = meet(tmp_path, expert, again)
    assert (met.answered, met.kept, expert.asked) == (1, 2, 3)
    assert first.told.items() <= again.told.items()
    run(record(SUMS, {"a": expert}, tmp_path))
    final = Listed([0, 1, 2, 3, 4, 5])
    assert meet(tmp_path, expert, final, budget_usd=0.0).kept == 6
    assert expert.asked == 6
    assert final.told == {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0, 4: 1.0, 5: 0.0}


def test_options_are_rated_as_recording_rates_them(tmp_path: Path) -> None:
    rating = scripted("a", Script(scores=(-3.0, -1.0, -2.0)), offers=frozenset({"score"}))
    prober = Listed([0])
    meet(tmp_path / "set", rating, prober, OPTIONS)
    assert prober.told == {0: 1.0}
    run(record(OPTIONS, {"a": rating}, tmp_path / "set"))
    assert rating.asked == 1


# --- what ends it ----------------------------------------------------------------------------------


def test_a_budget_is_not_passed(tmp_path: Path) -> None:
    dear = saying(doubled, bill_usd=0.01)
    prober = Listed([0, 1, 2, 3, 4, 5])
    met = meet(tmp_path, dear, prober, budget_usd=0.035)
    assert (met.answered, met.ended) == (3, "budget")
    assert met.cost_usd == pytest.approx(0.03, abs=1e-3)
    assert (list(prober.told), prober.skipped) == ([0, 1, 2], [3])
    assert meet(tmp_path, dear, Listed([0, 1, 2, 3]), budget_usd=0.0).answered == 0
    assert meet(tmp_path, dear, Listed([0, 1, 2, 3]), budget_usd=1.0).answered == 1


def test_time_ends_it(tmp_path: Path) -> None:
    prober = Listed([0, 1, 2, 3])
    met = meet(tmp_path, saying(doubled, first_token_s=10.0), prober, until_s=15.0)
    assert (met.answered, met.ended, list(prober.told)) == (2, "time", [0, 1])


def test_who_cancels_loses_one_answer(tmp_path: Path) -> None:
    slow, prober = saying(doubled, first_token_s=10.0), Listed([0, 1, 2, 3])

    async def cancelled() -> None:
        interview = asyncio.create_task(Interview("a", slow, SUMS, tmp_path).run(prober))
        await asyncio.sleep(25.0)
        interview.cancel()
        await asyncio.gather(interview, return_exceptions=True)

    run(cancelled())
    assert (slow.asked, slow.running, list(prober.told)) == (3, 0, [0, 1])
    assert meet(tmp_path, slow, Listed([0, 1, 2, 3])).kept == 2


@pytest.mark.parametrize(
    ("error", "calls"), [(UnavailableError("a is down."), 8), (RejectedError("a wants another key."), 1)]
)
def test_who_fails_is_left_alone(tmp_path: Path, error: UnavailableError, calls: int) -> None:
    down, prober = saying(doubled, fail_before=error), Listed(list(range(6)) * 2)
    with pytest.raises(UnavailableError, match=f"a is left alone, it fails: {error.message}"):
        meet(tmp_path, down, prober)
    assert (down.asked, prober.told) == (calls, {})
    assert len(prober.skipped) == calls


def test_a_question_that_is_refused_is_skipped(tmp_path: Path) -> None:
    expert, prober = saying(doubled, fail_before=RefusedError("a does not answer that.")), Listed([0] * 20)
    met = meet(tmp_path, expert, prober)
    assert (met.failed, met.answered, prober.skipped) == (20, 0, [0] * 20)


def test_a_folder_in_use_or_of_others_is_left_alone(tmp_path: Path) -> None:
    async def both() -> None:
        async with opened(tmp_path / "used"):
            await Interview("a", saying(doubled), SUMS, tmp_path / "used").run(Listed([0]))

    with pytest.raises(DataError, match="Another run"):
        run(both())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "answers.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="not recorded here"):
        meet(tmp_path / "other", saying(doubled), Listed([0]))
    assert not (tmp_path / "other" / JOURNAL).exists()
