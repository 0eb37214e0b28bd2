"""`manyminds bench`: what is claimed of speed and size, measured here and now."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.evaluate import bars, encoder, open_folder
from manyminds.cli.fleet import network
from manyminds.cli.hydra import hydra
from manyminds.cli.poison import poison
from manyminds.cli.pooling import pooling
from manyminds.cli.private import private
from manyminds.cli.scale import index
from manyminds.cli.settings import as_json, print_json, read
from manyminds.cli.tokens import tokens
from manyminds.cli.trust import trust

if TYPE_CHECKING:
    from manyminds.artefact import Artefact
    from manyminds.evals.report import Progress

__all__ = ["bench"]

_EXPERTS = (3, 30, 100)
_ANSWERS, _TIMED = 10_000, 2_000  # in the cache whose speed is measured, and lookups timed
_LABELLED = 2_000  # questions at most on which encoders are compared: half a minute


@click.group()
def bench() -> None:
    """Measure this installation on this machine."""


bench.add_command(hydra)
bench.add_command(index)
bench.add_command(network)
bench.add_command(poison)
bench.add_command(pooling)
bench.add_command(private)
bench.add_command(tokens)
bench.add_command(trust)


@bench.command()
@click.option(
    "--runs", default=5, show_default=True, type=click.IntRange(1, 100), help="Starts of each kind."
)
@as_json
def footprint(runs: int, as_json: bool) -> None:
    """Packages and megabytes installed, seconds from start to ready, resident memory."""
    from manyminds.evals.footprint import measure

    found = measure(runs)
    if as_json:
        print_json(found)
        return
    install = found["install"]
    click.echo(f"install: {install['packages']} packages, {install['mb']} MB")
    for key, name in (
        ("start_without_models", "no local models"),
        ("start_with_starter_tier", "starter tier"),
    ):
        ready, node, models = (found[key][part] for part in ("ready_s", "node_mb", "models_mb"))
        click.echo(
            f"{name}: ready in {ready['median']:.2f} s ({ready['min']:.2f} to {ready['max']:.2f}),"
            f" node {node['median']:.0f} MB, models {models['median']:.0f} MB"
        )


@bench.command()
@click.option(
    "--runs", default=200, show_default=True, type=click.IntRange(1, 100_000), help="Questions timed."
)
@click.option("--set", "folder", metavar="DIR", type=click.Path(), help="Compare the encoders on its texts.")
@as_json
@click.pass_obj
def router(file: str | None, /, runs: int, folder: str | None, as_json: bool) -> None:
    """Milliseconds of routing on one core, size of what is learnt, loss of the fast encoder.

    The first run makes the fast encoder's table, which takes a minute, and every run learns from made-up
    experts, which takes another. --set tells how well each encoder's vectors say a question's category; of
    DIR only the splits calibration and validation are read.
    """
    from manyminds import catalog
    from manyminds.errors import CatalogError
    from manyminds.evals import routing
    from manyminds.node import ENCODER

    home, model = read(file, {}).home, catalog.find(ENCODER)
    if catalog.missing(home, model):
        raise CatalogError(f"The encoder is not here: run `manyminds pull {ENCODER}`.")
    labelled = _labelled(folder) if folder else None
    encoder = catalog.path_of(home, model.files[0]).parent
    table = encoder / "static.npz"
    with bars() as progress:
        _make_table(encoder, table, progress)
        learnt = {n: _learn(n, progress) for n in _EXPERTS}
        with routing.one_core():
            found = routing.measure_encoders(encoder, table, runs)
            found["router_ms"] = {str(n): routing.measure_router(learnt[n], runs) for n in _EXPERTS}
    found["artefact"] = {"experts": _EXPERTS[-1], **routing.measure_artefact(learnt[_EXPERTS[-1]])}
    found["loss"] = None
    if labelled is not None:
        found["loss"] = {"set": labelled[0], **routing.measure_loss(encoder, table, *labelled[1:])}
    if as_json:
        print_json(found)
    else:
        _show(found)


@bench.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--pairs",
    metavar="FILE.csv",
    type=click.Path(path_type=Path),
    help="Pairs that people have judged: columns question, other, same (1 or 0).",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31), help="Of spellings.")
@as_json
@click.pass_obj
def cache(
    file: str | None, /, folders: tuple[str, ...], pairs: Path | None, seed: int, as_json: bool
) -> None:
    """How often the cache takes one question of DIR for another, rightly and wrongly, and its speed.

    Near duplicates are pairs with a cosine of .80 or more; a hit is false where the recorded answers differ.
    The threshold comes from the splits calibration and validation, the figures from test.
    """
    from manyminds.errors import CatalogError
    from manyminds.evals import near
    from manyminds.evals.speed.cache import measure as measure_speed

    sets = {}
    for folder in folders:
        recorded, name = open_folder(folder)
        sets[name] = recorded.questions()
    judged = near.read_pairs(pairs) if pairs else []
    embed = encoder(file, [question for questions in sets.values() for question in questions])
    if embed is None:
        raise CatalogError("The cache compares texts: give a set that has them, and pull the encoder.")
    with bars() as progress:
        found = near.measure(sets, judged, embed, seed, progress)
    found["speed"] = measure_speed(_ANSWERS, _TIMED)
    if as_json:
        print_json(found)
    else:
        _show_cache(found)


def _show_cache(found: Mapping[str, Any]) -> None:
    click.echo(
        f"near duplicates, cosine {found['near']:.2f} or more, of test; threshold {found['similarity']}"
    )
    for name, of in found["pairs"].items():
        ours, alone = of["cache"], of["cosine_alone"]["0.95"]
        bound = ours["false_share_below"]
        sure = "" if bound is None else f" (below {100 * bound:.2f}% of them, 95% sure)"
        click.echo(
            f"{name}: {of['same']:,} with one answer, {ours['true']} hit; {of['different']:,} with two,"
            f" {ours['false']} hit{sure}; by cosine .95 alone {alone['true']} and {alone['false']}"
        )
    for name, of in found["lookups"].items():
        click.echo(f"{name}: {of['questions']:,} lookups, {of['hits']} hits, {of['false']} of them false")
    for kind, of in found["spellings"].items():
        click.echo(f"found again with {kind}: {100 * of['hits']:.0f}%")
    speed = found["speed"]
    click.echo(
        f"{speed['entries']:,} answers: exact {speed['exact_hit_us']} µs, near {speed['near_hit_us']} µs,"
        f" nothing found {speed['near_miss_us']} µs, kept in {speed['keep_us']} µs"
    )


@bench.command()
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=2.0,
    show_default=True,
    help="Length of each measurement.",
)
@click.option(
    "--runs", default=3, show_default=True, type=click.IntRange(1, 100), help="Of each measurement."
)
@click.option("--litellm", metavar="PATH", type=click.Path(), help="Compare with this litellm program too.")
@click.option(
    "--soak",
    metavar="SECONDS",
    type=click.FloatRange(0.01, 86_400),
    help="Instead, half of the load that it bears for so long.",
)
@as_json
def gateway(seconds: float, runs: int, litellm: str | None, soak: float | None, as_json: bool) -> None:
    """Speed of the gateway on one core, beside nginx and litellm, its budget and ledger on.

    From a checkout on Linux, with a C compiler. The models behind it answer at once or after a fixed time, on
    another core; what a gateway adds is compared with asking them directly. nginx is measured where it is
    installed. CPU time tells more than wall-clock time on a machine that does other things too.
    """
    from manyminds.evals import speed

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with us
    if soak is not None:
        found = speed.soak(soak, _say)
    else:
        with bars() as progress:
            found = speed.measure(seconds, runs, litellm, _say, progress)
    if as_json:
        print_json(found)
    elif soak is not None:
        _show_soak(found)
    else:
        _show_speed(found)
    if soak is not None and found["missed"]:
        raise click.ClickException(" ".join(found["missed"]))


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


def _labelled(folder: str) -> tuple[str, list[str], list[str]]:
    """The set's name, and texts with their categories, drawn evenly. Raises: DataError."""
    from manyminds.errors import DataError

    recorded, name = open_folder(folder)
    known = [q for q in recorded.questions() if q.split != "test" and q.prompt and q.category]
    if len({q.category for q in known}) < 2:
        raise DataError(f"{folder}: comparing encoders takes texts of at least two categories outside test.")
    known = known[:: -(-len(known) // _LABELLED)]
    return name, [q.prompt or "" for q in known], [q.category for q in known]


def _learn(experts: int, progress: "Progress") -> "Artefact":
    from manyminds.evals.routing import learn_made_up

    return learn_made_up(experts, lambda what, share: progress(f"learn of {experts} made-up experts", share))


def _make_table(encoder: Path, table: Path, progress: "Progress") -> None:
    """Makes the fast encoder's table unless one is here that fits. Raises: CatalogError, OSError."""
    from manyminds.encoder import Encoder, StaticEncoder, distil
    from manyminds.errors import CatalogError

    try:
        StaticEncoder(encoder, table)
    except CatalogError:
        full = Encoder(encoder, cache_size=0)
        distil(
            full,
            encoder,
            table,
            progress=lambda done, total: progress("make the fast encoder", done / total),
        )


def _show(found: Mapping[str, Any]) -> None:
    for key, name in (("minilm_ms", "sentence encoder"), ("static_ms", "fast encoder")):
        times = ", ".join(f"{ms:.2f} ms at {tokens} tokens" for tokens, ms in found[key].items())
        click.echo(f"{name}: {times}")
    times = ", ".join(f"{ms:.2f} ms for {n} experts" for n, ms in found["router_ms"].items())
    click.echo(f"router's own part: {times}")
    size = found["artefact"]
    click.echo(
        f"artefact of {size['experts']} experts: {size['file_bytes'] / 1e6:.2f} MB on disk,"
        f" {size['memory_bytes'] / 1e6:.2f} MB in memory"
    )
    if loss := found["loss"]:
        click.echo(
            f"{loss['set']}, {loss['questions']:,} questions: category told for"
            f" {100 * loss['minilm_accuracy']:.1f}% by the sentence encoder,"
            f" {100 * loss['static_accuracy']:.1f}% by the fast one, {100 * loss['swapped_accuracy']:.1f}%"
            f" by the fast one in its place (cosine {loss['cosine']:.3f})"
        )


def _show_soak(found: Mapping[str, Any]) -> None:
    click.echo(f"{found['requests']:,} requests, {found['errors']:,} errors")
    click.echo(f"ledger: {found['ledger_rows']:,} rows of {found['requests']:,} requests")
    start_mb, end_mb = found["memory_start_mb"], found["memory_end_mb"]
    click.echo(f"memory: {start_mb:.1f} MB at first, {end_mb:.1f} MB at last ({end_mb - start_mb:+.1f} MB)")


def _show_speed(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = (
        f"medians of {found['runs']} runs of {found['seconds']:g} s; figures of streams are of their chunks"
    )
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    for column in ("case", "target"):
        table.add_column(column, no_wrap=True)
    for column in ("per s", "p50 ms", "added ms", "CPU µs", "pace", "MB", "errors"):
        table.add_column(column, justify="right", no_wrap=True)
    shown = (("per_s", ",.0f"), ("p50_ms", ".2f"), ("added_p50_ms", ".2f"), ("cpu_us", ",.1f"))
    last = ""
    for row in found["rows"]:
        figures = [_median(row[key], form) for key, form in (*shown, ("pace", ".1%"), ("memory_mb", ".0f"))]
        case = row["case"] if row["case"] != last else ""
        table.add_row(case, row["target"], *figures, f"{row['errors']:,}")
        last = row["case"]
    Console(width=100).print(table)
    if (times := found["times_litellm"]) is not None:
        click.echo(f"pass_64: {times:,.1f} times the requests per second of litellm")
    if (share := found["of_nginx_per_cpu_s"]) is not None:
        click.echo(f"pass_64: {share:.2%} of nginx's requests per CPU second")
    click.echo(f"ledger: {found['ledger_rows']:,} rows of {found['requests']:,} requests")


def _median(figure: Mapping[str, float] | None, form: str) -> str:
    return format(figure["median"], form) if figure else ""
