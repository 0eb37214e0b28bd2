"""`manyminds bench`: what is claimed of speed and size, measured here and now."""

import click

from manyminds.cli.settings import as_json, print_json

__all__ = ["bench"]


@click.group()
def bench() -> None:
    """Measure this installation on this machine."""


@bench.command()
@click.option(
    "--runs", default=5, show_default=True, type=click.IntRange(1, 100), help="Starts of each kind."
)
@as_json
def footprint(runs: int, as_json: bool) -> None:
    """Packages and megabytes installed, seconds from start to ready, resident memory."""
    from manyminds.evals.footprint import measure

    found = measure(runs)
    if as_json:
        print_json(found)
        return
    install = found["install"]
    click.echo(f"install: {install['packages']} packages, {install['mb']} MB")
    for key, name in (
        ("start_without_models", "no local models"),
        ("start_with_starter_tier", "starter tier"),
    ):
        ready, node, models = (found[key][part] for part in ("ready_s", "node_mb", "models_mb"))
        click.echo(
            f"{name}: ready in {ready['median']:.2f} s ({ready['min']:.2f} to {ready['max']:.2f}),"
            f" node {node['median']:.0f} MB, models {models['median']:.0f} MB"
        )
