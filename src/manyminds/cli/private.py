"""`manyminds bench private`: attacks on our own private answers."""

from typing import Any

import click

from manyminds.cli.evaluate import bars
from manyminds.cli.settings import as_json, print_json
from manyminds.errors import DataError

__all__ = ["private"]


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
