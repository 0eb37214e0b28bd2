"""The measurements of `evals.routing`: that they measure what they say, not how fast this machine is."""

from pathlib import Path

import numpy as np
import pytest

from manyminds.encoder import Encoder, WordPiece, distil
from manyminds.evals import routing
from tests.pulled import shrunk


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model with a vocabulary of single characters, and its table."""
    made = shrunk(tmp_path_factory.mktemp("minilm"), 1_100)
    letters = np.random.default_rng(0).choice(list("abcdefghij0123456789+-"), (60, 8))
    distil(Encoder(made), made, made / "static.npz", [" ".join(row) for row in letters], made=0)
    return made


class TestMeasure:
    def test_both_encoders_at_all_lengths(self, folder: Path) -> None:
        found = routing.measure_encoders(folder, folder / "static.npz", 2)
        assert found["runs"] == 2
        for name in ("minilm_ms", "static_ms"):
            assert list(found[name]) == ["16", "64", "256"]
            assert all(ms > 0 for ms in found[name].values())

    @pytest.mark.parametrize("tokens", [3, 16, 64, 256])
    def test_texts_have_exactly_so_many_tokens(self, folder: Path, tokens: int) -> None:
        pieces = WordPiece(folder / "tokenizer.json", max_tokens=512)
        assert len(pieces(routing._text_of(pieces, tokens))) == tokens

    def test_loss_of_an_easy_task_is_none(self, folder: Path) -> None:
        texts = ["1 2 3 4 5 6", "7 8 9 0 1", "a b c d e", "f g h i j a b"] * 5
        found = routing.measure_loss(
            folder, folder / "static.npz", texts, ["digits", "digits", "letters", "letters"] * 5
        )
        assert found["questions"] == 20
        assert found["minilm_accuracy"] == found["static_accuracy"] == found["swapped_accuracy"] == 1.0
        assert 0.5 < found["cosine"] < 1.0


class TestPredictLabels:
    def test_rows_teach_others_never_themselves(self) -> None:
        """Labels that the vectors say nothing of are told no better than by chance."""
        draw = np.random.default_rng(3)
        rows = draw.normal(size=(1000, 60)).astype(np.float32)
        labels = draw.choice(["a", "b"], 1000).tolist()
        right = (routing.predict_labels(rows, rows, labels) == np.asarray(labels)).mean()
        assert 0.4 < right < 0.6

    def test_what_the_vectors_say_is_told(self) -> None:
        draw = np.random.default_rng(4)
        labels = draw.choice(["a", "b", "c"], 300).tolist()
        rows = draw.normal(size=(300, 8)).astype(np.float32)
        rows[:, :3] += 9 * (np.asarray(labels)[:, None] == np.array(["a", "b", "c"]))
        assert (routing.predict_labels(rows, rows, labels) == np.asarray(labels)).all()
        turned = routing.predict_labels(rows, rows[:, [1, 2, 0, 3, 4, 5, 6, 7]], labels)
        assert not (turned == np.asarray(labels)).any()
