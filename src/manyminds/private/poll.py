"""Who is polled for a private answer, what each pays for it, and what is released. Pure.

All that decides it is public: the question, what the request says, cards, and how often each source was
polled before. Nothing that a source ever answered has a share in it, but for the noised counts themselves.
"""

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from manyminds.canonical import answer_of, task
from manyminds.combine.private import GRAIN, counted, noised, variance_of
from manyminds.errors import PrivacyError
from manyminds.privacy.accounting import epsilon_of, most_rho
from manyminds.privacy.noise import Below
from manyminds.privacy.tokens import Plan, plan
from manyminds.router.limits import suits, weight_of
from manyminds.router.policy import rates
from manyminds.types import (
    FREE,
    Answer,
    Bound,
    Call,
    Card,
    Limits,
    Message,
    Method,
    Privacy,
    Query,
    Report,
    Route,
    Task,
    Terms,
)
from manyminds.wire import capped, rewritten

__all__ = ["PRIVATE", "Account", "Draft", "Poll", "draft", "in_words", "needed", "poll", "report_of"]

PRIVATE: Final = "private"
"""The policy, and how it combines."""

_LOUD: Final = 0.15  # of all votes: noise of a larger standard deviation drowns them
_TOKENS: Final = 48  # of an answer in words whose request does not say
_ASK: Final = "Answer with the letter of one option."


class Account(Struct, frozen=True):
    """What all private answers together may tell of one source, and what this one adds, as ρ of zCDP.

    Attributes:
        id: by which it is counted, whatever it is called.
        source: what it is called here.
        most: ρ that all answers together may cost it.
        cost: ρ of this answer.
        terms: what its owner allows besides.
        nats: how far it may move this answer at most, whatever it says: αρ at the order α of attribution.
    """

    id: str
    source: str
    most: float
    cost: float
    terms: Terms = FREE
    nats: float = 0.0


class Poll(Struct, frozen=True):
    """A private answer as it was decided before anybody is asked.

    Attributes:
        query: as the sources get it.
        route: one call for each source; their shares are their weights.
        weights: of each call's vote, from 0 to `GRAIN`.
        accounts: of each call's source.
        variance: of the noise of each candidate's count.
        privacy: what is told of it.
    """

    query: Query
    route: Route
    weights: tuple[int, ...]
    accounts: tuple[Account, ...]
    variance: int
    privacy: Privacy

    def release(self, answers: Iterable[Answer], below: Below) -> str:
        """The answer: the option with the most votes once all counts have noise.

        Who failed, was late, or said nothing that can be read, adds nothing; nobody's weight changes for it.
        """
        said = {answer.expert: answer for answer in answers if answer.status == "ok"}
        options = self.query.task.options
        votes = [_vote(self.query.task, said.get(call.expert)) for call in self.route.calls]
        place = noised(counted(votes, self.weights, len(options)), self.variance, below)
        return options[place] if self.query.limits.candidates else f"{_letter(place)}) {options[place]}"


class Draft(Struct, frozen=True):
    """A private answer in words, as it was decided before anybody is asked. As `Poll`, but for `plan`.

    What a source pays is for all tokens that there may be, also where the answer ends before.
    """

    query: Query
    route: Route
    accounts: tuple[Account, ...]
    plan: Plan
    privacy: Privacy


def poll(
    query: Query,
    cards: Sequence[Card],
    limits: Limits,
    *,
    source_epsilon: float,
    delta: float,
    without: frozenset[str] = frozenset(),
    alpha: float = 2.0,
) -> Poll:
    """Whom a private answer asks, and with how much noise. Order-free in `cards`.

    Args:
        query: as it came.
        cards: of everybody whose terms allow to be asked.
        limits: with `epsilon` and `delta` filled in.
        source_epsilon: what all answers together may tell of a source whose terms do not say it.
        delta: the same of its delta.
        without: ids of accounts that have nothing left for it.
        alpha: order of the divergence by which sources' budgets are counted.

    Raises:
        PrivacyError: what the request wants beside, a private answer must not tell; or there are too few
            candidates, or too few sources for so small an epsilon.
    """
    _refuse(query, limits)
    asked = _with_options(query, limits)
    assert limits.epsilon is not None
    assert limits.delta is not None
    rho = most_rho(limits.epsilon, limits.delta)
    chosen, most = _one_each(asked, cards, limits), _most(cards, source_epsilon, delta)
    spent = [card for card in chosen if _account_of(card) in without]
    chosen = [card for card in chosen if _account_of(card) not in without]
    favours = [weight_of(card, limits.weights) for card in chosen]
    chosen, favours = _held(chosen, favours)
    heaviest = max(favours, default=1.0)
    weights = [round(GRAIN * favour / heaviest) for favour in favours]
    left = min((most[_account_of(card)] for card in chosen), default=0.0)
    _refuse_few(sum(weights) / GRAIN, len(spent), rho, left, limits)
    variance = variance_of(rho)
    accounts = tuple(
        _account(card, most, weight * weight / variance, alpha)
        for card, weight in zip(chosen, weights, strict=True)
    )
    total = sum(weights)
    calls = tuple(
        _call(card, account, weight / total, asked)
        for card, account, weight in zip(chosen, accounts, weights, strict=True)
    )
    privacy = Privacy(limits.epsilon, limits.delta, len(calls))
    route = Route(PRIVATE, PRIVATE, calls)
    return Poll(asked, route, tuple(weights), accounts, variance, privacy)


