"""A node that parted with an expert is one that never had it: bit by bit, whatever happened in what order."""

import asyncio
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyminds.artefact import save
from manyminds.config import Config, load
from manyminds.errors import ManymindsError
from manyminds.evals.forgetting import forget, is_clean, names_of
from manyminds.evals.report import learn, narrow
from manyminds.experts.recorded import RecordedSet
from manyminds.index import Index
from manyminds.learn import bank
from manyminds.ledger import Gone, Withdrawal
from manyminds.node import Node, learnt
from manyminds.node.learnt import state_of
from manyminds.router import SkillRouter
from manyminds.router.grades import Standing
from manyminds.types import Answer, Card, Limits, Message, Outcome, PanelEntry, Query, Report, Task, Usage
from tests.evals.test_replay import made_up
from tests.learn.quick import weigh_quickly
from tests.router.test_router import TOPICS, embed

MINDS = {"a": 0.85, "b": 0.7, "c": 0.5, "d": 0.3}
QUESTIONS = ("Qq5", "Qq8", "Qq20", "Qq33")
POLICIES = ("max", "auto", "cheap", "fast")


def without(recorded: RecordedSet, gone: str) -> RecordedSet:
    return RecordedSet(recorded.questions(), [e for e in recorded.experts() if e.card.name != gone])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded experts; and by name of who is gone, the home of who learnt without. "" is with everybody."""
    folder = tmp_path_factory.mktemp("world")
    recorded = made_up(folder / "toy", MINDS, kind="option")
    with pytest.MonkeyPatch.context() as patch:
        weigh_quickly(patch)
        for gone in ("", *MINDS):
            made = learn(narrow(without(recorded, gone), "toy", None, ()), 0)
            path = folder / f"home-{gone}" / "artefact.npz"
            save(made.artefact, path)
            bank.save(path, made.questions, made.examples, made.answered, made.about)
    return folder


def configured(world: Path, folder: Path, home: str, *names: str) -> Config:
    folder.mkdir()
    shutil.copytree(world / f"home-{home}", folder / "home")
    entries = [f'[[expert]]\nname = "{n}"\nkind = "recorded"\npath = "{world / "toy"}"\n' for n in names]
    settings = '[local]\ntier = "none"\n[cache]\nentries = 100\n'
    (folder / "manyminds.toml").write_text(settings + "".join(entries))
    return load(folder / "manyminds.toml", {"MANYMINDS_HOME": str(folder / "home")}, {})


Step = tuple[str, str, float, tuple[str, ...]]

steps = st.lists(
    st.tuples(
        st.sampled_from(("judged", "voted", "seen")),
        st.sampled_from(tuple(MINDS)),
        st.sampled_from((0.0, 1.0)),
        st.lists(st.sampled_from(tuple(MINDS)), min_size=3, max_size=4, unique=True).map(tuple),
    ),
    max_size=14,
)


def concerns(step: Step, gone: str) -> bool:
    return step[1] == gone or (step[0] == "voted" and gone in step[3])


def happen(node: Node, i: int, step: Step) -> None:
    """An outcome comes to the ledger, or a call has gone so."""
    what, expert, right, voters = step
    spent = Usage(10, 90, cost_usd=0.002 * (i + 1))
    if what == "seen":
        seen = Outcome(f"r{i}", expert, "ok", 0.1 * i, 0.3, 90, cost_usd=0.002 * i)
        node._router.observe(seen)
        return
    answer = Answer(expert, expert, "ok", "4", ttft_s=0.1 * i, seconds=1.5, usage=spent, claimed_usd=0.001)
    entry = PanelEntry(expert, expert, 1.0, "4", 0.5, 0.1, 1.5, 0.002, "ok")
    report = Report(f"r{i}", "max", "vote", (entry,), None, 0.5, (), 0.002, 0.0)
    known = voters if what == "voted" else ()
    weight = 0.1 if known else 1.0
    said = Outcome(f"r{i}", expert, "ok", None, 0.0, 0, correct=right, weight=weight, voters=known)
    node._ledger.record(report, Query((), request_id=f"r{i}"), [answer], "4", "ok", 1.5, [said])
    node._ledger.flush()


def routes(node: Node) -> list[Any]:
    """What its router would have asked, with every float."""
    found: list[Any] = []
    for text in QUESTIONS:
        query = Query((Message("user", text),), task=Task("option", ("red", "green", "blue", "white")))
        for policy in POLICIES:
            route = node._router.route(query, node.cards, Limits(policy=policy))
            found.append(msgspec.to_builtins(route))
        found.append([msgspec.structs.asdict(p) for p in node._router.predicted(query, node.cards, Limits())])
    return found


async def answers(node: Node) -> list[Any]:
    """What it answers, with its posterior."""
    found: list[Any] = []
    for text in QUESTIONS:
        query = Query((Message("user", f"{text}\nA) red\nB) green\nC) blue\nD) white"),), "max")
        chunks = [chunk async for chunk in node.gateway.stream(query)]
        report = chunks[-1].report
        assert report is not None
        line = [(p.expert, p.weight, p.answer, p.correct_probability, p.status) for p in report.panel]
        found.append(["".join(c.text for c in chunks), line, report.probability, report.attribution])
    return found


@pytest.mark.parametrize("gone", MINDS)
def test_a_home_that_forgot_is_one_that_never_knew(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """All files, byte by byte; what was learnt is not used from the withdrawal on until it is that."""
    weigh_quickly(monkeypatch)
    config = configured(world, tmp_path / "had", "", *MINDS)
    never = configured(world, tmp_path / "never", gone)
    out = Gone(1, frozenset(names_of(gone)))
    assert learnt(config.home, out)[0] is None
    assert not is_clean(config.home, out)
    forget(config.home, out, {})
    assert is_clean(config.home, out)
    assert learnt(config.home, out)[0] is not None
    assert state_of(config.home) == state_of(never.home)
    for name in ("artefact.npz", "artefact.bank.npz"):
        assert (config.home / name).read_bytes() == (never.home / name).read_bytes()
        assert gone not in json.dumps(
            [str(n) for n in bank.load(config.home / "artefact.npz").examples.experts]
        )


@pytest.mark.parametrize("what", ["halfway", "of something else"])
def test_forgetting_goes_on_where_it_was_stopped(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The artefact was made anew already, and the bank beside it still holds what everybody said."""
    weigh_quickly(monkeypatch)
    config = configured(world, tmp_path / "had", "", *MINDS)
    shutil.copy(world / "home-b" / "artefact.npz", config.home / "artefact.npz")
    if what != "halfway":
        shutil.copy(world / "home-c" / "artefact.bank.npz", config.home / "artefact.bank.npz")
    out = Gone(1, frozenset(names_of("b")))
    assert not is_clean(config.home, out)
    forget(config.home, out, {})
    assert is_clean(config.home, out)
    assert learnt(config.home, out)[0] is not None
    if what == "halfway":
        assert state_of(config.home) == state_of(world / "home-b")
    else:
        assert not (config.home / "artefact.bank.npz").exists()


