"""An expert is added to a real node, and probed while one watches; then paused, resumed and removed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import faults
from tests.browser.test_node import page, show
from tests.cli.test_probe import FIRST, configure, learnt
from tests.e2e.node import served
from tests.e2e.test_administering import scripted

__all__ = ["learnt", "page"]


@pytest.mark.timeout(300)
def test_an_expert_is_added_and_probed_while_one_watches(learnt: Path, page: Any, tmp_path: Path) -> None:
    configure(tmp_path, learnt / "toy", *FIRST)
    shutil.copytree(learnt / "home", tmp_path / "home")
    with scripted("tiny") as model, served(tmp_path, tier="none") as node:
        model.holds = True
        show(page, node, "experts")
        page.get_by_role("button", name="Add an expert").click()
        page.get_by_label("Address").fill(model.url)
        page.get_by_label("Name", exact=True).fill("newcomer")
        page.keyboard.press("Enter")
        page.locator("progress").wait_for()
        model.answers.release(5)
        page.locator("progress[value='5']").wait_for()
        model.holds = False
        model.answers.release(1000)
        page.get_by_text("newcomer was added and probed.").wait_for()
        assert faults(page) == []
        row = page.locator("tr").filter(has_text="newcomer").first
        row.wait_for()
        row.get_by_role("button", name="Pause newcomer").click()
        page.get_by_text("newcomer is paused: nobody asks it until it is resumed.").wait_for()
        page.get_by_role("button", name="Resume newcomer").click()
        page.get_by_text("newcomer is asked again.").wait_for()
        page.get_by_role("button", name="Remove newcomer").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        page.get_by_text("newcomer was withdrawn").first.wait_for()
