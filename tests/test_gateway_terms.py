"""What sources allow and callers want holds for every way in which an answer comes about."""

import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.admission import Admission
from manyminds.attribution import apart_nats, most_nats
from manyminds.cache import Cache
from manyminds.errors import (
    BudgetError,
    ForbiddenError,
    InvalidRequestError,
    ManymindsError,
    NoExpertError,
    RateLimitError,
    RequiredError,
    UnavailableError,
)
from manyminds.experts.scripted import Script, Scripted
from manyminds.gateway import Gateway
from manyminds.types import Chunk, Journey, Key, Limits, Query, Report, Terms
from tests.admission.ledger import NANO, FakeLedger, Time, door
from tests.clock import run
from tests.network import Records, network, scripted
from tests.test_gateway import CHOICE, answer, ask

TEXT = "Why do cats purr?"
WAYS = ("pass", "auto", "fallbacks", "race")


def one(name: str, text: str = "B", terms: Terms | None = None, **card: Any) -> Scripted:
    return scripted(name, Script(text=text), **({"terms": terms} if terms else {}), **card)


def way(kind: str, name: str = "a", **limits: Any) -> Query:
    """A question by which the expert of that name would be asked."""
    if kind == "pass":
        return ask(CHOICE, model=name, limits=Limits(**limits))
    if kind == "fallbacks":
        return ask(CHOICE, model=name, fallbacks=("nobody",), limits=Limits(**limits))
    return ask(CHOICE, limits=Limits(strategy="race" if kind == "race" else None, **limits))


@pytest.mark.parametrize("kind", WAYS)
def test_a_purpose_must_be_allowed(kind: str) -> None:
    net = network(one("a", terms=Terms(purposes=("research", "teaching"))))
    with pytest.raises(ForbiddenError, match=r"a allows research, teaching only.*set manyminds.purpose"):
        run(answer(net, way(kind)))
    with pytest.raises(ForbiddenError, match="this is for 'ads'"):
        run(answer(net, way(kind, purpose="ads")))
    assert run(answer(net, way(kind, purpose="teaching")))[0] == "B"


@pytest.mark.parametrize("kind", WAYS)
def test_a_caller_must_be_allowed(kind: str) -> None:
    net, query = network(one("a", terms=Terms(callers=("uni-*", "k-7")))), way(kind)
    for key in (Key("k-7", "x"), Key("k-8", "uni-oslo")):
        assert run(answer(net, Query(**{**_fields(query), "key": key})))[0] == "B"
    for stranger, said in ((None, "has no key"), (Key("k-9", "shop"), "asked by 'shop'")):
        with pytest.raises(ForbiddenError, match=said):
            run(answer(net, Query(**{**_fields(query), "key": stranger})))


def _fields(query: Query) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__struct_fields__}


def test_another_node_is_meant_by_its_id() -> None:
    async def asked(node: str, purpose: str) -> str:
        net = network(one("a", terms=Terms(callers=("node-*",), purposes=("care",))))
        journey = Journey(1000.0, 3, ("x", node), purpose)
        return (await answer(net, Query(**{**_fields(way("auto")), "journey": journey})))[0]

    assert run(asked("node-1", "care")) == "B"
    for node, purpose in (("other", "care"), ("node-1", "ads")):
        with pytest.raises(ForbiddenError):
            run(asked(node, purpose))


def test_whoever_may_not_answer_is_not_asked_and_the_others_are() -> None:
    for experts in (3, 80):  # all of them are looked at, or those that the index finds
        closed = [one(f"a{i:02}", "A", Terms(purposes=("x",)), accuracy=0.9) for i in range(experts)]
        text, report = run(answer(network(*closed, one("b")), ask(CHOICE)))
        assert (text, {entry.expert for entry in report.panel}) == ("B", {"b"})
        with pytest.raises(ForbiddenError, match="a00 allows x only"):
            run(answer(network(*closed), ask(CHOICE)))


def test_who_is_named_and_may_not_answer_is_said_beside_those_who_cannot() -> None:
    net = network(one("a", terms=Terms(purposes=("x",))), one("b"))
    with pytest.raises(NoExpertError, match=r"b is not included.*a allows x only"):
        run(answer(net, ask(CHOICE, limits=Limits(include=("a",)))))


