"""What kind of answer a question wants. Knows no answer. A wrong guess costs votes, never an answer."""

import re
from collections.abc import Sequence
from itertools import pairwise

from manyminds.types import Query, Task

__all__ = ["task"]

_CHARS = 40_000  # of a question, from its end: options and what is asked come last
_OPTION_CHARS = 4_000  # of the last option
_YES_NO = re.compile(r"(?i)\b(?:yes\s*(?:or|/)\s*no|true\s*(?:or|/)\s*false)\b")
_SHORT = re.compile(
    r"(?i)\b(?:(?:one|a single|single|two|three) words?\b"
    r"|(?:answer|reply|respond) (?:only )?with (?:just|only)\b"
    r"|(?:just|only) (?:(?:give|say|write|state) )?(?:the|its|his|her|their) "
    r"(?:\w+ )?(?:name|word|year|city|country|date)\b"
    r"|(?:the |its )?name only\b|(?:answer|reply|respond) only with\b)"
)
_WRITE = re.compile(
    r"(?i)\b(?:write (?:an?|some|me|code|the)\b|implement|essay|poem|stor(?:y|ies) about|translate"
    r"|summari[sz]e|python|javascript|source code|sql)\b|^\s*(?:please )?(?:explain|describe|why)\b"
)
_EXPRESSION = re.compile(r"[0-9)]\s*[+*×÷^]\s*[-(]?\s*[0-9]|[0-9)] [-−/] [-(]?\s*[0-9]|[0-9] x [0-9]")
_ONLY_EXPRESSION = re.compile(
    r"(?i)\s*(?:(?:what is|what's|how much is|calculate|compute)\s)?[-−\s0-9().,+*/×÷^]+[=?.\s]*"
)
_MEASURE = (
    r"(?:sum|product|quotient|difference|remainder|ratio|value|number|total|average|mean|median|area|perimeter"
    r"|volume|circumference|radius|length|width|height|depth|distance|speed|rate|probability|likelihood"
    r"|percentage|percent|fraction|price|cost|amount|profit|salary|balance|capacity|temperature|weight|mass"
    r"|age|score|grade|root|square|cube|result|gcd|lcm|greatest common|least common)"
)
_QUANTITY = re.compile(
    r"(?i)\bhow (?:many|much|old|far|long|fast|tall|high|deep|heavy|wide|big|large)\b"
    r"|\b(?:calculate|compute|evaluate|solve)\b"
    r"|\b(?:what (?:is|are|was|were|will be|would be)|what's|find|determine) "
    rf"(?:[\w'’-]+ ){{0,5}}?{_MEASURE}\b"
    rf"|\bwhat {_MEASURE}\b|\bwhat (?:will|would|does|did) [^?.]{{1,60}} (?:cost|weigh|earn|pay)\b"
    r"|\bpercent of\b|% of\b|\b(?:what is|find) \$"
)
_DIGITS = re.compile(
    r"(?i)[0-9]|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty"
    r"|hundred|thousand|million|dozen|half|twice)\b"
)
_BLOCK = re.compile(r"(?s)```.*?(?:```|\Z)")
_MARK = re.compile(r"(?<![^\s*])(\(?)([A-Za-z])([).:])(?:\*\*)?(?=\s|(?<=\))[^\s)])")


def task(query: Query) -> Task:
    """The kind of answer that the last user turn wants, with its options if it lists any.

    Options are two or more marks in a row from A or a: `A) x`, `A. x`, `(A) x`, `A: x`, by line or in
    a sentence. A number needs numbers in the question.
    """
    if "json_schema" in query.demands:
        return Task("json")
    question = query.question[-_CHARS:]
    options = _options(question)
    if options is not None:
        return options
    if _YES_NO.search(_BLOCK.sub(" ", question)):  # not a comment in a program
        return Task("span")
    if _DIGITS.search(question) and not _WRITE.search(question):
        quantity = _EXPRESSION.search(question) or _QUANTITY.search(question)
        if quantity or _ONLY_EXPRESSION.fullmatch(question):
            return Task("number")
    return Task("span" if _SHORT.search(question) else "text")


def _options(question: str) -> Task | None:
    """By line if they are, since marks may occur within an option."""
    marks = [mark for mark in _MARK.finditer(question) if mark[1] or not _opened(question, mark.start())]
    at_line = [
        mark
        for mark in marks
        if not question[max(0, mark.start() - 80) : mark.start()].rpartition("\n")[2].strip(" \t*-")
    ]
    return _listed(question, at_line) or _listed(question, marks)


def _opened(question: str, at: int) -> bool:
    """Whether a parenthesis is open there: the mark in "(a - b)" is none."""
    line = question[max(0, at - 80) : at].rpartition("\n")[2]
    return line.count("(") > line.count(")")


def _listed(question: str, marks: Sequence[re.Match[str]]) -> Task | None:
    """The longest run of marks of one style; of equally long ones the last."""
    runs: list[list[re.Match[str]]] = []
    styles: dict[tuple[str, str, bool], list[re.Match[str]]] = {}
    for mark in marks:
        style = (mark[1], mark[3], mark[2].isupper())
        if mark[2] in "Aa":
            styles[style] = []
            runs.append(styles[style])
        run = styles.get(style, [])
        if mark[2].upper() == chr(ord("A") + len(run)):
            run.append(mark)
    for run in sorted(runs, key=lambda run: (len(run), run[0].start()), reverse=True):
        texts, end = _texts(question, run)
        if texts:
            asked = (question[: run[0].start()].strip(" \t\r\n*-"), question[end:].strip())
            return Task("option", texts, "\n".join(part for part in asked if part))
    return None


def _texts(question: str, run: list[re.Match[str]]) -> tuple[tuple[str, ...], int]:
    """The options' texts without marks, and where the last one ends; () when the marks are something else."""
    if len(run) < 2:
        return (), 0
    before = question[max(0, run[0].start() - 80) : run[0].start()].rstrip(" \t*-")
    if run[0][3] != ")" and before and before[-1] not in "\n?!.:;,":
        return (), 0  # "plan A. Plan B." and the like
    rest = question[run[-1].end() : run[-1].end() + _OPTION_CHARS]
    last = rest.lstrip(" \t*").partition("\n")[0]
    if "\n" not in question[run[-2].end() : run[-1].start()]:  # a list in a line ends with its sentence
        last = re.split(r"(?<=[.?!])\s", last, maxsplit=1)[0]
    inner = [question[mark.end() : after.start()] for mark, after in pairwise(run)]
    texts = tuple(_stripped(text) for text in (*inner, last))
    end = run[-1].end() + len(rest) - len(rest.lstrip(" \t*")) + len(last)
    return (texts, end) if all(texts) else ((), 0)


def _stripped(text: str) -> str:
    """Without white space, emphasis and the "or" that leads to the next option."""
    text = " ".join(text.split()).strip("*,;/?- ")
    return re.sub(r"(?:^|[\s,;/]+)(?:or|and)$", "", text).strip("*,;/?- ")
