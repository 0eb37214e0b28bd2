"""What a node does with what it is asked: admit, answer in frames, sign, and never wait for ever."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from manyminds.errors import AskError, CutError, ForbiddenError, RateLimitError, UnavailableError
from manyminds.experts.scripted import Script, Scripted
from manyminds.network import answering, receipt
from manyminds.network.answering import BEAT_S, Price
from manyminds.network.ask import Ask, seal_ask
from manyminds.network.frames import AnswerHash, Frame, Sealer, Told, request_hash
from manyminds.network.identity import Identity
from manyminds.network.jws import base64url, from_base64url
from manyminds.types import Card, Chunk, PanelEntry, Query, Report, Status, Usage
from tests import clock
from tests.changed import replace
from tests.network.sides import ANN, BOB, EVE, Side, own


class Line:
    """Ann's end, by hand."""

    def __init__(self, side: Side, ask: Ask | None = None, by: Identity = ANN) -> None:
        self.side, self.ask = side, ask or own()
        self.sealed = seal_ask(by, self.ask, side.identity.exchange)
        self.sealer = Sealer(from_base64url(self.ask.reply_key), answers=False)
        self.frames: list[Frame] = []
        self.at: list[float] = []
        self.lasts: list[bool] = []
        self.task: asyncio.Task[None] | None = None

    def send(self, sealed: bytes, last: bool) -> None:
        frame = self.sealer.open_frame(sealed)
        assert frame is not None
        self.frames.append(frame)
        self.lasts.append(last)
        self.at.append(asyncio.get_running_loop().time())

    async def answered(self) -> list[Frame]:
        await self.side.answering.answer(self.sealed, self.send)
        return self.frames

    def begin(self) -> "asyncio.Task[None]":
        self.task = asyncio.create_task(self.side.answering.answer(self.sealed, self.send))
        return self.task

    def tell(self, **told: Any) -> None:
        self.side.answering.tell(self.ask.id, self.sealer.seal(Told(**told)))

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.frames)

    @property
    def pieces(self) -> int:
        return sum(1 for frame in self.frames if frame.text)


def scripted(text: str = "ok", **script: Any) -> Scripted:
    return Scripted(Card("bob", "scripted"), Script(text, **script))


