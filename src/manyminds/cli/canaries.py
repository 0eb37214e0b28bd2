"""A node that runs puts questions with known answers to other nodes, now and then, as any other question.

Who is honest only while it is tested must not be able to tell: see `network.trust.canaries`.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from manyminds.config import Config
from manyminds.errors import ArtefactError, ManymindsError
from manyminds.types import Limits, Message, Query

if TYPE_CHECKING:
    from manyminds.evals.questions import Graded
    from manyminds.node import Node

__all__ = ["ASKED", "canaries"]

ASKED: Final = "canaries.json"
"""Where in the home it is kept which node was asked what: nobody is asked anything twice."""

_PERIOD_S: Final = 3600.0

log = logging.getLogger(__name__)


async def canaries(
    node: "Node", config: Callable[[], Config], new_id: Callable[[], str], *, period_s: float = _PERIOD_S
) -> None:
    """Until it is cancelled, asks other nodes a few questions in each period, and has the answers graded.

    Args:
        node: that asks.
        config: as it is now; `network.canaries` a day are put to all nodes together.
        new_id: makes the ids of requests.
        period_s: seconds of a period.
    """
    while True:
        began_s = time.time()
        period = int(began_s // period_s)
        try:
            await _ask_all(node, config(), new_id, period, period_s)
        except (ManymindsError, OSError) as error:
            log.info("other nodes are not tested: %s", error)
        left_s = period_s - (time.time() - period * period_s)
        await asyncio.sleep(max(left_s, 0.05))


async def _ask_all(
    node: "Node", config: Config, new_id: Callable[[], str], period: int, period_s: float
) -> None:
    """Those of one period, each at its time."""
    began_s = time.time()
    from manyminds.network.trust import canaries as chosen

    membership = node.membership
    most = round(config.network.canaries * period_s / 86_400.0 + 0.5)
    if membership is None or not config.network.canaries or not membership.present:
        return
    known = await asyncio.to_thread(_known, config.home)
    file = config.home / ASKED
    asked = {name: set(keys) for name, keys in _asked(file).items()}
    for canary in chosen(
        membership.records,
        membership.relied,
        list(known),
        asked,
        most=most,
        seed=membership.secret_seed,
        day=period,
    ):
        due_s = (period + canary.at) * period_s
        if due_s < began_s:
            continue  # who has just started does not make up for it
        await asyncio.sleep(max(0.0, due_s - time.time()))
        name = {card.id: name for name, card in membership.present}.get(canary.node)
        if name is None:
            continue
        asked.setdefault(canary.node, set()).add(canary.question)
        await asyncio.to_thread(_keep, file, asked)
        with suppress(ManymindsError):  # it did not answer, which is noted elsewhere
            await _ask(node, name, known[canary.question], new_id())


async def _ask(node: "Node", name: str, graded: "Graded", request_id: str) -> None:
    """Raises: ManymindsError."""
    about = Limits(topic=graded.question.category)  # which stays here
    query = Query((Message("user", graded.text),), model=name, request_id=request_id, limits=about)
    chunks = await node.gateway.complete(query)
    text = "".join(chunk.text for chunk in chunks)
    correct = float(await asyncio.to_thread(graded.right, text))
    await node.grade(request_id, None, correct)


def _known(home: Path) -> "dict[str, Graded]":
    """Questions that are asked in words and have a known answer, by key. Raises: ArtefactError."""
    from manyminds.evals.questions import again
    from manyminds.learn.bank import key_of, load
    from manyminds.node import base

    path, _ = base(home)
    found = {key_of(question): again(question) for question in load(path).questions}
    usable = {key: graded for key, graded in found.items() if graded is not None and not graded.open_ended}
    if not usable:
        raise ArtefactError(f"what {path} was learnt from holds no question whose answer can be told")
    return usable


def _asked(file: Path) -> dict[str, list[str]]:
    """Raises: OSError."""
    try:
        found = json.loads(file.read_bytes()) if file.exists() else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _keep(file: Path, asked: dict[str, set[str]]) -> None:
    """Raises: OSError."""
    file.write_text(json.dumps({name: sorted(keys) for name, keys in asked.items()}))
