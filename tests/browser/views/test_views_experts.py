"""The experts: sorting and filtering, pausing, removing, and adding while one watches."""

import threading
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Complaints, faults
from tests.browser.views import figures
from tests.browser.views.stub import Node

View = Callable[[str], Any]

PROBED = {
    "name": "newcomer",
    "changed": None,
    "probes": 40,
    "more": 24,
    "failed": 1,
    "cost_usd": 0.012,
    "ended": "enough",
    "sorts": [
        {
            "kinds": ["choice", "number"],
            "what": "join",
            "accuracy": 0.81,
            "gain": 0.012,
            "gain_low": 0.003,
            "frontier": [
                {
                    "policy": "auto",
                    "before": {"asks": ["pine-14b"], "accuracy": 0.86, "cost_usd_per_1k": 0.4},
                    "after": {"asks": ["pine-14b", "newcomer"], "accuracy": 0.872, "cost_usd_per_1k": 0.5},
                }
            ],
        }
    ],
}


def named(page: Any) -> list[str]:
    found: list[str] = page.locator("main .opener .strong").all_inner_texts()
    return found


def test_measured_stands_beside_what_is_claimed(view: View) -> None:
    page = view("experts")
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="leafy-7b ").first)
    assert "67% of 266" in row.first.inner_text()
    assert "claims 65%" in row.first.inner_text()
    terms = row.first.locator(".clamp").get_attribute("title")
    assert terms == (
        "for research and teaching only; answers uni-* and from:* only; at most 60% of an answer;"
        " 60 nats a month; 600 requests a minute"
    )


def test_columns_sort_by_what_they_show(view: View) -> None:
    page = view("experts")
    assert named(page) == sorted(named(page))
    page.get_by_role("button", name="Expert", exact=True).click()
    assert named(page) == sorted(named(page), reverse=True)
    page.get_by_role("button", name="Tokens/s").click()
    speeds = [
        float(text) for text in page.locator('td[data-label="Tokens/s"]').all_inner_texts() if text != "–"
    ]
    assert speeds == sorted(speeds, reverse=True)
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Tokens/s")


def test_two_hundred_are_filtered_as_one_types(view: View, stub: Node) -> None:
    stub.admin["experts"] = figures.experts(200)
    page = view("experts")
    page.get_by_role("searchbox").fill("leafy-7b-31")
    assert page.get_by_text("1 of 200 experts").count() == 1
    page.get_by_role("searchbox").fill("")
    page.get_by_role("combobox", name="State").select_option("paused")
    assert set(page.locator('td[data-label="State"]').all_inner_texts()) == {"paused"}


def test_a_row_opens_by_keyboard_and_stays_open(view: View, stub: Node) -> None:
    page = view("experts")
    opener = page.locator(".opener").nth(1)
    opener.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Right by section").wait_for()
    assert page.locator(".opener").nth(1).evaluate("one => one === document.activeElement")
    assert "Slow: 136" in page.locator(".details").inner_text()
    stub.admin["experts"]["data"][6]["ratings"]["week"]["calls"] += 1
    stub.tell({"event": "request", "request_id": "r"})
    page.get_by_text("801 calls").wait_for()
    assert page.locator(".opener").nth(1).get_attribute("aria-expanded") == "true"
    assert page.locator(".opener").nth(1).evaluate("one => one === document.activeElement")
    assert faults(page) == []


def test_pause_and_resume(view: View, stub: Node) -> None:
    def pause(body: Any) -> Any:
        [one] = [one for one in stub.admin["experts"]["data"] if one["name"] == body["name"]]
        one["paused"] = not one["paused"]
        return {"name": body["name"], "paused": one["paused"]}

    stub.admin |= {"pause": pause, "resume": pause}
    page = view("experts")
    page.get_by_role("button", name="Pause pine-14b").click()
    page.get_by_text("pine-14b is paused: nobody asks it until it is resumed.").wait_for()
    page.get_by_role("button", name="Resume pine-14b").click()
    page.get_by_text("pine-14b is asked again.").wait_for()
    assert stub.sent == [("pause", {"name": "pine-14b"}), ("resume", {"name": "pine-14b"})]
    assert page.get_by_role("button", name="Pause pine-14b").count() == 1


def test_what_is_refused_is_said(view: View, stub: Node, complaints: Complaints) -> None:
    complaints.allowed.append("the server responded with a status of 409")
    stub.admin["pause"] = (409, "pine-14b was withdrawn meanwhile.")
    page = view("experts")
    page.get_by_role("button", name="Pause pine-14b").click()
    page.get_by_role("alert").filter(has_text="pine-14b was withdrawn meanwhile.").wait_for()
    assert page.get_by_role("button", name="Pause pine-14b").is_enabled()


