"""`manyminds bench network`: how soon nodes find, ask and lose each other, with real processes on loopback.

All models are one process that costs no time, so what is measured is the network. Knows no command.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from threading import Timer
from typing import Any, Final

from manyminds.evals.attacker import KINDS
from manyminds.evals.fleet import SECRET, Fleet, Running, free_port, until
from manyminds.evals.speaker import name as model

__all__ = ["Progress", "measure"]

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""

_QUESTION: Final = "Which of these is a prime number?\nA) 21\nB) 23\nC) 25\nD) 27"
_FANNED: Final = 8
_SLOW: Final = model("B", 100, 20)


def measure(nodes: int, asked: int, progress: Progress = lambda what, share: None) -> dict[str, Any]:
    """All figures.

    Args:
        nodes: of one network, with the one that asks; at least 12.
        asked: questions of each kind that are timed.
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
        found: dict[str, Any] = {"nodes": nodes, "asked": asked}
        asker = _discover(fleet, seeds, everybody, found)
        progress("ask", 0.0)
        _hop(asker, routers[0], asked, found)
        progress("ask", 0.5)
        _fan_out(asker, quick, asked, found)
        _deadline(fleet, asker, quick, seeds, found)
        found["idle_node_pss_mb"] = _rounded(statistics.median(node.pss_mb() for node in others))
        progress("attack", 0.0)
        _attack(fleet, asker, routers[0], seeds[0], asked, found)
        progress("kill", 0.0)
        alive = _kill_a_third(asker, others, found)
        progress("kill", 0.5)
        _kill_router(asker, routers[0], {routers[1].name, *(node.name for node in alive)}, found)
    return found


def _toml(
    name: str, url: str, experts: dict[str, str], *, listen: int | None = None, join: Sequence[int] = ()
) -> str:
    lines = [f'[network]\nname = "{name}"\nsecret_env = "{SECRET}"']
    lines += [f'listen = "tcp/127.0.0.1:{listen}"'] if listen else []
    lines += [f"join = {[f'tcp/127.0.0.1:{port}' for port in join]}"] if join else []
    for expert, says in experts.items():
        lines.append(f'[[expert]]\nname = "{expert}"\nmodel = "{says}"\nurl = "{url}"\naccuracy = 0.7')
    return "\n".join(lines)


def _discover(fleet: Fleet, seeds: Sequence[int], everybody: set[str], found: dict[str, Any]) -> Running:
    """A node that has nothing of its own comes and looks around."""
    (asker,) = fleet.start({"asker": _toml("asker", fleet.speaker, {}, join=seeds)})
    began = time.perf_counter()
    complete = until(lambda: everybody <= asker.experts(), 30.0)
    found["discovery"] = {
        "complete": complete,
        "after_it_listens_s": _rounded(time.perf_counter() - began),
        "listing_ms": _spread([_timed(lambda: asker.get("/v1/experts")) for _ in range(50)]),
    }
    return asker


def _hop(asker: Running, other: Running, asked: int, found: dict[str, Any]) -> None:
    """The same expert, asked at its own node and through another."""
    own = next(name for name in other.experts() if name.startswith("expert-"))
    direct, hopped = [], []
    for _ in range(asked):
        direct.append(_timed(lambda: _answered(other, own)))
        hopped.append(_timed(lambda: _answered(asker, other.name)))
    there, here = _spread(direct), _spread(hopped)
    found["hop"] = {
        "direct_ms": there,
        "hopped_ms": here,
        "added_p50_ms": _rounded(here["p50"] - there["p50"]),
        "added_p99_ms": _rounded(here["p99"] - there["p99"]),
    }


def _answered(node: Running, name: str) -> None:
    said = _says(node, name)
    assert said, f"{name} did not answer"


def _says(node: Running, name: str) -> str:
    """What an expert says; "" where none came."""
    reply = node.ask({"model": name, "messages": [{"role": "user", "content": "Say so."}], "max_tokens": 1})
    return str(reply["choices"][0]["message"]["content"]) if reply.get("choices") else ""


def _fan_out(asker: Running, quick: Sequence[Running], asked: int, found: dict[str, Any]) -> None:
    """Eight nodes at once, 32 words from each."""
    names = [node.name for node in quick[:_FANNED]]
    times, heard = [], []
    for _ in range(asked):
        began = time.perf_counter()
        reply = _panel(asker, len(names), include=names)
        times.append(1000 * (time.perf_counter() - began))
        heard.append(sum(entry["status"] == "ok" for entry in reply["manyminds"]["panel"]))
    found["fan_out"] = {"peers": statistics.mean(heard), "words": 32, "ms": _spread(times)}


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
    found["deadline"] = {"deadline_ms": 500, "answers": statistics.mean(heard), "ms": _spread(times)}
    for node in nodes:
        node.kill()


def _attack(
    fleet: Fleet, asker: Running, victim: Running, port: int, asked: int, found: dict[str, Any]
) -> None:
    """Each kind of attack while another node is asked: what it costs, and whether anything of it is believed.

    Latency is compared with that just before, when nobody attacks.
    """
    listed = asker.get("/v1/experts")["data"]
    node = next(expert["model"] for expert in listed if expert["name"] == victim.name)
    shown = fleet.keep("victim.json", victim.raw("/.well-known/agent-card.json"))
    found["attacks"] = {}
    for kind in KINDS:
        quiet = [_timed(lambda: _answered(asker, victim.name)) for _ in range(asked)]
        before = asker.experts()
        with fleet.running("manyminds.evals.attacker", kind, str(port), node, str(shown)):
            time.sleep(1.0)
            wrong = 0
            times = []
            for _ in range(asked):
                began = time.perf_counter()
                wrong += not _says(asker, victim.name).startswith("B)")
                times.append(1000 * (time.perf_counter() - began))
            new = len(asker.experts() - before)
        there, here = _spread(quiet), _spread(times)
        found["attacks"][kind] = {
            "wrong_or_none": wrong,
            "new_experts": new,
            "quiet_ms": there,
            "attacked_ms": here,
            "slower_p50": _rounded(here["p50"] / there["p50"] - 1.0),
        }


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
        "noticed_ms": _rounded(1000 * max(lost)) if lost else None,
        "listing_right_after_s": _rounded(time.perf_counter() - killed_s[0]),
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
        "meanwhile_s": _rounded(first_s),
        "directory_right": right,
        "directory_right_after_s": _rounded(time.perf_counter() - began),
    }


# --- figures -----------------------------------------------------------------------------------------


def _timed(do: Callable[[], Any]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    do()
    return 1000 * (time.perf_counter() - began)


def _spread(times_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    return {
        "p50": _rounded(statistics.median(ordered)),
        "p99": _rounded(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
