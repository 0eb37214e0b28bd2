"""`manyminds frontier`: the picture of what `manyminds eval` measured."""

from pathlib import Path

import click

from manyminds.cli.settings import as_json, print_json

__all__ = ["frontier"]


@click.command()
@click.argument("result", metavar="RESULT.json", type=click.Path(dir_okay=False))
@click.option("--out", metavar="NAME", help="Writes NAME.png and NAME.svg; default: RESULT, beside it.")
@as_json
def frontier(result: str, out: str | None, as_json: bool) -> None:
    """Draw accuracy against cost: every model, and the network.

    RESULT.json is what `manyminds eval DIR --json` printed.
    """
    from manyminds.evals import plots

    pictures = plots.draw(plots.read(Path(result)))
    base = Path(out if out is not None else result)
    if base.suffix in {".json", ".png", ".svg"}:  # other dots belong to the name: bfcl_v1.2
        base = base.with_suffix("")
    paths = {}
    for kind, picture in pictures.items():
        path = base.with_name(f"{base.name}.{kind}")
        path.write_bytes(picture)
        paths[kind] = str(path)
    if as_json:
        print_json(paths)
        return
    for written in paths.values():
        click.echo(written)
