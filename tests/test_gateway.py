import asyncio
from contextlib import aclosing

import pytest

from manyminds.errors import (
    AllExpertsFailedError,
    CutError,
    DeadlineError,
    InvalidRequestError,
    LedgerError,
    ModelNotFoundError,
    NoExpertError,
    RefusedError,
    UnavailableError,
)
from manyminds.experts.scripted import Script
from manyminds.fanout import Patience
from manyminds.gateway import Gateway
from manyminds.types import Chunk, Limits, Message, Query, Report
from tests.clock import run
from tests.network import Records, network, scripted, words

CHOICE = "Which is the capital of Australia?\nA) Sydney\nB) Canberra"


def ask(text: str, **fields: object) -> Query:
    return Query((Message("user", text),), request_id="r1", **fields)  # type: ignore[arg-type]


async def answer(gateway: Gateway, query: Query) -> tuple[str, Report]:
    async with aclosing(gateway.stream(query)) as stream:
        chunks = [chunk async for chunk in stream]
    report = chunks[-1].report
    assert report is not None
    return "".join(chunk.text for chunk in chunks), report


def test_options_are_voted_on() -> None:
    net = network(
        scripted("a", Script(text="B) Canberra"), accuracy=0.65),
        scripted("b", Script(text="The answer is B."), accuracy=0.65),
        scripted("c", Script(text="A) Sydney"), accuracy=0.7),
    )
    text, report = run(answer(net, ask(CHOICE)))
    assert text in ("B) Canberra", "The answer is B.")
    assert report.strategy == "vote"
    assert report.agreement == pytest.approx(2 / 3)
    assert {entry.expert: entry.answer for entry in report.panel} == {"a": "B", "b": "B", "c": "A"}
    two, one = (0.65 / 0.35) ** 2, 0.7 / 0.3  # odds of B and of A, as independent experts give them
    assert report.probability == pytest.approx(two / (two + one), abs=1e-3)
    assert sum(a.share for a in report.attribution) == pytest.approx(1.0)


def test_open_questions_are_selected() -> None:
    net = network(
        scripted("a", Script(text="cats purr when content")),
        scripted("b", Script(text="cats purr when content")),
        scripted("c", Script(text="zzzz qqqq xxxx")),
    )
    text, report = run(answer(net, ask("Why do cats purr?")))
    assert text == "cats purr when content"
    assert report.strategy == "select"


def test_every_answer_is_recorded() -> None:
    records = Records()
    net = network(
        scripted("a", Script(text="43")), scripted("b", Script(refuse=True)), records=records, embed=words
    )
    text, report = run(answer(net, ask("What is 17 + 26?")))
    (row,) = records.rows
    assert row == (report, "43", "ok")
    assert {a.expert: a.status for a in records.answers} == {"a": "ok", "b": "failed"}
    assert text == "43"
    assert {entry.expert: entry.status for entry in report.panel} == {"a": "ok", "b": "failed"}


def test_a_failing_ledger_does_not_take_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Records):
        def record(self, *_: object) -> None:
            raise LedgerError("The disk is full.")

    text, _ = run(answer(network(scripted("a", Script(text="43")), records=Full()), ask("What is 17 + 26?")))
    assert text == "43"
    assert "The disk is full." in caplog.text


@pytest.mark.parametrize(
    "script",
    [
        Script(refuse=True),
        Script(garbage=True),
        Script(fail_before=UnavailableError("down")),
        Script(text="one two three four", cut_after=2),
        Script(text="one two three four", stall_after=2),
        Script(first_token_s=1000.0),
    ],
    ids=["refusing", "garbage", "down", "cut", "stalled", "slow"],
)
def test_the_others_answer_when_one_fails(script: Script) -> None:
    net = network(scripted("good", Script(text="The answer is 43.")), scripted("bad", script))
    text, report = run(answer(net, ask("What is 17 + 26?")))
    assert text == "The answer is 43."
    bad = next(entry for entry in report.panel if entry.expert == "bad")
    assert bad.status in ("failed", "cut", "late")
    assert bad.error
    assert bad.correct_probability is None


def test_all_failing_says_how_each_did() -> None:
    records = Records()
    net = network(
        scripted("a", Script(refuse=True)),
        scripted("b", Script(fail_before=UnavailableError("b is down."))),
        records=records,
    )
    with pytest.raises(AllExpertsFailedError, match="b failed: b is down") as caught:
        run(answer(net, ask("What is 17 + 26?")))
    assert caught.value.status == 503
    assert records.rows[0][2] == "failed"


def test_the_deadline_is_the_requests_own() -> None:
    async def timed() -> float:
        net = network(
            scripted("slow", Script(text="43", first_token_s=100.0)), patience=Patience(500.0, 500.0)
        )
        with pytest.raises(DeadlineError):
            await answer(net, ask("What is 17 + 26?", limits=Limits(deadline_s=7.0)))
        return asyncio.get_running_loop().time()

    assert run(timed()) == pytest.approx(7.0)


