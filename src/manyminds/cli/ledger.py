"""`manyminds ledger`: what was asked, of whom, and what it cost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from manyminds.cli.keys import opened
from manyminds.cli.look import print_table, table_of
from manyminds.cli.settings import as_json, print_json

__all__ = ["ledger"]


@click.group()
def ledger() -> None:
    """Look into the ledger, and delete what is old."""


def _days(_context: click.Context, _parameter: click.Parameter, value: float | None) -> datetime | None:
    return None if value is None else datetime.now(UTC) - timedelta(days=value)


def _filters(command: Any) -> Any:
    """The options that choose among requests."""
    for option in (
        click.option("--key", metavar="ID", help="Only requests of this key."),
        click.option("--expert", help="Only requests that asked this expert."),
        click.option("--status", help="Only those that ended so: ok, cut, failed or cancelled."),
        click.option(
            "--days",
            "since",
            type=click.FloatRange(0, 36_500),
            callback=_days,
            help="Only of the last so many days.",
        ),
    ):
        command = option(command)
    return command


@ledger.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Requests.")
@_filters
@as_json
@click.pass_obj
def show(file: str | None, /, limit: int, as_json: bool, **filters: Any) -> None:
    """Show the latest requests, newest first."""
    with opened(file) as found:
        rows = found.requests(limit, **filters)
    if as_json:
        print_json(rows)
        return
    table = table_of("at (UTC)", "request", "key", "policy", "status", "seconds", "cost $", "asked")
    for row in rows:
        asked = ", ".join(f"{call['expert']} {call['status']}" for call in row["calls"])
        figures = (f"{row['seconds']:.2f}", f"{row['cost_usd']:.6f}")
        names = (row["at_utc"], row["request_id"], row["key"], row["policy"], row["status"])
        table.add_row(*names, *figures, asked)
    print_table(table)


@ledger.command()
@click.option(
    "--by",
    type=click.Choice(["key", "expert", "policy", "day"]),
    default="day",
    show_default=True,
    help="What to sum over.",
)
@_filters
@as_json
@click.pass_obj
def totals(file: str | None, /, by: str, as_json: bool, **filters: Any) -> None:
    """Show requests, calls, tokens and costs, summed."""
    with opened(file) as found:
        rows = found.totals(by, **filters)  # type: ignore[arg-type]  # one of the choices
    if as_json:
        print_json(rows)
        return
    table = table_of(by, "requests", "calls", "cost $", "prompt tokens", "completion tokens")
    for row in rows:
        counts = (f"{row['requests']:,}", f"{row['calls']:,}", f"{row['cost_usd']:.6f}")
        tokens = (f"{row['prompt_tokens']:,}", f"{row['completion_tokens']:,}")
        table.add_row(str(row[by]), *counts, *tokens)
    print_table(table)


@ledger.command()
@click.option("--days", type=click.FloatRange(0), required=True, help="Keep the last so many days.")
@click.confirmation_option(prompt="Delete all older requests for ever?")
@click.pass_obj
def prune(file: str | None, days: float) -> None:
    """Delete requests older than --days; keys and budgets stay."""
    with opened(file) as found:
        gone = found.prune(datetime.now(UTC) - timedelta(days=days))
    click.echo(f"{gone:,} requests deleted.", err=True)
