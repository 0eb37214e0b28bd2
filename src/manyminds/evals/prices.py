"""Nodes whose receipts lie about what is owed: what is believed, and what requests cost meanwhile.

A part of `network`. While an honest node is timed, the liar is asked all along. Another node with the same
price shows that honest answers are paid.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any, Final

from manyminds.errors import ManymindsError
from manyminds.evals.attacks import compared
from manyminds.evals.fleet import Fleet, Progress, Running, expert, free_port, network, says, until
from manyminds.evals.liar import KINDS, PRICE, identity
from manyminds.evals.speaker import name as model

__all__ = ["measure"]

_PAY_USD: Final = 1.0
_TOKENS: Final = 1000  # that the answer of one with a price may have: room for lies
_EACH_S: Final = 0.02  # between two questions to the node with a price
_PRICES: Final = f"price_in_usd_per_m = {PRICE.in_usd_per_m}\nprice_out_usd_per_m = {PRICE.out_usd_per_m}"


def measure(asked: int, seed: int, progress: Progress, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """Figures of each kind of lie, and what is owed in the end.

    Args:
        asked: questions that are timed while somebody lies, and without it.
        seed: of intervals.
        progress: told how far it is.
        kinds: see `liar`.

    Raises: ManymindsError.
    """
    port = free_port()
    join = [f"tcp/127.0.0.1:{port}"]
    with Fleet() as fleet:
        paid = {"fair": fleet.identity("fair").id, "liar": identity().id}
        peers = [
            f'[[peer]]\nname = "{name}"\nid = "{node}"\npay_usd = {_PAY_USD}\n' for name, node in paid.items()
        ]
        sage = network("sage", listen=f"tcp/127.0.0.1:{port}") + expert("wise", model("B", 1), fleet.speaker)
        fair = network("fair", join=join, more=_PRICES) + expert("dear", model("B", 2), fleet.speaker)
        fleet.start({"sage": sage})
        fleet.start({"fair": fair})
        (asker,) = fleet.start({"asker": network("asker", join=join) + "".join(peers)})
        _wait(lambda: {"sage", "fair"} <= asker.experts())
        found: dict[str, Any] = {}
        for i, kind in enumerate(kinds):
            progress("lie about prices", i / len(kinds))
            found[kind] = _of(fleet, asker, kind, port, asked, seed)
            _wait(lambda: "liar" not in asker.experts())
        fair_answers = sum(bool(says(asker, "fair")) for _ in range(asked))
        owed = _owed(asker)
        return {
            **found,
            "owed_to_liar_usd": owed.get("liar", 0.0),
            "owed_to_fair_usd": owed.get("fair", 0.0),
            "fair_answers": fair_answers,
        }


def _of(fleet: Fleet, asker: Running, kind: str, port: int, asked: int, seed: int) -> dict[str, Any]:
    """One kind of lie."""
    believed: list[str] = []
    refused: list[float] = []
    deeds = partial(asker.figure, "peer_answers_total", peer="liar", deed="overcharged")

    @contextmanager
    def lying() -> Iterator[None]:
        with fleet.running("manyminds.evals.liar", kind, str(port)):
            _wait(lambda: "liar" in asker.experts())
            before = deeds()
            with _asked_all_along(asker, "liar", believed):
                yield
            refused.append(deeds() - before)

    found = compared(lambda: says(asker, "sage").startswith("B)"), lying, asked, seed)
    return {"believed": len(believed), "refused": refused[0], **found}


@contextmanager
def _asked_all_along(asker: Running, name: str, answers: list[str]) -> Iterator[None]:
    """Asks a node while the block lasts; keeps its answers."""
    over = Event()

    def ask() -> None:
        while not over.wait(_EACH_S):
            if said := says(asker, name, _TOKENS):
                answers.append(said)

    asking = Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def _owed(asker: Running) -> dict[str, float]:
    """What is owed to each peer, in US dollars, as the node's own ledger has it."""
    command = [sys.executable, "-m", "manyminds", "ledger", "settle", "--json"]
    environ = os.environ | {"MANYMINDS_HOME": str(asker.folder)}
    ended = subprocess.run(command, env=environ, cwd=asker.folder, stdout=subprocess.PIPE, check=True)  # noqa: S603
    return {row["peer"]: row["asked_usd"] for row in json.loads(ended.stdout)}


def _wait(condition: Callable[[], bool]) -> None:
    if not until(condition, 30.0):
        raise ManymindsError("the nodes did not find each other within 30 s")