def test_late_answers_do_not_hold_up_a_quorum() -> None:
    net = network(
        scripted("quick", Script(text="43")),
        scripted("slow", Script(text="44", first_token_s=50.0)),
        patience=Patience(500.0, 500.0),
    )
    text, report = run(answer(net, ask("What is 17 + 26?", limits=Limits(quorum=1))))
    assert text == "43"
    assert {e.expert: e.status for e in report.panel} == {"quick": "ok", "slow": "cancelled"}


def test_a_vote_that_is_sure_does_not_wait_for_the_rest() -> None:
    net = network(
        *(scripted(name, Script(text="B"), accuracy=0.9) for name in "ab"),
        scripted("slow", Script(text="A", first_token_s=20.0), accuracy=0.9),
    )

    async def timed(policy: str) -> tuple[str, dict[str, str], float]:
        text, report = await answer(net, ask(CHOICE, limits=Limits(policy=policy)))
        return text, {e.expert: e.status for e in report.panel}, asyncio.get_running_loop().time()

    assert run(timed("auto")) == ("B", {"a": "ok", "b": "ok", "slow": "cancelled"}, 0.0)
    assert run(timed("max")) == ("B", {"a": "ok", "b": "ok", "slow": "ok"}, 20.0)


def quick_liar(honest: int, **limits: object) -> tuple[str, Report]:
    """What is released where one is quick and said to be right, and the others agree that it is not."""
    liar = scripted("liar", Script(text="A) Sydney"), accuracy=0.98)
    slow = Script(text="B) Canberra", first_token_s=2.0)
    others = [scripted(f"e{i}", slow, accuracy=0.6) for i in range(honest)]
    wish = Limits(panel=honest + 1, **limits)  # type: ignore[arg-type]
    return run(answer(network(liar, *others), ask(CHOICE, limits=wish)))


def test_who_is_quick_and_sure_does_not_keep_four_others_from_agreeing() -> None:
    text, report = quick_liar(4)
    assert text == "B) Canberra"
    assert [entry.answer for entry in report.panel if entry.status == "ok"].count("B") >= 2


def test_of_fewer_who_is_sure_is_still_enough_and_so_is_a_quorum() -> None:
    for text, _ in (quick_liar(2), quick_liar(4, quorum=1), quick_liar(4, weights={"liar": 5.0})):
        assert text == "A) Sydney"


