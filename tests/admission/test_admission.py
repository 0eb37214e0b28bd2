import hashlib

import pytest

from manyminds.admission import Admission, Rates, digest, new_secret
from manyminds.errors import ForbiddenError, InvalidRequestError, RateLimitError, UnauthorizedError
from manyminds.types import Key
from tests.admission.ledger import SECRET, FakeLedger, Time, door, key
from tests.clock import run

BEARER = b"Bearer " + SECRET.encode()


def test_secrets_are_long_and_told_apart_by_their_hash() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(secret.startswith("mm-") and len(secret) >= 3 + 43 and secret.isascii() for secret in secrets)
    assert digest("mm-x") == hashlib.sha256(b"mm-x").digest()


# --- who -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize(
    ("authorization", "x_api_key"),
    [
        (BEARER, None),
        (b"bearer   " + SECRET.encode() + b" ", None),
        (None, SECRET.encode()),
        (BEARER, b"other"),
        (b"Bearer other", SECRET.encode()),
        (b"Basic YTpi", SECRET.encode()),
    ],
)
def test_a_known_key_is_that_key(is_open: bool, authorization: bytes | None, x_api_key: bytes | None) -> None:
    alice = key()
    assert door(alice, open=is_open).identify(authorization, x_api_key) is alice


UNKNOWN = [
    (None, None),
    (b"Bearer other", None),
    (b"Bearer", None),
    (b"", b""),
    (SECRET.encode(), None),
    (b"Basic " + SECRET.encode(), None),
    (b"Bearer " + digest(SECRET), None),
    (b"Bearer \xff\x00", b"\xff"),
    (BEARER + b" " * 1000, None),
    (None, SECRET.encode() + b" " * 1000),
]


@pytest.mark.parametrize(("authorization", "x_api_key"), UNKNOWN)
def test_others_are_nobody_where_the_door_is_open(
    authorization: bytes | None, x_api_key: bytes | None
) -> None:
    assert door(key(), open=True).identify(authorization, x_api_key) is None


@pytest.mark.parametrize(("authorization", "x_api_key"), UNKNOWN)
def test_others_are_refused_where_it_is_not(authorization: bytes | None, x_api_key: bytes | None) -> None:
    with pytest.raises(UnauthorizedError) as refused:
        door(key()).identify(authorization, x_api_key)
    assert "Authorization: Bearer KEY" in refused.value.message
    assert "manyminds keys" in refused.value.message
    assert ("does not know" in refused.value.message) == ((authorization, x_api_key) != (None, None))
    assert SECRET not in refused.value.message


def test_two_secrets_may_stand_for_one_key() -> None:
    alice = key(requests_per_min=2)
    admission = door({digest("old"): alice, digest("new"): alice})
    admission.take(admission.identify(b"Bearer old", None), 1)
    assert admission.take(admission.identify(None, b"new"), 1).remaining_requests == 0


# --- for what --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        ((), "anything", True),
        (("auto", "cheap"), "cheap", True),
        (("auto", "cheap"), "max", False),
        (("auto",), "auto2", False),
        (("auto",), "x\nauto", False),
        (("auto",), "auto\n", False),
        (("qwen*",), "qwen2.5-coder:7b", True),
        (("qwen*",), "Qwen2.5", False),
        (("a.b",), "axb", False),
        (("gpt-[45]?", "x"), "gpt-4o", True),
        (("*",), "line\nbreak", True),
    ],
)
def test_globs_say_what_a_key_may_ask_for(globs: tuple[str, ...], model: str, allowed: bool) -> None:
    alice = key(models=globs)
    admission = door(alice)
    if allowed:
        admission.allows(alice, model)
        return
    with pytest.raises(ForbiddenError) as refused:
        admission.allows(alice, model)
    assert refused.value.param == "model"
    assert all(word in refused.value.message for word in ("alice", *globs))


def test_a_refusal_does_not_repeat_a_name_without_end() -> None:
    alice = key(models=("auto",))
    with pytest.raises(ForbiddenError) as refused:
        door(alice).allows(alice, "x" * 10_000)
    assert len(refused.value.message) < 300


