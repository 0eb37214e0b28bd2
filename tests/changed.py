"""A changed copy of whatever is frozen."""

import dataclasses
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def replace(thing: T, **changes: Any) -> T:
    """As `dataclasses.replace`, and as that of `msgspec.structs` for what is one of those."""
    if isinstance(thing, msgspec.Struct):
        return msgspec.structs.replace(thing, **changes)
    changed: T = dataclasses.replace(thing, **changes)  # type: ignore[type-var]
    return changed
