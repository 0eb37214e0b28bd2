"""`manyminds bench network`: how soon nodes find, ask and lose each other."""

from typing import Any

import click

from manyminds.cli.evaluate import bars
from manyminds.cli.settings import as_json, print_json

__all__ = ["network"]


@click.command()
@click.option(
    "--nodes", default=64, show_default=True, type=click.IntRange(16, 500), help="Nodes of one network."
)
@click.option(
    "--asked",
    default=200,
    show_default=True,
    type=click.IntRange(10, 100_000),
    help="Questions of each kind.",
)
@as_json
def network(nodes: int, asked: int, as_json: bool) -> None:
    """Nodes as real processes on this machine: discovery, one hop, fan-out, deadlines, kills, memory.

    Their models cost no time, so what is measured is the network. A node takes some 60 MB and a second of
    one core to start: 64 of them about two minutes.
    """
    from manyminds.evals.network import measure

    with bars() as progress:
        found = measure(nodes, asked, progress)
    if as_json:
        print_json(found)
        return
    for what, value in _lines(found):
        click.echo(f"{what:36} {value}")


def _lines(found: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{above}{name} ")
        else:
            lines.append((f"{above}{name}", value))
    return lines
