import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from manyminds.ledger import Ledger
from tests.ledger.postgres import Server, binaries, served


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """PostgreSQL, where it is installed; TEST_POSTGRES=require makes it fail where it is not."""
    found = binaries()
    if found is None:
        said = "PostgreSQL is not installed: apt install postgresql"
        if os.environ.get("TEST_POSTGRES") == "require":
            pytest.fail(said)
        pytest.skip(said)
    with served(found) as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/ledger.db"
    server: Server = request.getfixturevalue("server")
    return server.new()


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with closing(Ledger(url)) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ledger.db"
