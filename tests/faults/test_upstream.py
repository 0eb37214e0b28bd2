"""An upstream that misbehaves in every way: what callers see, what it costs, and what is left of it."""

import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.edge import Got, data, text
from tests.e2e.node import Served, served, wait_until
from tests.faults.network import (
    WORD_USD,
    Books,
    Client,
    Faulty,
    books,
    configured,
    crowd,
    figure,
    idle,
    logged,
    made,
    name_of,
    sockets,
    upstream,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@dataclass(frozen=True)
class Fault:
    """What comes of a model's answer, by status or, once something was said, by the event at the end."""

    streamed: str  # code of the error where a stream is asked for
    whole: str  # and where it is not
    words: str = ""  # what a stream says before


WORDS = "All is"
FAULTS = {
    "stall_head": Fault("expert_slow", "deadline_exceeded"),
    "stall_first": Fault("expert_slow", "deadline_exceeded"),
    "stall_mid": Fault("expert_slow", "deadline_exceeded", WORDS),
    "stall_error": Fault("expert_unavailable", "expert_unavailable"),
    "cut_head": Fault("expert_cut", "expert_cut"),
    "cut_mid": Fault("expert_cut", "expert_cut", WORDS),
    "no_finish": Fault("expert_cut", "expert_cut", WORDS),
    "not_http": Fault("expert_garbage", "expert_garbage"),
    "bad_chunk": Fault("expert_garbage", "expert_garbage", WORDS),
    "bad_json": Fault("expert_garbage", "expert_garbage", WORDS),
    "half_letter": Fault("expert_garbage", "expert_garbage", WORDS),
    "endless_head": Fault("expert_garbage", "expert_garbage"),
    "endless_body": Fault("expert_garbage", "expert_garbage"),
    "too_short": Fault("expert_cut", "expert_garbage", WORDS),
    "too_long": Fault("expert_cut", "expert_cut", WORDS),
    "status=500": Fault("expert_unavailable", "expert_unavailable"),
    "busy": Fault("expert_unavailable", "expert_unavailable"),
    "busy=7": Fault("expert_unavailable", "expert_unavailable"),
}
STATUS = {
    "expert_slow": 504,
    "deadline_exceeded": 504,
    "expert_cut": 502,
    "expert_garbage": 502,
    "expert_unavailable": 503,
}
HEALTHY = ("well", "well=300", "drip=1")
OTHERS = (
    *("talk=5", "stall_mid=1", "busy=1", "busy=30", "status=401"),
    *(f"moderated={status}" for status in (402, 403, 404, 451)),
)
SETTINGS = "[policy]\nfirst_token_s = 1.5\nidle_s = 1.0\ndeadline_s = 2.5\n"


@dataclass(frozen=True)
class Place:
    folder: Path
    faulty: Faulty
    node: Served
    key_id: str
    client: Client
    sockets: int  # of the node before anybody asked

    def books(self) -> Books:
        return books(f"sqlite:///{self.folder / 'home' / 'ledger.db'}", self.key_id)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("faults")
    with upstream() as faulty:
        configured(folder, faulty, [*FAULTS, *HEALTHY, *OTHERS], SETTINGS)
        key_id, secret = made(f"sqlite:///{folder / 'home' / 'ledger.db'}", budget_usd=20.0)
        with served(folder, "--tier", "none") as node:
            yield Place(folder, faulty, node, key_id, Client(node, secret), sockets(node.pid))


WAYS: Mapping[str, Mapping[str, Any]] = {
    "stream": {"stream": True},
    "whole": {},
    "race": {"stream": True, "manyminds": {"strategy": "race"}},
    "panel": {"manyminds": {"strategy": "select"}},
}


@pytest.fixture(scope="module")
def storm(place: Place) -> Mapping[tuple[str, str], Got]:
    """Every fault in every way at once: the replies, by model and way."""
    asked = {}
    for model in (*FAULTS, *HEALTHY):
        name = name_of(model)
        for way, more in WAYS.items():
            body = dict(more)
            if "manyminds" in more:
                body["manyminds"] = more["manyminds"] | {"include": [name, "well-300"]}
            asked[model, way] = body | {"model": "auto" if "manyminds" in more else name}
    found = crowd(place.client, list(asked.values()), threads=len(asked))
    assert None not in found
    return {case: got for case, got in zip(asked, found, strict=True) if got is not None}


# --- what callers see ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", FAULTS)
def test_a_stream_ends_with_an_error_and_never_with_a_finish(
    place: Place, storm: Mapping[tuple[str, str], Got], model: str
) -> None:
    got, fault = storm[model, "stream"], FAULTS[model]
    assert place.client.error(got)["code"] == fault.streamed
    if fault.words:
        *events, _ = data(got.body)
        assert (got.status, text(events)) == (200, fault.words)
    else:
        assert got.status == STATUS[fault.streamed]
        assert model != "busy=7" or got.headers["retry-after"] == "7"


@pytest.mark.parametrize("model", FAULTS)
def test_a_whole_answer_is_one_or_an_error(
    place: Place, storm: Mapping[tuple[str, str], Got], model: str
) -> None:
    got, fault = storm[model, "whole"], FAULTS[model]
    assert (got.status, got.error["code"]) == (STATUS[fault.whole], fault.whole)
    assert name_of(model) in got.error["message"]


@pytest.mark.parametrize("model", HEALTHY)
def test_who_only_takes_time_is_heard(storm: Mapping[tuple[str, str], Got], model: str) -> None:
    assert storm[model, "whole"].json["choices"][0]["message"]["content"] == "All is well."
    events = data(storm[model, "stream"].body)
    assert text(events) == "All is well."
    assert (events[-2]["choices"][0]["finish_reason"], events[-1]) == ("stop", "[DONE]")


@pytest.mark.parametrize("model", FAULTS)
def test_others_answer_where_nothing_was_said_yet(
    place: Place, storm: Mapping[tuple[str, str], Got], model: str
) -> None:
    assert storm[model, "panel"].json["choices"][0]["message"]["content"] == "All is well."
    got, fault = storm[model, "race"], FAULTS[model]
    assert got.status == 200
    if fault.words:  # it won the race, and then it failed
        assert place.client.error(got)["code"] == fault.streamed
        assert text(data(got.body)[:-1]) == fault.words
    else:
        events = data(got.body)
        assert (text(events), events[-1]) == ("All is well.", "[DONE]")


# --- what the ledger says --------------------------------------------------------------------------

ERRORS = {
    "expert_slow": "SlowError",
    "deadline_exceeded": "SlowError",
    "expert_cut": "CutError",
    "expert_garbage": "GarbageError",
    "expert_unavailable": "UnavailableError",
}


@pytest.mark.parametrize("model", FAULTS)
def test_each_call_is_recorded_with_its_end_and_its_cost(
    place: Place, storm: Mapping[tuple[str, str], Got], model: str
) -> None:
    fault = FAULTS[model]
    rows = {way: place.books().rows[storm[model, way].headers["x-request-id"]] for way in WAYS}
    found = {
        way: [
            (call["status"], call["error"], call["cost_usd"])
            for call in row["calls"]
            if call["expert"] == name_of(model)
        ]
        for way, row in rows.items()
    }
    cut = "cut" if fault.words else "failed"
    words_usd = pytest.approx(WORD_USD * len(fault.words.split()))
    late = fault.whole == "deadline_exceeded"  # it may have written all that it was allowed to
    assert found["stream"] == found["panel"] == [(cut, ERRORS[fault.streamed], words_usd)]
    assert found["whole"] == [
        ("late" if late else "failed", ERRORS[fault.whole], 10 * WORD_USD if late else 0)
    ]
    if fault.words:
        assert found["race"] == found["stream"]
    assert {way: row["status"] for way, row in rows.items()} == {
        "stream": cut,
        "whole": "failed",
        "race": "cut" if fault.words else "ok",
        "panel": "ok",
    }


def test_of_the_storm_nothing_is_left(place: Place, storm: Mapping[tuple[str, str], Got]) -> None:
    """But for connections that may be used again."""
    assert wait_until(lambda: idle(place.node, place.faulty)), place.faulty.stats()
    kept = place.faulty.stats()["connections"]
    assert kept <= len(storm)
    assert wait_until(lambda: sockets(place.node.pid) <= place.sockets + kept)
    assert place.faulty.asked("status=500") <= 2 * len(WAYS)


# --- 429 again and again ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["busy=1", "busy=30"])
def test_who_says_that_he_is_busy_is_left_in_peace(place: Place, model: str) -> None:
    """Each client sees when to come back, and a panel does without it."""
    name, crowded = name_of(model), 8
    found = crowd(place.client, [{"model": name, "stream": i % 2 == 0} for i in range(60)], crowded)
    assert {got and got.status for got in found} == {503}
    waits = [int(got.headers["retry-after"]) for got in found if got is not None]
    assert max(waits) <= max(10, int(name.partition("-")[2]))
    assert min(waits) >= 1
    asked = place.faulty.asked(model)
    assert 5 <= asked <= 2 * crowded, "it was asked by more than those who did not know yet"
    among = {"model": "auto", "manyminds": {"include": [name, "well"]}}
    found = crowd(place.client, [among] * 20)
    assert {got and got.status for got in found} == {200}
    assert place.faulty.asked(model) == asked


# --- who refuses -----------------------------------------------------------------------------------


def test_who_does_not_know_the_nodes_key_is_asked_once(place: Place) -> None:
    found = [place.client.ask("status-401") for _ in range(3)]
    assert [got and got.status for got in found] == [503, 503, 503]
    assert found[0] is not None
    assert found[0].headers["x-should-retry"] == "false"
    assert place.faulty.asked("status=401") == 1


@pytest.mark.parametrize(("status", "times"), [(402, 1), (403, 6), (404, 1), (451, 6)])
def test_what_one_request_brings_about_is_not_held_against_an_expert(
    place: Place, status: int, times: int
) -> None:
    """Providers say 403 of a prompt that offends them, 402 and 404 of what a single request asks for."""
    name = f"moderated-{status}"
    flagged = [{"role": "user", "content": "flagged"}]
    for _ in range(times):
        got = place.client.ask(name, messages=flagged)
        assert got is not None
        assert "content policy" in got.error["message"]
        assert "not asked" not in got.error["message"]
    got = place.client.ask(name)
    assert got is not None
    assert got.status == 200


# --- killed ----------------------------------------------------------------------------------------


def test_killed_in_the_midst_it_is_missed_at_once_and_found_again(place: Place) -> None:
    streams = [place.client.begin("talk-5") for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(place.client.ask, "stall_mid-1") for _ in range(4)]
        assert wait_until(lambda: place.faulty.stats()["under_way"] == 16)
        place.faulty.kill()
        whole = [reply.result() for reply in waiting]
    assert {got and (got.status, got.error["code"]) for got in whole} == {(502, "expert_cut")}
    found = [begun.end() for begun in streams]
    assert wait_until(lambda: place.books().rows.keys() >= set(place.client.ids))
    rows = place.books().rows
    for got in found:
        assert got is not None
        error = place.client.error(got)
        assert (error["code"], error["message"]) == (
            "expert_cut",
            "talk-5 broke off: the connection was closed.",
        )
        words = text(data(got.body)[:-1]).split()
        row = rows[got.headers["x-request-id"]]
        assert len(words) >= 1
        assert (row["status"], row["cost_usd"]) == ("cut", pytest.approx(WORD_USD * len(words)))
    assert figure(place.node, "in_flight") == 0
    away = place.client.ask("well")
    assert away is not None
    assert (away.status, away.error["code"]) == (503, "expert_unavailable")
    place.faulty.start()
    back = place.client.ask("well")
    assert back is not None
    assert back.status == 200
    assert place.faulty.stats()["connections"] == 1
    assert wait_until(lambda: sockets(place.node.pid) <= place.sockets + 1)


def test_in_the_end_every_cent_is_accounted_for(place: Place, storm: Mapping[tuple[str, str], Got]) -> None:
    place.node.process.send_signal(signal.SIGTERM)
    assert place.node.process.wait(timeout=20) == 0
    found = place.books()
    assert len(storm) < found.count == len(place.client.ids)
    assert found.rows.keys() == set(place.client.ids)
    assert found.leased_usd == pytest.approx(found.spent_usd, abs=1e-7)
    assert "Traceback" not in logged(place.folder)
