"""Stories in tests/golden, byte for byte: what was asked, what was sent back, what the ledger says.

`python -m tests.test_golden` writes them anew; read the difference before you commit it.
"""

import json
import re
import tempfile
from pathlib import Path

import pytest

from manyminds.experts.scripted import Script
from manyminds.ledger import Ledger
from manyminds.router.policy import POLICIES
from manyminds.web.app import App, Edge
from tests.clock import run
from tests.network import network, scripted
from tests.web.client import Reply, call

GOLDEN = Path(__file__).parent / "golden"
STORIES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def told(story: str, folder: Path) -> dict[str, bytes]:
    """Plays a story: the files beside its request, by name."""
    experts = [
        scripted("ada", Script(text="The answer is B.", first_token_s=0.25, per_chunk_s=0.125), accuracy=0.8),
        scripted("bob", Script(text="B) Canberra", first_token_s=0.5, per_chunk_s=0.125), accuracy=0.75),
        scripted("cutter", Script(text="A) Sydney is the capital", cut_after=3), accuracy=0.6),
    ]
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    gateway = network(*experts, records=ledger)
    edge = Edge(gateway, POLICIES, lambda: [e.card for e in experts], lambda: True, 1_000_000)
    request = (GOLDEN / story / "request.json").read_bytes()
    reply = run(call(App(edge), "POST", "/v1/chat/completions", request))
    rows = ledger.requests()
    ledger.close()
    return {
        "reply.http": _settled(_http(reply)),
        "ledger.json": _settled(json.dumps(rows, indent=1).encode() + b"\n"),
    }


def _http(reply: Reply) -> bytes:
    head = "".join(f"{name}: {value}\n" for name, value in sorted(reply.headers.items()))
    return f"{reply.status}\n{head}\n".encode() + reply.body


def _settled(text: bytes) -> bytes:
    """Without what differs from run to run: the request's id and the time of day."""
    text = re.sub(rb"\b[0-9a-f]{24}\b", b"ID", text)
    text = re.sub(rb'"created":[0-9]+', b'"created":0', text)
    text = re.sub(rb"content-length: [0-9]+", b"content-length: N", text)
    text = re.sub(rb"\ndate: [^\n]+", b"", text)
    return re.sub(rb'("at_utc": )"[^"]*"', rb'\1"NOW"', text)


@pytest.mark.parametrize("story", STORIES)
def test_story_is_as_it_was(story: str, tmp_path: Path) -> None:
    for name, text in told(story, tmp_path).items():
        assert text.decode() == (GOLDEN / story / name).read_text()


if __name__ == "__main__":
    for told_story in STORIES:
        with tempfile.TemporaryDirectory() as scratch:
            for file, content in told(told_story, Path(scratch)).items():
                (GOLDEN / told_story / file).write_bytes(content)
