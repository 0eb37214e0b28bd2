"""The corpora tell what is asked, each in one place; what is withheld is nowhere, and nothing leaks."""

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from manyminds.errors import DataError
from manyminds.evals import knowledge
from manyminds.evals.knowledge import Built, characters, programming
from manyminds.evals.knowledge.neighbours import LEAST, neighbours
from manyminds.evals.knowledge.pages import readable
from manyminds.evals.knowledge.questions import spread, told_anyway
from manyminds.evals.knowledge.words import holds_any, words
from manyminds.evals.packs.wheels import path_of
from tests.pulled import HOME

PACKS = HOME / "packs"
LACKING = [wheel.requirement for wheel in knowledge.WHEELS if not path_of(wheel, PACKS).exists()]

pytestmark = pytest.mark.xdist_group("knowledge")
whole = pytest.mark.skipif(
    bool(LACKING), reason=f"not in {PACKS}: {' '.join(LACKING)}; `knowledge.fetch` brings them"
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All corpora."""
    return knowledge.build(tmp_path_factory.mktemp("everything"), PACKS)


@pytest.fixture(scope="module", params=["stdlib", pytest.param("all", marks=whole)])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All corpora, and, which can be had without a package, two of them alone."""
    if request.param == "all":
        made: Built = request.getfixturevalue("everything")
        return made
    folder = tmp_path_factory.mktemp("owners")
    return knowledge.lay(folder, [characters.corpus(PACKS), programming.corpus(PACKS)])


@pytest.fixture(scope="module")
def told(built: Built) -> dict[tuple[str, str], str]:
    """The words of each file as it was written."""
    return {
        (owner, path.relative_to(built.folder / owner).as_posix()): readable(
            path.name, path.read_text("utf-8")
        )
        for owner in built.owners
        for path in sorted((built.folder / owner).rglob("*.*"))
    }


def test_there_are_questions_enough_a_fifth_of_them_without_an_answer(built: Built) -> None:
    known = Counter(question.corpus for question in built.questions if question.answerable)
    sorts = Counter(question.sort for question in built.questions if not question.answerable)
    assert len(built.questions) >= 200 * len(built.owners)
    assert max(known.values()) - min(known.values()) <= 0.1 * max(known.values())
    assert len(sorts) == 3
    assert max(sorts.values()) - min(sorts.values()) <= 0.1 * max(sorts.values())
    assert 0.19 <= sum(sorts.values()) / len(built.questions) <= 0.21


def test_every_question_has_wordings_that_differ_and_do_not_tell_the_answer(built: Built) -> None:
    seen: Counter[str] = Counter()
    for question in built.questions:
        assert len(question.phrasings) >= 3
        seen.update(map(words, question.phrasings))
        bags = [set(words(text).split()) for text in question.phrasings]
        assert all(one != other for one, other in combinations(bags, 2))
        assert not any(holds_any(text, question.golds) for text in question.phrasings)
        assert not question.answerable or question.golds
    assert max(seen.values()) == 1
    assert len({question.id for question in built.questions}) == len(built.questions)


def test_every_proof_is_in_its_document_and_in_no_other(
    built: Built, told: dict[tuple[str, str], str]
) -> None:
    for question in built.questions:
        places = [place for place, text in told.items() if question.proof and question.proof in text]
        assert places == ([(question.corpus, question.document)] if question.answerable else [])
        assert not question.answerable or holds_any(question.proof, question.golds)


def test_what_is_withheld_is_told_in_no_paragraph(built: Built) -> None:
    said = spread(built.paragraphs)
    for question in built.questions:
        if question.sort in ("entity withheld", "fact withheld"):
            assert question.golds
            assert not told_anyway(question, said)
    for question in built.questions:
        if question.sort == "nowhere" and question.near:
            assert not any(words(question.entity) in text for text, _ in said)


def test_questions_of_an_entity_are_in_one_split(built: Built) -> None:
    splits = defaultdict(set)
    for question in built.questions:
        splits[question.near, question.entity].add(question.split)
    assert all(len(of) == 1 or not near for (near, _), of in splits.items())
    counts = Counter(question.split for question in built.questions)
    shares = {name: count / len(built.questions) for name, count in counts.items()}
    assert shares == pytest.approx({"calibration": 0.4, "validation": 0.2, "test": 0.4}, abs=0.05)


def test_documents_are_of_several_formats_and_what_was_written_is_in_them(
    built: Built, told: dict[tuple[str, str], str]
) -> None:
    assert {Path(path).suffix for _, path in told} == {".md", ".html", ".txt", ".py"}
    for paragraph in built.paragraphs[::7]:
        assert " ".join(paragraph.text.split()) in told[paragraph.corpus, paragraph.document]


def test_the_same_seed_makes_the_same_and_another_seed_others(built: Built, tmp_path: Path) -> None:
    again = knowledge.lay(tmp_path / "again", built.corpora)
    assert again._replace(folder=built.folder) == built
    other = knowledge.lay(tmp_path / "other", built.corpora, 1)
    assert {q.id for q in other.questions} != {q.id for q in built.questions}


@whole
def test_there_are_eight_owners_and_neighbours_who_have_no_answer(everything: Built) -> None:
    built = everything
    found = neighbours(built, PACKS, 40)
    assert len(built.owners) == 8
    assert len({neighbour.name for neighbour in found}) == 40
    assert {neighbour.kind for neighbour in found} == {*built.owners, ""}
    texts = {paragraph.text for paragraph in built.paragraphs}
    said = spread(paragraph for neighbour in found for paragraph in neighbour.paragraphs)
    assert all(len(neighbour.paragraphs) >= LEAST for neighbour in found)
    assert not any(text in texts for _, text in said)
    assert not any(told_anyway(question, said) for question in built.questions if question.golds)


def test_a_package_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mendeleev"):
        knowledge.build(tmp_path / "owners", tmp_path)
