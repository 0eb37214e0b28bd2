"""Cards: what is claimed, by whom, and until when; anybody may have sent them."""

import base64
import math
import time
from typing import Any

import msgspec
import numpy as np
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import CardError
from manyminds.network import card, jws
from manyminds.network.card import CARD_BYTES, EXTENSION, Claim, Claims, NodeCard, Skill, Terms, Vouch
from manyminds.network.identity import Identity

ANN, EVE = Identity.of_seed(bytes(32)), Identity.of_seed(bytes([1]) * 32)
NOW = 1_800_000_000.0


def skill(*numbers: int) -> Skill:
    return Skill(base64.b64encode(np.array(numbers, np.int8).tobytes()).decode())


SAYS = Claims(
    key="",
    exchange="",
    sequence=17,
    expires=int(NOW) + 900,
    protocols=(1, 2),
    experts=3,
    parameters=7_000_000,
    levels=2,
    encoder="ab" * 32,
    skills=(skill(127, 0, 0), skill(0, -90, 90)),
    claims=(Claim(0.7), Claim(0.9, "law")),
    vouches=(Vouch(EVE.id, 0.3, "law"),),
    price_in_usd_per_m=0.1,
    price_out_usd_per_m=0.3,
    ttft_s=0.7,
    tokens_per_s=33.3,
    context_tokens=4096,
    offers=("tools",),
    terms=Terms(("research",), "listed", 60),
)


def made(says: Claims = SAYS, by: Identity = ANN, **more: Any) -> bytes:
    about: dict[str, Any] = {"name": "ann", "description": "Ann's.", "words": ["law", "Straßenbau"]}
    return card.made(by, says, **(about | {"url": "https://ann.example"} | more))


def read(raw: bytes, now_s: float = NOW) -> NodeCard:
    return card.read(raw, now_s)


