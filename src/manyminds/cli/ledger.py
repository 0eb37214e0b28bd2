"""`manyminds ledger`: what was asked, of whom, and what it cost."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from manyminds.cli.accounts import privacy
from manyminds.cli.keys import opened
from manyminds.cli.look import plain, print_table, table_of
from manyminds.cli.settings import as_json, print_json, read

__all__ = ["ledger"]


@click.group()
def ledger() -> None:
    """Look into the ledger, and delete what is old."""


ledger.add_command(privacy)


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


def _period(command: Any) -> Any:
    """The options that choose a time."""
    for option in (
        click.option("--since", type=click.DateTime(), help="From that time on, in UTC."),
        click.option("--until", type=click.DateTime(), help="Before that time, in UTC."),
    ):
        command = option(command)
    return command


@ledger.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="So many at most.")
@click.option("--peer", metavar="NAME|ID", help="Only those with this node.")
@click.option("--request", "request_id", metavar="ID", help="Only those of this request.")
@_period
@as_json
@click.pass_obj
def receipts(
    file: str | None,
    /,
    limit: int,
    peer: str | None,
    request_id: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Show receipts of answers that went between this node and others, newest first.

    With --json, each has the signed `document` that `manyminds verify` checks.
    """
    from manyminds.node.books import priced

    names = _peers(file)
    node = next((node for node, name in names.items() if name == peer), peer)
    with opened(file) as found:
        rows = found.receipts(limit, peer=node, since=since, until=until, request_id=request_id)
    if as_json:
        print_json([priced(row) for row in rows])
        return
    table = table_of("at (UTC)", "peer", "role", "for", "tokens", "$", "nats", "signed by", "request")
    for row in map(priced, rows):
        tokens = f"{row['prompt_tokens']:,} + {row['completion_tokens']:,}"
        signed = "both" if row["countersigned"] else "who answered"
        named = names.get(row["peer"], row["peer"])
        moved = _moved(row["settled_nats"], row["granted_nats"])
        if row["max_share"] < 1:
            moved = f"{moved} share {row['max_share']:g}".strip()
        figures = (tokens, f"{row['price_usd']:.9f}", moved)
        table.add_row(
            row["at_utc"], named, row["role"], plain(row["purpose"]), *figures, signed, row["request_id"]
        )
    print_table(table)


@ledger.command()
@_period
@as_json
@click.pass_obj
def sources(file: str | None, /, since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Show what answers owe to each source, for what they were, and what is left of its budget."""
    from manyminds.node.books import limits_of, owed

    with opened(file) as found:
        rows = owed(found.sources(since=since, until=until), limits_of(read(file, {})), found.leased)
    if as_json:
        print_json(rows)
        return
    table = table_of("source", "purpose", "answers", "nats", "shares", "budget, nats", "spent or set aside")
    for row in rows:
        budget, spent = row["budget_nats"], row["budget_spent_nats"]
        figures = (
            "" if budget is None else f"{budget:g} a {row['period']}",
            "" if spent is None else f"{spent:.3f}",
        )
        table.add_row(
            row["source"], "", f"{row['answers']:,}", f"{row['nats']:.3f}", f"{row['shares']:.3f}", *figures
        )
        for use in row["purposes"]:
            sums = (f"{use['answers']:,}", f"{use['nats']:.3f}", f"{use['shares']:.3f}")
            table.add_row("", use["purpose"] or "not said", *sums, "", "")
    print_table(table)


@ledger.command()
@click.option("--by-purpose", is_flag=True, help="Each purpose by itself: what answers were used for.")
@_period
@as_json
@click.pass_obj
def settle(
    file: str | None, /, by_purpose: bool, since: datetime | None, until: datetime | None, as_json: bool
) -> None:
    """Sum up what is owed to each peer, and by it; and how far answers moved others', in nats.

    Of what was granted that counts as moved which who asked has said; where nobody said, all of it.
    """
    from manyminds.node.books import settled

    names = _peers(file)
    with opened(file) as found:
        rows = found.owed(since=since, until=until)
    sums = settled(rows, names, by_purpose=by_purpose)
    if as_json:
        print_json(sums)
        return
    heads = ["peer", *(["for"] if by_purpose else [])]
    for of in ("from it", "to it"):
        heads += [f"answers {of}", f"owed {'to' if of == 'from it' else 'by'} it $", f"nats {of}"]
    table = table_of(*heads, "net $", "")
    for one in sums:
        lacking, figures = one["not_countersigned"], []
        for role in ("asked", "answered"):
            moved = _moved(one[f"{role}_settled_nats"], one[f"{role}_granted_nats"] or None)
            figures += [f"{one[f'{role}_answers']:,}", f"{one[f'{role}_usd']:.9f}", moved]
        table.add_row(
            *(one["peer"], *([plain(one["purpose"])] if by_purpose else []), *figures),
            f"{one['net_usd']:+.9f}",
            f"{lacking:,} signed by one side only" if lacking else "",
        )
    print_table(table)


def _moved(settled_nats: float | None, granted_nats: float | None) -> str:
    """How far answers moved others', of how far they might."""
    if granted_nats is None:
        return ""
    return f"{'?' if settled_nats is None else f'{settled_nats:.3f}'} of {granted_nats:.3f}"


def _peers(file: str | None) -> dict[str, str]:
    """Names by node id."""
    return {entry.id: entry.name for entry in read(file, {}).peers}


@ledger.command()
@as_json
@click.pass_obj
def withdrawals(file: str | None, /, as_json: bool) -> None:
    """Show who was withdrawn, or paused, and who came back, oldest first, with the proof.

    With --json, what a node signed to revoke itself is the `document` that `manyminds verify` checks.
    """
    with opened(file) as found:
        rows = found.withdrawals()
    if as_json:
        print_json(rows)
        return
    table = table_of("at (UTC)", "event", "expert", "source", "by", "what came of it")
    for row in rows:
        table.add_row(row["at_utc"], row["event"], row["expert"], row["source"], row["who"], _came(row))
    print_table(table)


def _came(row: Mapping[str, Any]) -> str:
    """Of one event."""
    if row["event"] == "dropped":
        return f"{row['answers']:,} cached answers dropped"
    if row["event"] == "relearnt":
        before, after = row["artefact_before"][:12] or "none", row["artefact_after"][:12] or "none"
        same = "had no part in what was learnt" if before == after else f"learnt anew: {before} -> {after}"
        return f"{same}; state {row['state'][:12]}"
    if row["event"] in ("paused", "resumed"):
        return "nobody asks it; all that is known of it stays" if row["event"] == "paused" else "as it was"
    signed = "; signed" if row["document"] else ""
    if row["event"] == "returned":
        return f"as new{signed}"
    return f"{row['requests']:,} requests and {row['outcomes']:,} outcomes teach no more{signed}"


@ledger.command()
@click.option("--days", type=click.FloatRange(0), required=True, help="Keep the last so many days.")
@click.confirmation_option(prompt="Delete all older requests for ever?")
@click.pass_obj
def prune(file: str | None, days: float) -> None:
    """Delete requests older than --days; keys and budgets stay."""
    with opened(file) as found:
        gone = found.prune(datetime.now(UTC) - timedelta(days=days))
    click.echo(f"{gone:,} requests deleted.", err=True)
