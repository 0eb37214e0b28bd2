"""What `experts add`, `probe` and `remove` share: asking newcomers, and letting what was learnt grow."""

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import click

if TYPE_CHECKING:
    from manyminds.artefact import Part
    from manyminds.config import Config
    from manyminds.evals.newcomers import Newcomers
    from manyminds.evals.reception import Received
    from manyminds.learn.intake import Network
    from manyminds.types import Expert

__all__ = ["Asking", "Tell", "asking", "identities", "probe_all", "settle", "show", "telling", "why_not"]

Tell: TypeAlias = Callable[[dict[str, Any]], None]
"""Is told how something goes: of each `event`, with what belongs to it. It may be called from a running event
loop, and must not block.
"""

_Command = TypeVar("_Command", bound=Callable[..., Any])

_LOCAL_WAYS: Final = ("direct", "code")  # in which a model of this machine is probed
_LOCAL_TOKENS: Final = 320  # of an answer, as when the experts that came with manyminds were asked
_POLICIES: Final = ("max", "auto", "cheap", "fast")


@dataclass(frozen=True, slots=True)
class Asking:
    """How much newcomers are asked: probes of each sort of question at most, US dollars and minutes."""

    probes: int
    thorough: bool
    budget_usd: float
    minutes: float


def asking(command: _Command) -> _Command:
    """The options that make an `Asking`."""
    for option in (
        click.option(
            "--minutes",
            default=10.0,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Begin no probe after so long.",
        ),
        click.option(
            "--budget-usd",
            default=1.0,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Spend no more on probing each, by the prices that are known.",
        ),
        click.option(
            "--thorough",
            is_flag=True,
            help="Ask the whole pool of 128, whatever the probes say: small gains take that.",
        ),
        click.option(
            "--probes",
            default=64,
            show_default=True,
            type=click.IntRange(8, 10_000),
            help="Of each sort of question at most; fewer where that tells enough.",
        ),
    ):
        command = option(command)
    return command


def identities(config: "Config") -> dict[str, str]:
    """Every model of a configuration, in every way it may be asked, and what makes it that one.

    Who answers from documents is none: whether it can is known of each question, by what it finds.
    """
    from manyminds.experts.asked import WAYS
    from manyminds.node import local_models
    from manyminds.node.variants import runs_programs

    ways = [name for name, way in WAYS.items() if way.by != "code" or runs_programs()]
    found: dict[str, str] = {}
    for model in local_models(config):
        own = f"local {model.path.name} of {_size(model.path)} bytes"
        found |= dict.fromkeys((model.card.name, *(f"{model.card.name}:{way}" for way in ways)), own)
    for entry in config.experts:
        if entry.kind not in ("local", "documents"):
            found[entry.name] = f"{entry.kind} {entry.model or entry.name} at {entry.url or entry.path}"
    return found


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def why_not(config: "Config") -> str:
    """What keeps newcomers from being probed here; "" where nothing does."""
    from importlib.util import find_spec

    from manyminds.errors import ArtefactError
    from manyminds.evals.newcomers import Newcomers

    if not (find_spec("scipy") and find_spec("threadpoolctl")):
        return "That needs scipy: pip install 'manyminds[train]'."
    try:
        networks = Newcomers(config.home).networks((), identities(config))
    except ArtefactError as error:
        return error.message
    if not networks:
        return (
            "Nothing was learnt of the experts that are here, so there is nothing to compare it with:"
            " see `manyminds calibrate DIR` and `manyminds train DIR`."
        )
    return ""


def probe_all(
    config: "Config", names: Collection[str], how: Asking, tell: Tell, *, anew: bool = False
) -> list[dict[str, Any]]:
    """Asks these experts, lets what was learnt grow, and says what came of it: for `show`, and as JSON.

    Tells {"event": "probing"} with how many questions one has been `asked` `of` how many, from 0 on, and
    {"event": "probed"} with what came of it. Cancelled, it keeps what was answered.

    Raises: ManymindsError: one that is asked fails, or its probes cannot be kept.
    """
    from manyminds.evals.newcomers import Newcomers

    newcomers = Newcomers(config.home)
    return asyncio.run(_probe_all(config, newcomers, names, how, tell, anew))


