"""What is released, and what is said when nothing can be. Pure.

Knows no posterior: which answer wins is for the combiners to say.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from manyminds.combine.ballot import has_say
from manyminds.errors import AllExpertsFailedError, AnswerError, DeadlineError, RefusedError
from manyminds.types import Answer, Chunk, Count, Posterior, Query, Route

__all__ = ["Chooser", "failure", "release", "standby"]

_REASON_CHARS = 200  # of what an expert says of its failure, which is untrusted


class Chooser(Protocol):
    """A combiner that releases one of the answers as it is."""

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior: ...

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]: ...

    def counting(self, query: Query, route: Route, answers: Sequence[Answer]) -> Count:
        """What `candidates` and `posterior` are of some of these answers; each is read once."""
        ...

    def choose(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer:
        """Pure and order-free. Raises: AnswerError when there is nothing to release."""
        ...


def release(answer: Answer) -> Iterator[Chunk]:
    """The answer's own chunks, so that what an expert sent is relayed untouched.

    One that the deadline cut ends with "length": it was stopped by a limit, and is no whole answer.
    """
    if answer.status == "late":
        yield from answer.chunks
        yield Chunk("", "length", answer.usage)
    else:
        yield from answer.chunks or (Chunk(answer.text, "stop", answer.usage),)


def standby(route: Route, answers: Sequence[Answer]) -> Answer:
    """The answer of the likeliest expert, for when none can be compared.

    Where the deadline came before any whole answer, what the likeliest had written until then. Where all
    decline, that one of them does.

    Raises: AllExpertsFailedError, DeadlineError when all were late without a word, or RefusedError when
        all refused.
    """
    probability = {call.expert: call.probability for call in reversed(route.everyone) if call.weight}
    heard = [a for a in answers if has_say(route, a)]
    if not heard:
        heard = [a for a in answers if a.status == "late" and a.text.strip() and a.expert in probability]
    if not heard:
        heard = [a for a in answers if a.status == "ok" and a.declined and a.expert in probability]
    if not heard:
        raise failure(route, answers)
    return min(heard, key=lambda a: (-probability[a.expert], a.expert, a.text))


def failure(route: Route, answers: Sequence[Answer]) -> AnswerError:
    """Why there is nothing to release, with each expert's reason."""
    asked = [a for a in answers if a.status != "cancelled"]
    reasons = "; ".join(sorted({f"{a.expert} {_reason(a)}" for a in asked}))
    weights = {call.expert: call.weight for call in route.everyone}
    awaited = [a for a in asked if weights.get(a.expert)]
    if awaited and all(a.status == "late" for a in awaited):
        return DeadlineError(f"The deadline passed before any answer ({reasons}): allow more time.")
    if awaited and all(isinstance(a.error, RefusedError) for a in awaited):
        return RefusedError(f"No expert can do this ({reasons}): change the request.")
    if not asked:
        return AllExpertsFailedError("No expert was asked: see that at least one is up and not excluded.")
    waits = [a.error.retry_after_s for a in awaited if a.error and a.error.retry_after_s is not None]
    message = f"No expert gave an answer ({reasons}): try again, or ask others."
    return AllExpertsFailedError(message, retry_after_s=min(waits, default=None))


def _reason(answer: Answer) -> str:
    if answer.status == "ok":
        return "answered but has no vote"
    said = f": {answer.error.message[:_REASON_CHARS].rstrip('. ')}" if answer.error else ""
    return f"was {answer.status}{said}" if answer.status in ("late", "cut") else f"{answer.status}{said}"
