"""What comes with manyminds, at work with the real models of the full tier: an easy question, a hard one."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.node import Served, need, served

SMALL, LARGE = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    need("full")
    with served(tmp_path_factory.mktemp("full"), "--tier", "full", tier="full") as running:
        yield running


def ask(node: Served, question: str, model: str) -> tuple[str, list[Any]]:
    """The answer, and who was asked for it."""
    with openai.OpenAI(base_url=node.url, api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0
        )
    return str(reply.choices[0].message.content), reply.model_extra["manyminds"]["panel"]  # type: ignore[index]


def base(entry: Any) -> str:
    """The model, in whatever way it was asked."""
    return str(entry["expert"]).partition(":")[0]


def test_an_easy_question_is_answered_by_a_small_model_alone(node: Served) -> None:
    answer, panel = ask(node, "What is 17 + 26?", "cheap")
    assert "43" in answer
    assert [base(entry) for entry in panel] == [SMALL]


def test_a_hard_question_escalates(node: Served) -> None:
    answer, panel = ask(node, "What is 87 * 93? Answer with just the number.", "cheap")
    assert "8091" in answer
    assert [(base(entry), entry["stage"]) for entry in panel] == [(SMALL, 0), (LARGE, 1)]


@pytest.mark.parametrize("policy", ["auto", "max", "cheap", "fast"])
def test_every_policy_answers(node: Served, policy: str) -> None:
    answer, panel = ask(node, "What is 12 + 30? Answer with just the number.", policy)
    assert "42" in answer
    assert all(entry["status"] in ("ok", "cancelled") for entry in panel)
