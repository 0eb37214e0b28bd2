"""Terms on their way: what is asked for, granted, signed by both and settled; and what nobody agreed to."""

import asyncio
from typing import Any

import msgspec
import pytest

from manyminds.errors import ExpertError, ForbiddenError, GarbageError, RefusedError
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout.tally import Tally
from manyminds.network import receipt
from manyminds.network.answering import Grant
from manyminds.network.ask import MOST_NATS, Accepted, Ask
from manyminds.network.frames import Answered, Frame, Told
from manyminds.network.receipt import Receipt
from manyminds.types import Bound, Call, Card, Chunk, Journey, Limits, Query, Terms
from tests.changed import replace
from tests.experts.test_peer import failure, joined, played, telling
from tests.network.sides import EVE, Asker, Side, own, query, speaks
from tests.network.test_answering import Line

BUDGET = Terms(max_share=0.2, budget_nats=3.0)


def granting(**grant: Any) -> tuple[Side, list[float]]:
    """Bob, who grants half a nat, and what was settled with him."""
    settled: list[float] = []
    return Side(grant=replace(Grant(0.2, 0.5, settled.append), **grant)), settled


def asking(side: Side, terms: Terms = BUDGET) -> Asker:
    return joined(side, terms=terms)[1]


def bounded(nats: float | None = 0.7, max_share: float = 0.2, **more: Any) -> Query:
    return query(bound=Bound(nats, max_share), **more)


# --- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "bound", "accepted"),
    [
        (Terms(), Bound(0.7, 0.2), None),
        (Terms(purposes=("law",), requests_per_min=3), Bound(0.7, 0.2), None),
        (Terms(max_share=0.2), Bound(0.7, 0.1), Accepted(0.1)),
        (Terms(max_share=0.2), None, Accepted(1.0)),  # nobody here holds to it: it is for its owner to refuse
        (Terms(budget_nats=3.0), Bound(0.7), Accepted(1.0, 0.7)),
        (BUDGET, Bound(0.7, 0.2), Accepted(0.2, 0.7)),
        (BUDGET, Bound(6.91, 0.2, 6.91), Accepted(0.2, 6.91, 6.91)),  # used whole, half is of no use
        (BUDGET, Bound(99.0, 1.0, 99.0), Accepted(1.0, MOST_NATS, MOST_NATS)),
        (BUDGET, None, Accepted(1.0, MOST_NATS, MOST_NATS)),
    ],
)
def test_what_is_accepted_is_what_this_call_is_bounded_by(
    terms: Terms, bound: Bound | None, accepted: Accepted | None
) -> None:
    async def story() -> None:
        side = Side()
        await asking(side, terms).text(query(bound=bound))
        ((heard, _, _),) = side.admitted
        assert heard.ask.terms == accepted

    played(story)


def test_what_is_asked_of_a_node_without_terms_is_what_it_was_before_there_were_any() -> None:
    sent = msgspec.json.decode(msgspec.json.encode(own()))
    assert "terms" not in sent
    assert msgspec.json.decode(msgspec.json.encode(sent), type=Ask).terms is None


@pytest.mark.parametrize(
    ("said", "journey", "purpose"),
    [("law", None, "law"), ("", None, ""), ("law", Journey(50.0, 3, (EVE.id,), "sales"), "sales")],
)
def test_the_purpose_is_that_of_the_request_and_then_of_whoever_asked_first(
    said: str, journey: Journey | None, purpose: str
) -> None:
    async def story() -> None:
        side = Side()
        await asking(side).text(query(limits=Limits(purpose=said), journey=journey))
        assert side.admitted[0][0].ask.purpose == purpose

    played(story)


def test_who_is_refused_hears_what_to_send() -> None:
    async def story() -> None:
        side = Side(refuses=ForbiddenError("send `terms.nats`."))
        assert "send `terms.nats`" in (await failure(asking(side), RefusedError)).message

    played(story)


# --- what is granted -------------------------------------------------------------------------------


