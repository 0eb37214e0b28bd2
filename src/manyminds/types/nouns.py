"""The nouns of manyminds. Knows no wire format, no network and no model.

Units ride in names: `_s` seconds, `_usd` US dollars, `_tokens` tokens. The nouns are frozen:
`msgspec.structs.replace` makes a changed copy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType, field

from manyminds.errors import ExpertError
from manyminds.types.knowledge import Citation, Conflict, Grounds
from manyminds.types.terms import FREE, Bound, Granted, Period, Privacy, Terms
from manyminds.types.watching import Watch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]

__all__ = [
    "Answer",
    "Attribution",
    "Call",
    "Card",
    "Chunk",
    "Count",
    "Following",
    "Journey",
    "Key",
    "Kind",
    "Limits",
    "Message",
    "Method",
    "Outcome",
    "PanelEntry",
    "Posterior",
    "Prior",
    "Query",
    "Report",
    "Route",
    "Samples",
    "Sampling",
    "Scores",
    "Search",
    "Status",
    "Strategy",
    "Task",
    "Usage",
    "Weighed",
]

Kind: TypeAlias = Literal["option", "number", "json", "span", "exact", "text"]
"""What makes two answers comparable: see `canonical`."""

Strategy: TypeAlias = Literal["vote", "select", "fuse", "race", "pass", "private"]
"""How answers become one: see `combine`. `pass` is a race of one, `private` a vote with noise."""

Method: TypeAlias = Literal["generate", "score", "fuse"]
"""How an expert is asked: write an answer, rate the given options, or write one answer from drafts."""

Status: TypeAlias = Literal["ok", "failed", "cut", "late", "cancelled"]
"""How a call ended: whole; error before any text; error after some; deadline; no longer needed."""


# --- what is asked ---------------------------------------------------------------------------------


_IMAGE_TOKENS = 4096  # of an image that is sent as an address


class Message(Struct, frozen=True):
    """One turn. `text` joins the text parts; images and tool calls stay in `Query.raw`."""

    role: str
    text: str


class Sampling(Struct, frozen=True):
    """How an expert should generate. `None` leaves the expert's own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    grammar: str = ""  # GBNF that the answer must follow; only experts that offer "grammar" know it


class Limits(Struct, frozen=True):
    """What the caller demands of an answer: the request's `manyminds` object. `None` is unset."""

    policy: str | None = None
    panel: int | None = None  # experts on the panel at most; others stand in only where all of it fails
    include: tuple[str, ...] = ()  # experts or sources; empty allows all
    exclude: tuple[str, ...] = ()
    require: tuple[str, ...] = ()  # experts or sources without whose answer there is none
    weights: Mapping[str, float] = field(default_factory=dict)  # of an expert or a source; 0 is "no vote"
    purpose: str = ""  # what the answer is for, in a word: owners may allow some purposes only
    budget_usd: float | None = None
    deadline_s: float | None = None
    quorum: int | None = None  # combine as soon as this many answers are in
    strategy: Strategy | None = None
    topic: str = ""  # what the question is about, in a word of the set that was learnt from
    grounded: bool = False  # only an answer that documents support, else none
    explain: bool | Literal["full"] = False  # "full" also measures what a fused answer owes to whom
    watch: bool = False  # show the panel at work while an answer is streamed
    epsilon: float | None = None  # of a private answer: what it may tell of any one source, at `delta`
    delta: float | None = None
    candidates: tuple[str, ...] = ()  # of a private answer: what it may be, where the question does not say
    cache: Literal["off", "refresh"] | None = None  # ask anew: and keep nothing, or keep the new answer


class Task(Struct, frozen=True):
    """What kind of answer a question wants, and between which options it chooses, if any."""

    kind: Kind = "text"
    options: tuple[str, ...] = ()  # option texts; the i-th has letter A + i
    stem: str = ""  # the question without its options: what comes before and behind them


class Journey(Struct, frozen=True):
    """What travels with a question from node to node, and holds for all that is asked on its way."""

    due_s: float  # by the loop's clock: from then on nobody waits for the answer
    hops: int  # how often it may be passed on from here
    visited: tuple[str, ...] = ()  # ids of the nodes it came by, the one that asked this one last
    purpose: str = ""  # what the answer is for, in a word
    budget_usd: float | None = None
    """The most that may be paid for it from here on, whatever comes; None where only this node pays."""