async def _probe_all(
    config: "Config",
    newcomers: "Newcomers",
    names: Collection[str],
    how: Asking,
    tell: Tell,
    anew: bool,
) -> list[dict[str, Any]]:
    from manyminds import pauses
    from manyminds.errors import ConfigError
    from manyminds.node import Node

    found = []
    async with Node(config, os.environ, learnt=False) as node:
        for name in names:
            if name in node.paused:
                raise pauses.refusal(name)
            if name not in node.experts:
                raise ConfigError(f"{name} cannot be asked here now: see `manyminds doctor`.")
            until_s = asyncio.get_running_loop().time() + 60 * how.minutes
            for way, expert in _in_ways(name, node.experts[name], newcomers.base.experts).items():
                if anew:
                    newcomers.ask_anew(way)
                found.append(await _probe(config, newcomers, way, expert, how, until_s, tell))
                tell({"event": "probed", "result": found[-1]})
    return found


def _in_ways(name: str, expert: "Expert", learnt: Collection[str]) -> "dict[str, Expert]":
    """As it was learnt from; else a model of this machine in the ways that serve small ones."""
    from manyminds.node.variants import named

    if name in learnt or expert.card.kind != "local":
        return {name: expert}
    known = [way for way in learnt if way.rpartition(":")[0] == name]
    return named({name: expert}, known or [f"{name}:{way}" for way in _LOCAL_WAYS])


async def _probe(
    config: "Config",
    newcomers: "Newcomers",
    name: str,
    expert: "Expert",
    how: Asking,
    until_s: float,
    tell: Tell,
) -> dict[str, Any]:
    from msgspec.structs import replace

    from manyminds.evals.calls import SAMPLING
    from manyminds.evals.reception import Reception
    from manyminds.learn.intake import changed
    from manyminds.types import Sampling

    known = identities(config)
    others = [one for one in newcomers.known(known) if one.name != name]
    before = newcomers.networks(others, known)
    told = partial(_asked, tell, name, how.probes)
    told(0)
    reception = Reception(
        newcomers.bank,
        before,
        lambda one: newcomers.networks([*others, one], known),
        most=how.probes,
        thorough=how.thorough,
        budget_usd=how.budget_usd,
        until_s=until_s,
        sampling=Sampling(max_tokens=_LOCAL_TOKENS) if expert.card.kind == "local" else SAMPLING,
        told=told,
    )
    received = await reception.receive(name, known[name], expert, newcomers.folder(name))
    probed, now = received.probed, None
    if name in newcomers.base.experts:
        now = changed(probed, newcomers.bank)
        probed = probed if now else replace(probed, heard=())  # what was learnt of it holds
    if received.probed.heard:  # else what it said before stays
        newcomers.keep(probed, known)
    after = newcomers.settle(known)
    return {"changed": now} | _result(name, received, before, after, known)


def _asked(tell: Tell, name: str, most: int, asked: int) -> None:
    tell({"event": "probing", "name": name, "asked": asked, "of": max(most, asked)})


@contextmanager
def telling() -> Iterator[Tell]:
    """Says in words how far the probing is; on a terminal, how many questions were answered."""
    from rich.console import Console

    console = Console(stderr=True)
    status = console.status("")

    def tell(event: Mapping[str, Any]) -> None:
        if event["event"] != "probing":
            status.stop()
        elif not event["asked"]:
            click.echo(f"Probing {event['name']} with up to {event['of']} questions of each sort.", err=True)
        elif console.is_terminal:
            status.update(f"{event['name']}: {event['asked']} answered")
            status.start()

    try:
        yield tell
    finally:
        status.stop()


def settle(config: "Config") -> None:
    """Makes what has grown anew of the newcomers that were probed.

    Raises: ManymindsError: what was learnt cannot grow.
    """
    from manyminds.node import NEWCOMERS

    if not (config.home / NEWCOMERS).exists():
        return
    from manyminds.evals.newcomers import Newcomers

    Newcomers(config.home).settle(identities(config))


# --- what is shown ---------------------------------------------------------------------------------


