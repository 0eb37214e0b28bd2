"""Frames: in order, each once, and nobody else's."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import FrameError
from manyminds.network import frames
from manyminds.network.frames import FRAME_BYTES, Answered, AnswerHash, Failed, Frame, Said, Sealer, Told
from tests.changed import replace

KEY = bytes(range(32))


def both(run: bytes | None = None) -> tuple[Sealer, Sealer]:
    """Who answers, and who asked."""
    return Sealer(KEY, answers=True, run=run), Sealer(KEY, answers=False)


def sealed(*texts: str) -> list[bytes]:
    answerer, _ = both(b"run one")
    return [answerer.seal(Frame(text)) for text in texts]


def read(pieces: list[bytes]) -> list[str | None]:
    _, asker = both()
    return [None if (frame := asker.open_frame(piece)) is None else frame.text for piece in pieces]


def test_frames_come_out_as_they_went_in() -> None:
    assert read(sealed("a", "", "c")) == ["a", "", "c"]


def test_a_frame_is_as_the_protocol_has_it() -> None:
    """ChaCha20-Poly1305 under a nonce of direction, run and number."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    _, second = sealed("a", "b")
    assert second[:11] == b"run one" + b"\0\0\0\1"
    assert ChaCha20Poly1305(KEY).decrypt(b"\0" + second[:11], second[11:], None) == b'{"text":"b"}'


def test_a_gap_loses_the_answer() -> None:
    first, _, third = sealed("a", "b", "c")
    _, asker = both()
    assert asker.open_frame(first) == Frame("a")
    with pytest.raises(FrameError, match="frame 1 is missing: 2 came"):
        asker.open_frame(third)


def test_a_frame_counts_once_and_never_late() -> None:
    first, second, third = sealed("a", "b", "c")
    assert read([first, first, second, first, second, third, third]) == [
        "a",
        None,
        "b",
        None,
        None,
        "c",
        None,
    ]


def test_what_is_told_may_have_gaps_but_counts_in_order() -> None:
    answerer, asker = both()
    told = [asker.seal(Told(granted=i)) for i in range(5)]
    found = [answerer.open_told(told[i]) for i in (0, 3, 1, 3, 4)]
    assert found == [Told(0), Told(3), None, None, Told(4)]


def test_the_two_directions_are_not_mixed() -> None:
    answerer, asker = both()
    assert asker.open_frame(asker.seal(Told(granted=7))) is None
    assert answerer.open_told(answerer.seal(Frame("a"))) is None


def test_another_answers_frames_are_none() -> None:
    other = Sealer(bytes(32), answers=True)
    assert read([other.seal(Frame("x")), *sealed("a"), other.seal(Frame("y"))]) == [None, "a", None]


def test_an_ask_that_is_answered_twice_has_one_answer() -> None:
    """As when it is sent anew after a restart: no nonce comes twice, and two answers are not mixed."""
    once, again = Sealer(KEY, answers=True), Sealer(KEY, answers=True)
    ones, others = [[one.seal(Frame(text)) for text in ("a", "b")] for one in (once, again)]
    assert ones[0] != others[0]
    assert not {piece[:11] for piece in ones} & {piece[:11] for piece in others}
    assert read([ones[0], others[0], others[1], ones[1]]) == ["a", None, None, "b"]


@pytest.mark.parametrize("size", [0, 1, 11, 26, FRAME_BYTES + 1])
def test_what_has_no_frames_size_is_none(size: int) -> None:
    assert read([bytes(size), *sealed("a")]) == [None, "a"]


