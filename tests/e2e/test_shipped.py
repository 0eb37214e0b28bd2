"""The network as it comes: the artefact of the package and real models of the full tier."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.node import Served, need, served

SMALL, LARGE = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    need("full")
    with served(tmp_path_factory.mktemp("shipped"), "--tier", "full", tier="full") as running:
        yield running


def ask(node: Served, question: str, policy: str) -> tuple[str, list[dict[str, Any]]]:
    """The answer, and of each member of the panel that was asked what the reply says."""
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": question}],
        "manyminds": {"policy": policy, "deadline_s": 100},
    }
    request = urllib.request.Request(
        f"{node.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=110) as response:
        reply = json.load(response)
    panel = [entry for entry in reply["manyminds"]["panel"] if entry["status"] == "ok"]
    return reply["choices"][0]["message"]["content"], panel


def bases(panel: list[dict[str, Any]]) -> list[str]:
    """Models, in the order of their stages."""
    return [entry["expert"].rpartition(":")[0] for entry in sorted(panel, key=lambda entry: entry["stage"])]
