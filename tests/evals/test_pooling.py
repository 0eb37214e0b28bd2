"""Two owners whose documents need no package, and a few of their questions."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manyminds.encoder import Encoder
from manyminds.evals.knowledge import characters, lay, programming
from manyminds.evals.knowledge.fitting import POOLED
from manyminds.evals.mixing import Panel, mixed
from manyminds.evals.pooling import World, fitted, laid, measure
from manyminds.experts.documents import Documents
from manyminds.experts.scripted import Script, Scripted
from manyminds.types import Card, Query
from tests.pulled import ENCODER, MINILM, need

FEW = 10


def silent(what: str, share: float) -> None:
    pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    need(ENCODER)
    folder = tmp_path_factory.mktemp("world")
    built = lay(folder / "corpora", [of.corpus(folder) for of in (characters, programming)])
    few = []
    for test in (True, False):
        of = [question for question in built.questions if (question.split == "test") == test]
        for owner in built.owners:
            few += [question for question in of if question.corpus == owner][:FEW]
            few += [question for question in of if not question.answerable and question.near == owner][:3]
    made = laid(built._replace(questions=tuple(few)), folder, Encoder(MINILM), silent)
    yield made
    for library in made.libraries.values():
        library.close()


def test_a_network_knows_what_its_owners_know(world: World, tmp_path: Path) -> None:
    def once() -> dict[str, Any]:
        found = asyncio.run(
            measure(world, tmp_path, wordings=1, others=0, models={}, sample=0, seed=0, progress=silent)
        )
        for row in found["systems"].values():  # what differs from run to run
            row.pop("seconds_p50"), row.pop("cpu_s")
        return found

    found = once()
    systems = found["systems"]
    owners = world.built.owners
    assert set(systems) == {*owners, POOLED, "network"}
    assert (
        found["asked"] == found["questions"] == len([q for q in world.built.questions if q.split == "test"])
    )
    alone = [systems[owner]["right"] for owner in owners]
    assert systems["network"]["right"] > max(alone) > 0
    assert systems["network"]["asked_at_all"] == 1
    assert all(systems[owner]["asked_at_all"] == 0.5 for owner in owners)
    for row in systems.values():
        assert row["right"] <= row["answered"] <= 1
        assert row["accuracy_ci95"][0] <= row["accuracy"] <= row["accuracy_ci95"][1]
    assert once() == found


def test_what_judges_passages_can_be_fitted_anew(world: World) -> None:
    found = fitted(world, silent)
    coefficients = found["coefficients"]
    assert 0 < coefficients["threshold"] < 1
    assert set(found["without"]) == set(world.built.owners)
    assert found["router"]["slope"] > 0 > found["router"]["constant"]


def test_models_that_documents_contradict_are_doubted_as_far_as_serves(world: World) -> None:
    known, tested = (
        [(q, q.phrasings[0]) for q in world.built.questions if (q.split == "test") == test and q.answerable]
        for test in (False, True)
    )
    golds = {text: question.golds[0] for question, text in (*known, *tested)}

    def expert(name: str) -> Documents:
        card = Card(name, "documents", accuracy=0.0, offers=frozenset({"citations"}), paragraphs=1)
        return Documents(card, world.libraries[name], world.encoder.encode)

    def knows(query: Query) -> str:
        return f"It is {golds[query.question]}."

    models = {
        name: Scripted(Card(name, "scripted", accuracy=accuracy), Script("It is Zanzibar.", replies=replies))
        for name, accuracy, replies in (("wise", 0.9, knows), ("fool", 0.9, None))
    }
    owners = world.built.owners
    vectors = {owner: world.libraries[owner].profile().vectors for owner in owners}
    panel = Panel({owner: expert(owner) for owner in owners}, vectors, models)
    found = asyncio.run(mixed(panel, world.encoder, known, tested, 0, silent))
    assert found["models"]["wise"]["accuracy"] == 1
    assert found["models"]["fool"]["accuracy"] == 0
    best = max(found["right_by_doubt"].values())
    assert found["right_by_doubt"][str(found["doubt"])] == best
    assert found["both"]["accuracy"] >= found["documents"]["accuracy"]