@given(st.data())
def test_a_frame_that_is_cut_or_changed_is_none(data: st.DataObject) -> None:
    piece = bytearray(sealed("some text")[0])
    if data.draw(st.booleans()):
        piece = piece[: data.draw(st.integers(0, len(piece) - 1))]
    else:
        bit = data.draw(st.integers(0, 8 * len(piece) - 1))
        piece[bit // 8] ^= 1 << bit % 8
    assert read([bytes(piece), *sealed("a")]) == [None, "a"]


ANY_FRAME = st.one_of(
    st.builds(Frame, st.text()),
    st.builds(Frame, chunk=st.just(msgspec.Raw(b'{"choices":[]}'))),
    st.builds(
        Frame,
        answered=st.builds(
            Answered,
            st.text(max_size=40),
            st.text(max_size=50),
            st.none() | st.floats(0, 1),
            st.lists(st.builds(Said, st.text(max_size=9), st.text(max_size=9)), max_size=3).map(tuple),
        ),
    ),
    st.builds(
        Frame, failed=st.builds(Failed, st.text(max_size=99), st.text(max_size=9), st.integers(100, 599))
    ),
)


@given(st.lists(ANY_FRAME, max_size=12), st.data())
def test_whatever_is_put_between_them_the_frames_that_are_read_are_the_same(
    every: list[Frame], data: st.DataObject
) -> None:
    answerer, asker = both()
    found: list[Frame] = []
    pieces = [answerer.seal(frame) for frame in every]
    for i, piece in enumerate(pieces):
        noise = st.binary(max_size=60) | st.sampled_from(pieces[:i] or [b""])
        read_now = [asker.open_frame(one) for one in (*data.draw(st.lists(noise, max_size=3)), piece)]
        found += [one for one in read_now if one is not None]
    assert msgspec.json.encode(found) == msgspec.json.encode(every)
    assert asker.received == len(every)


BAD: list[Any] = [
    7,
    [],
    {"text": 7},
    {"answered": {"finish_reason": "stop"}},
    {"answered": {"finish_reason": "x" * 41, "receipt": ""}},
    {"answered": {"finish_reason": "stop", "receipt": "x" * 20_001}},
    {"failed": {}},
    {"failed": {"message": "x" * 2001}},
    {"failed": {"message": "x", "status": "500"}},
    {"failed": {"message": "x", "retry_after_s": -1}},
    {"failed": {"message": "x", "retry_after_s": 1e9}},
]


@pytest.mark.parametrize("content", BAD)
def test_a_frame_of_the_answer_that_cannot_be_read_loses_it(content: Any) -> None:
    answerer, asker = both()
    with pytest.raises(FrameError, match="frame 0 cannot be read"):
        asker.open_frame(answerer.seal(content))


def test_half_characters_nesting_and_infinity_cannot_be_read() -> None:
    for text in (b'{"text":"\xff"}', b'{"text":"\\ud800"}', b'{"x":' + b"[" * 9000, b'{"failed":1e999}'):
        answerer, asker = both()
        with pytest.raises(FrameError, match="cannot be read"):
            asker.open_frame(answerer.seal(msgspec.Raw(text)))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [{"granted": -1}, {"granted": 2**32}, {"countersigned": {"a": 1}}, 7])
def test_what_is_told_and_cannot_be_read(content: Any) -> None:
    answerer, asker = both()
    with pytest.raises(FrameError):
        answerer.open_told(asker.seal(content))


# --- hashes ----------------------------------------------------------------------------------------


def test_hashes_are_those_that_anybody_can_reckon() -> None:
    """`printf 'salt\\nquestion' | sha256sum`, and the same of the answer."""
    question = "4bc652b52a127db8b062cd33c4006bbae135b8ce58b08c0c0758a1cb9a8e427f"
    assert frames.request_hash(b"question", "salt") == question
    said = AnswerHash("salt")
    for text in ("ans", "", "wer"):
        said.take(Frame(text))
    assert said.hex == "73ac6a66a8617776c4f51229421ed56dd442ccc1fd10d473f9667724fafd9e4b"


@given(st.lists(st.text(max_size=4), max_size=6), st.text(max_size=4))
def test_how_an_answer_is_cut_does_not_matter_but_what_it_says(pieces: list[str], more: str) -> None:
    cut, whole, other = AnswerHash("n"), AnswerHash("n"), AnswerHash("n")
    for piece in pieces:
        cut.take(Frame(piece))
    whole.take(Frame("".join(pieces)))
    other.take(Frame("".join(pieces) + more))
    assert cut.hex == whole.hex
    assert (other.hex == whole.hex) == (not more)


def test_a_chunk_counts_as_it_came() -> None:
    raw = msgspec.Raw(b'{"a": 1}')
    one, other, text = AnswerHash("n"), AnswerHash("n"), AnswerHash("n")
    one.take(Frame(chunk=raw))
    other.take(replace(Frame(), chunk=msgspec.Raw(b'{"a":1}')))
    text.take(Frame('{"a": 1}'))
    assert one.hex == text.hex != other.hex
