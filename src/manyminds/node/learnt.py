"""Where a node finds what was learnt of its experts, and of how many of them; and whether it may go by it."""

import json
import logging
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from manyminds import archive
from manyminds.artefact import GROWN_FROM, Artefact, load
from manyminds.ledger import Gone

__all__ = [
    "ARTEFACT",
    "GROWN",
    "NEWCOMERS",
    "PROBED",
    "base",
    "bases",
    "digest_of",
    "is_stale",
    "knowledge",
    "learnt",
    "newcomer",
    "remade",
    "stale",
    "state_of",
    "usable",
]

ARTEFACT: Final = "artefact.npz"
"""Where in the home `manyminds train` leaves what it learnt, and a node looks for it."""

GROWN: Final = "grown.npz"
"""Where in the home the same is with newcomers in it, made anew whenever one comes or goes."""

NEWCOMERS: Final = "newcomers"
"""Folder of the home that holds what newcomers said, a folder for each."""

PROBED: Final = "probed.json"
"""Where in such a folder that is."""

_SHIPPED: Final = Path(__file__).with_name("shipped.npz")  # what `manyminds train benchmarks/local` writes
_NOBODY: Final = Gone()

log = logging.getLogger(__name__)


def base(home: Path) -> tuple[Path, bool]:
    """What was learnt before any newcomer came: its file, and whether it was learnt in this home.

    Else it is what came with manyminds, or the same without who was withdrawn.
    """
    own = home / ARTEFACT
    if own.exists():
        return own, True
    again = remade(home)
    return (again if again.exists() else _SHIPPED), False


def remade(home: Path) -> Path:
    """Where what came with manyminds is once it was learnt anew without somebody."""
    return home / f"shipped-{archive.digest(_SHIPPED)[:16]}.npz"


def bases(home: Path) -> tuple[Path, ...]:
    """Files that are looked for, for whoever watches them."""
    return home / ARTEFACT, home / GROWN, remade(home)


def newcomer(home: Path, name: str) -> Path:
    """Where what a newcomer said is kept: a folder of its own, whatever it is called."""
    quoted = quote(name, safe="")
    hidden = quoted.startswith(".")  # as "..", which is the home
    return home / NEWCOMERS / (f"%2E{quoted[1:]}" if hidden else quoted)


def learnt(home: Path, gone: Gone = _NOBODY) -> tuple[Artefact | None, str]:
    """What was learnt, with newcomers where any were taken in; and where that is from.

    What has grown from another base than the one that is there now does not count, nor does anything that
    was learnt with who is `gone`: better to know nothing. None then, and why.

    Raises: ArtefactError.
    """
    path, own = base(home)
    source = str(path) if own else "what came with manyminds"
    artefact = load(path)
    if names := stale(artefact, path, gone):
        return None, f"{source} was learnt with {', '.join(names)}"
    grown = home / GROWN
    if grown.exists() and not any(
        is_stale(newcomer(home, name) / PROBED, name, gone) for name in _ever(gone)
    ):
        found = load(grown)
        if found.about.get(GROWN_FROM) == archive.digest(path) and not stale(found, grown, gone):
            return found, source
    return artefact, source


def stale(artefact: Artefact, path: Path, gone: Gone) -> list[str]:
    """Who has a part in that file and was withdrawn, or has come back since it was written."""
    if gone == _NOBODY:
        return []
    sources = {
        name: source
        for part in artefact.parts
        for name, source in zip(part.skills.experts, part.skills.sources, strict=True)
    }
    out = {name for name in artefact.experts if gone.has(name, sources.get(name, ""))}
    return sorted(out | {name for name in artefact.experts if is_stale(path, name, gone)})


def is_stale(path: Path, name: str, gone: Gone) -> bool:
    """Whether what a file holds of an expert, if there is one, is from before it was withdrawn."""
    if name not in gone.experts and name not in gone.returned:
        return False
    return path.exists() and (name in gone.experts or path.stat().st_mtime <= gone.returned[name])


def _ever(gone: Gone) -> Collection[str]:
    return {*gone.experts, *gone.returned}


def digest_of(home: Path, gone: Gone = _NOBODY) -> str:
    """SHA-256 of the file that a node goes by; "" where it goes by none. Raises: ArtefactError."""
    path, _ = base(home)
    artefact, _ = learnt(home, gone)
    if artefact is None:
        return ""
    return archive.digest(home / GROWN if GROWN_FROM in artefact.about else path)


def state_of(home: Path) -> str:
    """SHA-256 over all that was learnt: what newcomers said, what was learnt first and from what, what grew.

    Two homes with the same have learnt the same, byte by byte.
    """
    path, _ = base(home)
    files = {"base": path, "bank": path.with_suffix(".bank.npz"), "grown": home / GROWN}
    files |= {f"of {kept.parent.name}": kept for kept in (home / NEWCOMERS).glob(f"*/{PROBED}")}
    found = {name: archive.digest(kept) for name, kept in files.items() if kept.exists()}
    return sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def knowledge(artefact: Artefact, experts: Collection[str]) -> tuple[int, str]:
    """How many of these experts it knows, be it in some way of asking; and that in words, with its set."""
    names = set(artefact.experts)
    known = len(set(experts) & (names | {name.rpartition(":")[0] for name in names}))
    source = str(artefact.about.get("set", "a set without a name"))
    said = f"learnt from {source!r:.80}, knows {known} of {len(experts)} experts"
    come = sorted({name for part in artefact.parts for name in part.about.get("newcomers", ())})
    said += f", {len(come)} of them newcomers" if come else ""
    if experts and not known:
        said += " and so changes nothing: learn from answers of these, `manyminds train DIR`"
    return known, said


def usable(home: Path, gone: Gone, experts: Collection[str]) -> Artefact | None:
    """What a node goes by; None where that is void, or where nothing that came with manyminds is of these
    experts. Says so in the log.

    Raises: ArtefactError.
    """
    artefact, source = learnt(home, gone)
    if artefact is None:
        log.warning("%s: it is not used, see `manyminds experts relearn`.", source)
        return None
    known, said = knowledge(artefact, experts)
    _, own = base(home)
    log.log(logging.WARNING if own and experts and not known else logging.INFO, "%s: %s.", source, said)
    return artefact if known or own else None
