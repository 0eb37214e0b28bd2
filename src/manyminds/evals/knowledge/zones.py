"""An owner who knows time zones, of the package tzdata, as they were in 2024 and before 1900."""

import io
import re
import zoneinfo
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from manyminds.evals.knowledge.facts import Attribute, Corpus, Entry, Fact
from manyminds.evals.packs.wheels import Wheel, members

__all__ = ["WHEEL", "corpus", "others"]

WHEEL: Final = Wheel(
    package="tzdata",
    version="2026.6",
    bytes=348_210,
    sha256="0a10eec6e13ef16b627fabed9a5f2ba61a62b1c67f327305f4e7e412a70b4aec",
    licence="Apache-2.0",
)

_ZONES: Final = "tzdata/zoneinfo/"
_WINTER, _SUMMER = datetime(2024, 1, 15, 12), datetime(2024, 7, 15, 12)
_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "mean": Attribute(
        "History and names",
        (
            "Before clocks were set alike, noon of {it} was at {x} from Greenwich.",
            "{Its} local mean time differed from Greenwich by {x}.",
            "By the sun, {it} was {x} away from Greenwich.",
        ),
        (
            "What was the local mean time of {name} relative to Greenwich?",
            "By how much did sun time in {name} differ from Greenwich before standard time?",
            "{name} LMT offset",
            "Hours, minutes and seconds of solar difference between {name} and Greenwich?",
        ),
    ),
    "until": Attribute(
        "History and names",
        (
            "{It} went over to a common time in {x}.",
            "In {x} the clocks of {it} were no longer set by its own sun.",
            "{Its} mean solar time was given up in {x}.",
        ),
        (
            "In which year did {name} give up local mean time?",
            "When were clocks in {name} first set to something other than its own sun?",
            "{name} LMT ended year",
            "Until when did {name} keep solar time?",
        ),
    ),
    "january": Attribute(
        "Now and here",
        (
            "Early in 2024 {it} was at UTC{x}.",
            "{Its} distance from universal time in January 2024 was {x} hours.",
            "In the first month of 2024 {it} kept universal time {x}.",
        ),
        (
            "What is the UTC offset of {name} in January?",
            "How many hours is {name} from universal time at the start of the year?",
            "{name} offset winter months UTC",
            "On New Year's Day, what must be added to UTC for the time of {name}?",
        ),
    ),
    "july": Attribute(
        "Now and here",
        (
            "By July of 2024 {it} had moved to UTC{x}.",
            "{Its} clocks in mid-2024 showed universal time {x}.",
            "In the seventh month of 2024 {it} was at UTC{x}.",
        ),
        (
            "What is the UTC offset of {name} in July?",
            "How far from universal time is {name} in the middle of the year?",
            "{name} offset in mid-year UTC",
            "Planning a call in July: what do I add to UTC for {name}?",
        ),
    ),
    "latitude": Attribute(
        "Now and here",
        (
            "The town that gave {it} its name lies at latitude {x}.",
            "{Its} reference point has the latitude {x}.",
        ),
        (
            "Which latitude is given for {name}?",
            "How far north or south is the reference point of {name}?",
            "{name} lat coordinate zone table",
            "In the table of zones, what north-south position has {name}?",
        ),
    ),
    "longitude": Attribute(
        "Now and here",
        (
            "The table of zones sets {it} at longitude {x}.",
            "{Its} reference point has the longitude {x}.",
        ),
        (
            "Which longitude is given for {name}?",
            "How far east or west is the reference point of {name}?",
            "{name} lon coordinate zone table",
            "In the table of zones, what east-west position has {name}?",
        ),
    ),
    "alias": Attribute(
        "History and names",
        (
            "Older programs know {it} as {x}.",
            "{Its} other name, kept for compatibility, is {x}.",
            "{It} is also reached as {x}.",
        ),
        (
            "What is another name for the zone {name}?",
            "Under which alias is {name} kept as well?",
            "{name} link backward compatible identifier",
            "Which old identifier leads to {name}?",
        ),
    ),
    "rule": Attribute(
        "History and names",
        (
            "As a POSIX string {it} is written {x}.",
            "{Its} setting for the variable TZ is {x}.",
        ),
        (
            "What is the POSIX TZ string of {name}?",
            "What would I export as TZ for {name} without a zone database?",
            "{name} posix rule footer",
            "How is the present rule of {name} put into one TZ variable?",
        ),
    ),
}


