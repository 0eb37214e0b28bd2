"""Asks: opened by whom they are for, once, and nowhere else."""

import time
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import AskError
from manyminds.network import ask as asks
from manyminds.network import card, jws, receipt
from manyminds.network.ask import ASK_BYTES, Ask, Heard, Once, new_ask, open_ask, seal_ask
from manyminds.network.identity import Identity
from tests.changed import replace

ANN, BOB, EVE = (Identity.of_seed(bytes([i]) * 32) for i in range(3))
REQUEST = b'{"messages":[{"role":"user","content":"2+2?"}]}'
NOW = 1_800_000_000.0


def ask(**changes: Any) -> Ask:
    made = new_ask(
        ANN,
        BOB.id,
        REQUEST,
        deadline_s=7.5,
        budget_usd=0.3,
        hops=2,
        visited=(EVE.id, ANN.id),
        purpose="research",
        window=5,
    )
    return replace(made, **({"at": NOW} | changes))


def sealed(one: Ask | None = None, by: Identity = ANN, to: Identity = BOB) -> bytes:
    return seal_ask(by, one or ask(), to.exchange)


def opened(text: bytes, by: Identity = BOB, seen: Once | None = None, now_s: float = NOW) -> Heard:
    return open_ask(by, text, seen or Once(), now_s)


def as_sealed(signed: bytes, to: Identity = BOB, info: bytes | None = None) -> bytes:
    """Any text, sealed as an ask is."""
    info = asks._INFO + to.id.encode() if info is None else info
    return asks._SUITE.encrypt(signed, X25519PublicKey.from_public_bytes(to.exchange), info)


def with_fields(**changes: Any) -> bytes:
    """An ask with any fields at all, rightly signed and sealed."""
    fields = {**msgspec.json.decode(msgspec.json.encode(ask())), **changes}
    return as_sealed(jws.sign(ANN, asks._TYPE, msgspec.json.encode(fields)))


def test_what_is_asked_is_heard_by_whom_it_is_for() -> None:
    one = ask()
    heard = opened(sealed(one))
    assert heard.ask == one
    assert bytes(heard.ask.request) == REQUEST
    assert (heard.asker, heard.asker_key) == (ANN.id, ANN.public)
    assert heard.reply_key == jws.from_base64url(one.reply_key)
    assert REQUEST not in sealed(one)
    assert ANN.id.encode() not in sealed(one)


def test_no_two_asks_are_alike() -> None:
    made = [ask() for _ in range(20)]
    for name in ("id", "reply_key", "nonce"):
        assert len({getattr(one, name) for one in made}) == 20
    assert sealed(made[0]) != sealed(made[0])


def test_an_ask_is_of_just_now() -> None:
    before = time.time()
    at = new_ask(ANN, BOB.id, REQUEST, deadline_s=1, budget_usd=0, hops=0, visited=()).at
    assert before <= at <= time.time()


def test_nobody_else_opens_it() -> None:
    with pytest.raises(AskError, match="not sealed to this node"):
        opened(sealed(), by=EVE)
    with pytest.raises(AskError, match="not sealed to this node"):
        opened(sealed(ask(to=EVE.id)))  # sealed to Bob's key, as if it were Eve's


def test_who_gets_an_ask_cannot_pass_it_on_as_the_askers_own() -> None:
    signed = asks._SUITE.decrypt(sealed(), BOB.exchange_secret, asks._INFO + BOB.id.encode())
    with pytest.raises(AskError, match=f"It is for {BOB.id}, and this is {EVE.id}"):
        opened(as_sealed(signed, EVE), by=EVE)
    assert opened(as_sealed(signed, BOB)).asker == ANN.id  # sealing anew makes no other ask of it


def test_who_signs_is_who_asks() -> None:
    with pytest.raises(AskError, match="Nobody can be sure who asks"):
        opened(sealed(by=EVE))
    eves = replace(ask(), key=jws.base64url(EVE.public))
    assert opened(sealed(eves, by=EVE)).asker == EVE.id


@pytest.mark.parametrize("typ", [card._TYPE, receipt._TYPE, receipt._COUNTER, "", "JWT"])
def test_what_is_signed_for_something_else_is_no_ask(typ: str) -> None:
    with pytest.raises(AskError, match="signed as"):
        opened(as_sealed(jws.sign(ANN, typ, msgspec.json.encode(ask()))))


@given(st.data())
def test_no_bit_of_it_can_change(data: st.DataObject) -> None:
    text = bytearray(sealed())
    bit = data.draw(st.integers(0, 8 * len(text) - 1))
    text[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AskError, match="not sealed"):
        opened(bytes(text))


@given(st.binary(max_size=300))
def test_noise_is_no_ask(noise: bytes) -> None:
    with pytest.raises(AskError):
        opened(noise)
    with pytest.raises(AskError):
        opened(as_sealed(noise))
    with pytest.raises(AskError):
        opened(as_sealed(jws.sign(ANN, asks._TYPE, noise)))


