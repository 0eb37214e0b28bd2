"""`POST /v1/markdown`: Markdown to HTML that a page may show, whoever wrote it. Knows no answer.

Two parts that do not trust each other: one that writes no HTML of its input's own, and one that lets only
named elements, attributes and schemes through.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from html import escape
from typing import Final

import msgspec
import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from manyminds.admission import Admission
from manyminds.errors import InvalidRequestError, ManymindsError
from manyminds.web.door import identify
from manyminds.web.exchange import Exchange
from manyminds.web.replies import JSON, named, new_id, refusal

__all__ = ["LONGEST", "SCHEMES", "TAGS", "Markdown", "html_of"]

LONGEST: Final = 100_000
"""Characters of a text."""

TAGS: Final = {
    "a": frozenset({"href"}),
    "code": frozenset({"class"}),
    "ol": frozenset({"start"}),
    "td": frozenset({"align"}),
    "th": frozenset({"align"}),
} | dict.fromkeys(
    (
        *("blockquote", "br", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "p", "pre"),
        *("s", "strong", "table", "tbody", "thead", "tr", "ul"),
    ),
    frozenset[str](),
)
"""Elements that are let through, each with its attributes."""

SCHEMES: Final = frozenset({"http", "https", "mailto"})
"""Of links."""

_BODY_BYTES: Final = 12 * LONGEST + 1000  # JSON may take twelve bytes for a character
_DEEPEST: Final = 40  # of quotations and lists in each other; a real text has a handful
_CPU_S: Final = 1.0  # brackets that are never closed cost the square of their number
_MOST_WRITTEN: Final = 20  # times a text's length: a reference repeats its address wherever it is named
_AT_ONCE: Final = 2
_VALUES: Final = {
    "class": re.compile(r"language-[\w+#.-]{1,40}", re.ASCII),
    "start": re.compile(r"[0-9]{1,9}", re.ASCII),
    "align": re.compile(r"left|center|right", re.ASCII),
}


class _GivenUpError(Exception):
    """The text is too deep, too slow or too large to format."""


class _Request(msgspec.Struct):
    text: str


_request = msgspec.json.Decoder(_Request)


class Markdown:
    """The endpoint; see `connection.Serve`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, exchange: Exchange) -> None:
        try:
            with self._admission.enter():
                identify(self._admission, exchange.headers)
                text = _parsed(await exchange.body(_BODY_BYTES))
                async with self._room:
                    html = await asyncio.to_thread(html_of, text)
                status, head, body = 200, JSON, msgspec.json.encode({"html": html})
        except ManymindsError as error:
            status, head, body = refusal(error)
        exchange.reply(status, named(new_id()) + head, body)


def html_of(text: str) -> str:
    """Its HTML, with nothing in it but `TAGS`; of a text that takes too much, the plain text.

    Takes a second of processor time at most, and room linear in the text.
    """
    markdown = _reader(time.thread_time() + _CPU_S)
    try:
        tokens = markdown.parse(text)
        if _size(tokens) > _MOST_WRITTEN * LONGEST:
            raise _GivenUpError
        html = markdown.renderer.render(_aligned(tokens), markdown.options, {})
    except _GivenUpError:
        html = f"<pre>{escape(text)}</pre>"
    return nh3.clean(
        html,
        tags=set(TAGS),
        attributes={"*": set[str]()} | {tag: set(names) for tag, names in TAGS.items() if names},
        attribute_filter=_filtered,
        url_schemes=set(SCHEMES),
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _parsed(raw: bytes) -> str:
    """Raises: InvalidRequestError."""
    try:
        text = _request.decode(raw).text
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f'The body is not {{"text": text}}: {error}.') from None
    if len(text) > LONGEST:
        raise InvalidRequestError(
            f"`text` has {len(text):,} characters: send {LONGEST:,} at most.", param="text"
        )
    return text


def _reader(due_s: float) -> MarkdownIt:
    """What reads until `due_s` of this thread's processor time. Raises, as it reads: _GivenUpError."""

    def in_line(state: StateInline, silent: bool) -> bool:
        if time.thread_time() > due_s:
            raise _GivenUpError
        return False

    def in_block(state: StateBlock, begin: int, end: int, silent: bool) -> bool:
        if state.level > _DEEPEST or time.thread_time() > due_s:
            raise _GivenUpError
        return False

    # Twice as deep as what is given up: what is deeper than `maxNesting` would be left out without a word.
    markdown = MarkdownIt("commonmark", {"html": False, "maxNesting": 2 * _DEEPEST})
    markdown.enable(["table", "strikethrough"]).disable(["image", "html_inline", "html_block"])
    markdown.inline.ruler.before("text", "limit", in_line)
    markdown.block.ruler.before("table", "limit", in_block)
    return markdown


def _size(tokens: Iterable[Token]) -> int:
    """Characters that they will take, about."""
    size = 0
    for token in tokens:
        size += len(token.content) + sum(len(str(value)) for value in token.attrs.values())
        size += _size(token.children or ())
    return size


def _aligned(tokens: list[Token]) -> list[Token]:
    """The same, with columns of tables aligned by an attribute: styles are not let through."""
    for token in tokens:
        style = token.attrs.pop("style", None)
        if style is not None:
            token.attrs["align"] = str(style).removeprefix("text-align:")
    return tokens


def _filtered(tag: str, name: str, value: str) -> str | None:
    """The attribute's value, or None where it is to be left out."""
    if name == "href":
        return value if value.partition(":")[0].lower() in SCHEMES and ":" in value else None
    known = _VALUES.get(name)
    return value if known is None or known.fullmatch(value) else None
