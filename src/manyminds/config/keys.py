"""Every key that a person may set, with its type, range, default and description. Reads none."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "POLICIES",
    "Cache",
    "ExpertEntry",
    "Ledger",
    "Local",
    "Network",
    "PeerEntry",
    "Policy",
    "Private",
    "Server",
    "reference",
    "sections",
]

POLICIES: Final = ("auto", "max", "cheap", "fast", "private")
"""Names that callers use for policies, which no expert may take."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Where the node listens."""

    host: Annotated[str, Meta(min_length=1, description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 lets the system choose one.")] = 8000
    keys: Annotated[
        Literal["auto", "required"],
        Meta(description="Who needs a key: auto (whoever calls from elsewhere) or required (everybody)."),
    ] = "auto"
    most_at_once: Annotated[
        int, Meta(ge=1, description="Requests answered at once; more are sent away with 429.")
    ] = 1000
    max_body_mb: Annotated[float, Meta(gt=0, description="Largest request body, in megabytes.")] = 10.0
    tls_cert: Annotated[
        str, Meta(description="File with the certificate, and its chain, for HTTPS; in PEM.")
    ] = ""
    tls_key: Annotated[str, Meta(description="File with the certificate's private key, in PEM.")] = ""
    workers: Annotated[
        int, Meta(ge=1, le=64, description="Processes that answer; more than one where one core is too few.")
    ] = 1


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """The models that run on this machine."""

    tier: Annotated[
        Literal["starter", "full", "none"],
        Meta(description="Which pulled models to run: starter, full or none."),
    ] = "starter"
    max_memory_gb: Annotated[
        float,
        Meta(gt=0, description="Memory for all local models together; the one idle for longest gives way."),
    ] = 4.0
    threads: Annotated[int, Meta(ge=1, le=1024, description="Threads of each model.")] = 1
    context_tokens: Annotated[
        int, Meta(ge=1, description="Context window of each model, where its own is not smaller.")
    ] = 4096
    price_cpu_usd_per_hour: Annotated[float, Meta(ge=0, description="Price of an hour of one core.")] = 0.04


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a request that does not say otherwise."""

    default: Annotated[
        Literal["auto", "max", "cheap", "fast"],
        Meta(description="Policy of the model `auto`: auto, max, cheap or fast."),
    ] = "auto"
    deadline_s: Annotated[float, Meta(gt=0, description="Seconds until a request must be answered.")] = 60.0
    budget_usd: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Most that one request may be expected to cost; unset is no limit."),
    ] = None
    first_token_s: Annotated[float, Meta(gt=0, description="Seconds to a remote expert's first token.")] = (
        30.0
    )
    idle_s: Annotated[float, Meta(gt=0, description="Seconds between two tokens of an expert.")] = 20.0
    explore_rate: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of votes in which a cheap expert, little known, is asked too."),
    ] = 0.02
    reprobe_usd: Annotated[
        float,
        Meta(
            ge=0,
            description="US dollars that a node may spend on probing anew an expert that has become worse; "
            "0 probes none.",
        ),
    ] = 0.1
    attribution_alpha: Annotated[
        float,
        Meta(gt=0, le=1000, description="Order of the divergence by which answers are owed to sources."),
    ] = 2.0


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded, and where."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(sqlite:///[^:?]|postgresql://.)",
            description="SQLite file, as sqlite:///FILE (a relative one lies in the home folder), "
            "or postgresql://USER:PASSWORD@HOST/NAME where several gateways share one.",
        ),
    ] = "sqlite:///ledger.db"
    store_text: Annotated[bool, Meta(description="Whether questions and answers are kept.")] = False
    retention_days: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Days until what was recorded is deleted; unset keeps it for ever. Budgets stay."),
    ] = None


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that are given again."""

    entries: Annotated[
        int, Meta(ge=0, description="Answers kept in memory, each for the key that asked; 0 keeps none.")
    ] = 0
    max_mb: Annotated[float, Meta(gt=0, description="Memory for them, in megabytes.")] = 64.0
    ttl_s: Annotated[float, Meta(gt=0, description="Seconds until an answer is too old.")] = 3600.0
    semantic: Annotated[
        bool, Meta(description="Whether the same question, worded a little otherwise, counts.")
    ] = False
    policies: Annotated[
        tuple[Literal["auto", "max", "cheap", "fast", "pass"], ...],
        Meta(description="Policies whose answers are kept; pass is experts that are asked by name."),
    ] = ("auto", "max", "cheap", "fast")


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The node among other nodes; without `join`, `listen`, `url` and peers it is alone."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,31})?\Z",
            description="What the node calls itself: up to 32 of letters, digits and . _ -; by default "
            "the machine's name.",
        ),
    ] = ""
    join: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description="Where other nodes are: lan, or addresses such as tcp/10.0.0.1:7447 or tls/..."),
    ] = ()
    listen: Annotated[
        str, Meta(description="Address at which other nodes may join, such as tcp/0.0.0.0:7447.")
    ] = ""
    secret_env: Annotated[
        str,
        Meta(
            pattern=r"^([A-Z_][A-Z0-9_]{0,63})?\Z",
            description="Name of the environment variable with the secret of what it joins: who lacks it is "
            "neither asked nor answered, unless listed.",
        ),
    ] = ""
    zenoh: Annotated[
        str, Meta(description="File with settings in Zenoh's own format: certificates, access control.")
    ] = ""
    url: Annotated[
        str, Meta(description="Where nodes of other organisations reach this one, such as https://HOST")
    ] = ""
    asks: Annotated[
        Literal["listed", "network"],
        Meta(description="Whom the node asks: peers that are listed, or whoever is free on what it joined."),
    ] = "network"
    answers: Annotated[
        Literal["listed", "network", "anyone"],
        Meta(description="Whom it answers: listed peers, also whoever comes by what it joined, or anyone."),
    ] = "network"
    callers: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z2-7*?]{1,64}\Z")], ...],
        Meta(max_length=64, description="Which of these: ids of nodes, or patterns of such; empty is all."),
    ] = ()
    purposes: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(description="What answers may be used for, in words that who asks must state; empty is all."),
    ] = ()
    purpose: Annotated[
        str, Meta(max_length=64, description="What this node uses other nodes' answers for.")
    ] = ""
    price_in_usd_per_m: Annotated[
        float, Meta(ge=0, description="What it charges per million prompt tokens.")
    ] = 0.0
    price_out_usd_per_m: Annotated[
        float, Meta(ge=0, description="What it charges per million completion tokens.")
    ] = 0.0
    requests_per_min: Annotated[
        int, Meta(ge=1, description="Questions a minute of all nodes together that are not listed.")
    ] = 600
    max_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Of what others' answers owe to all sources, the most to it."),
    ] = 1.0
    budget_nats: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)] | None,
        Meta(description="How far it may move all others' answers of a period together; unset is no limit."),
    ] = None
    period: Annotated[
        Literal["day", "month", "total"],
        Meta(description="Of budget_nats, in UTC: day, month or total."),
    ] = "month"
    epsilon: Annotated[
        Annotated[float, Meta(gt=0, le=100)] | None,
        Meta(description="What all others' private answers may tell of it; unset, as they have it."),
    ] = None
    delta: Annotated[
        Annotated[float, Meta(gt=0, le=0.1)] | None,
        Meta(description="Chance that it may be more; unset, as they have it."),
    ] = None
    trust: Annotated[
        float,
        Meta(ge=0, le=1, description="How far claims of nodes are believed that are not listed, likewise."),
    ] = 1.0
    canaries: Annotated[
        int,
        Meta(ge=0, le=10_000, description="Questions with known answers that it puts to other nodes a day."),
    ] = 24
    hops: Annotated[
        int, Meta(ge=0, le=16, description="How often a question asked here may be passed on.")
    ] = 4


