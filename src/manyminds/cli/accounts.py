"""`manyminds ledger privacy`: what private answers have told of each source so far."""

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
    from manyminds.node.books import told

    with opened(file) as found:
        rows = told(found, read(file, {}))
    if as_json:
        print_json(rows)
        return
    table = table_of("source", "epsilon so far", "of", "at delta", "rho", "of")
    for row in rows:
        epsilons = (f"{row['epsilon']:.3f}", f"{row['most_epsilon']:g}", f"{row['delta']:g}")
        table.add_row(row["source"], *epsilons, f"{row['rho']:.6f}", f"{row['most_rho']:.6f}")
    print_table(table)
