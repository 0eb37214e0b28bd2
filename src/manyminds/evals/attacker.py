"""One who means ill, on the same network, for `manyminds bench network`: run as a process, until it is ended.

`python -m manyminds.evals.attacker KIND PORT NODE CARD`: what it does, where others join, the id of the node
that it plays, and a file with that node's card.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from manyminds.network import card as cards
from manyminds.network.card import Claim, Claims
from manyminds.network.identity import Identity

if TYPE_CHECKING:
    import zenoh

__all__ = ["KINDS", "main"]

KINDS: Final = ("impostor", "forger", "replayer", "large", "flood")
"""Answers in a node's place; shows cards in its name; shows old ones of its own; shows cards of 10 MB; shows
cards of ever new nodes, as fast as it can.
"""

_ROOT: Final = "manyminds/1"
_LARGE_BYTES: Final = 10_000_000


def main(kind: str, port: str, node: str, card: Path) -> None:
    """Attacks until it is ended."""
    import zenoh

    config = zenoh.Config()
    for name, value in (("mode", "client"), ("connect/endpoints", [f"tcp/127.0.0.1:{port}"])):
        config.insert_json5(name, json.dumps(value))
    session = zenoh.open(config)
    held = _impostor(session, node, card.read_bytes()) if kind == "impostor" else None
    print("ready", flush=True)
    while held is not None:
        time.sleep(1.0)
    cards_of: dict[str, Callable[[], tuple[str, bytes]]] = {
        "forger": lambda: (node, _signed()[1]),
        "replayer": lambda: (node, card.read_bytes()),
        "large": lambda: (node, os.urandom(_LARGE_BYTES // 2).hex().encode()),
        "flood": _signed,
    }
    shown = cards_of[kind]
    pause_s = {"forger": 0.01, "replayer": 0.01, "large": 0.2, "flood": 0.002}[kind]
    while True:
        who, raw = shown()
        session.put(f"{_ROOT}/{who}/card", raw)
        time.sleep(pause_s)


def _signed() -> tuple[str, bytes]:
    """A new node's card, in good order."""
    identity, now = Identity.generate(), time.time()
    says = Claims(
        *("", "", int(now * 1000), int(now) + 900, (cards.PROTOCOL,)), claims=(Claim(0.99),), experts=1
    )
    return identity.id, cards.made(identity, says, name="friend")


def _impostor(session: "zenoh.Session", node: str, card: bytes) -> list[Any]:
    """Shows a node's own card, and answers whatever it is asked with frames of its own."""

    def ask(query: "zenoh.Query") -> None:
        with query:
            for _ in range(8):
                query.reply(query.key_expr, os.urandom(120))

    def show(query: "zenoh.Query") -> None:
        with query:
            query.reply(query.key_expr, card)

    return [
        session.declare_queryable(f"{_ROOT}/{node}/ask", ask),
        session.declare_queryable(f"{_ROOT}/{node}/card", show),
        session.liveliness().declare_token(f"{_ROOT}/{node}"),
    ]


if __name__ == "__main__":
    _, kind, port, node, file = sys.argv
    main(kind, port, node, Path(file))
