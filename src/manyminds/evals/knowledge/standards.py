"""An owner who knows codes of languages, scripts, money and former countries, of the package pycountry."""

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from manyminds.errors import DataError
from manyminds.evals.knowledge.facts import Attribute, Corpus, Entry, Fact, draw
from manyminds.evals.packs.wheels import Wheel, member

__all__ = ["WHEEL", "corpus", "other_languages", "other_regions"]

WHEEL: Final = Wheel(
    package="pycountry",
    version="26.2.16",
    bytes=8_044_600,
    sha256="115c4baf7cceaa30f59a4694d79483c9167dbce7a9de4d3d571c5f3ea77c305a",
    licence="LGPL-2.1-only",
)

_KINDS: Final = {"L": "living", "E": "extinct", "A": "ancient", "H": "historical", "C": "constructed"}
_WORDS: Final = frozenset(
    (
        *("am", "an", "as", "be", "he", "hi", "id", "in", "is", "it", "my", "no", "or", "so", "to"),
        *("and", "her", "nor", "not", "per", "run"),
    )
)
"""Codes that are words too."""

_LIVING, _GONE, _SCRIPTS, _REGIONS = 60, 60, 70, 70  # of each at most
_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "language": Attribute(
        "Registration",
        (
            "Librarians catalogue books in {it} under {x}.",
            "{Its} identifier in ISO 639-3 is {x}.",
            "{It} was registered as {x}.",
        ),
        (
            "What is the ISO 639-3 code of the language {name}?",
            "Which three letters mark a text as {name}?",
            "{name} language identifier three letters",
            "In a library's catalogue, by what tag would I find books in {name}?",
        ),
    ),
    "brief": Attribute(
        "Registration",
        (
            "Web pages in {it} carry the short tag {x}.",
            "{Its} code of two letters is {x}.",
        ),
        (
            "What is the two-letter code of the language {name}?",
            "Which lang attribute goes with a web page in {name}?",
            "{name} ISO 639-1",
            "How is {name} abbreviated to a pair of letters?",
        ),
    ),
    "kind": Attribute(
        "Standing",
        (
            "The register counts {it} among the {x} languages.",
            "{Its} standing in the register is {x}.",
            "As to its life, {it} is held to be {x}.",
        ),
        (
            "Is the language {name} living, extinct or something else?",
            "What is the status of {name} in the register of languages?",
            "{name} language type vitality",
            "Does anybody still grow up with {name}, according to ISO 639-3?",
        ),
    ),
    "script": Attribute(
        "Registration",
        (
            "In bibliographies {its} letters are announced by {x}.",
            "{Its} identifier in ISO 15924 is {x}.",
            "{It} goes by {x} in lists of scripts.",
        ),
        (
            "What is the ISO 15924 code of the script {name}?",
            "Which four letters stand for {name} writing?",
            "{name} script tag four letters",
            "How would a bibliography mark something written in {name}?",
        ),
    ),
    "scriptnumber": Attribute(
        "Standing",
        (
            "Scripts are numbered too, and {it} got {x}.",
            "{Its} number among the world's scripts is {x}.",
        ),
        (
            "What is the numeric code of the script {name}?",
            "Which number did ISO 15924 give to {name}?",
            "{name} writing system number",
            "Under what three digits is {name} filed among scripts?",
        ),
    ),
    "money": Attribute(
        "Registration",
        (
            "Banks write {x} for {it}.",
            "{Its} sign in foreign exchange is {x}.",
            "Bills in {it} are marked {x}.",
        ),
        (
            "What is the ISO 4217 code of the {name}?",
            "Which three letters do banks use for the {name}?",
            "{name} forex abbreviation",
            "A transfer form wants letters for the {name}: which?",
        ),
    ),
    "moneynumber": Attribute(
        "Standing",
        (
            "In payment messages without letters {it} is {x}.",
            "{Its} number in ISO 4217 is {x}.",
            "Card terminals know {it} by the number {x}.",
        ),
        (
            "What is the numeric currency code of the {name}?",
            "Which three digits identify the {name} in card payments?",
            "{name} ISO 4217 number",
            "A terminal without letters would call the {name} what?",
        ),
    ),
    "region": Attribute(
        "Registration",
        (
            "Its country's register of parts has {it} as {x}.",
            "{Its} code in ISO 3166-2 is {x}.",
            "{It} is entered as {x} in the list of subdivisions.",
        ),
        (
            "What is the ISO 3166-2 code of {name}?",
            "By which code with a hyphen is {name} known as a subdivision?",
            "{name} subdivision code",
            "In a form that asks for a coded province, what do I put for {name}?",
        ),
    ),
    "sort": Attribute(
        "Standing",
        (
            "By rank {it} is classed as: {x}.",
            "{Its} rank in the administration is that of {x}.",
        ),
        (
            "What kind of administrative division is {name}?",
            "Which rank does {name} have as a subdivision?",
            "{name} administrative type",
            "How would an official describe what {name} is within its country?",
        ),
    ),
    "withdrawn": Attribute(
        "Standing",
        (
            "{It} was struck off the list of countries in {x}.",
            "{Its} codes were withdrawn in {x}.",
        ),
        (
            "In which year was {name} withdrawn from the list of countries?",
            "When did the code of {name} cease to be valid?",
            "{name} ISO 3166-3 withdrawal",
            "Until what year could {name} be entered as a country?",
        ),
    ),
    "former": Attribute(
        "Registration",
        (
            "Among former countries {it} is filed as {x}.",
            "{Its} code of four letters is {x}.",
        ),
        (
            "What is the ISO 3166-3 code of {name}?",
            "Which four letters recall {name} among former countries?",
            "{name} former country code",
            "By what quartet of letters do archives file {name}?",
        ),
    ),
}