def _result(
    name: str,
    received: "Received",
    before: "Sequence[Network]",
    after: "Sequence[Network]",
    have: Collection[str],
) -> dict[str, Any]:
    """What came of a newcomer, as JSON."""
    verdicts = [
        (network, verdict) for network in after for verdict in network.verdicts if verdict.name == name
    ]
    was = {network.kinds: network.network.part() for network in before}
    return {
        "name": name,
        "probes": received.probes,
        "more": received.more,
        "failed": received.failed,
        "cost_usd": received.cost_usd,
        "ended": received.ended,
        "sorts": [
            {
                "kinds": network.kinds,
                "what": verdict.what,
                "accuracy": verdict.accuracy,
                "gain": verdict.gain,
                "gain_low": verdict.low,
                "frontier": _frontier(was[network.kinds], network.network.part(), have),
            }
            for network, verdict in verdicts
        ],
    }


def _frontier(was: "Part", now: "Part", have: Collection[str]) -> list[dict[str, Any]]:
    """What each policy's own plan reaches at what cost, before and after."""
    return [
        {"policy": policy, "before": _point(was, policy, have), "after": _point(now, policy, have)}
        for policy in _POLICIES
        if policy in was.ranking
    ]


def _point(part: "Part", policy: str, have: Collection[str]) -> dict[str, Any] | None:
    """None where nothing of it can be asked; without figures where some of its experts are not here."""
    from manyminds.artefact import left_of

    plans = [part.plans[i] for i in part.ranking[policy]]
    plan = next((left for one in plans if (left := left_of(one, have)) is not None), None)
    if plan is None:
        return None
    whole = plan in plans
    return {
        "asks": plan.experts,
        "accuracy": plan.accuracy if whole else None,
        "cost_usd_per_1k": 1000 * plan.cost_usd if whole else None,
    }


def show(results: Sequence[Mapping[str, Any]]) -> None:
    """In words, and the frontier of each sort of question as a table."""
    from rich.console import Console
    from rich.table import Table

    for found in results:
        failed = f", {found['failed']} calls failed" if found["failed"] else ""
        spent = "" if found["ended"] == "enough" else f"; then the {found['ended']} was spent"
        asked = (
            f"{found['probes']} probes and {found['more']} more"
            if found["more"]
            else f"{found['probes']} probes"
        )
        click.echo(f"{found['name']}: {asked} for ${found['cost_usd']:.4f}{failed}{spent}.")
        if found["changed"] is False:
            click.echo("It is as it was when it was learnt from: what was learnt of it holds.")
        for sort in found["sorts"]:
            click.echo(f"{', '.join(sort['kinds'])}: {_said(sort)}")
            if sort["what"] == "keep":
                continue
            table = Table("policy", box=None, header_style="bold", pad_edge=False)
            for column in ("accuracy", "$ per 1,000", "asks"):
                table.add_column(column, justify="left" if column == "asks" else "right")
            for row in sort["frontier"]:
                before, after = row["before"], row["after"]
                table.add_row(
                    row["policy"],
                    _both(before, after, "accuracy", lambda x: f"{100 * x:.1f}%"),
                    _both(before, after, "cost_usd_per_1k", lambda x: f"{x:.4g}"),
                    ", ".join(after["asks"]) if after else "",
                )
            Console(markup=False, highlight=False).print(table)


def _said(sort: Mapping[str, Any]) -> str:
    right = f"about {100 * sort['accuracy']:.0f}% right"
    gain, low = f"{100 * sort['gain']:+.1f} points expected", f"{100 * sort['gain_low']:+.1f} at least"
    return {
        "keep": f"{right}; not taken in, since it is not surely a gain ({gain}, {low})",
        "lead": f"{right}; taken in, asked before all others ({gain})",
        "join": f"{right}; taken in, it votes ({gain})",
        "all": f"{right}; taken in with others that had been waiting ({gain})",
    }[sort["what"]]


def _both(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, key: str, shown: Callable[[float], str]
) -> str:
    """Before and after, once where they are the same."""
    texts = ["?" if point is None or point[key] is None else shown(point[key]) for point in (before, after)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} -> {texts[1]}"