def played(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await story()

    clock.run(run())


# --- an answer -------------------------------------------------------------------------------------


def test_an_answer_is_its_pieces_and_a_receipt() -> None:
    async def story() -> None:
        line = Line(side := Side(price=Price(1.0, 100.0)))
        last = (await line.answered())[-1]
        assert [frame.text for frame in line.frames] == ["one", " two", " three"]
        assert line.lasts == [False, False, True]
        assert last.answered is not None
        found, signed = receipt.read(last.answered.receipt.encode())
        assert (found.asker_id, found.answerer_id) == (ANN.id, BOB.id)
        assert (found.ask, found.nonce) == (line.ask.id, line.ask.nonce)
        assert found.request_sha256 == request_hash(bytes(line.ask.request), line.ask.nonce)
        said = AnswerHash(line.ask.nonce)
        for frame in line.frames:
            said.take(frame)
        assert found.answer_sha256 == said.hex
        assert (found.prompt_tokens, found.completion_tokens) == (1, 3)
        assert found.price_usd == pytest.approx(0.000301)
        assert side.charged == [found.price_usd]
        assert side.kept == [(found, signed, "r0")]
        assert not signed.is_countersigned

    played(story)


def test_a_countersignature_is_kept_beside_it() -> None:
    async def story() -> None:
        line = Line(side := Side())
        last = (await line.answered())[-1]
        assert last.answered is not None
        found, signed = receipt.read(last.answered.receipt.encode())
        eves = msgspec.to_builtins(receipt.countersign(EVE, signed))
        line.tell(countersigned=eves)
        line.tell(countersigned={"protected": "x"})
        assert len(side.kept) == 1
        anns = receipt.countersign(ANN, signed)
        line.tell(countersigned=msgspec.to_builtins(anns))
        line.tell(countersigned=msgspec.to_builtins(anns))
        assert side.kept[1:] == [(found, signed.with_(anns), "r0")]

    played(story)


def test_panel_and_probability_come_with_the_end() -> None:
    shares: list[tuple[str, Status]] = [("a", "ok"), ("b", "late"), ("a", "ok"), ("c", "ok")]
    entries = [PanelEntry(name, f"{name}s", 0.5, "", None, None, 0, 0, status) for name, status in shares]
    report = Report("r", "auto", "vote", tuple(entries), None, 0.9, (), 0, 0)

    class Gateway(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            yield Chunk("4", "stop", Usage(1, 1), report=report)

    async def story() -> None:
        line = Line(side := Side(expert=Gateway(Card("bob", "gateway"), Script())))
        last = (await line.answered())[-1]
        assert last.answered is not None
        assert last.answered.probability == 0.9
        assert [(said.expert, said.status) for said in last.answered.panel][:2] == [
            ("a", "ok"),
            ("b", "late"),
        ]
        assert side.kept[0][0].experts == ("a", "c")
        assert side.kept[0][0].sources == ("as", "cs")
        assert line.text == "4"

    played(story)


def test_the_price_is_never_above_the_budget_and_the_answer_no_longer_than_it_pays_for() -> None:
    async def story() -> None:
        side = Side(price=Price(0.0, 1e6), expert=scripted("a b c d e f"))
        line = Line(side, own(budget_usd=2.5))
        last = (await line.answered())[-1]
        assert (line.text, last.answered and last.answered.finish_reason) == ("a b", "length")
        assert side.charged == [2.0]
        poor = Line(side, own(budget_usd=0.5))
        failed = (await poor.answered())[-1].failed
        assert failed is not None
        assert (failed.status, poor.text, len(side.kept)) == (429, "", 1)

    played(story)


# --- an ask that is not answered -------------------------------------------------------------------


def test_what_is_no_ask_is_counted_and_nothing_is_sent() -> None:
    async def story() -> None:
        side = Side()
        line = Line(side, replace(own(), to=EVE.id))
        for _ in range(2):
            with pytest.raises(AskError):
                await line.answered()
        assert (side.answering.refused, line.frames, side.admitted) == (2, [], [])

    played(story)


def test_an_ask_is_answered_once() -> None:
    async def story() -> None:
        line = Line(side := Side())
        await line.answered()
        before = len(line.frames)
        with pytest.raises(AskError, match="heard before"):
            await line.answered()
        assert (len(line.frames), len(side.admitted), side.answering.refused) == (before, 1, 1)

    played(story)


def test_nobody_takes_the_place_of_an_ask_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids go openly with what is told; what was heard is forgotten after a while, and answers may be long."""
    monkeypatch.setattr(answering, "open_ask", lambda identity, sealed, _: _opened(identity, sealed))

    async def story() -> None:
        side = Side(expert=scripted("one two", per_chunk_s=30))
        line = Line(side)
        task = line.begin()
        await asyncio.sleep(1)
        eves = replace(own(), id=line.ask.id, key=base64url(EVE.public))
        with pytest.raises(AskError, match="of that id"):
            await Line(side, eves, by=EVE).answered()
        await task
        signed = side.kept[0][1]
        line.tell(countersigned=msgspec.to_builtins(receipt.countersign(ANN, signed)))
        assert side.kept[-1][1].is_countersigned
        with pytest.raises(AskError, match="of that id"):
            await Line(side, eves, by=EVE).answered()

    def _opened(identity: Identity, sealed: bytes) -> Any:
        from manyminds.network.ask import Once, open_ask

        return open_ask(identity, sealed, Once())

    played(story)


@pytest.mark.parametrize(
    ("error", "status"),
    [(ForbiddenError("not you."), 403), (RateLimitError("slowly.", retry_after_s=7.5), 429)],
)
def test_who_is_not_let_in_hears_why(error: Any, status: int) -> None:
    async def story() -> None:
        line = Line(side := Side(refuses=error))
        (last,) = await line.answered()
        assert last.failed is not None
        assert (last.failed.message, last.failed.status) == (error.message, status)
        assert last.failed.retry_after_s == error.retry_after_s
        assert (side.kept, side.charged, line.lasts) == ([], [], [True])

    played(story)


@pytest.mark.parametrize(
    "request_",
    [b"{}", b"[]", b'{"messages":[]}', b'{"messages":"x"}', b'{"messages":[{"role":"user"}],"n":0}'],
)
def test_a_request_that_is_none_fails_in_a_frame(request_: bytes) -> None:
    async def story() -> None:
        line = Line(side := Side(), own(request_))
        last = (await line.answered())[-1]
        assert last.failed is not None
        assert last.failed.status in (400, 422)
        assert side.kept == []

    played(story)


def test_an_answer_that_breaks_off_is_neither_signed_nor_charged() -> None:
    async def story() -> None:
        for expert in (scripted("a b c", cut_after=2), scripted(fail_before=CutError("gone."))):
            line = Line(side := Side(expert=expert))
            last = (await line.answered())[-1]
            assert last.failed is not None
            assert last.failed.status == 502
            assert (side.kept, side.charged) == ([], [])

    played(story)


def test_what_is_wrong_inside_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            yield Chunk("a")
            raise KeyError("SECRET")

    async def story() -> None:
        last = (await Line(Side(expert=Broken(Card("b", "scripted"), Script()))).answered())[-1]
        assert last.failed is not None
        assert "SECRET" not in last.failed.message
        assert last.failed.status == 500

    played(story)
    assert "SECRET" in caplog.text


# --- time ------------------------------------------------------------------------------------------


def test_a_silent_answer_gives_signs_of_life() -> None:
    async def story() -> None:
        line = Line(Side(expert=scripted("a b", first_token_s=10, per_chunk_s=0.1)))
        await line.answered()
        gaps = [late - early for early, late in zip(line.at, line.at[1:], strict=False)]
        assert max(gaps) <= 2 * BEAT_S
        assert line.text == "a b"
        assert 19 <= sum(1 for frame in line.frames if frame == Frame()) <= 41

    played(story)


def test_what_is_answered_later_begins_with_a_sign_of_life() -> None:
    async def story() -> None:
        line = Line(Side(expert=scripted("a", first_token_s=0.1)))
        await line.answered()
        assert (line.frames[0], line.text) == (Frame(), "a")
        assert line.at[0] == pytest.approx(0.02, abs=0.005)

    played(story)


def test_after_the_end_there_is_no_sign_of_life() -> None:
    async def story() -> None:
        line = Line(Side())
        await line.answered()
        before = len(line.frames)
        await asyncio.sleep(10)
        assert len(line.frames) == before

    played(story)


def test_no_more_is_sent_than_was_granted() -> None:
    async def story() -> None:
        words = " ".join(map(str, range(100)))
        line = Line(side := Side(expert=scripted(words)), own(window=4))
        task = line.begin()
        for granted in (4, 4, 10, 7, 100):
            line.tell(granted=granted)
            await asyncio.sleep(1)
            assert line.pieces == max(4, granted if granted != 7 else 10)
        await task
        assert line.text == words
        assert len(side.kept) == 1

    played(story)


class Fast(Scripted):
    """Has its pieces all at once, as from one read of a socket."""

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        for word in self._script.text.split("|"):
            yield Chunk(word)
        yield Chunk("", "stop", Usage(1, 1))


def test_pieces_that_come_at_once_go_in_one_frame_with_the_end() -> None:
    async def story() -> None:
        line = Line(side := Side(expert=Fast(Card("b", "scripted"), Script("a|b|c"))))
        (only,) = await line.answered()
        assert (only.text, only.answered is not None, line.lasts) == ("abc", True, [True])
        assert len(side.kept) == 1

    played(story)


def test_a_frame_does_not_grow_without_end() -> None:
    async def story() -> None:
        text = "|".join(["x" * 1000] * 100)
        line = Line(Side(expert=Fast(Card("b", "scripted"), Script(text))))
        await line.answered()
        assert line.text == text.replace("|", "")
        assert max(len(frame.text) for frame in line.frames) <= 16_000

    played(story)


def test_what_was_gathered_waits_for_a_grant_and_comes_before_the_end() -> None:
    async def story() -> None:
        text = "|".join(["x" * 10_000] * 6)
        line = Line(Side(expert=Fast(Card("b", "scripted"), Script(text))), own(window=1))
        task = line.begin()
        await asyncio.sleep(1)
        assert line.pieces == 1
        line.tell(granted=2)
        await asyncio.sleep(1)
        assert line.pieces == 2
        line.tell(granted=3)
        await task
        assert line.text == text.replace("|", "")
        assert line.frames[-1].answered is not None

    played(story)


def test_what_was_said_before_it_broke_off_is_not_lost() -> None:
    class Breaks(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            yield Chunk("a")
            raise UnavailableError("gone.")

    async def story() -> None:
        line = Line(Side(expert=Breaks(Card("b", "scripted"), Script())))
        first, last = await line.answered()
        assert (first.text, last.failed is not None) == ("a", True)

    played(story)


def test_an_answer_that_nobody_takes_is_broken_off() -> None:
    async def story() -> None:
        expert = scripted("a b c d e")
        line = Line(side := Side(expert=expert), own(window=2))
        await line.answered()
        assert asyncio.get_running_loop().time() == pytest.approx(20, abs=1)
        last = line.frames[-1].failed
        assert last is not None
        assert "nobody took" in last.message
        assert (line.pieces, expert.running, side.kept) == (2, 0, [])

    played(story)


def test_who_hangs_up_is_not_answered_any_further() -> None:
    async def story() -> None:
        expert = scripted("a b c", per_chunk_s=10)
        line = Line(side := Side(expert=expert))
        task = line.begin()
        await asyncio.sleep(1)
        line.tell(cancel=True)
        line.tell(cancel=True)
        await task
        assert (line.text, expert.running, side.kept, side.charged) == ("a", 0, [], [])
        assert line.lasts[-1]  # a transport's stream has an end
        assert not side.answering._open
        assert not side.answering._signed

    played(story)


def test_a_node_that_ends_says_so() -> None:
    async def story() -> None:
        line = Line(Side(expert=scripted("a b", per_chunk_s=10)))
        task = line.begin()
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        failed = line.frames[-1].failed
        assert failed is not None
        assert "is ending" in failed.message

    played(story)


def test_what_others_tell_is_nothing() -> None:
    async def story() -> None:
        line = Line(side := Side(expert=scripted("a b", per_chunk_s=1)))
        task = line.begin()
        await asyncio.sleep(0.5)
        stranger = Sealer(bytes(32), answers=False)
        side.answering.tell(line.ask.id, stranger.seal(Told(cancel=True)))
        side.answering.tell("unknown", line.sealer.seal(Told(cancel=True)))
        side.answering.tell(line.ask.id, b"")
        side.answering.tell(line.ask.id, line.sealer.seal(7))  # type: ignore[arg-type]
        await task
        assert line.text == "a b"

    played(story)


def test_what_has_ended_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_MOST_KEPT", 3)

    async def story() -> None:
        side = Side()
        slow = Line(side := Side(expert=scripted("a b", per_chunk_s=1000)), own(deadline_s=5000.0))
        task = slow.begin()
        await asyncio.sleep(1)
        side.expert = scripted()
        for _ in range(5):
            await Line(side).answered()
        assert (len(side.answering._open), len(side.answering._signed)) == (1, 3)
        side.refuses = ForbiddenError("no.")
        await Line(side).answered()
        assert len(side.answering._signed) == 3  # nothing is kept of what nobody signs
        side.refuses = None
        await asyncio.sleep(61)
        await Line(side).answered()
        assert len(side.answering._signed) == 1
        await task

    played(story)


def test_the_time_that_is_left_is_less_on_the_way_back() -> None:
    async def story() -> None:
        line = Line(side := Side(), own(deadline_s=100.0, hops=3, visited=(EVE.id, ANN.id), purpose="p"))
        await line.answered()
        _, query, by_https = side.admitted[0]
        assert query.journey is not None
        assert (query.journey.hops, query.journey.visited) == (3, (EVE.id, ANN.id))
        assert (query.journey.purpose, by_https) == ("p", False)
        assert query.journey.due_s == query.limits.deadline_s == pytest.approx(97)
        assert query.stream

    played(story)
