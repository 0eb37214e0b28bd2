"""Fetching sets from a server on the loopback interface: whole, cut, wrong, closed, and once more."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from manyminds.errors import DataError, DownloadError, HashMismatchError
from manyminds.evals.datasets import Dataset, Fetched, fetch, is_here
from manyminds.experts.recorded import open_set
from tests.catalog.shelf import Shelf, served
from tests.changed import replace
from tests.evals.upstream import BOARD, board, pinned, url_path

CONTENT = board(good={"a__a-1": True, "b__b-2": False})
DATASET = pinned("swebench_mini", {BOARD: CONTENT})


def shelf_of(dataset: Dataset, **files: bytes) -> Shelf:
    return Shelf(**{url_path(dataset, path): content for path, content in files.items()})


def on(shelf: Shelf, run: Callable[[Callable[..., Awaitable[Fetched]]], Awaitable[None]]) -> None:
    """Runs the test's coroutine with a `fetch` that asks this server."""

    async def fetched(dataset: Dataset, folder: Path) -> Fetched:
        return await asyncio.to_thread(fetch, dataset, folder, base_url=shelf.url)

    async def body() -> None:
        async with served(shelf):
            await run(fetched)

    asyncio.run(body())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_set_is_built_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        assert (await fetched(DATASET, tmp_path / "set")).downloaded

    on(shelf, run)
    built = open_set(tmp_path / "set")
    assert built.models == ("good",)
    assert [question.question_id for question in built.questions()] == ["swe-a__a-1", "swe-b__b-2"]
    assert is_here(DATASET, tmp_path / "set")
    assert names_in(tmp_path) == {"set", ".downloads"}
    assert names_in(tmp_path / ".downloads") == {"swebench_mini.lock"}
    record = json.loads((tmp_path / "set" / "source.json").read_text())
    assert (record["repository"], record["licence"]) == ("owner/name", "Apache-2.0")


def test_a_second_fetch_downloads_nothing(tmp_path: Path) -> None:
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        await fetched(DATASET, tmp_path / "set")
        first = len(shelf.asked)
        assert not (await fetched(DATASET, tmp_path / "set")).downloaded
        assert len(shelf.asked) == first == 1

    on(shelf, run)


def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        await fetched(DATASET, tmp_path / "one" / "set")
        await fetched(DATASET, tmp_path / "two" / "set")

    on(shelf, run)
    one, two = (tmp_path / name / "set" for name in ("one", "two"))
    assert names_in(one) == names_in(two)
    assert all(path.read_bytes() == (two / path.name).read_bytes() for path in one.iterdir())


@pytest.mark.parametrize("hurt", ["answers.parquet", "source.json"])
def test_a_set_that_was_hurt_is_built_again_or_left_alone(tmp_path: Path, hurt: str) -> None:
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        folder = (await fetched(DATASET, tmp_path / "set")).folder
        (folder / hurt).write_bytes(b"hurt")
        assert not is_here(DATASET, folder)
        if hurt == "source.json":  # it can no longer be told from somebody's own folder
            with pytest.raises(DataError, match="in the way"):
                await fetched(DATASET, folder)
            return
        assert (await fetched(DATASET, folder)).downloaded
        assert is_here(DATASET, folder)

    on(shelf, run)


def test_another_pin_replaces_the_folder(tmp_path: Path) -> None:
    content = board(good={"a__a-1": True, "b__b-2": True}, new={"a__a-1": True})
    newer = pinned("swebench_mini", {BOARD: content}, models=2)
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        await fetched(DATASET, tmp_path / "set")
        shelf.files = {url_path(newer, BOARD): content}
        assert (await fetched(newer, tmp_path / "set")).downloaded

    on(shelf, run)
    assert open_set(tmp_path / "set").models == ("good", "new")
    assert names_in(tmp_path) == {"set", ".downloads"}


def test_somebodys_folder_is_never_touched(tmp_path: Path) -> None:
    mine = tmp_path / "set" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DataError, match="in the way"):
        fetch(DATASET, tmp_path / "set", base_url="http://127.0.0.1:1")
    assert mine.read_text() == "mine"


