"""Several real processes at one port: they count as one, and none of them is missed when it dies."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from manyminds.ledger import Ledger
from tests.e2e.node import Served, need, served, wait_until
from tests.e2e.test_keys import PRICE_USD, REPLY, ask, books, made
from tests.experts.upstream import delta

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

WORKERS = 4


class Expert(ThreadingHTTPServer):
    """Answers at once; or fails, or waits with the rest of its answer, when told to."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = 0
        self.counting = threading.Lock()
        self.failing = False
        self.going_on = threading.Event()
        self.going_on.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Expert

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.counting:
            self.server.asked += 1
        if wanted.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(b"data: " + delta("so") + b"\n\n")
            self.server.going_on.wait(60)
            for event in (delta(" be it"), delta(finish="stop"), b"[DONE]"):
                self.wfile.write(b"data: " + event + b"\n\n")
            self.close_connection = True
            return
        body = json.dumps({"error": {"message": "out of order"}} if self.server.failing else REPLY).encode()
        self.send_response(500 if self.server.failing else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering() -> Iterator[Expert]:
    with Expert() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.going_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def expert() -> Iterator[Expert]:
    with answering() as server:
        yield server


def configured(folder: Path, expert: Expert) -> Path:
    """A home with one expert, whose answers may cost .010 dollars and cost .003."""
    (folder / "manyminds.toml").write_text(
        f'[local]\ntier = "none"\n[[expert]]\nname = "a"\nurl = "http://127.0.0.1:{expert.server_port}/v1"\n'
        "price_out_usd_per_m = 1000.0\n"
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path, expert: Expert) -> Path:
    return configured(tmp_path, expert)


@dataclass(frozen=True)
class Calm:
    """Workers that nobody kills, and whose expert answers: for tests that leave them as they were."""

    node: Served
    keys: dict[str, str]  # secrets, by what each may do in a minute


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calm]:
    with answering() as expert:
        folder = configured(tmp_path_factory.mktemp("calm"), expert)
        limits = {"30 requests": ("--requests-per-min", "30"), "500 tokens": ("--tokens-per-min", "500")}
        keys = {name: made(folder, *words)[1] for name, words in limits.items()}
        with served(folder, "--workers", str(WORKERS)) as node:
            yield Calm(node, keys)


def workers(node: Served) -> set[int]:
    """Process ids of the workers that live."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return {int(pid) for pid in children if "manyminds.cli.worker" in command_of(int(pid))}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def crowd(url: str, secret: str, requests: int, at_once: int = 32) -> Counter[int]:
    with ThreadPoolExecutor(at_once) as pool:
        return Counter(pool.map(lambda _: ask(url, secret), range(requests)))


def figures(node: Served) -> str:
    with urllib.request.urlopen(node.url.removesuffix("/v1") + "/metrics", timeout=10) as reply:
        return str(reply.read().decode())


def answered(node: Served) -> int:
    """Requests with status 200, as the figures count them."""
    found = re.findall(r'^manyminds_requests_total\{.*status="200"\} (\d+)$', figures(node), re.MULTILINE)
    return sum(map(int, found))


def recorded(folder: Path) -> int:
    ledger = Ledger(f"sqlite:///{folder / 'home' / 'ledger.db'}")
    rows = len(ledger.requests(10_000))
    ledger.close()
    return rows


def said(folder: Path) -> str:
    return (folder / "serve.log").read_text()


# --- what they share -------------------------------------------------------------------------------


def test_a_key_may_ask_as_often_as_it_may_however_many_answer(calm: Calm) -> None:
    assert len(workers(calm.node)) == WORKERS
    began_s = monotonic()
    found = crowd(calm.node.url, calm.keys["30 requests"], 100)
    came_back = int((monotonic() - began_s) * 30 / 60)
    assert set(found) == {200, 429}
    assert 30 <= found[200] <= 30 + came_back


def test_tokens_that_were_not_used_come_back_to_all(calm: Calm) -> None:
    """Each request takes 14 and uses 10, so that of a minute's all but the last few are used."""
    began_s = monotonic()
    found = crowd(calm.node.url, calm.keys["500 tokens"], 150, at_once=1)
    came_back = int((monotonic() - began_s) * 500 / 60)
    assert 490 <= 10 * found[200] <= 500 + came_back
    assert found[200] + found[429] == 150


