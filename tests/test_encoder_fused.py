from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.encoder import Encoder, WordPiece
from manyminds.encoder.fused import fuse, probe
from manyminds.encoder.primer import make_questions
from tests.pulled import ENCODER, MINILM, need, needs_encoder

REFUSALS = (ValueError, LookupError, ArithmeticError)


@pytest.fixture(scope="module")
def model() -> bytes:
    need(ENCODER)
    return (MINILM / "model.onnx").read_bytes()


class TestRefusals:
    @given(data=st.binary(max_size=200))
    def test_what_is_no_model_is_refused(self, data: bytes) -> None:
        with pytest.raises(REFUSALS):
            fuse(data)

    @given(body=st.binary(max_size=120))
    def test_nor_is_a_graph_of_nonsense(self, body: bytes) -> None:
        tensor = b"\x2a" + bytes([len(body)]) + body
        with pytest.raises(REFUSALS):
            fuse(b"\x3a" + bytes([len(tensor)]) + tensor)

    @given(at=st.floats(0.0, 0.999))
    def test_a_model_cut_short_is_refused(self, model: bytes, at: float) -> None:
        with pytest.raises(REFUSALS):
            fuse(model[: int(at * len(model))])


@pytest.fixture(scope="module")
def exported() -> Any:
    """The published file as it is, in float32 arithmetic: what the rewriting is held against."""
    import onnxruntime

    need(ENCODER)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(MINILM / "model.onnx", options, providers=["CPUExecutionProvider"])


@needs_encoder
class TestAgainstTheExport:
    def test_vectors_are_all_but_the_same(self, exported: Any) -> None:
        pieces = WordPiece(MINILM / "tokenizer.json")
        words = ["energy", "court", "integral", "river", "python", "inflation", "enzyme", "treaty"]
        texts = ["", "Why?", *make_questions(words, 40), " ".join(make_questions(words, 30, seed=1))]
        encoder = Encoder(MINILM)
        cosines = []
        for text in texts:
            ids = np.array([pieces(text)])
            inputs = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
            full = exported.run(None, inputs)[0][0].mean(axis=0)
            cosines.append(float(encoder.encode([text])[0] @ full / np.linalg.norm(full)))
        assert min(cosines) > 0.97
        assert np.mean(cosines) > 0.99

    def test_no_float_matrix_is_left(self, model: bytes) -> None:
        """Twelve megabytes of words stay outside; what is left is a byte per weight and little else."""
        graph, embeddings = fuse(model)
        assert embeddings.words.dtype == np.int8
        assert embeddings.words.shape == (30_522, 384)
        weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
        assert weights < len(graph) < 1.03 * weights

    def test_shifted_weights_are_the_same_numbers(self, model: bytes) -> None:
        """What a CPU without exact signed kernels runs gives what the others get."""
        import onnxruntime

        (signed, embeddings), (shifted, _) = fuse(model), fuse(model, signed=False)
        x = embeddings.words[None, 2_000:2_040] * embeddings.scales[2_000:2_040]
        one, two = (
            onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
            for graph in (signed, shifted)
        )
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_shifted_or_not_the_probe_is_a_running_graph() -> None:
    import onnxruntime

    graph, x, expected = probe()
    out = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert out.shape == (1, 4, 32)
    assert np.ptp(out) == 0
    assert 0.4 * expected < out.max() <= 1.001 * expected  # half of it where pairs overflow
