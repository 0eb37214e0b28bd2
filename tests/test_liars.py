"""Whoever lies on its card is found out by what is measured, within fifty calls, through the real gateway."""

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from manyminds.experts.scripted import Script, Scripted
from manyminds.gateway import Gateway
from manyminds.ledger import Ledger
from manyminds.node.lessons import Lessons
from manyminds.node.rated import rated
from manyminds.ratings import Rating
from manyminds.router import SkillRouter
from manyminds.types import Card, Limits, Message, Query, Report, Route
from tests.clock import run
from tests.ledger.samples import grade
from tests.network import network

CALLS = 50
CHOICE = "Question {}: which is a metal?\nA) {}\nB) {}\nC) {}\nD) {}"


class World:
    """A network, its ledger, and callers who know the right answer and say so."""

    def __init__(self, folder: Path, *experts: Scripted) -> None:
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        self.experts = experts
        self.gateway: Gateway = network(*experts, records=self.ledger)
        self._lessons = Lessons(self.ledger, lambda: 0.0)
        self._asked = 0

    @property
    def router(self) -> SkillRouter:
        router = self.gateway._parts.router
        assert isinstance(router, SkillRouter)
        return router

    def ask(self, policy: str, question: str) -> Report:
        self._asked += 1
        query = Query((Message("user", question),), policy, request_id=f"r{self._asked}")

        async def story() -> Report:
            (*_, last) = [chunk async for chunk in self.gateway.stream(query)]
            assert last.report is not None
            return last.report

        return run(story())

    def say(self, report: Report, correct: float) -> None:
        """What a caller thinks of an answer, learnt as a node does."""
        assert grade(self.ledger, report.request_id, "", correct, most=10**6) in ("learnt", "kept")
        self.router.learn(self._lessons.read()[0])

    def route(self, policy: str, question: str) -> Route:
        limits = Limits(policy=policy)
        query = Query((Message("user", question),), policy, limits=limits)
        return self.router.route(query, [expert.card for expert in self.experts], limits)

    def week(self, name: str) -> Rating:
        self.ledger.flush()
        return rated(self.ledger, [expert.card for expert in self.experts])[name].week


def expert(name: str, script: Script, **claims: object) -> Scripted:
    return Scripted(Card(name, "scripted", source=name, **claims), script)  # type: ignore[arg-type]


def text(words: int) -> str:
    return " ".join(["lorem"] * words)


def test_who_charges_more_than_its_card_says_is_no_longer_cheap(tmp_path: Path) -> None:
    honest = expert("honest", Script(text(40)), price_out_usd_per_m=1.0, price_in_usd_per_m=1.0)
    liar = expert("liar", Script(text(40), charges=20.0), price_out_usd_per_m=0.2, price_in_usd_per_m=0.2)
    world = World(tmp_path, honest, liar)
    with closing(world.ledger):
        assert [call.expert for call in world.route("cheap", "Tell me.").calls] == ["liar"]
        asked = [world.ask("cheap", f"Tell me {i}.").panel[0].expert for i in range(CALLS)]
        assert asked[0] == "liar"
        assert asked[10:] == ["honest"] * (CALLS - 10)
        assert world.week("liar").charged_ratio > 10.0  # type: ignore[operator]
        assert world.week("honest").charged_ratio < 2.0  # type: ignore[operator]


def test_who_claims_to_be_free_and_charges_is_no_longer_cheap(tmp_path: Path) -> None:
    honest = expert("honest", Script(text(40)), price_out_usd_per_m=1.0)
    liar = expert("liar", Script(text(40), bill_usd=0.01))
    world = World(tmp_path, honest, liar)
    with closing(world.ledger):
        asked = [world.ask("cheap", f"Tell me {i}.").panel[0].expert for i in range(CALLS)]
        assert asked[0] == "liar"
        assert asked[10:] == ["honest"] * (CALLS - 10)
        week = world.week("liar")
        assert week.usd_per_m > 100 > 1e-9 > week.claimed_usd_per_m  # type: ignore[operator]


