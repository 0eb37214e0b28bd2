"""`manyminds experts tree` as a person calls it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from tests.experts.test_recorded import answer, model, question, write_set
from tests.pulled import ENCODER, lend, need

ASKED = {
    "law": "Which court hears the appeal of a tenant in case {}?",
    "chemistry": "Which acid dissolves {} grams of copper?",
}


def browse(*words: str) -> Result:
    return CliRunner().invoke(main, ["experts", "tree", *words])


def filled(folder: Path) -> None:
    """Forty questions of each field, and an expert for each; a third is right seldom."""
    folder.mkdir(parents=True)
    questions, answers = [], []
    for field, text in ASKED.items():
        for i in range(40):
            name = f"{field}{i}"
            questions.append(question(name, prompt=text.format(i), category=field, split="calibration"))
            for expert, share in (("lawyer", 9 * (field == "law")), ("chemist", 9 * (field != "law"))):
                answers.append(answer(name, expert, correct=float(i % 10 < share)))
            answers.append(answer(name, "parrot", correct=float(i % 10 < 1)))
    write_set(folder, questions, answers, [model(name) for name in ("lawyer", "chemist", "parrot")])


@pytest.fixture
def folder(here: Path) -> Path:
    """With a set, and a home with the encoder."""
    need(ENCODER)
    lend(here / "home", ENCODER)
    filled(here / "toy")
    return here


def test_each_expert_is_on_the_shelves_of_what_it_is_good_at(folder: Path) -> None:
    found = json.loads(browse("toy", "--json").stdout)
    held: dict[str, set[str]] = {}
    for section in found["sections"]:
        for shelf in section["shelves"]:
            for book in shelf["books"]:
                held.setdefault(book["name"], set()).add(section["label"].partition(":")[0])
                for chapter in book["chapters"]:
                    assert all(p["right"] > 0.7 > p["peers"] for p in chapter["paragraphs"])
    assert held == {"lawyer": {"law"}, "chemist": {"chemistry"}}
    assert (found["set"], found["questions"], found["nowhere"]) == ("toy", 80, ["parrot"])


def test_people_see_fields_topics_experts_and_figures(folder: Path) -> None:
    shown = browse("toy")
    lines = shown.stdout.splitlines()
    assert {line.strip() for line in lines} >= {"lawyer", "chemist"}
    assert re.search(r"^      [a-z ]+: \d+% of \d+ \(others \d+%\)$", shown.stdout, flags=re.MULTILINE)
    assert "Better than the others nowhere: parrot." in shown.stderr
    assert browse("toy").stdout == shown.stdout
    assert len(browse("toy", "--all").stdout) >= len(shown.stdout)


def test_without_a_folder_it_is_the_set_that_was_learnt_from(folder: Path) -> None:
    filled(folder / "benchmarks" / "local")  # of which what came with manyminds was made
    found = json.loads(browse("--json").stdout)
    assert (found["set"], found["questions"]) == (str(Path("benchmarks/local")), 80)


def test_else_it_is_what_experts_say_of_themselves(folder: Path) -> None:
    (folder / "manyminds.toml").write_text(
        '[local]\ntier = "none"\n[[expert]]\nname = "cook"\nkind = "openai"\nurl = "http://127.0.0.1:9"\n'
        'skills = ["baking bread", "cooking soup"]\n'
    )
    found = json.loads(browse("--json").stdout)
    chapters = [
        chapter["label"]
        for section in found["sections"]
        for shelf in section["shelves"]
        for book in shelf["books"]
        for chapter in book["chapters"]
    ]
    assert found["set"] is None
    assert set(" ".join(chapters).split()) <= {"baking", "bread", "cooking", "soup"}
    assert len(chapters) == 2


def test_without_skills_it_says_what_to_give(folder: Path) -> None:
    (folder / "manyminds.toml").write_text('[local]\ntier = "none"\n')
    shown = browse()
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "set `skills`, or give the folder of a set" in shown.stderr


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield prefix + key
            yield from keys(inner, f"{prefix}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, prefix)


def test_every_key_that_is_printed_is_documented(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
    table = page.partition("| `experts tree --json` | |")[2].partition("\n\n")[0]
    told = {
        key.rpartition(".")[2]
        for key in re.findall(r"`([\w.]+)`", "".join(re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)))
    }
    assert told == {key.rpartition(".")[2] for key in keys(json.loads(browse("toy", "--json").stdout))}
