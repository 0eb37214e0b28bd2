import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.errors import NoExpertError
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.router.grades import standing
from manyminds.router.predictor import Evidence, Load, absorb, estimate_load, log_odds, predict
from manyminds.types import Card, Limits, Message, Outcome, Query, Sampling, Status, Task
from tests.changed import replace

TOPICS = {"law": [1.0, 0.0, 0.0], "code": [0.0, 1.0, 0.0], "both": [0.6, 0.8, 0.0], "sea": [0.0, 0.0, 1.0]}
LOAD = Load(prompt_tokens=1000, completion_tokens=100, context_tokens=1100)
AUTO = Limits(policy="auto")


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array([TOPICS[text] for text in texts], np.float32)


def query(topic: str, model: str = "auto") -> Query:
    return Query((Message("user", topic),), model, task=Task("number"), vector=embed([topic])[0])


def outcome(status: Status = "ok", correct: float | None = None, **timing: float) -> Outcome:
    made = Outcome("r", "a", status, None, 1.0, 0, correct)
    return replace(made, **timing)


def after(*outcomes: Outcome) -> Evidence:
    evidence = Evidence()
    for one in outcomes:
        evidence = absorb(evidence, one)
    return evidence


CARD = Card("a", "scripted", accuracy=0.7, ttft_s=0.3, tokens_per_s=20.0)


@given(st.lists(st.none() | st.sampled_from((0.1, 0.3, 0.7)) | st.floats(0.0, 9.0), max_size=260))
def test_times_stay_in_order_while_old_ones_are_forgotten(times: list[float | None]) -> None:
    evidence = after(*(replace(outcome(), ttft_s=ttft_s) for ttft_s in times))
    assert evidence.recent_s == tuple(t for t in times if t is not None)[-100:]
    assert evidence.ordered_s == tuple(sorted(evidence.recent_s))


