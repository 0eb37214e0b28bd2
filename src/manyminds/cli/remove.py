"""`manyminds experts remove`: who leaves, and what is left of it: nothing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click
from msgspec import Struct

from manyminds.cli.documents import take_out
from manyminds.cli.keys import opened
from manyminds.cli.relearn import made_anew
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.errors import ManymindsError
    from manyminds.ledger import Ledger

__all__ = ["peers", "remove", "removed"]

_Where: TypeAlias = Literal["added", "own", "file", "catalogue", "peer", "past"]


class _Leaving(Struct, frozen=True):
    """Who leaves, whose it is, and where it is known from: `past` is what was learnt, or the ledger."""

    name: str
    source: str
    where: _Where


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--source", metavar="SOURCE", help="All experts of this source, also those of other gateways.")
@click.option(
    "--document",
    "documents",
    multiple=True,
    metavar="FILE",
    help="Of NAME only this document, by its path in the folder; may be repeated.",
)
@click.option("--undo", is_flag=True, help="They may be asked again, as experts of whom nothing is known.")
@as_json
@click.pass_obj
def remove(
    file: str | None,
    names: tuple[str, ...],
    source: str | None,
    documents: tuple[str, ...],
    undo: bool,
    as_json: bool,
) -> None:
    """Withdraw experts: from now on the network is what it would be had they never been in it.

    Nobody asks them within seconds, answers that they had a part in are dropped, what was recorded of them
    teaches nobody, and what was learnt with them is learnt anew without. All gateways of one ledger heed it,
    and it keeps the proof: see `manyminds ledger withdrawals`. Records of past requests stay as they are.
    What was read of their documents is deleted, the documents are not. With --document, NAME answers on, as
    one that never had it.
    """
    if documents:
        if source is not None:
            raise click.UsageError("With --document, give the NAME of one expert instead of --source.")
        take_out(file, names, documents, undo=undo, as_json=as_json)
        return
    if bool(names) == bool(source):
        raise click.UsageError("Say who: NAME or several, or --source SOURCE.")
    if undo:
        _undo(file, names, source, as_json=as_json)
        return
    leaving, rows, read_of = removed(file, names, source)
    config = read(file, {})
    with opened(file) as ledger:
        found = _learnt_anew(config, ledger, leaving, source)
    for one in leaving:
        click.echo(_said(one, config), err=True)
    if read_of:
        click.echo(f"What was read of documents is deleted: {', '.join(read_of)}. They stay.", err=True)
    if as_json:
        print_json({"removed": rows, **found})


def removed(
    file: str | None, names: Sequence[str], source: str | None
) -> tuple[list[_Leaving], list[dict[str, Any]], list[str]]:
    """Withdraws these, or all of a source. What was learnt with them is void, and not made anew yet.

    Returns: who left; each as JSON; and of whom what was read of documents was deleted.

    Raises: ModelNotFoundError where one that is named is nobody; ConfigError, LedgerError. Nothing has
        changed then, or less than all: the same call goes on.
    """
    from manyminds.config import home_of
    from manyminds.node.libraries import delete, renounce

    home = home_of(os.environ)
    leaving = _struck(file, home, names, source)  # also where the file is wrong, which this may mend
    config = read(file, {})
    with opened(file) as ledger:
        known = {one.name for one in leaving}
        leaving += [one for one in _others(config, ledger, names, source) if one.name not in known]
        _need_all(names, source, leaving, config)
        rows = _written(ledger, config, leaving, source, "withdrawn")
    if read_of := [one.name for one in leaving if delete(home, one.name)]:
        renounce(home)
    return leaving, rows, read_of


def _struck(file: str | None, home: Path, names: Sequence[str], source: str | None) -> list[_Leaving]:
    """Those that a command added: out of what the program keeps. Raises: ConfigError; nothing has changed."""
    from manyminds import catalog
    from manyminds.config.added import edited

    found = []
    with edited(home) as tables:
        for table in list(tables):
            of = table.get("source") or table["name"]
            if table["name"] in names or of == source:
                tables.remove(table)
                found.append(_Leaving(table["name"], of, "added"))
        own = [one for one in catalog.own(home) if one.name in (*names, source)]
        found += [_Leaving(one.name, one.name, "own") for one in own]
        _need_unnamed(file, [one.name for one in found])
    for one in own:
        catalog.record_of(home, one.name).unlink(missing_ok=True)
    return found


def _need_unnamed(file: str | None, names: Sequence[str]) -> None:
    """Raises: ConfigError where an alias stands for one of them, with which no node would start."""
    from manyminds.errors import ConfigError

    try:
        config = read(file, {})
    except ConfigError:  # which removing it may mend
        return
    for alias, targets in config.aliases.items():
        for name in names:
            if name in targets:
                raise ConfigError(f"aliases.{alias} in {config.file} stands for {name}: change that first.")


def _others(config: "Config", ledger: "Ledger", names: Sequence[str], source: str | None) -> list[_Leaving]:
    """Those that no command can strike out: they are withdrawn all the same."""
    from manyminds import catalog
    from manyminds.artefact import load
    from manyminds.errors import ArtefactError
    from manyminds.node import base
    from manyminds.node.following import folder_of

    every = [_Leaving(entry.name, entry.source or entry.name, "file") for entry in config.experts]
    every += [_Leaving(name, name, "catalogue") for name in catalog.load()]
    every += [_Leaving(name, name, "peer") for name in peers(config)]
    try:
        learnt = {name.rpartition(":")[0] or name for name in load(base(config.home)[0]).experts}
    except ArtefactError:
        learnt = set()
    every += [_Leaving(name, name, "past") for name in names if folder_of(config.home, name).exists()]
    asked = ledger.asked()
    every += [_Leaving(name, of, "past") for name, of in sorted({*asked, *((one, one) for one in learnt)})]
    found: dict[str, _Leaving] = {}
    for one in every:
        if one.name in names or one.source == source:
            found.setdefault(one.name, one)
    return list(found.values())


def peers(config: "Config") -> list[str]:
    """Other nodes, by what they are called here."""
    from manyminds.node.names import NAMES, Names

    return [*(entry.name for entry in config.peers), *Names(config.home / NAMES).nodes]


def _need_all(names: Sequence[str], source: str | None, found: Sequence[_Leaving], config: "Config") -> None:
    """Raises: ModelNotFoundError where one that is named is nobody; ConfigError for a source."""
    from manyminds.errors import ConfigError

    if source is not None and not found:
        raise ConfigError(f"No expert is of the source {source!r:.80}. `manyminds experts list` shows all.")
    for name in names:
        if name not in {one.name for one in found}:
            raise _unknown(name, config)


def _unknown(name: str, config: "Config") -> "ManymindsError":
    from difflib import get_close_matches

    from manyminds.errors import ModelNotFoundError

    near = get_close_matches(name, [entry.name for entry in config.experts], n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}?" if near else "`manyminds experts list` shows all."
    return ModelNotFoundError(f"No expert is named {name!r:.80}. {hint}", param="name")


def _written(
    ledger: "Ledger",
    config: "Config",
    those: Sequence[_Leaving],
    source: str | None,
    event: Literal["withdrawn", "returned"],
) -> list[dict[str, Any]]:
    """Puts it down in the ledger: with that it counts. Each as JSON."""
    from manyminds.errors import ArtefactError
    from manyminds.evals.forgetting import names_of
    from manyminds.ledger import Withdrawal
    from manyminds.node.learnt import digest_of

    try:
        before = digest_of(config.home, ledger.gone())
    except ArtefactError:
        before = ""
    places = {
        ledger.withdraw(
            Withdrawal(event, one.name, one.source, names_of(one.name), artefact_before=before)
        ): one
        for one in those
    }
    if source is not None:
        ledger.withdraw(Withdrawal(event, "", source, artefact_before=before))
    rows = {row["id"]: row for row in ledger.withdrawals()}
    return [
        {
            "name": one.name,
            "source": one.source,
            "where": one.where,
            "at_utc": rows[place]["at_utc"],
            "requests": rows[place]["requests"],
            "outcomes": rows[place]["outcomes"],
        }
        for place, one in places.items()
    ]


def _learnt_anew(
    config: "Config", ledger: "Ledger", leaving: Sequence[_Leaving], source: str | None
) -> dict[str, Any]:
    """What was learnt, without them; where that cannot be, they are out all the same."""
    from manyminds.errors import ManymindsError
    from manyminds.evals.forgetting import names_of

    one = leaving[0].name if len(leaving) == 1 else ""
    names = tuple(name for each in leaving for name in names_of(each.name))
    later = "`manyminds experts relearn` does that; until then no node goes by it"
    try:
        return made_anew(config, ledger, one, source or leaving[0].source, names)
    except (ManymindsError, OSError) as error:
        said = error.message if isinstance(error, ManymindsError) else str(error)
        click.echo(
            f"They are out, yet what was learnt with them was not made anew: {said} {later}.", err=True
        )
    except KeyboardInterrupt:
        click.echo(f"Stopped. They are out, yet what was learnt was not made anew: {later}.", err=True)
        raise
    return {"relearnt": False, "artefact_before": None, "artefact_after": None, "state": None}


def _said(one: _Leaving, config: "Config") -> str:
    """What became of it, and what is left to do."""
    text = f"{one.name} was withdrawn."
    back = f"`manyminds experts remove --undo {one.name}`"
    if one.where == "file":
        text += (
            f" Its [[expert]] in {config.file} may be deleted; while it is there, {back} has it asked again."
        )
    elif one.where == "catalogue":
        text += f" It is of the catalogue, and its files stay; {back} has it asked again."
    elif one.where == "peer":
        text += f" It is another node, which is not asked any more; {back} has it asked again."
    else:
        text += " Whoever is added under that name again begins as new."
    return text


def _undo(file: str | None, names: Sequence[str], source: str | None, *, as_json: bool) -> None:
    """Raises: ConfigError where one was not withdrawn."""
    from manyminds.errors import ConfigError

    config = read(file, {})
    with opened(file) as ledger:
        gone = ledger.gone()
        if source is not None and source not in gone.sources:
            raise ConfigError(f"No source {source!r:.80} was withdrawn: see `manyminds ledger withdrawals`.")
        rows = [row for row in ledger.withdrawals() if row["event"] == "withdrawn" and row["expert"]]
        those = {
            row["expert"]: _Leaving(row["expert"], row["source"], "past")
            for row in rows
            if row["expert"] in gone.experts and (row["expert"] in names or row["source"] == source)
        }
        for name in names:
            if name not in those:
                raise ConfigError(f"{name!r:.80} was not withdrawn: see `manyminds ledger withdrawals`.")
        returned = _written(ledger, config, list(those.values()), source, "returned")
    click.echo(f"{', '.join(those)}: may be asked again, as new.", err=True)
    if as_json:
        print_json({"returned": returned})
