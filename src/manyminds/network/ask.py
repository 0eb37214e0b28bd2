"""What one node asks of another: a request, signed by who asks and sealed to who is to answer.

Knows no transport and no expert. What travels with a request holds for all that is asked on its way:
deadline, budget, purpose, hops that are left, and who has been visited.
"""

import os
import time
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from msgspec import Meta, Struct

from manyminds.errors import AskError, SignatureError
from manyminds.network import jws
from manyminds.network.card import PROTOCOL
from manyminds.network.identity import Identity, id_of

__all__ = [
    "ASK_BYTES",
    "MOST_NATS",
    "Accepted",
    "Ask",
    "Heard",
    "Once",
    "new_ask",
    "open_ask",
    "seal_ask",
]

ASK_BYTES: Final = 16_000_000
"""A larger ask is refused unread."""

MOST_NATS: Final = 7.5
"""No answer moves another farther, whose probabilities are floored at a thousandth: see `attribution`."""

_TYPE: Final = "manyminds-ask"
_INFO: Final = b"manyminds ask 1 "
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_SKEW_S: Final = 60.0  # between two nodes' clocks, and on the way
_MOST_SEEN: Final = 200_000

_Id = Annotated[str, Meta(pattern=r"^[a-z2-7]{32}\Z")]


class Accepted(Struct, frozen=True, omit_defaults=True):
    """To what who asks will hold, of the terms on the card of who is asked.

    Attributes:
        max_share: of what its answer owes to all sources, the most that it will owe to this one.
        nats: how far this answer may move the whole, of the budget; None where there is none.
        least_nats: with fewer it is of no use.
    """

    max_share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    nats: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    least_nats: Annotated[float, Meta(ge=0, le=1e6)] = 0.0


class Ask(Struct, frozen=True, omit_defaults=True):
    """A request on its way to another node.

    Attributes:
        v: version of the protocol.
        id: base64url of 16 random bytes, which no two asks share.
        key: base64url of who asks, Ed25519; to: the node that is asked.
        at: seconds since 1970, when it was asked.
        reply_key: base64url of 32 random bytes, by which the answer is sealed.
        deadline_s: from then on nobody waits for the answer.
        budget_usd: the most that the answer may be charged.
        request: a chat completion request, as docs/api.md has it; `nonce` salts its hash.
        hops: how often it may be passed on from there; visited: nodes on its way so far, who asks included.
        purpose: what the answer is for, in a word, "" where that is not said.
        member: see `identity.member_of`.
        window: frames that may be under way until more are granted.
        terms: to what who asks will hold; None where the card has no such terms.
    """

    v: int
    id: str
    key: str
    to: _Id
    at: float
    reply_key: str
    deadline_s: Annotated[float, Meta(gt=0, le=86_400)]
    budget_usd: Annotated[float, Meta(ge=0, le=1e9)]
    request: msgspec.Raw
    nonce: Annotated[str, Meta(max_length=64)]
    hops: Annotated[int, Meta(ge=0, le=64)] = 0
    visited: Annotated[tuple[_Id, ...], Meta(max_length=64)] = ()
    purpose: Annotated[str, Meta(max_length=64)] = ""
    member: Annotated[str, Meta(max_length=64)] = ""
    window: Annotated[int, Meta(ge=1, le=65_536)] = 256
    terms: Accepted | None = None


class Heard(Struct, frozen=True):
    """An ask that was checked, and the node that asks."""

    ask: Ask
    asker: str
    asker_key: bytes
    reply_key: bytes


_ask = msgspec.json.Decoder(Ask)


def new_ask(
    identity: Identity,
    to: str,
    request: bytes,
    *,
    deadline_s: float,
    budget_usd: float,
    hops: int,
    visited: tuple[str, ...],
    purpose: str = "",
    member: str = "",
    window: int = 256,
    terms: Accepted | None = None,
) -> Ask:
    """An ask of this node; with fresh randomness."""
    return Ask(
        v=PROTOCOL,
        id=jws.base64url(os.urandom(16)),
        key=jws.base64url(identity.public),
        to=to,
        at=time.time(),
        reply_key=jws.base64url(os.urandom(32)),
        deadline_s=deadline_s,
        budget_usd=budget_usd,
        request=msgspec.Raw(request),
        nonce=jws.base64url(os.urandom(16)),
        hops=hops,
        visited=visited,
        purpose=purpose,
        member=member,
        window=window,
        terms=terms,
    )


def seal_ask(identity: Identity, ask: Ask, exchange: bytes) -> bytes:
    """The ask as it travels: signed by this node, sealed (HPKE, RFC 9180) to that X25519 key.

    Raises: AskError where nothing can be sealed to that key.
    """
    signed = jws.sign(identity, _TYPE, msgspec.json.encode(ask))
    try:
        return _SUITE.encrypt(signed, X25519PublicKey.from_public_bytes(exchange), _INFO + ask.to.encode())
    except ValueError:  # a point of low order, from which anybody could know the secret
        raise AskError(f"{ask.to} shows a key to which nothing can be sealed.") from None


def open_ask(identity: Identity, sealed: bytes, seen: "Once", now_s: float | None = None) -> Heard:
    """What somebody asks of this node; once only.

    Raises: AskError, with what is wrong, where it is not for this node, not signed by who it says, not of
        just now, or was heard before.
    """
    if len(sealed) > ASK_BYTES:
        raise AskError(f"An ask of {len(sealed)} bytes is too large: {ASK_BYTES} are allowed.")
    try:
        signed = _SUITE.decrypt(sealed, identity.exchange_secret, _INFO + identity.id.encode())
    except (InvalidTag, ValueError):
        raise AskError("It is not sealed to this node: read its card anew.") from None
    try:
        payload, encoded, made = jws.parted(signed)
        ask = _ask.decode(payload)
        asker_key = jws.from_base64url(ask.key, 32)
        jws.check(made, asker_key, _TYPE, encoded)
        reply_key = jws.from_base64url(ask.reply_key, 32)
        jws.from_base64url(ask.id, 16)
    except SignatureError as error:
        raise AskError(f"Nobody can be sure who asks: {error.message}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AskError(f"The ask cannot be read: {error}.") from None
    if ask.v != PROTOCOL:
        raise AskError(f"It speaks version {ask.v} of the protocol, and this node version {PROTOCOL}.")
    if ask.to != identity.id:
        raise AskError(f"It is for {ask.to}, and this is {identity.id}.")
    now_s = time.time() if now_s is None else now_s
    if abs(now_s - ask.at) > _SKEW_S:
        raise AskError(f"It was asked {now_s - ask.at:.0f} s ago by your clock: set both nodes' clocks.")
    if not seen.is_new(ask.id, now_s):
        raise AskError("It was heard before, or too much was of late: ask anew.")
    return Heard(ask, id_of(asker_key), asker_key, reply_key)


class Once:
    """Remembers what was heard of late, so that nothing is heard twice. O(1).

    While it has no more room, nothing is new: who could push out what was heard could have it heard again.
    """

    def __init__(self, keep_s: float = 2 * _SKEW_S) -> None:
        self._keep_s = keep_s
        self._until: dict[str, float] = {}  # in order of coming

    def is_new(self, name: str, now_s: float) -> bool:
        """Whether it was not heard before; from now on it was."""
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now_s:
                break
            del self._until[oldest]
        if name in self._until or len(self._until) >= _MOST_SEEN:
            return False
        self._until[name] = now_s + self._keep_s
        return True
