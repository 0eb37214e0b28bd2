"""What both sides sign of an answer: who asked whom what, what came of it, and what it costs.

A receipt can be checked by anybody, with nothing but the two public keys that are in it. It holds hashes of
question and answer, salted, and neither of them.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from manyminds.errors import SignatureError
from manyminds.network import jws
from manyminds.network.identity import Identity, id_of

__all__ = ["Receipt", "Signed", "countersign", "countersigned", "issue", "read"]

_TYPE: Final = "manyminds-receipt"
_COUNTER: Final = "manyminds-receipt-countersigned"
_MOST_BYTES: Final = 40_000

_Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Tokens = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Names = Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=256)]


class Receipt(Struct, frozen=True, omit_defaults=True):
    """One answer.

    Attributes:
        v: version of the protocol; ask: the ask's id.
        asker, answerer: base64url of their Ed25519 keys.
        request_sha256, answer_sha256: see `frames`; nonce: their salt.
        price_usd: what who asked owes.
        experts, sources: who had a share in the answer.
        at: seconds since 1970.
        purpose: what it is for, as who asked said.
        max_share: of what the whole owes to all sources, the most that it will owe to who answered.
        nats: how far this answer may move the whole. Either is None where that is not limited.
    """

    v: int
    ask: str
    asker: str
    answerer: str
    nonce: str
    request_sha256: _Hash
    answer_sha256: _Hash
    prompt_tokens: _Tokens
    completion_tokens: _Tokens
    price_usd: Annotated[float, Meta(ge=0, le=1e9)]
    experts: _Names
    sources: _Names
    at: Annotated[float, Meta(ge=0, lt=4_102_444_800)]  # up to the year 2100, which dates can have
    purpose: Annotated[str, Meta(max_length=64)] = ""
    max_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    nats: Annotated[float, Meta(ge=0, le=1e6)] | None = None

    @property
    def asker_id(self) -> str:
        return id_of(jws.from_base64url(self.asker))

    @property
    def answerer_id(self) -> str:
        return id_of(jws.from_base64url(self.answerer))


class Signed(Struct, frozen=True):
    """A receipt with its signatures, in JWS general serialisation: the answerer's, then the asker's."""

    payload: str
    signatures: Annotated[tuple[jws.Signature, ...], Meta(min_length=1, max_length=2)]

    @property
    def is_countersigned(self) -> bool:
        return len(self.signatures) == 2

    def with_(self, counter: jws.Signature) -> "Signed":
        """The same, countersigned."""
        return Signed(self.payload, (self.signatures[0], counter))


_receipt, _signed = msgspec.json.Decoder(Receipt), msgspec.json.Decoder(Signed)


def issue(identity: Identity, receipt: Receipt) -> Signed:
    """A receipt, signed by who answered."""
    payload = msgspec.json.encode(receipt)
    return Signed(jws.base64url(payload), (jws.signature(identity, _TYPE, payload),))


def countersign(identity: Identity, signed: Signed) -> jws.Signature:
    """The signature of who asked."""
    return jws.signature(identity, _COUNTER, jws.from_base64url(signed.payload))


def countersigned(signed: Signed, counter: jws.Signature) -> tuple[Receipt, Signed]:
    """A receipt that this node has issued, with the signature of who asked. Raises: SignatureError."""
    payload = jws.from_base64url(signed.payload)
    receipt = _receipt.decode(payload)
    jws.check(counter, jws.from_base64url(receipt.asker, 32), _COUNTER, signed.payload)
    return receipt, signed.with_(counter)


def read(text: bytes) -> tuple[Receipt, Signed]:
    """A receipt, all of whose signatures were checked. Raises: SignatureError."""
    if len(text) > _MOST_BYTES:
        raise SignatureError(f"a receipt of {len(text)} bytes is too large.")
    try:
        signed = _signed.decode(text)
        payload = jws.from_base64url(signed.payload)
        receipt = _receipt.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureError(f"it is no receipt: {error}.") from None
    asker, answerer = (jws.from_base64url(key, 32) for key in (receipt.asker, receipt.answerer))
    jws.check(signed.signatures[0], answerer, _TYPE, signed.payload)
    if signed.is_countersigned:
        jws.check(signed.signatures[1], asker, _COUNTER, signed.payload)
    return receipt, signed