def test_a_closed_network_is_one_line_and_keeps_whole_files(tmp_path: Path) -> None:
    files = {"meta.csv": b"a", BOARD: CONTENT}
    dataset = pinned("swebench_mini", files)
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError) as caught:
            fetch(dataset, tmp_path / "set", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "\n" not in caught.value.message
    assert "swebench_mini cannot be downloaded" in caught.value.message
    assert "stays (0 of 2 files)" in caught.value.message
    assert "127.0.0.1 can be reached" in caught.value.message
    assert not (tmp_path / "set").exists()


def test_a_later_fetch_takes_what_the_first_downloaded(tmp_path: Path) -> None:
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        with pytest.raises(DataError, match="2 questions"):
            await fetched(replace(DATASET, questions=3), tmp_path / "set")
        assert (await fetched(DATASET, tmp_path / "set")).downloaded
        assert len(shelf.asked) == 1

    on(shelf, run)


def test_a_later_fetch_goes_on_within_a_file(tmp_path: Path) -> None:
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})
    part = tmp_path / ".downloads" / "swebench_mini" / f"{DATASET.files[0].sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:64])

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        assert (await fetched(DATASET, tmp_path / "set")).downloaded

    on(shelf, run)
    assert shelf.asked == [(url_path(DATASET, BOARD), "bytes=64-")]


def test_a_file_that_upstream_lost_is_named(tmp_path: Path) -> None:
    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        with pytest.raises(
            DownloadError, match=r"data/leaderboards\.json: HTTP 404\. What is here stays \(0 of 1 files\)"
        ):
            await fetched(DATASET, tmp_path / "set")

    on(Shelf(), run)


def test_a_cut_download_resumes(tmp_path: Path) -> None:
    shelf = shelf_of(DATASET, **{BOARD: CONTENT})
    shelf.cuts = [100]

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        assert (await fetched(DATASET, tmp_path / "set")).downloaded

    on(shelf, run)
    assert shelf.asked[-1] == (url_path(DATASET, BOARD), "bytes=100-")


def test_other_bytes_than_pinned_are_refused(tmp_path: Path) -> None:
    forged = CONTENT.replace(b"false", b"true ")
    shelf = shelf_of(DATASET, **{BOARD: forged})

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        with pytest.raises(HashMismatchError, match=BOARD):
            await fetched(DATASET, tmp_path / "set")

    on(shelf, run)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("counts", "found"), [({"questions": 3}, "2 questions"), ({"models": 2}, "1 models")]
)
def test_a_set_that_comes_out_short_is_not_put_in_place(
    tmp_path: Path, counts: dict[str, int], found: str
) -> None:
    dataset = pinned("swebench_mini", {BOARD: CONTENT}, **counts)

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        with pytest.raises(DataError, match=found):
            await fetched(dataset, tmp_path / "set")

    on(shelf_of(dataset, **{BOARD: CONTENT}), run)
    assert names_in(tmp_path) == {".downloads"}


def test_names_with_spaces_and_signs_are_asked_for(tmp_path: Path) -> None:
    path = "r/Meta Llama@host (1).json"
    turns = [{"id": n, "output": ['"answer": 4'], "answer": "4", "problem": f"2+{n}?"} for n in range(2)]
    content = json.dumps(turns).encode()
    dataset = pinned("math_l5", {path: content}, model="Athene-70B")

    async def run(fetched: Callable[..., Awaitable[Fetched]]) -> None:
        assert (await fetched(dataset, tmp_path / "set")).downloaded

    on(shelf_of(dataset, **{path: content}), run)
    assert open_set(tmp_path / "set").models == ("Athene-70B",)


def test_the_bytes_at_hand_add_up(tmp_path: Path) -> None:
    shelf, moves = shelf_of(DATASET, **{BOARD: CONTENT}), list[int]()

    async def body() -> None:
        async with served(shelf):
            await asyncio.to_thread(fetch, DATASET, tmp_path / "set", base_url=shelf.url, moved=moves.append)

    asyncio.run(body())
    assert sum(moves) == DATASET.bytes == len(CONTENT)
