"""The frontier: of traffic and of a file, points by keyboard, files that are none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import faults
from tests.browser.views import figures
from tests.browser.views.stub import Node

View = Callable[[str], Any]
RECORDED = sorted((Path(__file__).parents[3] / "benchmarks" / "eval").glob("*.json"))


def opened(page: Any, text: str | bytes, name: str = "result.json") -> None:
    content = text if isinstance(text, bytes) else text.encode()
    page.set_input_files(
        "input[type=file]", {"name": name, "mimeType": "application/json", "buffer": content}
    )


def test_points_are_reached_by_the_arrow_keys(view: View) -> None:
    page = view("frontier")
    assert page.locator(".point").count() == 15  # one was never graded
    page.locator('.point[tabindex="0"]').focus()
    assert page.locator('.point[tabindex="0"]').count() == 1
    said = []
    for _ in range(16):
        said.append(page.evaluate("() => document.activeElement.getAttribute('aria-label')"))
        page.keyboard.press("ArrowRight")
    assert len(set(said)) == 15
    assert page.locator(".tip").inner_text() == said[-1]
    page.keyboard.press("Home")
    assert "free" in page.locator(".tip").inner_text()
    assert faults(page) == []


def test_a_file_is_drawn_with_its_gain(view: View) -> None:
    page = view("frontier")
    opened(page, json.dumps(figures.RECORDED))
    page.get_by_text("mmlu_pro: 4 models, 5,624 test questions.").wait_for()
    assert "auto: +1.3 points [+1.0, +1.6], at 0.99 times its cost" in page.locator(".gains").inner_text()
    assert page.locator(".point.network").count() == 3  # cheap stands outside the frontier in this file
    assert page.locator(".oracle").count() == 1
    assert faults(page) == []
    page.get_by_role("button", name="Live traffic").click()
    assert page.locator(".point.network").count() == 4
    page.get_by_role("button", name="A file", exact=True).click()
    assert page.locator(".point.network").count() == 3


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_result_that_we_keep_can_be_opened(view: View, path: Path) -> None:
    page = view("frontier")
    opened(page, path.read_bytes(), path.name)
    said = json.loads(path.read_bytes())
    page.get_by_text(f"{said['models']} models", exact=False).first.wait_for()
    priced = [one for one in said["frontier"] if one["cost_usd_per_1k"] is not None]
    assert page.locator(".point").count() >= len(priced)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "result.json is not JSON"),
        ("[1, 2]", "holds no result of an evaluation"),
        ('{"set": "x"}', "it has no frontier"),
        ('{"frontier": []}', "is empty"),
        ('{"frontier": [{"name": "a", "accuracy": 90}]}', "not a share from 0 to 1"),
        ('{"frontier": [{"name": "a", "accuracy": 0.9, "cost_usd_per_1k": -1}]}', "not dollars"),
        ('{"frontier": [{"accuracy": 0.9}]}', "has no name"),
        ('{"frontier": [null]}', "has no name"),
        (" " * 8_000_001, "the most that is read"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(view: View, text: str, why: str) -> None:
    page = view("frontier")
    opened(page, text)
    page.get_by_role("alert").filter(has_text=why).wait_for()
    assert page.locator(".point.network").count() == 4  # what was drawn still is


def test_names_in_a_file_are_text(view: View) -> None:
    page = view("frontier")
    entries = [
        {"name": name, "kind": "model", "accuracy": 0.5, "cost_usd_per_1k": 0.1} for name in figures.HOSTILE
    ]
    opened(page, json.dumps({**figures.RECORDED, "set": figures.HOSTILE[0], "frontier": entries}))
    page.get_by_text(figures.HOSTILE[0]).first.wait_for()
    assert page.title() == "Frontier · manyminds"
    assert page.locator("main img").count() == 0


def test_without_any_cost_there_is_a_table_alone(view: View, stub: Node) -> None:
    page = view("frontier")
    entries = [{"name": "a", "kind": "model", "accuracy": 0.5, "cost_usd_per_1k": None}]
    opened(page, json.dumps({"frontier": entries}))
    page.get_by_text("None of these has a cost.").wait_for()
    assert page.locator("main tbody tr").count() == 1
