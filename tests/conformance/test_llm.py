"""Case 39: the command `llm`, as its users run it."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.edge import MODES, Mode
from tests.conformance.upstream import Part, Upstream, calls, says, speaks
from tests.e2e.node import Served

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm") is None, reason="the command `llm` is not installed, see [dev]"
)

PIECES = ("Cats", " purr", " \N{CAT FACE}.")
WHOLE = "".join(PIECES)

EITHER = pytest.mark.parametrize(  # a run takes two seconds, and `test_tools` has streams and modes crossed
    ("mode", "options"),
    [("fan_out", []), ("pass_through", ["--no-stream"])],
    ids=["fan_out-stream", "pass_through-whole"],
    indirect=["mode"],
)


@pytest.fixture(scope="module")
def home(node: Served, folder: Path) -> Path:
    """Where `llm` finds the node's models."""
    models = [
        f"- model_id: {name}\n  model_name: {mode.model}\n  api_base: {node.url}\n"
        "  supports_tools: true\n  supports_schema: true\n  vision: true\n"
        for name, mode in MODES.items()
    ]
    found = folder / "llm"
    found.mkdir()
    (found / "extra-openai-models.yaml").write_text("".join(models))
    return found


def llm(home: Path, mode: Mode, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = os.environ | {"LLM_USER_PATH": str(home), "OPENAI_API_KEY": "any"}
    command = [sys.executable, "-m", "llm", "-m", mode.name, *arguments, "Why do cats purr?"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, cwd=home)


@pytest.mark.parametrize("options", [[], ["--no-stream"]], ids=["stream", "whole"])
def test_39_an_answer_with_its_usage(home: Path, upstream: Upstream, mode: Mode, options: list[str]) -> None:
    upstream.play(says(*PIECES))
    done = llm(home, mode, "-u", *options)
    assert (done.returncode, done.stdout) == (0, f"{WHOLE}\n"), done.stderr
    assert "11 input, 7 output" in done.stderr


@EITHER
def test_39_a_schema(home: Path, upstream: Upstream, mode: Mode, options: list[str]) -> None:
    upstream.play(says('{"name": "Tom",', ' "lives": 9}'))
    done = llm(home, mode, "--schema", "name, lives int", *options)
    assert json.loads(done.stdout) == {"name": "Tom", "lives": 9}, done.stderr
    kinds = {asked.body["response_format"]["type"] for asked in upstream.asked}
    assert kinds == {"json_schema"}


@EITHER
def test_39_functions(home: Path, upstream: Upstream, mode: Mode, options: list[str]) -> None:
    (call,) = calls("a", ("weather", '{"city": "Bern"}'))
    deltas = [{"tool_calls": [{"index": 0} | call | {"function": {"name": "weather", "arguments": ""}}]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": p}}]} for p in ('{"city": ', '"Bern"}')]
    calling = speaks(deltas, {"tool_calls": [call]}, finish="tool_calls")

    def play(body: dict[str, Any]) -> Sequence[Part]:
        answered = body["messages"][-1]["role"] == "tool"
        return says("Warm, I hear.")(body) if answered else calling(body)

    upstream.play(play)
    code = "def weather(city: str) -> str:\n    return f'warm in {city}'"
    done = llm(home, mode, "--functions", code, *options)
    assert (done.returncode, done.stdout.strip()) == (0, "Warm, I hear."), done.stderr
    result = upstream.asked[-1].body["messages"][-1]
    assert (result["tool_call_id"], result["content"]) == (call["id"], "warm in Bern")


def test_39_an_error_is_told(home: Path, upstream: Upstream, mode: Mode) -> None:
    upstream.play(says("never"))
    done = llm(home, mode, "-o", "temperature", "2", "-o", "top_p", "1", "-o", "seed", str(2**63))
    assert done.returncode == 1
    assert "seed" in done.stderr
    assert upstream.asked == []
