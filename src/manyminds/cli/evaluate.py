"""`manyminds eval`: how much better, and at what cost, than the best single model.

Of a recorded set, or of one's own questions, which all experts are asked first.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from rich.table import Table

    from manyminds.config import Config
    from manyminds.evals.questions import Graded
    from manyminds.evals.record import Harvest
    from manyminds.evals.record import Progress as Asked
    from manyminds.evals.report import Progress
    from manyminds.experts.recorded import Question, RecordedSet
    from manyminds.types import Embed

__all__ = ["bars", "counters", "encoder", "eval_", "open_folder", "selection"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SET = ".manyminds"  # in place of .csv: the folder of the answers
_NAMES = {
    "first_parsed": "first parsed",
    "best_per_category": "best per category",
    "majority": "majority vote",
    "majority_top_3": "majority of top 3",
    "log_odds": "log-odds vote",
    "router_only": "router only",
    "oracle": "oracle",
}


def selection(command: _Command) -> _Command:
    """The argument and the options that choose a set's models and questions, and the seed."""
    return click.argument("folder", metavar="DIR", type=click.Path())(_choices(command))


def _choices(command: _Command) -> _Command:
    for option in (
        click.option(
            "--seed",
            default=0,
            show_default=True,
            type=click.IntRange(0, 2**31),
            help="Of folds and intervals.",
        ),
        click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out models, such as 'gpt-4*'."),
        click.option("--category", metavar="NAME", help="Only this category's questions."),
    ):
        command = option(command)
    return command


@click.command("eval")
@click.argument("target", metavar="DIR|FILE.csv", type=click.Path())
@_choices
@click.option(
    "--into",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="With FILE.csv: where its answers are kept; default: FILE.manyminds beside it.",
)
@click.option(
    "--leave-category",
    "leave",
    multiple=True,
    metavar="NAME",
    help="With DIR: leave out this category's questions.",
)
@click.option("--by-category", is_flag=True, help="Also say who is how accurate in each category.")
@click.option(
    "--private", is_flag=True, help="With DIR: measure private answers instead, see docs/privacy.md."
)
@click.option("--plot", metavar="NAME", help="With --private: writes NAME.png and NAME.svg.")
@as_json
@click.pass_obj
def eval_(
    file: str | None,
    target: str,
    category: str | None,
    exclude: tuple[str, ...],
    seed: int,
    into: str | None,
    leave: tuple[str, ...],
    by_category: bool,
    private: bool,
    plot: str | None,
    as_json: bool,
) -> None:
    """Measure the network against the best single model, on recorded answers in DIR.

    Learns from the splits calibration and validation, and replays test through the router and the vote
    that serve. Gains have 95% intervals.

    FILE.csv holds questions of your own: columns question and answer, and if you like id, category,
    split, and options in A, B, C and so on, or as a JSON list in choices. Every expert that is running
    is asked each of them once, which costs what it costs; Ctrl-C keeps what was answered. Who is
    excluded, and another category, is not asked; earlier answers stay in the set.

    --private: accuracy of released private answers by epsilon, by number of answers and by sources, those
    recorded and simulated populations of 100 and 1,000, beside the same vote without noise and the best
    single model.
    """
    asked = _is_csv(target)
    if plot and not private:
        raise click.UsageError("--plot goes with --private; `manyminds frontier` draws other results.")
    if private and asked:
        raise click.UsageError("--private goes with DIR, such as the folder of answers beside FILE.csv.")
    if private:
        from manyminds.cli.private import evaluate_privately

        evaluate_privately(target, category, exclude, leave, seed, plot, as_json=as_json)
        return
    if into and not asked:
        raise click.UsageError("--into goes with FILE.csv: a set stays where it is.")
    if leave and asked:
        raise click.UsageError("--leave-category goes with DIR: of FILE.csv, every question is asked.")
    folder = _record(file, Path(target), into, category, exclude) if asked else target
    recorded, name = open_folder(folder)
    left_out = exclude
    if asked:  # who never answered is not in the set
        exclude = tuple(p for p in exclude if any(fnmatchcase(model, p) for model in recorded.models))
    from manyminds.evals.report import evaluate, narrow

    embed = encoder(file, narrow(recorded, name, category, exclude, leave).questions)
    with bars() as progress:
        result = evaluate(
            recorded,
            name,
            category=category,
            exclude=exclude,
            leave=leave,
            by_category=by_category,
            seed=seed,
            embed=embed,
            progress=progress,
        )
    result["exclude"] = list(left_out)
    if as_json:
        print_json(result)
    else:
        _show(result)