def test_what_is_granted_comes_with_the_end_and_is_signed_by_both() -> None:
    async def story() -> None:
        side, _ = granting()
        asker = asking(side)
        *_, last = await asker.chunks(bounded(limits=Limits(purpose="law")))
        assert last.nats == 0.5
        ((made, signed, _),) = asker.kept
        assert (made.purpose, made.max_share, made.nats) == ("law", 0.2, 0.5)
        assert signed.is_countersigned
        assert side.kept[-1][:2] == (made, signed)
        assert receipt.read(msgspec.json.encode(signed))[0] == made

    played(story)


def test_a_granted_answer_says_so_among_others() -> None:
    tally = Tally(Call("bob", "bob", 0.5), Card("bob", "peer"), query())
    tally.take(Chunk("4", "stop", nats=0.5), 0.0)
    assert tally.answer(0.0).nats == 0.5


def test_a_receipt_without_terms_has_none() -> None:
    async def story() -> None:
        asker = asking(Side(), Terms())
        await asker.text()
        ((made, _, _),) = asker.kept
        assert (made.purpose, made.max_share, made.nats) == ("", None, None)
        fields = msgspec.json.decode(msgspec.json.encode(made))
        assert not {"purpose", "max_share", "nats"} & fields.keys()
        assert asker.owing == []

    played(story)


@pytest.mark.parametrize(
    "lie",
    [{"nats": 0.71}, {"purpose": "sales"}, {"max_share": 0.1}, {"nats": 0.5, "shown": None}, {"shown": 0.5}],
    ids=str,
)
def test_what_nobody_agreed_to_is_no_answer(lie: dict[str, Any]) -> None:
    """A receipt that is countersigned proves what was agreed: nobody has another signed."""

    async def story() -> None:
        changes = {name: value for name, value in lie.items() if name != "shown"}
        asker = Asker(speaks(showing(lie.get("shown", lie.get("nats")), **changes)), terms=BUDGET)
        with pytest.raises(GarbageError, match="signed something else"):
            await asker.text(bounded(limits=Limits(purpose="law")))
        assert asker.deeds == {"unsigned": 1}
        honest = Asker(speaks(showing(0.7, nats=0.7, purpose="law", max_share=0.2)), terms=BUDGET)
        assert await honest.text(bounded(limits=Limits(purpose="law"))) == "4"

    played(story)


def showing(shown: float | None, /, **changes: Any) -> Any:
    """As `telling`, with so many nats in the last frame."""

    def frames(*heard: Any) -> list[Frame]:
        *others, last = telling(**changes)(*heard)
        assert isinstance(last.answered, Answered)
        return [*others, replace(last, answered=replace(last.answered, nats=shown))]

    return frames


# --- what is settled -------------------------------------------------------------------------------


@pytest.mark.parametrize(("told", "counts"), [(0.125, 0.125), (0.0, 0.0), (0.9, 0.5)])
def test_what_was_measured_is_settled_on_both_sides(told: float, counts: float) -> None:
    async def story() -> None:
        side, settled = granting()
        asker = asking(side)
        await asker.text(bounded())
        ((request_id, nats, settle),) = asker.owing
        assert (request_id, nats, settled) == ("q", 0.5, [])
        settle(told)
        settle(0.4)  # only the first counts
        assert settled == [counts]
        assert [kept[3] for kept in side.kept if len(kept) > 3 and kept[3] is not None] == [counts]
        assert asker.kept[1][3] == told

    played(story)


def test_a_countersignature_that_was_lost_comes_again_with_what_was_measured() -> None:
    async def story() -> None:
        side, settled = granting()
        asker = asking(side)
        asker.transport.deaf = True
        await asker.text(bounded())
        assert not side.kept[-1][1].is_countersigned
        asker.transport.deaf = False
        asker.owing[0][2](0.125)
        assert side.kept[-1][1].is_countersigned
        assert settled == [0.125]

    played(story)


def test_what_nobody_signed_is_not_settled_for_less() -> None:
    async def story() -> None:
        side, settled = granting()
        line = Line(side)
        await line.answered()
        line.tell(settled_nats=0.0)
        assert settled == []
        await asyncio.sleep(61.0)
        await Line(side, own()).answered()  # by which the first is forgotten
        assert settled == [0.5]

    played(story)


