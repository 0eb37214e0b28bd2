"""Another node as an expert: what it sends counts as far as it is proved, whatever happens on the way."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from manyminds.errors import (
    CutError,
    ExpertError,
    ForbiddenError,
    GarbageError,
    RateLimitError,
    RefusedError,
    SlowError,
    UnavailableError,
)
from manyminds.experts.peer import SILENT_S
from manyminds.experts.scripted import Script, Scripted
from manyminds.network import jws, receipt
from manyminds.network.answering import Price
from manyminds.network.ask import Heard
from manyminds.network.frames import Answered, AnswerHash, Failed, Frame, Sealer, request_hash
from manyminds.network.identity import Identity
from manyminds.network.receipt import Receipt
from manyminds.types import Card, Chunk, Journey, Limits, Query, Usage
from tests import clock
from tests.changed import replace
from tests.network.sides import ANN, BOB, EVE, Asker, Cut, Memory, Side, query, speaks


def scripted(text: str = "one two three", **script: Any) -> Scripted:
    return Scripted(Card("bob", "scripted"), Script(text, **script))


def joined(side: Side | None = None, **card: Any) -> tuple[Side, Asker]:
    side = side or Side()
    return side, Asker(Memory({BOB.id: side.answering}), **card)


def played(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await story()

    clock.run(run())


async def failure(asker: Asker, kind: type[ExpertError], one: Query | None = None) -> ExpertError:
    with pytest.raises(kind) as caught:
        await asker.text(one)
    assert type(caught.value) is kind
    await asker.transport.idle()
    assert asker.kept == []
    assert all(purse.spent_usd == 0.0 for _, purse in asker.reserved)
    return caught.value


# --- an answer -------------------------------------------------------------------------------------


def test_an_answer_comes_whole_and_is_kept_on_both_sides() -> None:
    async def story() -> None:
        side, asker = joined(Side(price=Price(1.0, 100.0)), price_in_usd_per_m=1.0, price_out_usd_per_m=100.0)
        *pieces, last = await asker.chunks()
        assert "".join(chunk.text for chunk in pieces) == "one two three"
        assert last == Chunk("", "stop", Usage(1, 3, cost_usd=0.000301))
        ((own, signed, request_id),) = asker.kept
        assert (own.price_usd, request_id) == (0.000301, "q")
        assert signed.is_countersigned
        assert side.kept[-1][:2] == (own, signed)
        assert receipt.read(msgspec.json.encode(signed)) == (own, signed)
        assert asker.deeds == {"kept": 1}
        ((reserved, purse),) = asker.reserved
        assert reserved > purse.spent_usd == own.price_usd  # type: ignore[operator]
        assert side.charged == [own.price_usd]

    played(story)


def test_what_travels_on_is_what_is_left() -> None:
    async def story() -> None:
        side, asker = joined()
        await asker.text(query(journey=Journey(50.0, 3, (EVE.id,), "research")))
        heard, passed, _ = side.admitted[0]
        assert (heard.ask.hops, heard.ask.visited, heard.ask.purpose) == (2, (EVE.id, ANN.id), "research")
        assert heard.ask.deadline_s == pytest.approx(50.0)
        assert passed.journey is not None
        assert passed.journey.due_s < 50.0
        assert passed.model == "auto"

    played(story)


def test_what_the_caller_says_to_this_node_is_not_said_to_others() -> None:
    async def story() -> None:
        side, asker = joined()
        question = b'"model":"bob","messages":[{"role":"user","content":"?"}]'
        raw = b'{%b,"manyminds":{"include":["bob"]},"user":"u"}' % question
        await asker.text(query(raw=raw, limits=Limits(include=("bob",))))
        asked = bytes(side.admitted[0][0].ask.request)
        assert b"manyminds" not in asked
        assert b'"user":"u"' in asked

    played(story)


def test_tools_and_choices_pass_through_as_they_came() -> None:
    raws = [
        b'{"choices":[{"index":0,"delta":{"content":"a"}}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b'{"choices":[{"index":1,"delta":{"content":"b"}}]}',
        b'{"choices":[{"index":1,"delta":{},"finish_reason":"tool_calls"}]}',
    ]

    class Choices(Scripted):
        async def stream(self, query: Query) -> Any:
            yield Chunk("a", raw=raws[0])
            yield Chunk(raw=raws[1])
            yield Chunk("", raw=raws[2])
            yield Chunk("", "tool_calls", Usage(1, 2), raw=raws[3])

    async def story() -> None:
        _side, asker = joined(Side(expert=Choices(Card("b", "scripted"), Script())))
        for one in (
            query(raw=b'{"model":"m","messages":[{"role":"user","content":"?"}],"n":2}'),
            query(
                raw=b'{"model":"m","messages":[{"role":"user","content":"?"}],'
                b'"tools":[{"type":"function","function":{"name":"f"}}]}'
            ),
        ):
            chunks = await asker.chunks(one)
            assert [chunk.raw for chunk in chunks] == raws
            assert [chunk.finish_reason for chunk in chunks] == [None, None, None, "tool_calls"]
            assert chunks[-1].usage == Usage(1, 2)
        assert asker.deeds == {"kept": 2}

    played(story)


def test_probability_becomes_confidence_where_it_is_one() -> None:
    async def story() -> None:
        for said, expected in ((0.7, 0.7), (1.5, None), (-0.1, None), (None, None)):
            asker = Asker(speaks(telling(probability=said)))
            assert (await asker.chunks())[-1].confidence == expected

    played(story)


# --- on the way ------------------------------------------------------------------------------------


def test_frames_of_others_and_frames_that_come_twice_change_nothing() -> None:
    async def story() -> None:
        _side, asker = joined()
        stranger = Sealer(bytes(32), answers=True)
        seen: list[bytes] = []

        def bend(_: int, frame: bytes) -> list[bytes]:
            seen.append(frame)
            return [stranger.seal(Frame("no")), b"", b"noise", frame, frame, *seen[:2], frame[:-1] + b"x"]

        asker.transport.bend = bend
        assert await asker.text() == "one two three"
        assert asker.deeds == {"kept": 1}
        assert asker.strange == 6 + 7 + 3  # after the last one nothing is read

    played(story)


LOST: dict[str, Callable[[int, bytes], Sequence[bytes]]] = {
    "the first": lambda i, frame: [frame] if i else [],
    "the second": lambda i, frame: [frame] if i != 1 else [],
}


@pytest.mark.parametrize("which", LOST)
def test_an_answer_that_lacks_a_frame_is_lost(which: str) -> None:
    async def story() -> None:
        _side, asker = joined(Side(price=Price(0.0, 1.0)), price_out_usd_per_m=1.0)
        asker.transport.bend = LOST[which]
        assert "is missing" in (await failure(asker, GarbageError)).message
        assert asker.deeds == {"garbled": 1}

    played(story)


def test_frames_that_change_places_lose_it() -> None:
    async def story() -> None:
        _side, asker = joined()
        kept: list[bytes] = []

        def bend(i: int, frame: bytes) -> list[bytes]:
            if i == 1:
                kept.append(frame)
                return []
            return [frame, *kept] if i == 2 else [frame]

        asker.transport.bend = bend
        assert "frame 1 is missing: 2 came" in (await failure(asker, GarbageError)).message

    played(story)


def cut_at(number: int) -> Callable[[int, bytes], list[bytes]]:
    def bend(i: int, frame: bytes) -> list[bytes]:
        if i >= number:
            raise Cut
        return [frame]

    return bend


@pytest.mark.parametrize(("number", "kind"), [(0, UnavailableError), (1, CutError), (2, CutError)])
def test_an_answer_that_is_cut_off_is_none(number: int, kind: type[ExpertError]) -> None:
    async def story() -> None:
        _side, asker = joined(Side(price=Price(0.0, 1.0)), price_out_usd_per_m=1.0)
        asker.transport.bend = cut_at(number)
        await failure(asker, kind)
        assert asker.deeds == {"cut": 1}

    played(story)


@pytest.mark.parametrize(
    ("number", "kind", "seconds"),
    [(0, UnavailableError, 3.0), (1, CutError, SILENT_S), (2, CutError, SILENT_S)],
)
def test_a_silence_ends_it(number: int, kind: type[ExpertError], seconds: float) -> None:
    async def story() -> None:
        side, asker = joined(Side(expert=scripted(stall_after=2)))
        asker.transport.bend = lambda i, frame: [frame] if i < number else []
        await failure(asker, kind)
        assert asyncio.get_running_loop().time() == pytest.approx(seconds, abs=0.01)
        assert asker.deeds == {"cut": 1}
        assert side.admitted  # and it hears that nobody listens: see `idle` of `failure`

    played(story)


def test_noise_does_not_stand_for_a_sign_of_life() -> None:
    async def story() -> None:
        _side, asker = joined(Side(expert=scripted(stall_after=1)))
        asker.transport.bend = lambda i, frame: [frame] if i < 1 else [b"noise" * 9]
        await failure(asker, CutError)
        assert asyncio.get_running_loop().time() == pytest.approx(SILENT_S, abs=0.01)

    played(story)


def test_signs_of_life_keep_a_slow_answer() -> None:
    async def story() -> None:
        _side, asker = joined(Side(expert=scripted(first_token_s=20, per_chunk_s=7)))
        assert await asker.text() == "one two three"
        assert asyncio.get_running_loop().time() >= 34

    played(story)


def test_a_node_that_is_not_there() -> None:
    async def story() -> None:
        asker = Asker(Memory({}))
        await failure(asker, UnavailableError)
        assert asker.deeds == {"cut": 1}

    played(story)


@pytest.mark.parametrize(
    ("refuses", "kind"),
    [
        (ForbiddenError("not you."), RefusedError),
        (RateLimitError("slowly.", retry_after_s=7.5), UnavailableError),
        (SlowError("late."), SlowError),
        (UnavailableError("ends."), UnavailableError),
        (CutError("odd."), ExpertError),
    ],
)
def test_what_the_other_says_is_what_it_is_here(refuses: Any, kind: type[ExpertError]) -> None:
    async def story() -> None:
        _side, asker = joined(Side(refuses=refuses))
        found = await failure(asker, kind)
        assert found.message == f"bob says: {refuses.message}"
        assert found.retry_after_s == refuses.retry_after_s
        assert asker.deeds == {}

    played(story)


# --- the end ---------------------------------------------------------------------------------------


def telling(
    by: Identity = BOB, *, probability: float | None = None, texts: Sequence[str] = ("4",), **changes: Any
) -> Callable[[Heard, Sealer], list[Frame]]:
    """Frames of an answer, whose receipt differs from what is right by `changes`."""

    def frames(heard: Heard, _: Sealer) -> list[Frame]:
        ask, said = heard.ask, AnswerHash(heard.ask.nonce)
        pieces = [Frame(text) for text in texts]
        for piece in pieces:
            said.take(piece)
        right = Receipt(
            v=1,
            ask=ask.id,
            asker=ask.key,
            answerer=jws.base64url(BOB.public),
            nonce=ask.nonce,
            request_sha256=request_hash(bytes(ask.request), ask.nonce),
            answer_sha256=said.hex,
            prompt_tokens=1,
            completion_tokens=1,
            price_usd=0.0,
            experts=(),
            sources=(),
            at=time.time(),
        )
        signed = receipt.issue(by, replace(right, **changes))
        end = Answered("stop", msgspec.json.encode(signed).decode(), probability)
        return [Frame(), *pieces, Frame(answered=end)]

    return frames


def test_a_liar_who_does_not_lie_is_believed() -> None:
    async def story() -> None:
        assert await Asker(speaks(telling())).text() == "4"

    played(story)


WRONG: dict[str, dict[str, Any]] = {
    "another ask": {"ask": jws.base64url(bytes(16))},
    "another nonce": {"nonce": "x"},
    "another asker": {"asker": jws.base64url(EVE.public)},
    "another answerer": {"by": EVE, "answerer": jws.base64url(EVE.public)},
    "mis-signed": {"by": EVE},
    "another question": {"request_sha256": "0" * 64},
    "another answer": {"answer_sha256": "0" * 64},
    "another version": {"v": 2},
    "long ago": {"at": 1.0},
    "in time to come": {"at": 4e9},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_receipt_of_something_else_is_none(what: str) -> None:
    async def story() -> None:
        asker = Asker(speaks(telling(**WRONG[what])))
        await failure(asker, GarbageError)
        assert asker.deeds == {"unsigned": 1}
        assert asker.transport.told == []

    played(story)


@pytest.mark.parametrize("text", ["", "{}", "null", "x" * 20_000, '{"payload":"","signatures":[]}'])
def test_an_answer_without_a_receipt_is_none(text: str) -> None:
    async def story() -> None:
        asker = Asker(speaks(lambda *_: [Frame("4"), Frame(answered=Answered("stop", text))]))
        await failure(asker, GarbageError)
        assert asker.deeds == {"unsigned": 1}

    played(story)


PRICES: dict[str, Any] = {"price_in_usd_per_m": 1000.0, "price_out_usd_per_m": 1000.0}
DEAR: dict[str, dict[str, Any]] = {
    "above the budget": {"price_usd": 1.1, "completion_tokens": 1100},
    "above its card": {"price_usd": 0.0021},
    "tokens that it cannot have": {"price_usd": 0.03, "completion_tokens": 29},
    "a question that it cannot have": {"price_usd": 0.01, "prompt_tokens": 10**6},
}


@pytest.mark.parametrize("what", DEAR)
def test_who_charges_too_much_is_paid_nothing(what: str) -> None:
    async def story() -> None:
        asker = Asker(speaks(telling(**DEAR[what])), **PRICES)
        await failure(asker, GarbageError, query(limits=Limits(budget_usd=1.0)))
        assert asker.deeds == {"overcharged": 1}
        assert asker.transport.told == []

    played(story)


def test_who_charges_what_was_agreed_is_paid() -> None:
    async def story() -> None:
        asker = Asker(speaks(telling(price_usd=0.002)), **PRICES)
        assert (await asker.chunks())[-1].usage == Usage(1, 1, cost_usd=0.002)
        assert [purse.spent_usd for _, purse in asker.reserved] == [0.002]
        assert asker.deeds == {"kept": 1}

    played(story)


def failing(**failed: Any) -> Frame:
    return Frame(failed=Failed(**({"message": "m"} | failed)))


ODD: dict[str, list[Any]] = {
    "no frame": [7],
    "a chunk that is none": [Frame(chunk=msgspec.Raw(b"7"))],
    "a chunk of an error": [Frame(chunk=msgspec.Raw(b'{"error":{"message":"x"}}'))],
    "half a character": [msgspec.Raw(b'{"text":"\\ud800"}')],
    "a long failure": [failing(message="x" * 2001)],
    "never again": [failing(retry_after_s=1e300)],
}


@pytest.mark.parametrize("what", ODD)
def test_what_cannot_be_read_is_garbage(what: str) -> None:
    async def story() -> None:
        asker = Asker(speaks(lambda *_: [Frame(), *ODD[what]]))
        await failure(asker, GarbageError)
        assert asker.deeds == {"garbled": 1}

    played(story)


def test_what_a_chunk_says_of_usage_is_not_believed() -> None:
    usage = b'"usage":{"prompt_tokens":9,"completion_tokens":9000}'
    raw = b'{"choices":[{"index":0,"delta":{"content":"4"}}],%b}' % usage
    alone = b'{"choices":[],%b}' % usage

    class Chunks(Scripted):
        async def stream(self, query: Query) -> Any:
            yield Chunk("4", raw=raw)
            yield Chunk(raw=alone)
            yield Chunk("", "stop", Usage(1, 1))

    async def story() -> None:
        _side, asker = joined(Side(expert=Chunks(Card("b", "scripted"), Script())))
        one = query(raw=b'{"model":"m","messages":[{"role":"user","content":"?"}],"logprobs":true}')
        chunks = await asker.chunks(one)
        assert [chunk.usage for chunk in chunks] == [None, Usage(1, 1)]

    played(story)


# --- flow, and who stops ---------------------------------------------------------------------------


def test_a_long_answer_passes_through_its_window() -> None:
    async def story() -> None:
        words = " ".join(map(str, range(2000)))
        _side, asker = joined(Side(expert=scripted(words)))
        assert await asker.text(query(max_tokens=None)) == words
        grants = [1 for node, _, _ in asker.transport.told if node == BOB.id]
        assert 2000 / 256 <= len(grants) <= 2000 / 64

    played(story)


def test_a_reader_that_stops_stops_who_answers() -> None:
    async def story() -> None:
        expert = scripted(" ".join(map(str, range(1000))))
        _side, asker = joined(Side(expert=expert))
        stream = asker.peer.stream(query(max_tokens=None))
        await anext(stream)
        await asyncio.sleep(19)
        assert expert.running == 1
        await asyncio.sleep(2)
        assert expert.running == 0
        with pytest.raises(ExpertError, match="nobody took"):
            async for _ in stream:
                pass

    played(story)


def test_closing_and_cancelling_reach_the_other_side() -> None:
    async def story() -> None:
        expert = scripted("a b c", per_chunk_s=30)
        side, asker = joined(Side(expert=expert, price=Price(0.0, 1.0)), price_out_usd_per_m=1.0)
        stream = asker.peer.stream(query())
        await anext(stream)
        await stream.aclose()
        await asker.transport.idle()
        reading = asyncio.create_task(asker.text())
        await asyncio.sleep(1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asker.transport.idle()
        assert (expert.running, side.kept, asker.kept) == (0, [], [])
        assert [purse.spent_usd for _, purse in asker.reserved] == [0.0, 0.0]
        assert asyncio.get_running_loop().time() < 30

    played(story)


def test_who_cannot_be_told_to_stop_stops_by_itself() -> None:
    async def story() -> None:
        _side, asker = joined(Side(expert=scripted(" ".join(map(str, range(1000))))))
        asker.transport.deaf = True
        stream = asker.peer.stream(query(max_tokens=None))
        await anext(stream)
        await stream.aclose()
        await asker.transport.idle()
        assert asyncio.get_running_loop().time() == pytest.approx(20, abs=1)

    played(story)


def test_asks_at_once_do_not_mix() -> None:
    async def story() -> None:
        side = Side(expert=Scripted(Card("b", "scripted"), Script(replies=lambda q: f"{q.question} " * 50)))
        side, asker = joined(side)
        texts = await asyncio.gather(*(asker.text(query(str(i), max_tokens=None)) for i in range(20)))
        assert [text.split() for text in texts] == [[str(i)] * 50 for i in range(20)]
        assert len({signed.payload for _, signed, _ in asker.kept}) == 20

    played(story)
