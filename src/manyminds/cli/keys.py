"""`manyminds keys`: who may call this node, for what, how often and for how much."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from manyminds.cli.look import print_table, table_of
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.ledger import Ledger
    from manyminds.types import Key

__all__ = ["keys", "opened"]


@click.group()
def keys() -> None:
    """Make, list and revoke the keys that callers need; a running node knows within seconds."""


@keys.command()
@click.argument("name")
@click.option("--model", "models", multiple=True, help="Only for this policy or expert, such as 'gpt-*'.")
@click.option("--requests-per-min", type=click.IntRange(1), help="Requests per minute at most.")
@click.option("--tokens-per-min", type=click.IntRange(1), help="Tokens per minute at most.")
@click.option("--budget-usd", type=click.FloatRange(0, 1e9), help="US dollars per period at most.")
@click.option(
    "--period",
    type=click.Choice(["day", "month", "total"]),
    default="month",
    show_default=True,
    help="Of the budget, in UTC.",
)
@click.option("--admin", is_flag=True, help="May administer the node: /v1/admin, and the page at /.")
@as_json
@click.pass_obj
def create(
    file: str | None,
    name: str,
    models: tuple[str, ...],
    requests_per_min: int | None,
    tokens_per_min: int | None,
    budget_usd: float | None,
    period: str,
    admin: bool,
    as_json: bool,
) -> None:
    """Make a key for NAME and print it, this once: only its hash is kept."""
    from manyminds.admission import digest, new_secret
    from manyminds.types import Key

    secret = new_secret()
    key_id = f"key_{secrets.token_hex(6)}"
    key = Key(key_id, name, models, requests_per_min, tokens_per_min, budget_usd, period, admin)  # type: ignore[arg-type]
    with opened(file) as ledger:
        ledger.add_key(key, digest(secret))
    if as_json:
        print_json({**_shown(key), "key": secret})
        return
    click.echo(secret)
    click.echo(f"This is the key {key_id} of {name}. It is shown once: keep it now.", err=True)


@keys.command("list")
@as_json
@click.pass_obj
def list_keys(file: str | None, as_json: bool) -> None:
    """List the keys that are valid, with what is leased of their budgets in this period."""
    from datetime import UTC, datetime

    from manyminds.admission import period_of

    with opened(file) as ledger:
        found = sorted(ledger.keys().values(), key=lambda key: key.id)
        now = datetime.now(UTC)
        leased = {key.id: ledger.leased(key.id, period_of(key, now)) / 1e9 for key in found}
    if as_json:
        print_json([{**_shown(key), "leased_usd": leased[key.id]} for key in found])
        return
    table = table_of(
        "id", "name", "models", "requests/min", "tokens/min", "budget $", "period", "leased $", "admin"
    )
    for key in found:
        limits = [key.requests_per_min, key.tokens_per_min, key.budget_usd]
        shown = ["" if limit is None else f"{limit:,}" for limit in limits]
        models = ", ".join(key.models) or "all"
        table.add_row(
            key.id, key.name, models, *shown, key.period, f"{leased[key.id]:.6f}", "yes" if key.admin else ""
        )
    print_table(table)


@keys.command()
@click.argument("key_id")
@click.pass_obj
def revoke(file: str | None, key_id: str) -> None:
    """End the key KEY_ID for ever. What it spent stays in the ledger."""
    with opened(file) as ledger:
        if not ledger.revoke_key(key_id):
            raise click.ClickException(f"No valid key has the id {key_id}: `manyminds keys list` shows them.")
    click.echo(f"{key_id} is revoked.", err=True)


@contextmanager
def opened(file: str | None) -> "Iterator[Ledger]":
    """The ledger of this configuration. Raises: ConfigError, LedgerError."""
    from manyminds.ledger import Ledger

    ledger = Ledger(read(file, {}).ledger.url)
    try:
        yield ledger
    finally:
        ledger.close()


def _shown(key: "Key") -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "models": list(key.models),
        "requests_per_min": key.requests_per_min,
        "tokens_per_min": key.tokens_per_min,
        "budget_usd": key.budget_usd,
        "period": key.period,
        "admin": key.admin,
    }
