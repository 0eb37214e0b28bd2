"""`manyminds bench index`: what a large index finds, how fast, and what it holds."""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.evaluate import bars, encoder, open_folder
from manyminds.cli.settings import as_json, print_json

if TYPE_CHECKING:
    from manyminds.evals.report import Progress
    from manyminds.experts.recorded import Question
    from manyminds.types import Embed, Vectors

__all__ = ["index"]

_QUERIES = 500
_BLOCK = 64  # questions that are read at once
_COLUMNS = (
    "vectors",
    "skills of",
    "recall@10",
    "p50 ms",
    "CPU ms",
    "compared",
    "/ root",
    "MB",
    "add ms",
    "remove ms",
)


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--size",
    "sizes",
    multiple=True,
    default=(8_000, 100_000, 300_000, 1_000_000),
    show_default=True,
    type=click.IntRange(1_000, 100_000_000),
    help="Vectors, eight an expert; a million take 4 GB of disk and a minute or two. Repeatable.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of all that is drawn."
)
@as_json
@click.pass_obj
def index(
    file: str | None, /, folders: tuple[str, ...], sizes: tuple[int, ...], seed: int, as_json: bool
) -> None:
    """How many of the ten nearest experts a search finds, in how many ms, and comparing how many vectors.

    Experts are made up: each of their skills is a question of DIR's split calibration, with noise. Asked
    are 500 questions of split test, and for control random vectors among random skills, which have no
    topics to find. Linux only.
    """
    from manyminds.errors import CatalogError
    from manyminds.evals.scale import measure

    questions = [question for folder in folders for question in open_folder(folder)[0].questions()]
    skills = [question for question in questions if question.split == "calibration" and question.prompt]
    asked = [question for question in questions if question.split == "test" and question.prompt]
    asked = random.Random(seed).sample(asked, min(_QUERIES, len(asked)))  # noqa: S311
    embed = encoder(file, [*skills, *asked]) if skills and len(asked) > 1 else None
    if embed is None:
        raise CatalogError("The index compares texts: give sets that have them, and pull the encoder.")
    with bars() as progress:
        bases = _vectors(skills, embed, "reading questions", progress)
        queries = _vectors(asked, embed, "reading queries", progress)
        found = measure(bases, queries, sizes, seed, progress)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _vectors(questions: "list[Question]", embed: "Embed", what: str, progress: "Progress") -> "Vectors":
    import numpy as np

    parts = []
    for start in range(0, len(questions), _BLOCK):
        parts.append(embed([question.prompt or "" for question in questions[start : start + _BLOCK]]))
        progress(what, min(1.0, (start + _BLOCK) / len(questions)))
    return np.concatenate(parts)


def _show(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in found["rows"]:
        low, high = row["recall_ci95"]
        table.add_row(
            f"{row['vectors']:,}",
            row["kind"],
            f"{row['recall']:.3f} [{low:.3f}, {high:.3f}]",
            *(f"{row[key]:.2f}" for key in ("p50_ms", "cpu_p50_ms")),
            f"{row['compared']:,}",
            f"{row['compared_per_root']:.0f}",
            f"{row['memory_mb']:,}",
            *(f"{row[key]:.1f}" for key in ("add_ms", "remove_ms")),
        )
    Console(width=110).print(table)
    exponents = found["exponents"]
    if exponents["compared"] is not None:
        click.echo(
            f"on shelves, over sizes N: compared as N^{exponents['compared']:.2f},"
            f" p50 as N^{exponents['p50_ms']:.2f} (CPU N^{exponents['cpu_p50_ms']:.2f})"
        )
    if not found["faiss"]:
        click.echo("faiss-cpu is not installed (extra `index`): all of this is faster with it.")
