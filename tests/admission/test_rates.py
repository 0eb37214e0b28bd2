from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.admission import digest
from manyminds.admission.rates import Allowance, Bucket, Rates
from manyminds.errors import InvalidRequestError, RateLimitError
from tests.admission.ledger import SECRET, Time, door, key

MINUTE_NS = 60 * 10**9
limits = st.integers(1, 10**7)
gaps_ns = st.one_of(st.integers(0, 100), st.integers(0, 3 * MINUTE_NS))


@given(limits, st.lists(st.tuples(gaps_ns, st.integers(0, 10**7), st.integers(0, 10**7)), max_size=30))
def test_no_window_has_more_than_its_rate_and_one_burst(limit: int, asks: list[tuple[int, int, int]]) -> None:
    """Also where requests took less than they asked for, and gave the rest back at once."""
    bucket = Bucket(limit, 0)
    times, used = [], []
    for now_ns, (_, asked, unused) in zip(accumulate(gap for gap, _, _ in asks), asks, strict=True):
        bucket.fill(now_ns)
        taken, unused = min(asked, limit), min(asked, unused, limit)
        if bucket.wait_ns(taken) == 0:
            bucket.take(taken)
            bucket.take(-unused)
            times.append(now_ns)
            used.append(taken - unused)
    for first in range(len(times)):
        for last in range(first, len(times)):
            flowed = Fraction(limit * (times[last] - times[first]), MINUTE_NS)
            assert sum(used[first : last + 1]) <= limit + flowed


@given(limits, st.lists(st.integers(1, 10**7), min_size=1, max_size=10), st.data())
def test_the_wait_is_enough_and_no_longer_than_needed(
    limit: int, asks: list[int], data: st.DataObject
) -> None:
    bucket, now_ns = Bucket(limit, 0), 0
    for asked in asks:
        asked = min(asked, limit)
        wait_ns = bucket.wait_ns(asked)
        if wait_ns:
            bucket.fill(now_ns + data.draw(st.integers(0, wait_ns - 1)))
            assert bucket.wait_ns(asked) > 0
            now_ns += wait_ns
            bucket.fill(now_ns)
        assert bucket.wait_ns(asked) == 0
        bucket.take(asked)


@given(limits, st.integers(0, 10**8), gaps_ns)
def test_what_is_given_back_never_makes_more_than_a_minutes_worth(limit: int, back: int, gap_ns: int) -> None:
    bucket = Bucket(limit, 0)
    bucket.take(-back)
    bucket.fill(gap_ns)
    assert bucket.figures() == (limit, limit, 0.0)


@given(limits, limits, st.integers(0, 10**7))
def test_resizing_keeps_what_fits(before: int, after: int, taken: int) -> None:
    bucket = Bucket(before, 0)
    bucket.take(min(taken, before))
    left = bucket.figures()[1]
    bucket.resize(after)
    assert bucket.figures()[:2] == (after, min(left, after))
    bucket.fill(MINUTE_NS)
    assert bucket.figures() == (after, after, 0.0)


def test_a_clock_that_runs_backwards_adds_nothing() -> None:
    bucket = Bucket(60, MINUTE_NS)
    bucket.take(60)
    bucket.fill(0)
    assert bucket.wait_ns(1) == 10**9
    bucket.fill(MINUTE_NS)
    assert bucket.wait_ns(1) == 10**9


def test_a_wait_is_rounded_up() -> None:
    bucket = Bucket(7, 0)
    bucket.take(7)
    assert bucket.wait_ns(1) == 8_571_428_572  # of 60 s / 7


# --- one key ---------------------------------------------------------------------------------------


def test_requests_come_back_one_by_one() -> None:
    time, alice = Time(), key(requests_per_min=3)
    admission = door(alice, time=time)
    assert [admission.take(alice, 10**6).remaining_requests for _ in range(3)] == [2, 1, 0]
    with pytest.raises(RateLimitError) as refused:
        admission.take(alice, 1)
    assert refused.value.retry_after_s == pytest.approx(20.0)
    assert refused.value.message == "The key 'alice' has 3 requests a minute: try again in 20.000 s."
    time.pass_s(20)
    assert admission.take(alice, 1).remaining_requests == 0


def test_figures_become_the_headers_of_the_reply() -> None:
    time, alice = Time(), key(requests_per_min=60, tokens_per_min=6000)
    admission = door(alice, time=time)
    admission.take(alice, 1000)
    time.pass_s(0.5)
    rates = admission.take(alice, 250)
    assert rates == admission.rates(alice) == Rates(60, 58, 1.5, 6000, 4800, 12.0)
    assert rates.headers() == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"58"),
        (b"x-ratelimit-reset-requests", b"1500ms"),
        (b"x-ratelimit-limit-tokens", b"6000"),
        (b"x-ratelimit-remaining-tokens", b"4800"),
        (b"x-ratelimit-reset-tokens", b"12000ms"),
    ]
    assert Rates(limit_tokens=5).headers()[0] == (b"x-ratelimit-limit-tokens", b"5")


def test_a_refused_request_counts_neither_way() -> None:
    alice = key(requests_per_min=2, tokens_per_min=100)
    allowance = Allowance(alice, 0)
    allowance.take(80, 0)
    with pytest.raises(RateLimitError, match="100 tokens a minute"):
        allowance.take(21, 0)
    assert allowance.rates(0)[1::3] == (1, 20)
    allowance.take(20, 0)
    with pytest.raises(RateLimitError, match="2 requests a minute"):  # which takes longer
        allowance.take(1, 0)
    assert allowance.rates(0)[1::3] == (0, 0)


def test_what_was_taken_too_much_comes_back_and_what_was_taken_too_little_goes() -> None:
    time, alice = Time(), key(tokens_per_min=600)
    admission = door(alice, time=time)
    admission.take(alice, 500)
    admission.settle_tokens(alice, 500, 200)
    assert admission.rates(alice).remaining_tokens == 400
    admission.take(alice, 400)
    admission.settle_tokens(alice, 400, 700)  # 300 below nothing
    assert admission.rates(alice).remaining_tokens == 0
    with pytest.raises(RateLimitError) as refused:
        admission.take(alice, 10)
    assert refused.value.retry_after_s == pytest.approx(31.0)
    time.pass_s(31)
    admission.take(alice, 10)


def test_what_was_taken_too_little_goes_from_what_is_there_now() -> None:
    time, alice = Time(), key(tokens_per_min=600)
    admission = door(alice, time=time)
    admission.take(alice, 600)
    time.pass_s(120)
    admission.settle_tokens(alice, 600, 700)
    assert admission.rates(alice).remaining_tokens == 500


def test_time_before_a_change_counts_at_the_old_limit() -> None:
    time, alice = Time(), key(requests_per_min=6)
    admission = door(alice, time=time)
    for _ in range(6):
        admission.take(alice, 0)
    time.pass_s(30)
    admission.replace({digest(SECRET): key(requests_per_min=600)})
    assert admission.rates(alice).remaining_requests == 3


def test_what_a_whole_minute_cannot_hold_is_refused_for_good() -> None:
    alice = key(requests_per_min=5, tokens_per_min=1000)
    admission = door(alice)
    assert admission.take(alice, 1000).remaining_tokens == 0
    with pytest.raises(InvalidRequestError) as refused:
        admission.take(alice, 1001)
    assert (refused.value.status, refused.value.param, refused.value.retry_after_s) == (
        400,
        "max_tokens",
        None,
    )
    assert "1001 tokens" in refused.value.message
    assert "lower max_tokens" in refused.value.message
    assert admission.rates(alice).remaining_requests == 4
