"""The router: who is likely to be right at what price, and whom to ask in which order.

Goes by what an artefact holds; for experts of which it holds nothing, skills by similarity, and accuracy
and speed as claimed and then measured. Knows no transport and calls nobody.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from manyminds.artefact import Artefact
from manyminds.errors import NoExpertError
from manyminds.index import Index
from manyminds.router.grades import GRADES, Standing, standing
from manyminds.router.limits import affordable, eligible, suits
from manyminds.router.planner import Planner
from manyminds.router.policy import DIRECT, POLICIES, choose, direct, resolve
from manyminds.router.predictor import (
    Evidence,
    Load,
    Prediction,
    absorb,
    estimate_load,
    expected_wait_s,
    predict,
    predict_one,
    source_of,
)
from manyminds.router.reach import reach
from manyminds.types import Card, Embed, Limits, Outcome, Query, Route

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["SkillRouter"]

_NOTHING = Evidence()


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
        self._cards: dict[str, Card] = {}  # of each admitted expert
        self._summaries: dict[str, Vectors] = {}  # of documents, as long as they were given
        self._evidence: dict[str, Evidence] = {}
        self._graded: dict[str, dict[int, Outcome]] = {}  # of each expert, by place in the log
        self._standings: dict[str, Standing] = {}

    def route(self, query: Query, candidates: Sequence[Card], limits: Limits) -> Route:
        """See `types.Router`. An expert that was never admitted is judged by its card.

        Raises: NoExpertError, InvalidRequestError for an unknown policy, ModelNotFoundError.
        """
        if len(candidates) == 1 and (alone := self._alone(query, candidates[0], limits)) is not None:
            return alone
        policy = resolve(query, candidates, limits)
        if policy == DIRECT:
            candidates = [card for card in candidates if card.name == query.model]
        load, planner = estimate_load(query), self._planners.get(query.task.kind)
        section = self._section(query)
        predictions = self._predict(query, eligible(candidates, query, limits, load), load, section)
        if policy == DIRECT:
            return direct(affordable(predictions, limits)[0])
        if planner is not None:
            predictions = planner.informed(query, predictions, self._standings)
        found = choose(policy, query, affordable(predictions, limits), limits, load, planner)
        return replace(found, section=section) if section else found

    def predicted(self, query: Query, candidates: Sequence[Card], limits: Limits) -> Sequence[Prediction]:
        """What to expect of those that meet the hard limits; nobody where none does."""
        load, planner = estimate_load(query), self._planners.get(query.task.kind)
        try:
            fitting = eligible(candidates, query, limits, load)
            predictions = self._predict(query, fitting, load, self._section(query))
        except NoExpertError:
            return ()
        return predictions if planner is None else planner.informed(query, predictions, self._standings)

    def _section(self, query: Query) -> str:
        """What it is about; "" where nothing is known of that."""
        planner = self._planners.get(query.task.kind)
        return planner.section(query) if planner is not None else query.limits.topic

    def _predict(self, query: Query, cards: Sequence[Card], load: Load, section: str) -> Sequence[Prediction]:
        """By cards, and by what was measured, of a question about that section."""
        names, similarity = [card.name for card in cards], {}
        planner = self._planners.get(query.task.kind)
        learnt = planner is not None and planner.knows(names)
        if query.vector is not None and not learnt:  # what was learnt takes its place
            similarity = self._index.similarity(query.vector, names)
            similarity |= self._reached(query.vector, cards)
        return predict(cards, self._evidence, similarity, load, self._standings, section)

    def _reached(self, vector: "Vectors", cards: Sequence[Card]) -> dict[str, float]:
        """Of documents: how near their nearest paragraph is likely to be."""
        known = [(card, self._summaries.get(card.name)) for card in cards if card.paragraphs]
        return {card.name: reach(vector, of, card.paragraphs) for card, of in known if of is not None}

    def _alone(self, query: Query, card: Card, limits: Limits) -> Route | None:
        """The route of an expert asked by name, with no limit that needs a closer look; the same, sooner."""
        if card.name != query.model or limits.policy not in (None, *POLICIES):
            return None
        if limits.include or limits.exclude or limits.weights:
            return None
        load = estimate_load(query)
        if not suits(card, query) or query.sampling.n > 1 or load.context_tokens > card.context_tokens:
            return None
        found = predict_one(card, self._evidence.get(card.name), load, 0.0, self._standings.get(card.name))
        if limits.budget_usd is not None and found.cost_usd > limits.budget_usd:
            return None
        return direct(found)

    def observe(self, outcome: Outcome) -> None:
        """Adds one call to what is known of its expert. O(1) but for grades. An unknown expert is ignored,
        and so is a call that tells nothing: not how fast it began, what it cost, or whether it was right.
        """
        name = outcome.expert
        if (card := self._cards.get(name)) is None:
            return
        known = self._evidence.get(name, _NOTHING)
        found = absorb(known, outcome, expected_wait_s(card, known))
        if found is not known:
            self._evidence[name] = found
        if outcome.correct is not None:
            self.learn([outcome])

    def learn(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Takes over graded outcomes; one of a place in the log that is known changes nothing.

        One without a place is the last. What votes said counts while all who voted are admitted.
        O(grades that are kept) for each expert that is among them.

        Returns: the names of those who turn out to be worse than they were.
        """
        taught: dict[str, dict[int, Outcome]] = {}
        for outcome in outcomes:
            if outcome.expert in self._cards:
                known = taught.setdefault(outcome.expert, dict(self._graded.get(outcome.expert, {})))
                known[outcome.place or max(known, default=0) + 1] = outcome
        fell = []
        for name, known in taught.items():
            before = self._standings.get(name, Standing())
            self._graded[name] = _latest(known)
            self._judge(name)
            after = self._standings[name].drifted_utc
            if after is not None and before.drifted_utc is None:
                fell.append(name)
        return sorted(fell)

    def standing(self, name: str) -> Standing:
        """What the grades of this expert say."""
        return self._standings.get(name, Standing())

    @property
    def drifted(self) -> dict[str, str]:
        """Those that are worse than they were, by their grades, and since when in UTC."""
        found = ((name, known.drifted_utc) for name, known in sorted(self._standings.items()))
        return {name: utc for name, utc in found if utc is not None}

    def admit(self, card: Card, outcomes: Sequence[Outcome] = (), vectors: "Vectors | None" = None) -> None:
        """Takes an expert in, with its outcomes so far, oldest first; replaces what was known of it.

        `vectors`: (k, d) float32 rows, where its skills lie; without any, where its card's words do. Of one
        with documents each is the mean of some paragraphs' unit vectors: see `reach`.
        """
        self._drop(card.name)
        self._place(card, vectors)
        self._recount(card.name)
        for outcome in outcomes:
            if outcome.expert == card.name:
                self.observe(outcome)

    def renew(self, card: Card, vectors: "Vectors | None" = None) -> None:
        """Takes an expert in by this card; what was measured of it before stays."""
        self._index.remove(card.name)
        self._place(card, vectors)

    def _place(self, card: Card, vectors: "Vectors | None") -> None:
        self._cards[card.name] = card
        self._summaries.pop(card.name, None)
        if card.paragraphs and vectors is not None and len(vectors):
            self._summaries[card.name] = vectors
        texts = [text for text in (*card.skills, card.description) if text]
        if vectors is None or not len(vectors):
            vectors = self._embed(texts) if self._embed is not None and texts else None
        if vectors is not None:
            self._index.add(card.name, vectors, 0 if card.variant_of else card.parameters)

    def inherit(self, other: "SkillRouter", experts: Collection[str], *, graded: bool = True) -> None:
        """Takes over how the calls of these experts went, and what was `graded` of all."""
        for name in experts:
            if name in self._cards and (known := other._evidence.get(name)) is not None:
                self._evidence[name] = known
        if graded:
            self.learn([outcome for known in other._graded.values() for outcome in known.values()])

    def forget(self, source: str) -> None:
        """Drops every expert of a source, as if it had never been admitted."""
        for name in [name for name, card in self._cards.items() if source_of(card) == source]:
            self._drop(name)
            self._recount(name)

    def _drop(self, name: str) -> None:
        for known in (self._cards, self._summaries, self._evidence, self._graded, self._standings):
            known.pop(name, None)
        self._index.remove(name)

    def _recount(self, voter: str) -> None:
        """Who was graded by votes of which this was one is judged anew: the voter has come, or has gone."""
        for name, known in self._graded.items():
            if any(voter in outcome.voters for outcome in known.values()):
                self._judge(name)

    def _judge(self, name: str) -> None:
        known = self._graded[name]
        counted = [known[place] for place in sorted(known) if self._cards.keys() >= set(known[place].voters)]
        self._standings[name] = standing(counted)


def _latest(graded: dict[int, Outcome]) -> dict[int, Outcome]:
    """The last of those that somebody judged, and of those that votes did."""
    judged = sorted(place for place, outcome in graded.items() if not outcome.voters)[-GRADES:]
    voted = sorted(place for place, outcome in graded.items() if outcome.voters)[-GRADES:]
    return {place: graded[place] for place in (*judged, *voted)}
