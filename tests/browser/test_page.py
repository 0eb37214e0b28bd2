"""The page's frame in a real browser: views, keys, a node that dies, small screens, weight, keyboard."""

from typing import Any

from tests.browser.conftest import Complaints, faults
from tests.browser.stub import Stub
from tests.browser.test_ask import answered, ask

BYTES = 300_000


def test_a_page_load_is_light_and_stays_at_home(page: Any, stub: Stub, complaints: Complaints) -> None:
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.goto("/")
    page.get_by_text("4 of 5 experts up").wait_for()
    assert page.title() == "Ask · manyminds"
    assert faults(page) == []
    ask(page)
    answered(page)
    assert 20_000 < sum(sizes) < BYTES
    assert all(url.startswith(stub.url) for url in complaints.requests)


def test_the_theme_is_kept(page: Any) -> None:
    page.goto("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    page.get_by_label("Theme").select_option("light")
    light = page.evaluate(ground)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == dark
    assert page.get_by_label("Theme").input_value() == "dark"


def test_a_key_is_asked_for_and_kept_for_this_tab(page: Any, stub: Stub, complaints: Complaints) -> None:
    complaints.allowed = ["status of 401"]
    stub.key = "sk-right"
    page.goto("/")
    dialog = page.get_by_role("dialog", name="This node asks for a key")
    dialog.wait_for()
    assert "This node asks for a key." in dialog.inner_text()
    assert faults(page) == []
    page.get_by_label("Key", exact=True).fill("sk-wrong")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('key-input').value === ''")
    dialog.wait_for()
    page.get_by_label("Key", exact=True).fill("sk-right")
    page.keyboard.press("Enter")
    dialog.wait_for(state="hidden")
    page.get_by_text("4 of 5 experts up").wait_for()
    ask(page)
    answered(page)
    page.reload()
    page.get_by_text("4 of 5 experts up").wait_for()
    assert page.evaluate("[sessionStorage.length, localStorage.getItem('manyminds.key')]") == [1, None]


def test_who_gives_no_key_is_told_so_and_may_later(page: Any, stub: Stub, complaints: Complaints) -> None:
    complaints.allowed = ["status of 401"]
    stub.key = "sk-right"
    page.goto("/")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("alert").filter(has_text="This node asks for a key.").wait_for()
    page.get_by_role("button", name="Use a key").click()
    page.get_by_label("Key", exact=True).fill("sk-right")
    page.keyboard.press("Enter")
    page.get_by_text("4 of 5 experts up").wait_for()
    page.get_by_role("alert").filter(has_text="This node asks for a key.").wait_for(state="detached")
    assert page.get_by_role("button", name="Use a key").is_visible(), "another key may be an administrator's"


def test_a_node_that_dies_and_comes_back(page: Any, stub: Stub, complaints: Complaints) -> None:
    complaints.allowed = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET"]
    complaints.allowed += ["ERR_EMPTY_RESPONSE"]
    page.goto("/")
    page.get_by_text("4 of 5 experts up").wait_for()
    ask(page)
    answered(page)
    stub.stop()
    banner = page.locator("#banner")
    banner.filter(has_text="The node does not answer.").wait_for()
    assert page.locator("#status-text").inner_text() == "No connection"
    assert faults(page) == []
    ask(page, "Are you there?")
    page.locator(".answer").nth(1).get_by_role("alert").filter(has_text="does not answer").wait_for()
    stub.start()
    page.get_by_role("button", name="Try now").click()
    banner.wait_for(state="hidden")
    page.get_by_text("4 of 5 experts up").wait_for()
    ask(page, "And now?")
    answered(page, 2)
    assert page.locator(".turn").count() == 3


def test_a_node_that_comes_back_is_found_without_a_click(
    page: Any, stub: Stub, complaints: Complaints
) -> None:
    complaints.allowed = ["ERR_"]
    page.goto("/")
    page.get_by_text("4 of 5 experts up").wait_for()
    stub.stop()
    page.locator("#banner").wait_for()
    stub.start()
    page.locator("#banner").wait_for(state="hidden")
    page.get_by_text("4 of 5 experts up").wait_for()
    ask(page)
    assert "Canberra" in answered(page).inner_text()


def test_a_phone_needs_no_sideways_scroll(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/")
    wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 361 &&"
    wide += " getComputedStyle(e).position !== 'absolute').map(e => e.className || e.tagName)"
    for step in ("empty", "answer", "adjusted", "compared"):
        if step == "answer":
            ask(page)
            answered(page)
        elif step == "adjusted":
            page.get_by_role("button", name="Adjust").click()
            page.locator(".chooser summary").click()
        elif step == "compared":
            page.get_by_role("button", name="Compare policies").click()
            page.get_by_role("button", name="Continue with the answer of fast").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 360, step
        assert page.evaluate(wide) == [], step
        assert faults(page) == []


def focused(page: Any) -> str:
    return str(
        page.evaluate(
            "() => { const e = document.activeElement; return e.ariaLabel || e.id || e.textContent }"
        )
    )


def tab_to(page: Any, name: str, key: str = "Tab") -> None:
    for _ in range(60):
        page.keyboard.press(key)
        if name in focused(page):
            return
    raise AssertionError(f"no way to {name!r} by keyboard")


def test_all_of_it_by_keyboard(page: Any, stub: Stub) -> None:
    page.goto("/")
    page.get_by_text("4 of 5 experts up").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("Enter")
    assert focused(page) == "main"
    assert page.url.endswith(("/", "#/ask"))
    tab_to(page, "question")
    page.keyboard.type("What is the capital")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("of Australia?")
    page.keyboard.press("Enter")
    answered(page)
    assert stub.asked[0]["messages"][-1]["content"] == "What is the capital\nof Australia?"
    assert focused(page) == "question"
    tab_to(page, "Adjust", "Shift+Tab")
    page.keyboard.press("Space")
    tab_to(page, "Exclude quince-0.5b")
    page.keyboard.press("Space")
    tab_to(page, "Weight of quince-0.5b")
    page.keyboard.press("ArrowRight")
    tab_to(page, "Ask again", "Shift+Tab")
    page.keyboard.press("Enter")
    answered(page, 1)
    wish = stub.asked[1]["manyminds"]
    assert (wish["exclude"], wish["weights"]) == (["quince-0.5b"], {"quince-0.5b": 1.25})
    tab_to(page, "Compare policies")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Continue with the answer of fast").wait_for()
    ring = page.evaluate("getComputedStyle(document.activeElement.closest('.composer')).outlineStyle")
    assert ring == "solid", "who has the focus is seen"
