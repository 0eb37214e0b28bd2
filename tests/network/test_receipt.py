"""Receipts: signed by who answered, then by who asked, and checked by anybody."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import SignatureError
from manyminds.network import jws, receipt
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt, Signed, countersign, issue, read
from tests.changed import replace

ANN, BOB, EVE = (Identity.of_seed(bytes([i]) * 32) for i in range(3))  # Ann asks, Bob answers
RECEIPT = Receipt(
    v=1,
    ask=jws.base64url(bytes(16)),
    asker=jws.base64url(ANN.public),
    answerer=jws.base64url(BOB.public),
    nonce="salt",
    request_sha256="a" * 64,
    answer_sha256="b" * 64,
    prompt_tokens=7,
    completion_tokens=3,
    price_usd=0.3,
    experts=("law",),
    sources=("lawyers",),
    at=1_800_000_000.123,
)


def text_of(signed: Signed) -> bytes:
    return msgspec.json.encode(signed)


def countersigned() -> Signed:
    one = issue(BOB, RECEIPT)
    return one.with_(countersign(ANN, one))


def test_it_is_signed_and_countersigned() -> None:
    one = issue(BOB, RECEIPT)
    assert read(text_of(one)) == (RECEIPT, one)
    assert not one.is_countersigned
    both = one.with_(countersign(ANN, one))
    assert read(text_of(both)) == (RECEIPT, both)
    assert both.is_countersigned
    assert (RECEIPT.asker_id, RECEIPT.answerer_id) == (ANN.id, BOB.id)


def test_it_is_the_same_for_ever() -> None:
    """Ed25519 is deterministic: the bytes of a receipt are a vector for other implementations."""
    assert jws.from_base64url(issue(BOB, RECEIPT).payload) == msgspec.json.encode(RECEIPT)
    assert issue(BOB, RECEIPT) == issue(BOB, RECEIPT)
    assert (
        issue(BOB, RECEIPT).signatures[0].signature
        == "g6xLllwQ2PilWSa5Gr8Owx-pawDt1NnxBLi67ck_HFQ9Ns-XG35Zdf2pIygLhi6IX78fqreyU4YbMmhtQZ9CDQ"
    )


@pytest.mark.parametrize("by", [ANN, EVE], ids=["the asker", "another"])
def test_who_answered_signs_it(by: Identity) -> None:
    with pytest.raises(SignatureError, match=f"not by {BOB.id}"):
        read(text_of(issue(by, RECEIPT)))


@pytest.mark.parametrize("by", [BOB, EVE], ids=["the answerer", "another"])
def test_who_asked_countersigns_it(by: Identity) -> None:
    one = issue(BOB, RECEIPT)
    with pytest.raises(SignatureError, match=f"not by {ANN.id}"):
        read(text_of(one.with_(countersign(by, one))))


def test_one_signature_does_not_do_for_two() -> None:
    """Also where a node asks itself: what is issued is signed for another purpose than the other."""
    own = replace(RECEIPT, asker=RECEIPT.answerer)
    one = issue(BOB, own)
    with pytest.raises(SignatureError, match="signed as"):
        read(text_of(one.with_(one.signatures[0])))
    with pytest.raises(SignatureError, match="signed as"):
        read(text_of(Signed(one.payload, (countersign(BOB, one),))))


def test_a_countersignature_is_of_one_receipt() -> None:
    dear = issue(BOB, replace(RECEIPT, price_usd=3.0))
    with pytest.raises(SignatureError, match=f"not that of {ANN.id}"):
        read(text_of(dear.with_(countersign(ANN, issue(BOB, RECEIPT)))))


def test_signatures_are_one_or_two_in_that_order() -> None:
    both = countersigned()
    first, second = both.signatures
    for signatures in ((), (second, first), (first, second, second)):
        with pytest.raises(SignatureError):
            read(text_of(Signed(both.payload, signatures)))


WRONG: dict[str, dict[str, Any]] = {
    "no hash": {"request_sha256": "x"},
    "hash in capitals": {"answer_sha256": "B" * 64},
    "hash and more": {"answer_sha256": "b" * 64 + "\n"},
    "tokens -1": {"prompt_tokens": -1},
    "tokens 1.5": {"completion_tokens": 1.5},
    "tokens 2^53": {"completion_tokens": 2**53},
    "price -1": {"price_usd": -0.1},
    "price 1e10": {"price_usd": 1e10},
    "price as text": {"price_usd": "0"},
    "key short": {"asker": "AAAA"},
    "key no base64url": {"answerer": "+" * 43},
    "experts many": {"experts": ["x"] * 257},
    "expert long": {"experts": ["x" * 201]},
    "sources none": {"sources": None},
    "before 1970": {"at": -1.0},
    "at no date": {"at": 1e300},
    "version as text": {"v": "1"},
    "large": {"nonce": "x" * 40_000},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_out_of_range_is_refused_though_it_is_signed(what: str) -> None:
    with pytest.raises(SignatureError):
        read(text_of(issue(BOB, replace(RECEIPT, **WRONG[what]))))


@given(st.data())
def test_whatever_byte_one_changes_it_is_refused(data: st.DataObject) -> None:
    raw = bytearray(text_of(countersigned()))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[at]))
    try:
        found = read(bytes(raw))
    except SignatureError as error:
        assert error.message  # noqa: PT017 - either way is right
        return
    assert found == (RECEIPT, countersigned())  # a blank, or a letter written otherwise


@given(st.sampled_from(msgspec.structs.fields(Receipt)), st.integers(0, 9) | st.text(max_size=9))
def test_whatever_field_one_changes_it_is_refused(field: msgspec.structs.FieldInfo, value: Any) -> None:
    both = countersigned()
    changed = msgspec.json.encode(replace(RECEIPT, **{field.name: value}))
    if changed == msgspec.json.encode(RECEIPT):
        return
    with pytest.raises(SignatureError):
        read(text_of(Signed(jws.base64url(changed), both.signatures)))


def test_a_receipt_has_one_form() -> None:
    both = countersigned()
    for payload in (
        both.payload + "=",
        both.payload + "A",
        both.payload[:-1],
        both.payload.replace("_", "/"),
    ):
        if payload != both.payload:
            with pytest.raises(SignatureError):
                read(text_of(Signed(payload, both.signatures)))


ODD = [b"", b"[]", b"{", b"\xff", b"null", b"[" * 9000, b'{"payload":"","signatures":[]}', b" " * 40_001]


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_receipt(text: bytes) -> None:
    with pytest.raises(SignatureError):
        read(text)


def test_a_payload_that_is_none_is_refused_though_it_is_signed() -> None:
    for payload in (b"", b"\xff", b"[]", b"{}", b"[" * 5000):
        made = jws.signature(BOB, receipt._TYPE, payload)
        with pytest.raises(SignatureError):
            read(text_of(Signed(jws.base64url(payload), (made,))))
