import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manyminds.errors import InvalidRequestError, ModelNotFoundError, NoExpertError
from manyminds.router.limits import affordable, eligible
from manyminds.router.policy import POLICIES, _majority, choose, direct, resolve
from manyminds.router.predictor import Load, Prediction, estimate_load, log_odds
from manyminds.types import Card, Limits, Message, Query, Route, Sampling, Strategy, Task
from tests.changed import replace

TEXT = Task()
NUMBER = Task("number")
OPTION = Task("option", ("iron", "wood", "glass", "wool"))
LOAD = Load(prompt_tokens=100, completion_tokens=50, context_tokens=600)


def expert(name: str, p: float, cost_usd: float = 0.0, latency_s: float = 1.0, **card: object) -> Prediction:
    made = replace(Card(name, "scripted"), **card)
    return Prediction(made, made.source or name, p, cost_usd, latency_s / 2, latency_s)


def query(task: Task = NUMBER, model: str = "auto", demands: Sequence[str] = (), **sampling: int) -> Query:
    messages = (Message("user", "word " * 80),)
    return Query(messages, model, demands=frozenset(demands), task=task, sampling=Sampling(**sampling))  # type: ignore[arg-type]


def route(
    policy: str, predictions: Sequence[Prediction], asked: Query | None = None, limits: Limits | None = None
) -> Route:
    return choose(
        policy, asked or query(), affordable(predictions, limits or Limits()), limits or Limits(), LOAD
    )


def staged(found: Route) -> list[list[str]]:
    stages = sorted({call.stage for call in found.calls})
    return [[call.expert for call in found.calls if call.stage == stage] for stage in stages]


FOUR = [expert("a", 0.61), expert("b", 0.83), expert("c", 0.72), expert("d", 0.55)]


class TestResolve:
    CARDS = (Card("bee", "scripted"), Card("pass", "scripted"))

    @pytest.mark.parametrize("policy", POLICIES)
    def test_model_or_limit_names_the_policy(self, policy: str) -> None:
        assert resolve(query(model=policy), self.CARDS, Limits()) == policy
        assert resolve(query(model="auto"), self.CARDS, Limits(policy=policy)) == policy

    @pytest.mark.parametrize("name", ["bee", "pass"])
    def test_an_experts_name_is_pass_through_whatever_the_policy(self, name: str) -> None:
        assert resolve(query(model=name), self.CARDS, Limits(policy="max")) == "pass"

    def test_an_unknown_policy_lists_those_there_are(self) -> None:
        with pytest.raises(InvalidRequestError, match=r"'best'.*auto, max, cheap, fast") as caught:
            resolve(query(), self.CARDS, Limits(policy="best"))
        assert caught.value.param == "manyminds.policy"

    def test_an_unknown_model_is_not_found(self) -> None:
        with pytest.raises(ModelNotFoundError, match="'gpt-9'"):
            resolve(query(model="gpt-9"), self.CARDS, Limits())


