"""`manyminds bench trust`: what liars, swarms and sleepers come to in a network of recorded models."""

from collections.abc import Mapping
from typing import Any

import click

from manyminds.cli.evaluate import bars, open_folder
from manyminds.cli.settings import as_json, print_json

__all__ = ["trust"]

_VIEWS = {"claims": "cards and grades alone", "formula": "BaconRank", "lent": "capped by friend"}


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--questions",
    default=800,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Of split test at most, drawn.",
)
@click.option(
    "--runs", default=3, show_default=True, type=click.IntRange(1, 1000), help="Other friends, another order."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of all that is drawn."
)
@as_json
def trust(folders: tuple[str, ...], questions: int, runs: int, seed: int, as_json: bool) -> None:
    """Let liars join a network in which each model of DIR is an honest node, and see who is heard.

    Nobody is asked: a model answers what it answered when DIR was recorded. Each case is played by cards and
    grades alone, with trust by the formula of BaconRank, and with trust that is capped by the friend who
    lends it. Shares are of all questions, and in each quarter of the time; intervals are in the JSON.
    """
    from manyminds.evals.report import narrow
    from manyminds.evals.trust import measure

    found = {}
    for folder in folders:
        recorded, name = open_folder(folder)
        with bars() as progress:
            chosen = narrow(recorded, name, None, ())
            found[name] = measure(chosen, questions=questions, runs=runs, seed=seed, progress=progress)
    if as_json:
        print_json(found)
        return
    for name, result in found.items():
        _show(name, result)


def _show(name: str, result: Mapping[str, Any]) -> None:
    click.echo(
        f"{name}: {result['honest']} honest nodes, {result['questions']:,} questions,"
        f" {result['runs']} runs, seed {result['seed']}; right / lies released, lies by quarter"
    )
    for kind, rows in result["attacks"].items():
        for row in rows:
            click.echo(f"  {row['attackers']} {kind}" if row["attackers"] else "  no attackers")
            for view, title in _VIEWS.items():
                own = row[view]
                quarters = ", ".join(f"{100 * share:.0f}%" for share in own["lies_over_time"])
                right, lies = own["accuracy"][0], own["lies"][0]
                click.echo(f"    {title:24}{100 * right:5.1f}% / {100 * lies:4.1f}%; {quarters}")