# --- rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WAYS)
def test_a_source_is_asked_no_more_often_than_it_likes(kind: str) -> None:
    time = Time()
    sources = door({}, None, time, open=True).sources
    net = network(one("a", terms=Terms(requests_per_min=2)), sources=sources)
    for _ in range(2):
        run(answer(net, way(kind)))
    with pytest.raises(RateLimitError, match="'a' lets itself be asked 2 times a minute") as error:
        run(answer(net, way(kind)))
    assert error.value.retry_after_s == pytest.approx(30.0)
    time.pass_s(30.0)
    run(answer(net, way(kind)))


def test_others_are_asked_meanwhile_and_the_reply_says_so() -> None:
    sources = door({}, open=True).sources
    net = network(one("a", "A", Terms(requests_per_min=1), accuracy=0.9), one("b"), sources=sources)
    asked = [run(answer(net, ask(CHOICE)))[1] for _ in range(2)]
    assert [{entry.expert for entry in report.panel} for report in asked] == [{"a", "b"}, {"b"}]
    (line,) = asked[1].granted  # type: ignore[misc]
    assert (line.source, line.refused[:12]) == ("a", "The source '")


# --- budgets ---------------------------------------------------------------------------------------


def bounded(budget: float, text: str = "A", *, fuser: bool = False) -> tuple[Gateway, Admission, FakeLedger]:
    ledger = FakeLedger()
    admission = door({}, ledger, open=True)
    terms = Terms(budget_nats=budget, period="total")
    mine = one("a", text, terms, accuracy=0.95 if fuser else 0.75)
    return (
        network(mine, one("b", "B"), one("c", "B", accuracy=0.65), sources=admission.sources),
        admission,
        ledger,
    )


def moved(report: Report, source: str = "a") -> float:
    return sum(owed.divergence for owed in report.attribution if owed.source == source)


def test_a_source_is_weighed_down_to_what_is_left_and_then_not_asked() -> None:
    async def main() -> None:
        net, admission, ledger = bounded(2.0, "B")
        spent, weights, asked = 0.0, [], []
        for _ in range(60):
            _, report = await answer(net, ask(CHOICE))
            (line,) = report.granted  # type: ignore[misc]
            asked.append(not line.refused)
            if line.refused:
                assert "given or set aside all but" in line.refused
                assert line.source not in {entry.source for entry in report.panel}
                continue
            assert moved(report) <= line.nats <= 2.0  # type: ignore[operator]
            spent += moved(report)
            weights.append(line.weight)
        assert spent <= 2.0
        assert asked == sorted(asked, reverse=True)
        assert not asked[-1]
        assert len(set(weights)) > 1
        assert ledger.leased["source:a", "total"] <= 2 * NANO
        await admission.close()
        assert ledger.leased["source:a", "total"] >= spent * NANO - 1

    run(main())


@pytest.mark.parametrize("kind", ["pass", "race", "fallbacks"])
def test_who_is_the_answer_puts_all_of_it_aside(kind: str) -> None:
    async def main() -> None:
        admission = door({}, open=True)
        terms = Terms(budget_nats=14.0, period="total")
        net = network(one("a", terms=terms, accuracy=0.7), sources=admission.sources)
        (line,) = (report := (await answer(net, way(kind)))[1]).granted  # type: ignore[misc]
        assert line.nats == pytest.approx(most_nats(1))
        assert 5.0 < moved(report) <= line.nats
        await answer(net, way(kind))
        with pytest.raises(BudgetError, match="The source 'a' has given or set aside"):
            await answer(net, way(kind))  # less is left than one answer may take
        await admission.close()

    run(main())


def test_what_released_nothing_moved_nothing() -> None:
    async def main() -> None:
        admission = door({}, ledger := FakeLedger(), open=True)
        terms = Terms(budget_nats=7.0, period="total")
        script = Script(fail_before=UnavailableError("down"))
        net = network(scripted("a", script, terms=terms), sources=admission.sources)
        for kind in ("pass", "auto", "race") * 3:
            with pytest.raises(ManymindsError, match="down"):
                await answer(net, way(kind))
        await admission.close()
        assert ledger.leased["source:a", "total"] == 0

    run(main())


