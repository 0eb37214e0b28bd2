"""What the pages for people who begin show, where no node is needed: tests/e2e/test_pages.py follows them."""

import ast
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from manyminds import config
from manyminds.attribution import divergences
from manyminds.cli.discover import PORTS, keys
from manyminds.combine.ballot import Voice, poll, unnamed
from manyminds.config import Config
from manyminds.types import Answer, Posterior
from manyminds.wire import parse_request
from tests.test_docs import DOCS, blocks, relative, text

PAGES = [DOCS / "start.md", *sorted((DOCS / "howto").glob("*.md"))]
EXAMPLES = [(page, i, block) for page in PAGES for i, block in enumerate(blocks(text(page), "toml"))]
BODIES = [(page, i, block) for page in PAGES for i, block in enumerate(blocks(text(page), "json"))]


def named(value: Any) -> str:
    return relative(value) if isinstance(value, Path) else str(value) if isinstance(value, int) else ""


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_blocks_are_of_kinds_that_are_tested(page: Path) -> None:
    """`text` is what a program prints."""
    kinds = re.findall(r"^```(\w*)\n.*?^```", text(page), flags=re.DOTALL | re.MULTILINE)
    assert kinds
    assert set(kinds) <= {"json", "python", "sh", "text", "toml"}
    lines = [line for block in blocks(text(page), "sh") for line in block.splitlines()]
    assert {shlex.split(line, comments=True)[0] for line in lines} <= {"curl", "export", "make", "manyminds"}
    for block in blocks(text(page), "python"):
        ast.parse(block)


@pytest.mark.parametrize(("page", "nth", "block"), EXAMPLES, ids=named)
def test_configurations_load(tmp_path: Path, page: Path, nth: int, block: str) -> None:
    file = tmp_path / "manyminds.toml"
    file.write_text(block, encoding="utf-8")
    loaded = config.load(file, {"MANYMINDS_HOME": str(tmp_path)}, {})
    assert [entry.name for entry in loaded.experts] == re.findall(
        r'^\[\[expert\]\]\nname = "(.*)"$', block, flags=re.MULTILINE
    )
    for word in re.findall(r'^(?:source|model) = "(.*?)"', block, flags=re.MULTILINE):
        assert word in {shown for entry in loaded.experts for shown in (entry.source, entry.model)}


@pytest.mark.parametrize(("page", "nth", "block"), BODIES, ids=named)
def test_requests_parse(page: Path, nth: int, block: str) -> None:
    assert parse_request(block.encode()).model in {"auto", "bergen", "cheap"}


def test_the_documented_request_of_curl_parses() -> None:
    (line,) = [line for line in blocks(text(DOCS / "start.md"), "sh") if line.startswith("curl")]
    words = shlex.split(line)
    assert parse_request(words[words.index("--json") + 1].encode()).model == "auto"


def test_keys_are_of_the_providers_whose_they_are(tmp_path: Path) -> None:
    (example,) = blocks(text(DOCS / "howto/keys.md"), "toml")
    file = tmp_path / "manyminds.toml"
    file.write_text(example, encoding="utf-8")
    shown = {e.key_env: e.url for e in config.load(file, {"MANYMINDS_HOME": str(tmp_path)}, {}).experts}
    assert shown == keys(Config(home=tmp_path), dict.fromkeys(shown, "set"))


def test_usual_ports_are_those_that_are_looked_at() -> None:
    rows = re.findall(r"^\| (.+) \| `http://127\.0\.0\.1:(\d+)/v1` \|$", text(DOCS / "howto/ollama.md"), re.M)
    assert {int(port): name for name, port in rows} == dict(PORTS)


def test_the_picture_of_attribution_shows_what_is_computed() -> None:
    drawn = text(DOCS / "images/attribution.svg")
    cast = [("ann", "B", 0.8), ("bob", "B", 0.7), ("cem", "A", 0.6)]
    for name, _, right in cast[1:]:
        assert f"{name} ({100 * right:.0f}%)" in drawn
    voices = [Voice(name, said, math.log(3 * p / (1 - p)), name) for name, said, p in cast]
    answers = [Answer(name, name, "ok") for name, _, _ in cast]

    def count(kept: Any) -> tuple[list[str | None], Posterior]:
        heard = [voices[i] for i in kept]
        return [voice.candidate for voice in heard], poll(heard, unnamed(heard, 4))

    moved = divergences(answers, count([0, 1, 2]), count)
    shown = re.findall(r'class="free">([\d.]+)</text>', drawn)
    assert shown == [f"{nats:.2f}" for nats in moved.values()]
    shares = re.findall(r">(\d+)%</text>", drawn)
    assert shares == [f"{100 * nats / sum(moved.values()):.0f}" for nats in moved.values()]
    without = [[i for i in range(3) if i != left] for left in (None, 0, 1, 2)]
    probabilities = [dict(zip(p.candidates, p.probabilities, strict=True)) for _, p in map(count, without)]
    assert re.findall(r">B ([\d.]+)</text>", drawn) == [f"{found['B']:.2f}" for found in probabilities]
