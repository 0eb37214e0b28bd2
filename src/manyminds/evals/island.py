"""One of two sites, for `manyminds bench network`: starts nodes, and asks them until its input ends.

`python -m manyminds.evals.island NAME LISTEN JOIN NODES`: where its router listens, and what that joins (""
is nothing). It prints JSON lines: that it is ready, then each answer and each change of what its nodes list,
with the seconds of the machine's monotonic clock.
"""

import json
import sys
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any, Final

from manyminds.evals.fleet import Fleet, Running, expert, network
from manyminds.evals.speaker import name as model

__all__ = ["EACH_S", "main", "members"]

EACH_S: Final = 0.25
"""Between two questions, whether the one before was answered or not."""

_LOOK_S: Final = 0.02
_AT_ONCE: Final = 100
_SAYS: Final = model("B", 4, 20)
_TEXT: Final = "Here is a text. " * 1200  # a dead line soon holds no more of such
_QUESTION: Final = _TEXT + "\nWhich of these is a prime number?\nA) 21\nB) 23\nC) 25\nD) 27"


def members(name: str, nodes: int) -> set[str]:
    """Names of a site's nodes that can be asked."""
    return {f"{name}-{i}" for i in range(nodes)}


@dataclass(slots=True)
class _Diary:
    """Lines on standard output, from several threads."""

    lock: Lock

    def note(self, **fields: Any) -> None:
        with self.lock:
            print(json.dumps(fields), flush=True)


def main(name: str, listen: str, join: str, nodes: int) -> None:
    """Lasts until standard input ends."""
    diary, over = _Diary(Lock()), Event()
    with Fleet() as fleet:
        router = network(f"router-{name}", listen=listen, join=[join] if join else [])
        fleet.start({f"router-{name}": router})
        tomls = {
            member: network(member, join=[listen]) + expert(f"model-{member}", _SAYS, fleet.speaker)
            for member in sorted(members(name, nodes))
        }
        fleet.start(tomls)
        (asker,) = fleet.start({f"asker-{name}": network(f"asker-{name}", join=[listen])})
        diary.note(ready=True)
        threads = [Thread(target=work, args=(asker, diary, over)) for work in (_look, _ask)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        over.set()
        for thread in threads:
            thread.join()


def _look(asker: Running, diary: _Diary, over: Event) -> None:
    """Notes what is listed, whenever it has changed."""
    last: set[str] | None = None
    while not over.wait(_LOOK_S):
        listed = asker.experts()
        if listed != last:
            diary.note(at=time.monotonic(), listed=sorted(listed))
            last = listed


def _ask(asker: Running, diary: _Diary, over: Event) -> None:
    """Asks everybody that is listed, at a steady pace: who is slow does not slow the questions down."""

    def once(began_s: float) -> None:
        body = {"model": "max", "messages": [{"role": "user", "content": _QUESTION}]}
        try:
            reply = asker.ask(body | {"manyminds": {"cache": "off"}})
        except (OSError, urllib.error.URLError):
            reply = {}
        said = reply["choices"][0]["message"]["content"] if reply.get("choices") else ""
        took_ms = 1000 * (time.monotonic() - began_s)
        diary.note(at=began_s, ms=took_ms, right=str(said).startswith("B)"))

    due_s = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while not over.wait(max(0.0, due_s - time.monotonic())):
            pool.submit(once, due_s)
            due_s += EACH_S


if __name__ == "__main__":
    _, name, listen, join, nodes = sys.argv
    main(name, listen, join, int(nodes))
