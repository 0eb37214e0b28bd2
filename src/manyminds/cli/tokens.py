"""`manyminds bench tokens`: what private tokens are worth, and how fast they come."""

import asyncio
from typing import Any

import click

from manyminds.cli.settings import as_json, print_json, read

__all__ = ["tokens"]


@click.command()
@click.option(
    "--sources",
    default=(8, 32, 100),
    multiple=True,
    show_default=True,
    type=click.IntRange(1, 100),
    help="How many models with pages of their own; may be given several times.",
)
@click.option("--texts", default=8, show_default=True, type=click.IntRange(1, 50), help="That are predicted.")
@click.option(
    "--tokens", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Of an answer."
)
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0, 2**31), help="Who has which pages."
)
@as_json
@click.pass_obj
def tokens(
    file: str | None, /, sources: tuple[int, ...], texts: int, tokens: int, seed: int, as_json: bool
) -> None:
    """Measure what many models with private pages add to a public one, token by token, at epsilon 8.

    Asks a real model some 12,000 times, which takes ten minutes or more.
    """
    from manyminds.evals.tokens import measure

    found = asyncio.run(measure(read(file, {}).home, sources, texts, tokens, seed))
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    click.echo(
        f"{found['positions']} positions, {found['covered']:.0%} of them covered; nats a token at epsilon"
        f" {found['epsilon']:g}, delta {found['delta']:g} for {found['tokens']} tokens"
    )
    for row in found["panels"]:
        free, pooled, capped = row["not_private"], row["logarithmic"], row["capped"]
        click.echo(f"{row['sources']} sources")
        click.echo(f"  public {row['public']:.3f}, one source alone {row['one_source']:.3f}")
        click.echo(f"  not private: logarithmic {free['logarithmic']:.3f}, linear {free['linear']:.3f}")
        click.echo(f"  private, logarithmic: {pooled['nats']:.3f} with reach {pooled['reach']:.2f},")
        click.echo(f"    {capped['nats']:.3f} with {capped['reach']:.2f}, as served")
        for each in row["linear"]:
            click.echo(
                f"  private, linear, orders to {each['order']:g}: {each['nats']:.3f} with {each['reach']:.4f}"
            )
    for row in found["most_tokens"]:
        click.echo(
            f"{row['sources']} sources: {row['least_reach']:,} tokens at most, {row['reach_2']:,} by reach 2"
        )
    for row in found["speed"]:
        click.echo(
            f"{row['sources']} sources: first token after {row['first_s']:.2f} s, then "
            f"{row['tokens_per_s']:.1f} tokens/s"
        )
