"""Schemathesis on this node's own OpenAPI document, against the real process: it finds nothing.

`TEST_SCHEMATHESIS=2000 pytest tests/e2e/test_schemathesis.py` makes so many requests an endpoint, not 30.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyminds import catalog
from tests.conformance.edge import OFFERS
from tests.conformance.upstream import Upstream, running, says
from tests.e2e.node import Served, served
from tests.pulled import ENCODER, HOME

EXAMPLES = int(os.environ.get("TEST_SCHEMATHESIS") or 30)
POSITIVE = [200, 401, 403, 404, 409, 422, 429]  # of what is well-formed: there may still be nobody for it
CONFIG = f"""
hooks = "{Path(__file__).with_name("schemathesis_hooks.py")}"

[checks]
positive_data_acceptance.expected-statuses = {POSITIVE}

[generation]
database = "none"
"""

pytestmark = [
    pytest.mark.timeout(120 + EXAMPLES * 5),
    pytest.mark.skipif(
        importlib.util.find_spec("schemathesis") is None, reason="needs schemathesis, see [dev]"
    ),
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as found:
        found.play(says("Cats", " purr."))
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schemathesis")


@pytest.fixture(scope="module")
def node(folder: Path, upstream: Upstream) -> Iterator[Served]:
    tables = [
        f'[[expert]]\nname = "{n}"\nurl = "{upstream.url}"\noffers = {OFFERS}\n' for n in ("a", "b", "c")
    ]
    tables += [f'[[expert]]\nname = "plain"\nurl = "{upstream.url}"\n']
    (folder / "manyminds.toml").write_text("\n".join(tables))
    with served(folder, "--tier", "none") as found:
        yield found


def test_it_finds_nothing(node: Served, folder: Path) -> None:
    document = node.get("/openapi.json")
    del document["paths"]["/v1/admin/events"]  # which never ends
    del document["paths"]["/v1/admin/add"]  # which asks whatever URL is drawn
    if catalog.missing(HOME, catalog.find(ENCODER)):
        del document["paths"]["/v1/embeddings"]
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        "schemathesis.toml",
        "run",
        "openapi.json",
    ]
    flags = ["--url", node.url.removesuffix("/v1"), "--checks", "all", "--max-examples", str(EXAMPLES)]
    flags += ["--seed", "1", "--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color"]
    flags += ["--suppress-health-check", "all"]
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run([*command, *flags], cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in (folder / "serve.log").read_text()
    assert node.get("/health/live") == {"status": "live"}