def needed(rho: float) -> int:
    """Sources of equal weight that an answer takes, each of which pays ρ for it: with fewer, noise wins.

    The noise of one count has the standard deviation 1/√ρ, in votes; above .15 of all votes accuracy falls
    fast (see `manyminds eval DIR --private`).
    """
    return math.ceil(1 / (_LOUD * math.sqrt(rho)) - 1e-9)


def in_words(query: Query) -> bool:
    """Whether it is no choice between candidates, so that an answer has to be written."""
    return not query.limits.candidates and task(query).kind != "option"


def draft(
    query: Query,
    cards: Sequence[Card],
    limits: Limits,
    *,
    source_epsilon: float,
    delta: float,
    without: frozenset[str] = frozenset(),
    alpha: float = 2.0,
) -> Draft:
    """As `poll`, for an answer in words. `cards` are of those who share the public model's vocabulary.

    Every source has the same say: a weight of the caller's leaves one out at 0, and no more.
    """
    _refuse(query, limits)
    assert limits.epsilon is not None
    assert limits.delta is not None
    chosen, most = _one_each(query, cards, limits), _most(cards, source_epsilon, delta)
    chosen, _ = _held([card for card in chosen if _account_of(card) not in without], None)
    made = plan(limits.epsilon, limits.delta, len(chosen), query.sampling.max_tokens or _TOKENS)
    accounts = tuple(_account(card, most, made.rho * made.tokens, alpha) for card in chosen)
    both = zip(chosen, accounts, strict=True)
    calls = tuple(_call(card, account, 1 / len(chosen)) for card, account in both)
    privacy = Privacy(made.epsilon, made.delta, made.sources)
    asked = capped(replace(query, limits=limits), made.tokens)
    return Draft(asked, Route(PRIVATE, PRIVATE, calls), accounts, made, privacy)


def report_of(query: Query, polled: Poll | Draft) -> Report:
    """All that anybody is told of it, be it in the reply or in the books."""
    return Report(
        request_id=query.request_id,
        policy=PRIVATE,
        strategy=PRIVATE,
        panel=(),
        agreement=None,
        probability=None,
        attribution=(),
        cost_usd=0.0,
        saved_usd=0.0,
        privacy=polled.privacy,
    )


def _refuse(query: Query, limits: Limits) -> None:
    """What would tell more than the answer, or would make it hang on who answered."""
    if lacking := sorted(query.demands - {"image"}):
        message = f"A private answer is one of some candidates: it cannot come with {', '.join(lacking)}."
        raise PrivacyError(message, param="model")
    if query.sampling.n > 1:
        raise PrivacyError("A private answer is one answer: ask again for another.", param="n")
    for name, is_set in (
        ("quorum", limits.quorum is not None),
        ("require", bool(limits.require)),
        ("explain", bool(limits.explain)),
        ("strategy", limits.strategy not in (None, PRIVATE)),
    ):
        if is_set:
            raise PrivacyError(
                f"A private answer takes no `{name}`: it tells nothing of who said what, or who answered.",
                param=f"manyminds.{name}",
            )


def _with_options(query: Query, limits: Limits) -> Query:
    """The query with its options: those in the question, or the candidates, which are put behind it."""
    found, named = task(query), limits.candidates
    if found.kind == "option":
        if named:
            raise PrivacyError(
                "The question has options of its own: leave `candidates` out, or the options.",
                param="manyminds.candidates",
            )
        return replace(query, task=found, limits=limits)
    if len(named) < 2:
        raise PrivacyError(
            "A private answer is one of some candidates that are known beforehand: list them in the "
            "question, as A) ... B) ..., or send at least two as `manyminds.candidates`.",
            param="manyminds.candidates",
        )
    lines = "\n".join(f"{_letter(i)}) {text}" for i, text in enumerate(named))
    last = max((i for i, m in enumerate(query.messages) if m.role == "user"), default=-1)
    if last < 0:
        raise PrivacyError("There is no question: send a message of the user.", param="messages")
    text = f"{query.messages[last].text}\n{lines}\n{_ASK}"
    messages = (*query.messages[:last], Message("user", text), *query.messages[last + 1 :])
    options = Task("option", named, query.messages[last].text)
    return replace(rewritten(query, messages), task=options, limits=limits)