@given(st.integers(0, 40), st.integers(1, 40))
def test_a_part_of_it_is_none(start: int, less: int) -> None:
    text = sealed()
    with pytest.raises(AskError):
        opened(text[start:-less])


WRONG: dict[str, dict[str, Any]] = {
    "version 0": {"v": 0},
    "version 2": {"v": 2},
    "another's": {"to": EVE.id},
    "to nobody": {"to": ""},
    "short key": {"key": "AAAA"},
    "short id": {"id": "AAAA"},
    "id of 17 bytes": {"id": jws.base64url(bytes(17))},
    "short reply key": {"reply_key": "AAAA"},
    "no deadline": {"deadline_s": 0},
    "before": {"deadline_s": -1.0},
    "for ever": {"deadline_s": 86_400.1},
    "deadline as text": {"deadline_s": "1"},
    "debt": {"budget_usd": -0.01},
    "all the money": {"budget_usd": 1e10},
    "hops": {"hops": -1},
    "many hops": {"hops": 65},
    "half a hop": {"hops": 0.5},
    "visited by a name": {"visited": ["bob"]},
    "visited by many": {"visited": [EVE.id] * 65},
    "long nonce": {"nonce": "x" * 65},
    "long purpose": {"purpose": "x" * 65},
    "no window": {"window": 0},
    "large window": {"window": 65_537},
    "no time": {"at": None},
    "time as text": {"at": "now"},
    "request missing": {"request": None, "deadline_s": None},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_out_of_range_is_refused(what: str) -> None:
    with pytest.raises(AskError):
        opened(with_fields(**WRONG[what]))


def test_fields_that_are_not_known_are_passed_over() -> None:
    assert opened(with_fields(later={"deep": [1]})).ask.purpose == "research"


def test_what_is_too_deep_is_refused() -> None:
    text = msgspec.json.encode(ask())[:-1] + b',"more":' + b"[" * 5000 + b"]" * 5000 + b"}"
    with pytest.raises(AskError, match="cannot be read"):
        opened(as_sealed(jws.sign(ANN, asks._TYPE, text)))


def test_what_is_too_large_is_refused_unread() -> None:
    with pytest.raises(AskError, match="too large"):
        opened(bytes(ASK_BYTES + 1))


@pytest.mark.parametrize(
    ("off_s", "fits"), [(0.0, True), (59.0, True), (-59.0, True), (61, False), (-61, False)]
)
def test_clocks_may_differ_a_little(off_s: float, fits: bool) -> None:
    if fits:
        assert opened(sealed(), now_s=NOW + off_s).asker == ANN.id
        return
    with pytest.raises(AskError, match="set both nodes' clocks"):
        opened(sealed(), now_s=NOW + off_s)


def test_it_is_heard_once() -> None:
    seen, text = Once(), sealed()
    opened(text, seen=seen)
    for later in (0.0, 1.0, 59.0):
        with pytest.raises(AskError, match="heard before"):
            opened(text, seen=seen, now_s=NOW + later)
    with pytest.raises(AskError):  # until it is too old
        opened(text, seen=seen, now_s=NOW + 121)
    opened(sealed(), seen=seen)


def test_an_ask_that_was_refused_does_not_count_as_heard() -> None:
    seen, one = Once(), ask()
    with pytest.raises(AskError):
        opened(sealed(one, by=EVE), seen=seen)
    opened(sealed(one), seen=seen)


@pytest.mark.parametrize("exchange", [bytes(32), (1).to_bytes(32, "little"), bytes(31), b""])
def test_to_a_key_that_is_none_nothing_is_sealed(exchange: bytes) -> None:
    with pytest.raises(AskError, match="nothing can be sealed"):
        seal_ask(ANN, ask(), exchange)


# --- what was heard --------------------------------------------------------------------------------


def test_what_was_heard_is_forgotten_in_time() -> None:
    once = Once(keep_s=10)
    assert [once.is_new(name, at) for name, at in (("a", 0), ("b", 5), ("a", 9), ("a", 10), ("b", 10))] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_nothing_is_pushed_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks, "_MOST_SEEN", 3)
    once = Once(keep_s=10)
    assert [once.is_new(name, 0) for name in "abcde"] == [True, True, True, False, False]
    assert not any(once.is_new(name, 9) for name in "abc")
    assert len(once._until) == 3
    assert once.is_new("d", 11)
    assert len(once._until) == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 7)), max_size=40))
def test_nothing_is_heard_twice_within_its_time(heard: list[tuple[str, float]]) -> None:
    once, now, last = Once(keep_s=10.0), 0.0, dict[str, float]()
    for name, more in heard:
        now += more
        new = name not in last or now >= last[name] + 10.0
        assert once.is_new(name, now) == new
        if new:
            last[name] = now
