"""One file of plain arrays: what is written comes back bit by bit, and anything else is refused."""

import io
import json
import pickle
import resource
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.artefact import Artefact, Part, Plan, load, save
from manyminds.errors import ArtefactError
from tests.changed import replace
from tests.learn.made import TOPICS, by_hand, learnt, outcomes, same

Arrays = dict[str, NDArray[Any]]
NAMES = ("bée", "ann", "dan")


def part(seed: int = 0) -> Part:
    learnt = by_hand(NAMES, "option", labels=("A", "B"), seed=seed)
    width = learnt.base.width + 1
    rng = np.random.default_rng(seed)
    plans = (
        Plan((("ann",),), 1.0, 0.7, 0.001, float("nan"), rng.normal(size=width), rng.normal(size=width)),
        Plan((("ann", "bée"), ("dan",)), 0.93, 0.8, 0.1, 2.5, rng.normal(size=width), rng.normal(size=width)),
    )
    about = {"set": "Ünïcode", "seed": seed, "gain": 0.1}
    return replace(
        learnt, about=about, plans=plans, prices={"auto": 0.3}, ranking={"cheap": (0, 1), "max": (1,)}
    )


def text_part() -> Part:
    """For questions whose answers cannot be compared, of other experts."""
    learnt = replace(by_hand(("ann", "zoe"), "text", seed=2), ballot=None, wide=None)
    width = learnt.base.width + 1
    plan = Plan((("zoe",),), 1.0, 0.6, 0.2, float("nan"), np.zeros(width), np.zeros(width))
    return replace(learnt, about={"set": "Ünïcode"}, plans=(plan,), ranking={"max": (0,)})


def made(seed: int = 0) -> Artefact:
    return Artefact((part(seed),))


@cache
def written() -> bytes:
    """The bytes of `made()` as `save` writes them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save(made(), Path(folder) / "a")
        return (Path(folder) / "a").read_bytes()


def parts(content: bytes) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of the one part in it."""
    with np.load(io.BytesIO(content), allow_pickle=False) as packed:
        arrays = {name.removeprefix("0."): packed[name] for name in packed.files}
    (header,) = json.loads(arrays.pop("header").tobytes())["parts"]
    return header, arrays


def packed(header: object, arrays: Mapping[str, NDArray[Any]], start: str = "") -> bytes:
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    named = {f"{start}{name}": array for name, array in arrays.items()}
    np.savez_compressed(buffer, header=text, **named)  # type: ignore[arg-type]
    return buffer.getvalue()


def file_of(header: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """As it is written, of one part."""
    return packed({"version": 4, "parts": [header]}, arrays, "0.")


def loaded(content: bytes, folder: Path) -> Artefact:
    (folder / "a").write_bytes(content)
    return load(folder / "a")


# --- what is written comes back --------------------------------------------------------------------


@pytest.mark.parametrize(
    "lacks", [{}, {"wide": None}, {"ballot": None, "wide": None, "plans": (), "ranking": {}}]
)
def test_what_is_saved_is_loaded_bit_by_bit(lacks: dict[str, Any], tmp_path: Path) -> None:
    artefact = Artefact((replace(part(), **lacks),))
    save(artefact, tmp_path / "new" / "a")
    assert same(load(tmp_path / "new" / "a"), artefact)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


@settings(max_examples=20)
@given(
    st.integers(0, 10**6),
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, unique=True),
)
def test_any_names_and_numbers_come_back(seed: int, names: list[str]) -> None:
    import tempfile

    artefact = Artefact((by_hand(names, "exact", labels=names, seed=seed),))
    with tempfile.TemporaryDirectory() as folder:
        save(artefact, Path(folder) / "a")
        assert same(load(Path(folder) / "a"), artefact)


@pytest.mark.parametrize("known", [True, False])
def test_what_was_learnt_comes_back(known: bool, tmp_path: Path) -> None:
    artefact = Artefact((learnt(outcomes(n=60, told=known, topics=known, labels=known)),))
    save(artefact, tmp_path / "a")
    assert same(load(tmp_path / "a"), artefact)


def test_parts_come_back_in_their_order(tmp_path: Path) -> None:
    artefact = Artefact((part(), text_part()))
    save(artefact, tmp_path / "a")
    loaded = load(tmp_path / "a")
    assert same(loaded, artefact)
    assert loaded.experts == ("ann", "bée", "dan", "zoe")
    assert loaded.about == part().about


def test_each_part_is_for_its_own_kinds() -> None:
    artefact = Artefact((part(), text_part()))
    assert artefact.part("option") is artefact.parts[0]
    assert artefact.part("text") is artefact.parts[1]
    assert artefact.part("number") is None


