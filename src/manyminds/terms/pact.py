"""What was agreed with the sources of one answer, before any of them is asked, and what it came to.

Asks `admission` what they still allow. Knows no router: a route without those who do not is a callable's.
"""

from collections.abc import Callable, Mapping, Sequence

from manyminds.admission import Hold, Sources
from manyminds.errors import BudgetError, ForbiddenError, ManymindsError, RateLimitError, UnavailableError
from manyminds.terms.owners import Demand, bind, demands
from manyminds.types import Answer, Expert, Report, Route, Terms

__all__ = ["Pact", "agree"]

_Find = Callable[[Mapping[str, ManymindsError]], Route]
"""The route without these sources. Raises: ManymindsError where nobody is left."""


class Pact:
    """The terms of all sources on a route that limit more than who may ask, and what they put aside."""

    def __init__(
        self, limits: Mapping[str, Terms], refused: Mapping[str, str], holds: Mapping[str, Hold]
    ) -> None:
        self.terms = limits
        self.refused = refused
        self._holds = holds

    def settle(self, report: Report, answers: Sequence[Answer], status: str, *, begun: bool) -> None:
        """Has each source pay how far it moved the answer: what is paid is never given back.

        Where nothing was released, nothing. All that was put aside, where no measure of it is exact: of an
        answer that broke off when it had `begun`, or was fused and not fused anew without that source.
        """
        moved = {owed.source: owed for owed in report.attribution}
        drafted = {answer.source for answer in answers if answer.status == "ok"}
        for source, hold in self._holds.items():
            owed = moved.get(source)
            if status != "ok":
                hold.settle(hold.amount if begun else 0.0)
            elif owed is not None and owed.estimated and source in drafted:
                hold.settle(hold.amount)
            else:
                hold.settle(owed.divergence if owed is not None else 0.0)

    def release(self) -> None:
        """Nobody was asked."""
        for hold in self._holds.values():
            hold.settle(0.0)


async def agree(
    find: _Find, experts: Mapping[str, Expert], sources: Sources | None
) -> tuple[Route, Pact | None]:
    """The route of whoever can be asked now, with how far each of them may move the answer.

    A source that has nothing left, or was asked too often, is left out, and the route is made again.

    Raises:
        RateLimitError, BudgetError, ForbiddenError: nobody is left; says why, and when that passes.
        ManymindsError: what `find` raises.
    """
    refused: dict[str, ManymindsError] = {}
    counted: set[str] = set()
    while True:
        try:
            route = find(refused)
        except ManymindsError as error:
            if refused:
                raise _nobody(refused, error.param) from error
            raise
        wanted = demands(route, experts)
        said = {source: error.message for source, error in refused.items()}
        if not wanted:
            return route, Pact({}, said, {}) if refused else None
        holds: dict[str, Hold] = {}
        try:
            lacking = await _put_aside(wanted, sources, holds, counted)
        except BaseException:
            _give_back(holds)
            raise
        asked = {demand.source for demand in wanted if not demand.spare}
        if problems := {source: error for source, error in lacking.items() if source in asked}:
            _give_back(holds)
            refused |= problems
            continue
        limits = {demand.source: demand.terms for demand in wanted if demand.source not in lacking}
        nats = {source: hold.amount for source, hold in holds.items()}
        least = {demand.source: demand.least_nats for demand in wanted}
        return bind(route, limits, nats, least, lacking), Pact(limits, said, holds)


async def _put_aside(
    wanted: Sequence[Demand], sources: Sources | None, holds: dict[str, Hold], counted: set[str]
) -> dict[str, ManymindsError]:
    """Fills `holds`; who cannot be asked, and why. Nobody is counted before all have what is needed."""
    lacking: dict[str, ManymindsError] = {}
    for demand in wanted:
        source, its = demand.source, demand.terms
        if demand.refused:
            lacking[source] = ForbiddenError(f"{demand.refused}.")
        elif its.budget_nats is not None and sources is not None:
            try:
                most, least = demand.most_nats, demand.least_nats
                holds[source] = await sources.reserve(source, its, most, least)
            except (BudgetError, UnavailableError) as error:
                lacking[source] = error
    if sources is None or any(demand.source in lacking and not demand.spare for demand in wanted):
        return lacking
    for demand in wanted:
        if demand.source not in lacking and demand.source not in counted:
            try:
                sources.take(demand.source, demand.terms)
                counted.add(demand.source)
            except RateLimitError as error:
                lacking[demand.source] = error
    return lacking


def _give_back(holds: Mapping[str, Hold]) -> None:
    for hold in holds.values():
        hold.settle(0.0)


def _nobody(refused: Mapping[str, ManymindsError], param: str | None) -> ManymindsError:
    """The error of whoever can be asked soonest, with what all of them say."""

    def wait_s(error: ManymindsError) -> float:
        return float("inf") if error.retry_after_s is None else error.retry_after_s

    soonest = min((refused[source] for source in sorted(refused)), key=wait_s)
    message = " ".join(dict.fromkeys(refused[source].message for source in sorted(refused)))
    return type(soonest)(message, param=param, retry_after_s=soonest.retry_after_s)
