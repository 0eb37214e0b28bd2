"""OpenAI's client asks the real process for vectors: by an expert, and by the node's own encoder."""

import json
import sqlite3
import struct
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conformance.upstream import Part, Upstream, running
from tests.e2e.node import Served, served, wait_until
from tests.experts.upstream import plain
from tests.pulled import ENCODER, needs_encoder

NUMBERS = (0.25, -1.5, 3.0)  # binary fractions: the same as float32
CONFIG = """
[[expert]]
name = "vec"
url = "{url}"
model = "up"
price_in_usd_per_m = 2.0
offers = ["embeddings"]

[aliases]
"text-embedding-3-large" = "vec"
"text-embedding-3-small" = "{encoder}"
"""


def embeds(body: dict[str, Any]) -> Sequence[Part]:
    """The same vector for each input, in the format that is asked for."""
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    packed = b64encode(struct.pack("<3f", *NUMBERS)).decode()
    row = packed if body.get("encoding_format") == "base64" else list(NUMBERS)
    data = [{"object": "embedding", "index": i, "embedding": row} for i in range(len(inputs))]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return [plain(json.dumps({"object": "list", "data": data, "model": "up-1", "usage": usage}).encode())]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as found:
        found.play(embeds)
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def node(upstream: Upstream, folder: Path) -> Iterator[Served]:
    (folder / "manyminds.toml").write_text(CONFIG.format(url=upstream.url, encoder=ENCODER))
    with served(folder, "--tier", "none") as found:
        yield found


@pytest.fixture
def client(node: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=node.url, api_key="any", max_retries=0, timeout=20) as made:
        yield made


@pytest.mark.parametrize("model", ["vec", "text-embedding-3-large"])
@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_an_expert_embeds(
    client: openai.OpenAI, upstream: Upstream, model: str, more: dict[str, Any]
) -> None:
    upstream.play(embeds)
    found = client.embeddings.create(model=model, input="x", dimensions=3, user="ann", **more)
    packed = b64encode(struct.pack("<3f", *NUMBERS)).decode()
    expected = packed if more.get("encoding_format") == "base64" else list(NUMBERS)  # as the client leaves it
    assert found.data[0].embedding == expected
    assert (found.model, found.usage.prompt_tokens) == ("up-1", 5)
    (asked,) = upstream.asked
    asking = {"input": "x", "dimensions": 3, "user": "ann", "encoding_format": "base64"} | more
    assert asked.body == asking | {"model": "up"}


@pytest.mark.parametrize("given", [["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_an_expert_takes_what_the_caller_sends(client: openai.OpenAI, upstream: Upstream, given: Any) -> None:
    upstream.play(embeds)
    client.embeddings.create(model="vec", input=given)
    assert [asked.body["input"] for asked in upstream.asked] == [given]


@needs_encoder
@pytest.mark.parametrize("model", ["auto", ENCODER, "text-embedding-3-small"])
def test_the_encoder_embeds(client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.play(embeds)
    packed = client.embeddings.create(model=model, input="x")  # for which the client asks base64
    plainly = client.embeddings.create(model=model, input="x", encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plainly.data[0].embedding, abs=1e-7)
    assert (len(plainly.data[0].embedding), plainly.model) == (384, ENCODER)
    assert upstream.asked == []


def test_it_is_listed_and_answers_nothing_else(client: openai.OpenAI) -> None:
    assert {"vec", "text-embedding-3-large", "text-embedding-3-small"} <= {m.id for m in client.models.list()}
    with pytest.raises(openai.UnprocessableEntityError, match="makes vectors only"):
        client.chat.completions.create(model="vec", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.UnprocessableEntityError, match="makes vectors only"):
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.NotFoundError, match=f"{ENCODER}, vec"):
        client.embeddings.create(model="nobody", input="x")


def test_it_is_in_the_log_the_figures_and_the_ledger(
    client: openai.OpenAI, upstream: Upstream, node: Served, folder: Path
) -> None:
    upstream.play(embeds)
    reply = client.embeddings.with_raw_response.create(model="vec", input="x")
    name = reply.headers["x-request-id"]
    assert wait_until(lambda: name in (folder / "serve.log").read_text())
    (line,) = [line for line in (folder / "serve.log").read_text().splitlines() if name in line]
    for field in ("endpoint=/v1/embeddings", "policy=pass", "status=200", "tokens_in=5", "cost_usd=0.000010"):
        assert field in line
    figures = client.with_options(base_url=node.url.removesuffix("/v1")).get("/metrics", cast_to=str)
    assert 'manyminds_requests_total{endpoint="/v1/embeddings",policy="pass",status="200"}' in figures

    def rows() -> list[Any]:
        with closing(sqlite3.connect(folder / "home" / "ledger.db")) as ledger:
            asking = "SELECT status, cost_usd FROM requests WHERE request_id = ?"
            return ledger.execute(asking, [name]).fetchall()

    assert wait_until(rows)
    assert rows() == [("ok", pytest.approx(1e-5))]
