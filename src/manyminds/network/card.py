"""What a node says of itself to others: an A2A agent card, signed, with an extension of ours.

Source: Agent2Agent protocol 1.0, section 8; RFC 8785 for the bytes that are signed. A card claims: what is
measured replaces it. Nothing in a card is followed.
"""

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import numpy as np
import rfc8785
from msgspec import Meta, Struct

from manyminds.errors import CardError, SignatureError
from manyminds.network import jws
from manyminds.network.identity import Identity, id_of
from manyminds.network.withdrawal import Withdrawal
from manyminds.types import Period

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = [
    "CARD_BYTES",
    "EXTENSION",
    "LEVELS",
    "PROTOCOL",
    "Claim",
    "Claims",
    "NodeCard",
    "Skill",
    "Terms",
    "Vouch",
    "made",
    "quantised",
    "read",
    "signed",
    "unit_rows",
]

PROTOCOL: Final = 1
"""Version of the wire protocol, docs/protocol.md."""

EXTENSION: Final = "urn:manyminds:node:1"
"""URI of our extension of the A2A card."""

CARD_BYTES: Final = 65_536
"""A larger card is refused unread."""

LEVELS: Final = 4
"""Of networks within networks at most, so that nodes which speak for each other do not count for ever."""

_TYPE: Final = "manyminds-card"
_BINDING: Final = "MANYMINDS"
_DEPTH: Final = 12
_LONGEST_S: Final = 86_400.0  # from now on that a card may be valid
_AHEAD_S: Final = 300.0  # that another's clock may be
_UNIT: Final = 127.0  # of a vector's numbers, sent as int8

_Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:/ -]+\Z")]
_Text = Annotated[str, Meta(max_length=400)]
_Field = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._:/ -]*\Z")]
_Price = Annotated[float, Meta(ge=0, le=1e6)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Count = Annotated[int, Meta(ge=1, le=10**9)]
_Base64 = Annotated[str, Meta(max_length=8192)]
_Ids = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z2-7*?]+\Z")]


class Skill(Struct, frozen=True, omit_defaults=True):
    """A field that a node is good at: a point among questions, and how many skills of its experts lie there.

    `vector`: base64 of int8, a unit vector times 127; of a network, the centroid of its experts' skills. Of
    documents, the mean of the unit vectors of paragraphs that are alike: the less they are, the shorter.
    """

    vector: _Base64
    count: _Count = 1
    label: _Text = ""


class Vouch(Struct, frozen=True, omit_defaults=True):
    """How far a node trusts another in a field; "" is in all."""

    node: Annotated[str, Meta(pattern=r"^[a-z2-7]{32}\Z")]
    weight: _Share
    field: _Field = ""


class Claim(Struct, frozen=True, omit_defaults=True):
    """How often a node says it is right, in a field; "" is in all."""

    accuracy: _Share
    field: _Field = ""


class Terms(Struct, frozen=True, omit_defaults=True):
    """On what terms a node answers. Its own node enforces them.

    Attributes:
        purposes: what answers may be for; empty is anything.
        callers: who is answered, by how this node knows them.
        requests_per_min: of all nodes together that are not listed.
        nodes: which of these are answered: patterns of ids; empty is all.
        max_share, budget_nats, period, epsilon, delta: see `types.Terms`; the node counts as one source.
    """

    purposes: Annotated[tuple[_Name, ...], Meta(max_length=32)] = ()
    callers: Literal["listed", "network", "anyone"] = "network"
    requests_per_min: Annotated[int, Meta(ge=1)] | None = None
    nodes: Annotated[tuple[_Ids, ...], Meta(max_length=64)] = ()
    max_share: _Share | None = None
    budget_nats: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    period: Period = "month"
    epsilon: Annotated[float, Meta(gt=0, le=100)] | None = None
    delta: Annotated[float, Meta(gt=0, le=0.1)] | None = None


