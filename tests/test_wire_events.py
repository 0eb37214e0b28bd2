import json

from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import GarbageError
from manyminds.wire import Events, event


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream of events in many spellings, and their data."""
    sent, data = b"", []
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    lines = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=10).map(str.encode)
    for _ in range(draw(st.integers(0, 4))):
        for comment in draw(
            st.lists(st.sampled_from([b": hi", b":", b"event: x", b"id: 7", b"retry", b""]), max_size=2)
        ):
            sent += comment + end
        found = draw(st.lists(lines, max_size=3))
        for line in found:
            space = b" " if line.startswith(b" ") or draw(st.booleans()) else b""
            sent += b"data:" + space + line + end
        sent += end
        if joined := b"\n".join(found):
            data.append(joined)
    return sent + draw(st.sampled_from([b"", b"data: unfinished", b": bye\n"])), data


def fed(pieces: list[bytes], limit_bytes: int = 4_000_000) -> tuple[list[bytes], bool]:
    """What the pieces hold, and whether it was too much."""
    events, found = Events(limit_bytes), []
    try:
        for piece in pieces:
            for data in events.feed(piece):
                found.append(data)  # noqa: PERF402 - what came before an error counts
    except GarbageError:
        return found, True
    return found, False


def cut(draw: st.DataObject, whole: bytes) -> list[bytes]:
    places = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    return [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]


@given(streams(), st.data())
def test_events_are_the_same_however_they_are_cut(
    stream: tuple[bytes, list[bytes]], draw: st.DataObject
) -> None:
    sent, data = stream
    assert fed(cut(draw, sent)) == (data, False)
    assert fed([sent[i : i + 1] for i in range(len(sent))]) == (data, False)


@given(
    st.lists(st.sampled_from([b"data: ab\n", b"\n", b":c\r\n", b"data:\n", b"\xff"]), max_size=12), st.data()
)
def test_too_large_is_too_large_however_it_is_cut(parts: list[bytes], draw: st.DataObject) -> None:
    sent = b"".join(parts)
    whole = fed([sent], limit_bytes=20)
    assert fed(cut(draw, sent), limit_bytes=20) == whole
    assert fed([sent[i : i + 1] for i in range(len(sent))], limit_bytes=20) == whole


def test_an_event_of_a_megabyte_arrives_whole() -> None:
    text = "é" * 500_000
    sent = event(json.dumps({"x": text}, ensure_ascii=False).encode())
    (data,), _ = fed([sent[i : i + 4097] for i in range(0, len(sent), 4097)])
    assert json.loads(data) == {"x": text}


def test_no_event_is_larger_than_the_limit() -> None:
    assert fed([b"data: " + b"x" * 100 + b"\n\n"], limit_bytes=106) == ([b"x" * 100], False)
    assert fed([b"data: " + b"x" * 101 + b"\n\n"], limit_bytes=106) == ([], True)
    assert fed([b":" + b"x" * 106], limit_bytes=106) == ([], True)


@given(st.lists(st.binary(min_size=1, max_size=10).filter(lambda d: not {10, 13} & set(d)), max_size=5))
def test_what_we_write_is_read_again(data: list[bytes]) -> None:
    assert fed([b"".join(event(d) for d in data)]) == (data, False)
