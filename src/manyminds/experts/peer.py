"""Another node as an expert, behind a transport. Knows no transport from the inside.

What it sends counts only as far as it can be proved: sealed for this ask, in order, and at the end signed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from manyminds.errors import (
    BudgetError,
    CutError,
    ExpertError,
    FrameError,
    GarbageError,
    ManymindsError,
    RefusedError,
    SignatureError,
    SlowError,
    UnavailableError,
)
from manyminds.network import jws, receipt
from manyminds.network.answering import Keep
from manyminds.network.ask import MOST_NATS, Accepted, Ask, new_ask, seal_ask
from manyminds.network.frames import (
    Answered,
    AnswerHash,
    Cited,
    Failed,
    Frame,
    Grounded,
    Sealer,
    Told,
    request_hash,
)
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt, Signed
from manyminds.network.transport import Transport
from manyminds.types import Bound, Card, Chunk, Citation, Grounds, Hold, Journey, Query, Terms, Usage
from manyminds.wire import onward_body, parse_chunk

__all__ = ["SILENT_S", "Deed", "Line", "Owing", "Peer"]

SILENT_S: Final = 0.55
"""After as long without a sign of life, an answer is lost: two of them are missing then."""

_FIRST_S: Final = 3.0  # to the first sign of life
_DEADLINE_S: Final = 60.0  # where the question was asked of nobody in particular
_POLICIES: Final = ("auto", "max", "cheap", "fast")
_CLOCKS_S: Final = (
    120.0  # that a receipt may be from another time than now: see `ask` of what clocks may differ
)
_SLACK_TOKENS: Final = 2_000  # of instructions and templates, beyond what a prompt can have

log = logging.getLogger(__name__)

Deed = Literal["kept", "cut", "garbled", "unsigned", "overcharged"]
"""What a peer did: answered in good order, or how it did not."""

Owing = Callable[[str, float, Callable[[float], None]], None]
"""Is told of an answer that may move the whole: of which request, how far, and whom to tell what it did."""


def _untold(_request_id: str, _nats: float, _settle: Callable[[float], None]) -> None:
    pass


class Line(Struct, frozen=True):
    """The way to one peer, and what is agreed with it.

    Attributes:
        node: its id; public, exchange: its keys, 32 bytes each.
        transport: carries what is asked.
        identity: this node's.
        reserve: puts money aside, of what may be spent with it.
        keep: keeps a receipt, with the id of the request.
        note: is told what it did.
        strange: is told of frames that were not its own.
        purpose: what answers are used for, where who asked did not say.
        member: proof that this node knows the secret of the network by which it asks.
        hops: how often a question may be passed on that was asked of this peer by name.
        owing: see `Owing`.
    """

    node: str
    public: bytes
    exchange: bytes
    transport: Transport
    identity: Identity
    reserve: Callable[[float], Awaitable[Hold | None]]
    keep: Keep
    note: Callable[[Deed], None]
    strange: Callable[[], None]
    purpose: str = ""
    member: str = ""
    hops: int = 4
    owing: Owing = _untold


class Peer:
    """Keeps the contract of `types.Expert`.

    Args:
        card: its prices are the most that it may charge.
        line: the way to it.
    """

    def __init__(self, card: Card, line: Line) -> None:
        self._card = card
        self._line = line

    @property
    def card(self) -> Card:
        return self._card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        line = self._line
        journey = self._onward(query)
        most_usd = self._most_usd(query, journey)
        ask = self._ask(query, journey, most_usd)
        try:
            sealed = seal_ask(line.identity, ask, line.exchange)
            hold = await line.reserve(most_usd)
        except ManymindsError as error:
            raise RefusedError(f"{self._card.name} is not asked: {error.message}") from None
        call = _Call(self._card, line, ask, query.request_id)
        frames = line.transport.ask(line.node, sealed)
        try:
            async with aclosing(frames):
                async for chunk in call.heard(frames):
                    yield chunk
        except UnavailableError as error:
            if most_usd and journey.budget_usd is not None:  # it may have spent that: it is not asked twice
                raise CutError(error.message, retry_after_s=error.retry_after_s) from None
            raise
        finally:
            if hold is not None:
                hold.settle(call.spent_usd(most_usd))
            call.leave()

    def _onward(self, query: Query) -> Journey:
        """What is left of its journey. Raises: RefusedError where it may not go there."""
        name, now = self._card.name, asyncio.get_running_loop().time()
        journey = query.journey or Journey(now + (query.limits.deadline_s or _DEADLINE_S), self._line.hops)
        if self._line.node in journey.visited:
            raise RefusedError(f"{name} is on this question's way already.")
        if journey.hops < 1:
            raise RefusedError(f"{name} is not asked: this question may not be passed on any further.")
        if journey.due_s <= now:
            raise SlowError(f"{name} is not asked: there is no time left.")
        return journey

    def _most_usd(self, query: Query, journey: Journey) -> float:
        """The most that its answer may cost: by its card, by the request's limit, by what it brings."""
        card = self._card
        written = (query.sampling.max_tokens or card.context_tokens) * query.sampling.n
        most_usd = card.price_usd(query.most_tokens + _SLACK_TOKENS, written, 0.0)
        return min(usd for usd in (most_usd, query.limits.budget_usd, journey.budget_usd) if usd is not None)

    def _ask(self, query: Query, journey: Journey, most_usd: float) -> Ask:
        line = self._line
        return new_ask(
            line.identity,
            line.node,
            _request(query),
            deadline_s=min(journey.due_s - asyncio.get_running_loop().time(), 86_400.0),
            budget_usd=most_usd,
            hops=journey.hops - 1,
            visited=(*journey.visited, line.identity.id)[-64:],
            purpose=journey.purpose if journey.visited else query.limits.purpose or line.purpose,
            member=line.member,
            terms=_accepted(self._card.terms, query.bound or Bound()),
        )