class Claims(Struct, frozen=True, omit_defaults=True):
    """Our extension of a node's card: all that is not A2A's.

    Attributes:
        key, exchange: base64url of 32 bytes each, of Ed25519 and X25519; the node's id is the hash of `key`.
        sequence: of two cards of a node, the one with the higher counts.
        expires: seconds since 1970, UTC; the card says nothing from then on.
        protocols: versions of the wire protocol that it speaks.
        experts: how many it stands for; `parameters`, of them all, 0 where it does not say; `paragraphs`, of
            the documents that they answer from.
        levels: of networks within networks behind it, itself included.
        encoder: whose vectors `skills` are, by sha256 of the encoder's file.
        price_in_usd_per_m, price_out_usd_per_m: per million tokens of question and answer.
        member: see `identity.member_of`.
        withdrawal: None where it never took anything back.
    """

    key: _Base64
    exchange: _Base64
    sequence: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    expires: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    protocols: Annotated[tuple[int, ...], Meta(min_length=1, max_length=16)]
    experts: Annotated[int, Meta(ge=0, le=10**9)] = 1
    parameters: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    paragraphs: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    levels: Annotated[int, Meta(ge=1, le=LEVELS)] = 1
    encoder: _Text = ""
    skills: Annotated[tuple[Skill, ...], Meta(max_length=64)] = ()
    claims: Annotated[tuple[Claim, ...], Meta(max_length=64)] = ()
    vouches: Annotated[tuple[Vouch, ...], Meta(max_length=64)] = ()
    price_in_usd_per_m: _Price = 0.0
    price_out_usd_per_m: _Price = 0.0
    ttft_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    tokens_per_s: Annotated[float, Meta(ge=0, le=1e9)] = 20.0
    context_tokens: Annotated[int, Meta(ge=1, le=10**9)] = 8192
    offers: Annotated[tuple[_Name, ...], Meta(max_length=16)] = ()
    terms: Terms = Terms()
    member: Annotated[str, Meta(max_length=64)] = ""
    withdrawal: Withdrawal | None = None


class NodeCard(Struct, frozen=True):
    """A card that was checked: whose it is, and what it claims.

    Attributes:
        id: the node's; name: what it calls itself, which others may, too.
        words: its skills in words.
        raw: the bytes that were read.
    """

    id: str
    name: str
    description: str
    words: tuple[str, ...]
    url: str
    says: Claims
    raw: bytes

    @property
    def public(self) -> bytes:
        return jws.from_base64url(self.says.key)

    @property
    def exchange(self) -> bytes:
        return jws.from_base64url(self.says.exchange)

    @property
    def accuracy(self) -> float | None:
        """Claimed over all; None where it claims nothing."""
        return self.claimed("")

    def claimed(self, field: str) -> float | None:
        """Its accuracy in a field, "" being all of them; None where it claims nothing of it."""
        return next((claim.accuracy for claim in self.says.claims if claim.field == field), None)

    def vectors(self, dimension: int) -> "Vectors":
        """(k, d) float32 rows: its skills. No row where they have another dimension. They are unit vectors;
        of who has documents, means of such.
        """
        return unit_rows(self.says.skills, dimension, means=self.says.paragraphs > 0)


class _Extension(Struct, frozen=True):
    uri: str
    params: msgspec.Raw = msgspec.Raw()


class _Capabilities(Struct, frozen=True):
    extensions: Annotated[tuple[_Extension, ...], Meta(max_length=16)]


class _Interface(Struct, frozen=True):
    url: Annotated[str, Meta(max_length=400)]
    protocolBinding: Annotated[str, Meta(max_length=64)]  # noqa: N815 - A2A's names


class _Skill(Struct, frozen=True):
    name: _Text


class _Agent(Struct, frozen=True):
    """What we read of an A2A card."""

    name: _Name
    description: _Text
    capabilities: _Capabilities
    signatures: Annotated[tuple[jws.Signature, ...], Meta(min_length=1, max_length=4)]
    supportedInterfaces: Annotated[tuple[_Interface, ...], Meta(max_length=16)] = ()  # noqa: N815
    skills: Annotated[tuple[_Skill, ...], Meta(max_length=128)] = ()


_agent = msgspec.json.Decoder(_Agent)
_claims = msgspec.json.Decoder(Claims)


def unit_rows(skills: Sequence[Skill], dimension: int, *, means: bool = False) -> "Vectors":
    """(k, d) float32 unit rows: where skills lie. No row of one that is nowhere, or has no d numbers.

    Where they may be `means` of unit vectors, those that are shorter than 1 stay so.
    """
    rows = [_numbers(skill.vector) for skill in skills]
    fitting = [row for row in rows if len(row) == dimension]
    found = np.array(fitting, np.float32).reshape(len(fitting), dimension)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    scale = np.maximum(norms, _UNIT) if means else np.maximum(norms, 1e-9)
    units: Vectors = (found / scale)[norms[:, 0] > 0]
    return units


def quantised(vector: "Vectors") -> str:
    """A vector (d,) of length 1 at most, as a card holds it."""
    return base64.b64encode(np.rint(vector * _UNIT).astype(np.int8).tobytes()).decode()


