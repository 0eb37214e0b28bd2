import math

from hypothesis import given
from hypothesis import strategies as st

from manyminds.experts.guarded import Breaker


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
