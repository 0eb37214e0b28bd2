"""What was learnt, at work: in a gateway, and in the real process with recorded experts."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from manyminds.artefact import Artefact, save
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.errors import UnavailableError
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout import Patience
from manyminds.gateway import Gateway, Parts
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.types import Card, Limits, Message, Query, Report
from tests.clock import run
from tests.e2e.node import Served, borrowed, served
from tests.experts.test_recorded import answer, model, question, write_set
from tests.learn.worlds import hand_made
from tests.network import Records, scripted, words

CHOICE = "Which is a metal?\nA) wood\nB) iron\nC) glass\nD) wool"
COST = {"a": 0.001, "b": 0.1, "c": 0.002}


def learnt(*stages: Sequence[str], threshold: float = 1.0, **fields: Any) -> Artefact:
    """Of three experts, whose every policy follows the one plan."""
    choice = dict.fromkeys(("auto", "cheap", "fast", "max"), 3)
    return hand_made({"a": 0.75, "b": 0.9, "c": 0.7}, [(stages, threshold)], choice, cost_usd=COST, **fields)


# --- in a gateway ------------------------------------------------------------------------------------


def network(artefact: Artefact, *experts: Scripted) -> Gateway:
    """As a node builds it."""
    index = Index(27)
    router, vote, race = SkillRouter(index, None, artefact), Vote(artefact), Race()
    for expert in experts:
        router.admit(expert.card)
    parts = Parts(
        experts={expert.card.name: expert for expert in experts},
        index=index,
        router=router,
        combiners={"vote": vote, "select": Select(words), "race": race, "pass": race},
        record=Records().record,
    )
    return Gateway(
        Card("net", "gateway", source="net"), parts, Patience(), Limits(policy="auto", deadline_s=60)
    )


def ask(artefact: Artefact, experts: Mapping[str, Scripted], **limits: Any) -> tuple[str, Report]:
    async def answered() -> tuple[str, Report]:
        query = Query((Message("user", CHOICE),), request_id="r1", limits=Limits(**limits))
        async with aclosing(network(artefact, *experts.values()).stream(query)) as stream:
            chunks = [chunk async for chunk in stream]
        assert chunks[-1].report is not None
        return "".join(chunk.text for chunk in chunks), chunks[-1].report

    return run(answered())


def saying(**texts: str | Script) -> dict[str, Scripted]:
    scripts = {name: text if isinstance(text, Script) else Script(text=text) for name, text in texts.items()}
    return {name: scripted(name, script) for name, script in scripts.items()}


def test_a_vote_weighs_as_learnt_and_says_how_sure_it_is() -> None:
    """`a` and `c` against `b`: odds of 3 and 7/3 against 9, and e^-2 for none of these."""
    text, report = ask(learnt(["a", "b", "c"]), saying(a="B", b="C", c="B"))
    assert text == "C"
    assert report.agreement == pytest.approx(1 / 3)
    assert report.probability == pytest.approx(9 / (9 + 3 * 7 / 3 + 0.1353), abs=1e-3)
    assert {entry.expert: entry.status for entry in report.panel} == dict.fromkeys("abc", "ok")
    assert sum(a.share for a in report.attribution) == pytest.approx(1.0)


def test_nobody_else_is_asked_where_the_first_are_sure() -> None:
    experts = saying(a="B", b="C", c="B) iron")
    text, report = ask(learnt(["a", "c"], ["b"], threshold=0.9), experts)
    assert text.startswith("B")
    assert [experts[name].asked for name in "abc"] == [1, 0, 1]
    assert (report.agreement, report.policy) == (1.0, "auto")
    assert report.probability == pytest.approx(7 / (7 + 0.1353), abs=1e-3)


def test_the_next_is_asked_where_the_first_are_not_sure() -> None:
    experts = saying(a="B", b="C", c="D")
    text, report = ask(learnt(["a", "c"], ["b"], threshold=0.9), experts)
    assert text == "C"
    assert [experts[name].asked for name in "abc"] == [1, 1, 1]
    assert {entry.expert: entry.stage for entry in report.panel} == {"a": 0, "b": 1, "c": 0}


@pytest.mark.parametrize("threshold", [0.01, 0.9, 1.0])
@pytest.mark.parametrize(
    "silent", ["I cannot say.", Script(fail_before=UnavailableError("a is down."))], ids=["abstains", "down"]
)
def test_the_next_is_asked_where_the_first_says_nothing(silent: str | Script, threshold: float) -> None:
    experts = saying(a=silent, b="C", c="D")
    text, _ = ask(learnt(["a"], ["b"], threshold=threshold), experts)
    assert text == "C"
    assert experts["b"].asked == 1


@pytest.mark.parametrize("policy", ["auto", "cheap", "fast", "max"])
def test_who_is_excluded_is_never_asked(policy: str) -> None:
    experts = saying(a="B", b="C", c="D")
    ask(learnt(["a", "b", "c"]), experts, policy=policy, exclude=("b",))
    assert experts["b"].asked == 0


def test_a_topic_of_the_caller_decides_whom_to_trust() -> None:
    topics = {"law": {"a": 3.0, "b": -3.0}, "tax": {"a": -3.0, "b": 3.0}}
    artefact = learnt(["a"], ["b"], threshold=0.9, topics=topics, prices={"auto": 1.0})
    found = {topic: ask(artefact, saying(a="B", b="C", c="D"), topic=topic)[0] for topic in topics}
    assert found == {"law": "B", "tax": "C"}


# --- in the real process -----------------------------------------------------------------------------

QUESTIONS = {"sure": ("Which gas do plants absorb?", "BBA"), "open": ("Which metal rusts?", "BCD")}


def recorded(folder: Path) -> None:
    """A set of two questions and three models, and a configuration that has them as experts."""
    choices = ["wood", "iron", "glass", "wool"]
    write_set(
        folder,
        [question(i, prompt=text, choices=choices, category="law") for i, (text, _) in QUESTIONS.items()],
        [
            answer(i, name, answer=said, cost_usd=COST[name])
            for i, (_, answers) in QUESTIONS.items()
            for name, said in zip("acb", answers, strict=True)
        ],
        [model(name) for name in "abc"],
    )
    experts = (f'[[expert]]\nname = "{n}"\nkind = "recorded"\npath = "."\nmodel = "{n}"\n' for n in "abc")
    (folder / "manyminds.toml").write_text("\n".join(experts))


def home(folder: Path) -> Path:
    found = borrowed(folder)
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learnt")


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[Served]:
    recorded(folder)
    save(learnt(["a", "c"], ["b"], threshold=0.9), home(folder) / "artefact.npz")
    with served(folder, "--tier", "none") as running:
        yield running


def post(node: Served, text: str, **limits: Any) -> tuple[str, Mapping[str, Any]]:
    lines = "\n".join(
        f"{letter}) {choice}"
        for letter, choice in zip("ABCD", ("wood", "iron", "glass", "wool"), strict=True)
    )
    body = {"model": "auto", "messages": [{"role": "user", "content": f"{text}\n{lines}"}]}
    request = urllib.request.Request(
        f"{node.url}/chat/completions",
        json.dumps(body | {"manyminds": limits}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        reply = json.load(response)
    return reply["choices"][0]["message"]["content"], reply["manyminds"]


def test_a_node_uses_what_lies_in_its_home(node: Served) -> None:
    text, report = post(node, QUESTIONS["sure"][0])
    assert text == "B"
    assert {entry["expert"] for entry in report["panel"]} == {"a", "c"}
    assert report["agreement"] == 1.0
    assert report["probability"] == pytest.approx(7 / (7 + 0.1353), abs=1e-3)
    assert report["cost_usd"] == pytest.approx(COST["a"] + COST["c"])
    assert report["saved_usd"] == pytest.approx(COST["b"] - COST["a"] - COST["c"])


def test_a_node_says_what_was_learnt_and_of_whom(node: Served, folder: Path) -> None:
    said = [line for line in (folder / "serve.log").read_text().splitlines() if "learnt from" in line]
    assert len(said) == 1
    assert f"{home(folder)}/artefact.npz: learnt from " in said[0]
    assert said[0].endswith("knows 3 of 3 experts.")


def test_a_node_asks_on_where_the_first_differ(node: Served) -> None:
    text, report = post(node, QUESTIONS["open"][0], topic="law")
    assert text == "D"
    assert {entry["expert"]: entry["stage"] for entry in report["panel"]} == {"a": 0, "b": 1, "c": 0}
    assert report["agreement"] == pytest.approx(1 / 3)
    assert report["cost_usd"] == pytest.approx(sum(COST.values()))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"], ids=["empty", "text", "cut"])
def test_a_damaged_artefact_stops_the_start_in_one_line(tmp_path: Path, content: bytes) -> None:
    recorded(tmp_path)
    (home(tmp_path) / "artefact.npz").write_bytes(content)
    command = [sys.executable, "-m", "manyminds", "serve", "--port", "0", "--tier", "none"]
    environ = os.environ | {"MANYMINDS_HOME": str(home(tmp_path))}
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("manyminds: ")
    assert "artefact.npz" in line
    assert "`manyminds train DIR`" in line