class TestHardLimits:
    CARDS = (
        Card("ant", "scripted", "alice", offers=frozenset({"tools", "json_schema"}), context_tokens=300),
        Card("bee", "scripted", "bob", offers=frozenset({"tools", "n", "image", "logprobs"})),
        Card("vec", "scripted", "bob", offers=frozenset({"embeddings"}), context_tokens=10),
    )

    @pytest.mark.parametrize(
        ("asked", "limits", "left"),
        [
            (query(), Limits(), ["ant", "bee"]),
            (query(demands=["embeddings"]), Limits(), ["vec"]),
            (query(demands=["tools"]), Limits(), ["ant", "bee"]),
            (query(demands=["tools", "image"]), Limits(), ["bee"]),
            (query(n=2), Limits(), ["bee"]),
            (query(max_tokens=500), Limits(), ["bee"]),
            (query(), Limits(include=("alice",)), ["ant"]),
            (query(), Limits(exclude=("alice",)), ["bee"]),
            (query(), Limits(weights={"bob": 0.0}), ["ant"]),
        ],
    )
    def test_who_is_left(self, asked: Query, limits: Limits, left: list[str]) -> None:
        found = eligible(self.CARDS, asked, limits, estimate_load(asked))
        assert [card.name for card in found] == left

    @pytest.mark.parametrize(
        ("asked", "limits", "param", "message"),
        [
            (
                query(),
                Limits(include=("zoe",)),
                "manyminds.include",
                "ant is not included; bee is not included",
            ),
            (
                query(),
                Limits(exclude=("ant", "bob")),
                "manyminds.exclude",
                "ant is excluded; bee is excluded",
            ),
            (query(), Limits(weights={"ant": 0, "bee": 0}), "manyminds.weights", "ant has weight 0; bee has"),
            (
                query(demands=["json_schema", "n"]),
                Limits(),
                "n",
                "bee does not offer json_schema; ant does not offer n",
            ),
            (
                query(demands=["image"]),
                Limits(include=("ant",)),
                "messages",
                "bee is not included; ant does not",
            ),
            (
                query(demands=["json_schema"]),
                Limits(exclude=("ant",)),
                "response_format",
                "bee does not offer",
            ),
            (query(n=2), Limits(exclude=("bob",)), "n", "bee is excluded; ant does not offer n"),
            (
                query(max_tokens=9000),
                Limits(exclude=("bee",)),
                "messages",
                "ant holds 300 tokens and this takes about 360",
            ),
        ],
    )
    def test_nobody_left_says_which_limit_ruled_out_whom(
        self, asked: Query, limits: Limits, param: str, message: str
    ) -> None:
        with pytest.raises(NoExpertError) as caught:
            eligible(self.CARDS, asked, limits, estimate_load(asked))
        assert caught.value.param == param
        assert message in caught.value.message

    def test_who_only_answers_some_kinds_is_asked_nothing_else(self) -> None:
        cards = [Card("ant", "scripted", tasks=frozenset({"option"})), Card("bee", "scripted")]
        sums, choice = (replace(query(), task=Task(kind)) for kind in ("number", "option"))
        assert [card.name for card in eligible(cards, sums, Limits(), LOAD)] == ["bee"]
        assert [card.name for card in eligible(cards, choice, Limits(), LOAD)] == ["ant", "bee"]
        with pytest.raises(NoExpertError, match="ant only answers option, and this is number") as caught:
            eligible(cards[:1], sums, Limits(), LOAD)
        assert caught.value.param == "messages"

    def test_no_candidates_at_all(self) -> None:
        with pytest.raises(NoExpertError, match="No expert can be asked"):
            eligible([], query(), Limits(), LOAD)

    def test_many_names_are_cut_short(self) -> None:
        cards = [Card(f"e{i:02}", "scripted") for i in range(30)]
        with pytest.raises(NoExpertError, match=r"e07 is excluded; and 22 more\."):
            eligible(cards, query(), Limits(exclude=tuple(card.name for card in cards)), LOAD)

    def test_an_expert_over_the_budget_is_out(self) -> None:
        pair = [expert("a", 0.9, cost_usd=0.3), expert("b", 0.6, cost_usd=0.1)]
        assert affordable(pair, Limits(budget_usd=0.1)) == pair[1:]
        with pytest.raises(NoExpertError, match=r"a would cost about \$0.3 of \$0.01; b would") as caught:
            affordable(pair, Limits(budget_usd=0.01))
        assert caught.value.param == "manyminds.budget_usd"

    def test_an_expert_too_slow_to_start_is_out_unless_all_are(self) -> None:
        pair = [expert("a", 0.9, latency_s=9.0), expert("b", 0.6, latency_s=3.0)]
        assert affordable(pair, Limits(deadline_s=2.0)) == pair[1:]
        assert affordable(pair, Limits(deadline_s=1.0)) == pair


