from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.admission import Admission, digest
from manyminds.admission.rates import Allowance, Bucket, Rates, SharedAllowance
from manyminds.board import Board
from manyminds.errors import InvalidRequestError, RateLimitError
from manyminds.types import Key
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


@dataclass(frozen=True)
class Counting:
    """How a key's requests are counted: by one process for itself, or on a board."""

    board: Board | None

    def door(self, alice: Key, time: Time) -> Admission:
        return door(alice, time=time, board=self.board)

    def allowance(self, alice: Key) -> Allowance:
        return Allowance(alice, 0) if self.board is None else SharedAllowance(alice, 0, self.board)


class Full(Board):
    def cell(self, name: str, owner: int = 0, *, make: bool = True) -> None:
        return None


@pytest.fixture(params=["alone", "shared", "no room"])
def counting(request: pytest.FixtureRequest) -> Iterator[Counting]:
    kind = Full if request.param == "no room" else Board
    with closing(kind.make(1)) as board:
        yield Counting(None if request.param == "alone" else board)


def test_requests_come_back_one_by_one(counting: Counting) -> None:
    time, alice = Time(), key(requests_per_min=3)
    admission = counting.door(alice, time)
    assert [admission.take(alice, 10**6).remaining_requests for _ in range(3)] == [2, 1, 0]
    with pytest.raises(RateLimitError) as refused:
        admission.take(alice, 1)
    assert refused.value.retry_after_s == pytest.approx(20.0)
    assert refused.value.message == "The key 'alice' has 3 requests a minute: try again in 20.000 s."
    time.pass_s(20)
    assert admission.take(alice, 1).remaining_requests == 0


def test_figures_become_the_headers_of_the_reply(counting: Counting) -> None:
    time, alice = Time(), key(requests_per_min=60, tokens_per_min=6000)
    admission = counting.door(alice, time)
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


def test_a_refused_request_counts_neither_way(counting: Counting) -> None:
    alice = key(requests_per_min=2, tokens_per_min=100)
    allowance = counting.allowance(alice)
    allowance.take(80, 0)
    with pytest.raises(RateLimitError, match="100 tokens a minute"):
        allowance.take(21, 0)
    assert allowance.rates(0)[1::3] == (1, 20)
    allowance.take(20, 0)
    with pytest.raises(RateLimitError, match="2 requests a minute"):  # which takes longer
        allowance.take(1, 0)
    assert allowance.rates(0)[1::3] == (0, 0)


def test_what_was_taken_too_much_comes_back_and_what_was_taken_too_little_goes(counting: Counting) -> None:
    time, alice = Time(), key(tokens_per_min=600)
    admission = counting.door(alice, time)
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


def test_what_was_taken_too_little_goes_from_what_is_there_now(counting: Counting) -> None:
    time, alice = Time(), key(tokens_per_min=600)
    admission = counting.door(alice, time)
    admission.take(alice, 600)
    time.pass_s(120)
    admission.settle_tokens(alice, 600, 700)
    assert admission.rates(alice).remaining_tokens == 500


def test_time_before_a_change_counts_at_the_old_limit(counting: Counting) -> None:
    time, alice = Time(), key(requests_per_min=6)
    admission = counting.door(alice, time)
    for _ in range(6):
        admission.take(alice, 0)
    time.pass_s(30)
    admission.replace({digest(SECRET): key(requests_per_min=600)})
    assert admission.rates(alice).remaining_requests == 3


def test_what_a_whole_minute_cannot_hold_is_refused_for_good(counting: Counting) -> None:
    alice = key(requests_per_min=5, tokens_per_min=1000)
    admission = counting.door(alice, Time())
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


# --- several processes -----------------------------------------------------------------------------

some = st.one_of(st.none(), st.integers(0, 7), st.just(10**6))
acts = st.one_of(
    st.tuples(st.sampled_from(["take", "rates"]), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 20)),
    st.tuples(st.just("replace"), some, some),
)
turns = st.lists(
    st.tuples(st.integers(0, 2), acts, st.sampled_from([0, 1, 333, 7 * 10**9, MINUTE_NS])), max_size=40
)


def outcome(allowance: Allowance, act: tuple[str, Any, Any], now_ns: int) -> Any:
    what, one, other = act
    try:
        if what == "take":
            return allowance.take(one, now_ns)
        if what == "settle":
            return allowance.settle(one, other, now_ns)
        if what == "rates":
            return allowance.rates(now_ns)
        return allowance.replace(key(requests_per_min=one, tokens_per_min=other), now_ns)
    except (InvalidRequestError, RateLimitError) as error:
        return type(error), error.message, error.retry_after_s


@given(some, some, turns)
def test_three_who_share_are_as_one(
    requests: int | None, tokens: int | None, turns: list[tuple[int, tuple[str, Any, Any], int]]
) -> None:
    alice, now_ns = key(requests_per_min=requests, tokens_per_min=tokens), 0
    with closing(Board.make(1)) as board:
        alone = Allowance(alice, 0)
        together = [SharedAllowance(alice, 0, board) for _ in range(3)]
        for who, act, gap_ns in turns:
            now_ns += gap_ns
            expected = outcome(alone, act, now_ns)
            assert outcome(together[who], act, now_ns) == expected
            if act[0] == "replace":  # the others learn of it from the ledger, too
                for other in together:
                    outcome(other, act, now_ns)


def test_what_one_takes_the_other_has_not() -> None:
    alice, time = key(requests_per_min=3, tokens_per_min=100), Time()
    with closing(Board.make(1)) as board:
        one, other = (door(alice, time=time, board=board) for _ in range(2))
        assert one.take(alice, 60).remaining_tokens == 40
        assert other.rates(alice)[1::3] == (2, 40)
        with pytest.raises(RateLimitError):
            other.take(alice, 50)
        one.settle_tokens(alice, 60, 10)
        assert other.take(alice, 50)[1::3] == (1, 40)


def test_who_learns_last_of_a_change_does_not_undo_it() -> None:
    alice, more, time = key(requests_per_min=2), key(requests_per_min=200), Time()
    with closing(Board.make(1)) as board:
        one, other = (door(alice, time=time, board=board) for _ in range(2))
        other.take(alice, 1)
        one.take(alice, 1)
        one.replace({digest(SECRET): more})
        time.pass_s(60)
        assert other.take(alice, 1)[:2] == (200, 199)
        other.replace({digest(SECRET): more})
        assert one.take(more, 1)[:2] == (200, 198)


# --- how many at once ------------------------------------------------------------------------------


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40))
def test_all_together_let_in_no_more_than_most_at_once(most: int, turns: list[tuple[int, bool]]) -> None:
    with closing(Board.make(3)) as board:
        doors = [door({}, open=True, most_at_once=most, board=board, column=n) for n in range(3)]
        inside = [0, 0, 0]
        for who, comes in turns:
            room = doors[who].enter()
            if comes and sum(inside) == most:
                with pytest.raises(RateLimitError, match=f"answering {most} requests"):
                    room.__enter__()
            elif comes:
                room.__enter__()
                inside[who] += 1
            elif inside[who]:
                room.__exit__(None, None, None)
                inside[who] -= 1
            assert [door.inside for door in doors] == inside