def made(
    identity: Identity,
    says: Claims,
    *,
    name: str,
    description: str = "",
    words: Sequence[str] = (),
    url: str = "",
    version: str = "0",
    owner: str = "",
) -> bytes:
    """A node's card, signed.

    Args:
        identity: whose it is: its keys take the place of those in `says`.
        says: what it claims.
        name: what it calls itself.
        description: in a sentence.
        words: skills in words.
        url: where it answers by HTTPS, "" where it cannot be reached so.
        version: of the software.
        owner: who stands behind it.
    """
    keys = {"key": jws.base64url(identity.public), "exchange": jws.base64url(identity.exchange)}
    params = msgspec.to_builtins(msgspec.structs.replace(says, **keys))
    card: dict[str, Any] = {
        "name": name,
        "description": description or "A node of a network of neural networks.",
        "version": version,
        "supportedInterfaces": [
            {
                "url": url or f"urn:manyminds:{identity.id}",
                "protocolBinding": _BINDING,
                "protocolVersion": "1",
            }
        ],
        "capabilities": {"streaming": True, "extensions": [{"uri": EXTENSION, "params": params}]},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [
            {"id": f"skill-{i}", "name": word, "description": word, "tags": ["manyminds"]}
            for i, word in enumerate(words or ("answers questions",))
        ],
    }
    if owner:
        card["provider"] = {"organization": owner, "url": url or f"urn:manyminds:{identity.id}"}
    signature = jws.signature(identity, _TYPE, rfc8785.dumps(card))
    card["signatures"] = [msgspec.to_builtins(signature)]
    raw = msgspec.json.encode(card)
    if len(raw) > CARD_BYTES:
        raise CardError(f"this node's card would have {len(raw)} bytes, of {CARD_BYTES}: it claims too much.")
    return raw


def read(raw: bytes, now_s: float | None = None) -> NodeCard:
    """A card that anybody may have sent, checked: form, signature, validity. O(its bytes).

    Args:
        raw: as it came.
        now_s: seconds since 1970; by default now.

    Raises: CardError, with what is wrong.
    """
    card = signed(raw)
    node, says = card.id, card.says
    now_s = time.time() if now_s is None else now_s
    if says.expires <= now_s:
        raise CardError(f"a card of {node} that ran out {now_s - says.expires:.0f} s ago.")
    if says.expires > now_s + _LONGEST_S + _AHEAD_S:
        raise CardError(f"a card of {node} that would be valid for more than a day.")
    return card


def signed(raw: bytes) -> NodeCard:
    """The same, whenever it was valid: for what is kept as a proof. Raises: CardError."""
    if len(raw) > CARD_BYTES:
        raise CardError(f"a card of {len(raw)} bytes is too large: {CARD_BYTES} are allowed.")
    try:
        agent = _agent.decode(raw)
        params = next((e.params for e in agent.capabilities.extensions if e.uri == EXTENSION), None)
        if params is None:
            raise CardError(f"a card without the extension {EXTENSION} is of no node of ours.")
        says = _claims.decode(params)
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardError(f"a card that cannot be read: {error}.") from None
    if _depth(fields) > _DEPTH:
        raise CardError(f"a card with more than {_DEPTH} levels is refused.")
    node = _signer(agent, says, fields)
    for skill in says.skills:
        _numbers(skill.vector)
    words = tuple(_plain(skill.name) for skill in agent.skills)
    url = next((i.url for i in agent.supportedInterfaces if i.protocolBinding == _BINDING), "")
    url = url if url.startswith(("https://", "http://")) else ""
    return NodeCard(node, agent.name, _plain(agent.description), words, url, says, raw)


def _plain(text: str) -> str:
    """Without characters that a terminal might obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def _signer(agent: _Agent, says: Claims, fields: Mapping[str, Any]) -> str:
    """The id of the node that signed it."""
    try:
        public = jws.from_base64url(says.key, 32)
        jws.from_base64url(says.exchange, 32)
        signed = rfc8785.dumps({name: value for name, value in fields.items() if name != "signatures"})
        jws.check(agent.signatures[0], public, _TYPE, jws.base64url(signed))
    except SignatureError as error:
        raise CardError(f"a card that nobody can be sure of: {error.message}") from error
    except rfc8785.CanonicalizationError as error:
        raise CardError(f"a card with a value that has no canonical form: {error}.") from None
    return id_of(public)


def _numbers(text: str) -> "Vectors":
    """A skill's vector as it was sent."""
    try:
        numbers = np.frombuffer(base64.b64decode(text, validate=True), np.int8)
    except (binascii.Error, ValueError):
        raise CardError("a card with a skill whose vector is no base64.") from None
    row: Vectors = numbers.astype(np.float32)
    return row


def _depth(value: Any) -> int:
    """Levels of lists and objects."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return depth
