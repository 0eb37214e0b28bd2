"""English sentences to put into Portuguese: messages of Django, with what its translators made of them.

There are two references, of Portugal and of Brazil. A reply is right if its chrF to the nearer one is
at least a threshold.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from manyminds.canonical import task
from manyminds.canonical.prose import spoken
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.evals.packs.wheels import Wheel, member
from manyminds.evals.questions import Graded
from manyminds.experts.recorded import Question
from manyminds.types import Message, Query, Task

__all__ = ["CATEGORY", "LEAST", "WHEEL", "catalogue", "chrf", "is_translation", "messages", "questions"]

WHEEL: Final = Wheel(
    package="django",
    version="5.2.19",
    bytes=8_319_631,
    sha256="5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
    licence="BSD-3-Clause",
)
CATEGORY: Final = "translation"
LEAST: Final = 0.5
"""Of chrF, for a right answer. English left as it is, and sentences that have nothing to do with the
reference, stay below 0.37 in 19 of 20; the two translators agree at 0.66 in the median. Of forty replies of a
model of 1.5 billion parameters a reader would judge five otherwise."""

_PARTS: Final = (
    "conf",
    *(
        f"contrib/{app}"
        for app in (
            "admin",
            "admindocs",
            "auth",
            "contenttypes",
            "flatpages",
            "gis",
            "humanize",
            "postgres",
            "redirects",
            "sessions",
            "sites",
        )
    ),
)
_ORDER: Final = 6  # of the longest n-gram
_BETA: Final = 2  # how much more recall counts than precision
_WORDS: Final = range(4, 21)  # of a message; a whole sentence may have three
_TEXT: Final = re.compile(r"[A-Z][^%{}<>()\"\\\n_|:&]*")
_REPLY_CHARS: Final = 2_000
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*\Z')
_ESCAPES: Final = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\\\": "\\"}


def catalogue(text: str) -> dict[str, str]:
    """The messages of a gettext catalogue that are translated, without plurals, contexts and doubts."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        parts: dict[str, str] = {}
        field = ""
        for line in entry.splitlines():
            if line.startswith("#"):
                if line.startswith("#,") and "fuzzy" in line:
                    parts["fuzzy"] = ""
                continue
            if word := re.match(r"(\w+(?:\[\d\])?) ", line):
                field = word[1]
            if string := _STRING.search(line):
                said = re.sub(r"\\.", lambda m: _ESCAPES.get(m[0], m[0]), string[1])
                parts[field] = parts.get(field, "") + said
        if parts.keys() == {"msgid", "msgstr"} and parts["msgid"] and parts["msgstr"]:
            found[parts["msgid"]] = parts["msgstr"]
    return found


def chrf(said: str, reference: str) -> float:
    """Character n-gram F-score in [0, 1]; white space does not count.

    Popović, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015. As in sacrebleu: precision
    and recall are means over the orders 1 to 6 that both texts are long enough for, and beta is 2.
    """
    one, other = ("".join(text.split()) for text in (said, reference))
    precision = recall = 0.0
    orders = 0
    for n in range(1, _ORDER + 1):
        ours, theirs = _grams(one, n), _grams(other, n)
        if not ours or not theirs:
            continue
        orders += 1
        common = (ours & theirs).total()
        precision += common / ours.total()
        recall += common / theirs.total()
    if not precision or not recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def is_translation(references: Sequence[str], text: str) -> bool:
    """Whether a reply is near enough to one of the references. Quotation marks around it do not count."""
    said = spoken(text)[:_REPLY_CHARS].strip().strip("\"'`“”«»* \n")
    return any(chrf(said, reference) >= LEAST for reference in references)


def questions(folder: Path, count: int) -> Iterator[Graded]:
    """At most `count`, of which there are some 120, the same first ones always. Raises: DataError."""
    portugal, brazil = messages("pt", folder), messages("pt_BR", folder)
    asked = {_key(message): message for message in {**portugal, **brazil} if _is_asked(message)}
    for key in sorted(asked)[:count]:
        message = asked[key]
        text = _text(message)
        references = [known[message] for known in (portugal, brazil) if message in known]
        question = Question(key, CATEGORY, text, (), None, split_of(key))  # type: ignore[arg-type]
        yield Graded(question, text, Task(), partial(is_translation, references))


def _is_asked(message: str) -> bool:
    """Whether it is a sentence or nearly one, without placeholders, and no question of another kind."""
    words = len(message.split())
    long_enough = words in _WORDS or (words == _WORDS.start - 1 and message[-1] in ".?!")
    return (
        long_enough
        and _TEXT.fullmatch(message) is not None
        and task(Query((Message("user", _text(message)),))).kind == "text"
    )


def _text(message: str) -> str:
    return f'Translate into Portuguese: "{message}"\n\nGive the translation and nothing else.'


def _key(message: str) -> str:
    return f"translation-{hashlib.sha256(message.encode()).hexdigest()[:12]}"


def messages(locale: str, folder: Path) -> Mapping[str, str]:
    """English messages with their translations, of all parts; the first that has one decides.

    Raises: DataError.
    """
    found: dict[str, str] = {}
    for part in _PARTS:
        raw = member(WHEEL, f"django/{part}/locale/{locale}/LC_MESSAGES/django.po", folder)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{WHEEL.requirement}: a catalogue is not UTF-8: {error}") from None
        found = catalogue(text) | found
    return found
