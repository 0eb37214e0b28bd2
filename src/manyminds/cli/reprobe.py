"""A node that runs has an expert that became worse asked anew, by `manyminds experts probe` beside it.

In a process of its own, of low priority: whoever is answered meanwhile does not notice.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from manyminds.config import Config

__all__ = ["reprobe"]

_LOOK_S: Final = 10.0
_NICE: Final = 10

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
        for name, since in sorted(drifted().items()):
            if (name, since) in tried or not settings.policy.reprobe_usd:
                continue
            tried.add((name, since))
            if not _asked_since(settings.home, name, since):
                await _ask(name, settings)


def _asked_since(home: Path, name: str, since: str) -> bool:
    from manyminds.evals.newcomers import Newcomers  # which few nodes ever need

    asked_s = Newcomers(home).asked_s(name)
    return asked_s is not None and asked_s >= datetime.fromisoformat(since).timestamp()


async def _ask(name: str, config: Config) -> None:
    file = ["--config", str(config.file)] if config.file else []
    usd = str(config.policy.reprobe_usd)
    words = [*file, "experts", "probe", name, "--anew", "--budget-usd", usd, "--json"]
    log.info("%s is asked anew.", name)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "manyminds", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        log.warning("%s could not be asked anew: %s", name, last.removeprefix("manyminds: "))
    else:
        log.info("%s was asked anew.", name)
