"""Whether a conclusion follows from statements about groups. Decides by all possible worlds."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Final

__all__ = ["follows"]

_STATEMENT: Final = re.compile(r"\b(All|No|Some) (\w+) are (not )?(\w+)")
_TERMS: Final = 3  # of n terms there are 2^(2^n - 1) worlds

_Kind = frozenset[str]
"""Someone, by the groups they are in."""


def follows(text: str) -> bool | None:
    """Whether the last of the statements "All / No / Some x are (not) y" follows from those before it.

    None where that depends on whether an empty group may be spoken of ("All unicorns are white", so some
    are), or where there is nothing to conclude from.
    """
    found = _STATEMENT.findall(text)
    terms = sorted({group for _, one, _, other in found for group in (one, other)})
    if len(found) < 2 or len(terms) > _TERMS:
        return None
    *premises, conclusion = [_meaning(*statement) for statement in found]
    worlds = [world for world in _worlds(terms) if all(premise(world) for premise in premises)]
    peopled = [world for world in worlds if all(any(term in kind for kind in world) for term in terms)]
    everywhere, where_peopled = (all(conclusion(world) for world in some) for some in (worlds, peopled))
    return everywhere if everywhere is where_peopled else None


def _meaning(quantifier: str, one: str, negated: str, other: str) -> Callable[[Sequence[_Kind]], bool]:
    """True of the worlds in which the statement holds."""

    def holds(world: Sequence[_Kind]) -> bool:
        inside = [(other in kind) is not bool(negated) for kind in world if one in kind]
        return (
            any(inside) if quantifier == "Some" else all(inside) if quantifier == "All" else not any(inside)
        )

    return holds


def _worlds(terms: Sequence[str]) -> Iterator[Sequence[_Kind]]:
    """Each set of kinds of people that may live in one."""
    kinds = [frozenset(some) for n in range(1, len(terms) + 1) for some in combinations(terms, n)]
    for n in range(len(kinds) + 1):
        yield from combinations(kinds, n)