def test_who_came_back_had_no_part_in_what_was_learnt_before(world: Path, tmp_path: Path) -> None:
    config = configured(world, tmp_path / "had", "", *MINDS)
    written_s = (config.home / "artefact.npz").stat().st_mtime
    for back_s, counts in ((written_s + 1, False), (written_s - 1, True)):
        assert (learnt(config.home, Gone(2, returned={"a": back_s}))[0] is not None) is counts


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.sampled_from(tuple(MINDS)), st.booleans())
def test_a_node_without_it_is_one_that_never_had_it(
    world: Path, told: list[Step], gone: str, learns_first: bool
) -> None:
    """Every route, float by float, and every answer with its posterior: now, and after a restart."""

    async def story(folder: Path) -> None:
        others = [name for name in MINDS if name != gone]
        config = configured(world, folder / "had", "", *MINDS)
        never_config = configured(world, folder / "never", gone, *others)

        def learn_anew() -> None:  # what comes of it the test above shows
            for name in ("artefact.npz", "artefact.bank.npz"):
                shutil.copy(never_config.home / name, config.home / name)

        async with Node(config, {}) as had, Node(never_config, {}) as never:
            for i, step in enumerate(told):
                happen(had, i, step)
                if not concerns(step, gone):
                    happen(never, i, step)
                if i % 5 == 4:
                    await had._study()
                    await never._study()
            had._ledger.withdraw(Withdrawal("withdrawn", gone, gone, names_of(gone)))
            if learns_first:
                learn_anew()
            await had._part(had._ledger.gone())
            if not learns_first:
                assert had._load_artefact(config, had._members) is None  # rather nothing than what it learnt
                learn_anew()
                await had.reload()
            await had._study()
            await never._study()
            assert sorted(had.experts) == sorted(never.experts) == others
            assert routes(had) == routes(never)
            assert await answers(had) == await answers(never)
        async with Node(config, {}) as again, Node(never_config, {}) as never:
            assert [r["calls"] for r in routes(again) if "calls" in r] == [
                r["calls"] for r in routes(never) if "calls" in r
            ]

    with TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))


