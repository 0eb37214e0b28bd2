"""SWE-bench Verified by mini-SWE-agent: which model's patch resolved which issue, and what that cost.

Upstream is the leaderboard's own data file. It has neither prompts nor answers: for routing, not for voting.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from manyminds.errors import DataError
from manyminds.evals.datasets.reading import decode
from manyminds.evals.datasets.schema import AnswerRow, ModelRow, QuestionRow, Tables, split_of

__all__ = ["convert"]

_BOARD: Final = "bash-only"
_INCONSISTENT: Final = 1.0  # points between the issues marked resolved and the board's own figure


class _Outcome(msgspec.Struct):
    resolved: bool
    cost: float | None = None


class _Result(msgspec.Struct):
    name: str
    date: str = ""
    resolved: float = 0.0
    os_model: bool = False
    tags: list[str] = []  # msgspec copies it
    per_instance_details: dict[str, _Outcome] | None = None


class _Board(msgspec.Struct):
    name: str
    results: list[msgspec.Raw]  # of other boards, they have other shapes


class _Boards(msgspec.Struct):
    leaderboards: list[_Board]


def convert(files: Mapping[str, Path]) -> Tables:
    """Models without outcomes per issue are left out, and those whose outcomes contradict the board.

    (The latter is Claude 3.7 Sonnet: 10.2 % by its outcomes, 52.8 % on the board.) Raises: DataError.
    """
    ((where, file),) = files.items()
    boards = [board for board in decode(file, where, _Boards).leaderboards if board.name == _BOARD]
    if len(boards) != 1:
        raise DataError(f"{where} has {len(boards)} leaderboards named {_BOARD}, not one.")
    results = [decode(bytes(result), where, _Result) for result in boards[0].results]
    issues: set[str] = set()
    answers, models = [], []
    for result in results:
        outcomes = result.per_instance_details
        if not outcomes:
            continue
        share = 100.0 * sum(outcome.resolved for outcome in outcomes.values()) / len(outcomes)
        if abs(share - result.resolved) > _INCONSISTENT:
            continue
        issues.update(outcomes)
        models.append(_model(result))
        answers += [
            AnswerRow(f"swe-{issue}", result.name, None, outcome.resolved, True, cost_usd=outcome.cost)
            for issue, outcome in outcomes.items()
        ]
    questions = [
        QuestionRow(key, "swebench_verified", issue.partition("__")[0], None, None, None, split_of(key))
        for issue, key in ((issue, f"swe-{issue}") for issue in issues)
    ]
    return Tables(questions, answers, models)


def _model(result: _Result) -> ModelRow:
    makers = [tag.removeprefix("Org: ") for tag in result.tags if tag.startswith("Org: ")]
    return ModelRow(
        model=result.name,
        family=makers[0] if makers else "",
        params_b=None,
        active_params_b=None,
        open_weights=result.os_model,
        released=result.date,
        price_in_usd_per_m=None,
        price_out_usd_per_m=None,
        price_source="per-instance cost recorded by mini-SWE-agent",
    )
