"""`manyminds bench poison`: how many liars it takes to change what a network releases."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from manyminds.cli.evaluate import bars, open_folder
from manyminds.cli.settings import as_json, print_json

__all__ = ["poison"]

_ORDERS = {"at_random": "at random", "most_trusted": "most trusted first"}


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out models, such as 'gpt-4*'.")
@click.option(
    "--panels", default=20, show_default=True, type=click.IntRange(1, 1000), help="Panels drawn at random."
)
@click.option(
    "--questions",
    default=1000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Of split test at most, drawn.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of all that is drawn."
)
@as_json
def poison(
    folders: tuple[str, ...],
    exclude: tuple[str, ...],
    panels: int,
    questions: int,
    seed: int,
    as_json: bool,
) -> None:
    """Turn models of DIR into liars, one after another, and see what panels of five release.

    Nobody is asked: a model answers what it answered when DIR was recorded, or lies. What votes weigh comes
    from the splits calibration and validation, before anybody lies, and figures from test, with 95%
    intervals. Liars agree on the wrong answer that hurts most, and are certain of it. Then the same with all
    of DIR, asked by its learnt plans.
    """
    from manyminds.evals.poison import measure
    from manyminds.evals.report import narrow

    found = {}
    for folder in folders:
        recorded, name = open_folder(folder)
        with bars() as progress:
            chosen = narrow(recorded, name, None, exclude)
            found[name] = measure(chosen, panels=panels, questions=questions, seed=seed, progress=progress)
    if as_json:
        print_json(found)
        return
    for name, result in found.items():
        _show(name, result)


def _show(name: str, result: Mapping[str, Any]) -> None:
    click.echo(
        f"{name}: {result['models']} models, {result['n_test']:,} test questions, seed {result['seed']}"
    )
    for own in result["panels"].values():
        drawn = f"{own['drawn']} panels drawn" if "drawn" in own else "the five most trusted"
        for order, title in _ORDERS.items():
            _show_panels(f"{drawn}, liars {title}", own[order])
    for policy in ("max", "auto", "cheap"):
        figures = [row[policy] for row in result["network"]]
        click.echo(f"  all models, {policy}, none to five of the most trusted lie: {_shares(figures)}")


def _show_panels(title: str, own: Mapping[str, Any]) -> None:
    rows, lone = own["by_liars"], own["lone_liar"]
    click.echo(f"  {title}")
    click.echo(f"    right, by number of liars: {_shares([row['accuracy'] for row in rows])}")
    click.echo(f"    best honest member alone:  {_shares([row['best_honest'] for row in rows])}")
    click.echo(f"    the lie is released:       {_shares([row['lies_released'] for row in rows])}")
    click.echo(
        f"    a lone liar changed {lone['moved']:,} of {lone['others_agreed']:,} releases on which the other"
        f" four agree; worse than the best honest member from"
        f" {_liars(own['worse_than_best_honest_from'])}, lies win most from {_liars(own['lies_win_from'])}"
    )


def _liars(count: int | None) -> str:
    return "no number of liars" if count is None else f"{count} of 5 liars"


def _shares(figures: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{100 * mean:.1f}%" for mean, *_ in figures)
