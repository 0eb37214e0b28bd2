"""An owner who knows airports, of the package airportsdata: of its eight thousand, some of each country."""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Final

from manyminds.evals.knowledge import countries
from manyminds.evals.knowledge.facts import Attribute, Corpus, Entry, Fact, draw
from manyminds.evals.knowledge.words import holds
from manyminds.evals.packs.wheels import Wheel, member

__all__ = ["WHEEL", "corpus", "others"]

WHEEL: Final = Wheel(
    package="airportsdata",
    version="20260905",
    bytes=931_164,
    sha256="d7eaa9a57d373b0adaaae0d52da2af0bb0edf73f7baa170f7c415d3342bf4868",
    licence="MIT",
)

_OF_COUNTRY: Final = 3
_AIRPORTS: Final = 260
_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "iata": Attribute(
        "In timetables",
        (
            "Luggage tags for {it} are marked {x}.",
            "Airlines print {x} on tickets to {it}.",
            "{Its} three letters for travellers are {x}.",
        ),
        (
            "What is the IATA code of {name}?",
            "Which three letters would a suitcase bound for {name} be labelled with?",
            "{name} passenger code three letters",
            "How do booking systems abbreviate {name}?",
        ),
    ),
    "icao": Attribute(
        "In timetables",
        (
            "Flight plans name {it} {x}.",
            "Pilots and controllers know {it} as {x}.",
            "{Its} location indicator in flight plans is {x}.",
        ),
        (
            "What is the ICAO code of {name}?",
            "What do pilots write in a flight plan for {name}?",
            "{name} four-letter location indicator",
            "By which quartet of letters does air traffic control identify {name}?",
        ),
    ),
    "elevation": Attribute(
        "Site",
        (
            "{Its} runways lie {x} feet above the sea.",
            "{It} stands at a height of {x} ft.",
            "Altimeters on the ground of {it} read {x} feet.",
        ),
        (
            "What is the elevation of {name}?",
            "How many feet above sea level is {name}?",
            "{name} altitude ft",
            "How high up do planes land at {name}?",
        ),
    ),
    "latitude": Attribute(
        "Site",
        (
            "{Its} geographic latitude is {x} degrees.",
            "On the map {it} is found at {x} degrees of latitude.",
        ),
        (
            "At which latitude is {name}?",
            "What is the north-south coordinate of {name}?",
            "{name} lat degrees",
            "How far from the equator, in degrees, would I be standing at {name}?",
        ),
    ),
    "longitude": Attribute(
        "Site",
        (
            "{Its} meridian is that of {x} degrees.",
            "Its east-west position puts {it} at {x} degrees from Greenwich.",
        ),
        (
            "At which longitude is {name}?",
            "What is the east-west coordinate of {name}?",
            "{name} lon degrees Greenwich",
            "Which meridian runs through {name}?",
        ),
    ),
    "country": Attribute(
        "Surroundings",
        (
            "{It} is run under the aviation laws of {x}.",
            "{Its} passengers set foot in {x}.",
            "Who lands at {it} has arrived in {x}.",
        ),
        (
            "In which country is {name}?",
            "Which state does {name} belong to?",
            "{name} nation",
            "After touching down at {name}, whose border guards will I meet?",
        ),
    ),
    "part": Attribute(
        "Surroundings",
        (
            "{Its} grounds are in the province or state of {x}.",
            "{It} belongs to the district of {x}.",
            "The regional authority for {it} is that of {x}.",
        ),
        (
            "In which province or state is {name}?",
            "Which administrative region does {name} lie in?",
            "{name} subdivision",
            "The land around {name} is governed by what district?",
        ),
    ),
    "city": Attribute(
        "Surroundings",
        (
            "{It} serves travellers to {x}.",
            "{Its} buses go to {x}.",
            "The town nearest to {it} is {x}.",
        ),
        (
            "Which city does {name} serve?",
            "What town would I reach by flying into {name}?",
            "{name} nearby municipality",
            "For visitors of what place was {name} built?",
        ),
    ),
    "zone": Attribute(
        "In timetables",
        (
            "{Its} clocks follow {x}.",
            "Timetables of {it} are in the hours of {x}.",
            "{It} keeps the time of {x}.",
        ),
        (
            "In which time zone is {name}?",
            "Whose time do the clocks at {name} show?",
            "{name} tz database name",
            "Departures at {name} are given in what local time?",
        ),
    ),
}


def _rows(folder: Path) -> list[Mapping[str, str]]:
    """All airports that have a code for travellers and a name of their own. Raises: DataError."""
    text = member(WHEEL, "airportsdata/airports.csv", folder).decode()
    every = [row for row in csv.DictReader(io.StringIO(text)) if row["iata"] and row["icao"]]
    often = Counter(row["name"] for row in every)
    return [row for row in every if often[row["name"]] == 1 and len(row["name"]) < 60]


def corpus(folder: Path) -> Corpus:
    """Some airports of every country, the international ones first. Raises: DataError."""
    known = countries.names(folder)
    of_country: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in _rows(folder):
        if row["country"] in known and "International" in row["name"]:
            of_country[row["country"]].append(row)
    chosen = [
        row
        for code in sorted(of_country)
        for row in draw("airports", code).sample(of_country[code], min(_OF_COUNTRY, len(of_country[code])))
    ]
    chosen = draw("airports").sample(chosen, min(_AIRPORTS, len(chosen)))
    return Corpus(
        owner="pilot",
        about=(
            "A traveller's and a pilot's notes on airports, kept up from flight to flight.",
            "Airports visited or looked up, with what one needs to know before landing.",
        ),
        attributes=_ATTRIBUTES,
        entries=tuple(_entry(row, known) for row in sorted(chosen, key=lambda row: row["name"])),
        invented=(
            "Velmora International Airport",
            "Harrowgate Sands Airport",
            "Port Calder International Airport",
            "Saint Orlan Airport",
            "Nuevo Albar International Airport",
            "Teresin Valley Airport",
            "Kilbrennan Island Airport",
        ),
    )


def others(folder: Path, without: Container[str]) -> list[Entry]:
    """Airports of other names, country by country. Raises: DataError."""
    known = countries.names(folder)
    rest = [row for row in _rows(folder) if row["country"] in known and row["name"] not in without]
    rest.sort(key=lambda row: (row["country"], row["subd"], row["name"]))
    return [_entry(row, known)._replace(document=known[row["country"]]) for row in rest]


def _entry(row: Mapping[str, str], known: Mapping[str, str]) -> Entry:
    zone = row["tz"].partition("/")[0].lower() or "elsewhere"
    initial = re.sub(r"[^a-z]", "", row["name"].lower())[:1]
    half = "a-to-k" if initial < "l" else "l-to-z"
    return Entry(
        name=row["name"],
        document=f"{zone}-{half}",
        facts=tuple(Fact(key, shown, golds) for key, shown, golds in _values(row, known)),
    )


def _values(row: Mapping[str, str], known: Mapping[str, str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for key, column in (("iata", "iata"), ("icao", "icao"), ("part", "subd"), ("zone", "tz")):
        if row[column]:
            yield key, row[column], (row[column],)
    if row["city"] and not holds(row["city"], row["name"].split()[0]):
        yield "city", row["city"], (row["city"],)
    yield "country", known[row["country"]], (known[row["country"]],)
    if row["elevation"] not in ("", "0"):
        yield "elevation", f"{int(float(row['elevation'])):,}", (str(int(float(row["elevation"]))),)
    for key, column in (("latitude", "lat"), ("longitude", "lon")):
        shown = f"{float(row[column]):.2f}"
        yield key, shown, (shown, row[column])
