"""`manyminds train`: writes what a network learns from a recorded set as one file, which `serve` uses."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manyminds.cli.evaluate import bars, encoder, open_folder, selection
from manyminds.cli.keys import opened
from manyminds.cli.newcomers import settle
from manyminds.cli.settings import as_json, print_json, read
from manyminds.errors import ConfigError

if TYPE_CHECKING:
    from manyminds.artefact import Artefact, Part
    from manyminds.experts.recorded import RecordedSet

__all__ = ["figures", "show", "train"]


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

    Only the splits calibration and validation are read. The file appears whole or not at all. Beside it is
    its bank: the questions and outcomes that it was learnt from, with which newcomers are probed.
    """
    recorded, name = open_folder(folder)
    from manyminds.artefact import save
    from manyminds.evals.report import learn, narrow
    from manyminds.learn import bank
    from manyminds.node import ARTEFACT

    config = read(file, {})
    path = config.home / ARTEFACT if out is None else Path(out)
    for place in (path, bank.beside(path)):
        _check_place(place, ours=out is None)
    chosen = narrow(_left(file, recorded), name, category, exclude)
    embed = encoder(file, chosen.questions)
    with bars() as progress:
        learnt = learn(chosen, seed, embed, progress)
    try:
        save(learnt.artefact, path)
        bank.save(path, learnt.questions, learnt.examples, learnt.answered, learnt.about)
    except OSError as error:  # of a part beside it, whose name says nothing to anybody
        raise OSError(error.errno, error.strerror, str(path)) from None
    if as_json:
        found = {"path": str(path.absolute()), "about": dict(learnt.artefact.about)}
        print_json(found | figures(learnt.artefact))
    else:
        click.echo(path.absolute())
        show(learnt.artefact)
    if out is None:
        settle(config)


def _left(file: str | None, recorded: "RecordedSet") -> "RecordedSet":
    """The set without who was withdrawn: as if it had never been asked."""
    from manyminds.experts.recorded import RecordedSet
    from manyminds.learn.relearn import is_of

    with opened(file) as ledger:
        gone = ledger.gone()
    out = {
        expert.card.name
        for expert in recorded.experts()
        if is_of(expert.card.name, gone.experts) or gone.has(expert.card.name, expert.card.source)
    }
    if not out:
        return recorded
    click.echo(f"{', '.join(sorted(out))}: withdrawn, so nothing is learnt of it.", err=True)
    return RecordedSet(recorded.questions(), [e for e in recorded.experts() if e.card.name not in out])


def _check_place(path: Path, *, ours: bool) -> None:
    """Before minutes are spent. Raises: ConfigError where it cannot be written, or is somebody's own file.

    `ours` says that nothing else can be there: it may be replaced even where it is damaged.
    """
    from manyminds.archive import is_archive

    if os.path.lexists(path):
        if not path.is_file():
            raise ConfigError(f"{path} is no regular file: write to another, with --out.")
        if not ours and not is_archive(path):
            raise ConfigError(f"{path} is there, and is no artefact: remove it, or give --out another name.")
    folder = next(above for above in path.absolute().parents if os.path.lexists(above))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be written: {folder} is no folder to write to; see --out.")


def figures(artefact: "Artefact") -> dict[str, object]:
    """For `--json`: the experts, the plans and who takes them; by part where there are several."""
    if len(artefact.parts) == 1:
        return _figures(artefact.parts[0])
    parts = [{"kinds": part.kinds, "about": dict(part.about)} | _figures(part) for part in artefact.parts]
    return {"experts": artefact.experts, "parts": parts}


def _figures(part: "Part") -> dict[str, object]:
    plans = [
        {
            "stages": plan.stages,
            "threshold": plan.threshold,
            "accuracy": plan.accuracy,
            "cost_usd_per_1k": 1e3 * plan.cost_usd,
            "policies": sorted(policy for policy, order in part.ranking.items() if order[0] == at),
        }
        for at, plan in enumerate(part.plans)
    ]
    return {
        "experts": part.skills.experts,
        "best_single": part.best_single,
        "plans": plans,
        "prices": dict(part.prices),
    }


def show(artefact: "Artefact") -> None:
    """Experts, then the plans: what each is for, and what came of it where it was not fitted."""
    for part in artefact.parts:
        if len(artefact.parts) > 1:
            click.echo(f"\n{part.about['questions']:,} questions of kind {', '.join(part.kinds)}:")
        _show(part)


def _show(part: "Part") -> None:
    from rich.console import Console
    from rich.table import Table

    names = part.skills.experts
    click.echo(f"{len(names)} experts: {', '.join(names)}")
    click.echo(f"best single: {part.best_single}")
    click.echo(f"{len(part.plans)} plans:")
    table = Table("policy", box=None, header_style="bold", pad_edge=False)
    table.add_column("accuracy", justify="right")
    table.add_column("$ per 1,000", justify="right")
    table.add_column("stages")
    for at, plan in enumerate(part.plans):
        policies = ", ".join(sorted(policy for policy, order in part.ranking.items() if order[0] == at))
        stages = "; then ".join(", ".join(stage) for stage in plan.stages)
        table.add_row(policies, f"{100 * plan.accuracy:.2f}%", f"{1e3 * plan.cost_usd:.4g}", stages)
    Console(markup=False, highlight=False).print(table)
    for policy in sorted(part.prices):
        click.echo(
            f"{policy} chooses among all of these for each question anew; its row is its best for all."
        )
