"""`manyminds experts tree`: who is good at what, as a library would shelve them."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manyminds.cli.evaluate import bars, encoder, open_folder
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.evals.browse import Library
    from manyminds.index import Book, Paragraph

__all__ = ["tree"]

_SHOWN = 3  # experts of a shelf that people see, unless they ask for all


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path())
@click.option(
    "--all",
    "everybody",
    is_flag=True,
    help="Show every expert, not the best three of a shelf, and every region of past questions.",
)
@as_json
@click.pass_obj
def tree(file: str | None, folder: str | None, everybody: bool, as_json: bool) -> None:
    """Show what experts are good at: fields, their topics, and on each topic the experts and their skills.

    DIR is a recorded set: its questions name fields and topics, and its splits calibration and
    validation say where each expert is right more often than the others, and how often. Of more than
    2,000 questions, so many are read. Without DIR it is the set that was learnt from, if it lies in a folder
    of its name here, in benchmarks or in HOME/data; else the experts' own words for their skills.
    """
    settings = read(file, {})
    where = folder or _learnt_from(settings)
    library = _recorded(file, where) if where else _claimed(file, settings)
    if as_json:
        import msgspec

        print_json({"set": where} | msgspec.to_builtins(library))
        return
    what = f"the questions of {where}" if where else "what experts say of themselves"
    click.echo(f"From {library.questions:,} texts: {what}.", err=True)
    _show(library, everybody)
    if library.nowhere:
        click.echo(f"Better than the others nowhere: {', '.join(library.nowhere)}.", err=True)


def _learnt_from(settings: "Config") -> str | None:
    """The folder of the set that the artefact in use names, if it is in one of the usual places."""
    from manyminds.node import learnt

    artefact, _ = learnt(settings.home)
    name = str(artefact.about.get("set", "")) if artefact is not None else ""
    places = [Path(name), Path("benchmarks") / name, settings.home / "data" / name]
    if not name or Path(name).name != name:
        return None
    return next((str(place) for place in places if (place / "questions.parquet").is_file()), None)


def _recorded(file: str | None, folder: str) -> "Library":
    from manyminds.errors import CatalogError
    from manyminds.evals.browse import browse

    recorded, _ = open_folder(folder)
    embed = encoder(file, recorded.questions())
    if embed is None:
        raise CatalogError("Shelves are made of texts: give a set that has them, and pull the encoder.")
    with bars() as progress:
        return browse(recorded, embed, progress)


def _claimed(file: str | None, settings: "Config") -> "Library":
    from manyminds.errors import CatalogError
    from manyminds.evals.browse import claimed
    from manyminds.experts.recorded import Question
    from manyminds.node import Node

    async def skills() -> dict[str, tuple[str, ...]]:
        async with Node(settings, os.environ, learnt=False) as node:
            return {card.name: tuple(card.skills) for card in await node.rated()}

    found = asyncio.run(skills())
    texts = [Question(text, "", text, (), None, "test") for own in found.values() for text in own]
    embed = encoder(file, texts)
    if embed is None:
        raise CatalogError(
            "No expert here says what it is good at: set `skills`, or give the folder of a set."
        )
    return claimed(found, embed)


def _show(library: "Library", everybody: bool) -> None:
    for section in library.sections:
        click.secho(section.label, bold=True)
        for shelf in section.shelves:
            click.echo(f"  {shelf.label}")
            books = sorted(shelf.books, key=lambda book: (-_ahead(book), book.name))
            shown = sorted(books if everybody else books[:_SHOWN], key=lambda book: book.name)
            for book in shown:
                click.echo(f"    {book.name}")
                _show_chapters(book, everybody)
            if len(books) > len(shown):
                click.echo(f"    and {len(books) - len(shown)} more")


def _show_chapters(book: "Book", everything: bool) -> None:
    """Chapters of one name are one line; below them their paragraphs, where everything is wanted."""
    past: dict[str, list[Paragraph]] = {}
    for chapter in book.chapters:
        past.setdefault(chapter.label, []).extend(chapter.paragraphs)
    for label, paragraphs in past.items():
        click.echo(f"      {label}{_told(paragraphs)}")
        if everything and len(paragraphs) > 1:
            for paragraph in paragraphs:
                click.echo(f"        {paragraph.label}{_told([paragraph])}")


def _ahead(book: "Book") -> float:
    """By how many answers it is ahead of its peers here."""
    past = [paragraph for chapter in book.chapters for paragraph in chapter.paragraphs]
    return sum(paragraph.asked * (paragraph.right - paragraph.peers) for paragraph in past)


def _told(past: "Sequence[Paragraph]") -> str:
    """The share right of how many, and that of the others."""
    asked = sum(paragraph.asked for paragraph in past)
    if not asked:
        return ""
    right = sum(paragraph.asked * paragraph.right for paragraph in past) / asked
    peers = sum(paragraph.asked * paragraph.peers for paragraph in past) / asked
    return f": {right:.0%} of {asked} (others {peers:.0%})"
