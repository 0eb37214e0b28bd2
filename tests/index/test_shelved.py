"""The index above its threshold, which is low here: a few dozen vectors are many."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.index import Index, Shelves
from manyminds.index.scan import Scanner, encode, has_faiss
from manyminds.index.shelves import k_means, learn, sample

D, FLAT = 16, 40

Panel = dict[str, NDArray[np.float32]]


def rows(seed: int, count: int, dimension: int = D) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def made(panel: Panel, shelves: Shelves | None = None, *, pending: int = 8) -> Index:
    index = Index(D, flat=FLAT, pending=pending)
    for name, vectors in panel.items():
        index.add(name, vectors, len(name))
    if shelves is not None:
        index.shelve(shelves)
    return index


SHELVES = learn(rows(1, 300), 300, 12)
panels = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.builds(rows, st.integers(0, 50), st.integers(1, 6)),
    min_size=12,
    max_size=25,
)


@settings(deadline=None)
@given(panel=panels, extra=panels, query=st.integers(100, 200), limit=st.integers(1, 12), data=st.data())
def test_on_the_same_shelves_history_does_not_change_a_bit(
    panel: Panel, extra: Panel, query: int, limit: int, data: st.DataObject
) -> None:
    """Incremental is rebuilt, removed is never added, and no order matters."""
    vector = rows(query, 1)[0]
    wandering = made(extra, SHELVES)
    for name in data.draw(st.permutations(sorted(panel))):
        wandering.add(name, panel[name], len(name))
    for name in sorted(extra.keys() - panel.keys()):
        wandering.remove(name)
    assert wandering.names() == sorted(panel)
    assert wandering.search(vector, limit) == made(panel, SHELVES).search(vector, limit)
    assert wandering.search(vector, limit) == made(panel, SHELVES, pending=1000).search(vector, limit)


@settings(deadline=None)
@given(panel=panels, query=st.integers(100, 200), limit=st.integers(1, 12))
def test_a_search_is_exact_on_the_shelves_it_looks_at(panel: Panel, query: int, limit: int) -> None:
    vector, index = rows(query, 1)[0], made(panel, SHELVES)
    total = sum(map(len, panel.values()))
    found = index.search(vector, limit)
    if total <= FLAT:
        assert (found.compared, found.considered) == (total, len(panel))
        return
    order, centroids = SHELVES.near(vector)
    shelf_of = {name: SHELVES.assign(vectors) for name, vectors in panel.items()}
    compared, nearest = 0, dict[str, float]()
    for shelf in order:
        for name, vectors in panel.items():
            here = vectors[shelf_of[name] == shelf]
            compared += len(here)
            if len(here):
                nearest[name] = max(nearest.get(name, -2.0), float((here @ vector).max()))
        if compared >= 16 * math.sqrt(total):
            break
    assert (found.compared, found.considered) == (compared + centroids, len(nearest))
    expected = sorted(nearest.values(), reverse=True)[:limit]
    assert [similarity for _, similarity in found.hits] == pytest.approx(expected, abs=1e-5)
    whole = sum(map(len, panel))
    assert found.touched == pytest.approx(sum(len(name) for name, _ in found.hits) / whole)


def test_shelves_are_learnt_when_there_are_many_and_again_when_there_are_four_times_as_many() -> None:
    index, learnt = Index(D, flat=FLAT, pending=8), []
    for i in range(150):
        index.add(f"{i}", rows(i, 3))
        if (shelves := index.shelves) is not None and shelves.learnt_from not in learnt:
            learnt.append(shelves.learnt_from)
        assert index.shelves is None or index.vectors > FLAT
    assert len(learnt) == 2
    assert FLAT < learnt[0] <= FLAT + 12
    assert 4 * learnt[0] <= learnt[1] <= 5 * learnt[0]


def test_when_many_are_gone_all_are_compared_again() -> None:
    panel = {f"{i}": rows(i, 3) for i in range(30)}
    index = made(panel, SHELVES)
    for i in range(29, 9, -1):
        index.remove(f"{i}")
    left = {f"{i}": panel[f"{i}"] for i in range(10)}
    assert index.shelves is None
    assert index.search(rows(99, 1)[0], 4) == made(left).search(rows(99, 1)[0], 4)
    for i in range(10):
        index.remove(f"{i}")
    index.shelve()
    found = index.search(rows(99, 1)[0], 4)
    assert (found.hits, found.compared, found.considered, found.touched) == ((), 0, 0, 0.0)


def test_what_is_gone_does_not_stay_in_memory() -> None:
    index = made({f"{i}": rows(i, 3) for i in range(100)}, SHELVES)
    for i in range(99):
        index.remove(f"{i}")
    assert index._base is None or len(index._base.rows) < 30
    assert [name for name, _ in index.search(rows(99, 3)[0], 2).hits] == ["99"]
    index.remove("99")
    index.add("back", rows(1, 1))
    assert index.names() == ["back"]


def test_the_same_vectors_make_the_same_shelves_whatever_their_order() -> None:
    one, other = Index(D, flat=FLAT), Index(D, flat=FLAT, pending=5)
    for i in range(100):
        one.add(f"{i}", rows(i, 2))
        other.add(f"{99 - i}", rows(99 - i, 2))
    one.shelve()
    other.shelve()
    assert one.shelves is not None
    assert other.shelves is not None
    assert (one.shelves.shelves == other.shelves.shelves).all()
    assert one.search(rows(500, 1)[0], 9) == other.search(rows(500, 1)[0], 9)


@given(seed=st.integers(0, 99), data=st.data())
def test_where_a_vector_belongs_is_nobody_elses_business(seed: int, data: st.DataObject) -> None:
    vectors = rows(seed, 40)
    together = SHELVES.assign(vectors)
    some = data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=10))
    assert SHELVES.assign(vectors[some]).tolist() == together[some].tolist()


@given(seed=st.integers(0, 99), sections=st.integers(1, 9), alike=st.booleans(), data=st.data())
def test_it_is_put_on_the_nearest_shelf_of_the_four_nearest_sections(
    seed: int, sections: int, alike: bool, data: st.DataObject
) -> None:
    """The first where several are equally near; the first where these sections have none."""
    counts = data.draw(st.lists(st.integers(0, 4), min_size=sections, max_size=sections))
    starts = np.concatenate([[0], np.cumsum(counts)])
    centroids = rows(seed, sections), rows(seed + 1, max(1, int(starts[-1])))
    if alike:
        centroids = centroids[0][np.arange(sections) // 2], centroids[1][np.arange(len(centroids[1])) // 2]
    shelves = Shelves(*centroids, starts, 1)
    for row, found in zip(vectors := rows(seed + 2, 20), shelves.assign(vectors).tolist(), strict=True):
        near = np.argsort(-np.vecdot(shelves.sections, row), kind="stable")[:4]
        there = [shelf for i in sorted(near.tolist()) for shelf in range(starts[i], starts[i + 1])]
        similarity = np.vecdot(shelves.shelves, row)
        assert found == max(there, key=lambda shelf: (similarity[shelf], -shelf), default=0)


def test_a_vector_is_put_on_the_nearest_shelf_nearly_always() -> None:
    shelves, vectors = learn(rows(3, 4000), 4000, 200), rows(4, 1000)
    nearest = np.argmax(vectors @ shelves.shelves.T, axis=1)
    assert (shelves.assign(vectors) == nearest).mean() > 0.7  # random vectors have no sections to speak of
    assert (shelves.assign(shelves.shelves) == np.arange(len(shelves.shelves))).mean() > 0.99


def test_equal_vectors_share_a_shelf_and_fill_no_others() -> None:
    same = np.repeat(rows(5, 1), 50, axis=0)
    shelves = learn(same, 50, 9)
    assert len(set(shelves.assign(same).tolist())) == 1
    assert np.isfinite(k_means(same, 7, np.random.default_rng(0))).all()


def test_a_sample_hangs_on_the_vectors_alone() -> None:
    vectors = rows(6, 500)
    order = np.random.default_rng(1).permutation(500)
    drawn = sample(vectors, 2, np.arange(500))
    assert len(drawn) < 500
    assert (drawn == sample(vectors[order], 2, np.arange(500))).all()


# --- bytes -----------------------------------------------------------------------------------------

needs_faiss = pytest.mark.skipif(not has_faiss(), reason="faiss-cpu, of the extra index, is not installed")


def plain(query: NDArray[np.float32], vectors: NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
    exact = np.vecdot(vectors, query)
    order = sorted(range(len(vectors)), key=lambda i: (-exact[i], f"{i:05d}"))
    return [(f"{i:05d}", float(exact[i])) for i in order[:limit]]


@needs_faiss
@pytest.mark.parametrize("kind", ["random", "alike", "equal", "odd"])
def test_reading_bytes_first_changes_no_bit(kind: str) -> None:
    vectors = rows(7, 3000, 64)
    if kind == "alike":
        vectors = (rows(8, 1, 64) + 0.02 * vectors).astype(np.float32)
    elif kind == "equal":
        vectors[:] = vectors[:3][np.arange(3000) % 3]
    elif kind == "odd":
        vectors[::4] = np.eye(64, dtype=np.float32)[np.arange(750) % 64]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index(64)
    index.add_all((f"{i:05d}", vectors[i : i + 1], 0) for i in range(3000))
    index.shelve()
    unit = index.vectors_of("00007")
    assert np.abs(unit - vectors[7]).max() < 1e-6
    kept = np.concatenate([index.vectors_of(f"{i:05d}") for i in range(3000)])
    for query in (rows(9, 1, 64)[0], kept[5], np.eye(64, dtype=np.float32)[3]):
        for limit in (1, 10, 100):
            assert list(index.search(query, limit).hits) == plain(query, kept, limit)


@needs_faiss
@given(seed=st.integers(0, 999), dimension=st.sampled_from([3, 16, 384]))
def test_bytes_are_off_by_no_more_than_they_say(seed: int, dimension: int) -> None:
    vectors, query = rows(seed, 60, dimension), rows(seed + 1, 1, dimension)[0]
    codes, lost = encode(vectors)
    scanner = Scanner(codes, float(lost.max()))
    near, about, off = scanner.nearest(query, [(0, 20), (20, 60)], 12)
    exact = vectors @ query
    assert len(near) == 12
    assert (np.abs(exact[near] - about) <= off).all()
    left_out = np.setdiff1d(np.arange(60), near)
    assert exact[left_out].max() <= about[-1] + off


def test_names_and_vectors_can_be_read_back() -> None:
    index = Index(D, flat=FLAT, pending=4)
    for i in range(20):
        index.add(f"{i}", rows(i, 2))
    assert index.vectors == 40
    assert np.allclose(np.sort(index.vectors_of("3"), axis=0), np.sort(rows(3, 2), axis=0), atol=1e-6)
    with pytest.raises(KeyError):
        index.vectors_of("nobody")
    assert "nobody" not in index
    assert 3 not in index


def test_negative_parameters_are_refused() -> None:
    index = Index(D)
    with pytest.raises(ValueError, match=r"'a'.*-1"):
        index.add("a", rows(0, 1), -1)
    assert len(index) == 0


def test_many_on_shelves_are_found_by_bytes_as_without() -> None:
    panel = {f"{i}": rows(i, 4) for i in range(1000)}
    shelves = learn(np.concatenate(list(panel.values())), 4000, 30)
    rebuilt = Index(D, flat=500, pending=10_000)
    rebuilt.add_all((name, vectors, 1) for name, vectors in panel.items())
    pending = [rebuilt.search(rows(10_000 + i, 1)[0], 10) for i in range(30)]
    assert all(found.compared == 4000 for found in pending)
    wandering = Index(D, flat=500, pending=700)
    for i in range(1500):
        wandering.add(f"{1499 - i}", rows(i, 4), 3)
    wandering.shelve(shelves)
    for i in range(1500):
        wandering.remove(f"{i}")
        if i < 1000:
            wandering.add(f"{i}", panel[f"{i}"], 1)
    rebuilt.shelve(shelves)
    for i in range(30):
        found = wandering.search(rows(10_000 + i, 1)[0], 10)
        assert found == rebuilt.search(rows(10_000 + i, 1)[0], 10)
        assert found.compared < 2000
