"""What a caller's judgement of an answer, or a sure vote, says of each expert that was asked.

Pure; knows no ledger.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from manyminds.types import Answer, Outcome, Prior, Report

__all__ = ["agreed", "judged"]

_SURE = 0.95  # posterior of an answer that is taken to be right
_VOTERS = 3  # at least
_WEIGHT = 0.1  # of what votes say: who agrees errs with the others, and its own vote is among them


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


def agreed(report: Report, answers: Sequence[Answer]) -> list[Outcome]:
    """Weak grades of a panel whose vote was sure: whoever gave the released answer is taken to be right.

    Each names all who voted, without any of whom it would not have been said.
    """
    if len(report.panel) < _VOTERS or report.strategy != "vote" or not answers:
        return []
    if report.probability is None or report.probability < _SURE:
        return []
    spoke = [e for e in report.panel if e.status == "ok" and e.correct_probability is not None]
    voters = tuple(sorted({entry.expert for entry in spoke}))
    if len(voters) < _VOTERS:
        return []
    priors = {answer.expert: answer.prior for answer in answers}
    return [
        Outcome(
            *(report.request_id, entry.expert, "ok", None, 0.0, 0),
            correct=float(entry.correct_probability == report.probability),
            prior=priors.get(entry.expert),
            weight=_WEIGHT,
            voters=voters,
        )
        for entry in spoke
    ]