def test_a_small_budget_is_spent_to_its_end_and_never_beyond(folder: Path, expert: Expert) -> None:
    """Whoever has the last of it leased gives it back when another one is short."""
    key_id, secret = made(folder, "--budget-usd", "0.1", "--period", "total")
    with served(folder, "--workers", str(WORKERS)) as node:
        found = crowd(node.url, secret, 60, at_once=8)

        def all_is_spent() -> bool:
            found[ask(node.url, secret)] += 1
            return 0.1 - found[200] * PRICE_USD < 0.010

        assert wait_until(all_is_spent), "money was left that would have paid for another answer"
    leased, spent, rows = books(folder, key_id)
    assert rows == found[200] == expert.asked
    assert set(found) == {200, 429}
    assert spent <= leased + 1e-9 <= 0.1 + 1e-7
    assert leased == pytest.approx(spent, abs=1e-7), "what was not spent was not given back"


def test_at_once_are_all_together(folder: Path, expert: Expert) -> None:
    expert.going_on.clear()
    environ = {"MANYMINDS_SERVER_MOST_AT_ONCE": "5"}
    with served(folder, "--workers", str(WORKERS), env=environ) as node, ThreadPoolExecutor(20) as pool:
        asking = [pool.submit(stream, node) for _ in range(20)]
        assert wait_until(lambda: sum(one.done() for one in asking) >= 15)
        assert expert.asked <= 5
        inside = re.search(r"^manyminds_in_flight (\d+)$", figures(node), re.MULTILINE)
        assert inside is not None
        assert int(inside[1]) == expert.asked
        expert.going_on.set()
        found = Counter(one.result()[0] for one in asking)
    assert found == {200: expert.asked, 429: 20 - expert.asked}


def test_what_one_found_out_of_an_expert_all_know(folder: Path, expert: Expert) -> None:
    expert.failing = True
    with served(folder, "--workers", str(WORKERS)) as node:
        began_s = monotonic()
        for _ in range(40):
            assert ask(node.url, "none") == 503
        if monotonic() - began_s < 10:  # then it may have been tried again
            assert expert.asked == 5
        assert f'manyminds_expert_circuit_open{{expert="a"}} {WORKERS}' in figures(node)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                f"{node.url}/chat/completions", b'{"model":"a","messages":[{"role":"user","content":"?"}]}'
            )
        message = json.load(refused.value)["error"]["message"]
        refused.value.close()
    assert "out of order" in message
    assert said(folder).count("a is not asked for") == 1


def test_each_shows_the_figures_of_all(calm: Calm) -> None:
    before = answered(calm.node)
    assert crowd(calm.node.url, "none", 60) == {200: 60}
    assert {answered(calm.node) for _ in range(12)} == {before + 60}


# --- life and death --------------------------------------------------------------------------------


def test_one_that_is_killed_is_replaced_and_the_others_go_on(folder: Path) -> None:
    key_id, secret = made(folder, "--budget-usd", "10", "--period", "total")
    with served(folder, "--workers", str(WORKERS)) as node, ThreadPoolExecutor(1) as pool:
        before = workers(node)
        asking = pool.submit(crowd, node.url, secret, 600, 16)
        assert wait_until(lambda: recorded(folder) > 50)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        found = asking.result()
        assert set(found) <= {200, 0}
        assert found[0] <= 16, "more broke than were under way"
        assert wait_until(lambda: len(workers(node)) == WORKERS)
        assert workers(node) & before == before - {victim}, "others died, too"
        assert crowd(node.url, secret, 40) == {200: 40}, "the new one does not answer"
        counted, another = answered(node), max(workers(node))
        os.kill(another, signal.SIGKILL)
        assert wait_until(lambda: len(workers(node) - {another}) == WORKERS)
        assert answered(node) >= counted, "the figures of who died are lost"
    lost = found[200] + 40 - books(folder, key_id)[2]
    assert -16 <= lost <= found[200] / WORKERS, "more than a moment of one worker is not in the ledger"
    leased, spent, _ = books(folder, key_id)
    assert spent <= leased + 1e-9 <= 10
    under_way, unrecorded = 16 * 0.010, max(0, lost) * PRICE_USD
    assert leased - spent <= under_way + unrecorded + 1e-7, "what the dead had leased is lost"
    assert f"(process {victim}) ended with status -9" in said(folder)


def test_all_die_and_all_are_replaced(folder: Path) -> None:
    with served(folder, "--workers", "2") as node:
        before = workers(node)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert ask(node.url, "none") == 200  # it waits for the next
        assert wait_until(lambda: len(workers(node) - before) == 2)


def stream(node: Served) -> tuple[int, bytes]:
    host, port = node.url.removeprefix("http://").removesuffix("/v1").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    body = {"model": "a", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    reply = connection.getresponse()
    found = reply.status, reply.read()
    connection.close()
    return found


def test_told_to_end_all_finish_what_they_answer(folder: Path, expert: Expert) -> None:
    expert.going_on.clear()
    with served(folder, "--workers", "2") as node, ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream, node) for _ in range(8)]
        assert wait_until(lambda: expert.asked == 8)
        node.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: ask(node.url, "none") == 0)
        expert.going_on.set()
        for one in streams:
            status, body = one.result()
            assert (status, b"be it" in body, b"[DONE]" in body) == (200, True, True)
        assert node.process.wait(timeout=20) == 0
    assert recorded(folder) == expert.asked


