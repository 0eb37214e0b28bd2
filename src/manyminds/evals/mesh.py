"""Many nodes of one network on loopback: how soon they find, ask and lose each other. A part of `network`.

All models are one process that costs no time, so what is measured is the network.
"""

import statistics
import time
from collections.abc import Sequence
from threading import Timer
from typing import Any, Final

from manyminds.evals import attacks
from manyminds.evals.fleet import Fleet, Progress, Running, expert, free_port, network, says, until
from manyminds.evals.speaker import name as model
from manyminds.evals.times import rounded, spread, timed

__all__ = ["measure"]

_QUESTION: Final = "Which of these is a prime number?\nA) 21\nB) 23\nC) 25\nD) 27"
_FANNED: Final = 8
_SLOW: Final = model("B", 100, 20)


def measure(nodes: int, asked: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Discovery, one hop, fan-out, a deadline, attacks by Zenoh, and kills.

    Args:
        nodes: of one network, with the one that asks; at least 12.
        asked: questions of each kind that are timed.
        seed: of intervals.
        progress: told how far it is.
    """
    with Fleet() as fleet:
        seeds = [free_port(), free_port()]
        first = _toml("router-0", fleet.speaker, {"expert-0": model("B", 1)}, listen=seeds[0])
        second = _toml("router-1", fleet.speaker, {"expert-1": model("B")}, listen=seeds[1], join=[seeds[0]])
        progress("start nodes", 0.0)
        routers = fleet.start({"router-0": first}) + fleet.start({"router-1": second})
        others = []
        for i in range(2, nodes - 1):  # every other one takes its time
            letter = "ABCD"[i // 2 % 4]  # they disagree, so that all are waited for
            name, says = (f"node-{i}", model(letter)) if i % 2 else (f"slow-{i}", _SLOW)
            others += fleet.start({name: _toml(name, fleet.speaker, {f"expert-{i}": says}, join=seeds)})
            progress("start nodes", (i - 1) / (nodes - 3))
        everybody = {node.name for node in (*routers, *others)}
        quick = [node for node in others if node.name.startswith("node-")]
        found: dict[str, Any] = {}
        asker = _discover(fleet, seeds, everybody, found)
        progress("ask", 0.0)
        _hop(asker, routers[0], asked, found)
        progress("ask", 0.5)
        _fan_out(fleet, asker, quick, asked, found)
        _deadline(fleet, asker, quick, seeds, found)
        found["idle_node_pss_mb"] = rounded(statistics.median(node.pss_mb() for node in others))
        progress("attack", 0.0)
        found["attacks"] = attacks.measure(fleet, asker, routers[0], seeds[0], asked, seed)
        progress("kill", 0.0)
        alive = _kill_a_third(asker, others, found)
        progress("kill", 0.5)
        _kill_router(asker, routers[0], {routers[1].name, *(node.name for node in alive)}, found)
    return found


def _toml(
    name: str, url: str, experts: dict[str, str], *, listen: int | None = None, join: Sequence[int] = ()
) -> str:
    own = network(
        name,
        listen=f"tcp/127.0.0.1:{listen}" if listen else "",
        join=[f"tcp/127.0.0.1:{port}" for port in join],
    )
    return own + "".join(expert(called, said, url) for called, said in experts.items())


def _discover(fleet: Fleet, seeds: Sequence[int], everybody: set[str], found: dict[str, Any]) -> Running:
    """A node that has nothing of its own comes and looks around."""
    (asker,) = fleet.start({"asker": _toml("asker", fleet.speaker, {}, join=seeds)})
    began = time.perf_counter()
    complete = until(lambda: everybody <= asker.experts(), 30.0)
    found["discovery"] = {
        "complete": complete,
        "after_it_listens_s": rounded(time.perf_counter() - began),
        "listing_ms": spread([timed(lambda: asker.get("/v1/experts")) for _ in range(50)]),
    }
    return asker


def _hop(asker: Running, other: Running, asked: int, found: dict[str, Any]) -> None:
    """The same expert, asked at its own node and through another."""
    own = next(name for name in other.experts() if name.startswith("expert-"))
    direct, hopped = [], []
    for _ in range(asked):
        direct.append(timed(lambda: _answered(other, own)))
        hopped.append(timed(lambda: _answered(asker, other.name)))
    there, here = spread(direct), spread(hopped)
    found["hop"] = {
        "direct_ms": there,
        "hopped_ms": here,
        "added_p50_ms": rounded(here["p50"] - there["p50"]),
        "added_p99_ms": rounded(here["p99"] - there["p99"]),
    }


def _answered(node: Running, name: str) -> None:
    said = says(node, name)
    assert said, f"{name} did not answer"


def _fan_out(
    fleet: Fleet, asker: Running, quick: Sequence[Running], asked: int, found: dict[str, Any]
) -> None:
    """Eight nodes at once, 32 words from each; and the same eight models as experts of one node."""
    peers = [node.name for node in quick[:_FANNED]]
    own = {f"own-{i}": model("ABCD"[i % 4]) for i in range(len(peers))}
    (lone,) = fleet.start({"lone": _toml("lone", fleet.speaker, own)})
    times: dict[str, list[float]] = {"peers": [], "own": []}
    heard = []
    for _ in range(asked):
        for kind, node, names in (("peers", asker, peers), ("own", lone, list(own))):
            began = time.perf_counter()
            reply = _panel(node, len(names), include=names)
            times[kind].append(1000 * (time.perf_counter() - began))
            heard.append(sum(entry["status"] == "ok" for entry in reply["manyminds"]["panel"]))
    lone.kill()
    there, here = spread(times["own"]), spread(times["peers"])
    found["fan_out"] = {
        "experts": statistics.mean(heard),
        "words": 32,
        "own_ms": there,
        "peers_ms": here,
        "added_p50_ms": rounded(here["p50"] - there["p50"]),
    }


def _panel(asker: Running, size: int, **limits: Any) -> dict[str, Any]:
    wish = {"panel": size, "strategy": "vote", "cache": "off", **limits}
    body = {"model": "max", "messages": [{"role": "user", "content": _QUESTION}], "manyminds": wish}
    return asker.ask(body)


def _deadline(
    fleet: Fleet, asker: Running, quick: Sequence[Running], seeds: Sequence[int], found: dict[str, Any]
) -> None:
    """One node that is slow and one that never answers, among six that do, and half a second."""
    stuck = {
        "slow": _toml("slow", fleet.speaker, {"crawls": model("B", 100, 100)}, join=seeds),
        "stalled": _toml("stalled", fleet.speaker, {"stalls": "stalls"}, join=seeds),
    }
    nodes = fleet.start(stuck)
    assert until(lambda: set(stuck) <= asker.experts(), 10.0)
    six = [node.name for node in quick[: _FANNED - len(stuck)]]
    times, heard = [], []
    for _ in range(20):
        began = time.perf_counter()
        reply = _panel(asker, _FANNED, include=[*six, *stuck], deadline_s=0.5)
        times.append(1000 * (time.perf_counter() - began))
        heard.append(sum(e["status"] == "ok" for e in reply.get("manyminds", {"panel": []})["panel"]))
    found["deadline"] = {"deadline_ms": 500, "answers": statistics.mean(heard), "ms": spread(times)}
    for node in nodes:
        node.kill()


def _kill_a_third(asker: Running, others: Sequence[Running], found: dict[str, Any]) -> list[Running]:
    """While each is in the midst of its words: how soon that is noticed, and whether the rest answers."""
    third = len(others) // 3
    slow = [node for node in others if node.name.startswith("slow-")]
    asked, half = slow[:_FANNED], len(slow[:_FANNED]) // 2
    kept = asked[half:]
    dying = [*asked[:half], *(node for node in others if node not in asked)][:third]
    alive = [node for node in others if node not in dying]
    assert all(node in alive for node in kept)
    names = [node.name for node in asked]
    killed_s: list[float] = []

    def kill() -> None:
        killed_s.append(time.perf_counter())
        for node in dying:
            node.kill()

    timer = Timer(0.5, kill)
    timer.start()
    began = time.perf_counter()
    reply = _panel(asker, len(names), include=names)
    timer.join()
    panel = {entry["expert"]: entry for entry in reply.get("manyminds", {"panel": []})["panel"]}
    after_s = killed_s[0] - began
    lost = [entry["seconds"] - after_s for entry in panel.values() if entry["status"] in ("cut", "failed")]
    gone = {node.name for node in dying}
    until(lambda: not gone & asker.experts(), 30.0)
    found["killed"] = {
        "nodes": third,
        "answered": bool(reply.get("choices")),
        "ok": sum(entry["status"] == "ok" for entry in panel.values()),
        "lost": len(lost),
        "noticed_ms": rounded(1000 * max(lost)) if lost else None,
        "listing_right_after_s": rounded(time.perf_counter() - killed_s[0]),
    }
    return alive


def _kill_router(asker: Running, router: Running, left: set[str], found: dict[str, Any]) -> None:
    """The node through which all have joined: the rest finds itself again by the other one."""
    router.kill()
    began = time.perf_counter()
    answered = bool(_panel(asker, _FANNED).get("choices"))
    first_s = time.perf_counter() - began
    right = until(lambda: asker.experts() == left, 30.0)
    found["router_killed"] = {
        "answered_meanwhile": answered,
        "meanwhile_s": rounded(first_s),
        "directory_right": right,
        "directory_right_after_s": rounded(time.perf_counter() - began),
    }
