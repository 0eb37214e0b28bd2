import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece as Oracle
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from manyminds.encoder import Encoder, WordPiece
from manyminds.errors import CatalogError
from tests.pulled import ENCODER, MINILM, need, needs_encoder

WORDS = ["the", "un", "##aff", "##able", "##ing", "東", "京", "α", "σ", "##σ", "ß", "\u1100", "##\u1161"]
WORDS += ["[", "]", "sep", "##sep", "☃", "##☃", "😀"]
CHARS = "abcdefghijklmnopqrstuvwxyz0123456789!\"#$%&'()*+,-./:;<=>?@\\^_`{|}~"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *CHARS, *(f"##{c}" for c in CHARS[:36]), *WORDS]
CONTROL = {"[CLS]": 2, "[SEP]": 3}


def settled(char: str) -> bool:
    """Characters whose class every edition of Unicode agrees on: each library carries its own tables."""
    old, new = unicodedata.ucd_3_2_0.category(char), unicodedata.category(char)
    return old == new or (old == "Cn" and new in {"Lo", "Ll", "So"})


characters = st.one_of(
    st.characters(max_codepoint=0x7F),
    st.characters(max_codepoint=0x24F).filter(settled),
    st.sampled_from(
        "\0\t\n\r\x1c\x85\u00a0\u00ad\u200b\u2028\u3000\ufeff\ufffd\u0301\u0307\u0338ΣςİßﬁǅÅ가≠;東豈〇😀"
    ),
    st.characters(exclude_categories=["Cn", "Cs"]).filter(settled),
)
texts = st.text(characters, max_size=60)


