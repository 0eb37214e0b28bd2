"""`manyminds experts add --documents` and `index`: who has documents becomes an expert, and stays current."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from manyminds.cli.entries import amend, enter, need_free, shown, told
from manyminds.cli.evaluate import bars
from manyminds.cli.keys import opened
from manyminds.cli.look import plain
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.config import Config, ExpertEntry
    from manyminds.documents import Library, Synced
    from manyminds.documents.syncing import Progress
    from manyminds.types import Embed

__all__ = ["index", "publish", "take_out"]

_SHOWN: Final = 20  # files that are left out


def publish(file: str | None, target: str, said: Mapping[str, Any], *, as_json: bool) -> None:
    """Reads documents and enters an expert that answers from them; one that was so added is read anew.

    Raises: ManymindsError: nothing was entered.
    """
    from manyminds.config import ADDED, check_writers, entries
    from manyminds.errors import ConfigError

    config, path = read(file, {}), Path(target).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"{path} is not there: give the folder that the documents are in, or one file.")
    fields = {"name": said.get("name") or _named(path), "kind": "documents", "path": str(path), **said}
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    place = config.home / ADDED
    [entry] = entries([fields], place, {}).values()
    again = _is_again(entry, config)
    if not again:
        need_free(entry.name, config)
    others = [one for one in config.experts if one.name != entry.name]
    check_writers([*others, entry], _models(config))
    synced = _read_all(config, [entry])[entry.name]
    entry = amend(file, fields) if again else enter(file, fields)
    if not again:
        click.echo(told(entry, config.home), err=True)
    _renew(file, config, [entry])
    how = f"`manyminds experts index {entry.name}` takes over what changes"
    how += ", and so does a node that runs" if entry.watch else ""
    click.echo(f"It is not probed: what it finds in documents speaks for itself. {how}.", err=True)
    if as_json:
        print_json(shown(entry, config) | {"probed": [], "indexed": _as_json(entry.name, synced)})
    else:
        _tell(entry.name, synced)


@click.command("index")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--watch", is_flag=True, help="Go on: take over what changes, until Ctrl-C.")
@as_json
@click.pass_obj
def index(file: str | None, names: tuple[str, ...], watch: bool, as_json: bool) -> None:
    """Read again the documents of experts that answer from them: of all, or of those named.

    Only files that were added or have changed are read; what is gone is forgotten, with all that was learnt,
    kept or graded while it was there. A node that runs takes it over within seconds. Ctrl-C keeps what was
    read: the same command goes on.
    """
    config = read(file, {})
    those = _of_documents(config, names)
    found = _read_all(config, those)
    _renew(file, config, those)
    for name, synced in found.items():
        if not as_json:
            _tell(name, synced)
    if as_json:
        print_json([_as_json(name, synced) for name, synced in found.items()])
    if watch:
        _follow(file, config, those, as_json=as_json)


def take_out(
    file: str | None, names: Sequence[str], documents: Sequence[str], *, undo: bool, as_json: bool
) -> None:
    """Withdraws single documents of an expert, or with `undo` takes them back in. Raises: ManymindsError."""
    from manyminds.documents import counted

    config = read(file, {})
    if len(names) != 1:
        raise click.UsageError("With --document, give the NAME of one expert.")
    [entry] = _of_documents(config, names)
    listed, count = plain(", ".join(documents)), 0
    with _library(config, entry, _encoder(config) if undo else None) as library:
        if undo:
            _need_there(entry)
            for document in sorted(documents, key=library.withdrawn.__contains__):  # the wrong ones first
                _restore(library, entry.name, document)
            before = library.paragraphs
            library.sync(Path(entry.path))
            count = library.paragraphs - before
        else:
            known = {*library.withdrawn, *(document.path for document in library.documents())}
            every = sorted(documents, key=known.__contains__)  # those that there are not first: they refuse
            count = sum(library.withdraw(document) for document in every)
    _renew(file, config, [entry], tells=False)
    if undo:
        click.echo(f"{listed}: {entry.name} answers from it again, {counted(count, 'paragraph')}.", err=True)
    else:
        click.echo(
            f"{listed}: withdrawn from {entry.name}, {counted(count, 'paragraph')}. Nobody is answered from "
            "it within seconds, and what was learnt, kept or graded of the expert while it had it counts for "
            "nothing, here and in nodes that hear it. The file itself stays as it is.",
            err=True,
        )
    if as_json:
        event = "returned" if undo else "withdrawn"
        print_json({"name": entry.name, event: list(documents), "paragraphs": count})


def _restore(library: "Library", name: str, document: str) -> None:
    from manyminds.errors import ConfigError

    if document not in library.withdrawn:
        raise ConfigError(f"{document!r:.200} was not withdrawn from {name}.")
    library.restore(document)


# --- reading ---------------------------------------------------------------------------------------


def _read_all(config: "Config", those: "Sequence[ExpertEntry]") -> "dict[str, Synced]":
    """Reads what has changed in their documents. Raises: ManymindsError; KeyboardInterrupt, with a word."""
    for entry in those:
        _need_there(entry)
    embed, found = _encoder(config), {}
    try:
        for entry in those:
            with _library(config, entry, embed) as library, _bar(entry.name) as progress:
                found[entry.name] = library.sync(Path(entry.path), progress)
    except KeyboardInterrupt:
        click.echo("Stopped. What was read is kept: the same command goes on.", err=True)
        raise
    return found


@contextmanager
def _bar(name: str) -> "Iterator[Progress]":
    """How many files are read, on a terminal."""
    from manyminds.documents import counted

    with bars() as told:
        yield lambda done, total, document: told(
            f"{name}: {counted(total, 'file')}", done / total if total else 1.0
        )


@contextmanager
def _library(config: "Config", entry: "ExpertEntry", embed: "Embed | None" = None) -> "Iterator[Library]":
    """Without `embed`, nothing is read into it. Raises: ManymindsError."""
    from manyminds.documents import Library
    from manyminds.node.following import folder_of

    with closing(Library(folder_of(config.home, entry.name), embed, config.own)) as library:
        yield library


def _encoder(config: "Config") -> "Embed":
    """The encoder, which is pulled where it is not here. Raises: CatalogError."""
    from manyminds import catalog
    from manyminds.cli.pull import bring
    from manyminds.node import ENCODER
    from manyminds.node.wiring import encoder_of

    if catalog.missing(config.home, model := catalog.find(ENCODER)):
        click.echo(f"First use: pulling the encoder into {config.home}.", err=True)
        bring([model], config.home)
    encoder = encoder_of(config.home, cached=False)
    assert encoder is not None
    return encoder.encode


def _follow(file: str | None, config: "Config", those: "Sequence[ExpertEntry]", *, as_json: bool) -> None:
    """Until Ctrl-C: a line, or a JSON document, for each time that something has changed."""
    from queue import SimpleQueue

    from manyminds.node.following import Following

    heard: SimpleQueue[tuple[str, Synced]] = SimpleQueue()
    following = Following(config.home, config.own, lambda name, told: heard.put((name, told)))
    click.echo(f"Following {', '.join(entry.path for entry in those)}. Ctrl-C ends it.", err=True)
    try:
        following.follow(those)
        while True:
            name, synced = heard.get()
            _renew(file, config, [entry for entry in those if entry.name == name])
            if as_json:
                print_json([_as_json(name, synced)])
            else:
                _tell(name, synced)
    finally:
        following.close()


def _renew(file: str | None, config: "Config", those: "Sequence[ExpertEntry]", *, tells: bool = True) -> None:
    """What somebody was asked while she had what is gone now counts for nothing. Raises: ManymindsError."""
    from manyminds.node.libraries import renew

    with opened(file) as ledger:
        for entry in those:
            with _library(config, entry) as library:
                if renew(config.home, ledger, entry, library) and tells:
                    click.echo(
                        f"{entry.name} begins as new: some of what it knew is gone. See `manyminds ledger "
                        "withdrawals`.",
                        err=True,
                    )


# --- whose -----------------------------------------------------------------------------------------


def _of_documents(config: "Config", names: Collection[str]) -> "list[ExpertEntry]":
    """Raises: ConfigError where one that is named has no documents, or nobody has."""
    from manyminds.errors import ConfigError

    those = [entry for entry in config.experts if entry.kind == "documents"]
    for name in names:
        if name not in {entry.name for entry in those}:
            known = ", ".join(entry.name for entry in those) or "none"
            raise ConfigError(f"No expert of documents is named {name!r:.80}. There are: {known}.")
    if not those:
        raise ConfigError("No expert has documents: `manyminds experts add --documents DIR` adds one.")
    return [entry for entry in those if not names or entry.name in names]


def _need_there(entry: "ExpertEntry") -> None:
    """Raises: ConfigError: what is away is not gone, so nothing is forgotten."""
    from manyminds.errors import ConfigError

    if not Path(entry.path).exists():
        raise ConfigError(
            f"{entry.path} is not there, where the documents of {entry.name} are: what was read of them "
            f"stays. Put it back, or `manyminds experts remove {entry.name}`."
        )


def _named(path: Path) -> str:
    """What callers call it, unless that is said."""
    from manyminds.config import convert
    from manyminds.errors import ConfigError

    try:
        return str(convert("expert.name", (path.stem if path.is_file() else path.name).lower(), "path"))
    except ConfigError:
        raise ConfigError(
            f"Callers cannot call it {path.name!r:.80}: give a name, with --name NAME."
        ) from None


def _is_again(entry: "ExpertEntry", config: "Config") -> bool:
    """Whether the same documents were added under that name before."""
    from manyminds.config import ADDED

    known = next((one for one in config.experts if one.name == entry.name), None)
    return (
        known is not None
        and (known.kind, known.path) == ("documents", entry.path)
        and config.origins[f"expert.{known.name}.name"] == f"file {config.home / ADDED}"
    )


def _models(config: "Config") -> set[str]:
    """Who may write, besides what the configuration names."""
    from manyminds import catalog

    writers = {model.name for model in catalog.load().values() if model.kind == "gguf"}
    return {*writers, *(own.name for own in catalog.own(config.home))}


# --- what is said ----------------------------------------------------------------------------------


def _as_json(name: str, synced: "Synced") -> dict[str, Any]:
    from dataclasses import asdict

    return {"name": name, **asdict(synced)}


def _tell(name: str, synced: "Synced") -> None:
    """What became of the files; why some are left out is talk."""
    from manyminds.documents import counted

    counts = {
        "added": synced.added,
        "changed": synced.changed,
        "removed": synced.removed,
        "as before": synced.kept,
    }
    files = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "none"
    click.echo(f"{name}: {counted(synced.paragraphs, 'paragraph')}; files: {files}.")
    for path, why in sorted(synced.skipped.items())[:_SHOWN]:
        click.echo(f"left out: {plain(path)}: {plain(why)}", err=True)
    if (more := len(synced.skipped) - _SHOWN) > 0:
        click.echo(f"left out: {more:,} more, which --json lists.", err=True)
    if not synced.paragraphs:
        click.echo(f"{name} has nothing to answer from.", err=True)
