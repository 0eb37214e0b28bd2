"""The page on a real node, with real models."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Complaints, faults, watched
from tests.browser.test_ask import answered, ask
from tests.e2e.node import Served, need, served

QUESTION = "What is the capital of France? A) Paris B) Rome C) Berlin D) Madrid. Answer with one letter."


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    need()
    with served(tmp_path_factory.mktemp("real"), untaught=True) as running:
        yield running


@pytest.mark.timeout(300)
def test_a_real_panel_answers_and_then_the_node_dies(
    node: Served, browser: Any, complaints: Complaints
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = watched(context.new_page(), complaints)
    page.set_default_timeout(100_000)
    page.goto(node.url.removesuffix("/v1") + "/")
    page.locator("#status[data-tone=ok]").wait_for()
    page.get_by_label("Policy").select_option("max")
    ask(page, QUESTION)
    answer = answered(page).inner_text()
    assert "Owed to" in answer
    assert "Agreement" in answer
    lanes = page.locator(".lane").all_inner_texts()
    assert len(lanes) >= 2
    assert all("done" in lane for lane in lanes)
    page.get_by_role("button", name="Right", exact=True).click()
    page.get_by_text("Graded right").wait_for()
    assert faults(page) == []
    assert complaints.left() == []
    complaints.allowed = ["ERR_"]
    os.kill(node.pid, signal.SIGKILL)
    page.locator("#banner").filter(has_text="The node does not answer.").wait_for()
    context.close()
    assert complaints.left() == []


def test_the_files_of_the_page_are_few_and_small() -> None:
    static = Path(__file__).resolve().parents[2] / "src/manyminds/web/static"
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in static.iterdir()}
    assert {name: n for name, n in lines.items() if n >= 400} == {}
    assert sum(file.stat().st_size for file in static.iterdir()) < 300_000
