"""An owner who knows characters: of Python's own tables of Unicode and of entities, some of each script."""

import unicodedata
from collections.abc import Container, Iterator, Mapping
from html.entities import html5
from pathlib import Path
from typing import Final

from manyminds.evals.knowledge.facts import Attribute, Corpus, Entry, Fact, draw

__all__ = ["corpus", "others"]

_CHARACTERS: Final = 260
_AGE: Final = unicodedata.ucd_3_2_0  # what it has, every Python has
_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "code": Attribute(
        "In the standard",
        (
            "The charts of Unicode place {it} at {x}.",
            "{Its} position in the standard is {x}.",
            "{It} was assigned {x} by the consortium.",
        ),
        (
            "What is the Unicode code point of {name}?",
            "At which U+ position is {name} encoded?",
            "{name} hexadecimal code",
            "To type {name} by its hexadecimal number, what do I enter?",
        ),
    ),
    "decimal": Attribute(
        "In the standard",
        (
            "Counted in tens, {its} number is {x}.",
            "{It} is character no. {x} in decimal figures.",
            "Python's ord() gives {x} for {it}.",
        ),
        (
            "What is the decimal number of {name}?",
            "Which value does ord() return for {name}?",
            "{name} alt code decimal",
            "Written to base ten, where in Unicode does {name} stand?",
        ),
    ),
    "bytes": Attribute(
        "In files",
        (
            "In a UTF-8 file {it} takes the bytes {x}.",
            "{Its} UTF-8 form is {x}.",
            "A hex editor shows {it} as {x} in UTF-8.",
        ),
        (
            "How is {name} encoded in UTF-8?",
            "Which bytes does {name} become in a UTF-8 file?",
            "{name} utf8 hex sequence",
            "In a hex dump of a web page, what would betray {name}?",
        ),
    ),
    "entity": Attribute(
        "In files",
        (
            "Authors of web pages write {x} for {it}.",
            "{Its} name in HTML is {x}.",
            "In HTML {it} is had by {x}.",
        ),
        (
            "What is the HTML entity for {name}?",
            "How do I write {name} in HTML by name?",
            "{name} ampersand reference",
            "Which named reference makes a browser show {name}?",
        ),
    ),
    "category": Attribute(
        "In the standard",
        (
            "{Its} general category is {x}.",
            "The standard classes {it} under {x}.",
            "{It} falls into the category {x}.",
        ),
        (
            "What is the general category of {name}?",
            "Which two letters class {name} in the Unicode database?",
            "{name} gc property abbreviation",
            "What would unicodedata.category() say of {name}?",
        ),
    ),
    "other": Attribute(
        "Relations",
        (
            "{Its} other case is {x}.",
            "Switched between small and capital, {it} becomes {x}.",
        ),
        (
            "What is the counterpart of {name} in the other case?",
            "Changing between upper and lower case, what does {name} turn into?",
            "{name} case mapping code",
            "Which position holds the big or little sister of {name}?",
        ),
    ),
    "parts": Attribute(
        "Relations",
        (
            "{It} can be taken apart into {x}.",
            "{Its} decomposition is {x}.",
        ),
        (
            "What does {name} decompose into?",
            "Which code points make up {name} when it is normalised?",
            "{name} decomposition mapping",
            "Taken to pieces, what does {name} consist of?",
        ),
    ),
}
_GROUPS: Final = {
    "LATIN": "latin",
    "GREEK": "greek",
    "CYRILLIC": "cyrillic",
    "MATHEMATICAL": "mathematics",
    "BOX": "boxes",
    "ARMENIAN": "armenian",
    "GEORGIAN": "georgian",
    "HEBREW": "hebrew",
    "ARABIC": "arabic",
    "CHEROKEE": "cherokee",
    "ETHIOPIC": "ethiopic",
    "RUNIC": "runic",
}


def _named(first: int, last: int) -> Mapping[str, str]:
    found = {}
    for code in range(first, last):
        name = _AGE.name(chr(code), "")
        if name and not name.startswith(("CJK", "HANGUL")):
            found[name] = chr(code)
    return found


def corpus(folder: Path) -> Corpus:
    """Characters with a name in HTML or with another case; `folder` is not needed."""
    entities: dict[str, str] = {}
    for entity, text in sorted(html5.items(), key=lambda item: (len(item[0]), item[0])):
        if entity.endswith(";") and len(entity) > 4:
            entities.setdefault(text, f"&{entity}")
    possible = [
        (n, c)
        for n, c in _named(0xA1, 0x2BFF).items()
        if c in entities or (n.split()[0] in _GROUPS and len(n) < 60)
    ]
    chosen = draw("characters").sample(possible, _CHARACTERS)
    return Corpus(
        owner="typographer",
        about=(
            "A type designer's cards on characters, one by one.",
            "Letters and signs, how the Unicode standard files them and how computers store them.",
        ),
        attributes=_ATTRIBUTES,
        entries=tuple(
            _entry(name, character, entities.get(character, "")) for name, character in sorted(chosen)
        ),
        invented=(
            "LATIN SMALL LETTER K WITH DOUBLE BRACKET",
            "GREEK CAPITAL LETTER ZANTHA",
            "CYRILLIC SMALL LETTER BROKEN VE",
            "UPWARDS SPIRAL ARROW WITH TWIN HOOKS",
            "RUNIC LETTER OSTWALD",
            "GEORGIAN LETTER QAMAR",
            "TRIPLE CRESCENT OPERATOR",
        ),
    )


def others(without: Container[str]) -> list[Entry]:
    """Characters of other names, script by script."""
    rest = {name: c for name, c in _named(0xA1, 0x1F000).items() if name not in without}
    return [
        _entry(name, character, "")._replace(document=name.split()[0].lower())
        for name, character in sorted(rest.items())
    ]


def _entry(name: str, character: str, entity: str) -> Entry:
    word = name.split()[0]
    group = _GROUPS.get(word) or ("arrows" if "ARROW" in name else "signs")
    facts = tuple(Fact(key, shown, golds) for key, shown, golds in _values(character, entity))
    return Entry(name=name, document=group, facts=facts)


def _values(character: str, entity: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    code = f"{ord(character):04X}"
    yield "code", f"U+{code}", (f"U+{code}", code, f"0x{code}")
    yield "decimal", str(ord(character)), (str(ord(character)),)
    raw = character.encode().hex(" ").upper()
    yield "bytes", raw, (raw, raw.replace(" ", ""))
    if entity:
        yield "entity", entity, (entity,)
    category = _AGE.category(character)
    if not category.startswith("L"):  # what a letter's is, its name says
        yield "category", category, (category,)
    other = character.swapcase()
    if len(other) == 1 and other != character:
        shown = f"U+{ord(other):04X}"
        yield "other", shown, (shown, shown.removeprefix("U+"))
    parts = _AGE.decomposition(character)
    if parts and not parts.startswith("<"):
        yield "parts", parts, (parts, " ".join(f"U+{part}" for part in parts.split()))
