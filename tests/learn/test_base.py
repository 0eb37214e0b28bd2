import numpy as np
import pytest

from manyminds.learn.base import features, make
from tests.changed import replace
from tests.learn.made import TOPICS, outcomes, same, without


def test_it_is_made_from_the_questions_alone() -> None:
    examples = outcomes(n=120, unasked=0.2)
    others = outcomes({"zoe": 0.2, "yan": 0.9}, n=120)
    for other in (without(examples, "bob"), others):
        assert same(make(other), make(examples))
        assert same(features(make(other), other), features(make(examples), examples))


def test_features_are_those_that_the_router_sees() -> None:
    examples = outcomes(n=60)
    base = make(examples)
    x = features(base, examples)
    assert examples.vectors is not None
    assert x.shape == (60, base.width)
    for i in range(60):
        assert same(x[i], base.features(examples.vectors[i], examples.topics[i]))
    assert x.mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    assert x[:, len(TOPICS) :].std(axis=0) == pytest.approx(1.0)


def test_a_topic_that_is_not_said_is_guessed_from_the_text() -> None:
    examples, fresh = outcomes(n=600, seed=1), outcomes(n=600, seed=2)
    base = make(examples)
    x = features(base, replace(fresh, topics=("",) * 600))[:, : len(TOPICS)]
    guessed = [TOPICS[i] for i in (x + base.shares).argmax(axis=1)]
    assert np.mean([g == t for g, t in zip(guessed, fresh.topics, strict=True)]) > 0.8
    assert (x + base.shares).sum(axis=1) == pytest.approx(1.0)


def test_of_an_unknown_question_every_feature_is_the_average() -> None:
    base = make(outcomes(n=60))
    wrong_width = np.ones(3, np.float32)
    for vector in (None, wrong_width):
        for topic in ("", "of no use"):
            assert (base.features(vector, topic) == 0.0).all()


def test_rare_topics_and_a_single_one_are_not_learnt() -> None:
    examples = outcomes(n=60, topics=False)
    assert make(replace(examples, topics=("art",) * 60)).topics == ()
    rare = ("art",) * 30 + ("law",) * 21 + ("sea",) * 9
    base = make(replace(examples, topics=rare))
    assert base.topics == ("art", "law")
    assert base.shares == pytest.approx([0.5, 0.35])


def test_without_texts_and_topics_there_is_no_feature() -> None:
    examples = outcomes(n=20, topics=False)
    base = make(examples)
    assert base.width == 0
    assert features(base, examples).shape == (20, 0)


def test_texts_that_are_all_the_same_have_no_direction() -> None:
    examples = replace(outcomes(n=20, topics=False), vectors=np.full((20, 6), 0.4, np.float32))
    assert make(examples).directions.shape == (6, 0)