class Query(Struct, frozen=True, eq=False):
    """One question with its conversation. `raw` holds the caller's own JSON, for pass-through."""

    messages: tuple[Message, ...]
    model: str = "auto"
    fallbacks: tuple[
        str, ...
    ] = ()  # further models, asked in order where `model` fails before its first word
    stream: bool = False
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    demands: frozenset[str] = frozenset()
    """Of "tools", "json_schema", "image", "logprobs", "embeddings", "citations"."""
    include_usage: bool = False
    request_id: str = ""
    raw: bytes = b""
    key: "Key | None" = None  # what the caller came with; None is nobody in particular
    task: Task = Task()
    section: str = ""  # what it is about, in a word: as the caller says, else as it is guessed
    vector: "Vectors | None" = None  # (d,) unit float32 of `question`; None where no encoder is installed
    journey: Journey | None = None  # None until a gateway has taken it up
    bound: Bound | None = None  # of one call: how far its answer is to move the whole
    watch: Watch | None = None  # who is told how the panel comes along; never passed on to an expert

    @property
    def estimated_tokens(self) -> int:
        """Prompt tokens, from the messages' text: tokenizers differ between experts.

        Four bytes of UTF-8 a token are near enough for English and cautious elsewhere; a chat template
        adds some four tokens a message.
        """
        size = 0
        for message in self.messages:
            text = message.text
            size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        return -(-size // 4) + 4 * len(self.messages)

    @property
    def most_tokens(self) -> int:
        """More prompt tokens than any tokenizer can make of it: a byte each, and images at their largest."""
        size = len(self.raw) or sum(len(m.text.encode("utf-8", "surrogatepass")) + 64 for m in self.messages)
        return size + (_IMAGE_TOKENS * self.raw.count(b"image_url") if "image" in self.demands else 0)

    @property
    def question(self) -> str:
        """The last user turn, which is what the router looks at."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")


# --- what is answered ------------------------------------------------------------------------------


class Usage(Struct, frozen=True):
    """What an answer took. `cpu_s` is set by experts that compute on this machine."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cpu_s: float = 0.0
    cost_usd: float = 0.0


class Chunk(Struct, frozen=True):
    """A piece of an answer. The last one has a finish reason and the usage.

    `raw` is the expert's own JSON, relayed untouched: an event of a stream, or with `whole`, which only a
    `Completer` gives, all of its chat completion in the only chunk. A chunk without it is written by
    the edge from `text`. `report` comes with a gateway's last chunk, `confidence` (raw, in
    [0, 1]) with an expert that has one.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    raw: bytes = b""
    whole: bool = False
    confidence: float | None = None
    report: "Report | None" = None
    nats: float | None = None  # with the last chunk: how far its owner lets it move an answer
    grounds: Grounds | None = None  # with the last chunk: of who answers from documents, what it rests on

    @property
    def declines(self) -> bool:
        """Whether it ends an answer that is none: see `Answer.declined`."""
        return self.grounds is not None and self.grounds.declined


class Prior(Struct, frozen=True):
    """How likely an expert was to be right by what was learnt beforehand, without any grade since.

    `basis` names what that was learnt: predictions from another basis are corrected by other grades.
    """

    probability: float
    basis: str


class Answer(Struct, frozen=True):
    """What came of one call, also when it failed: `status` says how it ended."""

    expert: str
    source: str
    status: Status
    text: str = ""
    chunks: tuple[Chunk, ...] = ()
    stage: int = 0
    method: Method = "generate"
    confidence: float | None = None  # raw; of a scored answer, the chosen option's share of likelihood
    began_s: float | None = None  # when, by the gateway's clock; None where the call was never begun
    ttft_s: float | None = None
    seconds: float = 0.0
    usage: Usage = Usage()
    error: ExpertError | None = None
    prior: Prior | None = None
    claimed_usd: float | None = None  # what its card makes of it, by our own count; None where that is unsure
    nats: float | None = None  # how far its owner lets it move the whole; None where it is for us to say
    grounds: Grounds | None = None  # what it rests on; None of who has no documents

    @property
    def declined(self) -> bool:
        """Whether its text says that its documents hold no answer: it is then no candidate."""
        return self.grounds is not None and self.grounds.declined


class Posterior(Struct, frozen=True):
    """Probability of each candidate, and of `other`: "none of these". They sum to 1."""

    candidates: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    other: float = 1.0

    @property
    def best(self) -> float:
        """Probability of the likeliest candidate; 0 without any."""
        return max(self.probabilities, default=0.0)


Count: TypeAlias = Callable[[Sequence[int]], tuple[list[str | None], Posterior]]
"""Of some answers to a request, by position: their candidates, and their posterior without the others."""


class Weighed(Struct, frozen=True):
    """What answers come to where sources have bounds: see `combine.bounded`."""

    route: "Route"  # with what each call's votes weigh then
    multipliers: Mapping[str, float]  # by source that has a bound and answered
    count: Count


class Samples(Struct, frozen=True):
    """Several answers to one question, drawn independently: their texts, and how each one ended."""

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    usage: Usage  # of all of them; the prompt is read once
    log_likelihoods: tuple[float, ...] = ()  # of each text, in nats, at temperature 1; () where not known


class Following(Struct, frozen=True):
    """The tokens that may come next, the likeliest first: ids, log-probabilities (nats), what they spell.

    A token may spell a part of a character, or nothing: then the text ends there.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    pieces: tuple[bytes, ...]
    usage: Usage = Usage()


class Scores(Struct, frozen=True):
    """Log-likelihood of each option in the order given, in nats for each of its bytes.

    Long options are not at a disadvantage then (`acc_norm` of lm-evaluation-harness).
    """

    log_likelihoods: tuple[float, ...]
    usage: Usage


# --- who is asked ----------------------------------------------------------------------------------


class Card(Struct, frozen=True):
    """What an expert says of itself. Claims are a prior: what is measured here replaces them."""

    name: str
    kind: str  # openai, local, recorded, scripted, documents, peer, gateway
    source: str = ""  # whom attribution credits
    model: str = ""  # its name upstream
    variant_of: str = ""  # the expert of which this is one way of asking; empty: an expert of its own
    description: str = ""
    skills: tuple[str, ...] = ()
    accuracy: float = 0.5  # share of correct answers claimed
    accuracy_in: Mapping[str, float] | None = None
    """By section: what takes the place of `accuracy` there, and of all grades, of which it was made."""
    ttft_s: float = 1.0
    tokens_per_s: float = 20.0
    price_in_usd_per_m: float = 0.0
    price_out_usd_per_m: float = 0.0
    price_cpu_usd_per_hour: float = 0.0
    context_tokens: int = 8192
    tasks: frozenset[Kind] = frozenset()  # the kinds of task that it answers; empty: all
    offers: frozenset[str] = frozenset()
    """Of "tools", "json_schema", "image", "logprobs", "n", "score", "samples", "grammar", "citations"; or
    "embeddings"."""
    parameters: int = 0
    paragraphs: int = 0  # of documents that it answers from; such an expert's `accuracy` is that of the rest
    licence: str = ""
    terms: Terms = FREE

    def price_usd(self, prompt_tokens: int, completion_tokens: int, cpu_s: float) -> float:
        """What so much costs by its prices, in US dollars."""
        tokens = prompt_tokens * self.price_in_usd_per_m + completion_tokens * self.price_out_usd_per_m
        return tokens / 1e6 + cpu_s * self.price_cpu_usd_per_hour / 3600.0


class Call(Struct, frozen=True):
    """One expert on the panel. `share` is for display; combiners use `probability` and `weight`."""

    expert: str
    source: str
    probability: float  # calibrated p(correct | query)
    stage: int = 0
    samples: int = 1
    share: float = 0.0
    weight: float = 1.0  # the caller's multiplier of the vote
    method: Method = "generate"
    hedge_s: float | None = None  # without a first chunk by then, one of the reserve is asked too
    budget_usd: float | None = None  # the most that it may cost; None where only its price limits that
    prior: Prior | None = None  # None where nothing was learnt of it beforehand
    bound: Bound | None = None  # how far its source may move the answer; None is any distance
    required: bool = False  # without its answer there is none: it is waited for
    heed: float = 1.0  # what its vote counts, by what documents say of it; `weight` is the caller's word


class Route(Struct, frozen=True):
    """Whom to ask, in which stages, how to combine, and what to expect. Shares sum to 1."""

    policy: str
    strategy: Strategy
    calls: tuple[Call, ...]
    threshold: float = 1.0  # enough posterior mass to stop asking: of a stage, where there are several
    quorum: int | None = None
    fuser: str | None = None
    reserve: tuple[Call, ...] = ()  # asked one by one: beside slow calls, and while nobody has answered
    expected_accuracy: float = 0.0
    expected_cost_usd: float = 0.0
    expected_latency_s: float = 0.0
    best_single: str = ""  # the single expert with the highest probability
    best_single_cost_usd: float = 0.0
    section: str = ""  # what the question is about; "" where nothing is known of that
    compared: int = 0  # vectors, by the index; told where `Limits.explain` is set, as is the next
    considered: int = 0  # experts of which one was
    fuser_usd: float | None = None  # the most that the fuser may cost; None where only its price limits that

    def call_of(self, expert: str) -> Call | None:
        """The call of that expert on the panel or in reserve, if it has one."""
        return next((call for call in self.everyone if call.expert == expert), None)

    @property
    def everyone(self) -> tuple[Call, ...]:
        """The panel and its reserve."""
        return (*self.calls, *self.reserve)


class Outcome(Struct, frozen=True):
    """What one call taught: how it ended, how fast and for how much; `correct` where somebody knows."""

    request_id: str
    expert: str
    status: Status
    ttft_s: float | None
    seconds: float
    completion_tokens: int
    correct: float | None = None
    cost_usd: float = 0.0
    claimed_usd: float | None = None  # see `Answer`
    prior: Prior | None = None
    weight: float = 1.0  # of `correct`: 1 is the word of somebody who knows
    voters: tuple[str, ...] = ()  # whose votes said so, where nobody else did
    at_utc: str = ""  # when it was judged
    place: int = 0  # in the log of outcomes, which is their order; 0 is not in it
    section: str = ""  # what the question was about; "" where that is not known


class Attribution(Struct, frozen=True):
    """What an answer owes to one source. `divergence` in nats; shares over the sources sum to 1."""

    source: str
    divergence: float
    share: float
    estimated: bool = False


class PanelEntry(Struct, frozen=True):
    """One line of the panel that callers see."""

    expert: str
    source: str
    weight: float
    answer: str
    correct_probability: float | None
    ttft_s: float | None
    seconds: float
    cost_usd: float
    status: Status
    stage: int = 0
    method: Method = "generate"
    error: str | None = None
    support: float | None = None  # that its documents hold its answer; None of who has no documents
    declined: bool = False  # it says that they hold none


class Search(Struct, frozen=True):
    """What it took to find whom to ask, and how much of the network that was."""

    compared: int  # vectors, by the index; 0 where experts are so few that the router looks at all
    considered: int  # experts
    touched: float  # share of the network's parameters that were asked; 0 where no card states any


class Report(Struct, frozen=True):
    """The reply's `manyminds` object: how this answer came about."""

    request_id: str
    policy: str
    strategy: Strategy
    panel: tuple[PanelEntry, ...]
    agreement: float | None
    probability: float | None
    attribution: tuple[Attribution, ...]
    cost_usd: float
    saved_usd: float
    cache: str = "off"
    search: Search | UnsetType = UNSET  # where `Limits.explain` is set
    granted: tuple[Granted, ...] | UnsetType = UNSET  # where terms or wishes had a say
    privacy: Privacy | UnsetType = UNSET  # of a private answer, of which nothing else is told
    citations: tuple[Citation, ...] | UnsetType = UNSET  # where somebody answered from documents
    declined: bool | UnsetType = (
        UNSET  # likewise: whether nobody's documents hold an answer, nor anybody else
    )
    conflicts: tuple[Conflict, ...] | UnsetType = UNSET  # where documents say different things


class Key(Struct, frozen=True):
    """What a virtual key allows whoever calls with it. The key itself is nowhere: only its hash is kept."""

    id: str  # how the ledger and the logs name it
    name: str  # whose it is, in its owner's words
    models: tuple[str, ...] = ()  # globs of policies and experts that it may ask for; empty is all
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    budget_usd: float | None = None  # per period, in UTC
    period: Period = "month"
    admin: bool = False  # whether it may administer the node
