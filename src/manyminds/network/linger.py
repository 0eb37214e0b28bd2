"""Connections that are closed at once, also where what was sent has not arrived.

Zenoh sets SO_LINGER of ten seconds and closes in threads that serve all other connections, too: where a line
is dead, a node that hangs up stalls for so long, and with it whoever joined through it. There is no setting
for that (eclipse-zenoh/zenoh#1101). Without SO_LINGER the system sends the rest by itself.
"""

import asyncio
import os
import socket
import stat
import struct
from contextlib import suppress
from typing import Final

__all__ = ["keep_unlingering", "unlinger"]

_AGAIN_S: Final = 1.0  # less than any line takes to be given up
_OFF: Final = struct.pack("ii", 0, 0)
_OPEN: Final = "/dev/fd"


async def keep_unlingering() -> None:
    """Unlingers whatever connections come, until it is cancelled."""
    known: dict[int, int] = {}
    while True:
        await asyncio.to_thread(unlinger, known)
        await asyncio.sleep(_AGAIN_S)


def unlinger(known: dict[int, int]) -> None:
    """Takes SO_LINGER off all sockets of this process; none where the system lacks /dev/fd. O(open files).

    Mutates `known`: inodes by file number, of those that were looked at before and are passed over.
    """
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(_OPEN)
    for name in names:
        with suppress(OSError):  # it has been closed meanwhile
            number = int(name)
            found = os.fstat(number)
            if known.get(number) == found.st_ino:
                continue
            known[number] = found.st_ino
            if stat.S_ISSOCK(found.st_mode):
                with socket.socket(fileno=os.dup(number)) as same:
                    same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _OFF)
