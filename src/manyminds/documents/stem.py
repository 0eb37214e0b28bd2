"""English words to their stems, by Porter's rules: what "installs" and "installed" have in common.

Source: M. F. Porter, An algorithm for suffix stripping, Program 14 (1980), as SQLite's tokenizer has it.
"""

import re
from functools import lru_cache
from typing import Final

__all__ = ["stem"]

_ENGLISH: Final = re.compile(r"[a-z]{3,40}")  # none is longer
_SYLLABLE: Final = re.compile(r"[aeiou]+[^aeiou]+")

_SECOND: Final = (
    *(("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize")),
    *(("logi", "log"), ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous")),
    *(("ization", "ize"), ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive")),
    *(("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble")),
)
_THIRD: Final = (
    *(("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", "")),
    ("ness", ""),
)
_FOURTH: Final = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ou", "ism", "ate"),
    *("iti", "ous", "ive", "ize", "sion", "tion"),
)


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The stem of a word in small letters; the word itself where it cannot be English. Pure."""
    if not _ENGLISH.fullmatch(word):
        return word
    word = _past(_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replaced(_replaced(word, _SECOND), _THIRD)
    word = _stripped(word)
    return _end(word)


def _shape(word: str) -> str:
    """The word with "y" as the vowel or the consonant that it stands for."""
    letters: list[str] = []
    for letter in word:
        if letter == "y":
            letter = "i" if letters and letters[-1] not in "aeiou" else "j"
        letters.append(letter)
    return "".join(letters)


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    return len(_SYLLABLE.findall(_shape(word)))


def _has_vowel(word: str) -> bool:
    return any(letter in "aeiou" for letter in _shape(word))


def _doubled(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and word[-1] not in "aeiou"


def _hops(word: str) -> bool:
    """Ends with consonant, vowel, consonant, the last not w, x or y: "hop", not "snow"."""
    shape = _shape(word)[-3:]
    vowels = [letter in "aeiou" for letter in shape]
    return vowels == [False, True, False] and word[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")) and word not in ("sses", "ies"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("eed") and word != "eed":
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            rest = word.removesuffix(suffix)
            return _mended(rest) if _has_vowel(rest) else word
    return word


def _mended(word: str) -> str:
    if word.endswith(("at", "bl", "iz")) and len(word) > 2:
        return word + "e"
    if _doubled(word) and word[-1] not in "lsz":
        return word[:-1]
    return word + "e" if _measure(word) == 1 and _hops(word) else word


def _replaced(word: str, rules: tuple[tuple[str, str], ...]) -> str:
    for suffix, instead in rules:
        if word.endswith(suffix):
            rest = word.removesuffix(suffix)
            return rest + instead if _measure(rest) > 0 else word
    return word


def _stripped(word: str) -> str:
    for suffix in _FOURTH:
        if word.endswith(suffix):
            rest = word.removesuffix("ion" if suffix in ("sion", "tion") else suffix)
            return rest if _measure(rest) > 1 else word
    return word


def _end(word: str) -> str:
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _hops(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word
