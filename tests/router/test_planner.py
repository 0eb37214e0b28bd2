"""Plans that were learnt, as the router makes routes of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.artefact import Artefact, Base
from manyminds.errors import NoExpertError
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.types import Card, Outcome, Prior, Query, Route, Sampling
from tests.changed import replace
from tests.learn.worlds import ask, hand_made

ACCURACY = {"a": 0.61, "b": 0.83, "c": 0.72, "d": 0.55}
COST = {"a": 0.01, "b": 0.2, "c": 0.03, "d": 0.004}
SINGLES = {name: i for i, name in enumerate(sorted(ACCURACY))}
CASCADE, PANEL, PAIR = 4, 5, 6
PLANS = (([["a", "c"], ["b"]], 0.93), ([["a", "b", "c", "d"]], 1.0), ([["a", "d"]], 1.0))
WORTH = {CASCADE: 0.86, PANEL: 0.88, PAIR: 0.58}
CHOICE = {"auto": CASCADE, "max": PANEL, "cheap": PAIR, "fast": SINGLES["d"]}
POLICIES = tuple(CHOICE)


def card(name: str, **fields: Any) -> Card:
    given: dict[str, Any] = {"source": f"of {name}", "accuracy": 0.5}
    return Card(name, "scripted", **given | fields)


def made(**fields: Any) -> Artefact:
    given: dict[str, Any] = {"cost_usd": COST, "worth": WORTH}
    return hand_made(ACCURACY, PLANS, CHOICE, **given | fields)


def route(
    policy: str,
    names: str = "abcd",
    artefact: Artefact | None = None,
    query: Query | None = None,
    cards: Sequence[Card] = (),
    **limits: Any,
) -> Route:
    query = query or ask()
    demanded = replace(query.limits, policy=policy, **limits)
    router = SkillRouter(Index(8), None, artefact or made())
    candidates = [*(card(name) for name in names), *cards]
    return router.route(replace(query, limits=demanded), candidates, demanded)


def without(policy: str, names: str = "abcd", query: Query | None = None, **limits: Any) -> Route:
    """By the rules alone."""
    query = query or ask()
    demanded = replace(query.limits, policy=policy, **limits)
    return SkillRouter(Index(8)).route(replace(query, limits=demanded), [card(n) for n in names], demanded)


def staged(found: Route) -> list[set[str]]:
    stages = sorted({call.stage for call in found.calls})
    return [{call.expert for call in found.calls if call.stage == stage} for stage in stages]


def asked(found: Route) -> set[str]:
    return {call.expert for call in found.calls}


class TestPlan:
    @pytest.mark.parametrize(
        ("policy", "stages", "threshold"),
        [
            ("auto", [{"a", "c"}, {"b"}], 0.93),
            ("max", [{"a", "b", "c", "d"}], 1.0),
            ("cheap", [{"a", "d"}], 1.0),
            ("fast", [{"d"}], 1.0),
        ],
    )
    def test_a_policy_takes_its_plan(self, policy: str, stages: list[set[str]], threshold: float) -> None:
        found = route(policy)
        assert (staged(found), found.threshold) == (stages, threshold)
        assert (found.policy, found.strategy, found.best_single) == (policy, "vote", "b")

    def test_what_is_expected_is_what_was_learnt(self) -> None:
        found = route("auto")
        assert found.expected_accuracy == pytest.approx(WORTH[CASCADE])
        assert found.expected_cost_usd == pytest.approx(COST["a"] + COST["b"] + COST["c"])
        assert found.expected_latency_s > 0.0
        assert found.best_single_cost_usd == pytest.approx(COST["b"])
        assert {c.expert: c.probability for c in found.calls} == pytest.approx(
            {name: ACCURACY[name] for name in "abc"}
        )
        assert math.fsum(call.share for call in found.calls) == pytest.approx(1.0)
        assert {call.source for call in found.calls} == {"of a", "of b", "of c"}

    def test_the_others_stand_by(self) -> None:
        assert [call.expert for call in route("cheap").reserve] == ["b", "c"]
        assert route("max").reserve == ()

    def test_costs_that_were_not_recorded_are_the_cards(self) -> None:
        dear = [card("a", price_out_usd_per_m=1000.0), card("d", price_out_usd_per_m=1000.0)]
        artefact = made(cost_usd=None)
        with pytest.raises(NoExpertError, match="would cost"):
            route("cheap", "", artefact, cards=dear, budget_usd=0.001)

    def test_topics_change_who_is_trusted(self) -> None:
        topics = {"law": {"a": 2.0, "b": -2.0}, "tax": {"a": -2.0, "b": 2.0}}
        artefact = made(topics=topics, prices={"max": 10.0})
        law, tax = (route("max", artefact=artefact, query=ask(topic)) for topic in ("law", "tax"))
        assert law.best_single == "a"
        assert tax.best_single == "b"
        assert law.call_of("a").probability > 0.7 > tax.call_of("a").probability  # type: ignore[union-attr]

    def test_a_section_is_what_the_caller_says_else_a_guess(self) -> None:
        topics = {"law": {"a": 2.0}, "tax": {"b": 2.0}}
        for topic in ("law", "cooking", ""):
            assert route("auto", artefact=made(topics=topics), query=ask(topic)).section == topic
        assert without("auto", query=ask("law")).section == "law"
        gate = np.array([[5.0, 0.0], [0.0, 5.0], [0.0, 0.1]])
        base = Base(("law", "tax"), np.full(2, 0.5), np.zeros(2), gate, np.zeros((2, 0)))
        for vector, guessed in (([1.0, 0.0], "law"), ([0.0, 1.0], "tax"), ([0.0, 0.0], "tax")):
            assert base.guess(np.array(vector)) == guessed
        assert [base.guess(None), base.guess(np.zeros(3))] == ["", ""]

    @pytest.mark.parametrize("topic", ["", "cooking"])
    def test_an_unknown_topic_is_as_none(self, topic: str) -> None:
        topics = {"law": {"a": 2.0}, "tax": {"b": 2.0}}
        found = route("auto", artefact=made(topics=topics), query=ask(topic))
        assert found.expected_accuracy == pytest.approx(WORTH[CASCADE])

    def test_a_price_chooses_for_each_question(self) -> None:
        """`a` is better by far on one topic, and then asked first; elsewhere `b` is as good by itself."""
        law, tax = (self.choosing([((["a"], ["b"]), 0.9)], topic) for topic in ("law", "tax"))
        assert (staged(law), staged(tax)) == ([{"a"}, {"b"}], [{"b"}])

    def test_who_is_not_the_best_is_not_relied_on_alone(self) -> None:
        """Whatever its topic promises: questions in other words may be taken for that topic."""
        law, tax = (self.choosing([], topic) for topic in ("law", "tax"))
        assert (staged(law), staged(tax)) == ([{"b"}], [{"b"}])

    def test_where_no_vote_can_be_weighed_the_likeliest_is_asked_alone(self) -> None:
        law, tax = (self.choosing([], topic, ballot=None) for topic in ("law", "tax"))
        assert (staged(law), staged(tax)) == ([{"a"}], [{"b"}])

    @pytest.mark.parametrize(
        ("policy", "topic", "stages"),
        [
            ("max", "law", [set("abcd")]),
            ("max", "tax", [set("acd")]),
            ("max", "", [set("abcd")]),  # as many as not are about law
            ("auto", "law", [{"a", "c"}, {"b"}]),
            ("auto", "tax", [{"a", "c"}]),
        ],
    )
    def test_who_was_not_asked_about_a_topic_is_not(self, policy: str, topic: str, stages: Any) -> None:
        found = route(policy, artefact=self.asked_about({"b": (1.0, 0.0)}), query=ask(topic))
        assert staged(found) == stages
        assert math.fsum(call.share for call in found.calls) == pytest.approx(1.0)

    def test_where_nobody_was_the_whole_plan_is_asked(self) -> None:
        nobody = self.asked_about(dict.fromkeys("abcd", (1.0, 0.0)))
        assert staged(route("auto", artefact=nobody, query=ask("tax"))) == [{"a", "c"}, {"b"}]

    def asked_about(self, shares: Mapping[str, Sequence[float]]) -> Artefact:
        """Those who were asked these shares of the questions on law and on tax, not of all."""
        (part,) = made(topics={"law": {}, "tax": {}}).parts
        asked = part.skills.asked.copy()
        for name, of in shares.items():
            asked[part.skills.experts.index(name)] = of
        return Artefact((replace(part, skills=replace(part.skills, asked=asked)),))

    def choosing(self, plans: Any, topic: str, **fields: Any) -> Route:
        """By price, with `b` as the best single expert."""
        topics = {"law": {"a": 3.0, "b": -3.0}, "tax": {"a": -3.0, "b": 1.0}}
        prices = {"auto": 1.0}
        artefact = hand_made(
            {"a": 0.7, "b": 0.71}, plans, {"auto": 0}, cost_usd=COST, topics=topics, prices=prices
        )
        (part,) = artefact.parts
        return route("auto", "ab", Artefact((replace(part, **fields),)), ask(topic))


class TestWhoIsThere:
    def test_strangers_are_left_to_the_reserve(self) -> None:
        found = route("max", cards=[card("zoe", accuracy=0.99)])
        assert asked(found) == set("abcd")
        assert [call.expert for call in found.reserve] == ["zoe"]

    def test_nobody_that_was_learnt_of_is_left_to_the_rules(self) -> None:
        for policy in POLICIES:
            assert route(policy, "xyz") == without(policy, "xyz")

    @pytest.mark.parametrize("left", ["abc", "bcd", "ab", "cd"])
    def test_a_panel_may_lack_up_to_half(self, left: str) -> None:
        assert staged(route("max", left)) == [set(left)]

    def test_what_is_left_of_a_panel_costs_what_they_do(self) -> None:
        found = route("max", "abc")
        assert found.expected_cost_usd == pytest.approx(COST["a"] + COST["b"] + COST["c"])

    def test_a_panel_that_lacks_more_gives_way_to_the_best_plan_left(self) -> None:
        assert staged(route("max", "b")) == [{"b"}]
        assert staged(route("max", "d", cards=[card("zoe")])) == [{"d"}]

    def test_a_cascade_that_lacks_one_gives_way_to_the_policys_rule(self) -> None:
        """`auto`: the most accurate that costs no more than the best; `cheap`: the cheapest as accurate."""
        assert staged(route("auto", "abd")) == [{"b"}]
        assert staged(route("auto", "acd")) == [{"c"}]
        artefact = made(worth={**WORTH, CASCADE: 0.86, PAIR: 0.85})
        plans = hand_made(ACCURACY, PLANS, CHOICE | {"cheap": PANEL}, cost_usd=COST)
        assert staged(route("cheap", "abd", artefact)) == [{"a", "d"}]
        assert staged(route("cheap", "b", plans)) == [{"b"}]

    def test_fast_without_its_expert_takes_another(self) -> None:
        assert staged(route("fast", "abc")) == [{"b"}]

    @given(st.sets(st.sampled_from("abcdxyz"), min_size=1), st.sampled_from(POLICIES), st.booleans())
    def test_whoever_is_there_somebody_is_asked(self, names: set[str], policy: str, priced: bool) -> None:
        artefact = made(prices={"auto": 0.3, "cheap": 0.02} if priced else {})
        found = route(policy, "".join(sorted(names)), artefact)
        assert asked(found) <= names
        assert found.calls
        assert math.fsum(call.share for call in found.calls) == pytest.approx(1.0)
        assert 0.0 < found.expected_accuracy <= 1.0
        assert found == route(policy, "".join(sorted(names, reverse=True)), artefact)


class TestLimits:
    @given(
        policy=st.sampled_from(POLICIES),
        panel=st.none() | st.integers(1, 5),
        exclude=st.sets(st.sampled_from("abcdz"), max_size=3),
        include=st.sets(st.sampled_from("abcdz"), max_size=4),
        weights=st.dictionaries(st.sampled_from("abcdz"), st.sampled_from([0.0, 0.1, 0.7, 3.3]), max_size=3),
        budget=st.none() | st.floats(0.0, 0.4),
        prices=st.sampled_from([{}, {"auto": 0.7}, {"cheap": 0.1, "max": 30.0}]),
    )
    def test_limits_are_hard(
        self,
        policy: str,
        panel: int | None,
        exclude: set[str],
        include: set[str],
        weights: Mapping[str, float],
        budget: float | None,
        prices: Mapping[str, float],
    ) -> None:
        limits: dict[str, Any] = {"panel": panel, "weights": weights, "budget_usd": budget}
        limits |= {"exclude": tuple(exclude), "include": tuple(include)}
        try:
            found = route(policy, "abcdz", made(prices=prices), **limits)
        except NoExpertError:
            return
        everyone = {call.expert for call in found.everyone}
        assert not everyone & (exclude | {name for name, weight in weights.items() if weight == 0.0})
        assert everyone <= include or not include
        assert len(found.calls) <= (panel or 5)
        if budget is not None:
            assert math.fsum(COST.get(call.expert, 0.0) for call in found.calls) <= budget
            assert found.expected_cost_usd <= budget
        assert math.fsum(call.share for call in found.calls) == pytest.approx(1.0)
        assert all(call.weight == weights.get(call.expert, 1.0) for call in found.calls)

    def test_who_is_excluded_is_as_if_not_there(self) -> None:
        for policy in POLICIES:
            assert route(policy, "abcd", exclude=("b",)) == route(policy, "acd")
            assert route(policy, "abcd", include=("of a", "d")) == route(policy, "ad")

    def test_one_at_most_is_the_rules_best_single(self) -> None:
        assert staged(route("max", panel=1)) == [{"b"}]
        assert staged(route("auto", panel=1)) == [{"b"}]

    def test_a_plan_beyond_the_budget_is_not_taken(self) -> None:
        found = route("max", budget_usd=0.05)
        assert asked(found) <= {"a", "c", "d"}
        assert math.fsum(COST[call.expert] for call in found.calls) <= 0.05

    @pytest.mark.parametrize("strategy", ["select", "race", "fuse", "pass"])
    def test_another_strategy_is_respected(self, strategy: str) -> None:
        found = route("auto", strategy=strategy)
        assert found.strategy == strategy
        assert len(found.calls) == len(without("auto", strategy=strategy).calls)

    def test_to_vote_is_what_a_plan_does(self) -> None:
        assert route("auto", strategy="vote") == route("auto")

    def test_a_quorum_is_the_callers(self) -> None:
        assert route("max", quorum=2).quorum == 2
        assert route("max").quorum is None


class TestNotForPlans:
    @pytest.mark.parametrize("name", ["a", "z"])
    def test_an_expert_by_name_is_passed_through(self, name: str) -> None:
        found = route("max", "abcdz", query=replace(ask(), model=name))
        assert (found.policy, found.strategy, staged(found), found.reserve) == ("pass", "pass", [{name}], ())

    @pytest.mark.parametrize(
        "query",
        [replace(ask(), demands=frozenset({"tools"})), replace(ask(), sampling=Sampling(n=2))],
        ids=["tools", "samples"],
    )
    def test_tools_and_several_samples_stay_with_the_best(self, query: Query) -> None:
        able = [card(name, offers=frozenset({"tools", "n"})) for name in "abcd"]
        found = route("max", "", query=query, cards=able)
        assert (found.strategy, staged(found)) == ("pass", [{"b"}])

    @pytest.mark.parametrize("kind", ["number", "text", "json"])
    def test_other_kinds_of_task_go_by_the_rules(self, kind: Any) -> None:
        for policy in ("auto", "max", "fast"):
            found, ruled = (make(policy, query=ask(kind=kind)) for make in (route, without))
            assert (found.strategy, len(found.calls), found.threshold, found.quorum) == (
                ruled.strategy,
                len(ruled.calls),
                ruled.threshold,
                ruled.quorum,
            )
        assert asked(route("cheap", query=ask(kind=kind))) != {"a", "d"}

    def test_a_long_question_of_another_kind_costs_what_the_card_says(self) -> None:
        """What short questions came to says nothing of what a book does: a budget would not hold."""
        dear = [card("a", price_in_usd_per_m=100.0, context_tokens=10**6)]
        query = ask(kind="text")
        book = replace(query, messages=(replace(query.messages[0], text="word " * 100_000),))
        with pytest.raises(NoExpertError, match="would cost"):
            route("auto", "", query=book, cards=dear, budget_usd=0.02)

    def test_a_policy_that_chose_nothing_goes_by_the_rules(self) -> None:
        artefact = hand_made(ACCURACY, PLANS, {"auto": CASCADE}, cost_usd=COST)
        assert len(route("max", "abcdz", artefact).calls) == 5


def test_right_or_wrong_only_is_one_expert_and_no_vote() -> None:
    artefact = hand_made({"a": 0.6, "b": 0.8}, (), {"auto": 1, "max": 1}, cost_usd=COST, kinds=("text",))
    for policy in ("auto", "max"):
        found = route(policy, "abz", artefact, ask(kind="text"))
        assert (found.strategy, staged(found)) == ("select", [{"b"}])


def test_the_order_of_candidates_changes_nothing() -> None:
    for prices in ({}, {"auto": 0.7, "cheap": 0.02}):
        for policy in POLICIES:
            assert route(policy, "zdcba", made(prices=prices)) == route(policy, "abcdz", made(prices=prices))


class TestGrades:
    """What was learnt beforehand is corrected by what callers say, of each expert alone."""

    @staticmethod
    def after(correct: float, n: int, expert: str = "b", policy: str = "max", basis: str = "") -> Route:
        """The route once n answers of an expert have been graded, as they were predicted."""
        router, cards = SkillRouter(Index(8), None, made()), [card(name) for name in "abcd"]
        for one in cards:
            router.admit(one)
        demanded = replace(ask().limits, policy=policy)
        query = replace(ask(), limits=demanded)
        call = router.route(query, cards, demanded).call_of(expert)
        assert call is not None
        assert call.prior is not None
        prior = Prior(call.prior.probability, basis or call.prior.basis)
        router.learn([Outcome(f"r{i}", expert, "ok", None, 0.0, 0, correct, prior=prior) for i in range(n)])
        return router.route(query, cards, demanded)

    def chances(self, *graded: Any, **more: Any) -> dict[str, float]:
        found = self.after(*graded, **more)
        assert all(
            c.prior and c.prior.probability == pytest.approx(ACCURACY[c.expert]) for c in found.everyone
        )
        return {call.expert: call.probability for call in found.everyone}

    def test_they_move_the_chance_of_their_expert_alone(self) -> None:
        before = self.chances(0.0, 0)
        assert before == pytest.approx(ACCURACY)
        few, many = self.chances(0.0, 3), self.chances(0.0, 50)
        assert few["b"] == pytest.approx(0.83 * 16 / 19, abs=1e-6)
        assert many["b"] == pytest.approx(0.83 * 16 / 66, abs=1e-6)
        for found in (few, many):
            assert {name: found[name] for name in "acd"} == {name: before[name] for name in "acd"}

    def test_as_expected_they_change_nothing(self) -> None:
        assert self.chances(0.83, 99) == pytest.approx(ACCURACY)

    def test_those_of_another_basis_do_not_count(self) -> None:
        assert self.chances(0.0, 50, basis="before") == pytest.approx(ACCURACY)

    def test_no_plan_relies_on_one_that_fell(self) -> None:
        assert asked(self.after(0.0, 0, policy="auto")) == {"a", "b", "c"}
        assert "b" not in asked(self.after(0.0, 50, policy="auto"))
        assert self.after(0.0, 50, policy="auto").best_single == "c"
        assert asked(self.after(0.0, 50, policy="max")) == {"a", "c", "d"}
        assert asked(self.after(0.0, 3, policy="auto")) == {"a", "b", "c"}