def _rows(folder: Path, standard: str) -> Sequence[Mapping[str, Any]]:
    """All entries of a standard. Raises: DataError."""
    raw = member(WHEEL, f"pycountry/databases/iso{standard}.json", folder)
    try:
        (entries,) = json.loads(raw).values()
    except ValueError as error:
        raise DataError(f"{WHEEL.requirement}: ISO {standard} cannot be read: {error!s:.200}") from None
    return list(entries)


def corpus(folder: Path) -> Corpus:
    """Some of each standard. Raises: DataError."""
    made = [*_languages(folder), *_scripts(folder), *_money(folder), *_regions(folder), *_former(folder)]
    once: dict[str, Entry] = {}
    for entry in made:
        once.setdefault(entry.name.casefold(), entry)
    return Corpus(
        owner="archivist",
        about=(
            "Cards of a registry, of those who keep names and codes in order.",
            "Out of the files of an archive that has to write everything by its code.",
        ),
        attributes=_ATTRIBUTES,
        entries=tuple(entry for _, entry in sorted(once.items())),
        invented=(
            "Old Velmoran",
            "Tarsenic",
            "Upper Quillonian",
            "Nordvik Sign Language",
            "Maravel Creole",
            "Zamborese",
            "Lethovian",
        ),
    )


def other_languages(folder: Path, without: Container[str]) -> list[Entry]:
    """Languages of other names, in the order of their names. Raises: DataError."""
    return [
        Entry(
            row["name"],
            f"languages-{row['name'][0].lower()}",
            (
                Fact("language", row["alpha_3"], (row["alpha_3"],)),
                Fact("kind", _KINDS[row["type"]], (_KINDS[row["type"]],)),
            ),
        )
        for row in sorted(_rows(folder, "639-3"), key=lambda row: str(row["name"]))
        if row["type"] in _KINDS and row["name"] not in without
    ]


def other_regions(folder: Path, without: Container[str], known: Mapping[str, str]) -> list[Entry]:
    """Prose about provinces of other names, country by country. Raises: DataError.

    Args:
        folder: where packages lie.
        without: names that are left out.
        known: names of countries by their codes.
    """
    found = []
    for row in sorted(_rows(folder, "3166-2"), key=lambda row: str(row["code"])):
        country = known.get(row["code"][:2])
        if country and row["name"] not in without:
            told = f"{row['name']} is a {row['type'].lower()} of {country}. Its code there is {row['code']}."
            found.append(Entry(row["name"], f"parts-of-{country}", (), {"Land": (told,)}))
    return found


def _languages(folder: Path) -> Iterator[Entry]:
    every = [row for row in _rows(folder, "639-3") if re.fullmatch(r"[A-Z][a-z' -]{4,30}", row["name"])]
    living = [
        row for row in every if row["type"] == "L" and not _WORDS & {row.get("alpha_2", "is"), row["alpha_3"]}
    ]
    gone = [row for row in every if row["type"] != "L" and row["type"] in _KINDS]
    for of, count in ((living, _LIVING), (gone, _GONE)):
        for row in draw("languages", count, len(of)).sample(of, min(count, len(of))):
            facts = [Fact("language", row["alpha_3"], (row["alpha_3"],))]
            if "alpha_2" in row:
                facts.append(Fact("brief", row["alpha_2"], (row["alpha_2"],)))
            else:
                facts.append(Fact("kind", _KINDS[row["type"]], (_KINDS[row["type"]],)))
            yield Entry(row["name"], f"languages-{'spoken' if of is living else 'of-the-past'}", tuple(facts))


def _scripts(folder: Path) -> Iterator[Entry]:
    every = [row for row in _rows(folder, "15924") if re.fullmatch(r"[A-Z][A-Za-z' -]{4,30}", row["name"])]
    for row in draw("scripts").sample(every, min(_SCRIPTS, len(every))):
        facts = (
            Fact("script", row["alpha_4"], (row["alpha_4"],)),
            Fact("scriptnumber", row["numeric"], (row["numeric"],)),
        )
        yield Entry(f"{row['name']} script", "scripts", facts, called=row["name"])


def _money(folder: Path) -> Iterator[Entry]:
    for row in _rows(folder, "4217"):
        if re.fullmatch(r"[A-Z][A-Za-z' -]{5,30}", row["name"]):
            facts = (
                Fact("money", row["alpha_3"], (row["alpha_3"],)),
                Fact("moneynumber", row["numeric"], (row["numeric"],)),
            )
            yield Entry(row["name"], f"money-{'a-to-l' if row['name'] < 'M' else 'm-to-z'}", facts)


def _regions(folder: Path) -> Iterator[Entry]:
    every = [row for row in _rows(folder, "3166-2") if re.fullmatch(r"[A-Z][a-zé-]{5,20}", row["name"])]
    for row in draw("regions").sample(every, _REGIONS):
        yield _region(row)


def _region(row: Mapping[str, Any]) -> Entry:
    kind = row["type"].lower()
    facts = (Fact("region", row["code"], (row["code"],)), Fact("sort", kind, (kind,)))
    return Entry(row["name"], "provinces", facts)


def _former(folder: Path) -> Iterator[Entry]:
    for row in _rows(folder, "3166-3"):
        name = row["name"].partition(",")[0]
        year = row["withdrawal_date"][:4]
        facts = (Fact("withdrawn", year, (year,)), Fact("former", row["alpha_4"], (row["alpha_4"],)))
        yield Entry(f"former {name}", "former-countries", facts)
