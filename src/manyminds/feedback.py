"""What a caller's judgement of an answer says of each expert that was asked. Pure; knows no ledger."""

from collections.abc import Mapping
from typing import Any

from manyminds.types import Outcome, Prior

__all__ = ["judged"]


def judged(request: Mapping[str, Any], correct: float) -> list[Outcome]:
    """Outcomes of the calls of a graded request, a row of `Ledger.requests`.

    Who gave the released answer has the grade. In a vote, where the answer was right, whoever gave another
    one was wrong; where it was wrong, nobody knows about the others. Of a fused answer nobody knows who was
    right.

    Args:
        request: with `strategy` and `calls`, each with `status`, `prior`, `basis` and `probability`, which is
            that of what it answered; None where it gave nothing to compare.
        correct: in [0, 1].
    """
    spoke = [call for call in request["calls"] if call["status"] == "ok" and call["probability"] is not None]
    if not spoke or (request["strategy"] == "fuse" and len(spoke) > 1):
        return []
    released = max(call["probability"] for call in spoke)
    found = []
    for call in spoke:
        if call["probability"] == released:
            grade = correct
        elif request["strategy"] == "vote" and correct > 0.5:
            grade = 1.0 - correct
        else:
            continue
        known = call["prior"] is not None
        prior = Prior(call["prior"], call["basis"] or "") if known else None
        name, expert = request["request_id"], call["expert"]
        found.append(Outcome(name, expert, "ok", None, 0.0, 0, correct=grade, prior=prior))
    return found
