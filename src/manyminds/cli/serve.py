"""`manyminds serve`: the node as an HTTP server, in one process or in several."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Coroutine
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.pull import bring_missing
from manyminds.cli.settings import as_json, read

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.workers.seat import Seat

__all__ = ["announce", "begin_log", "event_loop", "serve", "serve_as", "url_of", "work"]

_GC = (20_000, 20, 20)  # hardly anything that a request makes is a cycle: look for these less often


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--tier", type=click.Choice(["starter", "full", "none"]), help="Local models to run.")
@click.option("--workers", type=int, help="Processes that answer.")
@as_json
@click.pass_obj
def serve(
    file: str | None, host: str | None, port: int | None, tier: str | None, workers: int | None, as_json: bool
) -> None:
    """Serve the network as an OpenAI-compatible endpoint."""
    flags = {"server.host": host, "server.port": port, "local.tier": tier, "server.workers": workers}
    serve_as(file, flags, as_json=as_json)


def serve_as(file: str | None, flags: dict[str, Any], *, as_json: bool) -> None:
    """Serves the configuration under these flags until it is told to end. Raises: ManymindsError."""
    from manyminds.cli.service import Service
    from manyminds.workers.listeners import Listeners, listen

    config = read(file, flags)
    begin_log()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read anew
    if config.server.workers > 1:
        from manyminds.cli.supervise import supervise

        with closing(Listeners(config.server.host, config.server.port)) as listeners:
            bring_missing(config)
            if sys.stderr.isatty():
                _hint(config)
            supervise(config, listeners, file, flags, as_json=as_json)
        return
    gc.set_threshold(*_GC)
    with listen(config.server.host, config.server.port) as listener:
        bring_missing(config)
        if sys.stderr.isatty():
            _hint(config)
        service = Service(config, lambda: read(file, flags), listener, announce, as_json=as_json)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(service.run())


def _hint(config: "Config") -> None:
    """What else could be asked, to whoever started this by hand."""
    from manyminds.cli.discover import hint

    if line := hint(config, os.environ):
        click.echo(line, err=True)


def begin_log() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("manyminds").setLevel(logging.INFO)


def work(config: "Config", again: Callable[[], "Config"], seat: "Seat") -> Coroutine[Any, Any, None]:
    """Serves as one of several workers, until the supervisor ends it."""
    from manyminds.cli.service import Service

    gc.set_threshold(*_GC)
    return Service(config, again, seat.listener, announce, seat=seat).run()


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # where uvloop has no wheel, asyncio's own loop serves
        return None
    return uvloop.new_event_loop


def announce(url: str, running: Collection[str], *, ready: bool) -> None:
    """Says that all is loaded, with whom can be asked."""
    names = ", ".join(running) or "no expert yet"
    if ready:
        click.echo(f"manyminds is ready at {url} with {names}", err=True)
    else:
        click.echo(f"manyminds listens at {url}, yet none of its experts can be asked", err=True)


def url_of(config: "Config", port: int) -> str:
    """Where a node of this configuration answers."""
    server = config.server
    scheme = "https" if server.tls_cert else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{scheme}://{host}:{port}/v1"
