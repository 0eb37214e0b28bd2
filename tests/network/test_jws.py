"""Signed texts: what is signed, and everything that is not."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import SignatureError
from manyminds.network import jws
from manyminds.network.identity import Identity, id_of
from manyminds.network.jws import Signature

NODE, OTHER = Identity.of_seed(bytes(32)), Identity.of_seed(bytes([1]) * 32)
TYP = "manyminds-test"
PAYLOAD = b'{"what":"is signed"}'
ENCODED = jws.base64url(PAYLOAD)
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group


def check(made: Signature, *, key: bytes = NODE.public, typ: str = TYP, payload: bytes = PAYLOAD) -> None:
    jws.check(made, key, typ, jws.base64url(payload))


def signed_with(header: Any, node: Identity = NODE) -> Signature:
    """A good signature under any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    protected = jws.base64url(raw)
    return Signature(protected, jws.base64url(node.sign(f"{protected}.{ENCODED}".encode())))


def header(**changes: Any) -> dict[str, Any]:
    return {"alg": "EdDSA", "kid": NODE.id, "typ": TYP} | changes


def test_the_vector_of_rfc_8037_is_signed_alike() -> None:
    """Appendix A.1 and A.4: the same key, the same bytes, the same signature."""
    node = Identity.of_seed(jws.from_base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", 32))
    assert jws.base64url(node.public) == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    said = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    made = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert jws.base64url(node.sign(said)) == made
    with pytest.raises(SignatureError, match="header"):  # it says neither who signed nor what for
        jws.check(Signature("eyJhbGciOiJFZERTQSJ9", made), node.public, TYP, said.decode().split(".")[1])


@given(st.binary(max_size=200), st.sampled_from(["a", "manyminds-card", "é"]))
def test_what_is_signed_holds(payload: bytes, typ: str) -> None:
    check(jws.signature(NODE, typ, payload), typ=typ, payload=payload)
    found, encoded, made = jws.parted(jws.sign(NODE, typ, payload))
    assert found == payload
    jws.check(made, NODE.public, typ, encoded)


HEADERS = {
    "none": header(alg="none"),
    "hs256": header(alg="HS256"),
    "rs256": header(alg="RS256"),
    "es256": header(alg="ES256"),
    "lower case": header(alg="eddsa"),
    "alg is a list": header(alg=["EdDSA"]),
    "no alg": {"kid": NODE.id, "typ": TYP},
    "crit": header(crit=["exp"], exp=1),
    "crit empty": header(crit=[]),
    "b64": header(crit=["b64"], b64=False),
    "other typ": header(typ="manyminds-card"),
    "no typ": {"alg": "EdDSA", "kid": NODE.id},
    "other kid": header(kid=OTHER.id),
    "no kid": {"alg": "EdDSA", "typ": TYP},
    "list": [],
    "text": "EdDSA",
    "no json": b"alg: EdDSA",
    "no utf-8": b'{"alg":"EdDSA","kid":"\xff","typ":"x"}',
    "deep": b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
    "large": header(more="x" * 1100),
    "empty": b"",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_says_something_else_is_refused(name: str) -> None:
    check(signed_with(header(extra=1)))
    with pytest.raises(SignatureError):
        check(signed_with(HEADERS[name]))


def test_a_key_in_the_header_is_not_looked_at() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": jws.base64url(OTHER.public)}
    with pytest.raises(SignatureError, match="is not that of"):
        check(signed_with(header(jwk=jwk, x5u="https://example.com"), OTHER))


def test_a_signature_counts_for_one_key_one_purpose_and_one_payload() -> None:
    made = jws.signature(NODE, TYP, PAYLOAD)
    check(made)
    with pytest.raises(SignatureError, match=f"not by {OTHER.id}"):
        check(made, key=OTHER.public)
    with pytest.raises(SignatureError, match="signed as"):
        check(made, typ="manyminds-ask")
    for payload in (b"", PAYLOAD + b" ", PAYLOAD[:-1], PAYLOAD.upper()):
        with pytest.raises(SignatureError, match=f"not that of {NODE.id}"):
            check(made, payload=payload)


@given(st.integers(0, 511))
def test_no_bit_of_a_signature_can_change(bit: int) -> None:
    made = jws.signature(NODE, TYP, PAYLOAD)
    raw = bytearray(jws.from_base64url(made.signature, 64))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        check(Signature(made.protected, jws.base64url(bytes(raw))))


def test_a_signature_has_no_second_form() -> None:
    """S + L is the same number to a careless verifier (RFC 8032, 5.1.7)."""
    made = jws.signature(NODE, TYP, PAYLOAD)
    raw = jws.from_base64url(made.signature, 64)
    larger = (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    with pytest.raises(SignatureError):
        check(Signature(made.protected, jws.base64url(raw[:32] + larger)))


@pytest.mark.parametrize("part", ["protected", "signature"])
@pytest.mark.parametrize("more", ["=", "==", "A", "\n", " ", "é", ".", "\x00"])
def test_nothing_is_added_to_a_part(part: str, more: str) -> None:
    made = jws.signature(NODE, TYP, PAYLOAD)
    parts = {"protected": made.protected, "signature": made.signature}
    with pytest.raises(SignatureError):
        check(Signature(**(parts | {part: parts[part] + more})))


ODD = ["=", "A", "AB", "A+", "A/", "QQ==", "QQ=", "Q Q", "QR", "é", "QQ\n", "-", "_" * 5, "\ud800"]


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_base64url(text: str) -> None:
    with pytest.raises(SignatureError, match="no base64url"):
        jws.from_base64url(text)


@given(st.binary(max_size=100))
def test_base64url_has_one_form(data: bytes) -> None:
    text = jws.base64url(data)
    assert jws.from_base64url(text, len(data)) == data
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")
    with pytest.raises(SignatureError, match=f"{len(data)} bytes where {len(data) + 1} belong"):
        jws.from_base64url(text, len(data) + 1)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=12))
def test_whatever_is_read_is_written_the_same(text: str) -> None:
    try:
        data = jws.from_base64url(text)
    except SignatureError:
        return
    assert jws.base64url(data) == text


@pytest.mark.parametrize("text", [b"", b"a.b", b"a.b.c.d", b"\xff.a.b", b"a", b"a.b!.c", b"..." * 9])
def test_what_is_no_signed_text(text: bytes) -> None:
    with pytest.raises(SignatureError):
        jws.parted(text)


@given(st.data())
def test_no_byte_of_a_signed_text_can_change(data: st.DataObject) -> None:
    text = jws.sign(NODE, TYP, PAYLOAD)
    at = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[at]))
    with pytest.raises(SignatureError):
        _, encoded, made = jws.parted(text[:at] + bytes([byte]) + text[at + 1 :])
        jws.check(made, NODE.public, TYP, encoded)


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_a_key_that_is_none_signed_nothing(key: bytes) -> None:
    with pytest.raises(SignatureError):
        check(signed_with(header(kid=id_of(key))), key=key)


def test_another_program_verifies_it() -> None:
    jwt = pytest.importorskip("jwt", reason="PyJWT, an independent verifier, is not installed")
    pem = Ed25519PublicKey.from_public_bytes(NODE.public).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = jws.sign(NODE, TYP, PAYLOAD)
    assert jwt.PyJWS().decode(text, pem, algorithms=["EdDSA"]) == PAYLOAD
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.PyJWS().decode(text[:-4] + b"AAAA", pem, algorithms=["EdDSA"])
