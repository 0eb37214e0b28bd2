"""`manyminds experts`, `config` and `doctor`: what is here, what is set, and what is wrong."""

import os
import sys
from typing import TYPE_CHECKING

import click

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["config", "doctor", "experts", "print_table", "table_of"]


@click.group()
def experts() -> None:
    """Look at the experts of this network."""


@experts.command("list")
@as_json
@click.pass_obj
def list_experts(file: str | None, as_json: bool) -> None:
    """List every configured expert and every model that could be pulled."""
    import asyncio

    import msgspec

    from manyminds import catalog
    from manyminds.node import Node
    from manyminds.types import Card

    settings = read(file, {})

    async def cards() -> list[Card]:
        async with Node(settings, os.environ, learnt=False) as node:
            return node.cards

    found = asyncio.run(cards())
    models = {m.name: m for m in catalog.load().values() if m.kind == "gguf"}
    absent = [m for name, m in models.items() if name not in {card.name for card in found}]
    if as_json:
        pullable = [{"name": m.name, "licence": m.licence, "tiers": m.tiers} for m in absent]
        print_json({"experts": [msgspec.to_builtins(card) for card in found], "not_running": pullable})
        return
    table = table_of("expert", "kind", "source", "skills", "accuracy claimed", "in $/M", "out $/M")
    for card in found:
        prices = (f"{card.price_in_usd_per_m:g}", f"{card.price_out_usd_per_m:g}")
        if card.kind == "local":
            prices = (f"{card.price_cpu_usd_per_hour:g}/CPU h", "")
        table.add_row(
            card.name, card.kind, card.source, ", ".join(card.skills), f"{card.accuracy:.2f}", *prices
        )
    print_table(table)
    for model in absent:
        how = f"`manyminds pull {model.name}` brings it"
        if not catalog.missing(settings.home, model):
            how = "it is here: see local.tier and local.max_memory_gb"
        click.echo(f"not running: {model.name} ({model.licence}); {how}.", err=True)


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


def print_table(table: "Table") -> None:
    """On standard output; as wide as it needs to be where that is not a terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)
