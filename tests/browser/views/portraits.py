"""Pictures of the views for the documentation: `python -m tests.browser.views.portraits docs/images`."""

import io
import sys
from pathlib import Path

from PIL import Image

from tests.browser.conftest import chromium
from tests.browser.views import figures
from tests.browser.views.stub import Node

_SIZE = (1280, 860)
_COLOURS = 224  # of a picture, which keeps it small
_HEIGHTS = {"library": 980, "frontier": 760, "network": 900}


def main(folder: str) -> None:
    from playwright.sync_api import sync_playwright

    node = Node()
    node.admin |= figures.everything(12)
    node.start()
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium())
        page = browser.new_page(viewport={"width": _SIZE[0], "height": _SIZE[1]}, base_url=node.url)
        for name in ("experts", "library", "frontier", "network", "ledger"):
            page.set_viewport_size({"width": _SIZE[0], "height": _HEIGHTS.get(name, _SIZE[1])})
            page.goto(f"/#/{name}")
            page.locator(f'main[data-view="{name}"] .body[aria-busy="false"]').wait_for(state="attached")
            node.tell(figures.traffic())
            page.get_by_text("10 of 12 experts up").wait_for()
            if name == "experts":
                page.locator(".opener").nth(1).click()
                page.get_by_text("Right by section").wait_for()
                page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0) }")
            if name == "library":
                page.get_by_role("button", name="mathematics, 19 books").click()
                page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0) }")
            page.mouse.move(1, 1)
            page.wait_for_function("() => document.getAnimations().length === 0")
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            small = picture.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            small.save(Path(folder) / f"dashboard-{name}.png", optimize=True)
        browser.close()
    node.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