def open_folder(folder: str) -> "tuple[RecordedSet, str]":
    """The set and its name. Raises: DataError."""
    from manyminds.errors import DataError
    from manyminds.experts.recorded import open_set

    path = Path(folder)
    if not path.exists():
        raise DataError(
            f"{folder} does not exist: give the folder of a set, or to `manyminds eval` a .csv of questions."
        )
    if _is_csv(folder):
        answers = path.with_suffix(_SET)
        if answers.is_dir():
            raise DataError(f"{folder} has questions alone; the answers are in a folder: use {answers}.")
        raise DataError(
            f"{folder} has no answers yet: `manyminds eval {folder}` asks for them and keeps them."
        )
    if not path.is_dir():
        raise DataError(
            f"{folder} is no folder: a set is one, with questions, answers and models in Parquet."
        )
    _check_finished(path)
    return open_set(path), path.resolve().name


def _check_finished(folder: Path) -> None:
    """Raises: DataError where the first recording into this folder was stopped before its tables."""
    from manyminds.errors import DataError
    from manyminds.evals.datasets.schema import FILES
    from manyminds.evals.journal import JOURNAL

    if not (folder / JOURNAL).exists() or all((folder / name).exists() for name in FILES):
        return
    beside = [folder.with_suffix(end) for end in (".csv", ".tsv")]
    command = next((str(file) for file in beside if file.is_file()), f"FILE.csv --into {folder}")
    raise DataError(f"{folder} is not finished: run `manyminds eval {command}` to its end first.")


def encoder(file: str | None, questions: "Sequence[Question]") -> "Embed | None":
    """The sentence encoder, where these have texts and it has been pulled. Raises: ConfigError."""
    if not any(question.prompt for question in questions):
        return None
    from manyminds import catalog
    from manyminds.encoder import Encoder
    from manyminds.node import ENCODER

    home, model = read(file, {}).home, catalog.find(ENCODER)
    if catalog.missing(home, model):
        click.echo(
            f"The encoder is not here, so texts count for nothing: `manyminds pull {ENCODER}` brings it.",
            err=True,
        )
        return None
    return Encoder(catalog.path_of(home, model.files[0]).parent, cache_size=0).encode


# --- questions of one's own ------------------------------------------------------------------------


def _is_csv(target: str) -> bool:
    return Path(target).suffix.casefold() in (".csv", ".tsv") and not Path(target).is_dir()


def _record(
    file: str | None, path: Path, into: str | None, category: str | None, exclude: Sequence[str]
) -> str:
    """Asks all experts that run, says what is missing, and returns the folder. Raises: ManymindsError."""
    import logging
    from importlib.util import find_spec

    from manyminds.cli.pull import bring_missing
    from manyminds.errors import DataError
    from manyminds.evals.questions import need_enough
    from manyminds.evals.questions import read as read_questions

    questions = read_questions(path)
    asked = [graded for graded in questions if category in (None, graded.question.category)]
    if category is not None:
        if not asked:
            found = sorted({graded.question.category for graded in questions})
            raise DataError(f"{path}: no category is {category!r:.80}. There are: {', '.join(found)[:400]}.")
        need_enough(asked, f"category {category} of {path}")
    if find_spec("scipy") is None:  # before anything is paid for
        raise DataError("Training needs scipy: pip install 'manyminds[train]'.")
    folder = Path(into) if into else path.with_suffix(_SET)
    config = read(file, {})
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    bring_missing(config)
    try:
        harvest = asyncio.run(_ask(config, questions, folder, category, exclude, len(asked)))
    except KeyboardInterrupt:
        click.echo(f"Stopped. What was answered is kept in {folder}: the same command goes on.", err=True)
        raise
    _tell(harvest, len(asked))
    return str(folder)


async def _ask(
    config: "Config",
    questions: "Sequence[Graded]",
    folder: Path,
    category: str | None,
    exclude: Sequence[str],
    count: int,
) -> "Harvest":
    """`count` is that of the questions of this category."""
    from manyminds.errors import DataError
    from manyminds.evals.record import record
    from manyminds.node import Node

    async with Node(config, os.environ, learnt=False) as node:
        for pattern in exclude:
            if not any(fnmatchcase(name, pattern) for name in node.experts):
                raise DataError(f"No expert matches {pattern!r:.80}: see `manyminds experts list`.")
        await node.load()
        names = [n for n in node.running if not any(fnmatchcase(n, pattern) for pattern in exclude)]
        if len(names) < 2:
            found = f"Only {names[0]} can be asked" if names else "No expert can be asked"
            fewer = "exclude fewer, " if exclude else ""
            raise DataError(
                f"{found}, and a network takes two: {fewer}add an [[expert]] to manyminds.toml, or pull"
                " models with `manyminds pull`."
            )
        click.echo(f"Asking {', '.join(names)}: {count:,} questions each, into {folder}", err=True)
        leave = node.experts.keys() - set(names)
        with counters() as progress:
            return await record(
                questions, node.experts, folder, leave=leave, category=category, progress=progress
            )


