"""An owner who knows the chemical elements, of the package mendeleev: half of it its authors' own prose."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from manyminds.errors import DataError
from manyminds.evals.knowledge.facts import Attribute, Corpus, Entry, Fact
from manyminds.evals.packs.wheels import Wheel, member

__all__ = ["WHEEL", "corpus", "others"]

WHEEL: Final = Wheel(
    package="mendeleev",
    version="1.3.0",
    bytes=1_380_301,
    sha256="76f415767b654634e51dead755513ef431abf200e892eab8468aa659ff218d1c",
    licence="MIT",
)

_STRUCTURES: Final = {
    "BCC": "body-centred cubic",
    "FCC": "face-centred cubic",
    "HEX": "hexagonal",
    "ORC": "orthorhombic",
    "RHL": "rhombohedral",
    "DIA": "diamond cubic",
    "TET": "tetragonal",
    "CUB": "simple cubic",
    "MCL": "monoclinic",
}
_WORDS: Final = ("He", "In", "As", "At", "No", "Am", "Be")  # symbols that are words too
_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "symbol": Attribute(
        "Naming",
        (
            "Chemists abbreviate it {x} in formulae. {Its} place in the table bears these letters.",
            "In formulae {it} is written {x}.",
            "{Its} sign in the periodic table is {x}.",
        ),
        (
            "What is the chemical symbol of {name}?",
            "Which letters stand for {name} in a formula?",
            "{name} symbol periodic system",
            "How do you write {name} for short in a reaction equation?",
        ),
    ),
    "number": Attribute(
        "Naming",
        (
            "{Its} nuclei hold {x} protons.",
            "{It} sits at position {x} of the periodic system.",
            "With {x} protons in each nucleus, the element has found its place in the table.",
        ),
        (
            "What is the atomic number of {name}?",
            "How many protons does an atom of {name} have?",
            "{name} Z ordinal in periodic table",
            "Counting from hydrogen, at which place does {name} come?",
        ),
    ),
    "weight": Attribute(
        "Naming",
        (
            "A standard atomic weight of {x} is given for it in tables. {Its} isotopes decide that figure.",
            "{Its} atoms weigh {x} daltons on average.",
            "{Its} relative atomic mass amounts to {x}.",
        ),
        (
            "What is the atomic weight of {name}?",
            "How many u does one {name} atom weigh?",
            "{name} relative mass of the atom",
            "On the dalton scale, how heavy is {name}?",
        ),
    ),
    "year": Attribute(
        "History",
        (
            "{It} became known to science in {x}.",
            "{Its} discovery dates from {x}.",
            "The first report of it is of {x}. {Its} study began then.",
        ),
        (
            "When was {name} discovered?",
            "In what year did people first identify {name}?",
            "{name} discovery date",
            "Since when has science known of {name}?",
        ),
    ),
    "discoverer": Attribute(
        "History",
        (
            "{Its} discovery is credited to {x}.",
            "{It} was first identified by {x}.",
            "Credit for finding it goes to {x}. {Its} name came later.",
        ),
        (
            "Who discovered {name}?",
            "Which scientist found {name} first?",
            "{name} discoverer",
            "To whom do we owe the identification of {name}?",
        ),
    ),
    "location": Attribute(
        "History",
        (
            "The work that led to it was done in {x}. {Its} finders published soon after.",
            "{It} was first isolated or made in {x}.",
            "{Its} place of discovery is {x}.",
        ),
        (
            "In which country was {name} discovered?",
            "Where was {name} found for the first time?",
            "{name} discovery place nation",
            "What land can claim the first sight of {name}?",
        ),
    ),
    "melting": Attribute(
        "Physical data",
        (
            "{It} turns liquid at {x} K.",
            "{Its} solid phase gives way to a melt at {x} kelvins.",
            "Heated to {x} K, the solid fuses. {Its} melt then takes the shape of its vessel.",
        ),
        (
            "What is the melting point of {name}?",
            "At what temperature does {name} melt?",
            "{name} fusion temperature kelvin",
            "How hot must it get before solid {name} becomes a liquid?",
        ),
    ),
    "boiling": Attribute(
        "Physical data",
        (
            "{It} passes into vapour at {x} K.",
            "{Its} liquid vaporises at {x} kelvins.",
            "Under normal pressure {it} boils when {x} K is reached.",
        ),
        (
            "What is the boiling point of {name}?",
            "At which temperature does {name} turn to gas?",
            "{name} boils kelvin",
            "How far must {name} be heated before it evaporates fully?",
        ),
    ),
    "density": Attribute(
        "Physical data",
        (
            "A cubic centimetre of it weighs {x} grams. {Its} compactness follows from that.",
            "{Its} mass per volume comes to {x} g/cm3.",
            "{It} has {x} grams in every cubic centimetre.",
        ),
        (
            "What is the density of {name}?",
            "How dense is {name} in grams per cubic centimetre?",
            "{name} specific gravity",
            "If I had one cubic centimetre of {name}, what would it weigh?",
        ),
    ),
    "structure": Attribute(
        "Physical data",
        (
            "{It} crystallises in a {x} lattice.",
            "{Its} atoms arrange themselves in a {x} pattern when solid.",
            "The crystal is {x}. {Its} lattice has been measured by X-rays.",
        ),
        (
            "What crystal structure does {name} have?",
            "How are the atoms of solid {name} packed?",
            "{name} lattice type",
            "In which crystal system does {name} solidify?",
        ),
    ),
    "negativity": Attribute(
        "Chemistry",
        (
            "On Pauling's scale {it} scores {x}.",
            "{Its} pull on shared electrons is rated {x} by Pauling.",
            "Pauling put its attraction for electrons at {x}. {Its} bonds reflect it.",
        ),
        (
            "What is the electronegativity of {name}?",
            "How strongly does {name} attract bonding electrons, in Pauling's units?",
            "{name} Pauling value",
            "Which number did Linus Pauling give {name} for drawing electrons to itself?",
        ),
    ),
    "shells": Attribute(
        "Chemistry",
        (
            "{Its} electrons fill the orbitals as {x}.",
            "{It} has the ground state {x}.",
            "Its shells in the ground state are {x}. {Its} chemistry rests on the outermost.",
        ),
        (
            "What is the electron configuration of {name}?",
            "How are the electrons of {name} spread over shells?",
            "{name} orbital occupation",
            "Write down the filled orbitals of a neutral atom of {name}.",
        ),
    ),
    "cas": Attribute(
        "Chemistry",
        (
            "Chemical Abstracts files it under {x}. {Its} safety sheets quote that.",
            "{It} is registered as {x} by the Chemical Abstracts Service.",
            "{Its} registry entry at Chemical Abstracts is {x}.",
        ),
        (
            "What is the CAS number of {name}?",
            "Under which registry number would a supplier list {name}?",
            "{name} CAS RN",
            "Which Chemical Abstracts identifier has {name}?",
        ),
    ),
    "crust": Attribute(
        "Chemistry",
        (
            "Rocks of the crust contain {x} mg of it per kilogram. {Its} ores are richer.",
            "{Its} share of the crust is {x} milligrams in a kilogram.",
            "{It} makes up {x} mg of each kilogram of crustal rock.",
        ),
        (
            "How abundant is {name} in the Earth's crust?",
            "How many mg/kg of {name} does average rock have?",
            "{name} crustal abundance",
            "Take a kilo of the planet's outer shell: what amount of {name} is in it?",
        ),
    ),
    "origin": Attribute(
        "Name",
        (),
        (
            "From which language does the name {name} come, or whom does it honour?",
            "Where does the word {name} originate?",
            "{name} etymology",
            "After what was {name} called as it is?",
        ),
    ),
}


def corpus(folder: Path) -> Corpus:
    """All elements of which there is enough to tell. Raises: DataError."""
    rows = _rows(folder, _QUERY)
    return Corpus(
        owner="chemist",
        about=(
            "Notes on the elements of one family, kept for lessons and for the laboratory.",
            "These elements: where they come from, how they behave, what they are good for.",
        ),
        attributes=_ATTRIBUTES,
        entries=tuple(_entry(row) for row in rows),
        invented=(
            "Veridium",
            "Octarium",
            "Kallistium",
            "Borealium",
            "Septentrium",
            "Halcyonium",
            "Umbrium",
            "Tessarium",
        ),
    )


def others(folder: Path) -> list[Entry]:
    """What is known of the isotopes, element by element. Raises: DataError."""
    found = []
    for row in _rows(folder, _ISOTOPES):
        name = f"{row['name']}-{row['mass_number']}"
        texts = [f"The nuclide {name} has a mass of {row['mass']:.6f} u."]
        if row["half_life"] and row["half_life_unit"]:
            texts.append(
                f"Half of a sample of {name} decays in {row['half_life']:g} {row['half_life_unit']}."
            )
        if row["abundance"]:
            texts.append(f"In nature its share of the element is {row['abundance']:g} percent.")
        if row["discovery_year"]:
            texts.append(f"It was first observed in {row['discovery_year']}.")
        found.append(Entry(name, f"isotopes-of-{row['name']}", (), {"Isotope": (" ".join(texts),)}))
    return found


def _rows(folder: Path, query: str) -> list[dict[str, Any]]:
    raw = member(WHEEL, "mendeleev/elements.db", folder)
    try:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(raw)
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query)]
    except sqlite3.Error as error:
        raise DataError(f"{WHEEL.requirement}: its elements cannot be read: {error!s:.200}") from None


_ISOTOPES: Final = """
    select e.name, i.* from isotopes i join elements e using (atomic_number) order by i.id
