"""One of several processes that serve an address. Run as `python -m manyminds.cli.worker` by `cli.supervise`.

The configuration's file and flags, and its place among the others, are on its command line.
"""

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from manyminds.cli.serve import begin_log, event_loop, work
from manyminds.cli.settings import read
from manyminds.errors import ManymindsError

__all__ = ["main"]


def main() -> None:
    """Serves until the supervisor ends it, or has died. Exit 1 where it cannot start, which it is told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and a hangup are for the supervisor
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    begin_log()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        sys.exit(runner.run(_work(json.loads(sys.argv[1]))))


async def _work(wish: dict[str, Any]) -> int:
    from manyminds.workers.seat import Seat

    seat = Seat.of(wish["seat"])
    await seat.open()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, seat.ending.set)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(seat.close)
        try:
            again = partial(read, wish["file"], wish["flags"])
            await work(again(), again, seat)
        except ManymindsError as error:
            await seat.fail(error.message)
            return 1
    return 0


if __name__ == "__main__":
    main()
