"""Asks for a private answer: has every source pay, asks them all, and tells the noised vote alone.

Knows no HTTP and no ledger: what each source may still pay is a callable's to say.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from msgspec.structs import replace

from manyminds import purse, terms
from manyminds.alarm import Alarm
from manyminds.errors import BudgetError, ExpertError, PrivacyError, RateLimitError
from manyminds.fanout import Fanout, Patience, Tokens
from manyminds.privacy.noise import Below
from manyminds.privacy.tokens import draw
from manyminds.private.poll import Account, Draft, Poll, draft, in_words, poll, report_of
from manyminds.types import Answer, Card, Chunk, Distributor, Expert, Hold, Query, Report, Route, Usage

__all__ = ["Asking", "Bank", "Spend"]

Spend: TypeAlias = Callable[[Account], Awaitable[Hold]]
"""Takes what an answer costs one source, durably. Its hold is settled with ρ, or with nothing.

Raises: BudgetError where it has not that much left; RateLimitError where it was asked too often.
"""

_Reserve: TypeAlias = Callable[[Query, Route], Awaitable[Hold | None]]
_Record: TypeAlias = Callable[[Report, Query, Sequence[Answer], str, str, float], None]


@dataclass(frozen=True, slots=True)
class Bank:
    """What private answers may cost, and who keeps the accounts.

    Attributes:
        spend: see `Spend`.
        epsilon, delta: of an answer, where its request says nothing else.
        source_epsilon: of all answers together, where a source's terms say nothing else; at `delta`.
        alpha: order of the divergence by which sources' other budgets are counted.
        below: where noise comes from: a secure source, but in tests.
        public: the expert around which answers in words are written, which is nobody's secret; "" is none.
    """

    spend: Spend
    epsilon: float = 4.0
    delta: float = 1e-6
    source_epsilon: float = 8.0
    alpha: float = 2.0
    below: Below = secrets.randbelow
    public: str = ""


class Asking:
    """The way of a private question.

    Args:
        experts: who can be asked; they may change.
        bank: None where no accounts are kept, and so no private answer is given.
        patience: limits of time.
        reserve: puts money of the caller's key aside.
        record: keeps what is told, and nothing else.
        alarm: measures durations.
    """

    def __init__(
        self,
        experts: Mapping[str, Expert],
        bank: Bank | None,
        patience: Patience,
        reserve: _Reserve,
        record: _Record,
        alarm: Alarm,
    ) -> None:
        self._experts = experts
        self._bank = bank
        self._patience = patience
        self._reserve = reserve
        self._record = record
        self._alarm = alarm

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """The answer, in one piece. `query` has all of its limits, but for epsilon and delta.

        What each source pays is put aside before anybody is asked, and from then on stays taken, whatever
        comes of it. All that were asked are waited for, or the deadline: to stop early would tell what they
        said.

        Raises: PrivacyError, BudgetError, UnavailableError; after somebody was asked
            nothing but what cancels it.
        """
        began_s = self._alarm.clock()
        bank = self._bank
        if bank is None:
            raise PrivacyError("This network gives no private answers: it keeps no account.", param="model")
        query = _complete(query, bank)
        writes = bool(bank.public) and in_words(query)
        polled, holds = await self._polled(query, bank, await self._sharing(bank) if writes else None)
        report, text, asked = report_of(query, polled), "", False
        try:
            deadline_s = query.limits.deadline_s or self._patience.deadline_s
            most_usd = self._most_usd(query, polled, deadline_s)
            money = await self._reserve(polled.query, polled.route)
            asked = True
            try:
                text = await self._text(polled, bank, deadline_s)
            finally:
                if money is not None:
                    money.settle(most_usd)  # and not what it did cost, which would tell how much was said
        finally:
            for hold, account in zip(holds, polled.accounts, strict=True):
                hold.settle(account.cost if asked else 0.0)
            if asked:
                seconds = self._alarm.clock() - began_s
                self._record(report, query, (), text, "ok" if text else "cancelled", seconds)
        yield Chunk(text)
        usage = Usage(query.estimated_tokens, -(-len(text.encode("utf-8", "surrogatepass")) // 4))
        yield Chunk("", "stop", usage, report=report)

    async def _text(self, polled: Poll | Draft, bank: Bank, deadline_s: float) -> str:
        """In one piece: nobody sees how long each token took. Raises: ExpertError for one in words."""
        if isinstance(polled, Poll):
            return polled.release(await self._answers(polled, deadline_s), bank.below)
        public, made = self._public(bank.public), polled.plan
        sources = [_distributor(self._experts.get(call.expert)) for call in polled.route.calls]
        patience = Patience(self._patience.first_token_s, self._patience.idle_s, deadline_s)
        one = partial(draw, below=bank.below)
        answer = Tokens(
            polled.query, public, sources, made.weights, one, tokens=made.tokens, patience=patience
        )
        async with aclosing(answer.stream()) as chunks:
            return "".join([chunk.text async for chunk in chunks])

    async def _sharing(self, bank: Bank) -> list[Card]:
        """Of all who mean the same by a token as the public model, without its own source.

        Raises: PrivacyError where that cannot be asked; ExpertError.
        """
        vocabulary = await self._public(bank.public).vocabulary()
        own = self._experts[bank.public].card
        found = []
        for card, teller in [(e.card, _distributor(e)) for e in self._experts.values()]:
            if teller is not None and (card.source or card.name) != (own.source or own.name):
                with suppress(ExpertError):  # its file has gone, which is no secret of its owner's
                    if await teller.vocabulary() == vocabulary:
                        found.append(card)
        return found

    def _public(self, name: str) -> Distributor:
        """Raises: PrivacyError where there is none."""
        public = _distributor(self._experts.get(name))
        if public is None:
            raise PrivacyError(
                f"Private answers in words need {name} (private.public), a local model that says how likely"
                " each next token is, and it is not here, or paused.",
                param="model",
            )
        return public

    async def _answers(self, polled: Poll, deadline_s: float) -> list[Answer]:
        patience = Patience(self._patience.first_token_s, self._patience.idle_s, deadline_s)
        async with Fanout(polled.query, polled.route, self._experts, patience, None, self._alarm) as calls:
            return [answer async for answer in calls.finished()]

    def _most_usd(self, query: Query, polled: Poll | Draft, deadline_s: float) -> float:
        """What it may cost at most, which is what is charged for it. Raises: BudgetError."""
        most_usd = purse.most_usd(polled.query, polled.route, self._experts, deadline_s)
        brought_usd = query.journey.budget_usd if query.journey is not None else None
        set_usd = [usd for usd in (query.limits.budget_usd, brought_usd) if usd is not None]
        if set_usd and most_usd > (budget_usd := min(set_usd)):
            raise BudgetError(
                f"To ask {len(polled.accounts)} sources may cost ${most_usd:.2g} of ${budget_usd:.2g}: lower "
                "max_tokens, or ask fewer by `manyminds.panel` or `manyminds.include`.",
                param="manyminds.budget_usd",
            )
        return most_usd

    async def _polled(
        self, query: Query, bank: Bank, writers: Sequence[Card] | None
    ) -> tuple[Poll | Draft, list[Hold]]:
        """Whom it asks, all of whom have paid. Raises: PrivacyError, UnavailableError."""
        way: Callable[..., Poll | Draft] = poll if writers is None else draft
        without: frozenset[str] = frozenset()
        while True:
            cards = [expert.card for expert in self._experts.values()] if writers is None else list(writers)
            cards = [card for card in cards if purse.payable(card, query) and terms.allows(card, query)]
            limits = {"source_epsilon": bank.source_epsilon, "delta": bank.delta, "alpha": bank.alpha}
            plan = partial(way, without=without, **limits)
            # Accounting may have to be imported, which takes a second.
            found = await asyncio.to_thread(plan, query, cards, query.limits)
            holds, lacking = await self._paid(found, bank)
            if not lacking:
                return found, holds
            without |= lacking

    async def _paid(self, polled: Poll | Draft, bank: Bank) -> tuple[list[Hold], set[str]]:
        """What each source has put aside; ids of those that cannot. Where any cannot, nobody has paid."""
        holds, lacking, done = list[Hold](), set[str](), False
        try:
            for account in polled.accounts:
                try:
                    holds.append(await bank.spend(account))
                except (BudgetError, RateLimitError):
                    lacking.add(account.id)
            done = not lacking
        finally:
            if not done:
                for hold in holds:
                    hold.settle(0.0)
        return holds, lacking


def _distributor(expert: object) -> Distributor | None:
    return expert if isinstance(expert, Distributor) else None


def _complete(query: Query, bank: Bank) -> Query:
    """With what an answer may tell, as the request says it or this network."""
    limits = query.limits
    epsilon = bank.epsilon if limits.epsilon is None else limits.epsilon
    delta = bank.delta if limits.delta is None else limits.delta
    return replace(query, limits=replace(limits, epsilon=epsilon, delta=delta))
