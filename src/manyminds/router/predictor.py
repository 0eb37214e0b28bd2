"""What to expect of each expert on a question: right or wrong, cost, latency.

Pure functions over small frozen state; chooses nobody. Until `train` exists the numbers here are
priors, not fits: a card's claims count as much as a few observed calls, then what was measured wins.
What was graded is another module's: see `grades`.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from manyminds.router.grades import Standing
from manyminds.types import Card, Outcome, Prior, Query

__all__ = [
    "Evidence",
    "Load",
    "Prediction",
    "absorb",
    "estimate_load",
    "expected_wait_s",
    "log_odds",
    "predict",
    "predict_one",
    "source_of",
]

_SIMILARITY_SLOPE = 2.0  # log-odds per unit of cosine; skills differ by some .3, so by some .15 in p near .5
_CLAIM_CALLS = 4.0  # observed calls that a card's claim of time to first token, or of prices, counts for
_CLAIM_GRADES = 8.0  # graded answers that its claim of accuracy counts for
_CLAIM_TOKENS = 256.0  # generated tokens that its claim of tokens per second counts for
_DECAY = 0.98  # weight of what is known after each further call: a memory of some 50 calls
_RECENT = 100  # calls whose times to first token are kept
_MEASURED = 20  # of them at least, before it is said what is slow
_SLOW = 0.95  # of all calls begin sooner
_LEFT = 1.5  # times what was waited: so 1 call in 20 is hedged, as meant; taken as 1 time, up to 1 in 4
_USUAL_TOKENS = 256  # of an answer, where the caller allows as many
_FOUND_AT, _FOUND_BY = -13.6, 21.1
"""Log-odds that documents hold the answer to a question: at cosine 0 of it and the nearest paragraph, as
`reach` foretells it, and for each unit of cosine: even odds are at .64. `manyminds bench documents --fit` has
them."""
_FOUND_UNSEEN = 0.3  # chance that they hold it, where nothing is known of either's whereabouts
_READ = 0.9  # of answers that documents hold, those that are given right, until they are graded


class Evidence(Struct, frozen=True):
    """What the calls of one expert have shown. All of it fades with further calls, or is forgotten.

    Failures are not among it: who is down now is the fan-out's to find, and nobody is shunned for having
    been down once.
    """

    waits: float = 0.0
    wait_s: float = 0.0  # of time to first token, over `waits` calls
    tokens: float = 0.0
    token_s: float = 0.0  # of generation after the first token, over `tokens`
    bills: float = 0.0
    paid_usd: float = 0.0  # for `bills` answers
    claimed_usd: float = 0.0  # what its card makes of them
    recent_s: tuple[float, ...] = ()  # times to first token of the last calls, oldest first
    ordered_s: tuple[float, ...] = ()  # the same, shortest first
    slow_s: float | None = None  # their 95th percentile; None of too few


class Load(Struct, frozen=True):
    """How much a question asks of any expert."""

    prompt_tokens: int
    completion_tokens: int  # expected, over all samples
    context_tokens: int  # that must fit: the prompt and the answer that the caller allows, up to a usual one


class Prediction(Struct, frozen=True):
    """What to expect of one expert on one question."""

    card: Card
    source: str
    probability: float  # p(correct | query, it answers)
    cost_usd: float
    ttft_s: float
    latency_s: float  # to its last token
    hedge_s: float | None = None  # to a first token that is slow for it; None where too little is known
    prior: Prior | None = None  # what was learnt beforehand, without the grades since
    shift: float = 0.0  # of log-odds, by these
    documents: float = 0.0  # that it is right because its documents hold the answer; part of `probability`


def source_of(card: Card) -> str:
    """Whom attribution credits: the card's source, else the expert itself."""
    return card.source or card.name


def log_odds(probability: float, classes: int = 2) -> float:
    """ln((C-1) p / (1-p)): the weight of an independent vote whose errors fall evenly on C-1 answers.

    `probability` is clipped to [.02, .98]: nobody's word is final. Source: Nitzan & Paroush 1982.
    """
    p = min(max(probability, 0.02), 0.98)
    return math.log((classes - 1) * p / (1.0 - p))


