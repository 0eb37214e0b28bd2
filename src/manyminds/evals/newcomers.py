"""The newcomers of one home: what each said is kept there, and what was learnt grows with them.

A folder for each, with the journal of its interview and what came of it. What has grown is a file beside
what was learnt, which stays as it is; both of them together with the folders say all.
"""

import fcntl
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shutil import rmtree

import msgspec

from manyminds.artefact import Artefact, load, save
from manyminds.errors import DataError
from manyminds.evals.journal import JOURNAL
from manyminds.learn import bank
from manyminds.learn.bank import Bank
from manyminds.learn.intake import Network, Probed, grown, networks
from manyminds.node import GROWN, NEWCOMERS, base
from manyminds.node.learnt import PROBED, newcomer

__all__ = ["Newcomers"]

_decode = msgspec.json.Decoder(Probed).decode


class Newcomers:
    """Reads files, asks nobody. Several processes may use one home.

    Args:
        home: where a node keeps what is its own.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    @cached_property
    def bank(self) -> Bank:
        """What the base was learnt from. Raises: ArtefactError."""
        return bank.load(base(self._home)[0])

    @cached_property
    def base(self) -> Artefact:
        """What was learnt before any newcomer came. Raises: ArtefactError."""
        return load(base(self._home)[0])

    def folder(self, name: str) -> Path:
        """Where what a newcomer said is kept."""
        return newcomer(self._home, name)

    def asked_s(self, name: str) -> float | None:
        """When it was last asked anything, in seconds since 1970, in whatever way; None: never."""
        ways = (self._home / NEWCOMERS).glob(f"{self.folder(name + ':').name}*")
        folders = [self.folder(name), *ways]
        times = [path.stat().st_mtime for folder in folders if (path := folder / JOURNAL).exists()]
        return max(times, default=None)

    def known(self, identities: Mapping[str, str]) -> list[Probed]:
        """Those of these experts that were probed, under the identity that they have now, as they came.

        Raises: DataError where what is kept of one is damaged.
        """
        found = []
        for path in sorted((self._home / NEWCOMERS).glob(f"*/{PROBED}")):
            try:
                one = _decode(path.read_bytes())
            except msgspec.DecodeError as error:
                name = path.parent.name
                raise DataError(
                    f"{path} is damaged ({error!s:.200}): remove that folder, and probe {name} again."
                ) from None
            if identities.get(one.name) == one.identity:
                found.append(one)
        return sorted(found, key=lambda one: (one.came, one.name))

    def networks(self, come: Sequence[Probed], have: Collection[str]) -> list[Network]:
        """See `intake.networks`. Raises: ArtefactError."""
        return networks(self.base, self.bank, come, have)

    def keep(self, one: Probed, identities: Mapping[str, str]) -> None:
        """Keeps what it said, as of the last that came. Raises: DataError, OSError."""
        with self._alone():
            others = [other for other in self.known(identities) if other.name != one.name]
            last = max((other.came for other in others), default=0)
            _write(
                self.folder(one.name) / PROBED,
                msgspec.json.encode(msgspec.structs.replace(one, came=last + 1)),
            )

    def ask_anew(self, name: str) -> None:
        """What it said no longer spares it a question; it counts until it is kept again. Raises: OSError."""
        (self.folder(name) / JOURNAL).unlink(missing_ok=True)

    def forget(self, names: Collection[str]) -> None:
        """Removes all that these said. Raises: OSError."""
        if (self._home / NEWCOMERS).exists():
            with self._alone():
                for name in names:
                    rmtree(self.folder(name), ignore_errors=True)

    def settle(self, identities: Mapping[str, str]) -> list[Network]:
        """Makes what has grown anew, of the experts that are there; gone where no newcomer was taken in.

        Raises: DataError, ArtefactError, OSError.
        """
        path = self._home / GROWN
        if not (self._home / NEWCOMERS).exists():
            return []
        with self._alone():
            come = self.known(identities)
            found = self.networks(come, identities) if come else []
            made = grown(self.base, self.bank, found) if come else None
            if made is None:
                path.unlink(missing_ok=True)
            else:
                save(made, path)
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process is within such a block."""
        folder = self._home / NEWCOMERS
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:  # closing it gives the lock back
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
