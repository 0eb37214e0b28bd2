"""Answers what other nodes ask: opens the ask, has it answered, and sends frames, the last one signed.

Knows no transport: what is sent goes to a callable. Knows no terms: who may ask what is another callable's to
say. Written so that nobody waits for ever: a silent answer sends a sign of life, one that nobody takes stops.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from manyminds.alarm import Alarm
from manyminds.errors import (
    AskError,
    BudgetError,
    FrameError,
    ManymindsError,
    SignatureError,
    UnavailableError,
)
from manyminds.network import jws, receipt
from manyminds.network.ask import Ask, Heard, Once, open_ask
from manyminds.network.card import PROTOCOL
from manyminds.network.frames import (
    MOST_CITED,
    Answered,
    AnswerHash,
    Cited,
    Failed,
    Frame,
    Grounded,
    Said,
    Sealer,
    Told,
    request_hash,
)
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt, Signed
from manyminds.network.transport import Send
from manyminds.types import Chunk, Citation, Journey, Query, Report, Usage
from manyminds.wire import capped, parse_request

__all__ = ["BEAT_S", "Admit", "Answering", "Grant", "Guest", "Keep", "Price"]

BEAT_S: Final = 0.25
"""Between two signs of life of an answer that is silent."""

_FIRST_BEAT_S: Final = 0.02  # until the first: what is answered sooner needs none
_GATHERED_CHARS: Final = 16_000  # of an answer's text in one frame, from which on it waits for no more
_KEPT_S: Final = 60.0  # for which a countersignature, and how far the answer moved the whole, may come
_MOST_KEPT: Final = 20_000
_LEFT: Final = 0.97  # of the time that who asks has: the way back takes some
_STALLED_S: Final = 20.0  # after which an answer that nobody takes is broken off

log = logging.getLogger(__name__)


class Keep(Protocol):
    """Keeps a receipt, with the id of the request it is about; again, once it is countersigned or settled."""

    def __call__(
        self, receipt: Receipt, signed: Signed, request_id: str, settled_nats: float | None = None, /
    ) -> None: ...


class Price(Struct, frozen=True):
    """What an answer is charged, in US dollars for a million tokens."""

    in_usd_per_m: float = 0.0
    out_usd_per_m: float = 0.0

    def of(self, usage: Usage) -> float:
        """Of one answer, in US dollars."""
        tokens = usage.prompt_tokens * self.in_usd_per_m + usage.completion_tokens * self.out_usd_per_m
        return tokens / 1e6


def _nobody(_: float) -> None:
    pass


class Grant(Struct, frozen=True):
    """To what who asked has agreed, of this node's terms.

    Attributes:
        max_share: of what the whole owes to all sources, the most that it will owe to this node.
        nats: how far the answer may move the whole. Either is None where this node does not limit that.
        settle: is told once, in [0, nats], how far it did.
    """

    max_share: float | None = None
    nats: float | None = None
    settle: Callable[[float], None] = _nobody


class Guest(Struct, frozen=True):
    """An ask that was let in: as a query of this node, who answers it, what is told of its price, and on what
    terms.
    """

    query: Query
    answer: Callable[[Query], AsyncGenerator[Chunk, None]]
    price: Price
    charge: Callable[[float], None]
    grant: Grant = Grant()


Admit = Callable[[Heard, Query, bool], AbstractAsyncContextManager[Guest]]
"""Lets in what another node asks, as a query, which came by HTTPS or not. Raises: ManymindsError."""


class Answering:
    """What other nodes ask of this one.

    Args:
        identity: this node's.
        admit: see `Admit`.
        keep: see `Keep`.
        new_id: makes the ids of requests.
    """

    def __init__(self, identity: Identity, admit: Admit, keep: Keep, new_id: Callable[[], str]) -> None:
        self._identity = identity
        self._admit = admit
        self._keep = keep
        self._new_id = new_id
        self._seen = Once()
        self._alarm = Alarm()
        self._open: dict[str, _Conversation] = {}  # by the ask's id
        self._signed: dict[str, _Conversation] = {}  # that have ended, in that order
        self.refused = 0  # asks that were not opened

    async def answer(self, sealed: bytes, send: Send, *, by_https: bool = False) -> None:
        """Answers an ask. Raises: AskError, before anything is sent, where it is none for this node.

        Cancelled, it breaks off. A failure is told in a frame, and not raised.
        """
        try:
            heard = open_ask(self._identity, sealed, self._seen)
            if self._known(heard.ask.id) is not None:  # another's, whose answer would be nobody's then
                raise AskError("An ask of that id is here: ask anew.")
        except ManymindsError:
            self.refused += 1
            raise
        conversation = _Conversation(heard, send, self._alarm, asyncio.current_task())
        self._open[heard.ask.id] = conversation
        try:
            await self._answer(conversation, heard, by_https=by_https)
        except ManymindsError as error:
            conversation.fail(error)
        except asyncio.CancelledError:
            why = "who asked hung up." if conversation.hung_up else "this node is ending: ask another."
            conversation.fail(UnavailableError(why))
            if not conversation.hung_up:
                raise
        except Exception:
            log.exception("what %s asked failed unexpectedly", heard.asker)
            conversation.fail(ManymindsError("Something went wrong inside this node; its log says what."))
        finally:
            conversation.end()
            if conversation.issued is None and not conversation.is_used:
                conversation.settle(0.0)
            self._forget(heard.ask.id)

    def tell(self, ask_id: str, sealed: bytes) -> None:
        """What who asked says besides. What is of no ask that is known, or not from who asked, is nothing."""
        conversation = self._known(ask_id)
        if conversation is None:
            return
        try:
            told = conversation.sealer.open_told(sealed)
        except FrameError as error:
            log.info("%s told what makes no sense: %s", conversation.asker, error.message)
            return
        if told is None:
            return
        if told.cancel:
            conversation.hang_up(unused=told.settled_nats is not None)
        conversation.grant(told.granted)
        if told.countersigned is not None:
            self._countersigned(conversation, told)
        if told.settled_nats is not None:
            self._settled(conversation, told.settled_nats)

    def _countersigned(self, conversation: "_Conversation", told: Told) -> None:
        issued = conversation.issued
        if issued is None or issued.is_countersigned:
            return
        try:
            counter = msgspec.convert(told.countersigned, jws.Signature)
            found, both = receipt.countersigned(issued, counter)
        except (msgspec.ValidationError, SignatureError) as error:
            log.info("%s countersigned a receipt that does not hold: %s", conversation.asker, error)
            return
        conversation.issued, conversation.receipt = both, found
        self._keep(found, both, conversation.request_id)

    def _settled(self, conversation: "_Conversation", nats: float) -> None:
        """Believes who asked how far the answer moved the whole, once what was granted is countersigned.

        What broke off before it was signed is no answer: there it is enough to say that it is not used.
        """
        made, issued = conversation.receipt, conversation.issued
        if issued is None and conversation.ended:
            conversation.settle(nats)
        if made is None or issued is None or not issued.is_countersigned:
            return
        if (spent := conversation.settle(nats)) is not None:
            self._keep(made, issued, conversation.request_id, spent)

    async def _answer(self, conversation: "_Conversation", heard: Heard, *, by_https: bool) -> None:
        ask, request = heard.ask, bytes(heard.ask.request)
        conversation.request_id = request_id = self._new_id()
        query = _query(ask, request, request_id, asyncio.get_running_loop().time())
        said, last = AnswerHash(ask.nonce), Chunk()
        async with self._admit(heard, query, by_https) as guest:
            conversation.granted = guest.grant
            query = _within(ask, guest)
            async with aclosing(guest.answer(query)) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason is not None:
                        last = chunk
                    if (frame := _frame(query, chunk)) is not None:
                        said.take(frame)
                        await conversation.send(frame)
            if last.finish_reason is None:
                raise UnavailableError("the answer was broken off.")
            usage = last.usage or Usage()
            made = self._receipt(heard, guest, usage, last.report, said.hex, request)
            conversation.issued = receipt.issue(self._identity, made)
            guest.charge(made.price_usd)
            await conversation.finish(_answered(last, conversation.issued, guest.grant))
            self._keep(made, conversation.issued, request_id)

    def _receipt(
        self, heard: Heard, guest: Guest, usage: Usage, report: Report | None, said: str, request: bytes
    ) -> Receipt:
        ask = heard.ask
        panel = report.panel if report else ()
        shares = [entry for entry in panel if entry.status == "ok" and not entry.declined]
        return Receipt(
            v=PROTOCOL,
            ask=ask.id,
            asker=ask.key,
            answerer=jws.base64url(self._identity.public),
            nonce=ask.nonce,
            request_sha256=request_hash(request, ask.nonce),
            answer_sha256=said,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            price_usd=min(guest.price.of(usage), ask.budget_usd),
            experts=tuple(dict.fromkeys(entry.expert for entry in shares))[:256],
            sources=tuple(dict.fromkeys(entry.source for entry in shares))[:256],
            at=round(time.time(), 3),
            purpose=ask.purpose,
            max_share=guest.grant.max_share,
            nats=guest.grant.nats,
        )

    def _known(self, ask_id: str) -> "_Conversation | None":
        return self._open.get(ask_id) or self._signed.get(ask_id)

    def _forget(self, ask_id: str) -> None:
        """One that has ended: at once where nothing was signed, else when nobody can be expected to sign it
        any more. O(1) for each.
        """
        ended = self._open.pop(ask_id)
        if ended.issued is not None or ended.granted.nats is not None:
            self._signed[ask_id] = ended
        now = asyncio.get_running_loop().time()
        while self._signed:
            oldest = next(iter(self._signed))
            if now - self._signed[oldest].ended_at <= _KEPT_S and len(self._signed) <= _MOST_KEPT:
                break
            self._signed.pop(oldest).settle(math.inf)


class _Conversation:
    """One ask while it is answered, and a while longer: what may be sent, and what was signed."""

    def __init__(self, heard: Heard, send: Send, alarm: Alarm, task: "asyncio.Task[object] | None") -> None:
        self.asker = heard.asker
        self.sealer = Sealer(heard.reply_key, answers=True)
        self.issued: Signed | None = None
        self.receipt: Receipt | None = None  # once it is countersigned
        self.granted = Grant()
        self.request_id = ""
        self.hung_up = self.ended = False
        self.ended_at = 0.0
        self._send = send
        self._alarm = alarm
        self._task = task
        self._granted = heard.ask.window
        self._pieces = 0  # frames that count: not signs of life
        self._more = asyncio.Event()
        self._text: list[str] = []  # what goes with the next frame
        self._chars = 0  # of it
        self._quiet = True
        self._unused = False
        self._loop = asyncio.get_running_loop()
        alarm.note(self, self._loop.time() + _FIRST_BEAT_S, self._beat)

    @property
    def is_used(self) -> bool:
        """Whether it may be, also where it broke off: any of it was sent, and nobody said otherwise."""
        return self._pieces > 0 and not self._unused

    def settle(self, nats: float) -> float | None:
        """How far it moved the whole, at most as far as it might; None where that is not counted, or was."""
        granted, self.granted = self.granted, Grant()
        if granted.nats is None:
            return None
        spent = min(granted.nats, nats)
        granted.settle(spent)
        return spent

    def _beat(self) -> None:
        """A sign of life, where nothing else was sent for a while."""
        if self.ended:
            return
        if self._quiet:
            self._send(self.sealer.seal(Frame()), False)
        self._quiet = True
        self._alarm.note(self, self._loop.time() + BEAT_S, self._beat)

    async def send(self, frame: Frame) -> None:
        """A piece of the answer, once it may be sent. Raises: UnavailableError where nobody takes it.

        Pieces of text that come at once, as from one read of a socket, go in one frame.
        """
        await self._room()
        if frame.chunk is not msgspec.UNSET:
            self._flush()
            await self._room()
            self._pieces += 1
            self._put(frame)
            return
        if not self._text:
            self._loop.call_soon(self._flush)
        self._text.append(frame.text)
        self._chars += len(frame.text)
        if self._chars >= _GATHERED_CHARS:
            self._flush()

    async def finish(self, answered: Answered) -> None:
        """The end, with what was not sent yet. Raises: UnavailableError where nobody takes it."""
        if self._text:
            await self._room()
        self._put(Frame(self._gathered(), answered=answered))

    def fail(self, error: ManymindsError) -> None:
        self._flush()
        failed = Failed(error.message[:2000], error.code or "", error.status, error.retry_after_s)
        self._put(Frame(failed=failed))

    def grant(self, granted: int) -> None:
        if granted > self._granted:
            self._granted = granted
            self._flush()
            self._more.set()

    async def _room(self) -> None:
        """Waits until another piece may be sent."""
        while self._pieces >= self._granted:
            self._more.clear()
            try:
                async with asyncio.timeout(_STALLED_S):
                    await self._more.wait()
            except TimeoutError:
                raise UnavailableError("nobody took the answer.") from None

    def _flush(self) -> None:
        """Sends the text that was gathered, where another piece may be sent."""
        if self._text and not self.ended and self._pieces < self._granted:
            self._pieces += 1
            self._put(Frame(self._gathered()))

    def _gathered(self) -> str:
        text = "".join(self._text)
        self._text.clear()
        self._chars = 0
        return text

    def hang_up(self, *, unused: bool) -> None:
        """Nobody wants the rest; `unused`: nor what came of it."""
        self._unused = self._unused or unused
        if not self.ended and not self.hung_up and self._task is not None:
            self.hung_up = True
            self._task.cancel()

    def end(self) -> None:
        self.ended, self._task = True, None
        self.ended_at = self._loop.time()
        self._alarm.drop(self)

    def _put(self, frame: Frame) -> None:
        self._quiet = False
        self._send(self.sealer.seal(frame), frame.answered is not None or frame.failed is not None)


def _query(ask: Ask, request: bytes, request_id: str, now: float) -> Query:
    """Raises: InvalidRequestError."""
    query = parse_request(request, request_id)
    limits = query.limits
    deadline_s = _LEFT * min(ask.deadline_s, limits.deadline_s or ask.deadline_s)
    journey = Journey(now + deadline_s, ask.hops, ask.visited, ask.purpose, ask.budget_usd)
    return replace(query, stream=True, limits=replace(limits, deadline_s=deadline_s), journey=journey)


def _within(ask: Ask, guest: Guest) -> Query:
    """The query with no longer an answer than its budget pays for. Raises: BudgetError."""
    query, price = guest.query, guest.price
    left_usd = ask.budget_usd - query.estimated_tokens * price.in_usd_per_m / 1e6
    if price.out_usd_per_m <= 0 and left_usd >= 0:
        return query
    tokens = int(left_usd * 1e6 / price.out_usd_per_m) if price.out_usd_per_m > 0 else 0
    if tokens < 1:
        raise BudgetError(
            f"${ask.budget_usd:g} do not pay for an answer here, at ${price.in_usd_per_m:g} and"
            f" ${price.out_usd_per_m:g} for a million tokens of question and answer."
        )
    return capped(query, tokens)


def _frame(query: Query, chunk: Chunk) -> Frame | None:
    """A chunk as a frame: as it came, where the request demands more than text."""
    if (query.demands or query.sampling.n > 1) and chunk.raw:
        return Frame(chunk=msgspec.Raw(chunk.raw))
    return Frame(text=chunk.text) if chunk.text else None


def _answered(last: Chunk, issued: Signed, grant: Grant) -> Answered:
    report = last.report
    return Answered(
        finish_reason=last.finish_reason or "stop",
        receipt=msgspec.json.encode(issued).decode(),
        probability=report.probability if report else last.confidence,
        panel=tuple(Said(e.expert, e.source, e.weight, e.status) for e in report.panel[:256])
        if report
        else (),
        nats=grant.nats,
        grounds=_grounded(last),
    )


def _grounded(last: Chunk) -> Grounded | None:
    """What an answer rests on, as it is told: cut to what a frame may hold."""
    found = last.grounds
    if found is None:
        return None
    cited = tuple(map(_cited, found.citations[:MOST_CITED]))
    return Grounded(_share(found.support), cited, found.declined)


def _cited(citation: Citation) -> Cited:
    return Cited(
        source=citation.source[:200],
        expert=citation.expert[:200],
        document=citation.document[:400],
        heading=citation.heading[:400],
        paragraph=max(citation.paragraph, 0),
        quote=citation.quote[:4000],
        share=_share(citation.share),
    )


def _share(value: float) -> float:
    """In [0, 1], where it is a number at all."""
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