class _Call:
    """One ask under way."""

    def __init__(self, card: Card, line: Line, ask: Ask, request_id: str) -> None:
        self.ended = False
        self._card = card
        self._line = line
        self._ask = ask
        self._request_id = request_id
        self._sealer = Sealer(jws.from_base64url(ask.reply_key), answers=False)
        self._said = AnswerHash(ask.nonce)
        self._bytes = 0
        self._pieces = 0
        self._granted = ask.window
        self._receipt: Receipt | None = None

    async def heard(self, frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[Chunk, None]:
        """The answer, as far as it is one. Raises: ExpertError."""
        held: Chunk | None = None  # what finishes it, until it is signed
        try:
            while True:
                frame = await self._next(frames)
                if frame.failed is not None:
                    self.ended = True
                    raise _failure(self._card.name, frame.failed)
                chunk = self._taken(frame)
                if chunk is not None and _declines(frame):  # in one piece, for whoever races it
                    held, chunk = replace(chunk, finish_reason=chunk.finish_reason or "stop"), None
                if chunk is not None:
                    if held is not None:  # of several choices, another one goes on
                        yield replace(held, finish_reason=None)
                        held = None
                    if chunk.finish_reason is None:
                        yield chunk
                    else:
                        held = chunk
                if frame.answered is not None:
                    found, signed = self._checked(frame.answered)
                    self.ended, self._receipt = True, found
                    # Soon, and not now: nobody waits for it.
                    asyncio.get_running_loop().call_soon(self._countersign, found, signed)
                    if found.nats is not None:
                        settle = partial(self._settle, found, signed)
                        self._line.owing(self._request_id, found.nats, settle)
                    yield self._last(frame.answered, found, held)
                    return
        except FrameError as error:
            self._line.note("garbled")
            raise GarbageError(f"{self._card.name}: {error.message}") from None

    async def _next(self, frames: AsyncGenerator[bytes, None]) -> Frame:
        """The next frame that is of this answer."""
        loop = asyncio.get_running_loop()
        begun = self._sealer.received > 0
        due_s = loop.time() + (SILENT_S if begun else _FIRST_S)
        try:
            async with asyncio.timeout_at(due_s):
                async for sealed in frames:
                    if (frame := self._sealer.open_frame(sealed)) is not None:
                        return frame
                    self._line.strange()
        except TimeoutError:
            self._line.note("cut")
            if begun:
                raise CutError(f"{self._card.name} gave no sign of life for {SILENT_S:g} s.") from None
            raise UnavailableError(
                f"{self._card.name} does not answer: nothing for {_FIRST_S:g} s."
            ) from None
        except ExpertError:
            self._line.note("cut")
            raise
        self._line.note("cut")
        if begun:
            raise CutError(f"{self._card.name} ended its stream without finishing its answer.")
        raise UnavailableError(f"{self._card.name} cannot be reached.")

    def _taken(self, frame: Frame) -> Chunk | None:
        """A piece of the answer; None of a sign of life. Grants more of them before they are used up."""
        if frame.chunk is msgspec.UNSET and not frame.text:
            return None
        self._said.take(frame)
        self._pieces += 1
        if frame.answered is None and self._granted - self._pieces < self._ask.window // 2:
            self._granted = self._pieces + self._ask.window
            self.tell(Told(granted=self._granted))
        if frame.chunk is msgspec.UNSET:
            self._bytes += len(frame.text.encode("utf-8", "surrogatepass"))
            return Chunk(frame.text)
        raw = bytes(frame.chunk)
        self._bytes += len(raw)
        try:
            chunk = parse_chunk(raw)
        except GarbageError as error:
            raise FrameError(f"a frame is {error.message}") from None
        return replace(chunk, usage=None) if chunk.raw else None  # what it took says the receipt

    def tell(self, told: Told) -> None:
        self._line.transport.tell(self._line.node, self._ask.id, self._sealer.seal(told))

    def leave(self) -> None:
        """Says that nobody waits for the rest, and that what was not signed is not used."""
        if self._receipt is None and self._ask.terms is not None and self._ask.terms.nats:
            self.tell(Told(cancel=not self.ended, settled_nats=0.0))
        elif not self.ended and not self._line.transport.notices:
            self.tell(Told(cancel=True))

    def spent_usd(self, most_usd: float) -> float:
        """What is owed for it: where it broke off, nobody can prove anything, and so nothing."""
        return 0.0 if self._receipt is None else min(self._receipt.price_usd, most_usd)

    # --- the end ---

    def _checked(self, answered: Answered) -> tuple[Receipt, Signed]:
        """The receipt, where it is of this answer. Raises: GarbageError."""
        line, name = self._line, self._card.name
        try:
            found, signed = receipt.read(answered.receipt.encode())
            wrong = self._mismatch(found) or self._overstepped(found, answered)
        except SignatureError as error:
            line.note("unsigned")
            raise GarbageError(f"{name} did not sign its answer: {error.message}") from None
        if wrong:
            line.note("unsigned")
            raise GarbageError(f"{name} signed something else than its answer: {wrong}.")
        if charged := self._overcharge(found):
            line.note("overcharged")
            raise GarbageError(f"{name} charges more than it may: {charged}.")
        return found, signed

    def _countersign(self, found: Receipt, signed: Signed) -> None:
        """Signs it, too, tells so, and keeps it."""
        line = self._line
        counter = receipt.countersign(line.identity, signed)
        self.tell(Told(countersigned=msgspec.to_builtins(counter)))
        line.keep(found, signed.with_(counter), self._request_id)
        line.note("kept")

    def _settle(self, found: Receipt, signed: Signed, nats: float) -> None:
        """Tells how far the answer moved the whole; with the signature again, which may have been lost."""
        line = self._line
        counter = receipt.countersign(line.identity, signed)
        self.tell(Told(countersigned=msgspec.to_builtins(counter), settled_nats=nats))
        line.keep(found, signed.with_(counter), self._request_id, nats)

    def _mismatch(self, found: Receipt) -> str:
        """What of it is not as it was here, "" where all is. Raises: SignatureError."""
        ask, line = self._ask, self._line
        expected = {
            "v": ask.v,
            "ask": ask.id,
            "nonce": ask.nonce,
            "asker": ask.key,
            "answerer": jws.base64url(line.public),
            "request_sha256": request_hash(bytes(ask.request), ask.nonce),
            "answer_sha256": self._said.hex,
        }
        if abs(found.at - time.time()) > _CLOCKS_S:
            return "at"
        return next((name for name, value in expected.items() if getattr(found, name) != value), "")

    def _overstepped(self, found: Receipt, answered: Answered) -> str:
        """What of its terms nobody agreed to, "" where all is as it was asked."""
        terms = self._ask.terms or Accepted()
        if found.purpose not in ("", self._ask.purpose):
            return "purpose"
        if found.max_share not in (None, terms.max_share):
            return "max_share"
        if found.nats != answered.nats or (found.nats or 0.0) > (terms.nats or 0.0):
            return "nats"
        return ""

    def _overcharge(self, found: Receipt) -> str:
        """By budget, by its own prices, and by tokens that an answer of that length cannot have."""
        card, ask, usd = self._card, self._ask, found.price_usd
        by_tokens = card.price_usd(found.prompt_tokens, found.completion_tokens, 0.0)
        if usd > ask.budget_usd * (1 + 1e-9):
            return f"${usd:g} of ${ask.budget_usd:g}"
        if usd > by_tokens * (1 + 1e-9):
            return f"${usd:g} for what is ${by_tokens:g} by its card"
        if not usd:
            return ""
        if found.completion_tokens > self._bytes + 16:
            return f"{found.completion_tokens} tokens for {self._bytes} bytes"
        if found.prompt_tokens > len(ask.request) + _SLACK_TOKENS:
            return f"{found.prompt_tokens} tokens for a question of {len(ask.request)} bytes"
        return ""

    def _last(self, answered: Answered, found: Receipt, held: Chunk | None) -> Chunk:
        usage = Usage(found.prompt_tokens, found.completion_tokens, 0.0, found.price_usd)
        chance = answered.probability
        confidence = chance if chance is not None and 0.0 <= chance <= 1.0 else None
        last = Chunk("", answered.finish_reason) if held is None else held
        grounds = _grounds(self._card, answered.grounds)
        return replace(last, usage=usage, confidence=confidence, nats=found.nats, grounds=grounds)


def _declines(frame: Frame) -> bool:
    answered = frame.answered
    return answered is not None and answered.grounds is not None and answered.grounds.declined


def _grounds(card: Card, told: Grounded | None) -> Grounds | None:
    """What an answer rests on, as it is told here: its source is the peer, which attribution credits."""
    if told is None:
        return None
    source = card.source or card.name
    return Grounds(told.support, tuple(_citation(source, one) for one in told.citations), told.declined)


def _citation(source: str, told: Cited) -> Citation:
    """`expert` is then who found it there, behind its source there where that has another name."""
    there = "/".join(dict.fromkeys(name for name in (told.source, told.expert) if name))
    return Citation(
        *(source, there, told.document, told.heading, told.paragraph, told.quote),
        share=told.share,
    )


def _request(query: Query) -> bytes:
    """The request as the other node gets it: the caller's, for whom that node chooses by the same policy.

    Where answers need grounds, they do there.
    """
    policy = query.limits.policy
    return onward_body(query, policy if policy in _POLICIES else "auto")


def _accepted(terms: Terms, bound: Bound) -> Accepted | None:
    """To what this node will hold, where its terms demand that."""
    if not terms.binds:
        return None
    if terms.budget_nats is None:
        return Accepted(bound.max_share)
    if bound.nats is None:  # it is used whole, as by a fuser
        return Accepted(bound.max_share, MOST_NATS, MOST_NATS)
    return Accepted(bound.max_share, min(bound.nats, MOST_NATS), min(bound.least_nats, MOST_NATS))


def _failure(name: str, failed: Failed) -> ExpertError:
    """What the other node says, as what it is to this one."""
    said = f"{name} says: {' '.join(failed.message.split())[:400]}"
    if failed.status in (400, 403, 404, 409, 413, 422) or failed.code == BudgetError.code:
        return RefusedError(said)
    if failed.status == 504:
        return SlowError(said)
    if failed.status in (429, 503):
        return UnavailableError(said, retry_after_s=failed.retry_after_s)
    return ExpertError(said)
