"""`manyminds serve --workers N`: the process that looks after the others."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from manyminds.cli.serve import announce, url_of
from manyminds.cli.settings import print_json

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.workers.listeners import Listeners

__all__ = ["supervise"]


def supervise(
    config: "Config", listeners: "Listeners", file: str | None, flags: Mapping[str, Any], *, as_json: bool
) -> None:
    """Returns when all workers have ended. They read the same file, under the same flags.

    Raises: ManymindsError: they cannot be started.
    """
    from manyminds.cli.service import DRAIN_S
    from manyminds.workers.supervisor import Supervisor

    url = url_of(config, listeners.address[1])

    def command(seat: Mapping[str, int]) -> Sequence[str]:
        wish = json.dumps({"file": file, "flags": flags, "seat": seat})
        return [sys.executable, "-m", "manyminds.cli.worker", wish]

    def listening() -> None:
        if as_json:
            print_json({"url": url, "pid": os.getpid()})
            sys.stdout.flush()

    async def run() -> None:
        await Supervisor(
            config.server.workers,
            command,
            listeners,
            DRAIN_S,
            listening,
            lambda names, ready: announce(url, names, ready=ready),
        ).run()

    asyncio.run(run())