def test_an_answer_that_broke_off_is_paid_whole() -> None:
    async def main() -> None:
        admission = door({}, ledger := FakeLedger(), open=True)
        terms = Terms(budget_nats=7.0, period="total")
        net = network(
            scripted("a", Script(text="one two three", cut_after=2), terms=terms), sources=admission.sources
        )
        with pytest.raises(ManymindsError):
            await answer(net, way("pass"))
        await admission.close()
        assert ledger.leased["source:a", "total"] == math.ceil(most_nats(1) * NANO)

    run(main())


def test_a_key_without_money_takes_nothing_from_a_source() -> None:
    async def broke(_: Key, __: float) -> Any:
        raise BudgetError("No money.")

    async def main() -> None:
        admission = door({}, ledger := FakeLedger(), open=True)
        net = network(
            one("a", terms=Terms(budget_nats=7.0, period="total")), sources=admission.sources, reserve=broke
        )
        for kind in ("pass", "auto"):
            with pytest.raises(BudgetError, match="No money"):
                await answer(net, Query(**{**_fields(way(kind)), "key": Key("k", "k", budget_usd=1.0)}))
        await admission.close()
        assert ledger.leased["source:a", "total"] == 0

    run(main())


def test_a_fuser_and_its_drafts_put_all_aside_and_pay_it() -> None:
    async def main() -> None:
        net, admission, ledger = bounded(50.0, fuser=True)
        query = ask(CHOICE.replace("A)", "-").replace("B)", "-"), limits=Limits(strategy="fuse"))
        _, report = await answer(net, query)
        (line,) = report.granted  # type: ignore[misc]
        assert report.strategy == "fuse"
        assert line.nats == pytest.approx(most_nats(3))
        await admission.close()
        assert ledger.leased["source:a", "total"] >= most_nats(3) * NANO - 1

    run(main())


class Echo(Scripted):
    """As a fuser, it says whether it was shown what `a` wrote."""

    def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        asked = "\n".join(message.text for message in query.messages)
        said = "It is for comfort." if "purrs to heal" not in asked else "zzz qqq xxx heals"
        return Scripted(self.card, Script(text=said)).stream(query)


@pytest.mark.parametrize("full", [False, True])
def test_what_a_fused_answer_owes_is_measured_where_it_is_asked_for(full: bool) -> None:
    async def main() -> None:
        admission = door({}, ledger := FakeLedger(), open=True)
        terms = Terms(budget_nats=50.0, period="total")
        experts = [
            scripted("a", Script(text="A cat purrs to heal"), terms=terms),
            scripted("b", Script(text="Cats like it, mostly"), terms=terms),
            scripted("c", Script(text="Nobody knows why at all"), terms=terms, accuracy=0.6),
            Echo(one("f", accuracy=0.95).card, Script()),
        ]
        limits = Limits(strategy="fuse", explain="full" if full else True, exclude=())
        text, report = await answer(network(*experts, sources=admission.sources), ask(TEXT, limits=limits))
        owed = {row.source: row for row in report.attribution}
        drafts = {entry.source for entry in report.panel if entry.method != "fuse"}
        fused = [entry for entry in report.panel if entry.method == "fuse"]
        assert text == "zzz qqq xxx heals"
        assert len(fused) == (1 + len(drafts) if full else 1)
        assert owed["f"].divergence == max(row.divergence for row in owed.values())
        assert not owed["f"].estimated
        for source in drafts - {"f"}:
            assert owed[source].estimated == (not full)
        assert math.fsum(row.share for row in owed.values()) == pytest.approx(1.0)
        if full:
            assert owed["a"].divergence == pytest.approx(apart_nats())
            assert owed["b"].divergence == 0.0
        await admission.close()
        paid = {account: leased / NANO for (account, _), leased in ledger.leased.items()}
        assert paid["source:a"] == pytest.approx(apart_nats() if full else most_nats(3), abs=0.002)
        assert paid["source:b"] == pytest.approx(0.0 if full else most_nats(3), abs=0.002)

    run(main())


