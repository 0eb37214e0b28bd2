"""What holds for every view: with much, with nothing, with names that somebody made up to do harm."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Complaints, faults
from tests.browser.views import figures
from tests.browser.views.stub import Node

View = Callable[[str], Any]
VIEWS = ("experts", "library", "frontier", "network", "ledger")
NOTHING = {
    "experts": "No expert is known yet.",
    "library": "There is nothing on the shelves yet.",
    "frontier": "Nothing was asked this week.",
    "network": "This node is in no network.",
    "ledger": "Nothing was asked yet.",
}


def wide(page: Any) -> bool:
    return bool(
        page.evaluate("() => document.documentElement.scrollWidth > document.documentElement.clientWidth")
    )


@pytest.mark.parametrize("name", VIEWS)
def test_shows_what_the_node_says_and_axe_has_no_complaint(view: View, name: str) -> None:
    page = view(name)
    assert page.title() == f"{name.capitalize()} · manyminds"
    assert page.get_by_role("heading", level=1).inner_text() == name.capitalize()
    assert faults(page) == []


@pytest.mark.parametrize("name", VIEWS)
def test_says_what_to_do_where_there_is_nothing(view: View, stub: Node, name: str) -> None:
    stub.admin[name] = figures.NOBODY[name]
    page = view(name)
    assert NOTHING[name] in page.locator("main").inner_text()
    assert faults(page) == []


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_is_wider_than_a_phone(page: Any, view: View, stub: Node, name: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    view(name)
    assert not wide(page)
    for opener in page.locator(".opener").all()[:2]:
        opener.click()
    assert not wide(page)
    assert faults(page) == []
    stub.admin[name] = figures.NOBODY[name]
    page.reload()
    page.get_by_text(NOTHING[name]).wait_for()
    assert not wide(page)


@pytest.mark.parametrize("name", VIEWS)
def test_two_hundred_experts_are_shown(view: View, stub: Node, name: str) -> None:
    stub.admin[name] = figures.everything(200)[name]
    page = view(name)
    counts = {"experts": 200, "frontier": 204, "network": 100, "ledger": 19}
    if name in counts:
        assert page.locator("main table tbody").first.locator("> tr").count() == counts[name]
    else:
        assert page.locator(".tile").count() == 7


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_names_are_text(page: Any, view: View, stub: Node, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    stub.admin[name] = hostile(name)
    view(name)
    shown = page.locator("main")
    assert any(one in shown.inner_text() or shown.get_by_title(one).count() for one in figures.HOSTILE[:3])
    assert page.title() == f"{name.capitalize()} · manyminds"
    assert page.locator("main img, main script, main iframe").count() == 0
    for opener in page.locator(".opener").all()[:4]:
        opener.click()
    assert page.locator("main img, main script, main iframe").count() == 0
    assert not wide(page)


def hostile(name: str) -> Any:
    """The same figures, of experts, peers, keys and sections with such names."""
    said = figures.everything(12)
    renamed = {old: new for (old, _), new in zip(figures.names(12), figures.HOSTILE, strict=False)}
    renamed |= dict(
        zip(("mathematics", "algebra", "greenhouse", "uni-oslo", "research"), figures.HOSTILE, strict=False)
    )

    def through(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: through(one) for key, one in value.items()}
        if isinstance(value, list):
            return [through(one) for one in value]
        return renamed.get(value, value) if isinstance(value, str) else value

    return through(said[name])


@pytest.mark.parametrize("name", VIEWS)
def test_an_error_is_said_and_can_be_tried_again(
    page: Any, stub: Node, complaints: Complaints, name: str
) -> None:
    complaints.allowed.append("the server responded with a status of 503")
    good = stub.admin[name]
    stub.admin[name] = (503, "The ledger is away: see the log.")
    page.goto(f"/#/{name}")
    alert = page.get_by_role("alert").filter(has_text="The ledger is away: see the log.")
    alert.wait_for()
    assert faults(page) == []
    stub.admin[name] = good
    alert.get_by_role("button", name="Try again").click()
    alert.wait_for(state="detached")
    page.locator("main table, main .treemap").first.wait_for(state="attached")


@pytest.mark.parametrize("name", VIEWS)
def test_what_was_shown_stays_when_the_next_answer_is_an_error(
    view: View, stub: Node, complaints: Complaints, name: str
) -> None:
    complaints.allowed.append("the server responded with a status of 503")
    page = view(name)
    rows = page.locator("main table tbody tr, main .tile").count()
    assert rows
    stub.admin[name] = (503, "The ledger is away.")
    stub.tell({"event": "changed", "what": "experts"})
    page.get_by_role("alert").filter(has_text="This may be out of date. The ledger is away.").wait_for()
    assert page.locator("main table tbody tr, main .tile").count() == rows


def test_what_a_view_began_ends_with_it(view: View, stub: Node) -> None:
    for name in (*VIEWS, "ask"):
        page = view(name) if name != "ask" else stub_only(view, stub)
    asked = len(stub.got)
    for _ in range(3):
        stub.tell({"event": "changed", "what": "experts"})
    stub.tell(figures.traffic(99))
    page.locator("#status-text", has_text="4.2 requests/min").wait_for()
    page.wait_for_function("() => new Promise(done => setTimeout(() => done(true), 2500))")
    assert len(stub.got) == asked


def stub_only(view: View, stub: Node) -> Any:
    page = view("ledger")
    page.goto("/#/ask")
    page.locator('main[data-view="ask"] h1, main[data-view="ask"] form').first.wait_for(state="attached")
    return page
