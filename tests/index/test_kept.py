"""The index in a folder: real files, real processes, and real crashes."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import IndexFileError
from manyminds.index import Index, KeptIndex, snapshot
from tests.index.test_shelved import FLAT, SHELVES, D, Panel, made, panels, rows

QUERY = rows(1000, 1)[0]


def opened(folder: Path, *, pending: int = 8) -> KeptIndex:
    return KeptIndex(folder, D, flat=FLAT, pending=pending)


def filled(folder: Path, count: int = 4) -> KeptIndex:
    index = opened(folder)
    for i in range(count):
        index.add(f"{i}", rows(i, 2), i)
    return index


def start(code: str, *arguments: object, before: str = "") -> "subprocess.Popen[str]":
    """A process of its own, in which `KeptIndex`, `rows` and `opened` are known."""
    head = f"{before}\nfrom tests.index.test_kept import *\nfolder = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root)])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": paths}
    )


# --- it is an index --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(panel=panels, extra=panels, limit=st.integers(1, 12), data=st.data())
def test_what_is_kept_is_what_is_in_memory(
    panel: Panel, extra: Panel, limit: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("index")
    index = opened(folder)
    index.shelve(SHELVES)
    for name in data.draw(st.permutations(sorted(extra))):
        index.add(name, extra[name], 7)
    index.shelve(SHELVES)
    index.add_all((name, vectors, len(name)) for name, vectors in panel.items())
    index.remove_all(sorted(extra.keys() - panel.keys()))
    expected = made(panel, SHELVES).search(QUERY, limit)
    assert index.search(QUERY, limit) == expected
    assert opened(folder).search(QUERY, limit) == expected
    index.snapshot()
    assert index.search(QUERY, limit) == expected
    assert opened(folder).names() == sorted(panel)
    nearest = dict(index.search(QUERY, len(panel)).hits)
    assert index.pending == 0
    similarity = index.similarity(QUERY, [*panel, "nobody"])
    assert similarity.keys() == panel.keys()
    assert nearest.items() <= similarity.items()


@settings(deadline=None, max_examples=15)
@given(panel=panels, data=st.data(), part=st.integers(1, 9))
def test_what_is_loaded_is_what_was_added(
    panel: Panel, data: st.DataObject, part: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("index")
    added, loaded = KeptIndex(folder / "added", D, flat=4), KeptIndex(folder / "loaded", D, flat=4)
    added.add_all((name, vectors, len(name)) for name, vectors in panel.items())
    added.shelve()
    first = min(panel)
    with pytest.MonkeyPatch.context() as patch:  # parts and blocks as small as the panel
        for name, size in (("_PART", part), ("_BLOCK", part + 2), ("_BOOKS", 2)):
            patch.setattr(snapshot, name, size)
        names = [first, *data.draw(st.permutations(sorted(panel)))]
        loaded.load((name, panel[name] if i else rows(5, 2), len(name)) for i, name in enumerate(names))
    for name in ("rows", "codes", "owners", "places", "small.npz", "header.json"):
        [one], [other] = (list(folder.glob(f"{which}/*/{name}")) for which in ("added", "loaded"))
        assert one.read_bytes() == other.read_bytes()
    assert loaded.search(QUERY, 9) == added.search(QUERY, 9)
    assert sorted(path.name for path in (folder / "loaded").iterdir()) == [
        *("CURRENT", "LOCK", "changes-000001", "snapshot-000001")
    ]


def test_only_what_is_empty_is_loaded(tmp_path: Path) -> None:
    index = opened(tmp_path)
    index.load([])
    with pytest.raises(ValueError, match=r"'b'.*shape"):
        index.load([("a", rows(0, 2), 1), ("b", rows(0, 2, D + 1), 1)])
    assert len(index) == 0
    index.load([("a", rows(0, 2), 1)])
    with pytest.raises(ValueError, match="holds 1 experts"):
        index.load([("b", rows(0, 2), 1)])
    assert opened(tmp_path).names() == ["a"]


def test_names_may_be_any_text(tmp_path: Path) -> None:
    index, names = opened(tmp_path), ["", "\ud800", "ü\n", "\U0001f600", "z" * 300]
    for i, name in enumerate(names):
        index.add(name, rows(i, 3))
    index.snapshot()
    index.remove("ü\n")
    assert opened(tmp_path).names() == sorted(set(names) - {"ü\n"})


def test_bad_vectors_change_nothing(tmp_path: Path) -> None:
    index = filled(tmp_path)
    before = index.search(QUERY, 9)
    with pytest.raises(ValueError, match=r"'4'.*shape"):
        index.add_all([("3", rows(9, 1), 0), ("4", rows(9, 1, D + 1), 0)])
    assert index.search(QUERY, 9) == before == opened(tmp_path).search(QUERY, 9)


def test_nobody_is_left_and_somebody_comes(tmp_path: Path) -> None:
    index = filled(tmp_path, 9)
    for i in range(9):
        index.remove(f"{i}")
    index.snapshot()
    assert len(opened(tmp_path)) == 0
    index.add("a", rows(0, 1))
    assert opened(tmp_path).search(rows(0, 1)[0], 3).hits[0][0] == "a"


# --- several processes -----------------------------------------------------------------------------


def test_two_open_folders_see_each_other(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    for i in range(20):
        (one if i % 2 else other).add(f"{i}", rows(i, 2), i)
    other.remove("7")
    assert len(one) == 20
    one.refresh()
    assert one.search(QUERY, 30) == other.search(QUERY, 30)
    assert len(one) == 19


def test_two_processes_write_and_none_is_lost(tmp_path: Path) -> None:
    code = (
        "index = opened(folder)\n"
        "for i in range(60):\n"
        "    index.add(f'{sys.argv[2]}-{i}', rows(i, 2), 1)\n"
        "    if i % 3 == 0: index.remove(f'{sys.argv[2]}-{i // 3}')\n"
        "    if i % 20 == 0: index.snapshot()\n"
    )
    writers = [start(code, tmp_path, name) for name in "ab"]
    for writer in writers:
        writer.communicate(timeout=100)
        assert writer.returncode == 0
    both = opened(tmp_path)
    left = [i for i in range(60) if i > 19]
    assert both.names() == sorted(f"{name}-{i}" for name in "ab" for i in left)
    alone = Index(D, flat=FLAT)
    for name, i in itertools.product("ab", left):
        alone.add(f"{name}-{i}", rows(i, 2), 1)
    alone.shelve(both.shelves)
    assert both.search(QUERY, 100) == alone.search(QUERY, 100)


def test_readers_go_on_while_others_write(tmp_path: Path) -> None:
    filled(tmp_path, 30)
    code = "index = opened(folder)\nprint('ready', flush=True)\nwhile True: index.snapshot()\n"
    writer = start(code, tmp_path)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        reader, stale = opened(tmp_path), opened(tmp_path)
        expected = reader.search(QUERY, 5)
        numbers: set[int] = set()
        while len(numbers) < 10:
            reader.refresh()
            assert reader.search(QUERY, 5) == stale.search(QUERY, 5) == expected
            assert opened(tmp_path).search(QUERY, 5) == expected
            numbers.add(json.loads((tmp_path / "CURRENT").read_bytes())["number"])
    finally:
        writer.kill()
        writer.communicate()


# --- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["rows", "codes", "places", "small.npz", "header.json", "changes", "told"])
def test_killed_at_any_step_it_keeps_what_it_told_of(tmp_path: Path, step: str) -> None:
    code = (
        "index = opened(folder)\n"
        "for i in range(len(index), 10**6):\n"
        "    index.add(f'{i}', rows(i, 2), i)\n"
        "    print(i, flush=True)\n"
        "    if i % 4 == 3: index.snapshot()\n"
    )
    count = 0
    for _ in range(3):
        writer = start(code, tmp_path)
        assert writer.stdout is not None
        assert writer.stdout.readline() == f"{count}\n"
        seen = {path.name for path in tmp_path.iterdir()}
        while step != "told" and not any(
            path.name not in seen and (path.name.startswith(step) or (path / step).exists())
            for path in tmp_path.iterdir()
        ):
            pass
        writer.send_signal(signal.SIGKILL)
        lines = writer.communicate()[0].splitlines()
        told = int(lines[-1]) if lines else count
        index = opened(tmp_path)
        assert len(index) in (told + 1, told + 2)  # the last may have been kept before it was told of
        count = len(index)
        assert sorted(map(int, index.names())) == list(range(count))
        assert index.vectors == 2 * count
        alone = Index(D, flat=FLAT)
        alone.add_all((f"{i}", rows(i, 2), i) for i in range(count))
        assert index.search(QUERY, 5).hits == alone.search(QUERY, 5).hits


def test_a_snapshot_that_was_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    index = filled(tmp_path)
    expected = index.search(QUERY, 9)
    number = json.loads((tmp_path / "CURRENT").read_bytes())["number"] + 1
    left = tmp_path / f"snapshot-{number:06d}"
    left.mkdir()
    (left / "rows").write_bytes(b"half")
    (tmp_path / f"changes-{number:06d}").write_bytes(b"of another")
    (tmp_path / ".CURRENT.part").write_bytes(b"{")
    assert opened(tmp_path).search(QUERY, 9) == expected
    index.snapshot()
    assert opened(tmp_path).search(QUERY, 9) == expected == index.search(QUERY, 9)


def test_a_log_cut_at_any_byte_is_a_log_with_fewer_changes(tmp_path: Path) -> None:
    filled(tmp_path / "whole", 3)
    log = next((tmp_path / "whole").glob("changes-*"))
    content = log.read_bytes()
    each = len(content) // 3
    for cut in range(0, len(content) + 1, 3):
        log.write_bytes(content[:cut])
        assert opened(tmp_path / "whole").names() == [f"{i}" for i in range(cut // each)]
    log.write_bytes(content[: 2 * each + 9])
    opened(tmp_path / "whole").add("new", rows(5, 1))
    assert opened(tmp_path / "whole").names() == ["0", "1", "new"]


# --- damage ----------------------------------------------------------------------------------------


def test_a_log_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    log = next(tmp_path.glob("changes-*"))
    content = log.read_bytes()
    for at in range(0, 2 * (len(content) // 3), 7):
        log.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(IndexFileError, match=r"changes-.*damaged.*put back a copy"):
            opened(tmp_path)


def test_snapshot_files_cut_at_any_byte_are_refused(tmp_path: Path) -> None:
    index = filled(tmp_path, 3)
    index.snapshot()
    for file in sorted(next(tmp_path.glob("snapshot-*")).iterdir()):
        content = file.read_bytes()
        for cut in range(0, len(content), 1 + len(content) // 60):
            file.write_bytes(content[:cut])
            with pytest.raises(IndexFileError, match="damaged"):
                opened(tmp_path)
        file.write_bytes(content)
    assert len(opened(tmp_path)) == 3


def test_no_byte_of_a_small_file_makes_it_crash(tmp_path: Path) -> None:
    index = filled(tmp_path, 30)
    assert index.shelves is not None
    index.snapshot()
    draw = random.Random(0)
    snapshot = next(tmp_path.glob("snapshot-*"))
    for file in (snapshot / "small.npz", snapshot / "owners", snapshot / "places", tmp_path / "CURRENT"):
        content = file.read_bytes()
        for _ in range(60):
            changed = bytearray(content)
            changed[draw.randrange(len(content))] = draw.randrange(256)
            file.write_bytes(changed)
            with suppress(IndexFileError):  # or it is found to be right
                assert len(opened(tmp_path).search(QUERY, 5).hits) <= 5
        file.write_bytes(content)


@pytest.mark.parametrize("missing", ["CURRENT", "changes", "snapshot"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    index = filled(tmp_path, 9)
    index.snapshot()
    [path] = tmp_path.glob(f"{missing}*")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(IndexFileError, match=rf"{missing}.*put back a copy"):
        index.refresh() if missing == "CURRENT" else opened(tmp_path)


def test_another_version_or_dimension_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(IndexFileError, match=rf"vectors of {D} numbers, not 5"):
        KeptIndex(tmp_path, 5)
    current = json.loads((tmp_path / "CURRENT").read_bytes())
    (tmp_path / "CURRENT").write_text(json.dumps({"version": 2}))
    with pytest.raises(IndexFileError, match=r"version 2.*this is version 1.*update manyminds"):
        opened(tmp_path)
    (tmp_path / "CURRENT").write_text(json.dumps(current))
    assert len(opened(tmp_path)) == 4


def test_a_disk_that_fails_leaves_what_was_kept(tmp_path: Path) -> None:
    index = filled(tmp_path)
    log = next(tmp_path.glob("changes-*"))
    log.rename(tmp_path / "elsewhere")
    with pytest.raises(IndexFileError):
        index.add("new", rows(9, 1))
    (tmp_path / "elsewhere").rename(log)
    index.add("newer", rows(9, 1))
    assert index.names() == ["0", "1", "2", "3", "newer"] == opened(tmp_path).names()
    assert np.isfinite(index.search(QUERY, 3).hits[0][1])


def test_without_faiss_all_is_the_same_and_said_once(tmp_path: Path) -> None:
    index = opened(tmp_path, pending=4000)
    index.add_all((f"{i}", rows(i, 2), i) for i in range(1500))
    index.snapshot()
    code = (
        "import logging\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(message)s')\n"
        "index = opened(folder)\n"
        "for i in range(40): print(index.search(rows(2000 + i, 1)[0], 10))\n"
        "index.snapshot()\n"
    )
    missing = "import sys\nsys.modules['faiss'] = None"  # as if it were not installed
    told, *found = start(code, tmp_path, before=missing).communicate(timeout=100)[0].splitlines()
    assert told.startswith("faiss-cpu is not installed")
    assert found == [f"{index.search(rows(2000 + i, 1)[0], 10)}" for i in range(40)]
