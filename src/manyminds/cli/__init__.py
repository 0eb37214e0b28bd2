"""The command line. Standard output is data, standard error is talk; exit codes are 0, 1 and 2.

Commands import what they need when they run, so that `--help` is quick.
"""

import sys

try:
    import os
    from contextlib import suppress
    from typing import Any

    import click

    from manyminds.cli.add import add
    from manyminds.cli.ask import ask
    from manyminds.cli.bench import bench
    from manyminds.cli.calibrate import calibrate
    from manyminds.cli.data import data
    from manyminds.cli.documents import index
    from manyminds.cli.evaluate import eval_
    from manyminds.cli.federate import federate
    from manyminds.cli.frontier import frontier
    from manyminds.cli.join import join
    from manyminds.cli.keys import keys
    from manyminds.cli.ledger import ledger
    from manyminds.cli.look import config, doctor, experts
    from manyminds.cli.pause import pause, resume
    from manyminds.cli.probe import probe
    from manyminds.cli.pull import pull
    from manyminds.cli.relearn import learn_again
    from manyminds.cli.remove import remove
    from manyminds.cli.serve import serve
    from manyminds.cli.top import top
    from manyminds.cli.train import train
    from manyminds.cli.tree import tree
    from manyminds.cli.verify import verify
    from manyminds.cli.withdraw import withdraw
    from manyminds.errors import ManymindsError
except KeyboardInterrupt:  # Ctrl-C while this is loaded: there is nothing to end yet
    sys.exit(130)

__all__ = ["main"]


class _Group(click.Group):
    """Turns our errors into one sentence and exit code 1, and Ctrl-C into exit code 130."""

    def main(self, *args: Any, **more: Any) -> Any:
        """See click; standard output that cannot be written is an error too."""
        if sys.stdout is None:  # what is opened next would get its number
            click.echo("manyminds: standard output is closed: send it to a file or to /dev/null.", err=True)
            sys.exit(1)
        try:
            try:
                return super().main(*args, **more)
            finally:
                sys.stdout.flush()  # while an error can still be told
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                what = error.filename or "standard output"
                click.echo(f"manyminds: Cannot read or write {what}: {error.strerror or error}.", err=True)
            _drop_output()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ManymindsError as error:
            click.echo(f"manyminds: {error.message}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


def _drop_output() -> None:
    """What is still held for standard output goes nowhere: at exit, Python would fail to write it again."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # it may be no file at all
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="manyminds")
@click.option(
    "--config", "file", type=click.Path(dir_okay=False), help="File to read, else ./manyminds.toml."
)
@click.pass_context
def main(ctx: click.Context, file: str | None) -> None:
    """A network of neural networks: many small models, one better answer."""
    ctx.obj = file


experts.add_command(tree)
for command in (
    ask,
    bench,
    calibrate,
    config,
    data,
    doctor,
    eval_,
    experts,
    federate,
    frontier,
    join,
    keys,
    ledger,
    pull,
    serve,
    top,
    train,
    verify,
    withdraw,
):
    main.add_command(command)
for command in (add, index, learn_again, pause, probe, remove, resume):
    experts.add_command(command)