def fields_of(raw: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(raw)
    return fields


def params_of(fields: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = fields["capabilities"]["extensions"][0]["params"]
    return params


def resigned(fields: dict[str, Any], by: Identity = ANN, typ: str = card._TYPE) -> bytes:
    """Any fields, signed as they are."""
    fields = {name: value for name, value in fields.items() if name != "signatures"}
    signature = jws.signature(by, typ, rfc8785.dumps(fields))
    return msgspec.json.encode({**fields, "signatures": [msgspec.to_builtins(signature)]})


def with_claims(**changes: Any) -> bytes:
    fields = fields_of(made())
    params_of(fields).update(changes)
    return resigned(fields)


# --- what holds ------------------------------------------------------------------------------------


def test_what_is_said_is_read() -> None:
    found = read(made())
    keys = {"key": jws.base64url(ANN.public), "exchange": jws.base64url(ANN.exchange)}
    assert found.says == msgspec.structs.replace(SAYS, **keys)
    assert (found.id, found.name, found.description) == (ANN.id, "ann", "Ann's.")
    assert (found.words, found.url) == (("law", "Straßenbau"), "https://ann.example")
    assert (found.public, found.exchange, found.accuracy) == (ANN.public, ANN.exchange, 0.7)
    assert found.raw == made()


def test_it_is_a_card_of_a2a() -> None:
    """Every field that Agent2Agent 1.0, section 4.4.1, demands."""
    fields = fields_of(made(owner="Ann Ltd"))
    assert fields["supportedInterfaces"][0]["protocolVersion"] == "1"
    assert fields["provider"] == {"organization": "Ann Ltd", "url": "https://ann.example"}
    assert {type(fields[name]) for name in ("name", "description", "version")} == {str}
    assert fields["defaultInputModes"] == fields["defaultOutputModes"] == ["text/plain"]
    assert [set(one) for one in fields["skills"]] == [{"id", "name", "description", "tags"}] * 2
    assert fields["capabilities"]["extensions"][0]["uri"] == EXTENSION
    (signature,) = fields["signatures"]
    header = fields_of(jws.from_base64url(signature["protected"]))
    assert header == {"alg": "EdDSA", "kid": ANN.id, "typ": "manyminds-card"}


def test_what_is_signed_is_the_canonical_form_without_signatures() -> None:
    fields = fields_of(made())
    (signature,) = fields.pop("signatures")
    said = f"{signature['protected']}.{jws.base64url(rfc8785.dumps(fields))}".encode()
    assert signature["signature"] == jws.base64url(ANN.sign(said))


def test_how_it_is_written_does_not_matter() -> None:
    import json

    fields = dict(reversed(fields_of(made()).items()))
    for text in (json.dumps(fields), json.dumps(fields, indent=3, ensure_ascii=False)):
        assert read(text.encode()).says == read(made()).says


def test_fields_that_are_not_known_are_signed_too() -> None:
    fields = fields_of(made())
    fields["later"] = {"n": [1, 2.5, None, True, "ü"]}
    params_of(fields)["later"] = "claim"
    assert read(resigned(fields)).says == read(made()).says
    fields["later"]["n"][1] = 2.6
    with pytest.raises(CardError, match="nobody can be sure"):
        read(
            msgspec.json.encode(
                {**fields, "signatures": fields_of(resigned(fields_of(made())))["signatures"]}
            )
        )


def test_another_extension_is_passed_over() -> None:
    fields = fields_of(made())
    fields["capabilities"]["extensions"].insert(0, {"uri": "urn:other", "params": {"key": "AAAA"}})
    assert read(resigned(fields)).id == ANN.id


def test_a_node_without_an_address_shows_none() -> None:
    assert read(made(url="")).url == ""
    assert read(made(url="javascript:alert(1)")).url == ""


def test_what_a_terminal_would_obey_is_not_in_it() -> None:
    found = read(made(words=["\x1b[31mred\x1b]0;title\x07"], description="a\r\nb\x9b2J"))
    assert found.words == (" [31mred ]0;title ",)
    assert found.description == "a  b 2J"


# --- what is refused -------------------------------------------------------------------------------

HUGE = 10**30
WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "key short": {"key": "AAAA"},
    "key not canonical": {"key": jws.base64url(ANN.public)[:-1] + "B"},
    "another's key": {"key": jws.base64url(EVE.public)},
    "exchange short": {"exchange": "AAAA"},
    "exchange missing": {"exchange": None},
    "sequence -1": {"sequence": -1},
    "sequence too high": {"sequence": 2**53},
    "sequence huge": {"sequence": HUGE},
    "sequence 1.5": {"sequence": 1.5},
    "sequence text": {"sequence": "17"},
    "sequence true": {"sequence": True},
    "expires -1": {"expires": -1},
    "expires huge": {"expires": HUGE},
    "no protocol": {"protocols": []},
    "many protocols": {"protocols": [1] * 17},
    "experts -1": {"experts": -1},
    "experts many": {"experts": 10**9 + 1},
    "parameters huge": {"parameters": 2**53},
    "levels 0": {"levels": 0},
    "levels 5": {"levels": 5},
    "encoder long": {"encoder": "x" * 401},
    "skills many": {"skills": [{"vector": ""}] * 65},
    "skill no base64": {"skills": [{"vector": "?"}]},
    "skill base64url": {"skills": [{"vector": "_-_-"}]},
    "skill count 0": {"skills": [{"vector": "", "count": 0}]},
    "skill long": {"skills": [{"vector": "A" * 8193}]},
    "claims many": {"claims": [{"accuracy": 0.5}] * 65},
    "accuracy 1.1": {"claims": [{"accuracy": 1.1}]},
    "accuracy -0.1": {"claims": [{"accuracy": -0.1}]},
    "vouch for a name": {"vouches": [{"node": "eve", "weight": 1}]},
    "vouch 1.1": {"vouches": [{"node": EVE.id, "weight": 1.1}]},
    "vouch in a line": {"vouches": [{"node": EVE.id, "weight": 1, "field": "law\n"}]},
    "vouch in a text": {"vouches": [{"node": EVE.id, "weight": 1, "field": "x" * 65}]},
    "vouches many": {"vouches": [{"node": EVE.id, "weight": 1}] * 65},
    "claim in a text": {"claims": [{"accuracy": 1, "field": "x" * 65}]},
    "price -1": {"price_in_usd_per_m": -1},
    "price -1 out": {"price_out_usd_per_m": -0.001},
    "price 1e7": {"price_out_usd_per_m": 1e7},
    "ttft -1": {"ttft_s": -1},
    "speed -1": {"tokens_per_s": -1},
    "speed 1e10": {"tokens_per_s": 1e10},
    "context 0": {"context_tokens": 0},
    "offers odd": {"offers": ["\n"]},
    "offers many": {"offers": ["tools"] * 17},
    "callers": {"terms": {"callers": "nobody"}},
    "purposes": {"terms": {"purposes": ["\x1b[2J"]}},
    "rate 0": {"terms": {"requests_per_min": 0}},
    "terms": {"terms": []},
}


@pytest.mark.parametrize("what", WRONG_CLAIMS)
def test_a_claim_out_of_range_is_refused(what: str) -> None:
    ((name, value),) = WRONG_CLAIMS[what].items()
    if not isinstance(value, int) or abs(value) < 2**53:
        raw = with_claims(**{name: value})
    else:  # that has no canonical form to be signed
        before = getattr(read(made()).says, name)
        raw = made().replace(b'"%b":%d' % (name.encode(), before), b'"%b":%d' % (name.encode(), value))
        assert raw != made()
    with pytest.raises(CardError):
        read(raw)


WRONG_FIELDS: dict[str, dict[str, Any]] = {
    "name empty": {"name": ""},
    "name long": {"name": "a" * 65},
    "name with newline": {"name": "ann\n"},
    "name with control": {"name": "ann\x1b[2J"},
    "name no text": {"name": 7},
    "description long": {"description": "x" * 401},
    "description missing": {"description": None},
    "capabilities": {"capabilities": {}},
    "no extension": {"capabilities": {"extensions": []}},
    "many extensions": {"capabilities": {"extensions": [{"uri": "x"}] * 17}},
    "extension without params": {"capabilities": {"extensions": [{"uri": EXTENSION}]}},
    "many skills": {"skills": [{"name": "x"}] * 129},
    "skill long": {"skills": [{"name": "x" * 401}]},
    "url long": {"supportedInterfaces": [{"url": "https://" + "x" * 400, "protocolBinding": "MANYMINDS"}]},
}


@pytest.mark.parametrize("what", WRONG_FIELDS)
def test_a_field_out_of_range_is_refused(what: str) -> None:
    with pytest.raises(CardError):
        read(resigned({**fields_of(made()), **WRONG_FIELDS[what]}))


@pytest.mark.parametrize("count", [0, 5])
def test_a_card_has_one_to_four_signatures_of_which_the_first_counts(count: int) -> None:
    fields = fields_of(made())
    (own,) = fields["signatures"]
    (eves,) = fields_of(resigned(fields, EVE))["signatures"]
    assert read(msgspec.json.encode({**fields, "signatures": [own, eves]})).id == ANN.id
    with pytest.raises(CardError, match="sure"):
        read(msgspec.json.encode({**fields, "signatures": [eves, own]}))
    with pytest.raises(CardError):
        read(msgspec.json.encode({**fields, "signatures": [own] * count}))


@pytest.mark.parametrize("typ", ["manyminds-ask", "manyminds-receipt", "JOSE", ""])
def test_what_is_signed_for_something_else_is_no_card(typ: str) -> None:
    with pytest.raises(CardError, match="signed as"):
        read(resigned(fields_of(made()), typ=typ))


def test_who_signs_is_whose_card_it_is() -> None:
    with pytest.raises(CardError, match=f"not by {ANN.id}"):
        read(resigned(fields_of(made()), EVE))


@pytest.mark.parametrize(
    ("now_s", "why"),
    [(NOW + 900, "ran out 0 s ago"), (NOW + 1000, "ran out 100 s ago"), (NOW - 86_000, "more than a day")],
)
def test_it_holds_for_its_time_only(now_s: float, why: str) -> None:
    assert read(made(), NOW + 899.9).id == ANN.id
    assert read(made(), NOW - 85_000).id == ANN.id
    with pytest.raises(CardError, match=why):
        read(made(), now_s)


def test_now_is_when_it_is_read() -> None:
    with pytest.raises(CardError, match=r"more than a day|ran out"):
        card.read(made())
    fresh = msgspec.structs.replace(SAYS, expires=int(time.time()) + 900)
    assert card.read(made(fresh)).id == ANN.id


def test_a_large_card_is_refused_unread() -> None:
    with pytest.raises(CardError, match="10000000 bytes is too large"):
        read(b"[" * 10_000_000)
    with pytest.raises(CardError, match=f"of {CARD_BYTES}: it claims too much"):
        made(msgspec.structs.replace(SAYS, skills=(Skill("A" * 8192),) * 9))


ODD = {
    "empty": b"",
    "no json": b"card",
    "no utf-8": b"\xff\xfe",
    "list": b"[]",
    "null": b"null",
    "deep lists": b"[" * 60_000,
    "deep objects": b'{"a":' * 10_000,
    "deep in it": made()[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "nan": made().replace(b"33.3", b"NaN"),
    "infinity": made().replace(b"33.3", b"Infinity"),
    "beyond floats": made().replace(b"33.3", b"1e999"),
    "unknown nan": made()[:-1] + b',"x":NaN}',
    "unknown huge": made()[:-1] + b',"x":' + b"9" * 30 + b"}",
    "unknown huger": made()[:-1] + b',"x":' + b"9" * 30_000 + b"}",
    "half a character": made().replace(b"Ann's.", rb"Ann\ud800"),
    "half a character in a key": made()[:-1] + rb',"\ud800":1}',
    "half a character in bytes": made().replace(b"Ann's.", b"Ann\xed\xa0\x80"),
    "cut": made()[:-1],
    "twice": made() * 2,
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_no_card_is_refused(what: str) -> None:
    with pytest.raises(CardError):
        read(ODD[what])


def test_levels_are_counted() -> None:
    fields = fields_of(made())
    for levels, fits in ((11, True), (12, False)):
        value: Any = 1
        for _ in range(levels):
            value = [value]
        raw = resigned({**fields, "x": value})
        if fits:
            assert read(raw).id == ANN.id
        else:
            with pytest.raises(CardError, match="12 levels"):
                read(raw)


def test_of_a_key_that_comes_twice_what_is_checked_is_what_is_read() -> None:
    """Parsers disagree which of two counts: both of ours take the last."""
    raw = made()
    for name, value in (("name", b'"eve"'), ("capabilities", b'{"extensions":[]}')):
        assert read(b'{"%b":%b,' % (name.encode(), value) + raw[1:]).name == "ann"
        with pytest.raises(CardError):
            read(raw[:-1] + b',"%b":%b}' % (name.encode(), value))
    twice = raw.replace(b'"sequence":17', b'"sequence":99,"sequence":17')
    assert read(twice).says.sequence == 17
    with pytest.raises(CardError, match="sure"):
        read(raw.replace(b'"sequence":17', b'"sequence":17,"sequence":99'))
    escaped = raw.replace(b'"sequence":17', rb'"sequence":17,"\u0073equence":99')
    with pytest.raises(CardError, match="sure"):
        read(escaped)


# --- whatever one changes --------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of all that is within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, inner in items for place in places(inner, (*at, key)))]


PLACES = [at for at in places(fields_of(made())) if at]


@given(st.sampled_from(PLACES), JSON, st.booleans())
def test_whatever_one_changes_it_is_refused_or_says_the_same(
    at: tuple[Any, ...], value: Any, drop: bool
) -> None:
    fields = fields_of(made())
    within: Any = fields
    for key in at[:-1]:
        within = within[key]
    if drop:
        del within[at[-1]]
    else:
        within[at[-1]] = value
    _refused_or_same(msgspec.json.encode(fields))


@given(st.data())
def test_whatever_byte_one_changes_it_is_refused_or_says_the_same(data: st.DataObject) -> None:
    raw = bytearray(made())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _refused_or_same(bytes(raw))


def _refused_or_same(raw: bytes) -> None:
    try:
        found = read(raw)
    except CardError as error:
        assert error.message  # noqa: PT017 - either way is right
        return
    own = read(made())
    assert (found.id, found.says, found.name) == (own.id, own.says, own.name)
    assert (found.words, found.url, found.description) == (own.words, own.url, own.description)


# --- vectors ---------------------------------------------------------------------------------------


def test_skills_come_out_as_unit_rows() -> None:
    rows = read(made()).vectors(3)
    assert rows.dtype == np.float32
    assert np.allclose(rows, np.array([[1.0, 0.0, 0.0], [0.0, -math.sqrt(0.5), math.sqrt(0.5)]]))


def test_skills_that_are_nowhere_or_elsewhere_are_left_out() -> None:
    odd = (skill(0, 0, 0), skill(1, 2), skill(1, 2, 3, 4), skill(), skill(-128, 0, 0), skill(1, 0, 0))
    found = read(made(msgspec.structs.replace(SAYS, skills=odd)))
    assert found.vectors(3).tolist() == [[-1, 0, 0], [1, 0, 0]]
    assert found.vectors(0).shape == (0, 0)
    assert found.vectors(256).shape == (0, 256)


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=30).filter(
        lambda v: any(abs(x) > 0.01 for x in v)
    )
)
def test_a_vector_is_kept_as_it_is_but_for_rounding(numbers: list[float]) -> None:
    unit = np.array(numbers, np.float32)
    unit /= np.linalg.norm(unit)
    (row,) = card.unit_rows([Skill(card.quantised(unit))], len(unit))
    assert np.isclose(np.linalg.norm(row), 1, atol=1e-5)
    assert float(row @ unit) > 0.98


@pytest.mark.parametrize("claims", [(), (Claim(0.9, "law"),)])
def test_who_claims_nothing_of_all_claims_nothing(claims: tuple[Claim, ...]) -> None:
    assert read(made(msgspec.structs.replace(SAYS, claims=claims))).accuracy is None


# --- another program -------------------------------------------------------------------------------


def test_a2a_takes_it_for_signed() -> None:
    """The verifier of a2a-sdk: PyJWT over its own canonical form, which leaves out what is empty."""
    signing = pytest.importorskip(
        "a2a.utils.signing", reason="a2a-sdk, an independent verifier, is not installed"
    )
    types = pytest.importorskip("a2a.types")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    def key(kid: str | None, jku: str | None) -> Any:
        assert (kid, jku) == (ANN.id, None)
        return Ed25519PublicKey.from_public_bytes(ANN.public)

    verify = signing.create_signature_verifier(key, ["EdDSA"])
    parse = getattr(types.AgentCard, "model_validate", None)
    if parse is None:  # from version 1 on, its types are of protobuf
        protobuf = pytest.importorskip("google.protobuf.json_format")

        def parse(fields: dict[str, Any]) -> Any:
            return protobuf.ParseDict(fields, types.AgentCard(), ignore_unknown_fields=True)

    verify(parse(fields_of(made())))
    fields = fields_of(made())
    fields["description"] = "Eve's."
    with pytest.raises(signing.InvalidSignaturesError):
        verify(parse(fields))


def test_means_of_documents_keep_their_length_and_nobody_claims_a_longer_one() -> None:
    unit = np.array([0.6, 0.8, 0.0], np.float32)
    sent = [Skill(card.quantised(length * unit)) for length in (0.5, 1.0)]
    sent.append(Skill(base64.b64encode(np.array([127, 127, 127], np.int8).tobytes()).decode()))
    rows = card.unit_rows(sent, 3, means=True)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([0.5, 1.0, 1.0], abs=0.01)
    assert np.linalg.norm(card.unit_rows(sent, 3), axis=1) == pytest.approx(1)