def oracle_of(path: Path) -> Callable[[str], list[int]]:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
    return lambda text: list(tokenizer.encode(text).ids)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokenizer.json` of a few words, written by the library itself."""
    ids = {piece: i for i, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(Oracle(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=list(CONTROL.items())
    )
    path = tmp_path_factory.mktemp("small") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module", params=["small", "minilm"])
def pieces(request: pytest.FixtureRequest, small: Path) -> tuple[WordPiece, Callable[[str], list[int]]]:
    if request.param == "minilm":
        need(ENCODER)
    path = small if request.param == "small" else MINILM / "tokenizer.json"
    return WordPiece(path), oracle_of(path)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(MINILM)


class TestWordPiece:
    @given(text=texts)
    @example(text="")
    @example(text="The unaffable İSTANBUL, ΟΔΟΣ; résumé 東京タワー ≠ [SEP] a\u0301\u0323b ﬁn가")
    @example(text="x" * 100 + " " + "x" * 101)
    @example(text="é" * 100)
    @example(text="the " * 300)
    @example(text="unaffable" * 40)
    def test_agrees_with_the_tokenizers_library(
        self, pieces: tuple[WordPiece, Callable[[str], list[int]]], text: str
    ) -> None:
        ours, oracle = pieces
        assert ours(text) == oracle(text)

    def test_every_settled_character_is_treated_as_the_library_does(
        self, pieces: tuple[WordPiece, Callable[[str], list[int]]]
    ) -> None:
        ours, oracle = pieces
        codes = [*range(0x3100), *range(0xA000, 0xA100), *range(0xF900, 0x10000), *range(0x1F300, 0x1F700)]
        codes += [*range(0x2A6D0, 0x2A710), *range(0x2B730, 0x2B930), *range(0x2CE90, 0x2CEC0)]
        odd = [hex(c) for c in codes if settled(chr(c)) and ours(f"a{chr(c)}b") != oracle(f"a{chr(c)}b")]
        assert odd == []

    def test_a_lone_surrogate_is_dropped(self, small: Path) -> None:
        ours = WordPiece(small)
        assert ours("a\ud800b") == ours("ab")

    def test_keeps_to_the_limit_and_ends_with_its_marker(self, small: Path) -> None:
        ids = WordPiece(small, max_tokens=8)("a b c d e f g h i j")
        assert len(ids) == 8
        assert ids == [CONTROL["[CLS]"], *map(VOCABULARY.index, "abcdef"), CONTROL["[SEP]"]]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b'{"model": {"type": "BPE", "vocab": {}}}',
            b'{"model": {"type": "WordPiece", "vocab": {"[CLS]": 1}}}',
            b'{"model": {"type": "WordPiece", "vocab": {"[CLS]": "one"}}}',
        ],
    )
    def test_a_bad_file_is_a_clear_error(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(CatalogError, match=r"tokenizer\.json cannot be used.*`manyminds pull`"):
            WordPiece(tmp_path / "tokenizer.json")

    def test_a_missing_file_is_a_clear_error(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match=r"tokenizer\.json is missing: run `manyminds pull`"):
            WordPiece(tmp_path / "tokenizer.json")


class TestBrokenModel:
    def test_missing(self, small: Path) -> None:
        with pytest.raises(CatalogError, match=r"model\.onnx is missing: run `manyminds pull`"):
            Encoder(small.parent)

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
    def test_corrupt(self, tmp_path: Path, small: Path, content: bytes) -> None:
        (tmp_path / "tokenizer.json").write_bytes(small.read_bytes())
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(CatalogError, match=r"model\.onnx cannot be used.*`manyminds pull`"):
            Encoder(tmp_path)

    @needs_encoder
    def test_cut_short(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_bytes((MINILM / "tokenizer.json").read_bytes())
        (tmp_path / "model.onnx").write_bytes((MINILM / "model.onnx").read_bytes()[:5_000_000])
        with pytest.raises(CatalogError, match=r"model\.onnx cannot be used.*`manyminds pull`"):
            Encoder(tmp_path)


QUESTIONS = [
    "What is 17 + 26?",
    "",
    "Sort a list in Python.",
    " \n",
    "東京はどこ?",
    "long " * 900,
    "\ud800",
    "a",
]


@needs_encoder
class TestEncoder:
    def test_rows_are_unit_vectors_whatever_the_text(self, encoder: Encoder) -> None:
        rows = encoder.encode(QUESTIONS)
        assert rows.shape == (len(QUESTIONS), 384)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)

    def test_no_texts_are_no_rows(self, encoder: Encoder) -> None:
        assert encoder.encode([]).shape == (0, 384)

    def test_company_order_and_cache_do_not_change_a_bit(self, encoder: Encoder) -> None:
        alone = np.stack([Encoder(MINILM, cache_size=0).encode([text])[0] for text in QUESTIONS])
        backwards = Encoder(MINILM, cache_size=2).encode([*reversed(QUESTIONS), QUESTIONS[0]])
        assert np.array_equal(encoder.encode(QUESTIONS), alone)
        assert np.array_equal(encoder.encode(QUESTIONS), alone)
        assert np.array_equal(backwards[-2::-1], alone)
        assert np.array_equal(backwards[-1], alone[0])

    def test_a_lone_surrogate_shares_its_cache_entry_with_nothing(self, encoder: Encoder) -> None:
        question, lone, empty = encoder.encode(["?", "\ud800", ""])
        assert np.array_equal(lone, empty)
        assert not np.array_equal(lone, question)

    def test_the_cache_is_bounded(self) -> None:
        encoder = Encoder(MINILM, cache_size=3)
        encoder.encode([f"question {i}" for i in range(10)])
        assert len(encoder._cache) == 3

    def test_what_is_returned_is_the_callers_own(self, encoder: Encoder) -> None:
        before = encoder.encode(["mine"]).copy()
        encoder.encode(["mine"])[:] = 0.0
        assert np.array_equal(encoder.encode(["mine"]), before)

    def test_threads_share_it(self) -> None:
        expected = Encoder(MINILM).encode(QUESTIONS)
        shared = Encoder(MINILM, cache_size=4)
        with ThreadPoolExecutor(4) as pool:
            for rows in pool.map(lambda _: shared.encode(QUESTIONS), range(12)):
                assert np.array_equal(rows, expected)

    def test_near_meanings_are_near(self, encoder: Encoder) -> None:
        city, capital, code = encoder.encode(
            [
                "What is the capital of Australia?",
                "Australia's capital city",
                "How do I sort a list in Python?",
            ]
        )
        assert city @ capital > 0.7 > 0.3 > city @ code


@needs_encoder
def test_nothing_is_reported_to_the_makers_of_its_runtime(tmp_path: Path) -> None:
    """onnxruntime leaves a file of its telemetry among temporary ones, unless it is told not to report."""
    script = f"from manyminds.encoder import Encoder; Encoder(__import__('pathlib').Path({str(MINILM)!r}))"
    environ = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environ | {"TMPDIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
