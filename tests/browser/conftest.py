"""A real browser on the page. Whatever it complains about fails the test."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser.stub import Stub

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

WHERE = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
IMPACTS = ("serious", "critical")


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, WHERE)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of one module: while it is there, its event loop runs, and nobody else can run one in this thread."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: on Debian, apt install chromium")
    with playwright.sync_playwright() as player:
        sandboxed = os.geteuid() != 0  # Chromium's own sandbox refuses to be root's
        found = player.chromium.launch(executable_path=path, chromium_sandbox=sandboxed)
        yield found
        found.close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    double = Stub()
    double.start()
    yield double
    double.close()


@dataclass
class Complaints:
    """What the browser says of the page. `allowed`: parts of messages that a test expects."""

    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def left(self) -> list[str]:
        return [text for text in self.said if not any(part in text for part in self.allowed)]


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def page(browser: Any, complaints: Complaints, stub: Stub) -> Iterator[Any]:
    """A page of the stub that is not open yet: `opened` goes there."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=stub.url)
    context.set_default_timeout(15_000)
    yield watched(context.new_page(), complaints)
    context.close()
    assert complaints.left() == []


def watched(page: Any, complaints: Complaints) -> Any:
    """Notes errors of the console, exceptions and violations of the policy; and every request."""

    def heard(said: Any) -> None:
        if said.type in ("error", "warning"):
            complaints.said.append(said.text)

    def asked(dialog: Any) -> None:
        complaints.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", heard)
    page.on("dialog", asked)
    page.on("pageerror", lambda error: complaints.said.append(f"pageerror: {error}"))
    page.on("request", lambda request: complaints.requests.append(request.url))
    return page


def faults(page: Any) -> list[str]:
    """Serious faults that axe finds in what the page shows now, in light and in dark."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    page.evaluate(script.read_text(encoding="utf-8") + "\n;0")
    found = []
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        result = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        for fault in result["violations"]:
            if fault["impact"] in IMPACTS:
                where = [f"{node['target']}: {node['failureSummary'][:300]}" for node in fault["nodes"][:4]]
                found.append(f"{theme} {fault['id']}: {where}")
    page.evaluate("() => { document.documentElement.dataset.theme = 'system' }")
    return found
