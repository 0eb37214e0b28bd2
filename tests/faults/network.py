"""A node before an upstream that misbehaves, both real processes; and what is left of each afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from manyminds.admission import digest, new_secret
from manyminds.ledger import Ledger
from manyminds.types import Key
from tests.conformance.edge import Got, address, data, post
from tests.e2e.node import Served, wait_until

__all__ = [
    "HI",
    "WORD_USD",
    "Begun",
    "Books",
    "Client",
    "Faulty",
    "Load",
    "books",
    "configured",
    "crowd",
    "figure",
    "idle",
    "logged",
    "made",
    "name_of",
    "sockets",
    "upstream",
]

HI = [{"role": "user", "content": "How are you?"}]
WORD_USD = 0.001
"""What experts take for a token that they write; what they read is free."""


# --- upstream --------------------------------------------------------------------------------------


class Faulty:
    """The process of `upstream.py`. It can be killed, and started again on its port."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("upstream.py")), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As when its machine loses power, but that its connections are seen to close."""
        self._process.kill()
        self._process.wait(timeout=20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stats(self) -> dict[str, Any]:
        """See `upstream.py`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def asked(self, model: str) -> int:
        return int(self.stats()["asked"].get(model, 0))


@contextmanager
def upstream() -> Iterator[Faulty]:
    started = Faulty()
    try:
        yield started
    finally:
        started.kill()


# --- the node --------------------------------------------------------------------------------------


def name_of(model: str) -> str:
    """What callers call an expert: "busy-2" of the model "busy=2"."""
    return model.replace("=", "-")


def configured(folder: Path, faulty: Faulty, models: Iterable[str], settings: str = "") -> None:
    """Writes a configuration with an expert of its own for every model."""
    tables = [settings]
    for model in models:
        tables.append(
            f'[[expert]]\nname = "{name_of(model)}"\nmodel = "{model}"\nprice_out_usd_per_m = 1000.0\n'
            f'url = "http://127.0.0.1:{faulty.port}/v1"\n'
        )
    (folder / "manyminds.toml").write_text("\n".join(tables))


def made(url: str, budget_usd: float | None = None) -> tuple[str, str]:
    """A new key in that ledger, with a budget for ever or none: its id and its secret."""
    secret = new_secret()
    key = Key(f"key_{secret[-6:]}", "ann", budget_usd=budget_usd, period="total")
    with closing(Ledger(url)) as ledger:
        ledger.add_key(key, digest(secret))
    return key.id, secret


def figure(node: Served, name: str) -> float:
    """A figure without labels."""
    with urllib.request.urlopen(f"{node.url.removesuffix('/v1')}/metrics", timeout=10) as reply:
        found = re.search(rf"^manyminds_{name} (\S+)$", reply.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def sockets(pid: int) -> int:
    """Open sockets of a process."""
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(file).startswith("socket:")
        except FileNotFoundError:  # it has just been closed
            continue
    return found


def idle(node: Served, *upstreams: Faulty) -> bool:
    """Whether nobody is at work for anybody: no request in the node, none at its upstreams."""
    return figure(node, "in_flight") == 0 and not any(faulty.stats()["under_way"] for faulty in upstreams)


def logged(folder: Path) -> str:
    return (folder / "serve.log").read_text()


# --- clients ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begun:
    """A reply that is on its way. To be ended."""

    connection: HTTPConnection
    reply: HTTPResponse

    def end(self) -> Got | None:
        """Waits for the rest. None where the connection breaks."""
        headers = {name.lower(): value for name, value in self.reply.getheaders()}
        try:
            return Got(self.reply.status, headers, self.reply.read())
        except (OSError, HTTPException):
            return None
        finally:
            self.reply.close()
            self.connection.close()


@dataclass(frozen=True)
class Client:
    """Asks a node with a key, and keeps the ids of all replies."""

    node: Served
    secret: str
    ids: list[str] = field(default_factory=list)

    def begin(self, model: str) -> "Begun":
        """A stream whose first word has come."""
        connection = HTTPConnection(*address(self.node), timeout=30)
        body = {"model": model, "messages": HI, "max_tokens": 10, "stream": True}
        headers = {"authorization": f"Bearer {self.secret}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        begun = Begun(connection, connection.getresponse())
        self.ids.append(begun.reply.headers["x-request-id"])
        return begun

    def ask(self, model: str, *, stream: bool = False, **more: Any) -> Got | None:
        """What comes back; None where the connection broke before all of it had come."""
        body: dict[str, Any] = {"model": model, "messages": HI, "max_tokens": 10, "stream": stream}
        try:
            got = post(self.node, body | more, authorization=f"Bearer {self.secret}")
        except (OSError, HTTPException):
            return None
        self.ids.append(got.headers["x-request-id"])
        return got

    def error(self, got: Got) -> dict[str, Any]:
        """Of a reply that is an error, or of a stream that ends with one and has no finish."""
        if got.status != 200:
            return got.error
        *events, last = data(got.body)
        assert not any(choice["finish_reason"] for event in events for choice in event["choices"])
        found: dict[str, Any] = last["error"]
        return found


def crowd(client: Client, asked: Sequence[Mapping[str, Any]], threads: int = 8) -> list[Got | None]:
    """The replies to these requests, so many at a time, in their order."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda more: client.ask(**more), asked))


# --- the ledger ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Books:
    """What a ledger says of a key: its requests by their id, and what is leased of its budget."""

    rows: Mapping[str, Mapping[str, Any]]
    count: int  # of rows, also where two have one id
    leased_usd: float

    @property
    def spent_usd(self) -> float:
        return float(sum(row["cost_usd"] for row in self.rows.values()))


def books(url: str, key_id: str) -> Books:
    with closing(Ledger(url)) as ledger:
        rows = ledger.requests(100_000, key=key_id)
        leased_usd = ledger.leased(key_id, "total") / 1e9
    return Books({row["request_id"]: row for row in rows}, len(rows), leased_usd)


class Load:
    """Clients that ask without a pause until the block ends. `replies` are theirs, by their names."""

    def __init__(self, clients: Mapping[str, Client], model: str, threads: int = 3) -> None:
        self.replies: dict[str, list[Got]] = {name: [] for name in clients}
        self.broken = 0  # connections
        self._clients, self._model, self._threads = clients, model, threads
        self._over = threading.Event()

    def __enter__(self) -> "Load":
        self._pool = ThreadPoolExecutor(len(self._clients) * self._threads)
        self._working = [
            self._pool.submit(self._work, name) for name in self._clients for _ in range(self._threads)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for work in self._working:
            work.result()

    def _work(self, name: str) -> None:
        while not self._over.is_set():
            got = self._clients[name].ask(self._model)
            if got is None:
                self.broken += 1
            else:
                self.replies[name].append(got)

    def count(self, name: str, status: int = 200) -> int:
        return sum(got.status == status for got in list(self.replies[name]))

    def more(self, name: str, status: int = 200, times: int = 10) -> bool:
        """Waits for as many more replies of that status."""
        before = self.count(name, status)
        return wait_until(lambda: self.count(name, status) >= before + times)

    def ids(self, name: str) -> list[str]:
        """Of the replies that are answers."""
        return [got.headers["x-request-id"] for got in self.replies[name] if got.status == 200]
