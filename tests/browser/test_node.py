"""Every view on a real node: with two hundred experts, and with none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Complaints, faults, watched
from tests.browser.test_ask import answered, ask
from tests.browser.views.test_views_all import NOTHING, VIEWS
from tests.e2e.node import Served, need, served
from tests.e2e.test_administering import Scripted, scripted

EVIL = (
    "<script>window.harmed = 1</script><img src='http://203.0.113.1/x' onerror='window.harmed = 1'>"
    " **bold** [click](javascript:window.harmed=1) <iframe src='http://203.0.113.1/'></iframe>"
    " <svg onload='window.harmed = 1'></svg> <style>body { display: none }</style>"
)
EXPERTS = [f"e{number:03}" for number in range(200)]


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with scripted("evil", *EXPERTS) as made:
        made.texts = {"evil": EVIL}
        yield made


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, server: Scripted) -> Iterator[Served]:
    need()
    folder = tmp_path_factory.mktemp("crowd")
    entry = '[[expert]]\nname = "{0}"\nurl = "{1}"\nmodel = "{0}"\naccuracy = 0.8\n'
    names = ("evil", *EXPERTS)
    (folder / "manyminds.toml").write_text("".join(entry.format(name, server.url) for name in names))
    with served(folder, "--tier", "none", untaught=True) as node:
        yield node


@pytest.fixture
def page(browser: Any, complaints: Complaints) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield watched(context.new_page(), complaints)
    context.close()
    assert complaints.left() == []


def show(page: Any, node: Served, view: str) -> Any:
    page.goto(f"{node.url.removesuffix('/v1')}/#/{view}")
    if view != "ask":
        page.locator(f'main[data-view="{view}"] .body[aria-busy="false"]').first.wait_for(state="attached")
    return page


def include(page: Any, *names: str) -> None:
    page.locator(".chooser summary").click()
    for name in names:
        page.get_by_label("Filter experts").fill(name)
        page.get_by_role("button", name=f"Include {name}").click()
    page.locator(".chooser summary").click()


def lanes(page: Any) -> list[str]:
    """Names of those on the last panel."""
    return [
        " ".join(text.split()) for text in page.locator(".panel").last.locator(".lane b").all_inner_texts()
    ]


@pytest.mark.timeout(300)
def test_whom_one_asks_excludes_and_asks_again(page: Any, crowd: Served) -> None:
    show(page, crowd, "ask")
    include(page, "e007", "e150")
    page.get_by_label("Policy").select_option("max")
    ask(page, "Which of these is an animal?\nA) chair\nB) dog")
    answered(page)
    assert sorted(lanes(page)) == ["e007", "e150"]
    assert all("done" in lane for lane in page.locator(".lane").all_inner_texts())
    page.get_by_role("button", name="Adjust").click()
    page.get_by_role("button", name="Exclude e007").last.click()
    page.get_by_role("button", name="Ask again").click()
    page.locator(".turn").nth(1).wait_for()
    answered(page, 1)
    assert lanes(page) == ["e150"]
    assert faults(page) == []


@pytest.mark.timeout(300)
def test_an_answer_full_of_script_does_nothing(page: Any, crowd: Served, complaints: Complaints) -> None:
    show(page, crowd, "ask")
    include(page, "evil")
    ask(page, "Say something.")
    answer = answered(page)
    answer.locator(".prose strong", has_text="bold").wait_for()
    assert page.evaluate("() => window.harmed") is None
    assert page.locator("main script, main img, main iframe, main style, .prose svg").count() == 0
    assert page.locator(".prose a[href^='javascript']").count() == 0
    own = crowd.url.removesuffix("/v1")
    assert {url for url in complaints.requests if not url.startswith((own, "data:"))} == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_shows_two_hundred_experts(page: Any, crowd: Served, view: str) -> None:
    wish = {"cache": "off", "include": ["e001"]}
    body = {"model": "auto", "messages": [{"role": "user", "content": f"{view}?"}], "manyminds": wish}
    reply = page.request.post(f"{crowd.url}/chat/completions", data=body)
    assert reply.status == 200
    show(page, crowd, view)
    told = page.locator("main").inner_text()
    assert page.get_by_role("alert").count() == 0
    if view == "experts":
        assert page.locator("main table tbody").first.locator("> tr").count() == 201
    elif view in ("frontier", "ledger"):
        page.get_by_text("e001").first.wait_for()
    elif view == "library":
        assert "201 experts" in told
        assert page.locator(".tile").count() > 0
    else:
        assert NOTHING[view] in told  # it has joined no network
    assert faults(page) == []


@pytest.mark.timeout(300)
def test_a_node_without_experts_says_so_in_every_view(
    page: Any, tmp_path: Path, complaints: Complaints
) -> None:
    need()
    with served(tmp_path, "--tier", "none", untaught=True) as node:
        for view in VIEWS:
            show(page, node, view)
            assert NOTHING[view] in page.locator("main").inner_text()
            assert faults(page) == []
        show(page, node, "ask")
        complaints.allowed = ["status of 503"]
        ask(page, "Is anybody there?")
        page.get_by_text("This network has no expert").first.wait_for()
