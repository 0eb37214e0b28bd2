import math
from contextlib import closing
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manyminds.board import Board
from manyminds.experts.guarded import Breaker, SharedBreaker


def test_what_began_before_says_nothing_of_a_probe() -> None:
    breaker = Breaker(1, 10.0)
    left, slow, done, failed, last = (breaker.begin(0.0) for _ in range(5))
    assert None not in (left, slow, done, failed, last)
    assert breaker.fail(last or 0, 0.0)
    probe = breaker.begin(10.0)
    for end in (breaker.leave, breaker.succeed):
        end(left or 0)
        assert (breaker.open_until, breaker.begin(11.0)) == (math.inf, None)
    assert not breaker.slow(11.0)
    assert not breaker.fail(failed or 0, 11.0)
    assert breaker.open_until == math.inf
    breaker.succeed(probe or 0)
    assert breaker.open_until is None


ops = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.just(0.0)),
        st.tuples(st.sampled_from(["succeed", "fail", "reject", "leave", "left_slow"]), st.floats(0, 1)),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 0.3, 1.1, 7.7, 10.1, 70.7, 300.1])),
    ),
    max_size=60,
)


@given(ops, st.integers(1, 4), st.sampled_from([0.7, 10.1]))
def test_the_breaker_keeps_its_word(plan: list[tuple[str, float]], limit: int, open_s: float) -> None:
    breaker, clock, failures = Breaker(limit, open_s), 0.0, 0
    running: list[tuple[int, bool]] = []  # what each call was given, and whether it is a probe
    for what, figure in plan:
        was_open = breaker.open_until
        if what == "wait":
            clock += figure
        elif what == "begin":
            began = breaker.begin(clock)
            assert (began is not None) is (was_open is None or was_open <= clock)
            if began is not None:
                running.append((began, was_open is not None))
        elif running:
            began, probe = running.pop(int(figure * (len(running) - 1)))
            if what == "succeed":
                breaker.succeed(began)
                failures = 0 if was_open is None or probe else failures
            elif what in ("fail", "reject"):
                failures += 1
                opened = breaker.fail(began, clock, at_once=what == "reject")
                assert not (opened and was_open is not None) or probe
            else:
                breaker.leave(began)
                if what == "left_slow":
                    failures += 1
                    breaker.slow(clock)
                    stale = not probe and was_open is not None and clock < was_open
                    assert not stale or breaker.open_until == was_open
            if probe and what in ("succeed", "leave"):
                assert breaker.open_until is None or what == "leave"
        open_until = breaker.open_until
        assert sum(probe for _, probe in running) <= 1
        assert (open_until == math.inf) is any(probe for _, probe in running)
        assert open_until is None or failures > 0
        assert open_until is None or open_until == math.inf or open_until <= clock + 300.0
    # However it went: once whatever runs has been left, one success closes it, and all is as it was.
    for began, _ in running:
        breaker.leave(began)
    began = breaker.begin(max(clock, breaker.open_until or 0.0))
    assert began is not None
    breaker.succeed(began)
    assert (breaker.open_until, breaker.failed) == (None, 0)
    for i in range(limit):
        assert breaker.open_until is None
        began = breaker.begin(clock)
        assert began is not None
        assert breaker.fail(began, clock) is (i == limit - 1)
    assert breaker.open_until == clock + open_s


# --- several processes -----------------------------------------------------------------------------


def shared(board: Board, count: int, limit: int = 1, open_s: float = 10.0) -> list[SharedBreaker]:
    """Of one expert, as so many processes have it."""
    cells = [board.cell("expert", owner=1 + n) for n in range(count)]
    return [SharedBreaker(limit, open_s, cell) for cell in cells if cell is not None]


acts = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, 2), st.none()),
    st.tuples(
        st.sampled_from(["succeed", "fail", "reject", "leave", "slow"]), st.integers(0, 2), st.floats(0, 1)
    ),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([0.1, 0.7, 10.1, 300.1])),
)


def act(breaker: Breaker, what: str, began: int, now: float) -> Any:
    match what:
        case "begin":
            return breaker.begin(now)
        case "succeed":
            return breaker.succeed(began)
        case "leave":
            return breaker.leave(began)
        case "slow":
            return breaker.slow(now)
        case _:
            return breaker.fail(began, now, 0.3, at_once=what == "reject", reason=f"{what} at {now} ✗")


@given(st.lists(acts, max_size=60), st.integers(1, 4), st.sampled_from([0.7, 10.1]))
def test_three_who_share_are_as_one(
    plan: list[tuple[str, int, float | None]], limit: int, open_s: float
) -> None:
    with closing(Board.make(1)) as board:
        alone, together, clock = Breaker(limit, open_s), shared(board, 3, limit, open_s), 0.0
        running: list[int] = []
        for what, who, figure in plan:
            if what == "wait":
                clock += figure or 0.0
                continue
            began = running.pop(int((figure or 0.0) * (len(running) - 1))) if running and figure else 0
            found = act(alone, what, began, clock)
            assert act(together[who], what, began, clock) == found
            if what == "begin" and found is not None:
                running.append(found)
            for one in together:
                assert one.open_until == alone.open_until
                assert alone.open_until is None or (one.failed, one.reason) == (alone.failed, alone.reason)


def test_a_probe_whose_process_died_is_made_by_another() -> None:
    with closing(Board.make(1)) as board:
        one, other = shared(board, 2)
        assert one.fail(one.begin(0.0) or 0, 0.0, reason="out of order")
        assert one.begin(10.0) is not None
        assert (other.begin(11.0), other.open_until) == (None, math.inf)
        board.bury(0, 2)  # another one's death says nothing of it
        assert other.begin(11.0) is None
        board.bury(0, 1)
        assert other.open_until == 10.0
        probe = other.begin(11.0)
        assert probe is not None
        other.succeed(probe)
        assert one.open_until is None
        board.bury(0, 2)
        assert one.begin(12.0) is not None


def test_a_long_reason_is_cut_between_characters() -> None:
    with closing(Board.make(1)) as board:
        one, other = shared(board, 2)
        one.fail(0, 0.0, reason="é" * 300)
        assert other.open_until == 10.0
        assert other.reason == "é" * 80
