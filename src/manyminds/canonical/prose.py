"""How prose is cut and compared. Knows no kind of answer but the short span."""

import re
import unicodedata
from collections.abc import Iterator

__all__ = ["NOT", "boxes", "clause", "end", "plain", "span", "spoken"]

NOT = re.compile(r"(?i)\b(?:not|never|neither|nor|cannot|incorrect|wrong)\b|n['’]t\b")
"""What turns a statement around."""

_TAIL_CHARS = 4_000  # of an answer, from its end
_BOX_CHARS = 200
_CLAUSE_CHARS = 400
_SPAN_WORDS = 8
_GROUPED = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])")
_EDGES = " \t.,;:!?\"'`*_~()[]{}<>|“”‘’«»…"
_STOP = re.compile(r"[.!?](?=\s|$)|\n")
_LEAD = re.compile(
    r"(?i)[\s*_#]*(?:so,? |therefore,? )?(?:the |my )?(?:final |correct |short )?answer(?: is|:)[\s*_]*"
)
_FINAL = re.compile(
    r"(?im)^[ \t*_#>`-]*(?:(?:the|my) )?(?:final |correct |short )?"
    r"answer(?: is)?[*_`]*[ \t]?:[\s*_`]*(\S[^\n]*)"
)
_VERDICT = re.compile(r"(?i)[\s*_\"']*(yes|no|true|false)\b[*_\"']*(?:[,.:;!–—\n]|\s[-–—]|$)")


def spoken(text: str) -> str:
    """What follows the reasoning block, if there is one; "" where the reasoning was cut off."""
    _, closed, answer = text.rpartition("</think>")
    return "" if not closed and text[:64].lstrip().startswith("<think>") else answer


def end(text: str) -> str:
    """The end of an answer, from a whole word on, without reasoning."""
    answer = spoken(text)
    if len(answer) > _TAIL_CHARS:
        words = answer[-_TAIL_CHARS:].split(None, 1)
        answer = words[1] if len(words) == 2 else ""
    return answer.encode("utf-8", "replace").decode("utf-8").strip()


def boxes(text: str) -> Iterator[tuple[int, str]]:
    r"""Position and content of each `\boxed{...}` of at most 200 characters."""
    for match in re.finditer(r"\\boxed\s?\{", text):
        depth = 1
        for i in range(match.end(), min(len(text), match.end() + _BOX_CHARS)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                yield match.start(), text[match.end() : i]
                break


def clause(text: str, start: int = 0) -> str:
    """From `start` to the end of its sentence or line, white space before it skipped."""
    while start < len(text) and text[start].isspace():
        start += 1
    stop = _STOP.search(text, start)
    return text[start : stop.start() if stop else len(text)][:_CLAUSE_CHARS]


def plain(text: str) -> str:
    """Words without case, accents, outer punctuation and leading article; inner signs stay ("c++").

    "a,b" are two words, "1,234" is one.
    """
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    folded = unicodedata.normalize("NFC", "".join(c for c in folded if not "\u0300" <= c <= "\u036f"))
    parts = (part if _GROUPED.search(part) else part.replace(",", " ") for part in folded.split())
    words = [word for part in " ".join(parts).split() if (word := part.strip(_EDGES))]
    while len(words) > 1 and words[0] in ("the", "a", "an"):
        words = words[1:]
    return " ".join(words)


def span(text: str) -> str | None:
    """A short answer; of a longer one the last "Answer: ...", or a verdict that opens it."""
    boxed = [content for _, content in boxes(text)] or _FINAL.findall(text)
    text = boxed[-1] if boxed else text
    lead = _LEAD.match(text)
    text = text[lead.end() :] if lead else text
    if verdict := _VERDICT.match(text):
        return verdict[1].lower()
    words = plain(text)
    return words if words and len(words.split(" ")) <= _SPAN_WORDS else None
