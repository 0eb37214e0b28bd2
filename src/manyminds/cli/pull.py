"""`manyminds pull`, and the progress that other commands show when they pull first."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manyminds.cli.newcomers import settle
from manyminds.cli.relearn import welcome
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from manyminds.catalog import Model
    from manyminds.catalog.pull import Pulled
    from manyminds.config import Config

__all__ = ["bring", "bring_missing", "pull"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--tier", type=click.Choice(["starter", "full"]), help="Models to pull; default: local.tier.")
@click.option(
    "--gguf", type=click.Path(dir_okay=False), help="Add a GGUF file of your own; it stays in place."
)
@click.option("--name", help="What to call the file that --gguf adds; default: its file name.")
@as_json
@click.pass_obj
def pull(
    file: str | None,
    names: tuple[str, ...],
    tier: str | None,
    gguf: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Download models: NAMES from the catalogue, or a whole tier.

    Downloads resume, are checked against the catalogue's sha256 and appear at once when they are whole.
    """
    from manyminds import catalog
    from manyminds.config import POLICIES

    if name and not gguf:
        raise click.UsageError("--name goes with --gguf; a model of the catalogue keeps its own name.")
    if gguf and (names or tier):
        raise click.UsageError("--gguf adds one file and pulls nothing: leave out NAMES and --tier.")
    config = read(file, {"local.tier": tier})
    if gguf:
        added = catalog.add_own(config.home, Path(gguf), name or Path(gguf).stem.lower(), POLICIES)
        welcome(file, added.name)
        settle(config)
        click.echo(f"{added.name} is {added.path} (sha256 {added.sha256[:12]}…)", err=True)
        if as_json:
            print_json({"name": added.name, "path": str(added.path), "sha256": added.sha256})
        return
    models = [catalog.find(n) for n in names] or catalog.tier(config.local.tier)
    pulled = bring(models, config.home)
    settle(config)
    if as_json:
        print_json(
            [
                {
                    "model": p.file.model,
                    "path": str(p.path),
                    "bytes": p.file.bytes,
                    "sha256": p.file.sha256,
                    "unofficial": p.file.unofficial,
                }
                for p in pulled
            ]
        )


def bring(models: "Sequence[Model]", home: Path) -> "list[Pulled]":
    """Pulls with progress on standard error. Raises: CatalogError."""
    from manyminds.catalog.pull import pull as fetch

    with _Shown() as shown:
        pulled = asyncio.run(fetch(models, home, progress=shown))
    fresh = sum(p.file.bytes for p in pulled if p.source is not None)
    here = (
        "already here and checked" if not fresh else f"{fresh / 1e6:.0f} MB pulled in {shown.seconds:.0f} s"
    )
    click.echo(f"{', '.join(m.name for m in models) or 'nothing to pull'}: {here}", err=True)
    return pulled


def bring_missing(config: "Config") -> None:
    """Pulls what the tier lacks, for commands that cannot work without it. Raises: CatalogError."""
    from manyminds import catalog

    lacking = [m for m in catalog.tier(config.local.tier) if catalog.missing(config.home, m)]
    if lacking:
        click.echo(f"First use: pulling the {config.local.tier} tier into {config.home}.", err=True)
        bring(lacking, config.home)


class _Shown:
    """Progress bars on a terminal, else a line a file; keeps `catalog.pull.Progress`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bars: Bars | None = None
        if self._console.is_terminal:
            self._bars = Progress(*columns, console=self._console)
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self.seconds = 0.0

    def __enter__(self) -> "_Shown":
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        if self._bars:
            self._bars.stop()

    def start(self, name: str, total_bytes: int) -> None:
        if self._bars is None:
            self.note(f"{name}: {total_bytes / 1e6:.0f} MB")
        elif name in self._tasks:
            self._bars.reset(self._tasks[name], total=total_bytes)
        else:
            self._tasks[name] = self._bars.add_task(name, total=total_bytes)

    def advance(self, name: str, n_bytes: int) -> None:
        if self._bars is not None and name in self._tasks:
            self._bars.advance(self._tasks[name], n_bytes)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def done(self, name: str) -> None:
        if self._bars is None:
            self.note(f"{name}: done")
