import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.attribution import attribute
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.types import Answer, Attribution, Call, Combiner, Count, Posterior, Route, Status, Task
from tests.changed import replace
from tests.combine.arrivals import answered, panel, question
from tests.combine.meaning import embed

QUERY = question("Which?", Task("option", ("red", "green", "blue", "black")))

hundredths = st.integers(2, 98).map(lambda i: i / 100)
tenths = st.integers(1, 30).map(lambda i: i / 10)
Panel = tuple[Route, list[Answer]]


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    calls, answers = [], []
    for i in range(draw(st.integers(1, 7))):
        source = draw(st.sampled_from(("ann", "bob", "cid")))
        calls.append(Call(f"e{i}", source, draw(hundredths), weight=draw(tenths)))
        status: Status = "ok" if draw(st.integers(0, 3)) else "failed"
        text = draw(st.sampled_from(("A", "B", "C", "no idea")))
        answers.append(answered(f"e{i}", text, status, source=source))
    return panel(*calls), answers


def direct(combiner: Combiner, route: Route, answers: Sequence[Answer]) -> Count:
    """Every posterior from the answers themselves."""

    def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
        some = [answers[i] for i in kept]
        return combiner.candidates(QUERY, route, some), combiner.posterior(QUERY, route, some)

    return count


def credit(
    route: Route, answers: Sequence[Answer], combiner: Combiner | None = None, alpha: float = 2.0
) -> dict[str, Attribution]:
    count = direct(combiner or Vote(), route, answers)
    rows = attribute(route, answers, count(range(len(answers))), count, alpha)
    assert [row.source for row in rows] == sorted({a.source for a in answers} if rows else ())
    return {row.source: row for row in rows}


@settings(max_examples=300, deadline=None)
@given(panels(), st.sampled_from((0.5, 1.0, 2.0, 10.0)))
def test_shares_are_shares_and_divergences_are_distances(made: Panel, alpha: float) -> None:
    rows = credit(*made, alpha=alpha).values()
    assert all(row.divergence >= 0 and 0 <= row.share <= 1 for row in rows)
    if any(a.status == "ok" for a in made[1]):
        assert math.isclose(math.fsum(row.share for row in rows), 1.0, abs_tol=1e-12)
    else:
        assert not rows


@settings(max_examples=200, deadline=None)
@given(panels())
def test_order_does_not_matter(made: Panel) -> None:
    route, answers = made
    assert credit(replace(route, calls=route.calls[::-1]), answers[::-1]) == credit(route, answers)


@settings(deadline=None)
@given(panels(), st.sampled_from(("A", "B", "D")))
def test_weight_zero_earns_nothing_and_costs_nobody(made: Panel, text: str) -> None:
    route, answers = made
    wider = replace(route, calls=(*route.calls, Call("mute", "zoe", 0.9, weight=0.0)))
    rows = credit(wider, [*answers, answered("mute", text, source="zoe")])
    zoe = rows.pop("zoe", None)
    assert zoe is None or (zoe.divergence, zoe.share) == (0.0, 0.0)
    if zoe is not None:
        assert rows == credit(route, answers)


@given(st.integers(26, 97), hundredths)
def test_more_weight_earns_more(percent: int, other: float) -> None:
    """Above chance, one in four, a voter's weight is positive and grows with its probability."""
    answers = [answered("a", "A", source="ann"), answered("b", "B", source="bob")]
    weak, strong = (
        credit(panel(Call("a", "ann", p / 100), Call("b", "bob", other)), answers)["ann"].divergence
        for p in (percent, percent + 1)
    )
    assert strong > weak


def test_divergence_is_renyi_s() -> None:
    """A lone voter of probability .7: (.7, .3) against (0, 1), floored at .001."""
    row = credit(panel(Call("a", "ann", 0.7)), [answered("a", "A", source="ann")])["ann"]
    low, high = 0.001 / 1.001, 1 / 1.001
    assert row.divergence == pytest.approx(math.log(0.7**2 / low + 0.3**2 / high))
    assert row.share == 1.0
    kl = credit(panel(Call("a", "ann", 0.7)), [answered("a", "A", source="ann")], alpha=1.0)["ann"]
    assert kl.divergence == pytest.approx(0.7 * math.log(0.7 / low) + 0.3 * math.log(0.3 / high))


def test_renyi_is_continuous_in_its_order() -> None:
    route = panel(Call("a", "ann", 0.7), Call("b", "bob", 0.6))
    answers = [answered("a", "A", source="ann"), answered("b", "B", source="bob")]
    near = credit(route, answers, alpha=1.0 + 1e-6)["ann"].divergence
    assert near == pytest.approx(credit(route, answers, alpha=1.0)["ann"].divergence, rel=1e-4)


def test_a_source_is_all_of_its_experts() -> None:
    route = panel(Call("a", "ann", 0.7), Call("b", "ann", 0.7), Call("c", "bob", 0.7))
    answers = [answered(e, "A", source=s) for e, s in (("a", "ann"), ("b", "ann"), ("c", "bob"))]
    rows = credit(route, answers)
    assert rows["ann"].divergence > rows["bob"].divergence


def test_where_all_abstain_those_who_answered_share_alike() -> None:
    route = panel(Call("a", "ann", 0.7), Call("b", "bob", 0.6), Call("c", "cid", 0.6))
    answers = [answered("a", "no idea", source="ann"), answered("b", "hm", source="bob")]
    rows = credit(route, [*answers, answered("c", "", "failed", source="cid")])
    assert {source: row.share for source, row in rows.items()} == {"ann": 0.5, "bob": 0.5, "cid": 0.0}


def test_a_failed_source_earns_nothing() -> None:
    route = panel(Call("a", "ann", 0.7), Call("b", "bob", 0.6))
    rows = credit(route, [answered("a", "A", source="ann"), answered("b", "", "failed", source="bob")])
    assert (rows["ann"].share, rows["bob"].share) == (1.0, 0.0)


def test_nobody_is_credited_for_nothing() -> None:
    assert credit(panel(Call("a", "ann", 0.7)), [answered("a", "", "failed", source="ann")]) == {}
    assert credit(panel(), []) == {}


def test_a_cluster_that_loses_its_name_is_still_that_cluster() -> None:
    """`select` names a cluster by its least text; without that text it must not look like a new answer."""
    route = panel(Call("a", "ann", 0.6), Call("b", "bob", 0.6))
    same = "light is scattered by the air and blue light is scattered most of all"
    answers = [answered("a", same, source="ann"), answered("b", same + " it", source="bob")]
    rows = credit(route, answers, Select(embed))
    assert rows["ann"].divergence == pytest.approx(rows["bob"].divergence)
    both = 13.5**2 / (13.5**2 + 9)  # 9 (.6/.4) each, of ten classes
    assert rows["ann"].divergence == pytest.approx(math.log(0.6**2 / both + 0.4**2 / (1 - both)))


def test_the_winner_of_a_race_earns_all() -> None:
    route = panel(Call("a", "ann", 0.6), Call("b", "bob", 0.9), strategy="race")
    answers = [answered("a", "A", source="ann", ttft_s=0.1), answered("b", "B", source="bob", ttft_s=0.2)]
    rows = credit(route, answers, Race())
    assert (rows["ann"].share, rows["bob"].share) == (1.0, 0.0)


def test_estimates_are_marked() -> None:
    route, answers = panel(Call("a", "ann", 0.7)), [answered("a", "A", source="ann")]
    count = direct(Vote(), route, answers)
    marked = attribute(route, answers, count([0]), count, estimated=True)
    assert [row.estimated for row in marked] == [True]
