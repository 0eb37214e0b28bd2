"""Whom answers' owners are told how far each moved the whole."""

from collections.abc import Callable

from manyminds.node import agreed
from manyminds.node.agreed import Unsettled
from manyminds.types import Attribution, Report


def report(*owed: Attribution, request_id: str = "r") -> Report:
    return Report(request_id, "max", "vote", (), None, None, owed, 0.0, 0.0)


def told(unsettled: Unsettled, *granted: tuple[str, float], request_id: str = "r") -> list[tuple[int, float]]:
    """What is settled of answers of these sources, which were granted so much each: which, and how far."""
    found: list[tuple[int, float]] = []

    def settling(i: int) -> Callable[[float], None]:
        return lambda nats: found.append((i, nats))

    for i, (source, nats) in enumerate(granted):
        unsettled.note(source, request_id, nats, settling(i))
    return found


def test_each_source_hears_what_was_measured_of_it_once() -> None:
    unsettled = Unsettled()
    found = told(unsettled, ("bob", 0.5), ("eve", 0.5))
    unsettled.settle(report(Attribution("bob", 0.25, 0.5), Attribution("ann", 0.5, 0.5)))
    assert found == [(0, 0.25)]  # of eve nothing is known: all of hers counts
    unsettled.settle(report(Attribution("bob", 0.25, 0.5)))
    assert found == [(0, 0.25)]


def test_several_answers_of_one_source_share_what_it_moved() -> None:
    unsettled = Unsettled()
    found = told(unsettled, ("bob", 0.5), ("bob", 0.5), ("bob", 0.5))
    unsettled.settle(report(Attribution("bob", 0.75, 1.0)))
    assert found == [(0, 0.5), (1, 0.25), (2, 0.0)]


def test_what_is_estimated_or_of_another_request_is_not_told() -> None:
    unsettled = Unsettled()
    found = told(unsettled, ("bob", 0.5))
    unsettled.settle(report(Attribution("bob", 0.25, 0.5), request_id="other"))
    unsettled.settle(report(Attribution("bob", 0.25, 0.5, estimated=True)))
    assert found == []


def test_requests_of_which_nothing_is_ever_heard_are_forgotten() -> None:
    unsettled = Unsettled()
    first = told(unsettled, ("bob", 0.5), request_id="first")
    for i in range(agreed._MOST_UNSETTLED):
        unsettled.note("bob", f"r{i}", 0.5, lambda _: None)
    unsettled.settle(report(Attribution("bob", 0.25, 0.5), request_id="first"))
    assert first == []
