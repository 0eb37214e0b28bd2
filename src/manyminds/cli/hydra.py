"""`manyminds bench hydra`: what a network gains by every model that comes, and how little it asks of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.evaluate import bars, encoder, open_folder
from manyminds.cli.settings import as_json, print_json

if TYPE_CHECKING:
    from manyminds.evals.hydra import World
    from manyminds.evals.report import Progress

__all__ = ["hydra"]

_FEWEST = 4  # models: two to begin with, two to come


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option("--category", metavar="NAME", help="Only questions of this category.")
@click.option(
    "--orders", default=10, show_default=True, type=click.IntRange(1, 1000), help="Random orders of coming."
)
@click.option(
    "--live",
    default=64,
    show_default=True,
    type=click.IntRange(0, 10_000),
    help="Graded questions between two newcomers, which all that have come are asked.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of all that is drawn."
)
@click.option("--plot", metavar="FOLDER", type=click.Path(), help="Draw each set there, as svg and png.")
@as_json
@click.pass_obj
def hydra(
    file: str | None,
    /,
    folders: tuple[str, ...],
    category: str | None,
    orders: int,
    live: int,
    seed: int,
    plot: str | None,
    as_json: bool,
) -> None:
    """Start with the weakest third of DIR's models, let the others come one by one, see what it gains.

    Nobody is asked: a model answers what it answered when DIR was recorded. Each newcomer is asked 64 probes
    at most, and nothing that was learnt of others is learnt anew. Regret is accuracy that is lost against
    knowing a newcomer well. Whoever is to be taken in is judged again by 128 questions.
    """
    from manyminds.evals import growth
    from manyminds.evals.hydra import measure

    found = {}
    for folder in folders:
        with bars() as progress:
            name, world = _world(file, folder, category, progress)
            found[name] = measure(world, orders=orders, live=live, seed=seed, progress=progress)
    for name, result in found.items() if plot else ():
        for form in ("svg", "png"):
            path = Path(str(plot)) / f"{name}.{form}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(growth.draw(result, name, form))
    if as_json:
        print_json(found)
        return
    for name, result in found.items():
        _show(name, result)


def _world(file: str | None, folder: str, category: str | None, progress: "Progress") -> "tuple[str, World]":
    """Raises: DataError."""
    from manyminds.errors import DataError
    from manyminds.evals.hydra import World
    from manyminds.evals.report import narrow, outcomes

    recorded, name = open_folder(folder)
    chosen = narrow(recorded, name, category, ())
    if len(chosen.experts) < _FEWEST or not chosen.of("test"):
        raise DataError(
            f"{name}: it takes {_FEWEST} models and questions of split test to see a network grow."
        )
    embed = encoder(file, chosen.questions)
    known = outcomes(chosen, ("calibration", "validation"), embed, "embed what is learnt from", progress)
    if len(known.parts()) > 1:
        raise DataError(f"{name} mixes sorts of questions, which are learnt apart: choose one --category.")
    return name, World(known, outcomes(chosen, ("test",), embed, "embed test", progress))


def _show(name: str, result: Mapping[str, Any]) -> None:
    last, probing = result["final"], result["probing"]
    click.echo(
        f"{name}: {result['first']} of {result['models']} models first, at {result['first_accuracy']:.3f};"
        f" {result['orders']} orders, {result['steps']} newcomers, {result['mean_probes']:.1f} probes each,"
        f" {result['mean_more']:.1f} more"
    )
    least = result["all_at_once"] - last["most_behind"]
    click.echo(
        f"  at the end {last['mean']:.3f}, at least {least:.3f};"
        f" learnt from all at once {result['all_at_once']:.3f}"
    )
    click.echo(
        f"  significantly worse after {result['significant_losses']} newcomers, by {result['worst_loss']:.3f}"
        f" at most; passed {result['passed']} of {result['much_better']} that were better by 10 points"
    )
    for way, figures in probing.items():
        if isinstance(figures, dict):
            lost = f"{figures['regret']:.4f} ± {figures['error']:.4f}"
            click.echo(f"  {way}: {figures['probes']:.1f} probes, regret {lost}")
    if probing and probing["share_of_random"] is not None:
        click.echo(f"  adaptive probes come to {probing['share_of_random']:.2f} of random ones")
