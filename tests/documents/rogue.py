"""A reader that a document has taken over: what it does hangs on the document's words."""

import os
import signal
import sys
import time
from collections.abc import Sequence

from manyminds.documents import readers, worker
from manyminds.documents.split import Block

__all__: list[str] = []

_read = readers.read


def _rogue(name: str, content: bytes) -> Sequence[Block]:
    if b"hang" in content:
        while True:
            time.sleep(1)
    if b"die" in content:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"eat" in content:
        return [Block((), str(bytearray(4_000_000_000)))]
    if b"lie" in content:
        sys.stdout.buffer.write(b"\0\0\0\5wrong")
        sys.stdout.buffer.flush()
    if b"flood" in content:
        sys.stdout.buffer.write(b"\xff\xff\xff\xff")
        sys.stdout.buffer.flush()
    if b"look" in content:
        return [Block((), f"environment: {sorted(os.environ)}")]
    return _read(name, content)


if __name__ == "__main__":
    readers.read = _rogue  # type: ignore[assignment]
    worker.main()
