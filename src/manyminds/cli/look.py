"""`manyminds experts`, `config` and `doctor`: what is here, what is set, and what is wrong."""

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from rich.table import Table

    from manyminds.ratings import Rated

__all__ = ["config", "doctor", "experts", "plain", "print_table", "table_of", "written"]

_SET: Final = "\n\t\xa0\xad\u200b\u200c\u200d\u2003\u2009\u202f\u3000"


@click.group()
def experts() -> None:
    """Look at the experts of this network, add to them, and remove some."""


@experts.command("list")
@as_json
@click.pass_obj
def list_experts(file: str | None, as_json: bool) -> None:
    """List every expert, its card's claims and what was measured, and every model that could be pulled."""
    import asyncio

    import msgspec

    from manyminds import catalog
    from manyminds.cli.shelves import state_of, told
    from manyminds.node import Node
    from manyminds.ratings import Rated

    settings = read(file, {})

    async def rated() -> list[Rated]:
        async with Node(settings, os.environ, learnt=False) as node:
            return await node.rated()

    found = asyncio.run(rated())
    reading = [entry for entry in settings.experts if entry.kind == "documents"]
    states = {entry.name: state_of(settings.home, entry) for entry in reading}
    models = {m.name: m for m in catalog.load().values() if m.kind == "gguf"}
    absent = [m for name, m in models.items() if name not in {card.name for card in found}]
    if as_json:
        pullable = [{"name": m.name, "licence": m.licence, "tiers": m.tiers} for m in absent]
        cards = [msgspec.to_builtins(card) for card in found]
        read_of = [state for state in states.values() if state]
        print_json({"experts": cards, "not_running": pullable, "documents": read_of})
        return
    measured = ("accuracy", "first token s", "tokens/s", "$/M", "charged", "uptime")
    table = table_of("expert", "kind", "source", "skills", *measured, "calls")
    for card in found:
        table.add_row(card.name, card.kind, card.source, ", ".join(card.skills), *_measured(card))
    print_table(table)
    click.echo("Claimed by the card, and measured in the last week where anything was.", err=True)
    for entry in reading:
        click.echo(f"documents: {entry.name}: {told(entry, states[entry.name])}.", err=True)
    for card in found:
        if card.paused:
            click.echo(
                f"paused: {card.name} is asked by nobody: `manyminds experts resume {card.name}`.", err=True
            )
        if card.drifted_utc:
            click.echo(f"changed: {card.name} has been worse than before since {card.drifted_utc}.", err=True)
    for model in absent:
        how = f"`manyminds pull {model.name}` brings it"
        if not catalog.missing(settings.home, model):
            how = "it is here: see local.tier and local.max_memory_gb"
        click.echo(f"not running: {model.name} ({model.licence}); {how}.", err=True)


def _measured(card: "Rated") -> list[str]:
    """What its card claims, and behind an arrow what was measured in the last week."""
    from manyminds.ratings import Rating

    week = card.ratings.week if card.ratings is not None else Rating()
    claimed_usd = f"{card.price_in_usd_per_m:g} in {card.price_out_usd_per_m:g} out"
    if card.kind == "local":
        claimed_usd = f"{card.price_cpu_usd_per_hour:g}/CPU h"
    elif week.claimed_usd_per_m is not None:
        claimed_usd = f"{week.claimed_usd_per_m:.3g}"
    graded = "" if week.accuracy is None else f"{week.accuracy:.2f} of {week.graded}"
    return [
        _beside(f"{card.accuracy:.2f}", graded),
        _beside(f"{card.ttft_s:.3g}", _shown(week.ttft_p50_s)),
        _beside(f"{card.tokens_per_s:.3g}", _shown(week.tokens_per_s_p50)),
        _beside(claimed_usd, _shown(week.usd_per_m)),
        "" if week.charged_ratio is None else f"x {week.charged_ratio:.2f}",
        "" if week.uptime is None else f"{week.uptime:.1%}",
        f"{week.calls:,}",
    ]


def _shown(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.3g}"


def _beside(claimed: str, measured: str) -> str:
    return f"{claimed} → {measured}" if measured else claimed


@click.command()
@as_json
@click.pass_obj
def config(file: str | None, as_json: bool) -> None:
    """Show every setting and where it comes from; secrets are masked."""
    from manyminds.config import describe

    settings = describe(read(file, {}))
    if as_json:
        print_json([{"key": s.key, "value": s.value, "origin": s.origin} for s in settings])
        return
    table = table_of("key", "value", "from")
    for setting in settings:
        table.add_row(setting.key, "" if setting.value is None else str(setting.value), setting.origin)
    print_table(table)


@click.command()
@click.option("--verify", is_flag=True, help="Read every model file and check its sha256.")
@as_json
@click.pass_obj
def doctor(file: str | None, verify: bool, as_json: bool) -> None:
    """Check this machine and this configuration; exit code 1 when something is wrong."""
    from manyminds.cli.checks import run

    checks = run(read(file, {}), os.environ, verify=verify)
    if as_json:
        print_json([{"check": c.name, "ok": c.ok, "found": c.found} for c in checks])
    else:
        for check in checks:
            click.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
    sys.exit(0 if all(check.ok for check in checks) else 1)


def table_of(*headings: str) -> "Table":
    """A table without lines."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def plain(text: str) -> str:
    """What others wrote, without characters that a terminal might obey."""
    return "".join(char if char.isprintable() else " " for char in text)


def written(text: str) -> str:
    """`plain`, of a text as its author set it: with its lines, tabs, and signs that join letters."""
    return "".join(char if char in _SET or char.isprintable() else " " for char in text)


def print_table(table: "Table") -> None:
    """On standard output; as wide as it needs to be where that is not a terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False).print(table)
