"""What nodes take back of themselves: this one's word about itself, and what it heard others say.

A word is on a node's signed card, so nobody else can say it. Knows no transport and no ledger.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from manyminds.config.files import replace_file
from manyminds.errors import CardError, ConfigError
from manyminds.network.withdrawal import Withdrawal

if TYPE_CHECKING:
    from manyminds.network.card import NodeCard

__all__ = ["WORD", "Heeded", "Revocations", "is_served", "read", "serving", "write"]

WORD: Final = "withdrawn.json"
"""Where in the home it is kept what this node says of itself."""

_LOCK: Final = ".node.lock"
_decode = msgspec.json.Decoder(Withdrawal).decode

Heeded = Literal["withdrawn", "renewed", "returned"]
"""It is not to be asked; what is known of it is void, and it may be asked; it may be asked again."""


def read(home: Path) -> Withdrawal | None:
    """What this node says of itself; None where it never said so. Raises: ConfigError."""
    file = home / WORD
    try:
        return _decode(file.read_bytes()) if file.exists() else None
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): run `manyminds withdraw` again.") from None


def write(home: Path, word: Withdrawal) -> None:
    """Keeps it: a node that runs says so within seconds. Raises: OSError."""
    replace_file(home / WORD, msgspec.json.encode(word))


@contextmanager
def serving(home: Path) -> Iterator[None]:
    """Within, a node of this home is among others."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("a") as lock:  # closing it gives the lock back
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def is_served(home: Path) -> bool:
    """Whether any is."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


class _Known(Struct, frozen=True):
    """Of one node: when it last took back what is known of it, and whether it may be asked."""

    at: int = 0
    out: bool = False


class Revocations:
    """What other nodes said, each known by its id.

    Args:
        documents: the last card of each that counted, as it was signed; from the ledger.
    """

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._known: dict[str, _Known] = {}
        self.floors: dict[str, int] = {}
        """By node id: of its cards none with a lower sequence counts, also after a restart."""
        self.learn(documents)

    def learn(self, documents: Mapping[str, str]) -> "list[NodeCard]":
        """Takes in what is in the ledger; of whom nothing counts any more that was known, the cards."""
        from manyminds.network.card import signed

        found: list[NodeCard] = []
        for node, document in documents.items():
            try:
                card = signed(document.encode())
            except CardError:
                continue
            if card.id == node and self.hear(card) in ("withdrawn", "renewed"):
                found.append(card)
        return found

    def is_out(self, node: str) -> bool:
        """Whether it said that nobody may ask it."""
        return self._known.get(node, _Known()).out

    def hear(self, card: "NodeCard") -> Heeded | None:
        """Takes in what a node's newest card says; what that changes, or None."""
        known, word = self._known.get(card.id, _Known()), card.says.withdrawal
        at, out = (known.at, False) if word is None else (max(word.at, known.at), word.whole)
        if at == known.at and out == known.out:
            return None
        self._known[card.id] = _Known(at, out)
        self.floors[card.id] = max(card.says.sequence, self.floors.get(card.id, 0))
        if out:
            return "withdrawn"
        return "returned" if known.out and at == known.at else "renewed"
