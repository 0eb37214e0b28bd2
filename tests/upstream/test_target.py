import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manyminds.upstream import Target, TargetError


@pytest.mark.parametrize(
    ("url", "first", "host", "origin"),
    [
        ("http://h/v1", "/v1", "h", ("http", "h", 80)),
        ("https://H:8443/v1?a=b%20c", "/v1?a=b%20c", "h:8443", ("https", "h", 8443)),
        ("http://[::1]:80", "/", "[::1]:80", ("http", "::1", 80)),
        (
            "https://bücher.example/é",
            "/%C3%A9",
            "xn--bcher-kva.example",
            ("https", "xn--bcher-kva.example", 443),
        ),
    ],
)
def test_a_target_is_what_its_url_says(url: str, first: str, host: str, origin: object) -> None:
    target = Target(url, {"X-A": "é"})
    lines = target.head.decode("latin-1").split("\r\n")
    assert lines == [f"{first} HTTP/1.1", f"host: {host}", "accept-encoding: identity", "x-a: é", ""]
    assert target.origin == origin


def test_a_user_in_a_url_is_sent_but_for_a_key() -> None:
    assert b"\r\nauthorization: Basic dTpwQA==\r\n" in Target("http://u:p%40@h/", {}).head
    head = Target("http://u:p@h/", {"Authorization": "Bearer k"}).head
    assert head.count(b"authorization") == 1
    assert b"Bearer k" in head


LEGAL = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


@given(st.text(max_size=20), st.text(max_size=20))
@example("x", "a\r\nb: c")
@example("x\r\nb", "c")
@example("x", "\u20ac")
@example("x", "\t\xe9")
def test_a_header_is_one_line_or_refused(name: str, value: str) -> None:
    try:
        head = Target("http://h/", {name: value}).head
    except TargetError:
        assert not LEGAL.fullmatch(name.lower()) or not re.fullmatch("[\t\x20-\x7e\x80-\xff]*", value)
        return
    lines = head.split(b"\r\n")
    assert head.count(b"\r") == head.count(b"\n") == len(lines) - 1
    assert f"{name.lower()}: {value}".encode("latin-1") in lines
    assert lines[-1] == b""
    assert all(lines[:-1])


def test_what_is_wrong_with_a_header_is_said_without_its_value() -> None:
    with pytest.raises(TargetError, match="authorization") as caught:
        Target("http://h/", {"authorization": "Bearer secret\n"})
    assert "secret" not in str(caught.value)


@given(st.text(max_size=20).map("http://h/".__add__) | st.text(max_size=20))
@example("http://h/\r\nx: y")
@example("http://h/a b")
@example("http://h:port/")
@example("http://a\u2100b/")
def test_a_url_is_one_line_or_refused(url: str) -> None:
    with suppress(TargetError):
        lines = Target(url, {}).head.split(b"\r\n")
        assert len(lines) == 4
        assert len(lines[0].split(b" ")) == 2
        assert b"".join(lines).isascii()
