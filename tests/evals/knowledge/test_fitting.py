"""What is fitted to searches tells who tells, and is the same each time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from manyminds.documents import Found, Library, Passage
from manyminds.documents.evidence import Reader, support_features
from manyminds.errors import DataError
from manyminds.evals.knowledge.fitting import POOLED, Seen, fit, look, tells
from manyminds.evals.knowledge.questions import Question
from tests.changed import replace
from tests.documents.made import embed, write

IRON = Question(
    id="smith-iron-melts",
    corpus="smith",
    phrasings=("When does iron melt?", "What is the melting point of iron?"),
    golds=("1,538",),
    document="metals.md",
    proof="Iron melts at 1,538 °C.",
    answerable=True,
    sort="answerable",
    split="calibration",
    near="smith",
    entity="iron",
    key="melts",
)
TIN = replace(
    IRON,
    id="tin",
    corpus="",
    golds=("232",),
    answerable=False,
    sort="entity withheld",
    entity="tin",
    proof="",
)
PASSAGES, TELLING, NOISE = 6, 1, 8


def passage(place: int, text: str = "", document: str = "metals.md", heading: str = "") -> Passage:
    return Passage(place, document, heading, place, text, 1.0, 0.5, 0.5, 0.1)


def searches(count: int, seed: int, weight: float) -> list[Seen]:
    """Of six passages one tells, as a conditional logit by the second feature has it; half of the questions
    have no answer, and their passages have little of that feature.
    """
    rng = np.random.default_rng(seed)
    seen = []
    for n in range(count):
        known = n % 2 == 0
        x = rng.uniform(0, 1, (PASSAGES, NOISE))
        x[:, TELLING] *= 1.0 if known else 0.1
        mass = np.exp(weight * x[:, TELLING])
        chosen = rng.choice(PASSAGES, p=mass / mass.sum())
        holds = tuple(known and i == chosen for i in range(PASSAGES))
        found = Found(tuple(passage(i, f"passage {i}") for i in range(PASSAGES)), 100)
        question = IRON if known else TIN
        features = tuple(tuple(row) for row in x.tolist())
        seen.append(Seen(question, question.phrasings[0], "smith", found, features, holds))
    return seen


# --- fitting ---------------------------------------------------------------------------------------


def test_it_finds_by_what_passages_tell() -> None:
    seen = searches(2_000, seed=1, weight=6.0)
    fitted = fit(seen)
    assert len(fitted.passage) == NOISE
    assert fitted.passage[TELLING] == pytest.approx(6.0, abs=0.6)
    others = [w for i, w in enumerate(fitted.passage) if i != TELLING]
    assert max(map(abs, others)) < 0.5
    one = seen[0]
    ranked = Reader(fitted).ranked(one.found, one.features)
    assert len(fitted.support) == len(support_features(one.asked, one.found, ranked))
    assert 0.05 <= fitted.threshold <= 0.95
    most = max(range(PASSAGES), key=lambda i: one.features[i][TELLING])
    assert ranked[0].passage.id == most


def test_it_is_the_same_each_time_and_searches_without_passages_do_not_count() -> None:
    seen = searches(60, seed=2, weight=4.0)
    empty = Seen(IRON, "?", "smith", Found((), 0), (), ())
    assert fit(seen) == fit(iter(seen)) == fit([empty, *seen, empty])


def test_the_threshold_declines_what_nobody_knows() -> None:
    """Where support parts them: all that is known is answered, and nothing else."""
    seen = []
    for one in searches(200, seed=3, weight=40.0):
        cosine = 0.9 if one.question.answerable else 0.1
        near = tuple(replace(p, cosine=cosine) for p in one.found.passages)
        seen.append(one._replace(found=replace(one.found, passages=near)))
    fitted = fit(seen)
    right = wrong = 0
    for one in seen:
        claims = Reader(fitted).ranked(one.found, one.features)
        x = support_features(one.asked, one.found, claims)
        z = float(np.dot(fitted.support, x))
        answered = 1 / (1 + np.exp(-z)) >= fitted.threshold
        right += answered == one.question.answerable
        wrong += answered != one.question.answerable
    assert right > 20 * wrong


def test_what_is_hopelessly_apart_stays_finite() -> None:
    seen = [
        one._replace(features=tuple(tuple(1e3 * value for value in x) for x in one.features))
        for one in searches(40, seed=4, weight=6.0)
    ]
    fitted = fit(seen)
    assert np.isfinite([*fitted.passage, *fitted.support, fitted.threshold]).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_tells_nothing_is_refused(count: int) -> None:
    nobody = [one._replace(holds=(False,) * PASSAGES) for one in searches(count, seed=5, weight=1.0)]
    with pytest.raises(DataError, match=str(count)):
        fit(nobody)


# --- looking ---------------------------------------------------------------------------------------


@pytest.fixture
def libraries(tmp_path: Path) -> Iterator[dict[str, Library]]:
    docs = tmp_path / "docs"
    write(docs / "smith", {"metals.md": "# Iron\n\nIron melts at 1,538 °C, and rusts in moist air.\n"})
    write(docs / "cook", {"tea.md": "# Tea\n\nGreen tea is brewed at 70 degrees for two minutes.\n"})
    opened = {}
    for name, root in {"smith": docs / "smith", "cook": docs / "cook", POOLED: docs}.items():
        opened[name] = Library(tmp_path / name, embed)
        opened[name].sync(root)
    yield opened
    for library in opened.values():
        library.close()


def test_each_question_is_put_to_who_knows_to_another_and_to_all(libraries: dict[str, Library]) -> None:
    done: list[tuple[int, int]] = []
    seen = look([IRON, TIN], libraries, embed, 0, lambda n, of: done.append((n, of)))
    assert done == [(1, 2), (2, 2)]
    assert [one.owner for one in seen] == ["smith", "cook", POOLED] * 2
    assert {len(one.features) == len(one.holds) == len(one.found.passages) for one in seen} == {True}
    assert [any(one.holds) for one in seen] == [True, False, True, False, False, False]
    assert all(one.asked in one.question.phrasings for one in seen)
    assert look([IRON, TIN], libraries, embed, 0) == seen


def test_a_question_of_no_field_is_put_to_somebody(libraries: dict[str, Library]) -> None:
    nobodys = [replace(TIN, near="")] * 20
    asked = [one.owner for one in look(nobodys, libraries, embed)]
    assert {"smith", "cook"} == set(asked[::3])
    assert all(own != other for own, other in zip(asked[::3], asked[1::3], strict=True))


def test_one_owner_is_too_few(libraries: dict[str, Library]) -> None:
    del libraries["cook"]
    with pytest.raises(DataError, match="1 owners"):
        look([IRON], libraries, embed)


def test_who_tells() -> None:
    told = passage(1, "Iron melts at 1,538 °C.")
    assert tells(IRON, "smith", told)
    assert tells(IRON, POOLED, passage(1, told.text, "smith/metals.md"))
    assert not tells(IRON, "cook", told)
    assert not tells(IRON, "smith", passage(1, "Iron melts at 1,539 °C."))
    assert not tells(TIN, "smith", told)
