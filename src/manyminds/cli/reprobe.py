"""A node that runs has an expert that became worse asked anew, by `manyminds experts probe` beside it.

In a process of its own, of low priority: whoever is answered meanwhile does not notice.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from manyminds.cli import errand
from manyminds.config import Config

__all__ = ["reprobe"]

_LOOK_S: Final = 10.0

log = logging.getLogger(__name__)


async def reprobe(
    drifted: Callable[[], Mapping[str, str]], config: Callable[[], Config], *, look_s: float = _LOOK_S
) -> None:
    """Until it is cancelled, has whoever has drifted asked anew, once for each change, one after the other.

    Args:
        drifted: names, and since when in UTC.
        config: as it is now; `policy.reprobe_usd` is what asking one may cost, 0 asks nobody.
        look_s: seconds between two looks.
    """
    tried: set[tuple[str, str]] = set()
    while True:
        await asyncio.sleep(look_s)
        settings = config()
        reading = {entry.name for entry in settings.experts if entry.kind == "documents"}
        for name, since in sorted(drifted().items()):
            if (name, since) in tried or name in reading or not settings.policy.reprobe_usd:
                continue
            tried.add((name, since))
            if not _asked_since(settings.home, name, since):
                await _ask(name, settings)


def _asked_since(home: Path, name: str, since: str) -> bool:
    from manyminds.evals.newcomers import Newcomers  # which few nodes ever need

    asked_s = Newcomers(home).asked_s(name)
    return asked_s is not None and asked_s >= datetime.fromisoformat(since).timestamp()


async def _ask(name: str, config: Config) -> None:
    log.info("%s is asked anew.", name)
    usd = str(config.policy.reprobe_usd)
    words = ("experts", "probe", name, "--anew", "--budget-usd", usd, "--json")
    if wrong := await errand.run(config, *words):
        log.warning("%s could not be asked anew: %s", name, wrong)
    else:
        log.info("%s was asked anew.", name)