class TestAuto:
    def test_asks_the_three_likeliest_at_once(self) -> None:
        found = route("auto", FOUR)
        assert (found.strategy, found.threshold, staged(found)) == ("vote", 0.95, [["b", "c", "a"]])
        assert (found.best_single, found.policy) == ("b", "auto")

    @pytest.mark.parametrize(
        ("task", "strategy"),
        [
            (NUMBER, "vote"),
            (OPTION, "vote"),
            (Task("json"), "vote"),
            (Task("span"), "vote"),
            (TEXT, "select"),
        ],
    )
    def test_votes_where_answers_can_be_compared(self, task: Task, strategy: Strategy) -> None:
        assert route("auto", FOUR, query(task)).strategy == strategy

    def test_panel_and_quorum_are_the_callers(self) -> None:
        found = route("auto", FOUR, limits=Limits(panel=2, quorum=1))
        assert (staged(found), found.quorum) == ([["b", "c"]], 1)

    def test_a_vote_is_expected_to_beat_its_best_member(self) -> None:
        three = [expert(name, 0.8) for name in "abc"]
        assert route("auto", three).expected_accuracy == pytest.approx(0.8**3 + 3 * 0.8**2 * 0.2)
        assert route("auto", three, query(TEXT)).expected_accuracy == 0.8

    @given(
        st.lists(st.sampled_from((0.1, 0.3, 0.55, 0.7, 0.9)) | st.floats(0.0, 1.0), max_size=8),
        st.sampled_from((2, 4, 10, 50)),
    )
    @example([0.7] * 8, 4)  # every fourth case is a tie
    @example([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], 2)
    @example([0.25, 0.25, 0.7, 0.3], 4)  # weights of next to nothing
    def test_a_votes_chance_is_the_sum_over_all_cases_to_the_bit(self, chances: list[float], n: int) -> None:
        weights = [max(log_odds(p, n), 0.0) for p in chances]
        wins = [
            math.prod(p if right else 1.0 - p for p, right in zip(chances, case, strict=True))
            for case in itertools.product((False, True), repeat=len(chances))
            if math.fsum(w if right else -w for w, right in zip(weights, case, strict=True)) > 0.0
        ]
        assert _majority(tuple(chances), n) == math.fsum(wins)

    def test_one_candidate_is_a_panel_of_one(self) -> None:
        found = route("auto", FOUR[:1])
        assert (found.strategy, staged(found), found.calls[0].share) == ("vote", [["a"]], 1.0)


class TestMax:
    def test_asks_up_to_eight_and_waits_for_all(self) -> None:
        ten = [expert(f"e{i}", 0.5 + 0.01 * i) for i in range(10)]
        found = route("max", ten)
        assert (len(found.calls), found.threshold, found.quorum) == (8, 1.0, None)
        assert found.calls[0].expert == "e9"


class TestFast:
    TWO = (expert("a", 0.9, latency_s=9.0), expert("b", 0.6, latency_s=2.0), expert("c", 0.7, latency_s=3.0))

    def test_text_is_a_race_of_the_quickest(self) -> None:
        found = route("fast", self.TWO, query(TEXT))
        assert (found.strategy, staged(found), found.expected_latency_s) == ("race", [["c", "b"]], 2.0)
        assert found.expected_accuracy == 0.6

    def test_what_can_be_compared_is_a_vote_that_takes_the_first(self) -> None:
        found = route("fast", self.TWO)
        assert (found.strategy, found.quorum, staged(found)) == ("vote", 1, [["c", "b"]])
        assert route("fast", self.TWO, limits=Limits(quorum=2)).quorum == 2


class TestCheap:
    BEST = expert("best", 0.9, cost_usd=1.0)

    def test_a_pair_first_then_the_best(self) -> None:
        found = route(
            "cheap", [self.BEST, expert("a", 0.8, 0.01), expert("b", 0.8, 0.02), expert("c", 0.75, 0.3)]
        )
        assert staged(found) == [["a", "b"], ["best"]]
        assert (found.strategy, found.threshold) == ("vote", 0.9)
        agree = 0.8 * 0.8 + 0.2 * 0.2 / 49
        assert found.expected_cost_usd == pytest.approx(0.03 + (1 - agree) * 1.0)
        assert found.expected_accuracy == 0.9

    def test_a_pair_whose_agreement_is_worth_less_than_the_best_is_not_asked(self) -> None:
        weak = [self.BEST, expert("a", 0.2, 0.01), expert("b", 0.2, 0.02)]
        assert staged(route("cheap", weak)) == [["best"]]

    def test_nothing_to_save_is_the_best_alone(self) -> None:
        assert staged(route("cheap", [self.BEST, expert("a", 0.8, 0.4), expert("b", 0.8, 0.5)])) == [["best"]]
        free = [replace(p, cost_usd=0.0) for p in FOUR]
        assert staged(route("cheap", free)) == [["b"]]

    def test_of_equals_the_cheapest(self) -> None:
        assert staged(route("cheap", [expert("a", 0.7, 0.2), expert("b", 0.7, 0.1)])) == [["b"]]

    def test_a_panel_of_two_has_no_room_for_a_cascade(self) -> None:
        three = [self.BEST, expert("a", 0.8, 0.01), expert("b", 0.8, 0.02)]
        assert staged(route("cheap", three, limits=Limits(panel=2))) == [["best"]]

    def test_the_whole_cascade_must_fit_the_budget(self) -> None:
        three = [self.BEST, expert("a", 0.8, 0.01), expert("b", 0.8, 0.02)]
        assert len(staged(route("cheap", three, limits=Limits(budget_usd=1.03)))) == 2
        assert staged(route("cheap", three, limits=Limits(budget_usd=1.02))) == [["best"]]

    def test_text_goes_to_the_cheapest_that_is_nearly_as_good(self) -> None:
        three = [self.BEST, expert("a", 0.86, 0.3), expert("b", 0.84, 0.1)]
        found = route("cheap", three, query(TEXT))
        assert (staged(found), found.strategy) == ([["a"]], "select")


