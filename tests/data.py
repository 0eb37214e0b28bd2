"""Recorded sets, for tests that need whole ones; they are no part of the repository."""

from pathlib import Path

import pytest

__all__ = ["recorded"]


def recorded(name: str) -> Path:
    """The set's folder, ../shared/data/NAME from the repository's root; without it the test is skipped."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs the recorded set ../shared/data/{name}, which is not part of the repository")
    return folder
