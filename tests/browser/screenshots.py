"""Pictures of the page, into docs/images or elsewhere: `python -m tests.browser.screenshots [FOLDER]`."""

import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import chromium
from tests.browser.stub import Call, Script, Stub

ANSWER = (
    "**Canberra** is the capital of Australia. It was chosen in 1908 as a compromise between the two largest "
    "cities:\n\n- *Sydney*, the oldest and largest,\n- *Melbourne*, the seat of parliament until 1927."
)


def panel() -> tuple[Call, ...]:
    """Whom the picture shows."""
    return (
        Call(
            expert="maple-small",
            source="maple",
            text="Canberra. It was chosen in 1908 as a compromise between Sydney and Melbourne.",
            probability=0.82,
            weight=0.34,
            seconds=0.71,
            cost_usd=0.00048,
        ),
        Call(
            expert="larch-8b",
            source="alice",
            text="Canberra, in the Australian Capital Territory.",
            weight=0.27,
            seconds=0.93,
            hedges="gorse-9b",
            planned=False,
        ),
        Call(
            expert="atlas",
            source="library",
            text="Parliament moved to Canberra in 1927 (gazetteer.md).",
            probability=0.88,
            weight=0.25,
            seconds=0.22,
            cost_usd=0.0,
        ),
        Call("quince-0.5b", "own", "Canberra.", probability=0.61, weight=0.11, cost_usd=0.00004),
        Call(
            "sorrel-135m", "own", "Sydney.", probability=0.34, weight=0.03, answer="sydney", cost_usd=0.00001
        ),
    )


def shoot(folder: Path) -> None:
    """Writes `dashboard-ask.png`, light, 1280 by 800."""
    stub = Stub()
    stub.calls = panel()
    hold = threading.Event()
    stub.scripts[""] = Script(panel(), answer=ANSWER, hold=hold)
    stub.start()
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium(), chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(stub.url)
        page.get_by_text("experts up").wait_for()
        page.get_by_label("Your question").fill("What is the capital of Australia, and why?")
        page.keyboard.press("Enter")
        page.wait_for_timeout(950)  # as long as the slowest of the panel says it took
        hold.set()
        page.locator(".prose.whole").wait_for()
        page.wait_for_timeout(600)  # meters move
        page.screenshot(path=folder / "dashboard-ask.png")
        browser.close()
    stub.close()


if __name__ == "__main__":
    shoot(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "docs/images")