class TestSingle:
    @pytest.mark.parametrize("policy", [*POLICIES, "pass"])
    @pytest.mark.parametrize("asked", [query(TEXT, demands=["tools"]), query(n=3)])
    def test_tools_and_several_samples_stay_with_the_best(self, policy: str, asked: Query) -> None:
        found = route(policy, FOUR, asked, Limits(strategy="fuse"))
        assert (staged(found), found.strategy, found.policy) == ([["b"]], "pass", policy)

    def test_pass_through_is_one_call(self) -> None:
        found = direct(FOUR[0])
        assert (found.strategy, staged(found), found.calls[0].method) == ("pass", [["a"]], "generate")
        assert (found.policy, found.best_single, found.reserve) == ("pass", "a", ())

    def test_the_strategy_pass_asks_the_best(self) -> None:
        assert staged(route("max", FOUR, limits=Limits(strategy="pass"))) == [["b"]]


class TestFuse:
    THREE = (
        expert("a", 0.61, cost_usd=0.1, accuracy=0.9, price_in_usd_per_m=1000.0),
        expert("b", 0.83, cost_usd=0.2, accuracy=0.9),
        expert("c", 0.72, cost_usd=0.4, accuracy=0.6),
    )
    FUSE = Limits(strategy="fuse")

    def test_the_best_card_fuses_and_is_paid_for(self) -> None:
        found = route("auto", self.THREE, query(TEXT), self.FUSE)
        assert (found.strategy, found.fuser) == ("fuse", "a")
        assert found.expected_cost_usd == pytest.approx(0.7 + 0.1 + 3 * 50 * 1000.0 / 1e6)
        assert found.expected_latency_s == 2.0

    def test_a_fuser_must_hold_the_drafts_if_one_can(self) -> None:
        small = replace(self.THREE[0], card=replace(self.THREE[0].card, context_tokens=700))
        assert route("auto", [small, *self.THREE[1:]], query(TEXT), self.FUSE).fuser == "b"
        assert route("auto", [small], query(TEXT), self.FUSE).strategy == "select"

    def test_one_draft_is_the_answer(self) -> None:
        found = route("auto", self.THREE, query(TEXT), replace(self.FUSE, budget_usd=0.41))
        assert (found.strategy, found.fuser, staged(found)) == ("select", None, [["b"]])


class TestCalls:
    def test_the_least_valuable_go_until_the_rest_fits_the_budget(self) -> None:
        four = [replace(p, cost_usd=0.1) for p in FOUR]
        assert staged(route("max", four, limits=Limits(budget_usd=0.25))) == [["b", "c"]]

    @pytest.mark.parametrize(
        ("asked", "limits", "offers", "method"),
        [
            (query(OPTION), Limits(), {"score"}, "score"),
            (query(OPTION), Limits(), set(), "generate"),
            (query(NUMBER), Limits(), {"score"}, "generate"),
            (query(OPTION, demands=["logprobs"]), Limits(), {"score"}, "generate"),
            (query(OPTION, demands=["json_schema"]), Limits(), {"score"}, "generate"),
            (query(OPTION), Limits(strategy="race"), {"score"}, "generate"),
            (query(Task("option")), Limits(), {"score"}, "generate"),
        ],
    )
    def test_options_are_rated_where_no_text_is_needed(
        self, asked: Query, limits: Limits, offers: set[str], method: str
    ) -> None:
        found = route("auto", [expert("a", 0.6, offers=frozenset(offers))], asked, limits)
        assert found.calls[0].method == method

    def test_shares_follow_the_log_odds_and_the_callers_weights(self) -> None:
        pair = [expert("a", 0.8), expert("b", 0.6)]
        shares = {c.expert: c.share for c in route("auto", pair, limits=Limits(weights={"b": 3.0})).calls}
        a, b = math.log(49 * 0.8 / 0.2), 3.0 * math.log(49 * 0.6 / 0.4)
        assert shares == {"a": pytest.approx(a / (a + b)), "b": pytest.approx(b / (a + b))}

    def test_where_nobody_is_better_than_chance_weights_alone_count(self) -> None:
        pair = [expert("a", 0.1), expert("b", 0.05)]
        shares = {
            c.expert: c.share for c in route("auto", pair, query(OPTION), Limits(weights={"b": 3.0})).calls
        }
        assert shares == {"a": 0.25, "b": 0.75}