def test_a_client_that_leaves_cancels_every_call() -> None:
    experts = [scripted(name, Script(text="a " * 99, per_chunk_s=1.0)) for name in "abc"]
    records = Records()

    async def leave() -> None:
        stream = network(*experts, records=records).stream(ask("Why do cats purr?"))
        task = asyncio.create_task(anext(stream))
        await asyncio.sleep(5.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()

    run(leave())
    assert [expert.cancelled for expert in experts] == [1, 1, 1]
    assert records.rows[0][2] == "cancelled"


def test_an_expert_by_name_is_passed_through_as_it_streams() -> None:
    net = network(scripted("a", Script(text="one two three", per_chunk_s=1.0)), scripted("b", Script()))

    async def times() -> list[float]:
        async with aclosing(net.stream(ask("Say it.", model="a"))) as stream:
            return [asyncio.get_running_loop().time() async for _ in stream]

    found = run(times())
    assert len(found) > 2
    assert found == [0.0, 1.0, 2.0, 2.0], "chunks came together, not as they were made"


def test_a_cut_pass_through_is_an_error_not_a_stop() -> None:
    async def read() -> list[Chunk]:
        chunks: list[Chunk] = []
        net = network(scripted("a", Script(text="one two three four", cut_after=2)))
        with pytest.raises(CutError):
            async with aclosing(net.stream(ask("Say it.", model="a"))) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
        return chunks

    chunks = run(read())
    assert chunks
    assert all(chunk.finish_reason is None for chunk in chunks)


def test_race_streams_the_first() -> None:
    net = network(
        scripted("slow", Script(text="slow", first_token_s=9.0)), scripted("quick", Script(text="quick"))
    )
    text, report = run(answer(net, ask("Why?", limits=Limits(strategy="race"))))
    assert text == "quick"
    assert {e.expert: e.status for e in report.panel}["slow"] == "cancelled"


def test_fuse_asks_the_fuser_and_shows_it() -> None:
    experts = [
        scripted("a", Script(text="cats purr when content")),
        scripted("b", Script(text="dogs bark at night"), accuracy=0.9),
    ]
    _, report = run(answer(network(*experts), ask("Why do cats purr?", limits=Limits(strategy="fuse"))))
    assert report.strategy == "fuse"
    assert [e.expert for e in report.panel if e.method == "fuse"] == ["b"]
    assert {a.source: a.estimated for a in report.attribution} == {"a": True, "b": False}


def test_unknown_names_are_refused() -> None:
    net = network(scripted("a", Script()))
    with pytest.raises(ModelNotFoundError, match="auto, max, cheap, fast, private, a"):
        run(answer(net, ask("Hi", model="nobody")))
    with pytest.raises(InvalidRequestError, match="policy"):
        run(answer(net, ask("Hi", limits=Limits(policy="nothing"))))
    with pytest.raises(NoExpertError):
        run(answer(net, ask("Hi", limits=Limits(include=("nobody",)))))


def test_a_network_without_experts_says_what_to_do() -> None:
    with pytest.raises(UnavailableError, match=r"local\.tier"):
        run(answer(network(), ask("Hi")))


def test_networks_nest() -> None:
    inner = network(scripted("x", Script(text="43")), scripted("y", Script(text="43")))
    outer = network(inner, scripted("z", Script(text="42"), accuracy=0.3))
    text, report = run(answer(outer, ask("What is 17 + 26?")))
    assert text == "43"
    assert {entry.expert for entry in report.panel} == {"net", "z"}


def test_a_nested_network_is_asked_by_name_and_may_refuse() -> None:
    outer = network(network(scripted("x", Script(text="43"))), scripted("z", Script(text="42")))
    text, _ = run(answer(outer, ask("What is 17 + 26?", model="net")))
    assert text == "43"
    with pytest.raises(RefusedError, match="x is excluded"):
        run(answer(outer, ask("Hi", model="net", limits=Limits(exclude=("x",)))))


def test_a_weight_of_zero_has_no_effect() -> None:
    experts = [scripted("a", Script(text="43")), scripted("b", Script(text="44"), accuracy=0.99)]
    text, _ = run(answer(network(*experts), ask("What is 17 + 26?", limits=Limits(weights={"b": 0.0}))))
    assert text == "43"


@pytest.mark.parametrize("policy", ["auto", "cheap", "fast"])
@pytest.mark.parametrize("text", ["What is 17 + 26?", "Why do cats purr?"])
def test_others_stand_in_where_the_whole_panel_fails(policy: str, text: str) -> None:
    down = [scripted(name, Script(fail_before=UnavailableError("down")), accuracy=0.9) for name in "abc"]
    net = network(*down, scripted("z", Script(text="It is 43."), accuracy=0.3))
    found, report = run(answer(net, ask(text, limits=Limits(policy=policy, panel=2))))
    assert found == "It is 43."
    assert {entry.expert: entry.status for entry in report.panel}["z"] == "ok"
    assert sum(a.share for a in report.attribution) == pytest.approx(1.0)


def test_nobody_stands_in_for_an_expert_asked_by_name() -> None:
    net = network(
        scripted("a", Script(fail_before=UnavailableError("down"))), scripted("b", Script(text="b"))
    )
    with pytest.raises(UnavailableError, match="down"):
        run(answer(net, ask("Why?", model="a")))


def test_reserves_are_not_asked_while_the_panel_answers() -> None:
    experts = [scripted(name, Script(text="It is 43.")) for name in "abcde"]
    run(answer(network(*experts), ask("What is 17 + 26?", limits=Limits(panel=2))))
    assert sum(expert.asked for expert in experts) == 2


def test_above_the_width_of_the_index_wishes_still_count() -> None:
    many = [scripted(f"e{i:02}", Script(text="43"), skills=("arithmetic",)) for i in range(70)]
    plain = [scripted(f"p{i:02}", Script(text="44")) for i in range(70)]
    net = network(*many, *plain, embed=words)
    for name in ("e69", "p69"):
        _, report = run(answer(net, ask("What is 17 + 26?", limits=Limits(include=(name,)))))
        assert [entry.expert for entry in report.panel] == [name]
    _, report = run(answer(network(*plain, embed=words), ask("What is 17 + 26?")))
    assert len(report.panel) == 3


def test_a_nested_networks_whole_cost_is_counted() -> None:
    inner = network(scripted("x", Script(text="43")), scripted("y", Script(text="43")))
    _, alone = run(answer(inner, ask("What is 17 + 26?")))
    _, report = run(answer(network(inner), ask("What is 17 + 26?")))
    assert report.cost_usd == pytest.approx(alone.cost_usd)


def test_what_a_question_is_about_is_recorded_with_it() -> None:
    records = Records()
    net = network(scripted("a", Script("43")), scripted("b", Script("43")), records=records)
    for model in ("auto", "a"):
        run(answer(net, ask("17 + 26?", model=model, limits=Limits(topic="sums"))))
    run(answer(net, ask("17 + 26?")))
    assert [query.section or query.limits.topic for query in records.queries] == ["sums", "sums", ""]
    assert records.queries[0].section == "sums"
