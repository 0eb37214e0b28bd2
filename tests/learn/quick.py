"""Training for tests that look at something else than at how well votes are weighed."""

from importlib import import_module

import pytest

__all__ = ["weigh_quickly"]


def weigh_quickly(patch: pytest.MonkeyPatch) -> None:
    """Training tries two ways to weigh votes, not all of them, which takes a third of the time or less."""
    train = import_module("manyminds.learn.train")
    patch.setattr(train, "COMPLEXITIES", train.COMPLEXITIES[1:3])
    patch.setattr(train, "FINER", ())
