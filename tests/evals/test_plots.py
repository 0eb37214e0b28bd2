"""The picture of a result: every label readable, same bytes each time, every bad file explained."""

import json
import math
import random
import struct
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray

from manyminds.errors import DataError
from manyminds.evals import plots
from manyminds.evals.plots import Result

Floats = NDArray[np.float64]

VENDORS = (
    "claude-3-5-sonnet",
    "gpt-4o-mini",
    "Meta-Llama-3.1-70B-Instruct",
    "mixtral-8x22b",
    "gemini-1.5-flash",
)


def point(accuracy: float, cost: float | None) -> dict[str, Any]:
    return {"accuracy": accuracy, "cost_usd_per_1k": cost}


def document(models: int = 4, seed: int = 0) -> dict[str, Any]:
    """What an evaluation prints: dear models are better, most are crowded at the top, some are hopeless."""
    draw = random.Random(seed)
    singles = []
    for i in range(models):
        cost = 10 ** draw.gauss(-0.3, 0.6)
        accuracy = min(0.93, draw.betavariate(6, 2) * (0.9 + 0.05 * math.log10(cost)))
        name = f"{VENDORS[i % len(VENDORS)]}-{20240100 + i}{'-FC' * (i % 3)}"
        singles.append({"name": name, "kind": "model", **point(accuracy, cost)})
    network = [point(0.94 - 0.25 * 0.6**i, 0.05 * 1.5**i) for i in range(12)]
    best = max(singles, key=lambda single: float(single["accuracy"]))
    return {
        "set": "made up",
        "models": models,
        "n_test": 845,
        "seed": seed,
        "best_single": {"model": best["name"], **point(best["accuracy"], best["cost_usd_per_1k"])},
        "baselines": {"oracle": {"accuracy": 0.97}, "majority": {"accuracy": 0.8}},
        "max": {**network[11], "gain": 0.01},
        "cheap": network[5],
        "auto": network[8],
        "fast": network[3],
        "frontier": [*singles, *({"name": f"λ {i}", "kind": "network", **p} for i, p in enumerate(network))],
    }


def result(value: dict[str, Any]) -> Result:
    return msgspec.convert(value, Result)


@cache
def drawn(models: int) -> Figure:
    return plots.figure(result(document(models)))


def boxes_of(figure: Figure) -> Floats:
    return np.array([text.get_window_extent().extents for text in figure.axes[0].texts])


