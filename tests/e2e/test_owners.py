"""What docs/owners.md says, on a real node: terms hold, through a crash, and their owner sees their use."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manyminds.attribution import most_nats
from manyminds.ledger import Ledger
from tests.e2e.node import served, wait_until
from tests.e2e.test_keys import upstream

__all__ = ["upstream"]  # a fixture

PAGE = (Path(__file__).parents[2] / "docs/owners.md").read_text()
BUDGET = 450.0  # enough for some eighty answers of which it is all


def written(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, upstream: str) -> Path:
    """A home with the page's own configuration; only where the model answers is another place."""
    (made,) = written("toml")
    made = made.replace("http://127.0.0.1:11434/v1", upstream)
    other = f'[[expert]]\nname = "other"\nurl = "{upstream}"\n'
    (tmp_path / "manyminds.toml").write_text(f'[local]\ntier = "none"\n{made}{other}')
    return tmp_path


def command(folder: Path, *words: str) -> str:
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    line = [sys.executable, "-m", "manyminds", *words]
    return subprocess.run(line, capture_output=True, check=True, env=environ, cwd=folder, text=True).stdout


def ask(url: str, secret: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Status and reply; 0 where the connection broke."""
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status), json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


def test_an_owner_s_page_does_what_it_says(folder: Path) -> None:
    commands = [line.split()[1:] for block in written("sh") for line in block.splitlines()]
    before, after = commands[: commands.index(["serve"])], commands[commands.index(["serve"]) + 1 :]
    said = [command(folder, *words, *(["--json"] if "--json" not in words else [])) for words in before]
    secret = json.loads(said[-1])["key"]
    body = json.loads(written("json")[0])
    with served(folder) as node:
        status, reply = ask(node.url, secret, body)
        assert status == 200, reply
        assert reply["choices"][0]["message"]["content"] == "43"
        (line,) = reply["manyminds"]["granted"]
        assert (line["source"], line["wish"], line["purpose"]) == ("ann", "require", "research")
        (owed,) = [owed for owed in reply["manyminds"]["attribution"] if owed["source"] == "ann"]
        assert 0 < owed["divergence"] <= line["nats"]
        assert owed["share"] <= line["max_share"] == 0.6
        status, reply = ask(node.url, secret, body | {"model": "leafy", "manyminds": {"purpose": "ads"}})
        assert (status, "research, teaching only" in reply["error"]["message"]) == (403, True)
        assert ask(node.url, "nobody", body)[0] == 403
    used, back = after[:2], after[2:]
    for words in used:
        rows = json.loads(command(folder, *words, *(["--json"] if "--json" not in words else [])))
        ann = next(row for row in rows if row["source"] == "ann")
        assert [use["purpose"] for use in ann["purposes"]] == ["research"]
        assert ann["nats"] == pytest.approx(owed["divergence"])
        assert ann["budget_spent_nats"] == pytest.approx(owed["divergence"], abs=1e-8)
    with served(folder) as node:
        assert ask(node.url, secret, body)[0] == 200
        removed, proof = (json.loads(command(folder, *words, "--json")) for words in back)
        assert "leafy" in json.dumps(removed)
        assert {(row["expert"], row["source"]) for row in proof} >= {("leafy", "ann")}
        assert wait_until(lambda: ask(node.url, secret, body)[0] != 200)
        assert ask(node.url, secret, body | {"manyminds": {"purpose": "research"}})[0] == 200  # of the other


def books(folder: Path) -> tuple[float, float]:
    """Of the source: nats that are leased, and those of its recorded answers."""
    with closing(Ledger(f"sqlite:///{folder / 'home' / 'ledger.db'}")) as ledger:
        return ledger.leased("source:a", "total") / 1e9, sum(row["nats"] for row in ledger.sources())


def crowd(url: str, questions: int) -> list[int]:
    body = {"model": "a", "messages": [{"role": "user", "content": "17 + 26?"}]}
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: ask(url, "", body)[0], range(questions)))


def test_killed_under_load_it_has_moved_no_more_than_it_may(tmp_path: Path, upstream: str) -> None:
    (tmp_path / "manyminds.toml").write_text(
        f'[local]\ntier = "none"\n[[expert]]\nname = "a"\nurl = "{upstream}"\n'
        f'budget_nats = {BUDGET}\nperiod = "total"\n'
    )
    with served(tmp_path) as node:
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(crowd, node.url, 60)
            with closing(Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}")) as ledger:
                assert wait_until(lambda: len(ledger.requests(10)) > 3)
            node.process.send_signal(signal.SIGKILL)
            answered = asking.result().count(200)
        node.process.wait(timeout=20)
    leased, recorded = books(tmp_path)
    assert recorded <= leased <= BUDGET
    assert answered * 5.0 <= leased, "it answered with nats that it had not leased"
    with served(tmp_path) as node:
        statuses = crowd(node.url, 80)
    after, spent = books(tmp_path)
    assert set(statuses) == {200, 429}
    assert spent <= after <= BUDGET
    assert after > BUDGET - most_nats(1) - 1e-6 or spent > BUDGET / 2