def test_the_same_artefact_gives_the_same_bytes(tmp_path: Path) -> None:
    save(made(), tmp_path / "one")
    shuffled = replace(
        part(), ranking={"max": (1,), "cheap": (0, 1)}, about=dict(reversed([*part().about.items()]))
    )
    save(Artefact((shuffled,)), tmp_path / "two")
    save(made(1), tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == written()
    assert (tmp_path / "three").read_bytes() != written()


# --- whole or not at all ---------------------------------------------------------------------------


@contextmanager
def no_room(size_bytes: int) -> Iterator[None]:
    """No file of this process grows larger: a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 1000])
def test_a_save_that_finds_no_room_leaves_the_old_file(room: int, tmp_path: Path) -> None:
    save(made(), tmp_path / "a")
    with no_room(room), pytest.raises(OSError, match="too large"):
        save(made(1), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == written()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_save_that_cannot_take_the_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        save(made(), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# --- what is refused -------------------------------------------------------------------------------


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="make one with `manyminds train DIR`"):
        load(tmp_path / "a")


def test_a_directory_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is no artefact"):
        load(tmp_path)


def test_another_version_is_named(tmp_path: Path) -> None:
    header, arrays = parts(written())
    for version in (0, 3, 5, "4", None, ["x" * 1000]):
        with pytest.raises(ArtefactError, match=r"is of version .{1,20}, and this is version 4: make one"):
            loaded(packed({"version": version, "parts": [header]}, arrays, "0."), tmp_path)


def test_any_truncated_file_is_refused(tmp_path: Path) -> None:
    for size in [*range(0, len(written()), 97), len(written()) - 1]:
        with pytest.raises(ArtefactError):
            loaded(written()[:size], tmp_path)


def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Every byte that carries content is checked; the others are names and times of zip's own."""
    refused = 0
    for at in range(0, len(written()), 17):
        content = bytearray(written())
        content[at] ^= 0xFF
        try:
            assert same(loaded(bytes(content), tmp_path), made())
        except ArtefactError:
            refused += 1
    assert refused > len(written()) // 17 / 2


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_noise_is_refused(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.raises(ArtefactError):
        loaded(content, Path(folder))


class _Trap:
    sprung: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[Any, ...]:
        return _Trap.sprung.append, ("sprung",)


@pytest.mark.parametrize("where", ["file", "header", "base.mean", "extra"])
def test_a_pickle_is_refused_unopened(where: str, tmp_path: Path) -> None:
    header, arrays = parts(written())
    trap = np.array([_Trap()], dtype=object)
    if where == "file":
        content = pickle.dumps(_Trap())
    elif where == "header":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, header=trap, **arrays)  # type: ignore[arg-type]
        content = buffer.getvalue()
    else:
        content = file_of(header, {**arrays, where: trap})
    with pytest.raises(ArtefactError):
        loaded(content, tmp_path)
    assert _Trap.sprung == []


def test_a_file_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("header.npy", zlib.compress(b""))
        bomb.writestr("0.base.mean.npy", b"")
        bomb.infolist()[1].file_size = 600_000_000
    with pytest.raises(ArtefactError, match="unpacks to more than 500000000 bytes"):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    "shape", ["(1000000000000000,)", "(10000000000, 10000000000)", "(-1,)", "'x'", "(((("]
)
def test_an_array_that_claims_to_be_huge_is_refused(shape: str, tmp_path: Path) -> None:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "a", "w") as claimed, zipfile.ZipFile(io.BytesIO(written())) as whole:
        for name in whole.namelist():
            text = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
            claimed.writestr(name, text if name == "0.base.mean.npy" else whole.read(name))
    with pytest.raises(ArtefactError):
        load(tmp_path / "a")


