"""The real process with keys, budgets and a crash: nothing is ever overspent."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from manyminds.ledger import Ledger
from tests.e2e.node import served, wait_until

REPLY = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "43"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
PRICE_USD = 3 * 1000 / 1e6  # of such a reply


class _Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body, kind = json.dumps(REPLY).encode(), "application/json"
        if asked.get("stream"):
            piece = {"index": 0, "delta": {"role": "assistant", "content": "43"}, "finish_reason": "stop"}
            body = f"data: {json.dumps(REPLY | {'choices': [piece]})}\n\ndata: [DONE]\n\n".encode()
            kind = "text/event-stream"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Any:
    """Where an expert answers 43 to everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Upstream) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, upstream: str) -> Path:
    """A home with one expert, whose answers may cost .010 dollars and cost .003."""
    (tmp_path / "manyminds.toml").write_text(
        f'[local]\ntier = "none"\n[[expert]]\nname = "a"\nurl = "{upstream}"\nprice_out_usd_per_m = 1000.0\n'
    )
    return tmp_path


def made(folder: Path, *limits: str) -> tuple[str, str]:
    """A new key: its id and its secret."""
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "manyminds", "keys", "create", "ann", "--json", *limits]
    said = subprocess.run(command, capture_output=True, check=True, env=environ, cwd=folder)
    fields = json.loads(said.stdout)
    return fields["id"], fields["key"]


def ask(url: str, secret: str) -> int:
    """The status of one request; 0 where the connection broke."""
    body = {"model": "a", "messages": [{"role": "user", "content": "17 + 26?"}], "max_tokens": 10}
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            reply.read()
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def crowd(url: str, secret: str, requests: int) -> list[int]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: ask(url, secret), range(requests)))


def books(folder: Path, key_id: str) -> tuple[float, float, int]:
    """Of a key: what is leased, what its recorded requests cost, and how many they are."""
    ledger = Ledger(f"sqlite:///{folder / 'home' / 'ledger.db'}")
    (mine,) = [key for key in ledger.keys().values() if key.id == key_id]
    assert mine.period == "total"
    rows = ledger.requests(10_000, key=key_id)
    leased = ledger.leased(key_id, "total") / 1e9
    ledger.close()
    return leased, sum(row["cost_usd"] for row in rows), len(rows)


def test_a_crowd_never_overspends_and_a_restart_goes_on(folder: Path) -> None:
    key_id, secret = made(folder, "--budget-usd", "0.2", "--period", "total")
    with served(folder) as node:
        first = crowd(node.url, secret, 20)
    leased, spent, rows = books(folder, key_id)
    assert (rows, first.count(200)) == (20, 20)
    assert leased == pytest.approx(spent, abs=1e-7), "what was not spent was not given back"
    with served(folder) as node:
        second = crowd(node.url, secret, 60)
        while second[-1] == 200 or len(second) == 60:  # alone, to the last of the money
            second.append(ask(node.url, secret))
    leased, spent, rows = books(folder, key_id)
    assert set(second) == {200, 429}
    assert rows == 20 + second.count(200)
    assert spent <= leased + 1e-9 <= 0.2 + 1e-7
    assert spent > 0.2 - 0.010 - PRICE_USD, "money was left that would have paid for another answer"


def test_killed_under_load_it_has_not_overspent(folder: Path) -> None:
    key_id, secret = made(folder, "--budget-usd", "0.2", "--period", "total")
    with served(folder) as node:
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(crowd, node.url, secret, 60)
            ledger = Ledger(f"sqlite:///{folder / 'home' / 'ledger.db'}")
            assert wait_until(lambda: len(ledger.requests(10)) > 3)
            ledger.close()
            node.process.send_signal(signal.SIGKILL)
            answered = asking.result().count(200)
        node.process.wait(timeout=20)
    leased, recorded, _ = books(folder, key_id)
    assert answered * PRICE_USD <= leased + 1e-9 <= 0.2 + 1e-7, "it paid with money that it had not leased"
    assert recorded <= leased
    with served(folder) as node:
        crowd(node.url, secret, 60)
    after, spent, _ = books(folder, key_id)
    assert spent <= after + 1e-9 <= 0.2 + 1e-7


def test_a_running_node_takes_over_new_and_revoked_keys(folder: Path) -> None:
    environ = {"MANYMINDS_SERVER_KEYS": "required"}
    made(folder)
    with served(folder, env=environ) as node:
        key_id, secret = made(folder)
        assert wait_until(lambda: ask(node.url, secret) == 200)
        home = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
        command = [sys.executable, "-m", "manyminds", "keys", "revoke", key_id]
        subprocess.run(command, check=True, env=home, cwd=folder)
        assert wait_until(lambda: ask(node.url, secret) == 401)


def test_without_a_key_it_does_not_listen_to_others(folder: Path) -> None:
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "manyminds", "serve", "--host", "0.0.0.0", "--port", "0"]
    said = subprocess.run(command, capture_output=True, env=environ, cwd=folder, timeout=30, text=True)
    assert said.returncode == 1
    assert "manyminds keys create NAME" in said.stderr
