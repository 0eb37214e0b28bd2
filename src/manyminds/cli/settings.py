"""What every command shares: reading the configuration, and printing JSON."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from manyminds.config import Config

__all__ = ["as_json", "print_json", "read"]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""The option that every command has."""


def read(file: str | None, flags: Mapping[str, Any]) -> "Config":
    """The configuration under these flags. Raises: ConfigError."""
    from manyminds.config import load

    return load(Path(file) if file else None, os.environ, flags)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
