"""`manyminds data`: public recorded sets, listed and built from their repositories."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.evals.datasets import Dataset

__all__ = ["build", "data"]


@click.group()
def data() -> None:
    """Public recorded sets, to rerun what we claim."""


@data.command("list")
@as_json
@click.pass_obj
def list_(file: str | None, as_json: bool) -> None:
    """The sets that can be fetched, and which are here."""
    from manyminds.evals.datasets import is_here, load

    parent = _parent(file, None)
    rows = [_row(dataset, parent, here=is_here(dataset, parent / dataset.name)) for dataset in load()]
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    columns = ("name", "about", "questions", "models", "MB", "licence", "here")
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        numbers = (f"{row['questions']:,}", str(row["models"]), f"{row['bytes'] / 1e6:.0f}")
        table.add_row(row["name"], row["about"], *numbers, row["licence"], "yes" if row["here"] else "no")
    Console(markup=False, highlight=False).print(table)


@data.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--into", type=click.Path(file_okay=False), help="Folder for the sets; default: HOME/data.")
@click.option("--yes", is_flag=True, help="Download without asking: the licences are known.")
@as_json
@click.pass_obj
def fetch(file: str | None, names: tuple[str, ...], into: str | None, yes: bool, as_json: bool) -> None:
    """Build the sets NAMES from their public repositories.

    Every file is pinned by its sha256; downloads resume. Licences are shown first and must be agreed to. A
    set that is here already is checked and left as it is.
    """
    from manyminds.evals.datasets import find

    rows = build([find(name) for name in dict.fromkeys(names)], _parent(file, into), yes=yes)
    if as_json:
        print_json(rows)


def build(datasets: "Sequence[Dataset]", parent: Path, *, yes: bool, **more: Any) -> list[dict[str, Any]]:
    """Builds each set below `parent`, with talk on standard error; `more` is for `fetch`.

    Raises: DataError, DownloadError, HashMismatchError, OSError, click.UsageError where nobody can be asked.
    """
    from manyminds.evals.datasets import fetch, is_here

    lacking = [dataset for dataset in datasets if not is_here(dataset, parent / dataset.name)]
    if lacking:
        _agree(lacking, yes)
    rows = []
    for dataset in datasets:
        with _progress(dataset) as moved:
            fetched = fetch(dataset, parent / dataset.name, moved=moved, **more)
        what = "built" if fetched.downloaded else "already here and checked"
        click.echo(f"{dataset.name}: {what}: {fetched.folder}", err=True)
        rows.append(_row(dataset, parent, downloaded=fetched.downloaded))
    return rows


def _agree(datasets: "Sequence[Dataset]", yes: bool) -> None:
    """Shows the licences; returns only if they are agreed to."""
    for dataset in datasets:
        note = f" ({dataset.note})" if dataset.note else ""
        click.echo(
            f"{dataset.name}: {dataset.bytes / 1e6:.0f} MB from github.com/{dataset.repository}, "
            f"licence {dataset.licence}{note}",
            err=True,
        )
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("Nobody is here to agree to the licences: add --yes if you do.")
    click.confirm("Download under these licences?", abort=True, err=True)


@contextmanager
def _progress(dataset: "Dataset") -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda n_bytes: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(dataset.name, total=dataset.bytes)
        yield lambda n_bytes: bars.advance(task, n_bytes)


def _parent(file: str | None, into: str | None) -> Path:
    """Where sets lie. Absolute, so that what is printed can be used anywhere."""
    return Path(into).absolute() if into else read(file, {}).home / "data"


def _row(dataset: "Dataset", parent: Path, **more: bool) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "about": dataset.about,
        "questions": dataset.questions,
        "models": dataset.models,
        "bytes": dataset.bytes,
        "repository": dataset.repository,
        "licence": dataset.licence,
        "note": dataset.note,
        "path": str(parent / dataset.name),
        **more,
    }
