"""Where commands are called: in folders of their own."""

from pathlib import Path

import pytest

from tests.pulled import ENCODER, lend, need


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory; the home in it is not there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANYMINDS_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, no model wanted."""
    monkeypatch.setenv("MANYMINDS_LOCAL_TIER", "none")
    return here


@pytest.fixture
def equipped(folder: Path) -> Path:
    """The module's own `folder`, whose home is in it, with the encoder."""
    need(ENCODER)
    lend(folder / "home", ENCODER)
    return folder
