"""What has come of one call so far, and the answer that it makes in the end. Does no I/O."""

from dataclasses import dataclass, field

from manyminds.errors import (
    ExpertError,
    GarbageError,
    InvalidRequestError,
    ManymindsError,
    RefusedError,
    UnavailableError,
)
from manyminds.types import Answer, Call, Card, Chunk, Query, Status, Usage

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Counts one call. `card` is None where its expert is gone. Times are of the loop's clock, in seconds."""

    call: Call
    card: Card | None
    query: Query
    began: float | None = None
    first_at: float | None = None  # None also where it came all at once
    whole: bool = False  # asked for in one piece: until that comes, nobody sees what is written
    chunks: list[Chunk] = field(default_factory=list)
    status: Status = "cancelled"  # as long as it has neither succeeded nor failed
    error: ExpertError | None = None

    def take(self, chunk: Chunk, now: float) -> None:
        if self.first_at is None:
            self.first_at = now
        self.chunks.append(chunk)

    def fail(self, failure: BaseException, late: bool) -> None:
        """Notes how it failed; `late` where the deadline has passed."""
        self.status = "late" if late else "cut" if self.chunks else "failed"
        self.error = failure if isinstance(failure, ExpertError) else self._unexpected(failure)

    def answer(self, now: float) -> Answer:
        """What came of it."""
        began = now if self.began is None else self.began
        last = self.chunks[-1] if self.chunks else Chunk()
        text = last.text if len(self.chunks) == 1 else "".join(c.text for c in self.chunks)
        return Answer(
            expert=self.call.expert,
            source=self.call.source,
            status=self.status,
            text=text,
            chunks=tuple(self.chunks),
            stage=self.call.stage,
            method=self.call.method,
            confidence=last.confidence,
            began_s=self.began,
            ttft_s=None if self.first_at is None else self.first_at - began,
            seconds=now - began,
            usage=last.usage or self._spent(now - began),
            error=self.error,
            prior=self.call.prior,
            claimed_usd=self._claimed_usd(text, now - began),
            nats=last.nats,
            grounds=last.grounds,
        )

    def _claimed_usd(self, text: str, seconds: float) -> float | None:
        """What its card makes of a whole answer, by a count of our own: neither price nor tokens as charged.

        None where the text is not all that was read and written.
        """
        if self.card is None or self.status != "ok" or self.query.demands or self.query.sampling.n > 1:
            return None
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        return self.card.price_usd(self.query.estimated_tokens, -(-size // 4), seconds)

    def _spent(self, seconds: float) -> Usage:
        """What a call took that ended before its expert could say so: an estimate, rather high than low.

        A call that failed before its first word is taken to have cost nothing, and one that was stopped
        before it to have computed nothing: it may have waited its turn. One that was to come whole may have
        been written to its end when it was stopped, and be charged for.
        """
        if self.card is None or self.began is None or self.status in ("ok", "failed"):
            return Usage()
        card, sampling = self.card, self.query.sampling
        prompt, completion = self.query.estimated_tokens, sum(1 for chunk in self.chunks if chunk.text)
        if self.whole:
            completion = (sampling.max_tokens or card.context_tokens) * sampling.n
        cpu_s = seconds if card.price_cpu_usd_per_hour and (self.chunks or self.whole) else 0.0
        return Usage(prompt, completion, cpu_s, card.price_usd(prompt, completion, cpu_s))

    def _unexpected(self, failure: BaseException) -> ExpertError:
        """A nested network refused, or an expert broke its contract: its call fails, the request does not."""
        if isinstance(failure, InvalidRequestError):
            return RefusedError(failure.message)
        if isinstance(failure, ManymindsError):
            return UnavailableError(failure.message)
        return GarbageError(f"{self.call.expert} failed unexpectedly: {failure!r:.300}")
