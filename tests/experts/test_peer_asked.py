"""Whether a peer is asked at all, and what goes on from there."""

import pytest

from manyminds.errors import BudgetError, ExpertError, RefusedError, SlowError
from manyminds.network.ask import Once, open_ask
from manyminds.network.frames import Sealer, Told
from manyminds.types import Journey, Limits
from tests.experts.test_peer import failure, joined, played, scripted
from tests.network.sides import ANN, BOB, EVE, Asker, Memory, Side, query

# --- who is not asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("journey", "kind", "why"),
    [
        (Journey(50.0, 0), RefusedError, "any further"),
        (Journey(50.0, 3, (BOB.id,)), RefusedError, "on this question's way"),
        (Journey(0.0, 3), SlowError, "no time left"),
    ],
)
def test_a_question_that_may_not_go_there_does_not(
    journey: Journey, kind: type[ExpertError], why: str
) -> None:
    async def story() -> None:
        side, asker = joined()
        assert why in (await failure(asker, kind, query(journey=journey))).message
        assert (side.admitted, asker.reserved, asker.transport.asked) == ([], [], [])

    played(story)


def test_who_cannot_pay_does_not_ask() -> None:
    async def story() -> None:
        _side, asker = joined()
        asker.broke = BudgetError("no money left for bob.")
        assert "no money left" in (await failure(asker, RefusedError)).message
        assert asker.transport.asked == []

    played(story)


@pytest.mark.parametrize("exchange", [bytes(32), b"\1" + bytes(31)])
def test_to_a_key_that_is_none_nothing_goes_and_nothing_is_put_aside(exchange: bytes) -> None:
    async def story() -> None:
        side = Side()
        asker = Asker(Memory({BOB.id: side.answering}), exchange=exchange)
        await failure(asker, RefusedError)
        assert (asker.reserved, asker.transport.asked) == ([], [])

    played(story)


def test_no_more_is_put_aside_than_the_request_may_cost() -> None:
    async def story() -> None:
        side, asker = joined(price_out_usd_per_m=1e6)
        await asker.text(query(max_tokens=3, limits=Limits(budget_usd=0.5)))
        await asker.text(query(max_tokens=3))
        heard = [one.ask.budget_usd for one, _, _ in side.admitted]
        assert [usd for usd, _ in asker.reserved] == heard == [0.5, 3.0]

    played(story)


# --- further on ------------------------------------------------------------------------------------


def test_a_question_goes_on_until_its_hops_are_used_up_and_never_in_a_circle() -> None:
    """Ann asks Bob, who asks Eve, who would ask Ann."""

    async def story() -> None:
        ways = Memory({})
        ann, bob, eve = Side(ANN), Side(BOB), Side(EVE)
        for side, after in ((ann, BOB), (bob, EVE), (eve, ANN)):
            side.expert = Asker(ways, identity=side.identity, to=after).peer
            ways.answering[side.identity.id] = side.answering
        asker = Asker(ways)
        await failure(asker, RefusedError, query(journey=Journey(40.0, 9)))
        (to_bob,), (to_eve,) = bob.admitted, eve.admitted
        assert ann.admitted == []
        assert to_eve[0].ask.visited == (ANN.id, BOB.id)
        assert (to_bob[0].ask.hops, to_eve[0].ask.hops) == (8, 7)
        assert to_eve[0].ask.deadline_s < to_bob[0].ask.deadline_s <= 40.0
        await failure(asker, RefusedError, query(journey=Journey(40.0, 1)))
        assert (len(bob.admitted), len(eve.admitted)) == (2, 1)
        eve.expert = scripted("from eve")
        assert await asker.text(query(journey=Journey(40.0, 9))) == "from eve"
        assert len(bob.kept) == len(eve.kept) == 2

    played(story)


def test_an_ask_is_signed_by_who_passes_it_on() -> None:
    async def story() -> None:
        _side, asker = joined()
        await asker.text()
        (sealed,) = asker.transport.asked
        heard = open_ask(BOB, sealed, Once())
        assert heard.asker == ANN.id
        assert Told(cancel=True) not in [
            Sealer(heard.reply_key, answers=True).open_told(told) for _, _, told in asker.transport.told
        ]

    played(story)