Change = Callable[[dict[str, Any], Arrays], object]
CHANGES: dict[str, Change] = {
    "no experts": lambda h, a: h["skills"].pop("experts"),
    "no such field": lambda h, a: h["base"].update(colour="red"),
    "no part": lambda h, a: h.pop("base"),
    "part is null": lambda h, a: h.update(skills=None),
    "part is text": lambda h, a: h.update(ballot="x"),
    "about is null": lambda h, a: h.update(about=None),
    "about is a list": lambda h, a: h.update(about=[]),
    "a topic is a list": lambda h, a: h["base"]["topics"].__setitem__(0, ["law"]),
    "a source is a number": lambda h, a: h["skills"]["sources"].__setitem__(0, 7),
    "confidence at no point": lambda h, a: a.update({"skills.confidence": a["skills.confidence"][:, :, :0]}),
    "confidence that falls": lambda h, a: a.update({"skills.confidence": a["skills.confidence"][:, :, ::-1]}),
    "confidence with a gap": lambda h, a: a["skills.confidence"].__setitem__((0, 1, 2), np.nan),
    "asked more than all": lambda h, a: a["skills.asked"].__setitem__((0, 0), 1.1),
    "asked less than none": lambda h, a: a["skills.asked"].__setitem__((0, 0), -0.1),
    "seconds below zero": lambda h, a: a.update(
        {"skills.seconds": np.full_like(a["skills.seconds"], -np.inf)}
    ),
    "a wide ballot alone": lambda h, a: h.update(ballot=None),
    "other labels for wide panels": lambda h, a: h["wide"]["labels"].reverse(),
    "wide dilution below zero": lambda h, a: a.update({"wide.dilution": a["wide.dilution"] - 9.0}),
    "wide weights of another shape": lambda h, a: a.update({"wide.weights": np.ones((1, 1))}),
    "ranking is a list": lambda h, a: h.update(ranking=[0]),
    "ranking is one plan": lambda h, a: h.update(ranking={"auto": 0}),
    "ranking is empty": lambda h, a: h.update(ranking={"auto": []}),
    "price is text": lambda h, a: h.update(prices={"auto": "much"}),
    "ranking is endless": lambda h, a: h.update(ranking={"auto": [float("inf")]}),
    "ranking of no plan": lambda h, a: h.update(ranking={"max": [0, 2]}),
    "negative rank": lambda h, a: h.update(ranking={"max": [-1]}),
    "plan of a stranger": lambda h, a: h["plans"].append([[["zoe"]], 1.0]),
    "plan asks a stranger": lambda h, a: h["plans"].__setitem__(0, [[["zoe"]], 1.0]),
    "plan of nobody": lambda h, a: h["plans"].__setitem__(0, [[], 1.0]),
    "threshold is no number": lambda h, a: h["plans"].__setitem__(0, [[["ann"]], float("nan")]),
    "experts not sorted": lambda h, a: h["skills"]["experts"].reverse(),
    "expert twice": lambda h, a: h["skills"].update(experts=["ann", "ann", "bée"]),
    "too few sources": lambda h, a: h["skills"]["sources"].pop(),
    "too many labels": lambda h, a: h["ballot"]["labels"].append("Z"),
    "classes is no number": lambda h, a: h["ballot"].update(classes=float("nan")),
    "classes is text": lambda h, a: h["ballot"].update(classes="many"),
    "a dilution is below zero": lambda h, a: a.update({"ballot.dilution": a["ballot.dilution"] - 9.0}),
    "a stranger's dilution is below zero": lambda h, a: a.update(
        {"ballot.prior": np.array([1.0, 0.0, -0.1])}
    ),
    "classes is null": lambda h, a: h["ballot"].update(classes=None),
    "mean is no number": lambda h, a: a["base.mean"].__setitem__(0, np.nan),
    "mean is a matrix": lambda h, a: a.update({"base.mean": np.ones((6, 2))}),
    "gate too short": lambda h, a: a.update({"base.gate": np.ones((2, len(TOPICS)))}),
    "directions is a line": lambda h, a: a.update({"base.directions": np.ones(3)}),
    "array of text": lambda h, a: a.update({"ballot.other": np.array(["x"] * 4)}),
    "array of no number": lambda h, a: a.pop("plans.figures"),
    "confidence is a line": lambda h, a: a.update({"skills.confidence": np.ones(3)}),
    "seconds too few": lambda h, a: a.update({"skills.seconds": np.ones(2)}),
    "array of no part": lambda h, a: a.update({"ballot.colour": np.ones(2)}),
    "expert is a number": lambda h, a: h["skills"].update(experts=[1, 2, 3]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_together_is_refused(change: str, tmp_path: Path) -> None:
    header, arrays = parts(written())
    assert same(loaded(file_of(header, arrays), tmp_path), made())
    CHANGES[change](header, arrays)
    with pytest.raises(ArtefactError, match="is no artefact"):
        loaded(file_of(header, arrays), tmp_path)


@pytest.mark.parametrize("learnt", [(), (part(), part(1)), (text_part(), part(), text_part())])
def test_two_parts_for_one_kind_or_none_at_all_are_refused(learnt: tuple[Part, ...], tmp_path: Path) -> None:
    save(Artefact(learnt), tmp_path / "a")
    with pytest.raises(ArtefactError, match="two are for one kind"):
        load(tmp_path / "a")


@pytest.mark.parametrize("change", ["no experts", "part is null", "plan of nobody", "no such field"])
def test_what_does_not_fit_in_any_part_is_refused(change: str, tmp_path: Path) -> None:
    save(Artefact((part(), text_part())), tmp_path / "a")
    with np.load(tmp_path / "a") as packed_:
        arrays = {name: packed_[name] for name in packed_.files}
    header = json.loads(arrays.pop("header").tobytes())
    CHANGES[change](header["parts"][1], arrays)
    with pytest.raises(ArtefactError, match="is no artefact"):
        loaded(packed(header, arrays), tmp_path)


@pytest.mark.parametrize("header", [None, 1, [], "x", {}, {"version": 4}, {"version": 4, "parts": [None]}])
def test_a_header_of_another_shape_is_refused(header: object, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is no artefact"):
        loaded(packed(header, parts(written())[1]), tmp_path)


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.frombuffer(b"[" * 100_000, np.uint8))
    with pytest.raises(ArtefactError, match="is no artefact"):
        loaded(buffer.getvalue(), tmp_path)


NUMBERS = sorted(
    n for n in parts(written())[1] if n not in ("skills.seconds", "skills.confidence", "plans.figures")
)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_must_be_a_number_is_one(name: str, value: float, tmp_path: Path) -> None:
    header, arrays = parts(written())
    arrays[name].ravel()[-1] = value
    with pytest.raises(ArtefactError, match="is no artefact"):
        loaded(file_of(header, arrays), tmp_path)
