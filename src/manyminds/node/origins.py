"""Where an expert is known from: whether a command added it, a file names it, or it is the catalogue's."""

from typing import Literal, TypeAlias

from manyminds import catalog
from manyminds.config import ADDED, Config
from manyminds.types import Card

__all__ = ["Origin", "origin"]

Origin: TypeAlias = Literal["added", "file", "catalogue", "own", "peer"]
"""By a command; by a configuration file; a model of the catalogue; a file that was recorded; another node."""


def origin(card: Card, config: Config) -> Origin:
    """Of an expert of this configuration, or of a peer. Reads the records of own models."""
    if card.kind == "peer":
        return "peer"
    if card.name in {entry.name for entry in config.experts}:
        said = config.origins.get(f"expert.{card.name}.name", "")
        return "added" if said == f"file {config.home / ADDED}" else "file"
    return "catalogue" if card.name in catalog.load() else "own"