class Private(msgspec.Struct, frozen=True, kw_only=True):
    """Private answers: see docs/privacy.md."""

    epsilon: Annotated[
        float,
        Meta(gt=0, le=100, description="What one answer may tell of a source, unless a request says."),
    ] = 4.0
    delta: Annotated[float, Meta(gt=0, le=0.1, description="Chance that it may be more.")] = 1e-6
    source_epsilon: Annotated[
        float,
        Meta(gt=0, le=100, description="What all answers may tell of a source, unless its terms say."),
    ] = 8.0
    public: Annotated[
        str,
        Meta(description="Local model around which answers in words are written; unset, there are none."),
    ] = ""


class PeerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[peer]]`: another node, and what is agreed with it."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._:/-]{1,64}\Z",
            description="What callers call it: 1 to 64 of letters, digits and . _ : / -",
        ),
    ]
    id: Annotated[
        str, Meta(pattern=r"^[a-z2-7]{32}\Z", description="Its node id, which is the hash of its key.")
    ]
    url: Annotated[
        str, Meta(description="Where it answers by HTTPS; unset, it is asked over what both have joined.")
    ] = ""
    asks: Annotated[bool, Meta(description="Whether this node asks it.")] = True
    answers: Annotated[bool, Meta(description="Whether this node answers it.")] = True
    pay_usd: Annotated[
        float, Meta(ge=0, description="Most that is paid to it in a month; 0 asks it only while it is free.")
    ] = 0.0
    owe_usd: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Most that it may come to owe in a month; unset is no limit."),
    ] = None
    price_in_usd_per_m: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="Highest price per million prompt tokens that is agreed; unset, what its card says."
        ),
    ] = None
    price_out_usd_per_m: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="The same per million completion tokens."),
    ] = None
    treats: Annotated[
        bool,
        Meta(description="Whether this node may pay more for its questions than it charges for them."),
    ] = False
    requests_per_min: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Questions a minute that it may ask; unset is no limit."),
    ] = None
    budget_nats: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)] | None,
        Meta(description="How far its answers may be moved in a period, instead of network.budget_nats."),
    ] = None
    speaks_for: Annotated[
        bool,
        Meta(
            description="Whether this node's card counts what it knows, and passes others' questions to it."
        ),
    ] = False
    trust: Annotated[
        float, Meta(ge=0, le=1, description="How far its claims are believed until something is measured.")
    ] = 0.5


class ExpertEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[expert]]`."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._:/-]{1,64}\Z",
            description="What callers call it: 1 to 64 of letters, digits and . _ : / -",
        ),
    ]
    kind: Annotated[
        Literal["openai", "local", "recorded", "documents"],
        Meta(
            description="openai (any compatible URL), local (a GGUF file), documents (a folder of them) or "
            "recorded (a set of answers)."
        ),
    ] = "openai"
    url: Annotated[str, Meta(description="Base URL of an openai expert, such as http://HOST:PORT/v1")] = ""
    model: Annotated[str, Meta(description="Its name upstream or in its set; by default its own name.")] = ""
    key_env: Annotated[
        str,
        Meta(
            pattern=r"^([A-Z_][A-Z0-9_]{0,63})?\Z",
            description="Name, in capitals, of the environment variable that holds its key; never the key.",
        ),
    ] = ""
    path: Annotated[
        str,
        Meta(description="GGUF file of a local expert; folder of a recorded one, or of documents."),
    ] = ""
    writer: Annotated[
        str,
        Meta(
            description="Who writes answers from documents: an expert of this node, or auto for all of its "
            "models; empty quotes a sentence."
        ),
    ] = ""
    cites: Annotated[
        Literal["quote", "place", "none"],
        Meta(
            description="What answers tell of documents: their words too (quote), only where it stands "
            "(place), or neither (none)."
        ),
    ] = "place"
    watch: Annotated[bool, Meta(description="Whether a node that runs takes over documents that change.")] = (
        False
    )
    price_in_usd_per_m: Annotated[float, Meta(ge=0, description="Price per million prompt tokens.")] = 0.0
    price_out_usd_per_m: Annotated[float, Meta(ge=0, description="Price per million completion tokens.")] = (
        0.0
    )
    source: Annotated[str, Meta(description="Whom attribution credits; by default its own name.")] = ""
    skills: Annotated[tuple[str, ...], Meta(description="What it is good at, in words, for the router.")] = ()
    accuracy: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of its answers that are right; by default 0.5, of documents 0, for they know "
            "nothing else.",
        ),
    ] = 0.5
    context_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Its context window; by default 8192, that of a local one local.context_tokens."),
    ] = None
    offers: Annotated[
        tuple[Literal["tools", "json_schema", "image", "logprobs", "n", "embeddings"], ...],
        Meta(
            description="What it supports, of tools, json_schema, image, logprobs and n; or embeddings "
            "alone, which makes it an embedding model that is asked nothing else."
        ),
    ] = ()
    purposes: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        Meta(description="Its owner's terms: what answers may be for, in words; empty is anything."),
    ] = ()
    callers: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description="Who may be answered: keys or nodes, by name, id or pattern; empty is anybody."),
    ] = ()
    max_share: Annotated[
        float, Meta(ge=0, le=1, description="Of what an answer owes to all sources, the most to this one.")
    ] = 1.0
    budget_nats: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="How far it may move all answers of a period together, in nats; unset is no limit."),
    ] = None
    period: Annotated[
        Literal["day", "month", "total"],
        Meta(description="Of budget_nats, in UTC: day, month or total."),
    ] = "month"
    requests_per_min: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Questions a minute that it may be asked; unset is no limit."),
    ] = None
    epsilon: Annotated[
        Annotated[float, Meta(gt=0, le=100)] | None,
        Meta(description="What all private answers may tell of its source; else private.source_epsilon."),
    ] = None
    delta: Annotated[
        Annotated[float, Meta(gt=0, le=0.1)] | None,
        Meta(description="Chance that it may be more; by default private.delta."),
    ] = None


def sections() -> dict[str, type[msgspec.Struct]]:
    """All but `[[expert]]`, `[[peer]]` and `[aliases]`."""
    return {
        "server": Server,
        "local": Local,
        "policy": Policy,
        "ledger": Ledger,
        "cache": Cache,
        "network": Network,
        "private": Private,
    }


def reference() -> dict[str, dict[str, Any]]:
    """Every key with its JSON schema: type, range, default, description. Documentation is made of it."""
    keys: dict[str, dict[str, Any]] = {}
    structs: dict[str, type[msgspec.Struct]] = {**sections(), "expert": ExpertEntry, "peer": PeerEntry}
    for section, struct in structs.items():
        (_, components) = msgspec.json.schema_components([struct])
        for name, schema in components[struct.__name__]["properties"].items():
            keys[f"{section}.{name}"] = schema
    return keys
