"""The router: who is likely to be right at what price, and whom to ask in which order.

Goes by what an artefact holds; for experts of which it holds nothing, skills by similarity, and accuracy
and speed as claimed and then measured. Knows no transport and calls nobody.
"""

from collections.abc import Collection, Sequence

from manyminds.artefact import Artefact
from manyminds.index import Index
from manyminds.router.planner import Planner
from manyminds.router.policy import DIRECT, POLICIES, affordable, choose, direct, eligible, resolve, suits
from manyminds.router.predictor import (
    Evidence,
    Prediction,
    absorb,
    estimate_load,
    predict,
    predict_one,
    source_of,
)
from manyminds.types import Card, Embed, Limits, Outcome, Query, Route

__all__ = ["SkillRouter"]


class SkillRouter:
    """Keeps the contract of `types.Router`. What it learns of one expert touches no other.

    Args:
        index: where the skill vectors of admitted experts are placed; others may search it.
        embed: turns skills into vectors; without it, similarity counts for nothing.
        artefact: what was learnt of these experts, or of some of them.
    """

    def __init__(self, index: Index, embed: Embed | None = None, artefact: Artefact | None = None) -> None:
        parts = artefact.parts if artefact is not None else ()
        self._planners = {
            kind: planner for part in parts for planner in [Planner(part)] for kind in part.kinds
        }
        self._index = index
        self._embed = embed
        self._sources: dict[str, str] = {}  # of each admitted expert
        self._evidence: dict[str, Evidence] = {}

    def route(self, query: Query, candidates: Sequence[Card], limits: Limits) -> Route:
        """See `types.Router`. An expert that was never admitted is judged by its card.

        Raises: NoExpertError, InvalidRequestError for an unknown policy, ModelNotFoundError.
        """
        if len(candidates) == 1 and (alone := self._alone(query, candidates[0], limits)) is not None:
            return alone
        policy = resolve(query, candidates, limits)
        if policy == DIRECT:
            candidates = [card for card in candidates if card.name == query.model]
        load = estimate_load(query)
        cards = eligible(candidates, query, limits, load)
        similarity = {}
        names = [card.name for card in cards]
        planner = self._planners.get(query.task.kind)
        learnt = planner is not None and planner.knows(names)
        if query.vector is not None and not learnt:  # what was learnt takes its place
            similarity = self._index.similarity(query.vector, names)
        predictions: Sequence[Prediction] = predict(cards, self._evidence, similarity, load)
        if policy == DIRECT:
            return direct(affordable(predictions, limits)[0])
        if planner is not None:
            predictions = planner.informed(query, predictions)
        return choose(policy, query, affordable(predictions, limits), limits, load, planner)

    def _alone(self, query: Query, card: Card, limits: Limits) -> Route | None:
        """The route of an expert asked by name, with no limit that needs a closer look; the same, sooner."""
        if card.name != query.model or limits.policy not in (None, *POLICIES):
            return None
        if limits.include or limits.exclude or limits.weights:
            return None
        load = estimate_load(query)
        if not suits(card, query) or query.sampling.n > 1 or load.context_tokens > card.context_tokens:
            return None
        found = predict_one(card, self._evidence.get(card.name), load)
        if limits.budget_usd is not None and found.cost_usd > limits.budget_usd:
            return None
        return direct(found)

    def observe(self, outcome: Outcome) -> None:
        """Adds one call to what is known of its expert. O(1). An unknown expert is ignored, and
        so is a call that tells nothing: neither how fast it began nor whether it was right.
        """
        if outcome.expert in self._sources:
            known = self._evidence.get(outcome.expert, Evidence())
            self._evidence[outcome.expert] = absorb(known, outcome)

    def admit(self, card: Card, outcomes: Sequence[Outcome] = ()) -> None:
        """Takes an expert in, with its outcomes so far, oldest first; replaces what was known of it."""
        self._drop(card.name)
        self._sources[card.name] = source_of(card)
        texts = [text for text in (*card.skills, card.description) if text]
        if self._embed is not None and texts:
            self._index.add(card.name, self._embed(texts))
        for outcome in outcomes:
            if outcome.expert == card.name:
                self.observe(outcome)

    def inherit(self, other: "SkillRouter", experts: Collection[str]) -> None:
        """Takes over what another one has observed of these, as far as they were admitted here."""
        for name in experts:
            if name in self._sources and (known := other._evidence.get(name)) is not None:
                self._evidence[name] = known

    def forget(self, source: str) -> None:
        """Drops every expert of a source, as if it had never been admitted."""
        for name in [name for name, of in self._sources.items() if of == source]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._sources.pop(name, None)
        self._evidence.pop(name, None)
        self._index.remove(name)
