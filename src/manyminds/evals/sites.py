"""Two sites in network namespaces of their own, whose link is cut and healed. A part of `network`.

The cut drops every packet and tells nobody, as a broken line would. Both sites are asked all the while.

`python -m manyminds.evals.sites NODES SECONDS...` does it in the namespaces that it is started in, one cut of
so many seconds after the other, and prints the figures.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Final

from manyminds.errors import ManymindsError
from manyminds.evals.fleet import Progress, until
from manyminds.evals.island import members
from manyminds.evals.times import rounded, spread

__all__ = ["CUTS_S", "measure", "parts"]

CUTS_S: Final = (5.0, 10.0, 20.0)
"""How long the link is cut, one time after the other."""

_NODES: Final = 3  # of each site, that can be asked
_BEFORE_S: Final = 2.0  # for which all is whole before a cut
_AROUND_S: Final = 3.0  # from a cut on, and from its end on
_WHOLE_S: Final = 30.0  # to wait for it
_PROGRAMS: Final = ("unshare", "ip", "mount", "nft")
_UNSHARE: Final = ("unshare", "-Urnmpf", "--kill-child", "--mount-proc")
_LINK: Final = """
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
ip netns add inside
ip link add wan type veth peer name lan netns inside
ip address add 10.77.0.1/24 dev wan
ip link set wan up
ip -n inside address add 10.77.0.2/24 dev lan
ip -n inside link set lan up
ip -n inside link set lo up
"""
_CUT: Final = """
table inet cut {
  chain in { type filter hook input priority 0; policy accept; iifname "wan" drop; }
  chain out { type filter hook output priority 0; policy accept; oifname "wan" drop; }
}
"""
_ADDRESSES: Final = ("tcp/10.77.0.1:7447", "tcp/10.77.0.2:7447")


def measure(
    progress: Progress = lambda what, share: None, nodes: int = _NODES, cuts_s: Sequence[float] = CUTS_S
) -> dict[str, Any]:
    """Figures of each cut; {"skipped": reason} where there are no namespaces to be had.

    Args:
        progress: told how far it is.
        nodes: of each site, that can be asked.
        cuts_s: see `CUTS_S`.

    Raises: ManymindsError.
    """
    if (reason := _lacking()) is not None:
        return {"skipped": reason}
    progress("cut a link", 0.0)
    words = [sys.executable, "-m", "manyminds.evals.sites", str(nodes), *map(str, cuts_s)]
    ended = subprocess.run([*_UNSHARE, *words], stdout=subprocess.PIPE, check=False)  # noqa: S603
    if ended.returncode:
        raise ManymindsError(f"the sites ended with status {ended.returncode}")
    progress("cut a link", 1.0)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _lacking() -> str | None:
    """Why there are no namespaces to be had."""
    lacking = [program for program in _PROGRAMS if shutil.which(program) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)  # noqa: S603
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else None


# --- in the namespaces -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Site:
    """A site that runs, and what it notes."""

    name: str
    process: "subprocess.Popen[str]"
    asked: list[dict[str, Any]] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)
    ready: bool = False

    def read(self) -> None:
        """Until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            noted = json.loads(line)
            if "ready" in noted:
                self.ready = True
            else:
                (self.listed if "listed" in noted else self.asked).append(noted)

    def lists(self, names: set[str]) -> bool:
        return bool(self.listed) and set(self.listed[-1]["listed"]) == names

    def right_since(self, names: set[str], from_s: float, to_s: float) -> float | None:
        """Seconds after `from_s` from which on, up to `to_s`, it listed just these."""
        before = [note for note in self.listed if note["at"] <= to_s]
        since: float | None = None
        for note in before:
            if set(note["listed"]) != names:
                since = None
            elif since is None:
                since = max(0.0, note["at"] - from_s)
        return None if since is None else rounded(since)


