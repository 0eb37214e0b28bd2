"""`manyminds experts probe`: what an expert adds to the network, found by asking it."""

import click

from manyminds.cli.newcomers import Asking, asking, identities, probe_all, show, telling, why_not
from manyminds.cli.settings import as_json, print_json, read

__all__ = ["probe"]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@asking
@click.option("--anew", is_flag=True, help="Also ask what it has answered before: it may have changed.")
@as_json
@click.pass_obj
def probe(
    file: str | None,
    /,
    names: tuple[str, ...],
    probes: int,
    thorough: bool,
    budget_usd: float,
    minutes: float,
    anew: bool,
    as_json: bool,
) -> None:
    """Ask experts questions with known answers, and take into the network those that make it better.

    The questions are those that the network was learnt from, chosen one by one: where it is least certain
    whether the newcomer beats it. Nothing else is learnt anew. One that was learnt from itself is asked
    whether it has changed; if so, it counts as a newcomer from then on.

    Ctrl-C keeps what was answered: the same command goes on. A node that runs takes over what came of it
    within seconds.
    """
    from manyminds.errors import ConfigError

    config = read(file, {})
    known = identities(config)
    reading = {entry.name for entry in config.experts if entry.kind == "documents"}
    for name in names:
        if name in reading:
            raise ConfigError(f"{name} answers from documents: what it finds says how right it is. No probe.")
        if name not in known:
            raise ConfigError(f"No expert is named {name!r:.80}: `manyminds experts list` shows all.")
    if why := why_not(config):
        raise ConfigError(why)
    try:
        with telling() as tell:
            results = probe_all(config, names, Asking(probes, thorough, budget_usd, minutes), tell, anew=anew)
    except KeyboardInterrupt:
        click.echo("Stopped. What was answered is kept: the same command goes on.", err=True)
        raise
    if as_json:
        print_json(results)
        return
    show(results)