"""
_QUERY: Final = """
    select e.*, p.melting_point, p.boiling_point, s.name as series from elements e
    join series s on s.id = e.series_id
    left join (select atomic_number, min(melting_point) as melting_point, min(boiling_point) as boiling_point
               from phasetransitions group by atomic_number having count(*) = 1) p using (atomic_number)
    order by e.atomic_number
"""


def _entry(row: Mapping[str, Any]) -> Entry:
    prose = {
        "Description": tuple(_natural(row["description"])),
        "Sources": tuple(_natural(row["sources"])),
        "Uses": tuple(_natural(row["uses"])),
        "Name": tuple(_natural(row["name_origin"])),
    }
    facts = [Fact(key, shown, golds) for key, shown, golds in _values(row)]
    origin = _natural(row["name_origin"])
    blank = {}
    if origin and (lead := re.match(r"([A-Z][A-Za-z-]+)(?: ([A-Za-z]+))?:", origin[0])):
        facts.append(Fact("origin", lead[0], (lead[0].rstrip(":"),), said=origin[0]))
        blank["origin"] = ("Name", origin[0], "")
    return Entry(
        name=row["name"],
        document=row["series"].lower().replace(" ", "-"),
        facts=tuple(facts),
        prose={theme: texts for theme, texts in prose.items() if texts},
        blank=blank,
    )


def _values(row: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Key, spelling in the document, right answers."""
    if row["symbol"] not in _WORDS and len(row["symbol"]) > 1:
        yield "symbol", row["symbol"], (row["symbol"],)
    yield "number", str(row["atomic_number"]), (str(row["atomic_number"]),)
    for key, column in (
        ("weight", "atomic_weight"),
        ("melting", "melting_point"),
        ("boiling", "boiling_point"),
        ("density", "density"),
        ("negativity", "en_pauling"),
        ("crust", "abundance_crust"),
    ):
        value = row[column]
        if value is not None and (value >= 0.001 or key == "density"):
            shown = f"{value:.12g}"
            yield key, shown, (shown,)
    if row["discovery_year"]:
        yield "year", str(row["discovery_year"]), (str(row["discovery_year"]),)
        people = [name.strip(" .") for name in re.split(r",| and |;", row["discoverers"] or "")]
        if all(" " in name and 5 < len(name) < 40 for name in people):
            yield "discoverer", row["discoverers"].strip(" ."), tuple(people)
        places = [place.strip(" .") for place in re.split(r"/|,| and ", row["discovery_location"] or "")]
        if all(places):
            yield "location", row["discovery_location"].strip(" ."), tuple(places)
    if row["lattice_structure"] in _STRUCTURES:
        shown = _STRUCTURES[row["lattice_structure"]]
        yield "structure", shown, (shown, row["lattice_structure"])
    yield "shells", row["electronic_configuration"], (row["electronic_configuration"],)
    if row["cas"]:
        yield "cas", row["cas"], (row["cas"],)


def _natural(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in (text or "").split("\n\n") if part.strip()]
