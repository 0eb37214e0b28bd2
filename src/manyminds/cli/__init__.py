"""The command line. Standard output is data, standard error is talk; exit codes are 0, 1 and 2.

Commands import what they need when they run, so that `--help` is quick.
"""

import sys

import click

from manyminds.cli.ask import ask
from manyminds.cli.bench import bench
from manyminds.cli.look import config, doctor, experts
from manyminds.cli.pull import pull
from manyminds.cli.serve import serve
from manyminds.errors import ManymindsError

__all__ = ["main"]


class _Group(click.Group):
    """Turns our errors into one sentence and exit code 1, and Ctrl-C into exit code 130."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ManymindsError as error:
            click.echo(f"manyminds: {error.message}", err=True)
            sys.exit(1)
        except BrokenPipeError:
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="manyminds")
@click.option(
    "--config", "file", type=click.Path(dir_okay=False), help="File to read, else ./manyminds.toml."
)
@click.pass_context
def main(ctx: click.Context, file: str | None) -> None:
    """A network of neural networks: many small models, one better answer."""
    ctx.obj = file


for command in (ask, bench, config, doctor, experts, pull, serve):
    main.add_command(command)
