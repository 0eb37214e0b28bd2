"""Experts that answer from documents, as the router sees them: what is near counts, and who stands in."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import NoExpertError
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.router.grades import Standing
from manyminds.router.limits import eligible
from manyminds.router.policy import POLICIES
from manyminds.router.predictor import Load, Prediction, predict, predict_one
from manyminds.types import Card, Limits, Route
from tests.changed import replace
from tests.learn.worlds import ask
from tests.router.test_planner import card, made
from tests.router.test_policy import TEXT, expert, query, route, staged

LOAD = Load(prompt_tokens=1000, completion_tokens=100, context_tokens=1100)
DOCS = Card("d", "documents", accuracy=0.0, paragraphs=9, offers=frozenset({"citations"}))
BOTH = replace(DOCS, name="both", kind="peer", accuracy=0.6)
MODEL = Card("m", "scripted", accuracy=0.7)

cosines = st.integers(-100, 100).map(lambda i: i / 100)


def holds(similarity: float) -> float:
    return 1.0 / (1.0 + math.exp(13.6 - 21.1 * similarity))


def documents(name: str, p: float, cost_usd: float = 0.0, latency_s: float = 1.0) -> Prediction:
    made = expert(name, p, cost_usd, latency_s, accuracy=0.0, paragraphs=9, offers=frozenset({"citations"}))
    return replace(made, documents=p)


def reserve(found: Route) -> list[str]:
    return [call.expert for call in found.reserve]


# --- how likely one is to know ---------------------------------------------------------------------


@given(cosines)
def test_documents_are_as_likely_to_know_as_they_are_near(similarity: float) -> None:
    (found,) = predict([DOCS], {}, {"d": similarity}, LOAD)
    assert found.probability == pytest.approx(holds(similarity) * 0.9)


@given(cosines, cosines)
def test_how_near_documents_are_changes_no_other_expert(similarity: float, other: float) -> None:
    cards = [MODEL, replace(MODEL, name="n"), DOCS]
    near = {"m": other, "n": 0.2}
    alone = predict(cards[:2], {}, near, LOAD)
    assert predict(cards, {}, near | {"d": similarity}, LOAD)[:2] == alone


@given(cosines)
def test_who_has_models_too_may_know_by_either(similarity: float) -> None:
    found, _ = predict([BOTH, MODEL], {}, {"both": similarity, "m": similarity}, LOAD)
    assert found.probability == pytest.approx(1 - (1 - 0.6) * (1 - holds(similarity) * 0.9))


def test_without_an_encoder_documents_may_know() -> None:
    assert predict_one(DOCS, None, LOAD).probability == pytest.approx(0.3 * 0.9)


def test_grades_say_how_well_documents_are_read() -> None:
    graded = Standing(grades=8.0, correct=2.0)
    found = predict_one(DOCS, None, LOAD, graded=graded, similarity=0.9)
    assert found.probability == pytest.approx(holds(0.9) * (8 * 0.9 + 2) / 16)
    assert predict_one(BOTH, None, LOAD, graded=graded, similarity=0.9).probability < 0.98


# --- who is asked ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_in_reserve_is_somebody_who_needs_no_documents(policy: str) -> None:
    every = [documents(f"d{i:02}", 0.8 - i / 100) for i in range(20)]
    models = [expert("weak", 0.2, 0.1, 9.0), expert("better", 0.3, 0.1, 9.0)]
    found = route(policy, [*every, *models], query(TEXT))
    assert reserve(found)[-1] == "better"
    assert len(found.reserve) == 3
    assert "weak" not in reserve(found)
    assert all(name.startswith("d") for stage in staged(found) for name in stage)


def test_where_a_model_is_asked_already_the_likeliest_stand_in() -> None:
    every = [expert("m", 0.9), *(documents(f"d{i}", 0.8 - i / 100) for i in range(9)), expert("n", 0.1)]
    assert reserve(route("auto", every)) == ["d2", "d3", "d4"]


def test_where_nobody_else_may_be_asked_documents_stand_in_for_documents() -> None:
    every = [documents(f"d{i}", 0.8 - i / 100) for i in range(9)]
    assert reserve(route("auto", every)) == ["d3", "d4", "d5"]


def test_documents_do_not_write_what_others_said() -> None:
    every = [documents("d", 0.9), expert("m", 0.5, accuracy=0.4)]
    limits = Limits(strategy="fuse")
    assert route("auto", every, query(TEXT), limits).fuser == "m"
    alone = route("auto", [documents("d", 0.9), documents("e", 0.8)], query(TEXT), limits)
    assert (alone.strategy, alone.fuser) == ("select", None)


@pytest.mark.parametrize(("policy", "panel"), [("auto", None), ("max", 4), ("auto", 2)])
def test_documents_that_hold_the_answer_have_a_place_on_the_panel(policy: str, panel: int | None) -> None:
    every = [expert(f"m{i}", 0.9 - i / 100) for i in range(9)]
    limits = Limits(panel=panel)
    found = staged(route(policy, [*every, documents("held", 0.6)], limits=limits))
    size = panel or 3
    assert found == [[*(f"m{i}" for i in range(size - 1)), "held"]]
    assert "far" not in str(staged(route(policy, [*every, documents("far", 0.4)], limits=limits)))
    one = route(policy, [*every, documents("held", 0.6)], limits=Limits(panel=1))
    assert staged(one) == [["m0"]]


def asked(policy: str, similarity: float, **docs: object) -> Route:
    """By plans that know of a to d alone, of which b is right in 83 of 100."""
    vector = np.zeros(8, np.float32)
    vector[0] = 1.0
    index = Index(8)
    router = SkillRouter(index, None, made())
    near = np.zeros((1, 8), np.float32)
    near[0, :2] = similarity, math.sqrt(1 - similarity**2)
    shown = replace(DOCS, **docs)
    router.admit(shown, vectors=near)
    limits = Limits(policy=policy)
    question = replace(ask(), vector=vector, limits=limits)
    return router.route(question, [*(card(name) for name in "abcd"), shown], limits)


@pytest.mark.parametrize("policy", ["auto", "max"])
def test_no_plan_shuts_out_documents_that_hold_the_answer(policy: str) -> None:
    for similarity in (0.95, 0.75):  # the likeliest of all; and likelier than not
        assert "docs" in {call.expert for call in asked(policy, similarity, name="docs").calls}


@pytest.mark.parametrize("policy", POLICIES)
def test_where_documents_are_far_the_plan_is_as_it_was(policy: str) -> None:
    plan = asked(policy, 0.1, name="docs").calls
    assert "docs" not in {call.expert for call in plan}
    assert plan == asked(policy, 0.1, name="docs", accuracy=0.3).calls


def test_who_has_a_few_documents_beside_models_does_not_put_plans_aside() -> None:
    plan = asked("auto", 0.1, name="docs").calls
    assert asked("auto", 0.1, name="docs", accuracy=0.95).calls == plan


def test_who_has_no_documents_is_not_asked_where_grounds_are_wanted() -> None:
    asked, limits = query(demands=["citations"]), Limits(grounded=True)
    assert eligible([DOCS, MODEL, BOTH], asked, limits, LOAD) == [BOTH, DOCS]
    with pytest.raises(NoExpertError, match=r"m does not offer citations\. Nobody of them") as caught:
        eligible([MODEL], asked, limits, LOAD)
    assert caught.value.param == "manyminds.grounded"