class TestPredict:
    def test_without_evidence_the_card_is_believed(self) -> None:
        (found,) = predict([CARD], {}, {}, LOAD)
        assert found.probability == pytest.approx(0.7)
        assert found.ttft_s == pytest.approx(0.3)
        assert found.latency_s == pytest.approx(0.3 + 100 / 20.0)

    def test_cost_adds_tokens_and_processor_time(self) -> None:
        card = replace(CARD, price_in_usd_per_m=3.0, price_out_usd_per_m=15.0, price_cpu_usd_per_hour=0.36)
        (found,) = predict([card], {}, {}, LOAD)
        assert found.cost_usd == pytest.approx(1000 * 3e-6 + 100 * 15e-6 + 5.3 * 0.0001)

    def test_nearer_skills_are_likelier_and_only_relatively(self) -> None:
        cards = [replace(CARD, name=name) for name in "abc"]
        near, far, unknown = predict(cards, {}, {"a": 0.5, "b": 0.1}, LOAD)
        assert near.probability == pytest.approx(1 / (1 + math.exp(-(log_odds(0.7) + 2.0 * 0.2))))
        assert far.probability < unknown.probability == pytest.approx(0.7)
        alone = predict(cards[:1], {}, {"a": -0.9}, LOAD)
        assert alone[0].probability == pytest.approx(0.7)

    def test_what_is_expected_in_a_section_takes_the_place_of_all_else(self) -> None:
        card = replace(CARD, accuracy_in={"law": 0.2, "": 0.9})
        wrong = {"a": standing([outcome(correct=0.0)] * 8)}
        for section, expected in (("law", 0.2), ("maths", 0.35), ("", 0.35)):
            (found,) = predict([card], {}, {}, LOAD, wrong, section)
            assert found.probability == pytest.approx(expected)

    def test_whoever_is_good_at_it_is_asked(self) -> None:
        cards = [replace(CARD, name="a", accuracy_in={"maths": 0.9, "law": 0.1})]
        cards += [replace(CARD, name="b", accuracy_in={"maths": 0.1, "law": 0.9})]
        router = SkillRouter(Index(3))
        for topic, best in (("maths", "a"), ("law", "b"), ("", "a")):
            limits = Limits(policy="auto", panel=1, topic=topic)
            asked = replace(query(next(iter(TOPICS))), limits=limits)
            assert [call.expert for call in router.route(asked, cards, limits).calls] == [best]

    def test_grades_outweigh_the_claim_in_the_end(self) -> None:
        liar = replace(CARD, accuracy=0.99)
        wrong = standing([outcome(correct=0.0)] * 8)
        assert predict([liar], {}, {}, LOAD, {"a": wrong})[0].probability == pytest.approx(0.495)
        wrong = standing([outcome(correct=0.0)] * 400)
        assert predict([liar], {}, {}, LOAD, {"a": wrong})[0].probability == pytest.approx(0.02)

    @given(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]), max_size=30))
    def test_a_better_grade_never_lowers_the_probability(self, grades: list[float]) -> None:
        graded = [outcome(correct=grade) for grade in grades]
        worse, better = (
            predict([CARD], {}, {}, LOAD, {"a": standing([*graded, outcome(correct=last)])})[0].probability
            for last in (0.3, 0.7)
        )
        assert 0.0 < worse <= better < 1.0

    def test_measured_speed_replaces_the_claim(self) -> None:
        slow = after(*[outcome(ttft_s=2.0, seconds=12.0, completion_tokens=51)] * 300)
        (found,) = predict([CARD], {"a": slow}, {}, LOAD)
        assert found.ttft_s == pytest.approx(2.0, rel=0.1)
        assert found.latency_s == pytest.approx(2.0 + 100 / 5.0, rel=0.1)

    @pytest.mark.parametrize("status", ["failed", "cut", "late", "cancelled"])
    def test_nobody_is_shunned_for_a_failure(self, status: Status) -> None:
        assert predict([CARD], {"a": after(*[outcome(status)] * 9)}, {}, LOAD) == predict(
            [CARD], {}, {}, LOAD
        )

    def test_a_cancelled_call_was_timed_to_its_first_token(self) -> None:
        assert after(outcome("cancelled")) == Evidence()
        assert after(outcome("cancelled", ttft_s=0.7)).waits == 1.0

    waits = st.lists(st.floats(0.0, 60.0), max_size=250)

    @given(waits)
    @example([float(i % 101) for i in range(150)])
    def test_what_is_slow_is_the_95th_percentile_of_the_last_calls(self, waits: list[float]) -> None:
        found = after(*(outcome(ttft_s=wait_s) for wait_s in waits)).slow_s
        if len(waits) < 20:
            assert found is None
        else:
            assert found == pytest.approx(float(np.quantile(waits[-100:], 0.95)), rel=1e-9, abs=1e-12)

    @given(st.integers(0, 2**32 - 1), st.sampled_from(["exponential", "gamma", "lognormal", "uniform"]))
    def test_what_is_slow_follows_a_stream_and_then_a_change(self, seed: int, law: str) -> None:
        draw = np.random.default_rng(seed)
        shape = (2.0,) if law == "gamma" else ()
        for scale in (1.0, 10.0, 0.1):
            before = after(
                *(outcome(ttft_s=wait_s) for wait_s in scale * getattr(draw, law)(*shape, size=100))
            )
            assert before.slow_s is not None
            truth = np.quantile(scale * getattr(draw, law)(*shape, size=20_000), [0.75, 0.999])
            assert truth[0] < before.slow_s < truth[1] * 1.5

    @given(
        st.lists(st.floats(0.0, 60.0), min_size=18, max_size=22),
        st.floats(0.0, 90.0),
        st.sampled_from(["failed", "cut", "late", "cancelled"]),
    )
    def test_a_call_left_when_it_was_slow_counts_as_slow(
        self, waits: list[float], seconds: float, status: Status
    ) -> None:
        before = after(*(outcome(ttft_s=wait_s) for wait_s in waits))
        found = absorb(before, outcome(status, seconds=seconds))
        if status in ("late", "cancelled") and before.slow_s is not None and seconds >= before.slow_s:
            assert found.recent_s == (*before.recent_s[-99:], 1.5 * seconds)
            assert found.waits > before.waits * 0.98
        else:
            assert found == before

    @pytest.mark.parametrize(("status", "counts"), [("late", 1), ("cancelled", 1), ("failed", 0), ("cut", 0)])
    def test_who_is_left_without_a_token_after_long_is_slow(self, status: Status, counts: int) -> None:
        before = after(*[outcome(ttft_s=0.7)] * 20)
        assert absorb(before, outcome(status, seconds=0.3)) == before
        assert len(absorb(before, outcome(status, seconds=0.9)).recent_s) == 20 + counts

    @pytest.mark.parametrize("later_s", [0.0, 0.1, 0.5])
    def test_hedges_do_not_make_less_and_less_seem_slow(self, later_s: float) -> None:
        """Each call that is slow is left a moment later, as one that lost to its hedge is."""
        draw, evidence, hedged = np.random.default_rng(7), Evidence(), 0
        for wait_s in draw.lognormal(size=4000).tolist():
            slow_s = evidence.slow_s
            if slow_s is not None and wait_s > slow_s + later_s:
                hedged += 1
                evidence = absorb(evidence, outcome("cancelled", seconds=slow_s + later_s))
            else:
                evidence = absorb(evidence, outcome(ttft_s=wait_s, seconds=wait_s))
        assert 0.04 < hedged / 4000 < 0.06

    def test_predictions_say_when_to_hedge(self) -> None:
        timed = after(*[outcome(ttft_s=0.7)] * 19)
        assert predict([CARD], {"a": timed}, {}, LOAD)[0].hedge_s is None
        timed = absorb(timed, outcome(ttft_s=0.7))
        assert predict([CARD], {"a": timed}, {}, LOAD)[0].hedge_s == pytest.approx(0.7)

    def test_a_speed_of_nothing_is_slow_and_no_error(self) -> None:
        (found,) = predict([replace(CARD, tokens_per_s=0.0)], {}, {}, LOAD)
        assert 100.0 < found.latency_s < math.inf

    @pytest.mark.parametrize(("p", "expected"), [(1.0, 0.98), (0.0, 0.02), (0.5, 0.5)])
    def test_log_odds_are_clipped(self, p: float, expected: float) -> None:
        assert log_odds(p) == pytest.approx(math.log(expected / (1 - expected)))
        assert log_odds(p, 10) == pytest.approx(math.log(9 * expected / (1 - expected)))


