"""Other names for policies and experts, as clients know them that cannot be told ours."""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate

from msgspec.structs import replace

from manyminds.types import Query

__all__ = ["Aliases"]


class Aliases:
    """What callers' names stand for. A name that is known stands for itself, whatever the table says.

    Args:
        table: by name, or by a pattern with `*`, `?` or `[...]`: models in the order in which they are
            asked. Names come before patterns, patterns in their order. What they stand for is no alias.
        known: whether a policy or an expert has that name.
    """

    def __init__(self, table: Mapping[str, Sequence[str]], known: Callable[[str], bool]) -> None:
        self._exact = {name: tuple(targets) for name, targets in table.items() if not _is_pattern(name)}
        self._patterns = [
            (re.compile(translate(name)), tuple(targets))
            for name, targets in table.items()
            if _is_pattern(name)
        ]
        self._known = known

    @property
    def names(self) -> list[str]:
        """Those that can be listed: without patterns."""
        return sorted(self._exact)

    def targets(self, name: str) -> tuple[str, ...]:
        """What it stands for; itself, where it is no alias."""
        if self._known(name):
            return (name,)
        if (exact := self._exact.get(name)) is not None:
            return exact
        return next((targets for pattern, targets in self._patterns if pattern.match(name)), (name,))

    def resolve(self, query: Query) -> Query:
        """The query with names that this node knows, as far as it has them."""
        if not query.fallbacks and self._known(query.model):
            return query
        asked = [target for name in (query.model, *query.fallbacks) for target in self.targets(name)]
        first, *others = dict.fromkeys(asked)
        if first == query.model and tuple(others) == query.fallbacks:
            return query
        return replace(query, model=first, fallbacks=tuple(others))


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")
