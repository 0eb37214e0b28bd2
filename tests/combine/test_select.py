import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from manyminds.combine.select import Select
from manyminds.types import Call
from tests.combine.arrivals import answered, panel, question

WHY = question("Why is the sky blue?")


def on_circle(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts are angles in degrees; a cosine of .9 is 25.8 degrees."""
    angles = [math.radians(float(text)) for text in texts]
    return np.array([[math.cos(a), math.sin(a)] for a in angles], np.float32)


def test_texts_that_mean_the_same_vote_together() -> None:
    route = panel(Call("a", "s", 0.7), Call("b", "s", 0.6), Call("c", "s", 0.6))
    answers = [answered("a", "90"), answered("b", "0"), answered("c", "10")]
    select = Select(on_circle)
    first, second, third = select.candidates(WHY, route, answers)
    assert second == third != first
    posterior = select.posterior(WHY, route, answers)
    alone, together = 9 * 0.7 / 0.3, (9 * 0.6 / 0.4) ** 2
    assert dict(zip(posterior.candidates, posterior.probabilities, strict=True)) == pytest.approx(
        {first: alone / (alone + together + 8), second: together / (alone + together + 8)}
    )
    assert select.choose(WHY, route, answers).expert == "b"


def test_clusters_are_connected_whatever_the_order() -> None:
    """0 and 40 are far apart, and both are near 20."""
    route = panel(*(Call(name, "s", 0.6) for name in "abc"))
    for texts in (("0", "40", "20"), ("20", "0", "40"), ("0", "20", "40")):
        answers = [answered(name, text) for name, text in zip("abc", texts, strict=True)]
        assert len(set(Select(on_circle).candidates(WHY, route, answers))) == 1


def test_the_text_in_the_middle_is_released() -> None:
    route = panel(*(Call(name, "s", 0.6) for name in "abc"))
    answers = [answered("a", "0"), answered("b", "40"), answered("c", "20")]
    assert Select(on_circle).choose(WHY, route, answers).expert == "c"


def test_the_middle_is_weighted() -> None:
    route = panel(Call("a", "s", 0.98), Call("b", "s", 0.2), Call("c", "s", 0.2))
    answers = [answered("a", "0"), answered("b", "40"), answered("c", "20")]
    assert Select(on_circle).choose(WHY, route, answers).expert == "a"


def test_of_more_than_enough_nobody_weighs_more_than_the_middle_one() -> None:
    """The heavy one at 0 is near the others and speaks for them only where they are fewer."""
    texts = ("0", "20", "22", "24", "20")
    for others, said in ((3, "a"), (4, "b")):
        names = "abcde"[: others + 1]
        route = panel(*(Call(n, n, 0.98 if n == "a" else 0.2) for n in names))
        answers = [answered(n, text) for n, text in zip(names, texts, strict=False)]
        assert Select(on_circle).choose(WHY, route, answers).expert == said


def test_equal_texts_are_told_apart_by_name() -> None:
    route = panel(Call("b", "s", 0.6), Call("a", "s", 0.6))
    assert Select(on_circle).choose(WHY, route, [answered("b", "5"), answered("a", "5")]).expert == "a"


def test_a_text_without_a_say_joins_nothing_together() -> None:
    route = panel(Call("a", "s", 0.6), Call("b", "s", 0.6), Call("c", "s", 0.6, weight=0.0))
    answers = [answered("a", "0"), answered("b", "40"), answered("c", "20")]
    first, second, third = Select(on_circle).candidates(WHY, route, answers)
    assert first != second
    assert third is None


def test_one_answer_needs_no_encoder() -> None:
    def fail(texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError(texts)

    assert Select(fail).posterior(
        WHY, panel(Call("a", "s", 0.6)), [answered("a", "x")]
    ).best == pytest.approx(0.6)
