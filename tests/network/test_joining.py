"""Joining as docs/network.md says: on a LAN, and through an address where certificates say who gets in."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from manyminds.errors import ConfigError
from manyminds.network.identity import Identity
from manyminds.network.transport import Send
from manyminds.network.zenoh import LAN, Zenoh, settings
from tests.e2e.test_network import free_port
from tests.web.test_tls import made, openssl

pytestmark = pytest.mark.anyio
pytest.importorskip("zenoh", reason="needs Zenoh: pip install 'manyminds[net]'")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "network.md"
ANN, BOB, EVE = (Identity.of_seed(bytes([i]) * 32).id for i in (1, 2, 3))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def joined(
    node: str, seeds: list[str], listen: str = "", file: Path | None = None
) -> AsyncGenerator[Zenoh]:
    async def answer(sealed: bytes, send: Send) -> None:
        raise AssertionError("nobody asks here")

    async with Zenoh(node, settings(seeds, listen), answer, lambda ask, sealed: None, file) as way:
        way.announce(node.encode())
        yield way


async def sees(way: Zenoh, node: str, budget_s: float = 10.0) -> bool:
    try:
        async with asyncio.timeout(budget_s):
            async for sighting in way.watch():
                if sighting.node == node and sighting.card == node.encode():
                    return True
    except TimeoutError:
        pass
    return False


async def test_nodes_on_a_local_network_find_each_other() -> None:
    async with joined(ANN, [LAN]) as ann, joined(BOB, [LAN]) as bob:
        if not await sees(ann, BOB):
            pytest.skip("there is no multicast on this machine")
        assert await sees(bob, ANN)


async def test_who_has_no_certificate_does_not_get_in(tmp_path: Path) -> None:
    ca, ca_key = made(tmp_path, "ca", kind="rsa:2048")
    request, key, cert = (tmp_path / name for name in ("node.csr", "node.key.pem", "node.pem"))
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    names = tmp_path / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    signed = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", names)
    openssl("x509", "-req", "-in", request, *signed, "-out", cert)
    (block,) = re.findall(r"^```json5\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    file = tmp_path / "zenoh.json5"
    (tmp_path / "ca.pem").write_bytes(ca.read_bytes())
    file.write_text(block.replace("/etc/manyminds", str(tmp_path)))
    port = free_port()
    async with joined(ANN, [], f"tls/127.0.0.1:{port}", file) as ann:
        async with joined(BOB, [f"tls/localhost:{port}"], "", file) as bob:
            assert await sees(ann, BOB)
            assert await sees(bob, ANN)
        async with joined(EVE, [f"tls/localhost:{port}"]) as eve:
            assert not await sees(eve, ANN, 3.0)


async def test_settings_that_zenoh_does_not_take_are_named(tmp_path: Path) -> None:
    file = tmp_path / "zenoh.json5"
    file.write_text("{ no_such_key: 1 }")
    with pytest.raises(ConfigError, match="Cannot join other nodes"):
        async with joined(ANN, [], f"tcp/127.0.0.1:{free_port()}", file):
            pass
    with pytest.raises(ConfigError, match="Cannot join other nodes"):
        async with joined(ANN, ["nonsense"]):
            pass
