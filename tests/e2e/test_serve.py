"""The real process with real models, asked by the official client."""

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.node import Served, cpu_s, need, served, wait_until

CHOICE = "Which gas do plants absorb?\nA) oxygen\nB) carbon dioxide\nC) helium\nD) nitrogen"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[Served]:
    need()
    with served(folder, untaught=True) as running:
        yield running


@pytest.fixture
def client(node: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=node.url, api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, question: str, model: str = "auto", **more: Any) -> Any:
    more = {"max_tokens": 48, "temperature": 0} | more
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], **more
    )


def test_official_client_gets_a_plain_answer(client: openai.OpenAI) -> None:
    reply = ask(client, "What is the capital of Australia?")
    assert "Canberra" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    report = reply.model_extra["manyminds"]
    assert len([entry for entry in report["panel"] if entry["status"] == "ok"]) >= 2
    assert sum(a["share"] for a in report["attribution"]) == pytest.approx(1.0)


def test_official_client_gets_a_streamed_answer(client: openai.OpenAI) -> None:
    stream = ask(
        client, "What is the capital of Australia?", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Canberra" in text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[-1].model_extra["manyminds"]["strategy"] == "select"


def test_an_expert_by_name_is_passed_through(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "What is 17 + 26?", model="qwen2.5-coder-0.5b", stream=True))
    assert "43" in "".join(c.choices[0].delta.content or "" for c in chunks)
    assert {c.model for c in chunks} == {"qwen2.5-coder-0.5b"}
    assert chunks[-1].model_extra["manyminds"]["strategy"] == "pass"


@pytest.mark.parametrize(
    ("question", "strategy"),
    [(CHOICE, "vote"), ("What is 17 + 26?", "vote"), ("Why do cats purr?", "select")],
)
def test_auto_says_how_it_combined(client: openai.OpenAI, question: str, strategy: str) -> None:
    report = ask(client, question, max_tokens=16).model_extra["manyminds"]
    assert report["policy"] == "auto"
    assert report["strategy"] == strategy
    assert 0.0 < report["probability"] <= 1.0


def test_fuse_is_written_by_an_expert(client: openai.OpenAI) -> None:
    reply = ask(client, "Why do cats purr?", max_tokens=16, extra_body={"manyminds": {"strategy": "fuse"}})
    panel = reply.model_extra["manyminds"]["panel"]
    assert [entry["method"] for entry in panel].count("fuse") == 1
    (fuser,) = [entry["source"] for entry in panel if entry["method"] == "fuse"]
    owed = {a["source"]: a["estimated"] for a in reply.model_extra["manyminds"]["attribution"]}
    assert len(owed) > 1
    assert not owed.pop(fuser)  # without it there would be no such answer
    assert all(owed.values())


def test_models_are_listed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[:4] == ["auto", "max", "cheap", "fast"]
    assert client.models.retrieve("smollm2-135m").owned_by == "smollm2-135m"


def test_errors_are_the_clients_own_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such"):
        ask(client, "Hello", model="no-such")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "Hello", extra_body={"manyminds": {"deadline_s": -1}})
    assert caught.value.body["param"] == "manyminds.deadline_s"  # type: ignore[index]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such")


def test_a_killed_model_is_survived_and_comes_back(client: openai.OpenAI, node: Served) -> None:
    question = "Write a story of three hundred words about a lighthouse."
    victim = node.children()["smollm2-135m"]
    before = cpu_s(victim)

    def read() -> list[Any]:
        with client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": question}],
            max_tokens=120,
            stream=True,
            temperature=0,
        ) as stream:
            return list(stream)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        assert wait_until(lambda: cpu_s(victim) > before + 0.5), "the model never began"
        os.kill(victim, signal.SIGKILL)
        chunks = reading.result()
    assert len("".join(c.choices[0].delta.content or "" for c in chunks)) > 100
    report = chunks[-1].model_extra["manyminds"]
    status = {entry["expert"]: entry["status"] for entry in report["panel"]}
    assert status == {"smollm2-135m": "cut", "qwen2.5-coder-0.5b": "ok"}
    again = ask(client, "What is the capital of Australia?").model_extra["manyminds"]
    assert {entry["expert"]: entry["status"] for entry in again["panel"]}["smollm2-135m"] == "ok"
    assert node.children()["smollm2-135m"] != victim


def test_a_client_that_leaves_stops_the_models(node: Served) -> None:
    body = json.dumps(
        {
            "model": "auto",
            "messages": [{"role": "user", "content": "Write a long story about the sea."}],
            "max_tokens": 1000,
        }
    ).encode()
    pids = list(node.children().values())
    before = {pid: cpu_s(pid) for pid in pids}
    host, port = node.url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        assert wait_until(lambda: all(cpu_s(pid) > before[pid] + 0.2 for pid in pids)), "nobody began"

    def quiet() -> bool:
        seen = {pid: cpu_s(pid) for pid in pids}
        return not wait_until(lambda: any(cpu_s(pid) > seen[pid] + 0.02 for pid in pids), budget_s=0.3)

    assert wait_until(quiet), "the models went on for nobody"


def test_a_tight_deadline_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "Write a long poem about the sea.", extra_body={"manyminds": {"deadline_s": 0.05}})
    assert caught.value.status_code == 504


def test_the_ledger_has_every_request(client: openai.OpenAI, folder: Path) -> None:
    report = ask(client, "What is 2 + 3?").model_extra["manyminds"]
    with sqlite3.connect(folder / "home" / "ledger.db") as ledger:
        asked = "select policy, strategy, question from requests where request_id = ?", [report["request_id"]]
        wait_until(lambda: ledger.execute(*asked).fetchone() is not None)  # it is written with others
        row = ledger.execute(*asked).fetchone()
        calls = ledger.execute(
            "select expert, status, cpu_s, cost_usd from calls where request_id = ?", [report["request_id"]]
        ).fetchall()
    ledger.close()
    assert row == ("auto", "vote", None)
    assert {call[0] for call in calls} == {"smollm2-135m", "qwen2.5-coder-0.5b"}
    assert all(call[2] > 0 and call[3] > 0 for call in calls if call[1] == "ok")


def test_health(node: Served) -> None:
    assert node.get("/health/live") == {"status": "live"}
    assert node.get("/health/ready") == {"status": "ready", "experts": 2}