@pytest.mark.parametrize(("cut_after", "counts"), [(0, [0.0]), (1, [])])
def test_what_broke_off_counts_whole_unless_nobody_heard_of_it(cut_after: int, counts: list[float]) -> None:
    async def story() -> None:
        side, settled = granting()
        side.expert = Scripted(Card("bob", "scripted"), Script("one two three", cut_after=cut_after))
        await Line(side).answered()
        assert settled == counts
        await asyncio.sleep(61.0)
        await Line(side, own()).answered()  # by which the first is forgotten
        assert settled[0] == (counts or [0.5])[0]

    played(story)


@pytest.mark.parametrize("deaf", [False, True])
def test_who_did_not_hear_the_end_says_that_it_uses_nothing_of_it(deaf: bool) -> None:
    async def story() -> None:
        side, settled = granting()
        side.expert = Scripted(Card("bob", "scripted"), Script("one two three", cut_after=1))
        asker = asking(side)
        asker.transport.deaf = deaf
        with pytest.raises(ExpertError):
            await asker.text(bounded())
        await asker.transport.idle()
        assert settled == ([] if deaf else [0.0])
        assert asker.owing == []

    played(story)


def test_a_call_that_is_no_longer_needed_costs_nothing() -> None:
    """As where others have said enough."""

    async def story() -> None:
        side, settled = granting()
        side.expert = Scripted(Card("bob", "scripted"), Script("one two three", stall_after=1))
        asker = asking(side)
        stream = asker.peer.stream(bounded())
        assert (await anext(stream)).text == "one"
        await stream.aclose()
        await asker.transport.idle()
        assert settled == [0.0]

    played(story)


@pytest.mark.parametrize(("told", "counts"), [({}, 0.5), ({"settled_nats": 0.0}, 0.0)])
def test_who_hangs_up_in_the_midst_has_heard_it_unless_it_says_otherwise(
    told: dict[str, float], counts: float
) -> None:
    async def story() -> None:
        side, settled = granting()
        side.expert = Scripted(Card("bob", "scripted"), Script("one two three", stall_after=1))
        line = Line(side)
        line.begin()
        await asyncio.sleep(1.0)  # by this loop's clock
        assert line.pieces == 1
        line.tell(cancel=True, **told)
        assert line.task is not None
        await asyncio.wait([line.task])
        await asyncio.sleep(61.0)
        side.expert = Scripted(Card("bob", "scripted"), Script("one"))
        await Line(side, own()).answered()
        assert settled[0] == counts

    played(story)


def test_nothing_is_settled_before_the_end() -> None:
    async def story() -> None:
        side, settled = granting()
        side.expert = Scripted(Card("bob", "scripted"), Script("one two three", per_chunk_s=1.0))
        line = Line(side)
        line.begin()
        await asyncio.sleep(1.5)
        line.tell(settled_nats=0.0)
        assert line.task is not None
        await asyncio.wait([line.task])
        assert (line.frames[-1].answered is not None, settled) == (True, [])

    played(story)


def test_what_is_not_counted_is_not_settled() -> None:
    async def story() -> None:
        side, settled = granting(nats=None)
        asker = asking(side)
        assert (await asker.chunks(bounded()))[-1].nats is None
        assert asker.owing == []
        line = Line(side)
        await line.answered()
        line.tell(settled_nats=0.0)
        assert settled == []

    played(story)


@pytest.mark.parametrize("nats", [-0.1, 1e7, "1"])
def test_no_number_that_is_none_is_told(nats: Any) -> None:
    for kind, name in ((Told, "settled_nats"), (Accepted, "nats"), (Accepted, "least_nats")):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({name: nats}, kind)


def test_an_older_receipt_is_read() -> None:
    old = {
        **dict.fromkeys(("ask", "asker", "answerer", "nonce"), ""),
        **dict.fromkeys(("request_sha256", "answer_sha256"), "0" * 64),
        **dict.fromkeys(("v", "prompt_tokens", "completion_tokens", "price_usd", "at"), 1),
        "experts": [],
        "sources": [],
    }
    assert msgspec.convert(old, Receipt).nats is None