def overlapping(one: Floats, other: Floats) -> Floats:
    """Areas that boxes (a, 4) share with boxes (b, 4): (a, b)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(-1))


# --- what can be read off it -----------------------------------------------------------------------


@pytest.mark.parametrize("models", [1, 4, 44, 71])
def test_every_model_and_policy_has_a_label(models: int) -> None:
    value = document(models)
    labels = [text.get_text() for text in drawn(models).axes[0].texts]
    names = [entry["name"] for entry in value["frontier"] if entry["kind"] == "model"]
    for name in [*names, "max", "cheap", "auto", "fast", "oracle"]:
        assert len([label for label in labels if label == name or label.startswith(f"{name} ")]) == 1
    assert "without a label" not in drawn(models).texts[0].get_text()


@pytest.mark.parametrize("models", [1, 4, 44, 71])
def test_labels_cover_neither_each_other_nor_a_point(models: int) -> None:
    axes = drawn(models).axes[0]
    boxes = boxes_of(drawn(models))
    shared = overlapping(boxes, boxes)
    np.fill_diagonal(shared, 0)
    assert shared.max() == 0
    points = np.vstack([line.get_xydata() for line in axes.lines if line.get_marker() != "None"])
    centres = axes.transData.transform(points)
    assert len(centres) == models + 4 + 12
    assert overlapping(boxes, np.hstack([centres - 2, centres + 2])).max() == 0


@pytest.mark.parametrize("models", [4, 71])
def test_nothing_leaves_the_picture(models: int) -> None:
    figure = drawn(models)
    frame = np.asarray(figure.axes[0].bbox.extents)
    boxes = boxes_of(figure)
    assert (boxes[:, :2] >= frame[:2] - 1).all()
    assert (boxes[:, 2:] <= frame[2:] + 1).all()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    points = np.vstack([line.get_xydata() for line in figure.axes[0].lines])
    assert (figure.axes[0].get_xlim()[0] <= points[:, 0]).all()
    assert (points[:, 1] >= figure.axes[0].get_ylim()[0]).all()


def test_policies_at_one_point_share_a_label() -> None:
    value = document()
    value["auto"] = value["max"]
    value["fast"] = None
    labels = [text.get_text() for text in plots.figure(result(value)).axes[0].texts]
    assert any(label.startswith("max, auto ") for label in labels)
    assert not any("fast" in label for label in labels)


def test_what_is_free_and_what_is_unknown_stand_in_columns_at_the_left() -> None:
    value = document(8)
    first, second = value["frontier"][:2]
    first["cost_usd_per_1k"], second["cost_usd_per_1k"] = 0, None
    axes = plots.figure(result(value)).axes[0]
    ticks = [(label.get_text(), label.get_position()[0]) for label in axes.get_xticklabels()]
    ticks = sorted(ticks, key=lambda tick: tick[1])
    assert [name for name, _ in ticks[:2]] == ["free", "cost\nunknown"]
    assert all(name.startswith("$") for name, _ in ticks[2:])
    x = dict(ticks)
    points = np.vstack([line.get_xydata() for line in axes.lines])
    for entry, column in ((first, "free"), (second, "cost\nunknown")):
        assert points[points[:, 0] == x[column], 1] == pytest.approx([100 * entry["accuracy"]])


def test_models_far_below_stand_under_the_scale_with_their_accuracy() -> None:
    value = document(20)
    value["frontier"][3]["accuracy"] = 0.01
    axes = plots.figure(result(value)).axes[0]
    assert f"{value['frontier'][3]['name']} 1.0%" in [text.get_text() for text in axes.texts]
    assert axes.get_ylim()[0] > 10


def test_more_models_than_anybody_reads_are_points_without_a_label() -> None:
    figure = plots.figure(result(document(130)))
    unnamed = int(figure.texts[0].get_text().split(";")[1].split()[0])
    assert 10 < unnamed < 130
    assert len(figure.axes[0].texts) == 130 + 4 + 1 - unnamed


# --- bytes -----------------------------------------------------------------------------------------


def test_the_same_result_is_the_same_bytes_whatever_the_users_settings() -> None:
    import matplotlib as mpl

    value = document()
    first = plots.draw(result(value))
    assert list(first) == ["png", "svg"]
    random.Random(1).shuffle(value["frontier"])
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "savefig.dpi": 30}):
        assert plots.draw(result(value)) == first


def test_the_files_are_a_png_and_an_svg_without_a_date() -> None:
    files = plots.draw(result(document()))
    assert files["png"].startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", files["png"][16:24])
    assert width > height > 500
    assert ET.fromstring(files["svg"]).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in files["svg"]


@pytest.mark.parametrize(
    "name", ["$x_$ $", "--><script>alert(1)</script>", "a\n\x00\x1b[31m\u202eb", "模型", "", "x" * 5000]
)
def test_a_name_is_only_ever_text(name: str) -> None:
    value = document()
    value["set"] = value["best_single"]["model"] = value["frontier"][0]["name"] = name
    figure = plots.figure(result(value))
    assert boxes_of(figure)[:, 2].max() < figure.bbox.x1
    tags = {element.tag.split("}")[1] for element in ET.fromstring(plots.draw(result(value))["svg"]).iter()}
    assert "script" not in tags


@pytest.mark.parametrize("costs", [(5e-324, 1e300), (2.5, 2.5), (0.0, 1e-12), (None, 3.0)])
def test_any_cost_can_be_drawn(costs: tuple[float | None, float]) -> None:
    value = document()
    value["frontier"] = value["frontier"][:2]
    for entry, cost in zip(value["frontier"], costs, strict=True):
        entry["cost_usd_per_1k"] = cost
    value["best_single"]["cost_usd_per_1k"] = costs[0]
    for name in ("max", "cheap", "auto", "fast"):
        value[name] = point(0.5, costs[1])
    axes = plots.figure(result(value)).axes[0]
    assert 1 <= len(axes.get_xticklabels()) <= 14
    assert all(np.isfinite(line.get_xydata()).all() for line in axes.lines)


# --- where labels go -------------------------------------------------------------------------------

SPOTS = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), min_size=1, max_size=8)
SIZES = st.tuples(st.floats(5, 90), st.floats(5, 12))


@settings(max_examples=30)
@given(SPOTS, SIZES, st.lists(st.tuples(*[st.floats(0, 200)] * 4), max_size=4))
def test_a_place_is_inside_and_covers_nothing(
    spots: list[tuple[float, float]], size: tuple[float, float], segments: list[tuple[float, ...]]
) -> None:
    anchors = np.array(spots)
    markers = np.hstack([anchors - 2, anchors + 2])
    lines = np.array(segments).reshape(-1, 4)
    bounds = np.array([0.0, 0, 300, 200])
    sizes = np.tile(size, (len(spots), 1))
    corners = plots.place(anchors, sizes, markers, lines, bounds)
    assert np.array_equal(corners, plots.place(anchors, sizes, markers, lines, bounds), equal_nan=True)
    boxes = np.hstack([corners, corners + sizes])
    boxes = boxes[~np.isnan(boxes[:, 0])]
    shared = overlapping(boxes, boxes)
    np.fill_diagonal(shared, 0)
    assert not shared.any()
    assert not overlapping(boxes, markers).any()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= bounds[2:]).all()


def test_a_label_without_room_has_no_place() -> None:
    anchors, sizes = np.array([[50.0, 50], [20, 20]]), np.array([[500.0, 10], [30, 10]])
    markers, bounds = np.hstack([anchors - 2, anchors + 2]), np.array([0.0, 0, 100, 100])
    corners = plots.place(anchors, sizes, markers, np.empty((0, 4)), bounds)
    assert np.isnan(corners).tolist() == [[True, True], [False, False]]


def test_a_label_stays_off_lines() -> None:
    anchor, line = np.array([[50.0, 50]]), np.array([[50.0, 50, 200, 50]])
    bounds, size = np.array([0.0, 0, 200, 100]), np.array([[40.0, 10]])
    free = plots.place(anchor, size, np.hstack([anchor - 2, anchor + 2]), np.empty((0, 4)), bounds)
    moved = plots.place(anchor, size, np.hstack([anchor - 2, anchor + 2]), line, bounds)
    assert free[0][1] < 50 < free[0][1] + 10
    assert not moved[0][1] < 50 < moved[0][1] + 10 or moved[0][0] + 40 < 50


# --- what is refused -------------------------------------------------------------------------------


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "result.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_result_is_read(tmp_path: Path) -> None:
    found = plots.read(written(tmp_path, json.dumps(document())))
    assert found == result(document())
    assert found.policies["max"].accuracy == document()["max"]["accuracy"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "truncated"),
        ("set: mmlu", "malformed"),
        (b"\xff\xfe{}", "malformed"),
        ("[]", "Expected `object`"),
        ("{}", "missing required field `set`"),
        ('{"more": ' + "[" * 100_000, "recursion"),
        ('{"set": NaN}', "malformed"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        plots.read(written(tmp_path, text))
    assert "manyminds eval DIR --json" in str(caught.value)


@pytest.mark.parametrize(
    "key", ["set", "models", "n_test", "best_single", "baselines", "max", "fast", "frontier"]
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    value = document()
    del value[key]
    with pytest.raises(DataError, match=f"`{key}`"):
        plots.read(written(tmp_path, json.dumps(value)))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("accuracy", '"NaN"'),
        ("accuracy", "NaN"),
        ("accuracy", "1.01"),
        ("accuracy", "-0.1"),
        ("accuracy", "null"),
        ("cost_usd_per_1k", "-1"),
        ("cost_usd_per_1k", "1e999"),
        ("cost_usd_per_1k", "Infinity"),
        ("kind", '"oracle"'),
        ("name", "7"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, field: str, wrong: str) -> None:
    value = document()
    value["frontier"][1][field] = "HERE"
    with pytest.raises(DataError):
        plots.read(written(tmp_path, json.dumps(value).replace('"HERE"', wrong)))


def test_a_result_without_any_cost_is_refused(tmp_path: Path) -> None:
    value = document()
    for i, entry in enumerate(value["frontier"]):
        entry["cost_usd_per_1k"] = 0 if i % 2 else None
    with pytest.raises(DataError, match="cost_usd"):
        plots.read(written(tmp_path, json.dumps(value)))


def test_a_result_without_models_is_refused(tmp_path: Path) -> None:
    value = document()
    value["frontier"] = value["frontier"][4:]
    with pytest.raises(DataError, match="no model"):
        plots.read(written(tmp_path, json.dumps(value)))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json: No such file"):
        plots.read(tmp_path / "absent.json")
    with pytest.raises(DataError, match="directory"):
        plots.read(tmp_path)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DataError, match=r"pip install 'manyminds\[eval\]'"):
        plots.draw(result(document()))