budgets = st.one_of(st.none(), st.integers(0, 900).map(lambda i: i / 100))
shares = st.sampled_from((1.0, 1.0, 0.7, 0.4, 0.2))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(budgets, shares, st.sampled_from("AB"), st.integers(5, 95)), min_size=1, max_size=5),
    st.lists(st.sampled_from(("vote", "race", "select", "fuse", None)), min_size=1, max_size=8),
)
def test_no_source_ever_moves_more_than_it_has_nor_has_more_than_its_share(
    made: list[tuple[float | None, float, str, int]], strategies: list[Any]
) -> None:
    async def main() -> None:
        ledger = FakeLedger()
        admission = door({}, ledger, open=True)
        experts, limit, most = [], {}, {}
        for i, (budget, share, text, percent) in enumerate(made):
            name = f"e{i}"
            limit[name], most[name] = budget, share
            terms = Terms(budget_nats=budget, max_share=share, period="total")
            experts.append(one(name, text, terms, accuracy=percent / 100))
        net, spent = network(*experts, sources=admission.sources), dict.fromkeys(limit, 0.0)
        for strategy in strategies:
            try:
                _, report = await answer(net, ask(CHOICE, limits=Limits(strategy=strategy)))
            except ManymindsError:
                continue
            assert math.isclose(math.fsum(owed.share for owed in report.attribution), 1.0, abs_tol=1e-9)
            for owed in report.attribution:
                spent[owed.source] += owed.divergence
                assert owed.share <= most[owed.source]
        for name, nats in spent.items():
            most_of_it = limit[name]
            assert most_of_it is None or nats <= most_of_it + 1e-9
        await admission.close()
        for (account, _), leased in ledger.leased.items():
            name = account.removeprefix("source:")
            assert spent[name] * NANO <= leased + 1 <= limit[name] * NANO + 2  # type: ignore[operator]

    run(main())


def test_an_answer_that_counts_is_not_kept() -> None:
    async def main() -> None:
        for terms, kept in (
            (Terms(budget_nats=50.0), 0),
            (Terms(requests_per_min=9), 0),
            (Terms(callers=("*",)), 1),
        ):
            cache = Cache(10, 10**6, 60.0, policies=("auto", "pass"))
            sources = door({}, open=True).sources
            net = network(one("a", terms=terms), one("b"), cache=cache, sources=sources)
            await answer(net, ask(CHOICE))
            assert len(cache) == kept
            await answer(net, ask(CHOICE, model="a"))
            assert len(cache) == 2 * kept

    run(main())


def test_another_node_s_purpose_finds_no_answer_that_was_kept_for_this_one() -> None:
    async def main() -> None:
        cache = Cache(10, 10**6, 60.0)
        net = network(one("a", terms=Terms(purposes=("care",))), cache=cache)
        for purpose, node, found in (("care", "n1", "miss"), ("care", "n1", "hit"), ("care", "n2", "miss")):
            journey = Journey(1000.0, 3, (node,), purpose)
            _, report = await answer(net, Query(**{**_fields(way("auto")), "journey": journey}))
            assert report.cache == found
        with pytest.raises(ForbiddenError):
            journey = Journey(1000.0, 3, ("n1",), "ads")
            await answer(net, Query(**{**_fields(way("auto")), "journey": journey}))

    run(main())


# --- what a request requires -----------------------------------------------------------------------


def asked(report: Report) -> set[str]:
    return {entry.expert for entry in report.panel}


def five(*more: Scripted) -> list[Scripted]:
    return [one(f"e{i}", accuracy=0.9 - i / 10) for i in range(5)] + list(more)


def test_who_is_required_is_asked_beside_the_others() -> None:
    records = Records()
    net = network(*five(one("z", "A", source="zoe", accuracy=0.3)), records=records)
    for name in ("z", "zoe"):
        for policy in ("auto", "max", "cheap", "fast"):
            _, report = run(answer(net, ask(CHOICE, model=policy, limits=Limits(require=(name,)))))
            assert {"z"} < asked(report)
            assert sum(entry.weight for entry in report.panel) == pytest.approx(1.0)
            assert next(entry.stage for entry in report.panel if entry.expert == "z") == 0
            (line,) = report.granted  # type: ignore[misc]
            assert (line.source, line.wish) == ("zoe", "require")


