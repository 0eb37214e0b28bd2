"""The library: going in and out, the outline by keyboard, the way of the last request as it changes."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.browser.conftest import faults
from tests.browser.views import figures
from tests.browser.views.stub import Node

View = Callable[[str], Any]


def test_zooms_to_a_book_and_back(view: View) -> None:
    page = view("library")
    page.get_by_role("button", name="mathematics, 19 books").click()
    assert page.locator(".crumbs [aria-current]").inner_text() == "mathematics"
    page.get_by_role("button", name="algebra, 5 books").click()
    page.get_by_role("button", name="quince-4b, openai").first.click()
    page.get_by_role("heading", name="quince-4b").wait_for()
    assert "algebra, worded" in page.locator(".chapters").inner_text()
    assert faults(page) == []
    page.get_by_role("button", name="mathematics", exact=True).click()
    assert page.locator(".tile").count() == 4
    page.get_by_role("button", name="All sections").click()
    assert page.locator(".tile").count() == 7


def test_tiles_fill_the_map_and_do_not_overlap(view: View, stub: Node) -> None:
    stub.admin["library"] = figures.library(200)
    page = view("library")
    boxes = page.locator(".tile").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(box => [box.x, box.y, box.right, box.bottom])"
    )
    area = sum((right - x) * (bottom - y) for x, y, right, bottom in boxes)
    canvas = page.locator(".treemap").bounding_box()
    assert abs(area / (canvas["width"] * canvas["height"]) - 1) < 0.01
    for i, (x, y, right, bottom) in enumerate(boxes):
        for u, v, far, low in boxes[i + 1 :]:
            assert min(right, far) - max(x, u) < 0.5 or min(bottom, low) - max(y, v) < 0.5


def test_the_way_of_the_last_request_is_marked_and_followed(view: View, stub: Node) -> None:
    page = view("library")
    way = page.get_by_role("region", name="The way of the last request")
    assert way.locator("li").nth(0).inner_text().split("\n") == ["section", "mathematics"]
    assert page.locator(".tile.answered").count() == 1
    changed = deepcopy(stub.admin["library"])
    changed["last"] |= {"section": "law", "asked": [], "answered": None, "considered": ["acme"]}
    stub.admin["library"] = changed
    stub.tell({"event": "request", "request_id": "r"})
    way.get_by_text("law", exact=True).wait_for()
    assert page.locator(".tile.answered").count() == 0
    assert page.locator(".tile.considered").count() <= 1


def test_the_outline_goes_by_keyboard_alone(view: View, stub: Node) -> None:
    page = view("library")
    page.get_by_role("button", name="Outline").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    focus = "() => document.activeElement.querySelector('.label')?.textContent"
    assert page.evaluate(focus) == "mathematics"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focus) == "algebra"
    assert page.evaluate("() => document.activeElement.ariaLevel") == "2"
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focus) == "quince-4b"
    assert faults(page) == []
    stub.admin["library"] = {**stub.admin["library"], "vectors": 9_999}
    stub.tell({"event": "changed", "what": "experts"})
    page.get_by_text("9,999 skill vectors").wait_for()
    assert page.evaluate(focus) == "quince-4b"
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate(focus) == "mathematics"
    page.keyboard.press("l")
    assert page.evaluate(focus) == "law"
    page.keyboard.press("End")
    assert page.evaluate(focus) == "languages"


def test_a_book_of_the_way_is_a_step_away(view: View) -> None:
    page = view("library")
    page.get_by_role("region", name="The way of the last request").get_by_role(
        "button", name="quince-4b"
    ).first.click()
    page.get_by_role("heading", name="quince-4b answered").wait_for()
    assert page.locator(".crumb").all_inner_texts()[-1] == "quince-4b"