# --- nobody ----------------------------------------------------------------------------------------


def test_nobody_has_no_limits() -> None:
    ledger = FakeLedger(away=True)
    admission = door(key(), ledger, open=True)
    admission.allows(None, "max")
    assert admission.take(None, 10**9) == admission.rates(None) == Rates()
    admission.settle_tokens(None, 1, 10**9)
    hold = run(admission.reserve(None, 1e6))
    hold.settle(1e6)
    assert hold.units == 0
    assert ledger.asked == []


def test_a_key_without_limits_sends_no_figures() -> None:
    alice = key()
    admission = door(alice)
    assert admission.take(alice, 10**9).headers() == []


# --- at once ---------------------------------------------------------------------------------------


def test_no_more_are_inside_than_may_be() -> None:
    admission = door(key(), most_at_once=2)
    with admission.enter(), admission.enter():
        for _ in range(3):
            with pytest.raises(RateLimitError) as refused, admission.enter():
                pytest.fail("let in")
            assert refused.value.retry_after_s == 1.0
            assert "2 requests" in refused.value.message
    with pytest.raises(ZeroDivisionError), admission.enter():
        _ = 1 / 0
    with admission.enter(), admission.enter():  # whoever failed has left
        pass


# --- other keys ------------------------------------------------------------------------------------


def taken(admission: Admission, who: Key, tokens: int = 0) -> int:
    return admission.take(who, tokens).remaining_requests


def test_replaced_keys_keep_their_levels() -> None:
    before, after = (
        key(requests_per_min=10, tokens_per_min=1000),
        key(requests_per_min=10, tokens_per_min=600),
    )
    time = Time()
    admission = door(before, time=time)
    for _ in range(4):
        admission.take(before, 100)
    admission.replace({digest("another"): after})
    assert admission.identify(None, b"another") is after
    with pytest.raises(UnauthorizedError):
        admission.identify(None, SECRET.encode())
    rates = admission.rates(after)
    assert (rates.remaining_requests, rates.remaining_tokens, rates.limit_tokens) == (6, 600, 600)
    time.pass_s(6)
    assert admission.rates(after).remaining_requests == 7


def test_keys_change_only_when_replaced() -> None:
    keys = {digest(SECRET): key()}
    admission = door(keys)
    keys.clear()
    assert admission.identify(BEARER, None) == key()


def test_limits_that_changed_take_effect_also_for_requests_under_way() -> None:
    before = key()
    admission = door(before)
    admission.take(before, 100)
    admission.replace({digest(SECRET): key(requests_per_min=2, models=("auto",))})
    with pytest.raises(ForbiddenError):
        admission.allows(before, "max")
    assert [taken(admission, before), taken(admission, before)] == [1, 0]
    with pytest.raises(RateLimitError):
        admission.take(before, 0)
    admission.replace({digest(SECRET): key()})
    assert admission.take(before, 0) == Rates()


def test_a_withdrawn_key_is_refused_also_between_two_steps() -> None:
    alice = key(requests_per_min=5, tokens_per_min=5, budget_usd=1.0)
    ledger = FakeLedger()
    admission = door(alice, ledger)
    admission.replace({})
    with pytest.raises(UnauthorizedError, match="withdrawn"):
        admission.allows(alice, "auto")
    with pytest.raises(UnauthorizedError, match="withdrawn"):
        admission.take(alice, 1)
    with pytest.raises(UnauthorizedError, match="withdrawn"):
        run(admission.reserve(alice, 0.1))
    admission.settle_tokens(alice, 1, 2)
    assert admission.rates(alice) == Rates()
    assert ledger.asked == []


def test_a_key_that_may_ask_for_nothing_is_told_so() -> None:
    none, mute = key("bob", requests_per_min=0), key("carol", tokens_per_min=0)
    admission = door({b"1": none, b"2": mute})
    with pytest.raises(RateLimitError) as refused:
        admission.take(none, 0)
    assert refused.value.retry_after_s is None
    with pytest.raises(InvalidRequestError):
        admission.take(mute, 0)
    assert admission.rates(none).remaining_requests == admission.rates(mute).remaining_tokens == 0