class TestLoad:
    def test_counts_every_message_and_the_answer(self) -> None:
        messages = (Message("system", "x" * 40), Message("user", "東京"), Message("user", "\ud800"))
        assert estimate_load(Query(messages)) == Load(13 + 12, 256, 25)

    @pytest.mark.parametrize(("asked", "expected", "context"), [(10, 10, 10), (5000, 256, 256), (0, 0, 0)])
    def test_the_callers_limit_bounds_the_answer(self, asked: int, expected: int, context: int) -> None:
        found = estimate_load(Query((), sampling=Sampling(max_tokens=asked, n=3)))
        assert found == Load(0, 3 * expected, context)


LAW = Card("law", "scripted", "alice", skills=("law",))
CODE = Card("code", "scripted", "bob", description="code")
PLAIN = Card("plain", "scripted")


def router(*cards: Card) -> SkillRouter:
    made = SkillRouter(Index(3), embed)
    for card in cards:
        made.admit(card)
    return made


class TestSkillRouter:
    @pytest.mark.parametrize(("topic", "best"), [("law", "law"), ("code", "code"), ("both", "code")])
    def test_asks_whose_skills_are_nearest(self, topic: str, best: str) -> None:
        assert router(LAW, CODE, PLAIN).route(query(topic), [LAW, CODE, PLAIN], AUTO).best_single == best

    def test_an_experts_name_asks_it_alone(self) -> None:
        found = router(LAW, CODE).route(query("law", "code"), [LAW, CODE], Limits(policy="max"))
        assert ([call.expert for call in found.calls], found.strategy, found.policy) == (
            ["code"],
            "pass",
            "pass",
        )

    def test_pass_through_keeps_the_hard_limits(self) -> None:
        with pytest.raises(NoExpertError, match="code is excluded") as caught:
            router(LAW, CODE).route(query("law", "code"), [LAW, CODE], Limits(exclude=("bob",)))
        assert caught.value.param == "manyminds.exclude"

    def test_fills_the_index_it_was_given(self) -> None:
        index = Index(3)
        made = SkillRouter(index, embed)
        made.admit(replace(LAW, skills=("law", "sea"), description="both"))
        made.admit(PLAIN)
        assert ("law" in index, "plain" in index) == (True, False)
        assert index.search(embed(["sea"])[0], 1).compared == 3
        made.forget("alice")
        assert len(index) == 0

    def test_admitting_again_replaces_everything(self) -> None:
        made = router(LAW, CODE)
        made.observe(Outcome("r", "law", "ok", 0.1, 0.2, 9, 0.0))
        moved = replace(LAW, skills=("code",), source="carol")
        made.admit(moved)
        assert made.route(query("both"), [moved, CODE], AUTO) == router(CODE, moved).route(
            query("both"), [CODE, moved], AUTO
        )
        made.forget("alice")
        made.forget("carol")
        assert made.route(query("law"), [CODE], AUTO) == router(CODE).route(query("law"), [CODE], AUTO)

    def test_outcomes_change_whom_it_prefers(self) -> None:
        made = router(LAW, CODE)
        for _ in range(20):
            made.observe(Outcome("r", "law", "ok", 0.1, 0.2, 9, 0.0))
            made.observe(Outcome("r", "code", "ok", 0.1, 0.2, 9, 1.0))
        assert made.route(query("law"), [LAW, CODE], AUTO).best_single == "code"

    def test_what_is_measured_says_when_to_hedge_whatever_the_order(self) -> None:
        made, cards = router(LAW, CODE, PLAIN), [LAW, CODE, PLAIN]
        for i in range(20):
            made.observe(Outcome("r", "law", "ok", 0.1 * i, 9.0, 9))
            made.observe(Outcome("r", "plain", "ok", 0.3, 9.0, 9))
        found = made.route(query("law"), cards, replace(AUTO, panel=1))
        hedges = {call.expert: call.hedge_s for call in found.everyone}
        assert hedges == {"law": pytest.approx(1.805), "code": None, "plain": pytest.approx(0.3)}
        for order in itertools.permutations(cards):
            assert made.route(query("law"), order, replace(AUTO, panel=1)) == found
        assert made.route(query("law", "law"), cards, Limits()).calls[0].hedge_s is None

    def test_a_call_that_tells_nothing_is_ignored(self) -> None:
        made = router(LAW, CODE)
        for status in ("ok", "failed", "cut", "late", "cancelled"):
            made.observe(Outcome("r", "law", status, None, 0.9, 9))
        cards = [LAW, CODE]
        assert made.route(query("law"), cards, AUTO) == router(LAW, CODE).route(query("law"), cards, AUTO)

    def test_without_a_vector_the_cards_decide(self) -> None:
        plain = replace(query("law"), vector=None)
        better = replace(CODE, accuracy=0.6)
        assert router(LAW, better).route(plain, [LAW, better], AUTO).best_single == "code"
