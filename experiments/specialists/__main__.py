"""`python -m experiments.specialists`: small specialists against one monolith, from texts to results."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from experiments.specialists.pool import Tell

__all__ = ["main"]

_EVERY_S = 20.0  # a line of progress where there is no terminal


@click.command()
@click.option("--quick", is_flag=True, help="Small models, one seed: five minutes, and no figure to quote.")
@click.option("--tune", is_flag=True, help="Only print what half and twice each learning rate come to.")
@click.option(
    "--folder",
    default=Path("build/specialists"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Packages, models and results; a run that was ended goes on from there.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the results there, too.")
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    help="Draw the pictures into this folder, too.",
)
def main(quick: bool, tune: bool, folder: Path, out: Path | None, plots: Path | None) -> None:
    """Train specialists and dense models on the same texts for the same work, and compare them.

    About an hour on two cores. Needs PyTorch, which `pip install '.[specialists]'` brings.
    """
    try:
        import torch
    except ImportError as error:
        raise click.ClickException("PyTorch is not installed: pip install '.[specialists]'") from error
    from experiments.specialists import run
    from experiments.specialists.plan import FULL, QUICK
    from experiments.specialists.plots import draw
    from experiments.specialists.report import show
    from manyminds import catalog
    from manyminds.cli.settings import read
    from manyminds.encoder import Encoder
    from manyminds.errors import ManymindsError
    from manyminds.node import ENCODER

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    home, model = read(None, {}).home, catalog.find(ENCODER)
    if catalog.missing(home, model):
        raise click.ClickException(f"The sentence encoder is not here: run `manyminds pull {ENCODER}` first.")
    place, scale = catalog.path_of(home, model.files[0]).parent, QUICK if quick else FULL
    try:
        with _told() as tell:
            if tune:
                click.echo(json.dumps(run.tune(scale, folder, tell), indent=1))
                return
            found = run.experiment(scale, folder, Encoder(place, cache_size=0), place, tell)
    except (ManymindsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for path in (folder / f"{scale.name}.json", out):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for pictures in (folder / scale.name, plots):
        if pictures is not None:
            draw(found, pictures)
    show(found)
    click.echo(f"Results: {folder / scale.name}.json, pictures: {folder / scale.name}", err=True)


@contextmanager
def _told() -> Iterator["Tell"]:
    """A bar for each thing that is done; lines where standard error is no terminal."""
    from manyminds.cli.evaluate import bars

    if sys.stderr.isatty():
        with bars() as progress:
            yield progress
        return
    last, done = {"": 0.0}, ""

    def tell(what: str, share: float) -> None:
        nonlocal done
        now = time.monotonic()
        if what != done or now - last[""] > _EVERY_S:
            click.echo(f"{what}: {share:.0%}", err=True)
            last[""], done = now, what

    yield tell


if __name__ == "__main__":
    main(prog_name="python -m experiments.specialists")
