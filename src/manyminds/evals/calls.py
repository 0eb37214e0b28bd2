"""Questions as calls of one expert: how each is asked, which calls are the same, and how it fares.

Knows no folder. What is asked in other words, of another model upstream or with another sampling, is another
call.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from manyminds.errors import ExpertError, RefusedError, RejectedError
from manyminds.evals.questions import Graded
from manyminds.experts.asked import Asked
from manyminds.fanout import Fanout, Patience
from manyminds.router.policy import rates
from manyminds.types import Answer, Call, Expert, Limits, Message, Method, Query, Route, Sampling

__all__ = ["GIVE_UP", "PATIENCE", "SAMPLING", "Calls", "ask", "suits"]

GIVE_UP: Final = 8
"""Failures in a row after which an expert is left alone until the next run."""

PATIENCE: Final = Patience(first_token_s=120.0, idle_s=60.0, deadline_s=600.0)
"""How long to wait for one call, if nobody says otherwise."""

SAMPLING: Final = Sampling(max_tokens=1024, temperature=0.0)
"""How experts generate, if nobody says otherwise."""

_REST_S: Final = 30.0  # at most, between two failures


class Calls:
    """One expert's calls: which there are, which wait, and how it fares."""

    def __init__(self, name: str, expert: Expert, questions: Sequence[Graded], sampling: Sampling) -> None:
        self.name = name
        self.expert = expert
        self.sampling = sampling
        self.calls: dict[tuple[str, str], list[Graded]] = {}
        for graded in questions:
            self.calls.setdefault(self.call(graded), []).append(graded)
        self.asked = 0  # questions of this run
        self.waiting: list[Graded] = []
        self.answered = 0
        self.failures = 0  # in a row
        self.failure: ExpertError | None = None

    def wait_for(self, asked: Sequence[Graded], said: Collection[tuple[str, str]]) -> None:
        """These questions wait, but for calls that were answered before."""
        self.asked = len(asked)
        self.waiting = [graded for graded in asked if self.call(graded) not in said]

    @property
    def queue(self) -> str:
        """Local experts answer one call at a time, in whatever way they are asked."""
        return self.expert.card.variant_of or self.name

    @property
    def rest_s(self) -> float:
        """How long to leave it alone after what it did last: upstreams limit rates, and come back."""
        return min(2.0**self.failures, _REST_S) if self.failures else 0.0

    @property
    def given_up(self) -> bool:
        """Whether it is left alone until the next run."""
        return self.failures >= GIVE_UP

    def fail(self, error: ExpertError) -> None:
        """Counts a failure; one that will not pass by itself at once for all."""
        self.failure = error
        if isinstance(error, RejectedError) or type(error) is ExpertError:
            self.failures = GIVE_UP
        elif not isinstance(error, RefusedError):  # which is of this question, not of all
            self.failures += 1

    def route(self, graded: Graded) -> Route:
        """This expert alone. Options are rated where live votes rate them: tiny models follow letters."""
        card = self.expert.card
        method: Method = "score" if rates(card, graded.task) else "generate"
        call = Call(self.name, card.source, 1.0, method=method)
        return Route("record", "pass", (call,))

    def query(self, graded: Graded) -> Query:
        """What it is sent."""
        return Query(
            messages=(Message("user", graded.text),),
            model=self.name,
            sampling=self.sampling,
            request_id=graded.question.question_id,
            limits=Limits(topic=graded.question.category),
            task=graded.task,
        )

    def call(self, graded: Graded) -> tuple[str, str]:
        """Whose answer it is, and what makes a call another one, as a digest.

        Ways of asking that come to the same for a question are one call.
        """
        task, card, method = graded.task, self.expert.card, self.route(graded).calls[0].method
        name, sampling = card.variant_of or self.name, msgspec.to_builtins(self.sampling)
        how: object
        if isinstance(self.expert, Asked):
            way = self.expert.way(task)
            # "sure": with how likely the answer is, which calls of before did not ask for.
            wished = ["calm"] if way is None else ["sure", msgspec.to_builtins(way), self.expert.wish(task)]
            how = [sampling, *wished]
        else:  # as before there were grammars: what journals hold is not to be asked again
            how = {key: value for key, value in sampling.items() if key != "grammar" or value}
        if method == "score":
            how = list(task.options)
        asked = msgspec.json.encode([graded.text, card.kind, card.model, method, how])
        return name, hashlib.sha256(asked).hexdigest()[:32]


def suits(expert: Expert, graded: Graded) -> bool:
    """Whether this kind of task is one that it answers; who only rates options is asked those it can rate."""
    card, task = expert.card, graded.task
    if card.tasks and task.kind not in card.tasks:
        return False
    return card.tasks != {"option"} or rates(card, task)


async def ask(calls: Calls, graded: Graded, patience: Patience) -> Answer:
    """One answer, or one with its error. Cancelled, it leaves nothing behind."""
    only = {calls.name: calls.expert}
    async with Fanout(calls.query(graded), calls.route(graded), only, patience) as fanout:
        (answer,) = [answer async for answer in fanout.finished()]
    return answer