def absorb(evidence: Evidence, outcome: Outcome, expected_s: float = math.inf) -> Evidence:
    """Adds one call, also one that was cancelled: its first token was timed.

    Tokens and seconds are added apart, so that the rate is that of all text and short answers do not
    swing it. A call that tells neither how fast it began nor what it cost changes nothing.
    O(1), with a constant of some hundred kept times. `expected_s` is its time to first token, as expected.
    """
    e = evidence
    waits, wait_s, tokens, token_s = e.waits, e.wait_s, e.tokens, e.token_s
    bills, paid_usd, claimed_usd, slow_s = e.bills, e.paid_usd, e.claimed_usd, e.slow_s
    recent_s, ordered_s = e.recent_s, e.ordered_s
    waited_s = _waited_s(e, outcome, expected_s)
    if waited_s is None and outcome.claimed_usd is None:
        return e
    if waited_s is not None:
        waits, wait_s = _DECAY * waits + 1.0, _DECAY * wait_s + waited_s
        recent_s, ordered_s = (*recent_s[1 - _RECENT :], waited_s), _reordered(e, waited_s)
        slow_s = _quantile(ordered_s, _SLOW) if len(recent_s) >= _MEASURED else None
        generating_s = outcome.seconds - waited_s
        if outcome.completion_tokens > 1 and generating_s > 0.0:
            tokens = _DECAY * tokens + (outcome.completion_tokens - 1)
            token_s = _DECAY * token_s + generating_s
        elif outcome.ttft_s is None and not tokens:  # nobody has seen it write: it took that long for nothing
            token_s += outcome.seconds
    if outcome.claimed_usd is not None:
        bills, paid_usd = _DECAY * bills + 1.0, _DECAY * paid_usd + outcome.cost_usd
        claimed_usd = _DECAY * claimed_usd + outcome.claimed_usd
    return Evidence(waits, wait_s, tokens, token_s, bills, paid_usd, claimed_usd, recent_s, ordered_s, slow_s)


def _reordered(seen: Evidence, waited_s: float) -> tuple[float, ...]:
    """With one more time, and without the oldest where there are too many: sooner than sorting anew."""
    ordered = list(seen.ordered_s)
    if len(ordered) == _RECENT:
        del ordered[bisect_left(ordered, seen.recent_s[0])]
    insort(ordered, waited_s)
    return tuple(ordered)


def _waited_s(seen: Evidence, outcome: Outcome, expected_s: float) -> float | None:
    """Its time to first token; an estimate, of one that was left without a token when it was slow already.

    Such a call is as a rule one that lost to its hedge. Were it not counted, what is slow would be told by
    the quick ones alone, become less with every hedge, and in the end most calls would be hedged. What was
    left before it was slow says nothing. Of whom too little was measured, slow is what takes longer than was
    expected: else whoever claims to be quick, and loses every race, would be believed for ever.
    """
    if outcome.ttft_s is not None:
        return outcome.ttft_s
    slow_s = expected_s if seen.slow_s is None else seen.slow_s
    left = outcome.status in ("cancelled", "late") and outcome.seconds >= slow_s
    return _LEFT * outcome.seconds if left else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between neighbours: type 7 of Hyndman & Fan 1996, numpy's own."""
    place = share * (len(ordered) - 1)
    i = int(place)
    return ordered[i] + (place - i) * (ordered[min(i + 1, len(ordered) - 1)] - ordered[i])


@lru_cache(maxsize=4096)  # who is asked by name is asked again
def _probability(accuracy: float, nearness: float) -> float:
    return 1.0 / (1.0 + math.exp(-(log_odds(accuracy) + _SIMILARITY_SLOPE * nearness)))


def estimate_load(query: Query) -> Load:
    """How much `query` asks of any expert."""
    prompt = query.estimated_tokens
    if "embeddings" in query.demands:  # nothing is written, and each text has the window to itself
        return Load(prompt, 0, 0)
    asked = query.sampling.max_tokens
    usual = _USUAL_TOKENS if asked is None else min(asked, _USUAL_TOKENS)
    return Load(prompt, usual * query.sampling.n, prompt + (usual if asked else 0))


_NOTHING, _UNGRADED = Evidence(), Standing()