def _main(nodes: int, cuts_s: Sequence[float]) -> dict[str, Any]:
    _do("sh", "-e", "-c", _LINK)
    with ExitStack() as stack:
        first = stack.enter_context(_site("a", _ADDRESSES[0], "", nodes))
        second = stack.enter_context(_site("b", _ADDRESSES[1], _ADDRESSES[0], nodes))
        sites = (first, second)
        everybody = members("a", nodes) | members("b", nodes)
        if not until(lambda: all(site.ready and site.lists(everybody) for site in sites), 120.0):
            raise ManymindsError("the sites did not find each other")
        spans = []
        for cut_s in cuts_s:
            time.sleep(_BEFORE_S)
            cut_at = time.monotonic()
            _do("nft", "-f", "-", said=_CUT)
            time.sleep(cut_s)
            healed_at = time.monotonic()
            _do("nft", "delete", "table", "inet", "cut")
            until(lambda: all(site.lists(everybody) for site in sites), _WHOLE_S)
            time.sleep(_AROUND_S)
            spans.append((cut_at, healed_at, time.monotonic()))
    cuts = [_of_cut(sites, nodes, *span) for span in spans]
    return {
        "nodes_each": nodes,
        "cuts": cuts,
        "worst": {
            "answered": min(c[s]["apart"]["answered"] for c in cuts for s in "ab"),
            "islands_right_after_s": _worst(c[s]["island_right_after_s"] for c in cuts for s in "ab"),
            "whole_again_after_s": _worst(c[s]["whole_again_after_s"] for c in cuts for s in "ab"),
        },
    }


def _do(*command: str, said: str = "") -> None:
    """Raises: ManymindsError where it fails."""
    ended = subprocess.run(command, input=said, text=True, capture_output=True, check=False)  # noqa: S603
    if ended.returncode:
        raise ManymindsError(f"{command[0]} failed: {ended.stderr.strip()}")


@contextmanager
def _site(name: str, listen: str, join: str, nodes: int) -> Iterator[_Site]:
    """Runs while the block lasts; the second one inside the other namespace."""
    within = ["ip", "netns", "exec", "inside"] if join else []
    words = [sys.executable, "-m", "manyminds.evals.island", name, listen, join, str(nodes)]
    pipe = subprocess.PIPE
    process = subprocess.Popen([*within, *words], stdin=pipe, stdout=pipe, text=True)  # noqa: S603
    site = _Site(name, process)
    reading = Thread(target=site.read)
    reading.start()
    try:
        yield site
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        reading.join()


# --- figures -----------------------------------------------------------------------------------------


def _of_cut(
    sites: Sequence[_Site], nodes: int, cut_at: float, healed_at: float, end_at: float
) -> dict[str, Any]:
    everybody = members("a", nodes) | members("b", nodes)
    found: dict[str, Any] = {"cut_s": rounded(healed_at - cut_at)}
    for site in sites:
        found[site.name] = {
            **parts(site.asked, cut_at, healed_at, end_at),
            "island_right_after_s": site.right_since(members(site.name, nodes), cut_at, healed_at),
            "whole_again_after_s": site.right_since(everybody, healed_at, end_at),
        }
    return found


def parts(asked: Sequence[dict[str, Any]], cut_at: float, healed_at: float, end_at: float) -> dict[str, Any]:
    """Questions by when they were asked: before the cut, around it, while apart, around the healing.

    `apart` is all of the cut. Times in seconds of one clock. Of each part: questions, the share that was
    answered rightly, and latency.
    """
    spans: dict[str, tuple[float, float]] = {
        "before": (cut_at - _BEFORE_S, cut_at),
        "around_cut": (cut_at - 1.0, cut_at + _AROUND_S),
        "apart": (cut_at, healed_at),
        "around_healing": (healed_at - 1.0, healed_at + _AROUND_S),
        "after": (healed_at + _AROUND_S, end_at),
    }
    found = {}
    for name, (begin, end) in spans.items():
        own = [note for note in asked if begin <= note["at"] < end]
        if own:
            answered = sum(note["right"] for note in own) / len(own)
            ms = spread([note["ms"] for note in own], longest=True)
            found[name] = {"asked": len(own), "answered": rounded(answered), "ms": ms}
    return found


def _worst(values: Iterator[float | None]) -> float | None:
    """The largest; None where one is missing."""
    found = list(values)
    return None if None in found else max(value for value in found if value is not None)


if __name__ == "__main__":
    print(json.dumps(_main(int(sys.argv[1]), [float(word) for word in sys.argv[2:]])))