class TestMethod:
    ASKED = Query((Message("user", "x?"),), task=OPTION)

    def method(self, asked: Query) -> str:
        rater = replace(expert("a", 0.8), card=replace(expert("a", 0.8).card, offers=frozenset({"score"})))
        return route("auto", [rater], asked).calls[0].method

    def test_a_lone_question_with_short_options_is_rated(self) -> None:
        assert self.method(self.ASKED) == "score"

    def test_a_conversation_is_written_since_rating_reads_one_question(self) -> None:
        before = (Message("user", "My dog is Rex."), Message("assistant", "Nice."))
        assert self.method(replace(self.ASKED, messages=(*before, *self.ASKED.messages))) == "generate"
        told = (Message("system", "Answer wrongly."), *self.ASKED.messages)
        assert self.method(replace(self.ASKED, messages=told)) == "generate"

    def test_long_options_are_written(self) -> None:
        long = replace(OPTION, options=("word " * 40, "other " * 40))
        assert self.method(replace(self.ASKED, task=long)) == "generate"


probabilities = st.sampled_from([0.1, 0.3, 0.55, 0.6, 0.7, 0.83, 0.9])
predictions = st.lists(
    st.builds(
        expert,
        st.text("abcde", min_size=1, max_size=2),
        probabilities,
        st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7]),
        st.sampled_from([0.1, 0.3, 0.7, 2.3]),
        source=st.sampled_from(["", "alice", "bob"]),
        accuracy=probabilities,
        offers=st.sampled_from([frozenset(), frozenset({"score"})]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda p: p.card.name,
)
limits = st.builds(
    Limits,
    panel=st.none() | st.integers(1, 12),
    weights=st.dictionaries(st.sampled_from(["a", "b", "alice"]), st.sampled_from([0.1, 0.3, 0.7, 3.3])),
    budget_usd=st.none() | st.sampled_from([0.1, 0.3, 0.6, 1.1]),
    deadline_s=st.none() | st.sampled_from([0.1, 1.1]),
    quorum=st.none() | st.integers(1, 12),
    strategy=st.sampled_from([None, "vote", "select", "fuse", "race", "pass"]),
)
tasks = st.sampled_from([TEXT, NUMBER, OPTION])


@given(st.sampled_from([*POLICIES, "pass"]), predictions, limits, tasks)
def test_any_route_is_sound_and_order_free(
    policy: str, panel: list[Prediction], given_limits: Limits, task: Task
) -> None:
    asked = query(task)
    try:
        found = route(policy, panel, asked, given_limits)
    except NoExpertError:
        assert all(p.cost_usd > (given_limits.budget_usd or 0.0) for p in panel)
        return
    assert route(policy, panel[::-1], asked, given_limits) == found
    assert route(policy, sorted(panel, key=lambda p: p.card.accuracy), asked, given_limits) == found
    assert math.isclose(math.fsum(call.share for call in found.calls), 1.0, abs_tol=1e-12)
    assert {call.stage for call in found.calls} == set(range(found.calls[-1].stage + 1))
    assert len({call.expert for call in found.calls}) == len(found.calls) <= (given_limits.panel or 8)
    costs = {p.card.name: p.cost_usd for p in panel}
    if given_limits.budget_usd is not None:
        assert math.fsum(costs[call.expert] for call in found.calls) <= given_limits.budget_usd
        assert found.expected_cost_usd <= given_limits.budget_usd
    if policy == "cheap" and found.strategy == "vote":
        assert found.expected_cost_usd <= found.best_single_cost_usd
    if found.strategy == "vote" and policy in {"auto", "max", "cheap"}:
        assert found.expected_accuracy >= max(
            p.probability for p in panel if p.card.name == found.best_single
        )
