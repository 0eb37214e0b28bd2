"""Text to the words that are looked for: small letters, no accents, stems; and which of them say nothing.

Knows no index. The same words come out wherever the same text stands.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from manyminds.documents.stem import stem

__all__ = ["content_words", "spelled", "terms"]

_WORD: Final = re.compile(r"[^\W_]+")
_RUN: Final = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]+")
_SAYING_NOTHING: Final = """
    a about above after again against all also am an and any are as at be because been before being below
    between both but by can cannot could d did do does doing done down during each few for from further
    had has have having he her here hers herself him himself his how i if in into is it its itself just
    let ll m me more most my myself no nor not of off on once only or other ought our ours ourselves out
    over own re s same shall she should so some such t tell than that the their theirs them themselves
    then there these they this those through to too under until up us ve very was we were what whatever
    when where whether which while who whom whose why will with would you your yours yourself yourselves
    please
"""
_STOP: Final = frozenset(_SAYING_NOTHING.split())


def spelled(text: str) -> Iterator[str]:
    """The words of a text in order, in small letters and without accents, not stemmed. Pure.

    What is written without spaces, as Chinese and Japanese are, comes as pairs of characters.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).casefold()
        text = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in text if not unicodedata.combining(letter))
        return _parted(_WORD.findall(unicodedata.normalize("NFC", text)))
    return iter(_WORD.findall(text.lower()))


def terms(text: str) -> list[str]:
    """The words of a text in order as an index has them: without stop words, stemmed. Pure."""
    return [stem(word) for word in spelled(text) if word not in _STOP]


def content_words(question: str) -> dict[str, str]:
    """The words of a question by which it is searched for: term -> as it was asked, in order. Pure.

    Where it has nothing but stop words there are none.
    """
    words: dict[str, str] = {}
    for word in spelled(question):
        if word not in _STOP:
            words.setdefault(stem(word), word)
    return words


def _parted(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if _RUN.search(word) is None:
            yield word
            continue
        at = 0
        for run in _RUN.finditer(word):
            if run.start() > at:
                yield word[at : run.start()]
            at = run.end()
            pairs = range(run.start(), max(run.start() + 1, at - 1))
            yield from (word[i : min(i + 2, at)] for i in pairs)
        if at < len(word):
            yield word[at:]
