"""Facts as owners' documents tell them and as people ask for them. Knows no source, no format and no file."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["Attribute", "Corpus", "Entry", "Fact", "Section", "draw", "sections", "told"]

_SENTENCES: Final = (2, 3, 4)  # of a paragraph


class Attribute(NamedTuple):
    """What can be known of an entity.

    Attributes:
        theme: the heading under which documents tell it.
        said: wordings of documents. "{It}" and "{Its}" stand for the entity, "{x}" for the value.
        asked: wordings of questions, at least three that differ in more than their beginning; "{name}" is
            the entity, and other names are those of the fact's hints.
    """

    theme: str
    said: tuple[str, ...]
    asked: tuple[str, ...]


class Fact(NamedTuple):
    """One value. `golds` are spellings of it that are right, `shown` the one in the document.

    `hints` are what questions may tell of it; `said`, where natural text tells the fact, are its words.
    """

    key: str
    shown: str
    golds: tuple[str, ...]
    hints: Mapping[str, str] = {}
    said: str = ""


class Entry(NamedTuple):
    """An entity: how questions name it, where it is told of, its facts, and prose that is not ours.

    Attributes:
        document: stem of the file that tells of it, together with others.
        called: how questions name it, where that is not its name.
        prose: by theme, paragraphs as their authors wrote them; facts with `said` lie in them.
        blank: for a fact of natural text that may be withheld, by key: theme and what stands there instead.
    """

    name: str
    document: str
    facts: tuple[Fact, ...]
    prose: Mapping[str, tuple[str, ...]] = {}
    called: str = ""
    blank: Mapping[str, tuple[str, str, str]] = {}


class Corpus(NamedTuple):
    """All that an owner may know.

    Attributes:
        owner: name of the folder.
        about: opening sentences of documents, of which each takes one.
        attributes: by key.
        invented: names of entities that there are not.
        formats: of files.
    """

    owner: str
    about: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    entries: tuple[Entry, ...]
    invented: tuple[str, ...]
    formats: tuple[str, ...] = ("md", "html", "txt")


class Section(NamedTuple):
    """A part of a document under one heading. `proofs` are, by key of a fact, the words that prove it."""

    heading: str
    theme: str
    paragraphs: tuple[str, ...]
    proofs: Mapping[str, str]


def draw(*of: object) -> random.Random:
    """A source of choices that depends on nothing else than this."""
    return random.Random(hashlib.sha256("\0".join(map(str, of)).encode()).digest())  # noqa: S311


def sections(corpus: Corpus, entry: Entry, seed: int, without: Sequence[str] = ()) -> list[Section]:
    """What documents tell of an entity, theme by theme, the facts `without` left out."""
    rng = draw(seed, corpus.owner, entry.name)
    themes: dict[str, list[Fact]] = {theme: [] for theme in entry.prose}
    for fact in entry.facts:
        if not fact.said:
            themes.setdefault(corpus.attributes[fact.key].theme, []).append(fact)
    found = []
    for theme, facts in themes.items():
        shuffled = rng.sample(facts, len(facts))
        wordings = {fact.key: rng.choice(corpus.attributes[fact.key].said) for fact in shuffled}
        size = rng.choice(_SENTENCES)
        kept = [fact for fact in shuffled if fact.key not in without]
        natural = _prose(entry, theme, without)
        proofs = {f.key: f.said for f in entry.facts if f.said and any(f.said in text for text in natural)}
        paragraphs = list(natural)
        for start in range(0, len(kept), size):
            text = ""
            for fact in kept[start : start + size]:
                text += (" " if text else "") + told(entry.name, wordings[fact.key], fact.shown, not text)
                proofs[fact.key] = text
            paragraphs.insert(rng.randrange(len(paragraphs) + 1), text)
        if paragraphs:
            found.append(Section(entry.name, theme, tuple(paragraphs), proofs))
    return found


def told(name: str, wording: str, shown: str, first: bool) -> str:
    """A sentence about an entity, which is named where the sentence is the first of its paragraph."""
    whose = f"{name}'" if name.endswith("s") else f"{name}'s"
    words = {"It": name, "it": name, "Its": whose, "its": whose}
    if not first:
        words = {"It": "It", "it": "it", "Its": "Its", "its": "its"}
    text = wording.format(**words, x=shown)
    return text[0].upper() + text[1:]


def _prose(entry: Entry, theme: str, without: Sequence[str]) -> list[str]:
    """The natural paragraphs of a theme; words that tell what is withheld are changed for others."""
    texts = list(entry.prose.get(theme, ()))
    for key in without:
        where, old, new = entry.blank.get(key, ("", "", ""))
        if where == theme:
            texts = [changed for text in texts if (changed := text.replace(old, new)).strip()]
    return texts
