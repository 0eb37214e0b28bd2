"""Models, what they cost, how they are trained, and that an owner can leave without a trace."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[specialists]'")

from experiments.specialists import plan, training  # noqa: E402
from experiments.specialists.models import (  # noqa: E402
    Cache,
    Size,
    Transformer,
    forward_flops,
    parameters,
    train_flops,
)
from experiments.specialists.network import Network, clustered, known, snippets  # noqa: E402
from experiments.specialists.scoring import likelihoods  # noqa: E402
from experiments.specialists.speed import Voice, written  # noqa: E402
from experiments.specialists.training import Lesson, load, steps, train, windows  # noqa: E402

if TYPE_CHECKING:
    from manyminds.types import Vectors

TINY = Size(width=16, layers=1, heads=1, context=32)
SIZES = [TINY, Size(24, 2, 3, 48), Size(16, 2, 2, 40, sources=3)]


def embed(texts: Sequence[str], /) -> "Vectors":
    """Some unit vector for each text, always the same."""
    rows = [
        np.frombuffer(hashlib.sha256(t.encode()).digest() * 2, np.uint8).astype(np.float32) for t in texts
    ]
    stacked = np.stack(rows) - np.float32(127.5)
    return np.asarray(stacked / np.linalg.norm(stacked, axis=1, keepdims=True), np.float32)


def texts_of(letter: str, count: int = 6) -> tuple[bytes, ...]:
    return tuple(
        f"{letter}{i} ".encode() * 40 + b"\n" + f"{letter} end\n".encode() * 20 for i in range(count)
    )


def lesson(name: str, letter: str, seed: int = 0, batches: int = 12) -> Lesson:
    flops = batches * 2 * TINY.context * train_flops(TINY)
    return Lesson(name, TINY, (texts_of(letter),), 2, flops, 5e-3, seed)


def same(one: Transformer, other: Transformer) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- what a model is, and costs --------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weights_are_counted(size: Size) -> None:
    held = sum(weights.numel() for weights in Transformer(size, 0).parameters())
    assert parameters(size, active=False) == held
    assert parameters(size) == parameters(replace(size, sources=0))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_operations_are_those_that_torch_counts(size: Size) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    source = 0 if size.sources else None
    with counter, torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        Transformer(size, 0)(torch.zeros((2, size.context), dtype=torch.int64), source)
    counted = counter.get_total_flops() / (2 * size.context)
    taps = size.layers * 2 * size.width * 4  # the convolution: no matrix product, so not counted there
    attention = (
        size.layers * 4 * size.width
    )  # to each of the bytes that are read, of which half are not needed
    unneeded = attention * (size.context - (size.context + 1) / 2)
    assert forward_flops(size) == pytest.approx(counted + taps - unneeded, rel=1e-9)
    assert train_flops(size) == 3 * forward_flops(size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_later_byte_changes_nothing_before_it(size: Size) -> None:
    model, source = Transformer(size, 0), 0 if size.sources else None
    tokens = torch.arange(size.context)[None] % 250
    other = tokens.clone()
    other[0, 20:] = 7
    with torch.no_grad():
        here, there = model(tokens, source), model(other, source)
    assert torch.allclose(here[:, :20], there[:, :20], atol=1e-5)
    assert not torch.allclose(here[:, 20:], there[:, 20:], atol=1e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_kept_text_is_read_as_a_whole_one(size: Size) -> None:
    model, source = Transformer(size, 0), 1 if size.sources else None
    tokens = torch.arange(30)[None] * 3
    cache = Cache(size)
    with torch.no_grad():
        whole = model(tokens, source)
        parts = [model(tokens[:, :9], source, cache)]
        parts += [model(tokens[:, i : i + 1], source, cache) for i in range(9, 30)]
    assert torch.allclose(whole, torch.cat(parts, dim=1), atol=1e-4)


def test_a_source_that_is_off_is_not_read() -> None:
    model = Transformer(SIZES[2], 0)
    tokens = torch.arange(30)[None]
    with torch.no_grad():
        before = [model(tokens, source) for source in (-1, 0, 2)]
        for block in model.blocks:
            block.own_inner[1] += 1.0
            block.own_outer[1] += 1.0
        after = [model(tokens, source) for source in (-1, 0, 2)]
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


# --- training --------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), st.integers(0, 99))
def test_windows_lie_end_to_end_over_whole_documents(texts: list[bytes], seed: int) -> None:
    clean = [text.replace(b"\0", b"1") for text in texts]
    context = 8
    if sum(len(text) + 1 for text in clean) <= context:
        with pytest.raises(ValueError, match="not 8 bytes"):
            windows(clean, 3, context, seed)
        return
    found = windows(clean, 5, context, seed)
    assert all(found[i, -1] == found[i + 1, 0] for i in range(4))
    stream = bytes(found[0]) + b"".join(bytes(row[1:]) for row in found[1:])
    once = sum(len(text) + 1 for text in clean)
    first = stream[: once + 1].split(b"\0")[1:]
    assert stream[:1] == b"\0"
    if len(stream) > once:
        assert sorted(first[: len(clean)]) == sorted(clean)
    else:
        assert all(piece in clean for piece in first[:-1])


def test_the_same_lesson_gives_the_same_weights(tmp_path: Path) -> None:
    here, there = (train(lesson("one", "a"), made(tmp_path / name)) for name in ("here", "there"))
    assert same(here.model, there.model)
    assert not same(here.model, Transformer(TINY, 0))


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_who_is_ended_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = made(tmp_path / "whole"), made(tmp_path / "parts")
    expected = train(lesson("one", "a"), whole)
    monkeypatch.setattr(training, "_KEEP_S", 0.0)
    told = []

    def end(share: float) -> None:
        told.append(share)
        if len(told) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(lesson("one", "a"), parts, end)
    assert 0 < told[-1] < 1
    assert list(parts.glob("*.part"))
    assert same(train(lesson("one", "a"), parts).model, expected.model)
    assert not list(parts.glob("*.part"))


def test_it_learns(tmp_path: Path) -> None:
    assert (
        train(lesson("long", "a", batches=150), tmp_path).loss
        < train(lesson("short", "a"), tmp_path).loss - 1
    )


@pytest.mark.parametrize(
    "change",
    [{"rate": 1e-3}, {"seed": 1}, {"rows": 3}, {"groups": (texts_of("b"),)}, {"start": "x"}, {"only": 1}],
    ids=str,
)
def test_another_lesson_has_another_key(change: dict[str, object]) -> None:
    assert replace(lesson("one", "a"), **change).key != lesson("one", "a").key  # type: ignore[arg-type]


def test_added_units_learn_and_nothing_else_moves(tmp_path: Path) -> None:
    size = replace(TINY, sources=2)
    groups = (texts_of("a"), texts_of("b"))
    before = replace(lesson("gated", "a"), size=size, groups=groups)
    old = train(before, tmp_path).model.state_dict()
    more = replace(
        before, name="more", size=replace(size, sources=3), groups=(texts_of("c"),), start=before.stem, only=2
    )
    first = Transformer(more.size, more.seed).state_dict()
    for name, weights in train(more, tmp_path).model.state_dict().items():
        if ".own_" in name:
            assert torch.equal(weights[:2], old[name])
            assert not torch.equal(weights[2], first[name][2])
        else:
            assert torch.equal(weights, old[name])


def test_a_gated_batch_has_a_row_of_each_source(tmp_path: Path) -> None:
    wrong = replace(lesson("gated", "a"), size=replace(TINY, sources=3), groups=(texts_of("a"),) * 3)
    with pytest.raises(ValueError, match="2 windows for 3 sources"):
        train(wrong, tmp_path)


# --- the plan --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [plan.FULL, plan.QUICK], ids=lambda scale: scale.name)
def test_all_arms_cost_the_same(scale: plan.Scale) -> None:
    domains = {name: texts_of(name) for name in ("c", "french", "german", "json", "legal", "python")}
    lessons = plan.base(scale, domains, {str(i): texts for i, texts in enumerate(domains.values())}, 0)
    costs = {
        kind: sum(
            steps(of) * of.rows * of.size.context * train_flops(of.size)
            for name, of in lessons.items()
            if name.split(".")[0] == kind
        )
        for kind in ("domain", "cluster", "random", "dense-large", "dense-small", "gated")
    }
    expected = scale.own_flops * len(domains)
    assert costs == pytest.approx(dict.fromkeys(costs, expected), rel=0.01)
    assert parameters(scale.dense) >= 6 * parameters(scale.size)
    by_lot = [text for name, of in lessons.items() if name.startswith("random.") for text in of.groups[0]]
    assert sorted(by_lot) == sorted(text for texts in domains.values() for text in texts)


# --- who is asked, and who leaves ------------------------------------------------------------------


def test_snippets_begin_lines_and_clusters_hold_each_document_once() -> None:
    texts = texts_of("a")
    assert all(
        any(piece in text and (text.startswith(piece) or b"\n" + piece in text) for text in texts)
        for piece in snippets(texts, 20, 0)
    )
    domains = {"a": texts_of("a"), "b": texts_of("b")}
    found = clustered(domains, 2, embed, 0)
    assert sorted(text for group in found.values() for text in group) == sorted(
        (*domains["a"], *domains["b"])
    )


def test_who_leaves_leaves_no_trace(tmp_path: Path) -> None:
    """Of routes, likelihoods and written text, against a network for which the owner never trained."""
    with_it, without = made(tmp_path / "with"), made(tmp_path / "without")
    names = {"one": "a", "two": "b", "gone": "c"}
    everyone = {name: train(lesson(name, letter), with_it).model for name, letter in names.items()}
    others = {
        name: train(lesson(name, letter), without).model for name, letter in names.items() if name != "gone"
    }
    forgot, never = Network(embed, 64), Network(embed, 64)
    for name, letter in names.items():
        forgot.admit(name, known(texts_of(letter), embed, 0), 1)
        if name != "gone":
            never.admit(name, known(texts_of(letter), embed, 0), 1)
    texts = [text[:200] for letter in "abcd" for text in texts_of(letter, 2)]
    there_before = forgot.routes(texts, 3)
    forgot.forget("gone")
    here, there = forgot.routes(texts, 2), never.routes(texts, 2)
    assert here == there
    assert {call.expert for route in there_before for call in route.calls} == set(names)
    for name, model in others.items():
        assert same(model, everyone[name])
        assert np.array_equal(likelihoods(model, texts), likelihoods(everyone[name], texts))
    for route, text in zip(here, texts, strict=True):
        prior = np.array([call.share for call in route.calls])
        ours, theirs = (
            written([Voice(held[call.expert]) for call in route.calls], prior, text[:8], 16, 0)
            for held in (everyone, others)
        )
        assert ours[0] == theirs[0]
        assert np.array_equal(ours[1], theirs[1])
    assert load(lesson("one", "a"), without).seen_bytes == 12 * 2 * TINY.context