def _one_each(query: Query, cards: Sequence[Card], limits: Limits) -> list[Card]:
    """One expert of each source that can be asked: the largest, by its card. Sorted by name."""
    include, exclude = set(limits.include), set(limits.exclude)
    needed = query.estimated_tokens
    by_source: dict[str, Card] = {}
    for card in sorted(cards, key=lambda card: (-card.parameters, card.name)):
        names = {card.name, card.source or card.name}
        allowed = (not include or names & include) and not names & exclude
        can = suits(card, query) and card.context_tokens >= needed and not card.variant_of
        if allowed and can and weight_of(card, limits.weights) > 0:
            by_source.setdefault(_account_of(card), card)
    found = sorted(by_source.values(), key=lambda card: card.name)
    return found if limits.panel is None else found[: limits.panel]


def _held(cards: Sequence[Card], favours: Sequence[float] | None) -> tuple[list[Card], list[float]]:
    """Those who would have no larger share of all weight than their terms allow, with their weights."""
    kept = list(zip(cards, favours or [1.0] * len(cards), strict=True))
    while kept:
        total = math.fsum(favour for _, favour in kept)
        left = [(card, favour) for card, favour in kept if favour <= card.terms.max_share * total]
        if len(left) == len(kept):
            break
        kept = left
    return [card for card, _ in kept], [favour for _, favour in kept]


def _account(card: Card, most: Mapping[str, float], cost: float, alpha: float) -> Account:
    """Replaced by one that says nothing, a source moves the answer by αρ at most: that is what ρ means.

    Below order 1 as at 1, since divergences never fall with their order.
    """
    name = _account_of(card)
    return Account(name, card.source or card.name, most[name], cost, card.terms, max(alpha, 1.0) * cost)


def _call(card: Card, account: Account, share: float, asked: Query | None = None) -> Call:
    rated = asked is not None and rates(card, asked.task) and len(asked.messages) == 1
    nats = account.nats if card.terms.budget_nats is not None else None
    bound = Bound(nats, card.terms.max_share, nats or 0.0) if card.terms.binds else None
    method: Method = "score" if rated else "generate"
    return Call(card.name, account.source, 0.5, share=share, method=method, bound=bound)


def _most(cards: Sequence[Card], epsilon: float, delta: float) -> dict[str, float]:
    """ρ that all answers together may cost each source: the least that any of its experts' terms allow."""
    found: dict[str, float] = {}
    for card in cards:
        terms, account = card.terms, _account_of(card)
        most = most_rho(terms.epsilon or epsilon, terms.delta or delta)
        found[account] = min(most, found.get(account, most))
    return found


def _account_of(card: Card) -> str:
    """Another node is known by its id, whatever it is called here."""
    return card.model if card.kind == "peer" else card.source or card.name


def _refuse_few(votes: float, spent: int, rho: float, most: float, limits: Limits) -> None:
    """Raises: PrivacyError where the noise would drown the votes; says how many sources it takes.

    Or which epsilon would do, where all answers together may cost each of these sources as much: `most`.
    """
    if votes >= needed(rho):
        return
    least = ""
    if spent:
        least = f" {spent} more have not that much left of what all answers together may tell of them."
    instead, enough = "", (1 / (_LOUD * max(votes, 1.0))) ** 2
    if votes >= 1 and enough <= most:
        epsilon = math.ceil(10 * epsilon_of(enough, limits.delta or 0.0)) / 10
        instead = f" With these it takes an epsilon of {epsilon:g}."
    raise PrivacyError(
        f"{votes:.3g} sources of equal weight are too few for a private answer at epsilon "
        f"{limits.epsilon:g}, delta {limits.delta:g}: the noise would drown their votes. It takes "
        f"{needed(rho)}.{least}{instead}",
        param="manyminds.epsilon",
    )


def _vote(asked: Task, answer: Answer | None) -> int | None:
    if answer is None or answer.declined:
        return None
    letter = answer_of(asked, answer.text)
    return None if letter is None else string.ascii_uppercase.index(letter)


def _letter(place: int) -> str:
    return string.ascii_uppercase[place]
