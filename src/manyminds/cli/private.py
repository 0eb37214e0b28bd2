"""`manyminds bench private`: attacks on our own private answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from manyminds.cli.evaluate import bars
from manyminds.cli.settings import as_json, print_json
from manyminds.errors import DataError

__all__ = ["evaluate_privately", "private"]


@click.command()
@click.option(
    "--runs",
    default=20_000,
    show_default=True,
    type=click.IntRange(100, 10_000_000),
    help="Of each world of a game; a tenth where each is long.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of the noise.")
@as_json
def private(runs: int, seed: int, as_json: bool) -> None:
    """Attack private answers: is what they may tell of a source what is claimed?

    Each game is played with a source and with another in its place. What the adversary can tell is a lower
    bound of epsilon, at 95% confidence. It must stay below the claim; and mechanisms that are broken on
    purpose must be caught. Else the command fails.
    """
    from manyminds.evals.audit import audit

    with bars() as progress:
        found = audit(runs, seed, progress)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["failed"]:
        raise DataError(f"The audit failed: {'; '.join(found['failed'])}.")


def _show(found: dict[str, Any]) -> None:
    click.echo(f"delta {found['delta']:g}, 95% confidence, seed {found['seed']}")
    for row in found["games"]:
        verdict = (
            ("refuted" if row["refuted"] else "holds")
            if row["sound"]
            else ("caught" if row["refuted"] else "NOT CAUGHT")
        )
        click.echo(
            f"  {row['game']:<46} sees {row['sees']:<8} {row['runs']:>7,} runs  claimed {row['epsilon']:>4g}"
            f"  at least {row['epsilon_at_least']:.2f}  {verdict}"
        )


def evaluate_privately(
    folder: str,
    category: str | None,
    exclude: Sequence[str],
    leave: Sequence[str],
    seed: int,
    plot: str | None,
    *,
    as_json: bool,
) -> None:
    """What `manyminds eval DIR --private` does. Raises: DataError, ConfigError."""
    from manyminds.cli.evaluate import open_folder
    from manyminds.evals.privacy import measure
    from manyminds.evals.report import narrow

    recorded, name = open_folder(folder)
    with bars() as progress:
        found = measure(narrow(recorded, name, category, exclude, leave), seed=seed, progress=progress)
    if plot:
        from manyminds.evals.privacy_plot import draw

        base = Path(plot)
        for kind, picture in draw(found).items():
            base.with_name(f"{base.name}.{kind}").write_bytes(picture)
    if as_json:
        print_json(found)
    else:
        _show_accuracy(found)


def _show_accuracy(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    best, part = found["best_single"], f", {found['category']}" if found["category"] else ""
    console = Console(markup=False, highlight=False)
    console.print(
        f"{found['set']}{part}: {found['n_test']:,} test questions, delta {found['delta']:g} for all "
        f"answers together, seed {found['seed']}\nbest single: {best['model']} {_share(best['accuracy'])}",
        soft_wrap=True,
    )
    for population in found["populations"]:
        console.print(
            f"\n{population['population']}: without noise {_share(population['without_noise'])}",
            soft_wrap=True,
        )
        table = Table("epsilon", box=None, header_style="bold", pad_edge=False)
        rows = population["released"]
        for answers in sorted({row["answers"] for row in rows}):
            table.add_column(f"{answers:,} answers" if answers > 1 else "one answer", justify="right")
        for epsilon in sorted({row["epsilon"] for row in rows}):
            cells = [row for row in rows if row["epsilon"] == epsilon]
            table.add_row(f"{epsilon:g}", *(_share(c["accuracy"]) + " ×" * c["refused"] for c in cells))
        console.print(table)
    console.print(
        "\n× a gateway refuses this: of so few sources the noise is louder than the votes", soft_wrap=True
    )


def _share(figures: Sequence[float]) -> str:
    mean, low, high = (100 * figure for figure in figures)
    return f"{mean:.1f}% [{low:.1f}, {high:.1f}]"
