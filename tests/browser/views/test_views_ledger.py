"""The ledger and the network: figures in words, what opens, what is live."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.browser.conftest import faults
from tests.browser.views import figures
from tests.browser.views.stub import Node

View = Callable[[str], Any]


def test_totals_by_day_key_expert_and_policy(view: View) -> None:
    page = view("ledger")
    assert page.locator(".bar").count() == 21  # also the two days without a request
    page.get_by_role("button", name="Requests", exact=True).first.click()
    assert "Requests by day" in page.locator("svg.chart").get_attribute("aria-label")
    page.get_by_role("group", name="Sum by").get_by_role("button", name="Key").click()
    assert page.locator(".summed tbody th").all_inner_texts() == ["uni-oslo", "webshop", "none"]
    page.get_by_role("group", name="Sum by").get_by_role("button", name="Policy").click()
    assert page.locator(".summed tbody th").all_inner_texts() == ["auto", "max", "cheap", "private"]
    assert page.locator("svg.chart:visible").count() == 0
    assert faults(page) == []


def test_a_request_opens_to_its_calls(view: View) -> None:
    page = view("ledger")
    page.get_by_role("region", name="Latest requests").locator(".opener").nth(5).press("Enter")
    opened = page.locator(".details")
    assert opened.locator("tbody tr").count() == 3
    assert "Slow" in opened.inner_text()
    assert faults(page) == []


def test_what_is_left_is_said(view: View) -> None:
    page = view("ledger")
    limits = page.locator(".limits").inner_text()
    for words in (
        "$6.40 of $20.00 this month",
        "$13.60 left",
        "nothing left",
        "6.90 of 8",
        "24.3 of 60 nats this month",
    ):
        assert words in limits
    shown = page.get_by_role("meter", name="$0.87 of $1.00 today")
    assert shown.get_attribute("aria-valuenow") == "87"


def test_a_new_request_comes_by_itself_and_nothing_else_moves(view: View, stub: Node) -> None:
    stub.admin["ledger"] = figures.ledger(60)
    page = view("ledger")
    row = page.get_by_role("region", name="Latest requests").locator(".opener").nth(20)
    row.focus()
    key = row.get_attribute("data-key")
    top = page.evaluate("() => scrollY")
    changed = deepcopy(stub.admin["ledger"])
    changed["requests"].insert(0, figures.request(777, [("leafy-7b", "ann")]))
    stub.admin["ledger"] = changed
    stub.tell({"event": "request", "request_id": changed["requests"][0]["request_id"]})
    page.locator(f'[data-key="open {changed["requests"][0]["request_id"]}"]').wait_for()
    assert page.evaluate("() => document.activeElement.dataset.key") == key
    assert abs(page.evaluate("() => scrollY") - top) < 120


def test_private_requests_are_noticed_by_their_count(view: View, stub: Node) -> None:
    page = view("ledger")
    assert page.get_by_text("7.77 of 8").count() == 0
    changed = deepcopy(stub.admin["ledger"])
    changed["privacy"][0]["epsilon"] = 7.77
    stub.admin["ledger"] = changed
    stub.tell(figures.traffic(5))
    stub.tell(figures.traffic(6))
    page.get_by_text("7.77 of 8").wait_for()


def test_peers_trust_and_what_is_owed(view: View, stub: Node) -> None:
    page = view("network")
    assert page.get_by_role("img", name="This node and 6 peers, 5 of them up").count() == 1
    row = page.get_by_role("region", name="Peers").get_by_role("row").filter(has_text="quarry")
    assert "overcharged" in row.inner_text()
    assert page.get_by_role("region", name="Receipts").get_by_text("greenhouse").count() == 2
    changed = deepcopy(stub.admin["network"])
    changed["peers"][0]["up"] = False
    stub.admin["network"] = changed
    stub.tell({"event": "changed", "what": "network"})
    page.get_by_role("img", name="This node and 6 peers, 4 of them up").wait_for()


def test_a_node_alone_is_told_how_to_join(view: View, stub: Node) -> None:
    stub.admin["network"] = figures.NOBODY["network"]
    said = view("network").locator("main").inner_text()
    assert "manyminds join" in said
    assert "manyminds federate URL" in said
