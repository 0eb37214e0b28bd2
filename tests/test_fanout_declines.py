"""Who declines has not answered: others are asked, and waited for, as if it had failed."""

from typing import Any

from manyminds.experts.scripted import Scripted
from manyminds.fanout import Fanout, Patience
from manyminds.types import Citation, Grounds, Limits, Route
from tests.changed import replace
from tests.clock import run
from tests.test_fanout import QUERY, calls, ended, expert, fan


def declining(name: str, **script: Any) -> Scripted:
    return expert(name, "They do not say.", grounds=Grounds(0.1, declined=True), **script)


def test_what_an_answer_rests_on_comes_with_it() -> None:
    grounds = Grounds(0.8, (Citation("alice", document="fees.md"),))
    cited = expert("a", "It is 43.", grounds=grounds)
    (answer,) = run(ended(fan(calls(cited), cited)))
    assert (answer.grounds, answer.declined) == (grounds, False)


def test_who_declines_has_not_answered_a_quorum() -> None:
    no, slow = declining("no"), expert("slow", first_token_s=3.0)
    answers = run(ended(fan(calls(no, slow), no, slow, quorum=1)))
    assert [(a.expert, a.status, a.declined) for a in answers] == [("no", "ok", True), ("slow", "ok", False)]


def test_where_all_decline_one_of_the_reserve_is_asked_after_another() -> None:
    async def played(*reserve: Scripted) -> list[str]:
        route = Route("auto", "vote", calls(declining("x"), declining("y")), reserve=calls(*reserve))
        experts = {e.card.name: e for e in (declining("x"), declining("y"), *reserve)}
        async with Fanout(QUERY, route, experts, Patience()) as calls_:
            return [answer.expert async for answer in calls_.finished()]

    assert run(played(declining("z"), expert("m"), expert("n"))) == ["x", "y", "z", "m"]
    assert run(played()) == ["x", "y"]


def test_where_grounds_are_wanted_who_has_none_has_not_answered() -> None:
    async def played() -> list[str]:
        query = replace(QUERY, limits=Limits(grounded=True))
        spare = expert("spare", grounds=Grounds(0.9))
        route = Route("auto", "vote", calls(expert("plain")), reserve=calls(spare))
        experts = {"plain": expert("plain"), "spare": spare}
        async with Fanout(query, route, experts, Patience()) as calls_:
            return [answer.expert async for answer in calls_.finished()]

    assert run(played()) == ["plain", "spare"]
