"""`manyminds ledger privacy`: what private answers have told of each source so far."""

from typing import Any

import click

from manyminds.cli.keys import opened
from manyminds.cli.look import print_table, table_of
from manyminds.cli.settings import as_json, print_json, read

__all__ = ["privacy"]


@click.command()
@as_json
@click.pass_obj
def privacy(file: str | None, /, as_json: bool) -> None:
    """Show what private answers have told of each source, and the most that they may.

    A running node has up to a hundredth of a source's whole account in hand; it counts as spent.
    """
    from manyminds.node import ACCOUNTS
    from manyminds.privacy.accounting import epsilon_of, most_rho

    config = read(file, {})
    private = config.private
    names = {entry.id: entry.name for entry in config.peers}
    with opened(file) as found:
        spent = found.accounts(ACCOUNTS)
    rows: list[dict[str, Any]] = []
    for account, billionths in spent.items():
        terms = [entry for entry in config.experts if entry.source == account]
        delta = min((entry.delta or private.delta for entry in terms), default=private.delta)
        each = (entry.epsilon or private.source_epsilon for entry in terms)
        most, rho = min(each, default=private.source_epsilon), billionths / 1e9
        rows.append(
            {
                "source": names.get(account, account),
                "epsilon": epsilon_of(rho, delta),
                "most_epsilon": most,
                "delta": delta,
                "rho": rho,
                "most_rho": most_rho(most, delta),
            }
        )
    if as_json:
        print_json(rows)
        return
    table = table_of("source", "epsilon so far", "of", "at delta", "rho", "of")
    for row in rows:
        epsilons = (f"{row['epsilon']:.3f}", f"{row['most_epsilon']:g}", f"{row['delta']:g}")
        table.add_row(row["source"], *epsilons, f"{row['rho']:.6f}", f"{row['most_rho']:.6f}")
    print_table(table)
