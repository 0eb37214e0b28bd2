"""A request as a gateway records it."""

from manyminds.errors import CutError
from manyminds.feedback import judged
from manyminds.ledger import Grade, Ledger
from manyminds.types import Answer, Key, Message, Outcome, PanelEntry, Query, Report, Usage

ANSWERS = (
    Answer("a", "alice", "ok", "4", ttft_s=0.1, seconds=0.3, usage=Usage(7, 2, 0.25, 0.001)),
    Answer("b", "bob", "cut", "fo", stage=1, seconds=0.2, error=CutError("it said: PROMPT")),
)
OUTCOMES = (Outcome("r", "a", "ok", 0.1, 0.3, 2, 1.0), Outcome("r", "b", "cut", None, 0.2, 0))


def entry(answer: Answer, weight: float, cost_usd: float) -> PanelEntry:
    return PanelEntry(
        answer.expert,
        answer.source,
        weight,
        answer.text,
        0.7,
        None,
        0.2,
        cost_usd,
        answer.status,
        answer.stage,
    )


def report(request_id: str = "r", cost_usd: float = 0.003, policy: str = "auto") -> Report:
    panel = (entry(ANSWERS[0], 0.6, 0.001), entry(ANSWERS[1], 0.4, 0.002))
    return Report(request_id, policy, "vote", panel, 0.5, 0.8, (), cost_usd, 0.01)


def ask(text: str = "PROMPT", key: str = "") -> Query:
    return Query((Message("user", text),), key=Key(key, "somebody") if key else None)


def record(ledger: Ledger, request_id: str = "r", *, policy: str = "auto", key: str = "") -> None:
    """A request with two calls, at 0.001 and 0.002 dollars."""
    ledger.record(report(request_id, policy=policy), ask(key=key), ANSWERS, "4", "ok", 0.4, OUTCOMES)


def counted(ledger: Ledger) -> tuple[int, int]:
    """Requests and calls that are there."""
    rows = ledger.requests(1_000_000)
    return len(rows), sum(len(row["calls"]) for row in rows)


def grade(ledger: Ledger, request_id: str, key: str, correct: float, most: int = 100) -> Grade:
    """What its caller says of a request, as a node keeps it."""
    return ledger.grade(request_id, key, correct, judged, most)