def test_a_quorum_waits_for_who_is_required() -> None:
    slow = scripted("slow", Script(text="A", first_token_s=5.0), accuracy=0.6)
    limits = Limits(require=("slow",), quorum=1)
    for text in (CHOICE, TEXT):
        _, report = run(answer(network(*five(slow)), ask(text, limits=limits)))
        assert next(entry.status for entry in report.panel if entry.expert == "slow") == "ok"


def test_a_panel_and_a_budget_keep_a_place_for_who_is_required() -> None:
    net = network(*five(one("z", "A", accuracy=0.3)))
    _, report = run(answer(net, ask(CHOICE, model="max", limits=Limits(require=("z", "e4"), panel=3))))
    assert asked(report) == {"z", "e4", "e0"}
    with pytest.raises(InvalidRequestError, match="3 are required, and the panel may have 2"):
        run(answer(net, ask(CHOICE, limits=Limits(require=("z", "e4", "e3"), panel=2))))
    dear = network(one("a"), one("z", price_out_usd_per_m=1e6))
    with pytest.raises(NoExpertError, match="z would cost"):
        run(answer(dear, ask(CHOICE, limits=Limits(require=("z",), budget_usd=0.001))))


@pytest.mark.parametrize("script", [Script(refuse=True), Script(fail_before=UnavailableError("down"))])
def test_no_answer_comes_without_who_is_required(script: Script) -> None:
    for text in (CHOICE, TEXT):
        net = network(*five(scripted("z", script)))
        with pytest.raises(RequiredError, match="z, without whose answer this request wants none, failed"):
            run(answer(net, ask(text, limits=Limits(require=("z",)))))


@pytest.mark.parametrize(
    ("terms", "limits", "error", "said"),
    [
        (Terms(purposes=("x",)), {}, ForbiddenError, "z allows x only"),
        (Terms(budget_nats=0.0), {}, BudgetError, "The source 'z'"),
        (Terms(max_share=0.3), {"strategy": "fuse"}, ForbiddenError, "z may have 30%"),
        (Terms(), {"exclude": ("z",)}, NoExpertError, "'z' is required.*excluded"),
        (Terms(), {"weights": {"z": 0.0}}, NoExpertError, "'z' is required.*weight 0"),
        (Terms(), {"require": ("z", "nobody")}, NoExpertError, "named 'nobody'"),
        (Terms(), {"require": ("z", "e0"), "strategy": "race"}, InvalidRequestError, "One expert answers"),
    ],
)
def test_who_is_required_and_cannot_be_asked_is_said(
    terms: Terms, limits: dict[str, Any], error: type[ManymindsError], said: str
) -> None:
    sources = door({}, open=True).sources
    net = network(*five(one("z", "A", terms)), sources=sources)
    with pytest.raises(error, match=said) as caught:
        run(answer(net, ask(CHOICE, limits=Limits(**{"require": ("z",)} | limits))))
    assert caught.value.param == "manyminds.require"


def test_a_model_that_is_not_the_required_one_is_an_error() -> None:
    net = network(one("a"), one("z"))
    for fallbacks in ((), ("z",), ("auto",)):
        with pytest.raises(InvalidRequestError, match="'z' is required"):
            run(answer(net, ask(CHOICE, model="a", fallbacks=fallbacks, limits=Limits(require=("z",)))))
    assert asked(run(answer(net, ask(CHOICE, model="z", limits=Limits(require=("z",)))))[1]) == {"z"}


def test_one_who_is_required_may_run_a_race_alone() -> None:
    _, report = run(answer(network(*five()), ask(TEXT, limits=Limits(require=("e4",), strategy="race"))))
    assert asked(report) == {"e4"}


def test_where_nothing_had_a_say_nothing_is_told() -> None:
    net: Sequence[Scripted] = five(one("z", terms=Terms(purposes=("x",))))
    _, report = run(answer(network(*net), ask(CHOICE, limits=Limits(purpose="y"))))
    assert not report.granted
