"""`manyminds data`: what is listed, agreed to, and said where the network is closed."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from manyminds.cli.data import build, data
from manyminds.errors import DownloadError
from manyminds.evals.datasets import find, is_here
from tests.catalog.shelf import Shelf, served
from tests.evals.upstream import BOARD, board, pinned, url_path


@pytest.fixture(autouse=True)
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, and a network that is closed: its proxy refuses connections."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{taken.getsockname()[1]}")
        yield here / "home"


def run(*words: str) -> Result:
    return CliRunner().invoke(data, words)


def test_the_list_names_licences_and_sizes(home: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows["swebench_mini"]["licence"] == "CC BY-NC 4.0"
    assert rows["mmlu_pro"]["questions"] == 11_330
    assert rows["gsm8k"]["path"] == str(home / "data" / "gsm8k")
    assert not any(row["here"] for row in rows.values())
    shown = run("list").stdout
    assert all(name in shown for name in rows)


def test_nothing_is_downloaded_unless_the_licence_is_agreed_to(home: Path) -> None:
    asked = run("fetch", "swebench_mini")
    assert asked.exit_code == 2
    assert "licence CC BY-NC 4.0 (not for commercial use)" in asked.stderr
    assert "--yes" in asked.stderr
    assert not home.exists()


def test_a_closed_network_is_told_in_one_line(home: Path) -> None:
    failed = run("fetch", "swebench_mini", "--yes")
    assert isinstance(failed.exception, DownloadError)  # which the program prints, and exits with 1
    assert "raw.githubusercontent.com can be reached" in failed.exception.message
    assert "\n" not in failed.exception.message
    assert not (home / "data" / "swebench_mini").exists()


def test_an_unknown_set_is_no_download() -> None:
    failed = run("fetch", "gsm9k", "--yes")
    assert "did you mean gsm8k?" in str(failed.exception)


def test_what_is_here_needs_neither_network_nor_consent(tmp_path: Path) -> None:
    dataset = find("gsm8k")
    folder = tmp_path / "sets" / "gsm8k"
    folder.mkdir(parents=True)
    files = {}
    for name in ("questions.parquet", "answers.parquet", "models.parquet"):
        (folder / name).write_bytes(b"")
        files[name] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    record = {
        "name": "gsm8k",
        "repository": "",
        "commits": [],
        "licence": "",
        "pin": dataset.pin,
        "format": 2,
    }
    (folder / "source.json").write_bytes(msgspec.json.encode(record | {"files": files}))
    assert is_here(dataset, folder)
    done = run("fetch", "gsm8k", "gsm8k", "--into", "sets", "--json")
    assert done.exit_code == 0
    (row,) = json.loads(done.stdout)
    assert (row["path"], row["downloaded"]) == (str(folder), False)
    assert "already here" in done.stderr


def test_a_set_is_built_below_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = board(good={"a__a-1": True, "b__b-2": False})
    dataset = pinned("swebench_mini", {BOARD: content})
    shelf = Shelf(**{url_path(dataset, BOARD): content})

    async def body() -> None:
        async with served(shelf):
            rows = await asyncio.to_thread(build, [dataset], tmp_path, yes=True, base_url=shelf.url)
            assert [(row["path"], row["downloaded"]) for row in rows] == [
                (str(tmp_path / "swebench_mini"), True)
            ]

    asyncio.run(body())
    said = capsys.readouterr()
    assert "licence Apache-2.0 (made up)" in said.err
    assert said.out == ""


def test_without_anybody_to_ask_consent_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pinned("swebench_mini", {BOARD: b"x"})
    with open("/dev/null") as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        with pytest.raises(click.UsageError, match="--yes"):
            build([dataset], tmp_path, yes=False)
    assert list(tmp_path.iterdir()) == []
