"""What a home has learnt, made anew without those who were withdrawn.

From what newcomers said, and from the bank of what was learnt first: files, and nobody is asked. Each file
appears whole or not at all; stopped halfway, doing it again ends it.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from manyminds import archive
from manyminds.artefact import Artefact, load, save
from manyminds.errors import ArtefactError
from manyminds.evals.newcomers import Newcomers
from manyminds.experts.asked import WAYS, variant
from manyminds.learn import bank
from manyminds.learn.intake import Probed
from manyminds.learn.relearn import Left, left, relearnt
from manyminds.learn.train import Progress
from manyminds.ledger import Gone
from manyminds.node import GROWN, NEWCOMERS, base
from manyminds.node.learnt import PROBED, is_stale, remade, stale

__all__ = ["forget", "is_clean", "names_of"]

_LOCK: Final = ".relearn.lock"


def names_of(name: str) -> tuple[str, ...]:
    """All that outcomes call an expert: itself, and every way of asking it."""
    made = variant(name)
    whole = made[0] if made is not None else name
    return (whole, *(f"{whole}:{way}" for way in WAYS))


def is_clean(home: Path, gone: Gone) -> bool:
    """Whether nothing is kept here of who is gone: neither what was learnt, nor what that was learnt from.

    Raises: ArtefactError, OSError.
    """
    path, _ = base(home)
    grown = home / GROWN
    if stale(load(path), path, gone) or _newcomers(home, gone):
        return False
    if grown.exists() and stale(load(grown), grown, gone):
        return False
    kept = bank.beside(path)
    try:
        return not kept.exists() or not _touched(bank.load(path, anybody=True), kept, gone)
    except ArtefactError:  # nobody reads it
        return True


def forget(home: Path, gone: Gone, identities: Mapping[str, str], told: Progress | None = None) -> None:
    """Makes what was learnt anew without these, if they have a part in it. About a minute where they have.

    Waits until no other process does. Stopped or failing, what they have a part in stays, and no node goes by
    it; what newcomers among them said is gone all the same.

    Args:
        home: where what was learnt is.
        gone: who was withdrawn, or has come back as new.
        identities: of all experts that are here, see `Newcomers.known`.
        told: told what is done, and the share of it that is.

    Raises: ManymindsError, OSError.
    """
    with _alone(home):
        come = _newcomers(home, gone)
        try:
            _relearn(home, gone, told)
            if (home / NEWCOMERS).exists():
                out = {name for name in identities if gone.has(name)} | set(come)
                Newcomers(home).settle({name: own for name, own in identities.items() if name not in out})
        except BaseException:
            if come:
                (home / GROWN).unlink(missing_ok=True)
            raise
        finally:
            Newcomers(home).forget(come)


def _newcomers(home: Path, gone: Gone) -> list[str]:
    """Of whom something is kept that they said when they were probed, and who are gone."""
    found = []
    for path in sorted((home / NEWCOMERS).glob(f"*/{PROBED}")):
        try:
            one = msgspec.json.decode(path.read_bytes(), type=Probed)
        except msgspec.DecodeError:
            continue  # which nobody can take in
        if gone.has(one.name, one.source) or is_stale(path, one.name, gone):
            found.append(one.name)
    return found


def _relearn(home: Path, gone: Gone, told: Progress | None) -> None:
    """Writes the artefact and then its bank: stopped between the two, the artefact is the new one already."""
    path, own = base(home)
    kept, tainted = bank.beside(path), bool(stale(load(path), path, gone))
    try:
        known = bank.load(path, anybody=not tainted)
    except ArtefactError as error:
        if not tainted:
            return
        raise ArtefactError(
            f"It was learnt with them, and cannot be learnt anew: {error.message} Until then no node goes by"
            f" {path}."
        ) from None
    found = _touched(known, kept, gone)
    if not found:
        return
    rest = left(known, found)
    made, target = relearnt(rest, told), path if own else remade(home)
    if made is None:
        if path.parent == home:  # what came with manyminds stays, and no node goes by it
            path.unlink()
            bank.remove(path)
    elif known.of == archive.digest(path):
        save(made, target)
        _keep(target, rest)
    elif _is(made, path, home):  # it was stopped there
        _keep(path, rest)
    else:
        bank.remove(path)  # of something else, which nobody reads


def _keep(path: Path, rest: Left) -> None:
    bank.save(path, rest.questions, rest.examples, rest.answered, rest.about)


def _is(made: Artefact, path: Path, home: Path) -> bool:
    """Whether it is in that file."""
    aside = home / ".relearnt.npz"
    try:
        save(made, aside)
        return archive.digest(aside) == archive.digest(path)
    finally:
        aside.unlink(missing_ok=True)


def _touched(known: bank.Bank, path: Path, gone: Gone) -> set[str]:
    """The experts in a bank, that file, who are gone."""
    examples = known.examples
    sources = dict(zip(examples.experts, examples.sources, strict=True))
    named = {*examples.experts, *(name for said in known.answered.values() for name in said)}
    return {name for name in named if gone.has(name, sources.get(name, "")) or is_stale(path, name, gone)}


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """No other process is within such a block."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("a") as lock:  # closing it gives the lock back
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
