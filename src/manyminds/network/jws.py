"""Signed texts: JSON Web Signatures (RFC 7515) by Ed25519 (RFC 8037), and nothing else that JWS allows.

Knows no meaning of what is signed, but its `typ`, so that nothing signed for one purpose serves another.
"""

import base64
import binascii
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from manyminds.errors import SignatureError
from manyminds.network.identity import Identity, id_of

__all__ = ["Signature", "base64url", "check", "from_base64url", "parted", "sign", "signature"]

_ALGORITHM: Final = "EdDSA"
_HEADER_CHARS: Final = 1024


class Signature(Struct, frozen=True):
    """One signature, as JWS writes it beside a payload: both in base64url."""

    protected: str
    signature: str


class _Header(Struct, frozen=True):
    alg: str
    kid: str
    typ: str
    crit: msgspec.Raw | None = None


_header = msgspec.json.Decoder(_Header)


def base64url(data: bytes) -> str:
    """Without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str, size: int | None = None) -> bytes:
    """Of so many bytes, where that is said. Raises: SignatureError, also where it is not written in the one
    way that `base64url` has.
    """
    data = _decoded(text)
    if size is not None and len(data) != size:
        raise SignatureError(f"it holds {len(data)} bytes where {size} belong.")
    if base64url(data) != text:
        raise SignatureError("it holds what is no base64url.")
    return data


def signature(identity: Identity, typ: str, payload: bytes) -> Signature:
    """What this node says of a payload of that type."""
    return _signature(identity, typ, base64url(payload))


def check(made: Signature, public_key: bytes, typ: str, encoded: str) -> None:
    """Raises: SignatureError where that key did not sign this payload, in base64url, as of that type."""
    if len(made.protected) > _HEADER_CHARS:
        raise SignatureError("its signature has a header that is too large.")
    header = _read(made.protected)
    if header.alg != _ALGORITHM or header.crit is not None:
        raise SignatureError(f"it is signed by {header.alg!r:.20}, and only {_ALGORITHM} counts.")
    if header.typ != typ:
        raise SignatureError(f"it is signed as {header.typ!r:.60}, not as {typ}.")
    if header.kid != id_of(public_key):
        raise SignatureError(f"it is signed by {header.kid!r:.40}, not by {id_of(public_key)}.")
    signed = f"{made.protected}.{encoded}".encode()
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(from_base64url(made.signature, 64), signed)
    except (InvalidSignature, ValueError):
        raise SignatureError(f"its signature is not that of {id_of(public_key)}.") from None


def sign(identity: Identity, typ: str, payload: bytes) -> bytes:
    """Payload and signature as one text, in JWS compact serialisation."""
    encoded = base64url(payload)
    made = _signature(identity, typ, encoded)
    return f"{made.protected}.{encoded}.{made.signature}".encode()


def parted(text: bytes) -> tuple[bytes, str, Signature]:
    """The payload of such a text, the same in base64url, and its signature, which says nothing until `check`.

    Raises: SignatureError.
    """
    try:
        protected, encoded, made = text.decode("ascii").split(".")
    except ValueError:
        raise SignatureError("it is no signed text.") from None
    return _decoded(encoded), encoded, Signature(protected, made)


def _signature(identity: Identity, typ: str, encoded: str) -> Signature:
    protected = _protected(identity.id, typ)
    signed = identity.sign(f"{protected}.{encoded}".encode())
    return Signature(protected, base64url(signed))


@lru_cache(64)
def _protected(node: str, typ: str) -> str:
    return base64url(msgspec.json.encode({"alg": _ALGORITHM, "kid": node, "typ": typ}))


@lru_cache(1024)
def _read(protected: str) -> _Header:
    try:
        return _header.decode(from_base64url(protected))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SignatureError("its signature has no header that can be read.") from None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise SignatureError("it holds what is no base64url.") from None
