import asyncio
from pathlib import Path

import pytest

from manyminds.errors import DownloadError, HashMismatchError
from tests.catalog.pulls import WHOLE, Shown, from_hub, parts, whole_files
from tests.catalog.shelf import Shelf, sha256


@pytest.fixture
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once."""
    pause = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: pause(0))


@pytest.mark.usefixtures("no_back_off")
def test_a_cut_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    shelf = Shelf(toy=WHOLE)
    shelf.cuts = [120_000, 100_000]
    shown = Shown()
    [pulled] = from_hub(tmp_path, shelf, shown)
    assert pulled.path.read_bytes() == WHOLE
    assert shown.finished == ["toy.gguf"]
    ranges = [asked for _, asked in shelf.asked]
    assert ranges[0] == ""
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in ranges[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(WHOLE)


@pytest.mark.usefixtures("no_back_off")
def test_a_source_that_is_always_cut_is_given_up(tmp_path: Path) -> None:
    shelf = Shelf(toy=WHOLE)
    shelf.cuts = [1000] * 99
    with pytest.raises(DownloadError, match="no source of toy"):
        from_hub(tmp_path, shelf)
    assert len(shelf.asked) == 8
    assert whole_files(tmp_path) == []
    [size] = parts(tmp_path).values()
    shelf = Shelf(toy=WHOLE)
    from_hub(tmp_path, shelf)
    assert shelf.asked == [("toy", f"bytes={size}-")]


@pytest.mark.usefixtures("no_back_off")
def test_a_server_without_ranges_is_read_from_the_start(tmp_path: Path) -> None:
    shelf = Shelf(toy=WHOLE)
    shelf.ranges = False
    shelf.cuts = [200_000]
    shown = Shown()
    [pulled] = from_hub(tmp_path, shelf, shown)
    assert pulled.path.read_bytes() == WHOLE
    assert shown.finished == ["toy.gguf"]


@pytest.mark.usefixtures("no_back_off")
def test_a_file_that_changes_meanwhile_is_read_from_the_start(tmp_path: Path) -> None:
    shelf = Shelf(toy=bytes(len(WHOLE)))
    shelf.etag = '"old"'
    shelf.cuts = [200_000]

    def change() -> None:
        shelf.files["toy"], shelf.etag = WHOLE, '"new"'

    shown = Shown(change)
    [pulled] = from_hub(tmp_path, shelf, shown)
    assert pulled.path.read_bytes() == WHOLE
    assert len(shelf.asked) == 2
    assert shown.finished == ["toy.gguf"]


def leave_part(home: Path, content: bytes) -> None:
    part = home / "models" / ".partial" / "toy" / "toy.gguf" / "toy.gguf.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)


@pytest.mark.parametrize("old", [b"?" * 1000, b"?" * len(WHOLE), b"?" * (len(WHOLE) + 1)])
def test_old_bytes_that_do_not_fit_are_thrown_away(tmp_path: Path, old: bytes) -> None:
    leave_part(tmp_path, old)
    shown = Shown()
    [pulled] = from_hub(tmp_path, Shelf(toy=WHOLE), shown)
    assert pulled.path.read_bytes() == WHOLE
    assert shown.finished == ["toy.gguf"]


def test_a_range_that_was_not_asked_for_is_not_taken(tmp_path: Path) -> None:
    leave_part(tmp_path, WHOLE[:1000])
    shelf = Shelf(toy=WHOLE)
    shelf.shift = 5
    [pulled] = from_hub(tmp_path, shelf)
    assert pulled.path.read_bytes() == WHOLE
    assert [asked for _, asked in shelf.asked] == ["bytes=1000-", ""]


def test_a_range_past_the_end_starts_again(tmp_path: Path) -> None:
    leave_part(tmp_path, WHOLE[:-1])
    shelf = Shelf(toy=WHOLE[:1000])  # a shorter file: answers 416, then says its length
    with pytest.raises(DownloadError, match="serves 1000 bytes, expected are 300000"):
        from_hub(tmp_path, shelf)
    assert [asked for _, asked in shelf.asked] == ["bytes=299999-", ""]


def test_wrong_bytes_are_deleted_and_both_hashes_named(tmp_path: Path) -> None:
    wrong = WHOLE[:-1] + b"!"
    with pytest.raises(HashMismatchError) as caught:
        from_hub(tmp_path, Shelf(toy=wrong))
    assert sha256(wrong) in caught.value.message
    assert sha256(WHOLE) in caught.value.message
    assert "127.0.0.1" in caught.value.message
    assert whole_files(tmp_path) == []
    assert parts(tmp_path) == {}


def test_no_byte_beyond_the_promised_ones_is_kept(tmp_path: Path) -> None:
    shelf = Shelf(toy=WHOLE + bytes(5_000_000))
    shelf.lengths = False
    with pytest.raises(DownloadError, match="sends more than the 300000 bytes"):
        from_hub(tmp_path, shelf)
    assert all(size <= len(WHOLE) for size in parts(tmp_path).values())


def test_a_redirect_may_not_leave_http_for_a_file(tmp_path: Path) -> None:
    shelf = Shelf(there=WHOLE)
    shelf.redirect = "there"
    assert from_hub(tmp_path, shelf)[0].path.read_bytes() == WHOLE
    for target, reason in (("file:///etc/passwd", "not https"), ("toy", "redirects more than")):
        shelf = Shelf()
        shelf.redirect = target
        with pytest.raises(DownloadError, match=reason):
            from_hub(tmp_path / "other", shelf)
