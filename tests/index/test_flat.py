import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.index import Index

D = 5
numbers = st.floats(-1.0, 1.0, width=32).filter(lambda x: x == 0.0 or abs(x) > 1e-3)
vectors = st.lists(numbers, min_size=D, max_size=D).filter(any)
blocks = st.lists(vectors, min_size=1, max_size=3)
panels = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), blocks, max_size=9)


def array(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def filled(panel: dict[str, list[list[float]]]) -> Index:
    index = Index(D)
    for name, rows in panel.items():
        index.add(name, array(rows))
    return index


def unit(rows: list[list[float]]) -> NDArray[np.float64]:
    wide = array(rows).astype(np.float64)
    exact: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return exact


@given(panel=panels, query=vectors, limit=st.integers(1, 10))
def test_finds_what_a_plain_loop_finds(
    panel: dict[str, list[list[float]]], query: list[float], limit: int
) -> None:
    found = filled(panel).search(array([query])[0], limit)
    exact = {name: float((unit(rows) @ unit([query])[0]).max()) for name, rows in panel.items()}
    assert found.compared == sum(map(len, panel.values()))
    assert len(found.hits) == min(limit, len(panel))
    for name, similarity in found.hits:
        assert similarity == pytest.approx(exact[name], abs=1e-5)
    left_out = exact.keys() - {name for name, _ in found.hits}
    assert all(exact[name] <= found.hits[-1][1] + 1e-5 for name in left_out)
    assert list(found.hits) == sorted(found.hits, key=lambda hit: (-hit[1], hit[0]))


@given(panel=panels, extra=panels, query=vectors, limit=st.integers(1, 10), data=st.data())
def test_history_does_not_change_a_bit(
    panel: dict[str, list[list[float]]],
    extra: dict[str, list[list[float]]],
    query: list[float],
    limit: int,
    data: st.DataObject,
) -> None:
    vector = array([query])[0]
    wandering = filled(extra)
    for name in data.draw(st.permutations(list(panel))):
        wandering.add(name, array(panel[name]))
        wandering.search(vector, limit)
    for name in extra.keys() - panel.keys():
        wandering.remove(name)
    assert wandering.search(vector, limit) == filled(panel).search(vector, limit)


@given(panel=panels, query=vectors)
def test_similarity_is_what_search_says_and_is_nobody_elses_business(
    panel: dict[str, list[list[float]]], query: list[float]
) -> None:
    vector = array([query])[0]
    index = filled(panel)
    asked = index.similarity(vector, [*panel, "nobody"])
    assert asked == dict(index.search(vector, len(panel) + 1).hits)
    for name, rows in panel.items():
        assert filled({name: rows}).similarity(vector, [name]) == {name: asked[name]}


def test_a_row_has_the_same_bits_wherever_it_lies() -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((301, 384)).astype(np.float32)
    query = rng.standard_normal(384).astype(np.float32)
    forth, back = Index(384), Index(384)
    for i in range(301):
        forth.add(f"{i}", rows[i : i + 1])
        back.add(f"{300 - i}", rows[300 - i : 301 - i])
    assert forth.search(query, 301) == back.search(query, 301)
    back.remove("17")
    assert back.search(query, 301).hits == tuple(
        hit for hit in forth.search(query, 301).hits if hit[0] != "17"
    )


def test_ties_go_by_name_also_at_the_limit() -> None:
    row = array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    index = filled({})
    for name in "cadb":
        index.add(name, row)
    assert [name for name, _ in index.search(row[0], 2).hits] == ["a", "b"]


def test_add_replaces_and_remove_forgets() -> None:
    index = filled({"a": [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], "b": [[0, 1, 0, 0, 0]]})
    index.add("a", array([[0, 0, 1, 0, 0]]))
    index.remove("nobody")
    assert (len(index), "a" in index, "nobody" in index) == (2, True, False)
    found = index.search(array([[0, 1, 0, 0, 0]])[0], 5)
    assert (found.hits, found.compared) == ((("b", 1.0), ("a", 0.0)), 2)
    index.remove("a")
    index.remove("b")
    assert index.search(array([[0, 1, 0, 0, 0]])[0], 5).hits == ()


@pytest.mark.parametrize("scale", [1e-38, 1e30])
def test_length_does_not_matter(scale: float) -> None:
    row = array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    assert filled({"a": (row * scale).tolist()}).search(row[0], 1).hits[0][1] == pytest.approx(1.0, abs=1e-6)


def test_what_was_added_is_a_copy() -> None:
    row = array([[1, 0, 0, 0, 0]])
    index = Index(D)
    index.add("a", row)
    row[:] = [[0, 1, 0, 0, 0]]
    assert index.search(array([[1, 0, 0, 0, 0]])[0], 1).hits == (("a", 1.0),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((0, D)), "shape"),
        (np.ones(D), "shape"),
        (np.ones((1, D + 1)), "shape"),
        (np.array([[1, 2, np.nan, 4, 5]]), "finite"),
        (np.array([[1, 2, np.inf, 4, 5]]), "finite"),
        (np.array([[1, 2, 3, 4, 5], [0, 0, 0, 0, 0]]), "zeros"),
    ],
)
def test_bad_vectors_are_refused_and_nothing_changes(rows: NDArray[np.float32], message: str) -> None:
    index = filled({"a": [[1, 0, 0, 0, 0]]})
    with pytest.raises(ValueError, match=f"'a'.*{message}"):
        index.add("a", rows)
    assert index.search(array([[1, 0, 0, 0, 0]])[0], 1).hits == (("a", 1.0),)


def test_a_bad_query_or_limit_is_refused() -> None:
    index = filled({"a": [[1, 0, 0, 0, 0]]})
    with pytest.raises(ValueError, match=r"query vector.*shape"):
        index.search(np.ones(3, np.float32), 1)
    with pytest.raises(ValueError, match="limit is 0"):
        index.search(np.ones(D, np.float32), 0)
