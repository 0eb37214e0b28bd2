"""The protocols of manyminds: what an expert, a router and a combiner are, whoever wrote them.

Written against the nouns alone.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from manyminds.types.nouns import (
    Answer,
    Call,
    Card,
    Chunk,
    Following,
    Limits,
    Outcome,
    Posterior,
    Query,
    Route,
    Samples,
    Scores,
)

if TYPE_CHECKING:
    from manyminds.types.nouns import Vectors

__all__ = [
    "Arrival",
    "Arrivals",
    "Combiner",
    "Completer",
    "Distributor",
    "Embed",
    "Expert",
    "Hold",
    "Router",
    "Sampler",
    "Scorer",
]


class Hold(Protocol):
    """What is put aside of a budget for one request. Who never settles it has spent all of it."""

    def settle(self, spent: float, /) -> None: ...


class Embed(Protocol):
    """Texts to unit vectors: (n,) -> (n, d) float32. Pure; a text's vector does not depend on the others."""

    def __call__(self, texts: Sequence[str], /) -> "Vectors": ...


@runtime_checkable
class Expert(Protocol):
    """Whatever answers: a model, a network, a recording. The one shape that everything has.

    `stream` yields text as it comes; exactly one chunk, the last, carries `finish_reason` and `usage`.
    Raises `ExpertError` (only), from the first `anext` on. Closing the generator, or cancelling
    whoever awaits it, cancels the work upstream at once.
    """

    @property
    def card(self) -> Card: ...

    def stream(self, query: Query) -> AsyncGenerator[Chunk, None]: ...


@runtime_checkable
class Completer(Expert, Protocol):
    """An expert that can also answer in one piece, at less cost than as a stream. Same errors, same rules."""

    async def complete(self, query: Query) -> Sequence[Chunk]:
        """All chunks of the answer; one with `whole` where the expert sent its completion in one piece."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """An expert that can also rate given options (its card offers "score")."""

    async def score(self, query: Query, options: Sequence[str]) -> Scores: ...


@runtime_checkable
class Sampler(Protocol):
    """An expert that can answer several times at once (its card offers "samples"). Same errors."""

    async def sample(self, query: Query, count: int) -> Samples: ...


@runtime_checkable
class Distributor(Protocol):
    """An expert that also says what each next token may be. Same errors."""

    async def vocabulary(self) -> str:
        """Names what its token ids mean. Experts with the same one can be asked about the same text."""
        ...

    async def prompt_tokens(self, query: Query) -> tuple[int, ...]:
        """The question as it reads it, up to where its answer begins."""
        ...

    async def next_tokens(self, tokens: Sequence[int], count: int) -> Following:
        """The `count` likeliest tokens behind these. A text that goes on costs what is new of it."""
        ...


class Router(Protocol):
    """Predicts who will be right at what price, and chooses a panel.

    Pure but for what it learns. Permuting `candidates` permutes nothing in the result.
    """

    def route(self, query: Query, candidates: Sequence[Card], limits: Limits) -> Route:
        """Raises: NoExpertError when no candidate meets the hard limits."""
        ...

    def observe(self, outcome: Outcome) -> None: ...

    def admit(self, card: Card, outcomes: Sequence[Outcome] = ()) -> None: ...

    def forget(self, source: str) -> None:
        """Forgets everything learnt of a source's experts. Unknown sources are tolerated."""
        ...


class Arrival(Protocol):
    """A call under way."""

    @property
    def call(self) -> Call: ...

    @property
    def answer(self) -> Answer | None:
        """None until the call has ended."""
        ...

    def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Chunks from the first on, as they come. Raises: ExpertError where the call fails."""
        ...

    async def whole(self) -> Answer:
        """Waits for the end. Never raises for a failed call: the answer says so."""
        ...


class Arrivals(Protocol):
    """The calls of one request. A stage starts when it is asked for and the one before is drained.

    Both views end when no call is left, at the deadline, or when there is enough posterior mass.
    """

    def started(self) -> AsyncGenerator[Arrival, None]:
        """Calls in order of their first chunk; a call that fails before one is not among them."""
        ...

    def finished(self) -> AsyncGenerator[Answer, None]:
        """Answers, whole or failed, in order of completion."""
        ...

    def open(self, expert: str, query: Query) -> Arrival:
        """Starts one more call under the same deadline, such as a fuser's. The panel shows it.

        Raises: UnavailableError when no such expert is known.
        """
        ...

    async def cancel(self, keep: Arrival | None = None) -> None:
        """Cancels what still runs, upstream too, but for `keep`. Nothing starts afterwards."""
        ...


class Combiner(Protocol):
    """Many answers to one.

    One may also have `counting(query, route, answers) -> Count`, which reads and weighs each answer once:
    attribution asks for a posterior without each source.
    """

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        """The candidate that each answer stands for, aligned with `answers`; None abstains. Pure."""
        ...

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """Pure. Order-free; a failed answer, an abstention or a call of weight 0 has no effect."""
        ...

    def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        """Streams the released answer. Raises: AnswerError when there is nothing to release."""
        ...