def test_who_came_back_is_new(world: Path, tmp_path: Path) -> None:
    """Its grades, votes that it was among, and how its calls went, do not count; nor after a restart."""
    before: list[Step] = [
        *(("judged", "a", float(i % 3 > 0), ()) for i in range(12)),
        *(("voted", "b", 1.0, ("a", "b", "c")) for _ in range(6)),
        *(("seen", "a", 1.0, ()) for _ in range(6)),
        ("judged", "b", 0.0, ()),
    ]

    async def story() -> None:
        config = configured(world, tmp_path / "had", "", *MINDS)
        async with Node(config, {}) as node:
            for i, step in enumerate(before):
                happen(node, i, step)
            await node._study()
            assert node._router.standing("a").grades > 10
            assert node._router.standing("b").grades > 1
            gone = [Withdrawal("withdrawn", "a", "a", names_of("a"))]
            gone.append(Withdrawal("returned", "a", "a", names_of("a")))
            for turns in (gone, gone[:1], gone[1:]):  # within one look of the node, and apart
                for turn in turns:
                    node._ledger.withdraw(turn)
                await node._part(node._ledger.gone())
                assert node._router.standing("a") == Standing()
                assert node._router.standing("b").grades == 1
                assert "a" not in node._router._evidence
            happen(node, 99, ("judged", "a", 1.0, ()))
            await node._study()
            assert node._router.standing("a").grades == 1
        async with Node(config, {}) as again:
            assert again._router.standing("a").grades == again._router.standing("b").grades == 1

    asyncio.run(story())


def test_what_it_had_a_part_in_is_answered_anew(world: Path, tmp_path: Path) -> None:
    """Also what was on its way; and who still holds the old gateway does not reach it."""

    async def story() -> None:
        config = configured(world, tmp_path / "had", "", *MINDS)
        query = Query((Message("user", f"{QUESTIONS[0]}\nA) red\nB) green\nC) blue\nD) white"),), "max")
        async with Node(config, {}) as node:
            cache, old, renewed = node._cache, node.gateway, []
            assert cache is not None
            node.renewed = lambda: renewed.append(node.gateway)
            before = [chunk async for chunk in old.stream(query)][-1].report
            assert before is not None
            assert "a" in {line.expert for line in before.panel}
            others = msgspec.structs.replace(query, limits=Limits(include=("b",)))  # it had no part in that
            assert [chunk async for chunk in old.stream(others)]
            assert len(cache) == 2
            late = old.stream(msgspec.structs.replace(query, limits=Limits(cache="refresh")))
            await anext(late)
            node._ledger.withdraw(Withdrawal("withdrawn", "a", "a", names_of("a")))
            await node._part(node._ledger.gone())
            assert len(cache) == 0
            async for _ in late:
                pass
            assert len(cache) == 0
            assert renewed == [node.gateway] != [old]
            after = [chunk async for chunk in node.gateway.stream(query)][-1].report
            assert after is not None
            assert after.cache == "miss"
            assert "a" not in {line.expert for line in after.panel}
            with pytest.raises(ManymindsError, match="withdrawn"):
                [chunk async for chunk in old.stream(Query((Message("user", QUESTIONS[0]),), "a"))]
            dropped = [row for row in node._ledger.withdrawals() if row["event"] == "dropped"]
            assert [(row["expert"], row["answers"]) for row in dropped] == [("a", 1)]
            node._ledger.withdraw(Withdrawal("returned", "a", "a", names_of("a")))
            await node._part(node._ledger.gone())
            assert "a" in node.experts
            assert [chunk async for chunk in node.gateway.stream(Query((Message("user", "Qq5"),), "a"))]

    asyncio.run(story())


def skilled(name: str, topic: str, source: str) -> Card:
    return Card(name, "scripted", source=source, skills=(topic,), accuracy=0.6, parameters=1000)


cards = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(tuple(TOPICS)), st.sampled_from(("s", "t", "u"))),
    max_size=20,
)


@given(cards, st.sampled_from(("s", "t", "u")), st.integers(0, 5))
def test_an_index_without_a_source_is_one_that_never_had_it(
    come: list[tuple[str, str, str]], gone: str, seed: int
) -> None:
    """Vectors, counts and what a search finds; chapters and shelves made of them."""
    mine: dict[str, Card] = {}
    had = SkillRouter(index := Index(3), embed)
    for name, topic, source in come:
        mine[name] = skilled(name, topic, source)
        had.admit(mine[name])
    had.forget(gone)
    left = {name: card for name, card in mine.items() if card.source != gone}
    never = SkillRouter(other := Index(3), embed)
    for name in left:
        never.admit(left[name])
    rng = np.random.default_rng(seed)
    for vector in rng.normal(size=(4, 3)).astype(np.float32):
        unit = vector / np.linalg.norm(vector)
        assert index.search(unit, 5) == other.search(unit, 5)
        assert index.similarity(unit, sorted(left)) == other.similarity(unit, sorted(left))
        query = Query((Message("user", "law"),), task=Task("number"), vector=unit)
        if left:
            auto = Limits(policy="auto")
            assert had.route(query, list(left.values()), auto) == never.route(
                query, list(left.values()), auto
            )
    assert index.parameters == other.parameters
    assert [name for name in mine if name in index] == [name for name in left if name in other]
