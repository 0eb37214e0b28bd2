"""Experts that are kept, and asked by nobody until they are resumed: what that leaves, and who is told so.

Pure; knows no ledger, where it is written down who is paused.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from manyminds.errors import ManymindsError, ModelNotFoundError, PausedError, UnavailableError
from manyminds.types import Card, Expert, Query

__all__ = ["asked", "need_anybody", "need_known", "need_wanted", "refusal", "unknown"]


def asked(every: Mapping[str, Expert], paused: Collection[str]) -> dict[str, Expert]:
    """Those who are asked: nobody who is paused, in whatever way of asking. In the same order."""
    return {
        name: expert
        for name, expert in every.items()
        if name not in paused and (expert.card.variant_of or name) not in paused
    }


def refusal(name: str) -> PausedError:
    """What whoever asks it by name is told."""
    return PausedError(
        f"{name} is paused: nobody asks it until its owner has it resumed, with `manyminds experts resume "
        f"{name.partition(':')[0]}`."
    )


def unknown(
    query: Query, experts: Mapping[str, Expert], every: Mapping[str, Expert], policies: Collection[str]
) -> ManymindsError:
    """Why none of the models that a request names is asked.

    Args:
        query: the request.
        experts: those who are asked.
        every: those who are paused, too.
        policies: names that stand for no expert.
    """
    for name in (query.model, *query.fallbacks):
        if name in every and name not in experts:
            return refusal(name)
    known = ", ".join([*policies, *sorted(experts)])
    return ModelNotFoundError(f"No model is named {query.model!r:.80}. There are: {known}.", param="model")


def need_anybody(experts: Mapping[str, Expert], every: Mapping[str, Expert]) -> None:
    """Raises: UnavailableError where there is nobody to ask; PausedError where all are paused."""
    if experts:
        return
    if every:
        names = sorted({expert.card.variant_of or name for name, expert in every.items()})
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise PausedError(
            f"All experts of this network are paused ({some}): `manyminds experts resume NAME` has one of "
            "them asked again."
        )
    raise UnavailableError(
        "This network has no expert: set `local.tier` or add an `[[expert]]` to manyminds.toml."
    )


def need_known(name: str, known: Collection[str]) -> None:
    """Raises: ModelNotFoundError where nobody has that name, with the nearest of those whom there are."""
    if name in known:
        return
    base = name.rpartition(":")[0]
    if base in known:
        raise ModelNotFoundError(f"{name!r:.80} is a way of asking {base}: name {base} itself.", param="name")
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`manyminds experts list` shows all."
    raise ModelNotFoundError(f"No expert is named {name!r:.80}. {hint}", param="name")


def need_wanted(query: Query, experts: Mapping[str, Expert], every: Mapping[str, Expert]) -> None:
    """Raises: PausedError where whoever a request includes, or one whom it requires, is paused."""
    include, require = query.limits.include, query.limits.require
    if len(experts) == len(every) or not (include or require):
        return
    here = set().union(*(_called(expert.card) for expert in experts.values()))
    away = set().union(*(_called(every[name].card) for name in every.keys() - experts.keys())) - here
    for name in require:
        if name in away:
            raise refusal(name)
    if include and here.isdisjoint(include) and (paused := sorted(away.intersection(include))):
        raise refusal(paused[0])


def _called(card: Card) -> set[str]:
    return {card.name, card.source or card.name, card.variant_of or card.name}
