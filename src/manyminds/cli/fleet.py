"""`manyminds bench network`: how soon nodes find, ask and lose each other."""

from pathlib import Path
from typing import Any

import click

from manyminds.cli.evaluate import bars
from manyminds.cli.settings import as_json, print_json

__all__ = ["network"]

_SCENARIOS = ("mesh", "best", "sites", "prices", "https")


@click.command()
@click.option(
    "--nodes", default=64, show_default=True, type=click.IntRange(16, 500), help="Nodes of the mesh."
)
@click.option(
    "--asked",
    default=200,
    show_default=True,
    type=click.IntRange(10, 100_000),
    help="Questions of each kind.",
)
@click.option(
    "--only", multiple=True, type=click.Choice(_SCENARIOS), help="Only this scenario; may be given again."
)
@click.option(
    "--set",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Recorded answers, which the scenario best needs.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of draws and intervals."
)
@as_json
def network(
    nodes: int, asked: int, only: tuple[str, ...], folder: Path | None, seed: int, as_json: bool
) -> None:
    """Nodes as real processes on this machine, in scenarios: what they find, ask, lose and believe.

    Scenarios: mesh (discovery, one hop, fan-out, a deadline, attacks by Zenoh, kills, memory); best (the
    best of seven nodes is killed, each with a model of DIR behind it); sites (the link between two sites is
    cut and healed, in network namespaces); prices (receipts that lie about what is owed); https (attacks on
    what goes by HTTPS).

    Their models cost no time, so what is measured is the network. A node takes some 60 MB and a second of
    one core to start: the mesh of 64 about two minutes.
    """
    from manyminds.evals.network import measure

    with bars() as progress:
        found = measure(nodes, asked, only, folder, seed, progress)
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
