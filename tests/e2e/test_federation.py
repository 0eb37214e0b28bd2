"""Two organisations, as docs/network.md says: HTTPS, nginx in between, prices and caps in both directions."""

import getpass
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.node import Served, wait_until
from tests.e2e.test_network import Nodes, ask, expert, manyminds, model, seen
from tests.e2e.test_proxy import listens
from tests.web.test_tls import made

PAGE = Path(__file__).resolve().parents[2] / "docs/network.md"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


@contextmanager
def proxied(url: str, folder: Path, cert: Path, key: Path) -> Iterator[str]:
    """nginx with HTTPS and the page's `location` before a node, until the block ends: its URL."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (location,) = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    folder.mkdir()
    settings = folder / "nginx.conf"
    settings.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; user {getpass.getuser()}; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n"
        f"{location.replace('http://127.0.0.1:8000', url)} }} }}\n"
    )
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(["nginx", "-e", "stderr", "-c", str(settings)], stdout=log, stderr=log)
    try:
        assert wait_until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def stream(node: Served, name: str) -> tuple[HTTPConnection, "object"]:
    connection = HTTPConnection(node.url.split("/")[2], timeout=8)
    body = {"model": name, "stream": True, "max_tokens": 100}
    body["messages"] = [{"role": "user", "content": "go on"}]
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    return connection, connection.getresponse()


def test_organisations_agree_ask_and_settle(tmp_path: Path, nodes: Nodes) -> None:
    cert, key = made(tmp_path, "proxy")
    with model("first second third", waits=True) as hesitant, ExitStack() as stack:
        answers = nodes.start(
            "answers",
            '[network]\nname = "acme"\nanswers = "listed"\nurl = "https://localhost"\n'
            "price_in_usd_per_m = 10.0\nprice_out_usd_per_m = 20.0\n" + expert("sage", hesitant.url),
        )
        url = stack.enter_context(proxied(answers.url.removesuffix("/v1"), tmp_path / "nginx", cert, key))
        trusting = {"SSL_CERT_FILE": str(cert)}
        asks = nodes.start("asks", '[network]\nname = "us"\nurl = "https://localhost:1"\n', trusting)
        agreed = manyminds(
            tmp_path / "asks", "federate", url, "--pay-usd", "0.1", "--name", "acme", env=trusting
        )
        assert agreed["card"]["price_out_usd_per_m"] == 20.0
        assert wait_until(lambda: seen(asks) == {"acme"}), nodes.said("asks")

        body = {"model": "acme", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
        stranger = ask(asks, body)
        assert "ask its owner to list" in stranger["error"]["message"]
        manyminds(tmp_path / "answers", "federate", agreed["own_id"], "--name", "us", "--owe-usd", "0.004")
        assert wait_until(lambda: "was read anew" in nodes.said("answers"))

        connection, reply = stream(asks, "acme")
        assert b"first" in reply.readline()  # type: ignore[attr-defined]  # while there is no more
        hesitant.more.set()
        rest = reply.read()  # type: ignore[attr-defined]
        connection.close()
        assert b"third" in rest
        assert b"[DONE]" in rest

        def settled() -> float:
            (owed,) = manyminds(tmp_path / "asks", "ledger", "settle")
            return float(owed["asked_usd"])

        assert settled() == pytest.approx((20 * 10 + 3 * 20) / 1e6)  # as the model counts its tokens
        errors = [ask(asks, body).get("error") for _ in range(9)]
        assert errors[0] is None
        assert errors[-1] is not None, errors
        assert settled() <= 0.004  # what the other side lets this one owe
        (due,) = manyminds(tmp_path / "answers", "ledger", "settle")
        assert due["answered_usd"] == pytest.approx(settled())
    for name in ("answers", "asks"):
        assert "Traceback" not in nodes.said(name)