def others(folder: Path, without: Container[str]) -> list[Entry]:
    """Zones of other names, which older programs use. Raises: DataError."""
    found = []
    for path, raw in members(WHEEL, _ZONES, folder).items():
        name = path.removeprefix(_ZONES)
        if name not in without and "/" in name and raw.startswith(b"TZif"):
            zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(raw))
            january, july = (_offset(zone, at) for at in (_WINTER, _SUMMER))
            facts = [Fact("january", january, _signed(january))]
            if july != january:
                facts.append(Fact("july", july, _signed(july)))
            told = f"{name} is still understood by programs, though another name has taken its place."
            found.append(Entry(name, _document(name), tuple(facts), {"History and names": (told,)}))
    return found


class _Zone(NamedTuple):
    name: str
    at: str  # "+4230+00131"
    mean: str  # "-0:16:08"
    until: str


def corpus(folder: Path) -> Corpus:
    """Zones of which clocks are kept alike since 1970. Raises: DataError."""
    files = members(WHEEL, _ZONES, folder)
    table, source = (files[f"{_ZONES}{name}"].decode() for name in ("zone1970.tab", "tzdata.zi"))
    first: dict[str, tuple[str, str]] = {}
    aliases: dict[str, list[str]] = defaultdict(list)
    for line in source.splitlines():
        part = line.split()
        if part[0] == "Z" and part[4:5] == ["LMT"] and len(part) > 5:
            first[part[1]] = (part[2], part[5])
        elif part[0] == "L":
            aliases[part[1]].append(part[2])
    entries = []
    for line in table.splitlines():
        if not line.startswith("#"):
            _, at, name = line.split("\t")[:3]
            if name in first:
                zone = _Zone(name, at, *first[name])
                facts = tuple(Fact(*of) for of in _values(zone, aliases[name], files[f"{_ZONES}{name}"]))
                entries.append(Entry(name, _document(name), facts))
    return Corpus(
        owner="timekeeper",
        about=(
            "How clocks are and were set in the zones of one part of the world.",
            "A clockmaker's notes on time zones: what they keep now, and what they kept before.",
        ),
        attributes=_ATTRIBUTES,
        entries=tuple(sorted(entries)),
        invented=(
            "Europe/Velmora",
            "Asia/Tarsenabad",
            "America/Port_Calder",
            "Africa/Nsamba",
            "Pacific/Maravel",
            "Europe/Nordvik",
            "Indian/Saint_Orlan",
        ),
    )


def _document(name: str) -> str:
    area, _, rest = name.partition("/")
    return f"{area}-{'first' if rest[:1] < 'K' else 'second'}-half".lower()


def _values(zone: _Zone, aliases: list[str], raw: bytes) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    hours, minutes, *seconds = re.sub(r"^-", "", zone.mean).split(":") + ["00"] * (2 - zone.mean.count(":"))
    mean = f"{'-' if zone.mean.startswith('-') else '+'}{int(hours)}:{minutes:0>2}:{seconds[0]:0>2}"
    yield "mean", mean, (mean,)
    yield "until", zone.until, (zone.until,)
    known = zoneinfo.ZoneInfo.from_file(io.BytesIO(raw))
    january, july = (_offset(known, at) for at in (_WINTER, _SUMMER))
    yield "january", january, _signed(january)
    if july != january:
        yield "july", july, _signed(july)
    if position := re.fullmatch(r"([+-]\d+)([+-]\d+)", zone.at):
        for key, digits in (("latitude", position[1]), ("longitude", position[2])):
            degrees = digits[: -4 if len(digits) > 6 else -2]
            rest = digits[len(degrees) :]
            shown = f"{degrees}°{rest[:2]}′"
            yield key, shown, (shown, f"{degrees} {rest[:2]}")
    usual = [alias for alias in aliases if "/" in alias]
    if len(usual) == 1 == len(aliases):
        yield "alias", usual[0], (usual[0],)
    rule = raw.rstrip(b"\n").rpartition(b"\n")[2].decode()
    if rule and re.search(r"\d", rule):
        yield "rule", rule, (rule,)


def _offset(zone: zoneinfo.ZoneInfo, at: datetime) -> str:
    total = at.replace(tzinfo=zone).utcoffset()
    minutes = int(total.total_seconds() // 60) if total is not None else 0
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _signed(offset: str) -> tuple[str, ...]:
    """Nobody has to write a plus."""
    return (offset, offset[1:]) if offset.startswith("+") else (offset,)
