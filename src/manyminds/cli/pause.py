"""`manyminds experts pause` and `resume`: who is kept, and asked by nobody for a while."""

import click

from manyminds.cli.keys import opened
from manyminds.cli.remove import peers
from manyminds.cli.settings import as_json, print_json, read

__all__ = ["pause", "resume"]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@as_json
@click.pass_obj
def pause(file: str | None, names: tuple[str, ...], as_json: bool) -> None:
    """Have nobody ask experts until they are resumed; all that is known of them stays.

    No policy asks them, no other node does, and they are not on this node's card; whoever names one is told
    that it is paused. Nodes that run heed it within seconds, all gateways of one ledger; what is being
    answered ends as it began. NAME may be a peer.
    """
    _turn(file, names, pause=True, as_json=as_json)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@as_json
@click.pass_obj
def resume(file: str | None, names: tuple[str, ...], as_json: bool) -> None:
    """Have experts that were paused asked again: the network is as it was, and answers as it did."""
    _turn(file, names, pause=False, as_json=as_json)


def _turn(file: str | None, names: tuple[str, ...], *, pause: bool, as_json: bool) -> None:
    """Raises: ModelNotFoundError for a name that nobody has: nothing has changed; LedgerError."""
    from manyminds.node import local_models
    from manyminds.pauses import need_known

    config = read(file, {})
    sources = {entry.name: entry.source or entry.name for entry in config.experts}
    here = {*sources, *peers(config), *(model.card.name for model in local_models(config))}
    with opened(file) as ledger:
        paused = ledger.paused()
        for name in names:
            need_known(name, here | paused)
        changed = [
            name for name in dict.fromkeys(names) if ledger.pause(name, sources.get(name, name), pause=pause)
        ]
        paused = ledger.paused()
    word = "paused: nobody asks it" if pause else "asked again"
    for name in dict.fromkeys(names):
        was = "" if name in changed else ", as it was"
        click.echo(f"{name} is {word}{was}.", err=True)
    if pause and here <= paused:
        click.echo("All experts are paused now: nobody is answered.", err=True)
    if as_json:
        print_json([{"name": name, "paused": name in paused} for name in dict.fromkeys(names)])
