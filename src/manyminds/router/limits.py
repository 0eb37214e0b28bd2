"""Who may be asked at all: the hard limits of a request, which no policy passes. Pure.

Knows cards, and of predictions no more than what an answer costs and when it begins.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from manyminds.errors import NoExpertError
from manyminds.router.predictor import Load, Prediction, source_of
from manyminds.types import Card, Limits, Query, Task

__all__ = ["affordable", "eligible", "suits", "weight_of"]

_PARAMS = {
    "embeddings": "model",
    "json_schema": "response_format",
    "image": "messages",
    "citations": "manyminds.grounded",
}  # request field of a demand, if not its name
_NO_DOCUMENTS = (
    " Nobody of them answers from documents: give this network an expert that does, join one that has some,"
    " or leave `manyminds.grounded` out."
)
_SHOWN = 8  # experts that an error names


def eligible(cards: Sequence[Card], query: Query, limits: Limits, load: Load) -> list[Card]:
    """The cards that meet every hard limit but the price, by name.

    Raises: NoExpertError that says which limit ruled out whom; `param` is the last one's field.
    """
    left = sorted(cards, key=lambda card: card.name)
    if not left:
        raise NoExpertError("No expert can be asked now: add one, or wait for one to come back.")
    lost: list[str] = []
    for param, complaint in _rules(query, limits, load):
        judged = [(card, complaint(card)) for card in left]
        lost += [f"{card.name} {what}" for card, what in judged if what]
        left = [card for card, what in judged if not what]
        if not left:
            more = _NO_DOCUMENTS if param == _PARAMS["citations"] else ""
            raise NoExpertError(_nobody(lost) + more, param=param)
    return left


def suits(card: Card, query: Query) -> bool:
    """Whether it offers what is demanded: an embedding model vectors, all others anything else."""
    return query.demands <= card.offers and ("embeddings" in card.offers) == ("embeddings" in query.demands)


def affordable(predictions: Sequence[Prediction], limits: Limits) -> list[Prediction]:
    """Those within the budget, and likely to start before the deadline unless nobody is.

    Raises: NoExpertError when nobody is within the budget.
    """
    left = list(predictions)
    if (budget := limits.budget_usd) is not None:
        left = [p for p in left if p.cost_usd <= budget]
        if not left:
            lost = [f"{p.card.name} would cost about ${p.cost_usd:.2g} of ${budget:.2g}" for p in predictions]
            raise NoExpertError(_nobody(lost), param="manyminds.budget_usd")
    if (deadline_s := limits.deadline_s) is not None:
        left = [p for p in left if p.ttft_s <= deadline_s] or left
    return left


_Rule = tuple[str, Callable[[Card], str]]  # request field; what is wrong with a card, "" where nothing is


def _rules(query: Query, limits: Limits, load: Load) -> list[_Rule]:
    include, exclude, needed = set(limits.include), set(limits.exclude), load.context_tokens

    def too_long(card: Card) -> str:
        fits = card.context_tokens >= needed
        return "" if fits else f"holds {card.context_tokens:,} tokens and this takes about {needed:,}"

    rules: list[_Rule] = []
    if "embeddings" not in query.demands:
        rules.append(("model", _only_embeds))
    if include:
        rules.append(("manyminds.include", lambda card: "" if _names(card) & include else "is not included"))
    if exclude:
        rules.append(("manyminds.exclude", lambda card: "is excluded" if _names(card) & exclude else ""))
    if limits.weights:
        rules.append(
            ("manyminds.weights", lambda card: "" if weight_of(card, limits.weights) > 0 else "has weight 0")
        )
    rules += [(_PARAMS.get(demand, demand), _lacks(demand)) for demand in sorted(query.demands)]
    if query.sampling.n > 1:
        rules.append(("n", _lacks("n")))
    return [*rules, ("messages", _answers_other(query.task)), ("messages", too_long)]


def _lacks(demand: str) -> Callable[[Card], str]:
    return lambda card: "" if demand in card.offers else f"does not offer {demand}"


def _answers_other(task: Task) -> Callable[[Card], str]:
    def complaint(card: Card) -> str:
        if not card.tasks or task.kind in card.tasks:
            return ""
        return f"only answers {', '.join(sorted(card.tasks))}, and this is {task.kind}"

    return complaint


def _only_embeds(card: Card) -> str:
    return "makes vectors only, at /v1/embeddings" if "embeddings" in card.offers else ""


def _names(card: Card) -> set[str]:
    """By which a caller may mean it: a way of asking an expert is meant where the expert is."""
    return {card.name, source_of(card), card.variant_of or card.name}


def weight_of(card: Card, weights: Mapping[str, float]) -> float:
    """The caller's multiplier: the product over its names, once where two are the same."""
    return math.prod(sorted(weights.get(name, 1.0) for name in _names(card))) if weights else 1.0


def _nobody(lost: Sequence[str]) -> str:
    more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    return f"No expert meets this request: {'; '.join(lost[:_SHOWN])}{more}."