def slow_ones() -> tuple[tuple[str, Script], ...]:
    return (
        ("late", Script(text(60), first_token_s=8.0, per_chunk_s=0.01)),
        ("slow", Script(text(60), first_token_s=0.05, per_chunk_s=1.0)),
    )


def test_who_is_slower_than_its_card_says_is_no_longer_fast(tmp_path: Path) -> None:
    for name, script in slow_ones():
        world = World(
            *(_folder(tmp_path, name),),
            expert(
                "one", Script(text(60), first_token_s=1.0, per_chunk_s=0.05), ttft_s=1.0, tokens_per_s=20.0
            ),
            expert(
                "two", Script(text(60), first_token_s=1.1, per_chunk_s=0.05), ttft_s=1.1, tokens_per_s=20.0
            ),
            expert(name, script, ttft_s=0.05, tokens_per_s=500.0),
        )
        with closing(world.ledger):
            first = {call.expert for call in world.route("fast", "Tell me.").calls}
            assert name in first
            for i in range(CALLS):
                world.ask("fast", f"Tell me {i}.")
            assert {call.expert for call in world.route("fast", "Tell me.").calls} == {"one", "two"}, name
            if name == "slow":
                assert world.week(name).tokens_per_s_p50 == 1.0


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def guess(seed: int, right: float, question: Callable[[str], str]) -> Callable[[Query], str]:
    """Right so often, and else any other of four options."""
    draw = random.Random(seed)

    def reply(query: Query) -> str:
        answer = question(query.question)
        wrong = [letter for letter in "ABCD" if letter != answer]
        return answer if draw.random() < right else draw.choice(wrong)

    return reply


def chosen(i: int, draw: random.Random) -> tuple[str, str]:
    options = draw.sample(["iron", "wood", "glass", "wool"], 4)
    return CHOICE.format(i, *options), "ABCD"[options.index("iron")]


def answer_of(question: str) -> str:
    return next(line[0] for line in question.splitlines() if line.endswith(") iron"))


def test_who_is_right_less_often_than_its_card_says_comes_last(tmp_path: Path) -> None:
    for policy in ("auto", "max"):
        experts = [
            expert(name, Script(replies=guess(i, skill, answer_of)), accuracy=claim)
            for i, (name, skill, claim) in enumerate(
                [("liar", 0.25, 0.99), ("one", 0.8, 0.75), ("two", 0.75, 0.7), ("three", 0.75, 0.7)]
            )
        ]
        world = World(_folder(tmp_path, policy), *experts)
        draw = random.Random(7)
        with closing(world.ledger):
            question, _ = chosen(0, draw)
            assert world.route(policy, question).best_single == "liar"
            for i in range(1, CALLS + 1):
                question, right = chosen(i, draw)
                report = world.ask(policy, question)
                answered = max(report.panel, key=lambda entry: entry.correct_probability or 0.0)
                world.say(report, float(answered.answer == right))
            found = world.route(policy, question)
            ranked = sorted(found.everyone, key=lambda call: -call.probability)
            assert ranked[-1].expert == "liar", policy
            assert found.best_single != "liar"
            if policy == "auto":
                assert "liar" not in {call.expert for call in found.calls}
            week = world.week("liar")
            assert week.graded <= CALLS
            assert week.accuracy < 0.5  # type: ignore[operator]


def test_who_changes_nothing_is_judged_as_before(tmp_path: Path) -> None:
    """Honest experts keep their places, whatever is measured of them."""
    world = World(
        tmp_path,
        expert("good", Script(text(40)), accuracy=0.8, price_out_usd_per_m=2.0),
        expert("fair", Script(text(40)), accuracy=0.7, price_out_usd_per_m=1.0),
    )
    with closing(world.ledger):
        before = [call.expert for call in world.route("cheap", "Tell me.").calls]
        for i in range(CALLS):
            world.ask("cheap", f"Tell me {i}.")
        assert [call.expert for call in world.route("cheap", "Tell me.").calls] == before
