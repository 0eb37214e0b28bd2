"""`manyminds experts remove`: who leaves."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manyminds.cli.newcomers import settle
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.errors import ManymindsError

__all__ = ["remove"]


@click.command()
@click.argument("name")
@as_json
@click.pass_obj
def remove(file: str | None, name: str, as_json: bool) -> None:
    """Remove the expert NAME that `experts add` or `pull --gguf` added; of others, say where they are.

    A node that runs no longer asks it within seconds, and answers whom it is answering. The ledger keeps
    what it recorded.
    """
    from manyminds import catalog
    from manyminds.config import home_of
    from manyminds.config.added import edited

    home = home_of(os.environ)
    with edited(home) as tables:
        mine = [table for table in tables if table["name"] == name]
        for table in mine:
            tables.remove(table)
        if mine:
            _need_unnamed(file, name)
    if not mine:
        config = read(file, {})
        if name not in {own.name for own in catalog.own(home)}:
            raise _elsewhere(name, config)
        _need_unnamed(file, name)
        catalog.record_of(home, name).unlink(missing_ok=True)
    if as_json:
        print_json({"name": name, "removed": True})
    click.echo(
        f"{name} was removed. The ledger keeps its calls and grades: whoever is added under that name again"
        " goes on from there, so give another model another name.",
        err=True,
    )
    _let_go(file, home, name)


def _need_unnamed(file: str | None, name: str) -> None:
    """Raises: ConfigError where an alias stands for it, with which no node would start."""
    from manyminds.errors import ConfigError

    try:
        config = read(file, {})
    except ConfigError:  # which removing it may mend
        return
    for alias, targets in config.aliases.items():
        if name in targets:
            raise ConfigError(f"aliases.{alias} in {config.file} stands for {name}: change that first.")


def _elsewhere(name: str, config: "Config") -> "ManymindsError":
    """Why an expert cannot be removed here, and where it can."""
    from difflib import get_close_matches

    from manyminds import catalog
    from manyminds.errors import ConfigError

    configured = [entry.name for entry in config.experts]
    if name in configured:
        return ConfigError(f"{name} is in {config.file}: delete its [[expert]] there.")
    if name in catalog.load():
        return ConfigError(
            f'{name} is of the catalogue: local.tier, which is "{config.local.tier}", says which of these'
            ' run; with "none", none does. One alone is added by `manyminds experts add FILE.gguf`.'
        )
    near = get_close_matches(name, configured, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}?" if near else "`manyminds experts list` shows all."
    return ConfigError(f"No expert is named {name!r:.80}. {hint}")


def _let_go(file: str | None, home: Path, name: str) -> None:
    """What was learnt no longer has it where it came as a newcomer; where it was there first, says so."""
    from manyminds.artefact import load
    from manyminds.errors import ArtefactError, ManymindsError
    from manyminds.node import base

    try:
        settle(read(file, {}), gone=name)
    except ManymindsError as error:
        click.echo(
            f"It is no longer asked, but what was learnt could not be made anew without it. {error.message}",
            err=True,
        )
    path, own = base(home)
    try:
        names = load(path).experts if own else ()
    except ArtefactError:
        return
    if any(name in (known, known.rpartition(":")[0]) for known in names):
        click.echo(
            f"{path} was learnt with its answers: `manyminds train DIR --exclude {name}` learns without.",
            err=True,
        )
