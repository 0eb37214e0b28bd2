"""What `manyminds top` shows of a node, whatever that says and however small the terminal is."""

import io
from typing import Any

import pytest
from rich.console import Console

from manyminds.cli.overview import Overview

TRAFFIC = {
    "event": "traffic",
    "requests": 1234,
    "in_flight": 2,
    "requests_per_min": 30.4,
    "cost_usd": 0.5,
    "cost_usd_per_min": 0.001,
    "experts": 3,
    "running": 2,
    "peers": 1,
}


def expert(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "accuracy": 0.5, "paused": False, "spared": False, "running": True} | fields


def asked(policy: str, *names: str, status: str = "ok") -> dict[str, Any]:
    panel = [{"expert": name, "status": "ok", "seconds": 0.1, "cost_usd": 0.0} for name in names]
    return {
        "event": "request",
        "at_utc": "2026-01-02T03:04:05Z",
        "policy": policy,
        "status": status,
        "seconds": 1.25,
        "cost_usd": 0.002,
        "panel": panel,
    }


def lines(overview: Overview, width: int = 120) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(overview)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def overview(*experts: dict[str, Any]) -> Overview:
    made = Overview("http://127.0.0.1:8000")
    made.take(TRAFFIC)
    made.show(experts)
    return made


def test_before_anything_is_heard_it_says_so() -> None:
    assert lines(Overview("http://x"))[0] == "http://x: nothing heard yet"


def test_traffic_experts_and_requests_are_shown() -> None:
    week = {"accuracy": 0.8, "graded": 10}
    hour = {"calls": 7, "uptime": 0.99, "ttft_p50_s": 0.1234, "tokens_per_s_p50": 33.0, "usd_per_m": 0.5}
    found = overview(
        expert("calm"), expert("busy", ratings={"hour": hour, "week": week}), expert("off", paused=True)
    )
    found.take(asked("auto", "busy", "calm"))
    head, heads, *rows = lines(found)
    assert "1,234 requests, 2 under way, 30/min; $0.500000, $0.001000/min; 2 of 3 experts" in head
    assert heads.split()[:4] == ["expert", "state", "calls/h", "right"]
    assert rows[0].split() == ["busy", "up", "7", "80%", "99%", "0.123", "33", "0.5"]
    assert rows[1].split() == ["calm", "up", "0", "50%?"]
    assert rows[2].split() == ["off", "paused", "0", "50%?"]
    assert rows[-1].split() == ["03:04:05", "auto", "ok", "1.25", "0.002000", "busy", "ok,", "calm", "ok"]


@pytest.mark.parametrize(
    ("fields", "state"),
    [({"spared": True}, "left alone"), ({"running": False}, "not running"), ({"paused": True}, "paused")],
)
def test_the_state_is_in_words(fields: dict[str, Any], state: str) -> None:
    assert state in lines(overview(expert("a", **fields)))[2]


@pytest.mark.parametrize("width", [20, 40, 70, 90, 200])
@pytest.mark.parametrize("height", [8, 24, 60])
def test_two_hundred_experts_fit_a_terminal(width: int, height: int) -> None:
    found = overview(*(expert(f"expert-of-a-long-name-{i}") for i in range(200)))
    for i in range(60):
        found.take(asked("max", *(f"expert-{j}" for j in range(i))))
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(found)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue().splitlines()
    assert len(shown) <= height
    assert all(len(line) <= width for line in shown)
    assert any("more" in line for line in shown)


def test_names_are_not_obeyed() -> None:
    text = "\n".join(lines(overview(expert("\x1b[2Jevil [red]x[/red]"))))
    assert "\x1b" not in text
    assert "[red]x[/red]" in text


def test_trouble_is_told_beside_what_is_known() -> None:
    found = overview(expert("a"))
    found.trouble = "It tells no more."
    assert lines(found)[1] == "It tells no more."
    assert any(line.startswith("a ") for line in lines(found))