def test_removing_says_what_it_means_first(view: View, stub: Node) -> None:
    def remove(body: Any) -> Any:
        stub.admin["experts"]["data"] = [
            one for one in stub.admin["experts"]["data"] if one["name"] != body["name"]
        ]
        row = {
            "name": body["name"],
            "source": "pine",
            "where": "catalogue",
            "at_utc": "",
            "requests": 120,
            "outcomes": 41,
        }
        return {"removed": [row]}

    stub.admin["remove"] = remove
    page = view("experts")
    button = page.get_by_role("button", name="Remove pine-14b")
    button.click()
    dialog = page.get_by_role("dialog", name="Remove pine-14b?")
    said = dialog.inner_text()
    assert "what it would be had it never been in it" in said
    assert "manyminds experts remove --undo pine-14b" in said
    assert "Its files stay on the disk." in said
    assert faults(page) == []
    page.keyboard.press("Escape")
    assert stub.sent == []
    button.click()
    dialog.get_by_role("button", name="Keep it").click()
    assert stub.sent == []
    button.click()
    dialog.get_by_role("button", name="Remove it").click()
    page.get_by_text("pine-14b was withdrawn: 120 requests and 41 outcomes teach no more.").wait_for()
    button.wait_for(state="detached")


def test_adding_probes_as_one_watches(view: View, stub: Node) -> None:
    half = threading.Event()
    probing = {"event": "probing", "asked": 12, "of": 64}
    stub.steps = [
        {"event": "added", "name": "newcomer"},
        probing,
        half,
        {"event": "probed", "result": PROBED},
    ]
    page = view("experts")
    page.get_by_role("button", name="Add an expert").click()
    assert page.get_by_label("Address").evaluate("one => one === document.activeElement")
    page.get_by_label("Address").fill("http://127.0.0.1:9/v1")
    page.get_by_label("Price of a million tokens read, $").fill("0.25")
    page.get_by_label("Skills").fill("plants, soil")
    page.keyboard.press("Enter")
    page.locator("progress[value='12']").wait_for()
    assert faults(page) == []
    half.set()
    page.get_by_text("newcomer was added and probed.").wait_for()
    told = page.locator(".probed").inner_text()
    assert "40 probes and 24 more for $0.012, 1 call failed." in told
    assert "choice and number: About 81% right. Taken in: it votes, +1.2 points expected." in told
    assert "86.0% → 87.2%" in told
    assert faults(page) == []
    body = {
        "url": "http://127.0.0.1:9/v1",
        "price_in_usd_per_m": 0.25,
        "skills": ["plants", "soil"],
        "probe": True,
    }
    assert stub.sent == [("add", body)]


def test_one_of_several_models_is_chosen(view: View, stub: Node) -> None:
    stub.steps = [
        {"event": "models", "models": ["a", figures.HOSTILE[0]]},
        {"event": "error", "message": "Say which."},
    ]
    page = view("experts")
    page.get_by_role("button", name="Add an expert").click()
    page.get_by_label("Address").fill("http://127.0.0.1:9/v1")
    page.get_by_label("Probe it").uncheck()
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("2 models can be asked there. Which one?").wait_for()
    stub.steps = [{"event": "added", "name": "b"}, {"event": "not_probed", "why": "it was not wanted."}]
    page.get_by_role("button", name=figures.HOSTILE[0]).click()
    page.get_by_text("b was added, and not probed: it was not wanted.").wait_for()
    assert stub.sent[1] == (
        "add",
        {"url": "http://127.0.0.1:9/v1", "model": figures.HOSTILE[0], "probe": False},
    )


def test_probing_can_be_stopped(view: View, stub: Node) -> None:
    stub.steps = [
        {"event": "added", "name": "newcomer"},
        {"event": "probing", "asked": 1, "of": 64},
        threading.Event(),
    ]
    page = view("experts")
    page.get_by_role("button", name="Add an expert").click()
    page.get_by_label("Address").fill("http://127.0.0.1:9/v1")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("progress[value='1']").wait_for()
    page.get_by_role("button", name="Stop probing").click()
    page.get_by_text("Stopped. newcomer was added, and stays.").wait_for()
    assert stub.left.wait(20)


def test_what_cannot_be_added_is_said(view: View, stub: Node) -> None:
    stub.steps = [{"event": "error", "message": "Nothing answers at http://127.0.0.1:9/v1."}]
    page = view("experts")
    page.get_by_role("button", name="Add an expert").click()
    page.get_by_role("button", name="Add", exact=True).click()
    assert stub.sent == []  # an address is needed
    page.get_by_label("Address").fill("http://127.0.0.1:9/v1")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("alert").filter(has_text="Nothing answers at http://127.0.0.1:9/v1.").wait_for()
