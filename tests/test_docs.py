"""What the documents promise: commands that exist, keys and fields that are all there, current text."""

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import msgspec
import pytest
from click.testing import CliRunner

from manyminds import config
from manyminds.cli import main
from manyminds.cli.administer import Administering
from manyminds.cli.service import admin_edge
from manyminds.node.observed import Observed
from manyminds.node.overview import Overview
from manyminds.ratings import Rating, Section
from manyminds.router.policy import POLICIES
from manyminds.types import (
    Attribution,
    Citation,
    Conflict,
    Granted,
    Key,
    Limits,
    PanelEntry,
    Privacy,
    Report,
    Search,
)
from manyminds.web.app import App, Edge
from manyminds.web.overviews import overview_schemas
from manyminds.web.pages import pages
from tests.network import network

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- commands --------------------------------------------------------------------------------------


def commands(page: str) -> list[list[str]]:
    """What a page tells to type: lines of shell blocks, and code in a sentence."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    spans = re.findall(r"(?<!`)`((?:make|manyminds) [^`]+)`", re.sub(r"(?s)```.*?```", "", page))
    found = [shlex.split(line, comments=True) for line in (*lines, *spans)]
    return [words for words in found if words and words[0] in ("make", "manyminds")]


COMMANDS = sorted({tuple(words) for page in PAGES for words in commands(text(page))})


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "make"], ids=" ".join)
def test_documented_make_targets_exist(words: tuple[str, ...]) -> None:
    dry = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "manyminds"], ids=" ".join)
def test_documented_commands_exist(words: tuple[str, ...]) -> None:
    command: click.Command = main
    context = click.Context(main, info_name="manyminds")
    path, rest = [], list(words[1:])
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no command {' '.join(words[:2])}"
        path.append(rest.pop(0))
        command, context = found, click.Context(found, parent=context, info_name=path[-1])
    assert CliRunner().invoke(main, [*path, "--help"]).exit_code == 0
    command.make_parser(context).parse_args(rest)  # an unknown option raises


def test_the_readme_names_the_two_commands() -> None:
    typed = [words[:2] for words in commands(text(README))]
    assert ["make", "ask"] in typed
    assert ["make", "test"] in typed


def test_every_make_target_is_listed_by_help() -> None:
    phony = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[0].split()
    assert re.findall(r"^([a-z-]+):.*## ", MAKEFILE, flags=re.MULTILINE) == phony


def test_ci_runs_the_documented_targets() -> None:
    assert "make check test" in text(ROOT / ".ci/run")
    assert re.search(r"^check: lint test ", MAKEFILE, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["cli.md", "configuration.md", "api.md"])
def test_generated_parts_are_current(name: str) -> None:
    command = [sys.executable, "-m", "cogapp", "-P", "--check", "--diff", str(DOCS / name)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, f"run `make docs` and commit what it changes\n{checked.stdout}"
    assert "[[[cog" in text(DOCS / name)


# --- configuration ---------------------------------------------------------------------------------


def test_every_configuration_key_is_documented() -> None:
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| .* \| (.*) \|$", text(DOCS / "configuration.md"), flags=re.MULTILINE
    )
    assert dict(rows) == {key: schema["description"] for key, schema in config.reference().items()}


def test_the_documented_configuration_loads(tmp_path: Path) -> None:
    [example] = blocks(text(DOCS / "configuration.md"), "toml")
    file = tmp_path / "manyminds.toml"
    file.write_text(example, encoding="utf-8")
    loaded = config.load(file, {"MANYMINDS_HOME": str(tmp_path)}, {})
    assert [entry.name for entry in loaded.experts] == ["fast-coder", "house-model"]
    assert loaded.experts[1].path == str(tmp_path / "models/house.gguf")
    shown = {key for key, origin in loaded.origins.items() if origin.startswith("file")}
    assert {key.partition(".")[0] for key in shown} == {
        *("server", "local", "policy", "ledger", "aliases", "expert")
    }


# --- the API ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "noun", "nth"),
    [
        ("manyminds.", Limits, 0),
        ("manyminds.", Report, 1),
        ("panel[].", PanelEntry, 0),
        ("search.", Search, 0),
        ("granted[].", Granted, 0),
        ("privacy.", Privacy, 0),
        ("attribution[].", Attribution, 0),
        ("citations[].", Citation, 0),
        ("conflicts[].", Conflict, 0),
    ],
    ids=[
        *("request", "reply", "panel", "search", "granted", "privacy", "attribution", "citations"),
        "conflicts",
    ],
)
def test_every_field_is_documented(prefix: str, noun: type[msgspec.Struct], nth: int) -> None:
    tables = text(DOCS / "api.md").split(f"| `{prefix}` |")[1:]
    rows = re.findall(r"^\| `(\w+)` \|", tables[nth].partition("\n\n")[0], flags=re.MULTILINE)
    assert rows == list(noun.__struct_fields__)


def test_every_figure_of_a_rating_is_documented() -> None:
    table = text(DOCS / "api.md").split("| `ratings.week.` |")[1].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*`) \|", table, flags=re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(Rating.__struct_fields__)
    assert all(f"`{name}`" in table for name in Section.__struct_fields__)


def test_every_endpoint_is_documented() -> None:
    async def figures() -> bytes:
        return b""

    async def grade(request_id: str, key: Key | None, correct: float) -> bool:
        return True

    edge = Edge(network(), POLICIES, list, lambda: True, 1, metrics=figures, grade=grade, pages=pages())
    nobody, config = cast(Any, None), cast(Any, None)  # who is wired, and does nothing here
    overview, administering = Overview(nobody, Observed()), Administering(nobody, config, 0)
    edge = dataclasses.replace(edge, admin=admin_edge(overview, administering, tls=False))
    served = {f"{method} {path}" for method, path in App(edge).routes}
    rows = re.findall(r"^\| `((?:GET|POST) \S+)` \|", text(DOCS / "api.md"), flags=re.MULTILINE)
    assert set(rows) == served


OVERVIEWS = ("Experts", "Library", "Frontier", "Network", "Ledger", "Event")


@pytest.mark.parametrize("name", [*OVERVIEWS, "PauseRequest", "Pause", "AddRequest", "Add", "Remove"])
def test_every_field_of_an_overview_is_documented(name: str) -> None:
    section = text(DOCS / "api.md").partition("## Administration")[2].partition("\n## ")[0]
    said = set(re.findall(r"`(\w+)`", section)) | {"object", "data"}
    assert set(fields(overview_schemas()[f"Admin{name}"])) <= said


def fields(schema: Any) -> Iterator[str]:
    """Names of all properties in a schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        schema = list(schema.values())
    for inner in schema if isinstance(schema, list) else ():
        yield from fields(inner)


