"""Gateways behind nginx that share one PostgreSQL, as docs/cluster.md says: one that dies is not missed."""

import getpass
import json
import re
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from manyminds.ledger import Ledger
from tests.e2e.node import Served, served, wait_until
from tests.e2e.test_keys import REPLY, made
from tests.e2e.test_network import free_port
from tests.e2e.test_proxy import listens
from tests.experts.upstream import delta
from tests.ledger import postgres
from tests.ledger.conftest import server

__all__ = ["server"]

PAGE = (Path(__file__).resolve().parents[2] / "docs/cluster.md").read_text(encoding="utf-8")
PORTS = (8001, 8002)  # of the page's gateways
PRICE_USD = 3 * 0.2 / 1e6  # of REPLY, by the page's price
PATIENCE_S = 60.0


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return str(found)


class Expert(ThreadingHTTPServer):
    """Answers at once, or when it may go on; of a stream it says the beginning before."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = 0
        self.counting = threading.Lock()
        self.going_on = threading.Event()
        self.going_on.set()


class _Handler(BaseHTTPRequestHandler):
    server: Expert

    def do_POST(self) -> None:
        streams = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream")
        with self.server.counting:
            self.server.asked += 1
        with suppress(OSError):  # its gateway was killed
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if streams else "application/json")
            self.end_headers()
            if streams:
                self.wfile.write(b"data: " + delta("so") + b"\n\n")
            self.server.going_on.wait(PATIENCE_S)
            if not streams:
                self.wfile.write(json.dumps(REPLY).encode())
                return
            for event in (delta(" be it"), delta(finish="stop"), b"[DONE]"):
                self.wfile.write(b"data: " + event + b"\n\n")

    def log_message(self, *_: Any) -> None:
        pass


@dataclass(frozen=True)
class Got:
    """What came of a request: its status, and its name in the ledger."""

    status: int
    request_id: str


class Gateways:
    """The page's two, and nginx before them."""

    def __init__(self, folder: Path, ledger: str, expert: str, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._env = {"MANYMINDS_LEDGER_URL": ledger}
        self._ports = {port: free_port() for port in PORTS}
        self.ledger_url = ledger
        self.nodes: dict[int, Served] = {}
        self._running: dict[int, ExitStack] = {}
        for port in PORTS:
            (folder / str(port)).mkdir()
            toml = block("toml").replace("http://127.0.0.1:8100/v1", expert)
            (folder / str(port) / "manyminds.toml").write_text(toml)
        self.key_id, self.secret = self.key()
        for port in PORTS:
            self.start(port)
        self.url = f"http://127.0.0.1:{self._stack.enter_context(self._nginx())}/v1"

    def key(self, *limits: str) -> tuple[str, str]:
        """A new one, made at the first gateway's home: its id and its secret."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MANYMINDS_LEDGER_URL", self.ledger_url)
            return made(self._folder / str(PORTS[0]), *limits)

    def start(self, port: int) -> None:
        """Starts one; returns when it says that it is ready."""
        running = self._running[port] = self._stack.enter_context(ExitStack())
        flags = ("--port", str(self._ports[port]))
        self.nodes[port] = running.enter_context(
            served(self._folder / str(port), *flags, env=self._env, tier="none")
        )

    def end(self, port: int, with_signal: signal.Signals = signal.SIGTERM) -> None:
        process = self.nodes[port].process
        process.send_signal(with_signal)
        assert process.wait(timeout=20) == (0 if with_signal == signal.SIGTERM else -with_signal)
        self._running[port].close()

    @contextmanager
    def _nginx(self) -> Iterator[int]:
        settings, port = block("nginx"), free_port()
        for written, own in {8000: port, **self._ports}.items():
            assert f":{written}" in settings
            settings = settings.replace(f":{written}", f":{own}")
        folder = self._folder / "nginx"
        folder.mkdir()
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log stderr; user {getpass.getuser()}; events {{}}\n"
            f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
            f"{settings} }}\n"
        )
        command = ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            assert wait_until(lambda: process.poll() is not None or listens(port))
            assert process.poll() is None, (folder / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(timeout=20)

    def ask(self, secret: str, *, url: str = "") -> Got:
        body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "17 + 26?"}]}
        request = self._request(secret, body | {"max_tokens": 10}, url or self.url)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
                reply.read()
                return Got(reply.status, reply.headers["x-request-id"])
        except urllib.error.HTTPError as error:
            return Got(error.code, "")

    @contextmanager
    def stream(self) -> Iterator[Any]:
        body = {"model": "smollm2-135m", "stream": True, "messages": [{"role": "user", "content": "go on"}]}
        with urllib.request.urlopen(self._request(self.secret, body, self.url), timeout=20) as reply:
            yield reply

    def _request(self, secret: str, body: dict[str, Any], url: str) -> urllib.request.Request:
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        return urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)

    def answered(self, port: int) -> int:
        """Replies with status 200 that this gateway has sent since it started."""
        url = self.nodes[port].url.removesuffix("/v1") + "/metrics"
        asking = urllib.request.Request(url, headers={"authorization": f"Bearer {self.secret}"})
        with urllib.request.urlopen(asking, timeout=10) as reply:
            figures = reply.read().decode()
        pattern = r'^manyminds_requests_total\{endpoint="/v1/chat.*status="200"\} (\d+)$'
        return sum(map(int, re.findall(pattern, figures, re.MULTILINE)))

    def books(self, key_id: str) -> tuple[float, float, list[str]]:
        """Of a key: what is leased, what its recorded requests cost, and their names."""
        with closing(Ledger(self.ledger_url)) as ledger:
            rows = ledger.requests(10_000, key=key_id)
            leased = ledger.leased(key_id, "total") / 1e9
        return leased, sum(row["cost_usd"] for row in rows), sorted(row["request_id"] for row in rows)

    def said(self) -> str:
        return "".join((self._folder / str(port) / "serve.log").read_text() for port in PORTS)


@pytest.fixture
def expert() -> Iterator[Expert]:
    with Expert() as upstream:
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        yield upstream
        upstream.going_on.set()
        upstream.shutdown()
        thread.join()


@pytest.fixture
def gateways(tmp_path: Path, server: postgres.Server, expert: Expert) -> Iterator[Gateways]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{expert.server_port}/v1"
        yield Gateways(tmp_path, server.new(), url, stack)


def crowd(gateways: Gateways, secret: str, requests: int) -> list[Got]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: gateways.ask(secret), range(requests)))


def test_a_budget_is_never_overspent_and_one_killed_is_not_missed(gateways: Gateways, expert: Expert) -> None:
    first, second = PORTS
    key_id, secret = gateways.key("--budget-usd", "0.00004", "--period", "total")
    for port in PORTS:  # both were running when it was made
        assert wait_until(lambda: gateways.ask(secret, url=gateways.nodes[port].url).status == 200)  # noqa: B023
    statuses = [got.status for got in crowd(gateways, secret, 100)]
    assert set(statuses) == {200, 429}
    leased, spent, names = gateways.books(key_id)
    assert len(names) == 2 + statuses.count(200)
    assert spent == pytest.approx(len(names) * PRICE_USD)
    assert spent <= leased + 1e-9 <= 0.00004 + 1e-9
    assert min(map(gateways.answered, PORTS)) > 20

    got = crowd(gateways, gateways.secret, 20)
    assert wait_until(lambda: len(gateways.books(gateways.key_id)[2]) == 20)
    expert.going_on.clear()
    before = expert.asked
    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(gateways.ask, gateways.secret) for _ in range(16)]
        assert wait_until(lambda: expert.asked == before + 16)
        gateways.end(first, signal.SIGKILL)
        assert wait_until(lambda: expert.asked > before + 16), "nobody asked the other gateway"
        expert.going_on.set()
        got += [one.result() for one in asking]
    got += crowd(gateways, gateways.secret, 20)
    gateways.start(first)
    assert wait_until(lambda: _one_more(gateways, got) and gateways.answered(first) > 0)
    assert {one.status for one in got} == {200}
    assert wait_until(lambda: gateways.books(gateways.key_id)[2] == sorted(one.request_id for one in got))
    assert gateways.answered(second) > 0
    assert "Traceback" not in gateways.said()


def _one_more(gateways: Gateways, got: list[Got]) -> bool:
    got.append(gateways.ask(gateways.secret))
    return got[-1].status == 200


def test_gateways_restart_one_by_one_and_no_request_is_lost(gateways: Gateways, expert: Expert) -> None:
    over = threading.Event()

    def on_and_on() -> list[Got]:
        got: list[Got] = []
        while not over.is_set():
            _one_more(gateways, got)
        return got

    expert.going_on.clear()
    with gateways.stream() as stream, ThreadPoolExecutor(4) as pool:
        assert b"so" in stream.readline()  # while its expert says no more
        expert.going_on.set()
        assert b"[DONE]" in stream.read()
        asking = [pool.submit(on_and_on) for _ in range(4)]
        try:
            for port in PORTS:
                assert wait_until(lambda: gateways.answered(port) > 20)  # noqa: B023
                gateways.end(port)
                gateways.start(port)
                assert wait_until(lambda: gateways.answered(port) > 20)  # noqa: B023  # nginx asks it again
        finally:
            over.set()
        got = [one for each in asking for one in each.result()]
    assert {one.status for one in got} == {200}
    assert wait_until(lambda: len(gateways.books(gateways.key_id)[2]) == len(got) + 1)  # and the stream
    recorded = set(gateways.books(gateways.key_id)[2])
    assert recorded >= {one.request_id for one in got}
    assert len(recorded) == len(got) + 1
    assert "Traceback" not in gateways.said()

    expert.going_on.clear()
    with gateways.stream() as stream:
        assert b"so" in stream.readline()
        for port in PORTS:
            gateways.end(port, signal.SIGKILL)
        with pytest.raises((IncompleteRead, ConnectionError)):
            stream.read()
    assert gateways.ask(gateways.secret).status == 502
