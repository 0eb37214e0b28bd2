"""`manyminds train`: writes what a network learns from a recorded set as one file, which `serve` uses."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manyminds.cli.evaluate import bars, encoder, open_folder, selection
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.artefact import Artefact

__all__ = ["train"]


@click.command()
@selection
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="File to write; default: HOME/artefact.npz.",
)
@as_json
@click.pass_obj
def train(
    file: str | None,
    folder: str,
    category: str | None,
    exclude: tuple[str, ...],
    seed: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Learn from the recorded answers in DIR whom to ask and how to weigh votes.

    Only the splits calibration and validation are read. The file appears whole or not at all.
    """
    recorded, name = open_folder(folder)
    from manyminds.artefact import save
    from manyminds.evals.report import learn, narrow

    path = Path(out).absolute() if out else read(file, {}).home / "artefact.npz"
    chosen = narrow(recorded, name, category, exclude)
    embed = encoder(file, chosen.questions)
    with bars() as progress:
        learnt = learn(chosen, seed, embed, progress)
    save(learnt.artefact, path)
    if as_json:
        print_json({"path": str(path), "about": dict(learnt.artefact.about), **_figures(learnt.artefact)})
        return
    click.echo(path)
    _show(learnt.artefact)


def _figures(artefact: "Artefact") -> dict[str, object]:
    plans = [
        {
            "stages": plan.stages,
            "threshold": plan.threshold,
            "accuracy": plan.accuracy,
            "cost_usd_per_1k": 1e3 * plan.cost_usd,
            "policies": sorted(policy for policy, order in artefact.ranking.items() if order[0] == at),
        }
        for at, plan in enumerate(artefact.plans)
    ]
    return {"experts": artefact.skills.experts, "best_single": artefact.best_single, "plans": plans}


def _show(artefact: "Artefact") -> None:
    """Experts, then the plans: what each is for, and what came of it where it was not fitted."""
    from rich.console import Console
    from rich.table import Table

    names = artefact.skills.experts
    click.echo(f"{len(names)} experts: {', '.join(names)}")
    click.echo(f"best single: {artefact.best_single}")
    click.echo(f"{len(artefact.plans)} plans:")
    table = Table("policy", box=None, header_style="bold", pad_edge=False)
    table.add_column("accuracy", justify="right")
    table.add_column("$ per 1,000", justify="right")
    table.add_column("stages")
    for at, plan in enumerate(artefact.plans):
        policies = ", ".join(sorted(policy for policy, order in artefact.ranking.items() if order[0] == at))
        stages = "; then ".join(", ".join(stage) for stage in plan.stages)
        table.add_row(policies, f"{100 * plan.accuracy:.2f}%", f"{1e3 * plan.cost_usd:.4g}", stages)
    Console(markup=False, highlight=False).print(table)