def test_documented_json_parses() -> None:
    examples = [block for page in PAGES for block in blocks(text(page), "json")]
    assert examples
    for example in examples:
        assert msgspec.json.decode(example)


# --- the pages -------------------------------------------------------------------------------------


def test_readme_is_short_and_changelog_lines_are() -> None:
    assert len(text(README).split()) <= 600
    changelog = text(ROOT / "CHANGELOG.md")
    lines = [line for line in changelog.splitlines() if line.startswith("- ")]
    assert lines
    assert [line for line in lines if len(line.split()) - 1 > 25] == []
    assert not re.search(r"^[ \t]+\S", changelog, flags=re.MULTILINE), "one line for each change"


def test_the_readme_shows_the_tree() -> None:
    tree = blocks(text(README), "text")[-1]
    named = set(re.findall(r"^  (\w+(?:/|\.py)) ", tree, flags=re.MULTILINE))
    package = ROOT / "src/manyminds"
    there = {f"{p.name}/" if p.is_dir() else p.name for p in package.iterdir() if not p.name.startswith("_")}
    assert named == there - {"py.typed"}


def test_the_life_of_a_request_has_eight_lines() -> None:
    page = text(DOCS / "lifecycle.md")
    lines = re.findall(r"^(\d)\. (.*)$", page, flags=re.MULTILINE)
    assert [number for number, _ in lines] == list("12345678")
    for _, line in lines:
        paths = re.findall(r"`([a-z_/]+(?:\.py|/))`", line)
        assert paths
        assert [path for path in paths if not (ROOT / "src/manyminds" / path).exists()] == []


def test_every_policy_has_a_page() -> None:
    assert {page.stem for page in (DOCS / "policies").glob("*.md")} == set(POLICIES)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    assert text(page).startswith("# ")
    links = re.findall(r"\]\(([^)#\s]+)\)", text(page))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
