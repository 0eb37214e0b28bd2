"""Which of the given options a text chooses. Knows nothing of how options are listed in a question."""

import re
from collections.abc import Sequence
from functools import lru_cache

from manyminds.canonical.prose import NOT, boxes, clause, plain

__all__ = ["option"]

_STATED = re.compile(
    r"(?i)\b(?:answer|choice|option)\b[*_\"']{0,3}(?: (?:to|for) [^.:\n]{0,80}?)?\s*"
    r"(?:is|would be|should be|must be|[:=])[\s*_:]*"
)
_LETTER = re.compile(
    r"[\s*_`\"'$]*(?:[Oo]ption |[Cc]hoice )?(?:\\(?:text|mathrm|mathbf)\{)?([(\[*_]*)([A-Za-z])(?![\w'’])"
)
_JOINED = re.compile(r"[\s*)\]]*(?:,|/|&|\bor\b|\band\b)\s*(?:option )?[(*]*[A-Z](?![\w'’])")
_ALONE = re.compile(r"(?im)^[ \t>*_(\[`$#-]*(?:option |choice )?\(?([A-Z])[ \t*_)\].:`$]*$")
_LABEL = re.compile(
    r"(?m)^[ \t>*_(\[#-]*(?:[Oo]ption |[Cc]hoice )?\(?(?!I,)([A-Z]|[a-z](?=\)))"
    r"(?:[)\].:,*_]+|(?= [-–—] ))[ \t*_–—-]+(\S.*)$"
)
_MENTION = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer) \(?([A-Z])(?![\w'’])|(?<!\w)\(([A-Z])\)"
    r"|\*\*\(?([A-Z])(?![\w'’ ])[^*\n]{0,80}\*\*"
)
_BECAUSE = re.compile(r"\s+(?:because|since|as|for|which|due|with)\b")


def option(options: Sequence[str], text: str) -> str | None:
    """The capital letter of the chosen option: the i-th has letter A + i.

    A statement ("the answer is B", a box) counts before a line that is or begins with a letter, that
    before a mention ("option B"), that before the text of an option; the last statement wins. Of the
    others all must agree, and a letter must not come with the text of another option.
    """
    return _choice(tuple(options)).chosen(text) if text else None


@lru_cache(maxsize=64)
def _choice(options: tuple[str, ...]) -> "_Choice":
    """The same for every answer to a question."""
    return _Choice(options)


class _Choice:
    """Reads texts, and is changed by none. Letters beyond the options are no letters."""

    def __init__(self, options: Sequence[str]) -> None:
        self._exact: dict[str, list[str]] = {}  # text to letters: several where options repeat
        self._letters: dict[str, list[str]] = {}  # the same, by plain words
        for i, text in enumerate(options):
            self._exact.setdefault(_folded(text), []).append(chr(ord("A") + i))
            self._letters.setdefault(plain(text), []).append(chr(ord("A") + i))
        self._last = chr(ord("A") + len(options) - 1)

    def chosen(self, text: str) -> str | None:
        """What `read` finds, sooner where the text is a letter and nothing else."""
        alone = len(text) == 1 and "A" <= text <= min(self._last, "Z")
        if alone and text.casefold() not in self._exact:  # else it may name that option
            return text
        return self.read(text)

    def read(self, text: str) -> str | None:
        if same := self._exact.get(_folded(text)):
            if len(text) == 1 and self._known(text):  # an option's text is the letter of another one
                same = [*same, text.upper()]
            return same[0] if len(set(same)) == 1 else None
        if stated := self._stated(text):
            return stated[-1]
        said = self._lines(text) or self._mentions(text)
        if said:
            return (said.pop() or None) if len(said) == 1 else None
        return self._named(text)

    def _stated(self, text: str) -> list[str | None]:
        """What each statement says, in order; None where it says two things at once."""
        found: list[tuple[int, str | None]] = []
        for match in _STATED.finditer(text):
            said = clause(text, match.end())
            letter = _LETTER.match(said)
            if letter is not None and self._is_letter(letter, said):
                rest = said[letter.end() :]
                clear = not _JOINED.match(rest) and self._agrees(letter[2].upper(), rest)
                found.append((match.start(), letter[2].upper() if clear else None))
            elif named := self._named(said):
                found.append((match.start(), named))
        for start, content in boxes(text):
            letter = _LETTER.match(content)
            if letter is not None and self._known(letter[2]) and not content[letter.end() :].strip(" )]}*."):
                found.append((start, letter[2].upper()))
            elif named := self._named(content):
                found.append((start, named))
        return [letter for _, letter in sorted(found, key=lambda pair: pair[0])]

    def _lines(self, text: str) -> set[str]:
        """Letters of lines that are one or begin with one; "" where the text denies the letter."""
        said = {m[1].upper() for m in _ALONE.finditer(text) if self._known(m[1])}
        for match in _LABEL.finditer(text):
            letter = match[1].upper()
            if self._known(letter):
                said.add(letter if self._agrees(letter, match[2]) else "")
        return said

    def _mentions(self, text: str) -> set[str]:
        said: set[str] = set()
        for match in _MENTION.finditer(text):
            letter = match[1] or match[2] or match[3]
            if self._known(letter):
                denied = NOT.search(text, max(0, match.start() - 20), match.start())
                said.add("" if denied else letter)
        return said

    def _known(self, letter: str) -> bool:
        return "A" <= letter.upper() <= self._last

    def _is_letter(self, match: re.Match[str], said: str) -> bool:
        """Tells a letter from the words "a" and "I"."""
        opened, letter, rest = match[1], match[2], said[match.end() :]
        if not self._known(letter):
            return False
        if opened or not rest.strip() or rest[0] in ").]*_:,`}$\"'" or _BECAUSE.match(rest):
            return True
        return letter.isupper() and letter not in "AI"

    def _agrees(self, letter: str, rest: str) -> bool:
        """False where the letter comes with the text of another option."""
        words = plain(rest) + " "
        named = [o for o in self._letters if o and words.startswith(o + " ")]
        return not named or letter in self._letters[max(named, key=len)]

    def _named(self, text: str) -> str | None:
        """The only option whose text occurs, in whole words and not denied."""
        words = f" {plain(text)} "
        found: list[str] = []
        for name in sorted(self._letters, key=lambda o: (-len(o), o)):  # "Paris, Texas" is not "Paris" too
            at = words.find(f" {name} ") if name else -1
            if at >= 0:
                if NOT.search(" ".join(words[:at].split()[-3:])):
                    return None
                found += self._letters[name]
                words = words.replace(f" {name} ", " | ")
        return found[0] if len(found) == 1 else None


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
