"""Scenarios of `manyminds bench network`: what they find, not how fast this machine is."""

import asyncio
import time
from typing import Any

import pytest

from manyminds.errors import DataError
from manyminds.evals import intrusion, outage, prices, sites
from manyminds.evals.intruder import played, shown
from manyminds.evals.liar import KINDS, PRICE, answer, identity
from manyminds.evals.reciter import recital
from manyminds.evals.times import slower, spread
from manyminds.experts.recorded import RecordedSet
from manyminds.network import jws, receipt
from manyminds.network.ask import Heard, new_ask
from manyminds.network.directory import Directory
from manyminds.network.frames import Sealer
from manyminds.network.identity import Identity
from manyminds.network.transport import Sighting
from manyminds.types import Usage
from tests.evals.test_replay import made_up

pytest.importorskip("zenoh", reason="needs Zenoh: pip install 'manyminds[net]'")

MODELS = {f"model-{i:02}": 0.95 - 0.05 * i for i in range(2 * outage.SIZE - 1)}


def quiet(what: str, share: float) -> None:
    """Of how far it is."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedSet:
    return made_up(tmp_path_factory.mktemp("sets") / "toy", MODELS, n=120)


# --- the best node killed ----------------------------------------------------------------------------


def test_every_other_model_is_a_node_and_the_best_is_first(recorded: RecordedSet) -> None:
    found = outage.members(recorded)
    accuracies = [model.card.accuracy for model in found]
    assert len(found) == outage.SIZE
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == max(expert.card.accuracy for expert in recorded.experts())
    with pytest.raises(DataError, match="13 models"):
        outage.members(RecordedSet(recorded.questions(), recorded.experts()[:12]))


def test_questions_are_drawn_of_test_by_the_seed(recorded: RecordedSet) -> None:
    models = outage.members(recorded)
    drawn = outage.questions(recorded, models, 10, seed=1)
    assert {question.split for question in drawn} == {"test"}
    assert len({question.question_id for question in drawn}) == 10
    assert drawn == outage.questions(recorded, models, 10, seed=1)
    assert drawn != outage.questions(recorded, models, 10, seed=2)
    with pytest.raises(DataError, match="100000 are to be drawn"):
        outage.questions(recorded, models, 100_000, seed=1)


def test_a_recorded_model_says_what_it_said(recorded: RecordedSet) -> None:
    question, model = recorded.questions()[0], recorded.experts()[0]
    spoken = recital(recorded, wait_s=0.5)

    def says(text: str) -> Any:
        turns = [{"role": "user", "content": text}]
        return asyncio.run(spoken({"model": model.card.name, "messages": turns}))  # type: ignore[arg-type]

    recording = model.recording
    assert says(question.text).words == [recording.texts[recording.codes[0]]]
    assert says(question.text).wait_s == 0.5
    assert says("What else?").words == []


# --- two sites ---------------------------------------------------------------------------------------


def test_answers_count_where_they_were_asked() -> None:
    asked = [{"at": 10.0 + i, "ms": 100.0 * i, "right": i != 4} for i in range(20)]
    found = sites.parts(asked, cut_at=13.0, healed_at=18.0, end_at=24.0)
    assert {name: part["asked"] for name, part in found.items()} == {
        "before": 2,
        "around_cut": 4,
        "apart": 5,
        "around_healing": 4,
        "after": 3,
    }
    assert found["apart"]["answered"] == 0.8
    assert found["apart"]["ms"] == {"p50": 500.0, "p99": 700.0, "longest": 700.0}


def test_two_sites_go_on_and_find_each_other_again() -> None:
    found = sites.measure(nodes=1, cuts_s=[3.0])
    if "skipped" in found:
        pytest.skip(found["skipped"])
    (cut,) = found["cuts"]
    for site in "ab":
        assert cut[site]["before"]["answered"] == 1.0
        assert cut[site]["apart"]["answered"] > 0.0
        assert cut[site]["island_right_after_s"] is not None
        assert cut[site]["whole_again_after_s"] is not None


# --- attacks -----------------------------------------------------------------------------------------


def test_no_lie_about_prices_is_believed() -> None:
    found = prices.measure(3, 0, quiet, kinds=KINDS[2:])
    (kind,) = KINDS[2:]
    assert found[kind]["refused"] > 0
    assert found[kind]["believed"] == found[kind]["wrong_or_none"] == 0
    assert found["fair_answers"] == 3
    assert found["owed_to_fair_usd"] > 0.0 == found["owed_to_liar_usd"]


def test_no_attack_by_https_is_believed() -> None:
    found = intrusion.measure(3, 0, quiet, kinds=["impostor", "forged"], round_s=0.1)
    taken, flood = found["impostor"], found["flood_forged"]
    assert taken["answers"] == taken["old_cards"] == taken["wrong_or_none"] == 0
    assert flood["sent"] > 0 == flood["answered"] == flood["wrong_or_none"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_liar_signs_what_it_charges(kind: str) -> None:
    own, asker = identity(), Identity.of_seed(bytes(32))
    ask = new_ask(asker, own.id, b"{}", deadline_s=9, budget_usd=0.01, hops=0, visited=())
    heard = Heard(ask, asker.id, asker.public, jws.from_base64url(ask.reply_key))
    sent: list[bytes] = []
    answer(own, heard, kind, lambda frame, last: sent.append(frame))
    sealer = Sealer(heard.reply_key, answers=False)
    frames = [sealer.open_frame(one) for one in sent]
    last = frames[-1]
    assert last is not None
    assert last.answered is not None
    found, _ = receipt.read(last.answered.receipt.encode())
    honest_usd = PRICE.of(Usage(20, 2))
    assert found.price_usd > honest_usd
    assert (found.price_usd > ask.budget_usd) == (kind == "greedy")
    assert (found.completion_tokens > 2) == (kind == "padded")


@pytest.mark.parametrize("kind", ["forger", "replayer", "large"])
def test_what_an_intruder_shows_is_no_new_card_of_the_node(kind: str) -> None:
    node, now = played(0), time.time()
    directory = Directory("own", listed=[node.id])
    true = next(shown("impostor", node))
    assert directory.see(Sighting(node.id, true), now) is not None
    for card, _ in zip(shown(kind, node), range(3), strict=False):
        directory.see(Sighting(node.id, card), now)
    (kept,) = directory.cards
    assert kept.raw == true
    assert directory.refused.total() == 3


# --- figures -----------------------------------------------------------------------------------------


def test_how_much_slower_is_a_share_with_an_interval() -> None:
    share, low, high = slower([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], seed=3)
    assert share == 1.0
    assert low <= share <= high
    assert (share, low, high) == slower([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], seed=3)
    assert slower([5.0] * 9, [5.0] * 9, seed=0) == (0.0, 0.0, 0.0)


def test_a_spread_names_the_longest_where_it_is_asked_to() -> None:
    assert spread([1.0, 2.0, 3.0]) == {"p50": 2.0, "p99": 3.0}
    assert spread([3.0, 1.0, 2.0], longest=True)["longest"] == 3.0
