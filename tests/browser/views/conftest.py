"""The views' own double of a node, and a page that shows one of them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.views import figures
from tests.browser.views.stub import Node


@pytest.fixture
def stub() -> Iterator[Node]:
    node = Node()
    node.admin |= figures.everything()
    node.start()
    yield node
    node.close()


@pytest.fixture
def view(page: Any, stub: Node) -> Callable[[str], Any]:
    """Shows a view, and waits until it has said what the node told it."""

    def shown(name: str) -> Any:
        page.goto(f"/#/{name}")
        page.locator('main[data-view="' + name + '"] .body[aria-busy="false"]').first.wait_for(
            state="attached"
        )
        return page

    return shown
