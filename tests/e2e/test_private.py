"""Private answers of a real node: what its reply and books tell, and that no source ever tells too much."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from manyminds.ledger import Ledger
from manyminds.node import ACCOUNTS
from manyminds.privacy.accounting import most_rho
from tests.conformance.upstream import Upstream, running, says
from tests.e2e.node import served, wait_until

COUNT = 14
CHOICE = "Which is the capital of Australia?\nA) Sydney\nB) Canberra"
SECRET = "a word that only sources say"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running() as found:
        found.play(says(f"{SECRET}. The answer is B."))
        yield found


@pytest.fixture
def folder(tmp_path: Path, upstream: Upstream) -> Path:
    experts = "".join(
        f'[[expert]]\nname = "e{i:02}"\nurl = "{upstream.url}"\nprice_out_usd_per_m = 1.0\n'
        for i in range(COUNT)
    )
    (tmp_path / "manyminds.toml").write_text(f'[local]\ntier = "none"\n{experts}')
    return tmp_path


def ask(url: str, **limits: Any) -> tuple[int, Any]:
    """The status of one private question, 0 where the connection broke, and its reply."""
    body = {
        "model": "private",
        "messages": [{"role": "user", "content": CHOICE}],
        "max_tokens": 30,
        "manyminds": limits,
    }
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status), json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


def spent(folder: Path) -> dict[str, float]:
    """ρ that the ledger says each source has spent."""
    ledger = Ledger(f"sqlite:///{folder / 'home' / 'ledger.db'}")
    try:
        return {source: amount / 1e9 for source, amount in ledger.accounts(ACCOUNTS).items()}
    finally:
        ledger.close()


def manyminds(folder: Path, *words: str) -> str:
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "manyminds", *words]
    return subprocess.run(command, capture_output=True, check=True, env=environ, cwd=folder, text=True).stdout


def test_reply_logs_and_books_tell_nothing_of_any_source(folder: Path, upstream: Upstream) -> None:
    with served(folder, "--tier", "none") as node:
        status, reply = ask(node.url, epsilon=8.0)
        assert status == 200, reply
        assert reply["choices"][0]["message"]["content"] in ("A) Sydney", "B) Canberra")
        assert reply["manyminds"].keys() == {"request_id", "policy", "privacy"}
        assert reply["manyminds"]["privacy"] == {"epsilon": 8.0, "delta": 1e-6, "polled": COUNT}
        assert len(upstream.asked) == COUNT
        request_id = reply["manyminds"]["request_id"]
        with urllib.request.urlopen(node.url.removesuffix("/v1") + "/metrics", timeout=10) as response:
            figures = response.read().decode()
        shown = json.loads(manyminds(folder, "ledger", "show", "--json"))
    assert not [line for line in figures.splitlines() if "e00" in line and not line.endswith((" 0", " 0.0"))]
    ((row),) = [row for row in shown if row["request_id"] == request_id]
    assert row["calls"] == []
    assert (row["policy"], row["cost_usd"], row["probability"]) == ("private", 0.0, None)
    log = (folder / "serve.log").read_text()
    assert SECRET not in log
    assert SECRET.encode() not in (folder / "home" / "ledger.db").read_bytes()


def test_no_source_tells_more_than_its_account_whatever_happens(folder: Path) -> None:
    """Two gateways on one ledger, a crowd at both, one killed in the midst, and all of it again."""
    most = most_rho(8.0, 1e-6)
    answered = 0
    with served(folder, "--tier", "none") as one, served(folder, "--tier", "none") as other:
        with ThreadPoolExecutor(8) as crowd:
            asked = [crowd.submit(ask, url, epsilon=4.0) for url in (one.url, other.url) * 4]
            assert wait_until(lambda: any(future.done() for future in asked))
            os.kill(one.pid, signal.SIGKILL)
            answered += sum(future.result()[0] == 200 for future in asked)
        assert all(rho <= most for rho in spent(folder).values())
    with served(folder, "--tier", "none") as again:
        while (status := ask(again.url, epsilon=4.0))[0] == 200:
            answered += 1
        assert status[0] == 422
        assert "have not that much left" in status[1]["error"]["message"]
    once = most_rho(4.0, 1e-6)
    assert answered * once <= most
    assert all(answered * once * (1 - 1e-6) <= rho <= most for rho in spent(folder).values())
    (first, *_) = rows = json.loads(manyminds(folder, "ledger", "privacy", "--json"))
    assert len(rows) == COUNT
    assert 0 < first["epsilon"] <= first["most_epsilon"] == 8.0


def test_few_sources_are_told_how_many_it_takes(folder: Path) -> None:
    with served(folder, "--tier", "none") as node:
        status, reply = ask(node.url, epsilon=1.0)
    assert status == 422
    assert reply["error"]["code"] == "privacy_refused"
    assert "14 sources" in reply["error"]["message"]
    assert "It takes 43" in reply["error"]["message"]


def test_the_command_asks_privately(folder: Path) -> None:
    words = ["ask", "--tier", "none", "-m", "private", "--epsilon", "8", "--candidate", "yes", "--candidate"]
    told = json.loads(manyminds(folder, *words, "no", "--json", "Do cats purr?"))
    assert told["answer"] in ("yes", "no")
    assert told["manyminds"]["privacy"]["polled"] == COUNT