def _tell(harvest: "Harvest", questions: int) -> None:
    click.echo(f"{harvest.answered:,} answers came; {harvest.kept:,} were here.", err=True)
    for name, count in harvest.missing.items():
        why = harvest.reasons.get(name, "").rstrip(".")
        click.echo(
            f"{name}: {count:,} of {questions:,} answers are missing{f': {why}' if why else ''}."
            " The same command asks for them again.",
            err=True,
        )
    if harvest.open_ended:
        click.echo(
            f"{harvest.open_ended:,} of {questions:,} questions are graded by exact match: for them a right"
            " answer in a whole sentence counts as wrong.",
            err=True,
        )


@contextmanager
def counters() -> "Iterator[Asked | None]":
    """A bar for each expert, on a terminal; else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:
        tasks: dict[str, Any] = {}

        class Counters:
            def start(self, expert: str, total: int, done: int) -> None:
                tasks[expert] = shown.add_task(expert, total=total, completed=done)

            def advance(self, expert: str) -> None:
                shown.advance(tasks[expert])

        yield Counters()


# --- what is shown ---------------------------------------------------------------------------------


@contextmanager
def bars() -> "Iterator[Progress]":
    """A bar for each thing that is done, on a terminal; else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, share: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=console, transient=True) as shown:

        def progress(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=1.0)
            shown.update(tasks[what], completed=share)

        yield progress


def _show(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    best = result["best_single"]
    part = f", category {result['category']}" if result["category"] else ""
    if without := [*result["exclude"], *result.get("leave_category", ())]:
        part += f", without {', '.join(without)}"
    learnt = result["n_calibration"] + result["n_validation"]
    title = (
        f"{result['set']}{part}: {result['models']} models, {result['n_test']:,} test questions, "
        f"learnt from {learnt:,}, seed {result['seed']}"
    )
    table = Table("", box=None, header_style="bold", pad_edge=False)
    for column in ("accuracy", "$ per 1,000", "gain in points", "95% interval"):
        table.add_column(column, justify="right")
    table.add_row("best single", *_cells(best), end_section=True)
    for key, name in _NAMES.items():
        if result["baselines"][key] is not None:
            table.add_row(name, *_cells(result["baselines"][key]))
    table.add_section()
    for policy in ("max", "cheap", "auto", "fast"):
        table.add_row(policy, *_cells(result[policy]), style="bold")
    console = Console(markup=False, highlight=False)
    console.print(title, soft_wrap=True)
    console.print(f"best single: {best['model']}", soft_wrap=True)
    console.print(table)
    if "members" in result:
        console.print(_members(result))
    if "categories" in result:
        console.print(_categories(result))


def _members(result: Mapping[str, Any]) -> "Table":
    """Every model in its best way, and what all of its ways come to together; `max` against the latter."""
    from rich.table import Table

    table = Table("model, alone", box=None, header_style="bold", pad_edge=False)
    for column in ("accuracy", "$ per 1,000", "max over it", "95% interval"):
        table.add_column(column, justify="right")
    for name, own in result["members"].items():
        ensemble = result["self_ensemble"][name]
        low, high = ensemble["network_gain_ci95"]
        gained = f"{100 * ensemble['network_gain']:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}"
        table.add_row(own["model"], *_cells(own))
        table.add_row(f"{name}, in all ways", *_cells(ensemble)[:2], *gained)
    gain, interval = (result["max"][f"gain_over_best_per_category{end}"] for end in ("", "_ci95"))
    if interval is not None:
        ends = f"{100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}"
        table.add_row("best per category", "", "", f"{100 * gain:+.2f}", ends)
    return table


def _categories(result: Mapping[str, Any]) -> "Table":
    """Of each category, who is most accurate in it on test, and what the network and the best single are."""
    from rich.table import Table

    table = Table("category", box=None, header_style="bold", pad_edge=False)
    for column in ("questions", "max", "cheap", "best single", "most accurate"):
        table.add_column(column, justify="right")
    table.add_column("who")
    for name, own in result["categories"].items():
        model, most = max(own["models"].items(), key=lambda pair: pair[1])
        single = own["models"].get(result["best_single"]["model"], 0.0)
        shares = (f"{100 * share:.1f}%" for share in (own["max"], own["cheap"], single, most))
        table.add_row(name, f"{own['n']:,}", *shares, model)
    return table


def _cells(figures: Mapping[str, Any]) -> Sequence[str]:
    cost, interval = figures["cost_usd_per_1k"], figures.get("gain_ci95")
    return (
        f"{100 * figures['accuracy']:.2f}%",
        "" if cost is None else f"{cost:.4g}",
        "" if interval is None else f"{100 * figures['gain']:+.2f}",
        "" if interval is None else f"{100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}",
    )
