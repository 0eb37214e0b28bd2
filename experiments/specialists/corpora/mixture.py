"""Held-out documents in which the domain switches. Knows nothing of how corpora are made."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.specialists.corpora.split import Corpus

__all__ = ["Mixed", "mixed"]

_CHARACTER_BYTES = 4  # at most, in UTF-8


@dataclass(frozen=True, slots=True)
class Mixed:
    """One document; its spans (start, stop, domain) tile the text, neighbours are of different domains."""

    name: str
    text: bytes
    spans: tuple[tuple[int, int, str], ...]


def mixed(
    corpora: Mapping[str, Corpus],
    seed: int,
    count: int,
    bytes_each: int,
    piece: tuple[int, int] = (128, 512),
) -> tuple[Mixed, ...]:
    """Documents of pieces from test documents. `piece` is the least and most bytes of one, both included.

    A document ends with the piece that takes it to `bytes_each`. Each domain is as likely as the others but
    that of the piece before, each test document as likely as its domain's others. Deterministic by seed.

    Raises:
        ValueError: Fewer than two domains, a range that no piece can keep, or a domain without a test
            document that is long enough.
    """
    least, most = piece
    if len(corpora) < 2:
        raise ValueError(f"documents that switch need two domains or more, not {len(corpora)}")
    if not 0 < least <= most - _CHARACTER_BYTES + 1:
        raise ValueError(
            f"pieces of {least} to {most} bytes: most must be {_CHARACTER_BYTES - 1} above least or more"
        )
    pools = {
        domain: [document.text for document in corpora[domain].test if len(document.text) >= most]
        for domain in sorted(corpora)
    }
    for domain, texts in pools.items():
        if not texts:
            raise ValueError(f"{domain} has no test document of {most} bytes or more")
    return tuple(_one(pools, f"mixed:{seed}:{i}", bytes_each, piece) for i in range(count))


def _one(pools: Mapping[str, list[bytes]], name: str, bytes_each: int, piece: tuple[int, int]) -> Mixed:
    draw = random.Random(name)  # noqa: S311 - nothing secret; text seeds are hashed the same everywhere
    pieces: list[bytes] = []
    spans: list[tuple[int, int, str]] = []
    length = 0
    while length < bytes_each:
        domain = draw.choice([domain for domain in pools if not spans or domain != spans[-1][2]])
        pieces.append(_piece(draw, draw.choice(pools[domain]), piece))
        spans.append((length, length + len(pieces[-1]), domain))
        length = spans[-1][1]
    return Mixed(name, b"".join(pieces), tuple(spans))


def _piece(draw: random.Random, text: bytes, piece: tuple[int, int]) -> bytes:
    """A stretch of whole characters, its length in the range."""
    least, most = piece
    size = draw.randint(least, most)
    start = _boundary(text, draw.randint(0, len(text) - most))
    stop = _boundary(text, start + size)
    if stop - start < least:  # to the left it is too short: then one character more
        stop += 1
        while stop < len(text) and text[stop] & 0xC0 == 0x80:
            stop += 1
    return text[start:stop]


def _boundary(text: bytes, place: int) -> int:
    """The nearest place to the left where a character begins or the text ends."""
    while place < len(text) and text[place] & 0xC0 == 0x80:
        place -= 1
    return place