def predict(
    cards: Sequence[Card],
    evidence: Mapping[str, Evidence],
    similarity: Mapping[str, float],
    load: Load,
    standings: Mapping[str, Standing] | None = None,
    section: str = "",
) -> tuple[Prediction, ...]:
    """One prediction per card, in their order. `similarity` is the query's cosine to the nearest skill.

    Similarities count relative to the panel's mean: a question far from everybody's skills says nothing
    about whom to ask. An expert without one is taken as average. Whoever has documents is not part of
    that mean: how near these are counts by itself.
    """
    known = [similarity[card.name] for card in cards if not card.paragraphs and card.name in similarity]
    mean = math.fsum(known) / len(known) if known else 0.0
    return tuple(
        predict_one(
            card,
            evidence.get(card.name),
            load,
            similarity.get(card.name, mean) - mean if known else 0.0,
            standings.get(card.name) if standings else None,
            section,
            similarity.get(card.name),
        )
        for card in cards
    )


def predict_one(
    card: Card,
    seen: Evidence | None,
    load: Load,
    nearness: float = 0.0,
    graded: Standing | None = None,
    section: str = "",
    similarity: float | None = None,
) -> Prediction:
    """`nearness` is its similarity, less the panel's mean; `section` is what the question is about."""
    seen, graded = seen or _NOTHING, graded or _UNGRADED
    accuracy = card.accuracy_in.get(section) if section and card.accuracy_in else None
    if accuracy is None:
        accuracy = (_CLAIM_GRADES * card.accuracy + graded.correct) / (_CLAIM_GRADES + graded.grades)
    probability = _probability(accuracy, nearness)
    documents = _by_documents(card, similarity, graded) if card.paragraphs else 0.0
    if card.paragraphs:  # right by what else it has, or by these; who claims no accuracy has nothing else
        probability = 1.0 - (1.0 - probability) * (1.0 - documents) if card.accuracy > 0 else documents
    ttft_s = expected_wait_s(card, seen)
    # Who begins later than its card says is taken to write as much slower, until that is measured.
    claimed_s = _CLAIM_TOKENS / max(card.tokens_per_s, 0.01) * max(1.0, ttft_s / max(card.ttft_s, 0.01))
    s_per_token = (claimed_s + seen.token_s) / (_CLAIM_TOKENS + seen.tokens)
    latency_s = ttft_s + load.completion_tokens * s_per_token
    claimed_usd = card.price_usd(load.prompt_tokens, load.completion_tokens, latency_s)
    cost_usd = _charged(claimed_usd, seen) if seen.bills else claimed_usd
    return Prediction(
        *(card, source_of(card), probability, cost_usd, ttft_s, latency_s, seen.slow_s), documents=documents
    )


def _by_documents(card: Card, similarity: float | None, graded: Standing) -> float:
    """How likely its documents hold the answer, and are read right.

    Of one that has nothing else, its grades say how often they are.
    """
    holds = _FOUND_UNSEEN
    if similarity is not None:
        holds = 1.0 / (1.0 + math.exp(-(_FOUND_AT + _FOUND_BY * similarity)))
    if card.accuracy > 0:
        return holds * _READ
    return holds * (_CLAIM_GRADES * _READ + graded.correct) / (_CLAIM_GRADES + graded.grades)


def expected_wait_s(card: Card, seen: Evidence | None) -> float:
    """Time to first token: what its card claims, and then what was measured."""
    if seen is None or not seen.waits:
        return card.ttft_s
    return (_CLAIM_CALLS * card.ttft_s + seen.wait_s) / (_CLAIM_CALLS + seen.waits)


def _charged(claimed_usd: float, seen: Evidence) -> float:
    """What its card makes of a question, times what it charged over what its card made of its answers.

    Claims count as some more answers at their price. Of one that claims to be free, what an answer cost.
    """
    if not seen.claimed_usd:
        return claimed_usd + seen.paid_usd / (_CLAIM_CALLS + seen.bills)
    claims = _CLAIM_CALLS * seen.claimed_usd / seen.bills
    return claimed_usd * (claims + seen.paid_usd) / (claims + seen.claimed_usd)
