import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.encoder import Encoder, StaticEncoder, distil
from manyminds.encoder.primer import make_questions
from manyminds.errors import CatalogError
from tests.pulled import needs_encoder, shrunk

WORDS = ["apple", "court", "energy", "matrix", "price", "river", "sort", "python", "query", "theory"]
TEXTS = [" ".join(random.Random(seed).choices(WORDS, k=6)) for seed in range(60)]


class TestMakeQuestions:
    def test_same_seed_same_questions(self) -> None:
        assert make_questions(WORDS, 20, seed=1) == make_questions(WORDS, 20, seed=1)
        assert make_questions(WORDS, 20, seed=1) != make_questions(WORDS, 20, seed=2)

    def test_no_slot_stays_open(self) -> None:
        questions = make_questions(WORDS, 300)
        assert len(questions) == 300
        assert [q for q in questions if "{w}" in q or "{n}" in q or "{N}" in q] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model with a vocabulary of a thousand words."""
    return shrunk(tmp_path_factory.mktemp("minilm"), 3_000)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(folder)


@pytest.fixture(scope="module")
def table(folder: Path, encoder: Encoder) -> Path:
    path = folder / "deep" / "static.npz"
    distil(encoder, folder, path, TEXTS[:40], made=300)
    return path


@pytest.fixture(scope="module")
def fast(folder: Path, table: Path) -> StaticEncoder:
    return StaticEncoder(folder, table)


@needs_encoder
class TestStaticEncoder:
    def test_rows_are_unit_vectors_whatever_the_text(self, fast: StaticEncoder) -> None:
        rows = fast.encode([*TEXTS, "", " \n", "\ud800", "東京", "long " * 900])
        assert rows.shape == (len(TEXTS) + 5, 384)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)

    def test_no_texts_are_no_rows(self, fast: StaticEncoder) -> None:
        assert fast.encode([]).shape == (0, 384)

    def test_company_does_not_change_a_bit(self, fast: StaticEncoder) -> None:
        alone = np.stack([fast.encode([text])[0] for text in TEXTS])
        assert np.array_equal(fast.encode(TEXTS), alone)
        assert np.array_equal(fast.encode(TEXTS[::-1])[::-1], alone)

    @given(words=st.lists(st.sampled_from(WORDS), min_size=1), data=st.data())
    def test_order_and_repetition_do_not_change_a_bit(
        self, fast: StaticEncoder, words: list[str], data: st.DataObject
    ) -> None:
        other = data.draw(st.permutations(words)) + data.draw(st.lists(st.sampled_from(words)))
        one, two = fast.encode([" ".join(words), " ".join(other)])
        assert np.array_equal(one, two)

    def test_is_near_the_encoder_on_texts_that_it_has_not_seen(
        self, fast: StaticEncoder, encoder: Encoder
    ) -> None:
        near = (fast.encode(TEXTS[40:]) * encoder.encode(TEXTS[40:])).sum(axis=1).mean()
        far = (fast.encode(TEXTS[40:]) * encoder.encode(make_questions(WORDS, 20))).sum(axis=1).mean()
        assert near > 0.7
        assert near > far + 0.2


@needs_encoder
class TestDistil:
    def test_same_inputs_same_table(
        self, folder: Path, encoder: Encoder, table: Path, tmp_path: Path
    ) -> None:
        distil(encoder, folder, tmp_path / "again.npz", TEXTS[:40], made=300)
        with np.load(table) as one, np.load(tmp_path / "again.npz") as two:
            assert np.array_equal(one["rows"], two["rows"])

    def test_progress_rises_to_the_end_and_no_part_is_left(
        self, folder: Path, encoder: Encoder, tmp_path: Path
    ) -> None:
        steps: list[tuple[int, int]] = []
        distil(encoder, folder, tmp_path / "t.npz", progress=lambda n, of: steps.append((n, of)), made=150)
        total = 3_000 + 150
        assert [of for _, of in steps] == [total] * len(steps)
        assert steps == sorted(set(steps))
        assert steps[0][0] == 0
        assert steps[-1][0] == total
        assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


def spoil_version(path: Path) -> None:
    with np.load(path) as held:
        values = dict(held)
    values["version"] = np.array(99)
    np.savez(path, **values)


def spoil_source(path: Path) -> None:
    with np.load(path) as held:
        values = dict(held)
    values["source"] = np.array("0" * 64)
    np.savez(path, **values)


def spoil_rows(path: Path) -> None:
    with np.load(path) as held:
        values = dict(held)
    values["rows"] = values["rows"][:7]
    np.savez(path, **values)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100_000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


class Boom:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("a table was unpickled",)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Boom()))


def pickled_inside(path: Path) -> None:
    with np.load(path) as held:
        values = dict(held)
    values["rows"] = np.array([Boom()], dtype=object)
    np.savez(path, **values)


def spoil_keys(path: Path) -> None:
    np.savez(path, version=1)


@needs_encoder
class TestBrokenTable:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (Path.unlink, "is missing: distil it first"),
            (spoil_version, "has version 99, not 1: delete it"),
            (spoil_source, "was distilled from another model"),
            (spoil_rows, "does not fit its tokenizer"),
            (spoil_keys, "cannot be used"),
            (cut_short, "cannot be used"),
            (empty, "cannot be used"),
            (pickled, "cannot be used"),
            (pickled_inside, "cannot be used"),
        ],
    )
    def test_is_a_clear_error(
        self, folder: Path, table: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
    ) -> None:
        path = tmp_path / "static.npz"
        path.write_bytes(table.read_bytes())
        spoil(path)
        with pytest.raises(CatalogError, match=message):
            StaticEncoder(folder, path)

    def test_missing_model(self, folder: Path, table: Path, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
        with pytest.raises(CatalogError, match="cannot be read"):
            StaticEncoder(tmp_path, table)