def test_one_told_to_end_makes_way_at_once(folder: Path, expert: Expert) -> None:
    expert.going_on.clear()
    with served(folder, "--workers", "2") as node, ThreadPoolExecutor(8) as pool:
        before = workers(node)
        streams = [pool.submit(stream, node) for _ in range(8)]
        assert wait_until(lambda: expert.asked == 8)
        counted = answered(node)
        os.kill(min(before), signal.SIGTERM)
        assert wait_until(lambda: len(workers(node)) == 3), "who still answers keeps another from coming"
        assert crowd(node.url, "none", 20) == {200: 20}
        expert.going_on.set()
        assert {one.result()[0] for one in streams} == {200}
        assert wait_until(lambda: len(workers(node)) == 2)
        assert answered(node) == counted + 28
    assert recorded(folder) == 28


def test_ctrl_c_ends_all_at_once_when_it_comes_twice(folder: Path, expert: Expert) -> None:
    expert.going_on.clear()
    with served(folder, "--workers", "2") as node, ThreadPoolExecutor(4) as pool:
        everybody = workers(node)
        streams = [pool.submit(stream, node) for _ in range(4)]
        assert wait_until(lambda: expert.asked == 4)
        for pid in (node.pid, *everybody):  # as a terminal, which signals all
            os.kill(pid, signal.SIGINT)
        assert wait_until(lambda: ask(node.url, "none") == 0)
        assert not any(one.done() for one in streams)
        node.process.send_signal(signal.SIGINT)
        assert {one.result()[0] for one in streams} == {200}
        assert all(b"This node is ending" in one.result()[1] for one in streams)
        assert node.process.wait(timeout=20) == 0
    assert not any(map(command_of, everybody))
    assert "Traceback" not in said(folder)


def test_nobody_is_left_where_the_supervisor_is_killed(folder: Path) -> None:
    with served(folder, "--workers", "2") as node:
        everybody = workers(node)
        node.process.kill()
        node.process.wait(timeout=20)
        assert wait_until(lambda: not any(map(command_of, everybody)))
    assert "Traceback" not in said(folder)


def refused(folder: Path, *flags: str) -> str:
    """What is said by workers that cannot start."""
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "manyminds", "serve", "--workers", "2", *flags]
    ended = subprocess.run(command, capture_output=True, env=environ, cwd=folder, timeout=60, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_who_cannot_start_says_why_once(folder: Path, calm: Calm) -> None:
    port = calm.node.url.removesuffix("/v1").rpartition(":")[2]
    assert refused(folder, "--port", "0", "--host", "0.0.0.0").count("manyminds keys create NAME") == 1
    assert refused(folder, "--port", port).count("Cannot listen on") == 1


# --- local models ----------------------------------------------------------------------------------


def test_local_models_run_once_for_all_and_come_back(tmp_path: Path) -> None:
    need()
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 12,
    }

    def answers(_: int) -> tuple[str, str]:
        request = urllib.request.Request(f"{node.url}/chat/completions", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as reply:
            fields = json.load(reply)
        return fields["choices"][0]["message"]["content"], fields["manyminds"]["panel"][0]["status"]

    with served(tmp_path, "--workers", "3") as node, ThreadPoolExecutor(6) as pool:
        assert len(workers(node)) == 3
        first = node.children()
        assert set(first) == {"smollm2-135m"}
        assert {status for _, status in pool.map(answers, range(9))} == {"ok"}
        assert node.children() == first
        os.kill(first["smollm2-135m"], signal.SIGKILL)
        assert {status for _, status in pool.map(answers, range(9))} == {"ok"}
        assert node.children()["smollm2-135m"] != first["smollm2-135m"]
        everybody = {*first.values(), *node.children().values()}
    assert not any(map(command_of, everybody))


def test_what_is_read_anew_reaches_all_and_a_model_that_is_gone_ends(tmp_path: Path) -> None:
    need()
    file = tmp_path / "manyminds.toml"
    file.write_text('[local]\ntier = "starter"\n')
    with served(tmp_path, "--workers", "2") as node:
        before, first = workers(node), node.children()
        assert set(first) == {"smollm2-135m"}
        file.write_text('[local]\ntier = "none"\n')
        node.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: not node.children())
        assert not any(map(command_of, first.values()))
        file.write_text('[local]\ntier = "starter"\n')
        node.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: set(node.children()) == set(first))
        assert workers(node) == before
