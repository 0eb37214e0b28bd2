import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds import catalog
from manyminds.errors import CatalogError, HashMismatchError, UnknownModelError
from tests.catalog.shelf import hub, model
from tests.changed import replace

CONTENT = b"GGUF" + bytes(range(256))
TOY = model(CONTENT, hub("https://hub.invalid/toy.gguf"))


def put(home: Path, content: bytes) -> Path:
    path = catalog.path_of(home, TOY.files[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_catalogue_holds_the_models_of_each_tier() -> None:
    starter = {"smollm2-135m", "qwen2.5-coder-0.5b", "all-minilm-l6-v2"}
    assert {m.name for m in catalog.tier("starter")} == starter
    assert {m.name for m in catalog.tier("full")} == starter | {"qwen2.5-coder-1.5b"}
    assert catalog.tier("none") == []
    assert set(catalog.load()) == starter | {"qwen2.5-coder-1.5b", "gemma-3-270m"}
    with pytest.raises(CatalogError, match="starter, full, none"):
        catalog.tier("everything")


def test_every_file_can_be_had_and_checked() -> None:
    files = [file for m in catalog.load().values() for file in m.files]
    assert len({file.name for file in files}) == len(files)  # progress goes by file name
    for file in files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.bytes > 0
        assert file.sources
        assert [s.kind for s in file.sources] in (["hub", "carrier"], ["carrier"])
        for source in file.sources:
            assert source.url.startswith("https://") == (source.kind == "hub")
            assert bool(source.parts) == (source.kind == "carrier")
            assert all(re.fullmatch(r"[0-9a-f]{64}", part.sha256) for part in source.parts)
            assert len({part.member for part in source.parts}) == len(source.parts)


def test_accuracy_is_the_share_of_twelve_questions_shrunk_to_chance() -> None:
    right = {"smollm2-135m": 8, "gemma-3-270m": 11, "qwen2.5-coder-0.5b": 11, "qwen2.5-coder-1.5b": 12}
    models = [m for m in catalog.load().values() if m.kind == "gguf"]
    assert {m.name: m.accuracy for m in models} == {name: round((k + 3) / 24, 3) for name, k in right.items()}
    assert all(m.skills and m.description and m.context_tokens and m.memory_mb for m in models)
    assert [m.name for m in models if not m.chat] == ["gemma-3-270m"]
    assert "Gemma Terms of Use" in catalog.find("gemma-3-270m").licence_note


def test_unknown_name_is_answered_with_the_nearest() -> None:
    assert catalog.find("smollm2-135m").name == "smollm2-135m"
    with pytest.raises(UnknownModelError, match=r'did you mean "qwen2\.5-coder-0\.5b"'):
        catalog.find("Qwen2.5-coder-0.5")
    with pytest.raises(UnknownModelError, match="all-minilm-l6-v2"):
        catalog.find("zzz")


def test_missing_looks_at_presence_and_size_alone(tmp_path: Path) -> None:
    assert catalog.missing(tmp_path, TOY) == list(TOY.files)
    path = put(tmp_path, CONTENT[:-1])
    assert catalog.missing(tmp_path, TOY) == list(TOY.files)
    path.write_bytes(bytes(len(CONTENT)))
    assert catalog.missing(tmp_path, TOY) == []
    assert catalog.missing(path, TOY) == list(TOY.files)  # below a file there is nothing


def test_verify_reads_the_whole_file_and_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="manyminds pull toy"):
        catalog.verify(tmp_path, TOY)
    path = put(tmp_path, CONTENT)
    catalog.verify(tmp_path, TOY)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(HashMismatchError, match=TOY.files[0].sha256):
        catalog.verify(tmp_path, TOY)
    assert path.exists()


def test_own_file_is_recorded_where_it_lies(tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT)
    assert catalog.own(tmp_path) == []
    added = catalog.add_own(tmp_path, mine, "mine")
    assert added == catalog.OwnModel("mine", mine, len(CONTENT), TOY.files[0].sha256)
    mine.write_bytes(CONTENT * 2)
    again = catalog.add_own(tmp_path, mine, "mine")
    assert catalog.own(tmp_path) == [again]
    assert again == replace(added, bytes=2 * len(CONTENT), sha256=again.sha256)
    assert [file.name for file in (tmp_path / "models" / "own").iterdir()] == ["mine.json"]


def test_only_a_gguf_file_can_be_added(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("dear diary")
    with pytest.raises(CatalogError, match="not a GGUF file"):
        catalog.add_own(tmp_path, text, "notes")
    with pytest.raises(CatalogError, match="No such file"):
        catalog.add_own(tmp_path, tmp_path / "absent", "absent")
    with pytest.raises(CatalogError, match="cannot be read"):
        catalog.add_own(tmp_path, tmp_path, "folder")
    with pytest.raises(CatalogError, match="choose another name"):
        catalog.add_own(tmp_path, text, "gemma-3-270m")
    assert not (tmp_path / "models").exists()


@given(st.one_of(st.text(max_size=70), st.from_regex(r"[a-z0-9._/-]{1,70}", fullmatch=True)))
def test_own_name_is_accepted_exactly_when_it_is_plain(name: str) -> None:
    plain = re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) is not None
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        (home / "a.gguf").write_bytes(CONTENT)
        if plain:
            assert catalog.add_own(home, home / "a.gguf", name) == catalog.own(home)[0]
            return
        with pytest.raises(CatalogError, match="cannot name a model"):
            catalog.add_own(home, home / "a.gguf", name)
        assert not (home / "models").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"path": 1, "bytes": 1, "sha256": "0"}', "\x00"])
def test_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    record = tmp_path / "models" / "own" / "mine.json"
    record.parent.mkdir(parents=True)
    record.write_text(text)
    with pytest.raises(CatalogError, match=r"mine\.json is damaged"):
        catalog.own(tmp_path)


def test_record_is_plain_json(tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT)
    catalog.add_own(tmp_path, mine, "mine")
    fields = json.loads((tmp_path / "models" / "own" / "mine.json").read_text())
    assert fields == {
        "name": "mine",
        "path": str(mine),
        "bytes": len(CONTENT),
        "sha256": TOY.files[0].sha256,
    }
