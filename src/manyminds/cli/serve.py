"""`manyminds serve`: the node as an HTTP server, in one process or in several."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack, closing, nullcontext
from importlib.metadata import version
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.pull import bring_missing
from manyminds.cli.settings import as_json, print_json, read
from manyminds.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

    from manyminds.config import Config
    from manyminds.node import Node
    from manyminds.web.app import App
    from manyminds.workers.seat import Seat

__all__ = ["DRAIN_S", "announce", "begin_log", "event_loop", "serve", "url_of", "work"]

DRAIN_S = 10
"""For answers under way when the node is told to end."""

_PIPE_BYTES = 4096  # which no other process's can come between
_LAST_WORDS_S = 2  # for what then remains of them


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
    from manyminds.workers.listeners import Listeners, listen

    flags = {"server.host": host, "server.port": port, "local.tier": tier, "server.workers": workers}
    config = read(file, flags)
    begin_log()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if config.server.workers > 1:
        from manyminds.cli.supervise import supervise

        with closing(Listeners(config.server.host, config.server.port)) as listeners:
            bring_missing(config)
            supervise(config, listeners, file, flags, as_json=as_json)
        return
    with listen(config.server.host, config.server.port) as listener:
        bring_missing(config)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(_serve(config, listener, as_json=as_json))


def begin_log() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("manyminds").setLevel(logging.INFO)


def work(config: "Config", seat: "Seat") -> Coroutine[Any, Any, None]:
    """Serves as one of several workers, until the supervisor ends it."""
    return _serve(config, seat.listener, seat=seat)


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # where uvloop has no wheel, asyncio's own loop serves
        return None
    return uvloop.new_event_loop


async def _serve(
    config: "Config", listener: socket.socket, *, as_json: bool = False, seat: "Seat | None" = None
) -> None:
    from manyminds.node import ENCODER, Node
    from manyminds.router.policy import DIRECT, POLICIES
    from manyminds.web.app import ENDPOINTS, Edge, build
    from manyminds.web.metrics import Metrics, render_all
    from manyminds.web.observer import Observer
    from manyminds.web.requestlog import RequestLog

    loopback = ip_address(listener.getsockname()[0]).is_loopback
    required = config.server.keys == "required" or not loopback
    lines = RequestLog(_put)
    async with AsyncExitStack() as stack:
        node = Node(
            config,
            os.environ,
            keys_required=required,
            also=lambda *told: observer.record(*told),
            shared=seat.shared if seat else None,
        )
        await stack.enter_async_context(node)
        stack.callback(lines.close)
        metrics = Metrics(
            version("manyminds"),
            ENDPOINTS,
            (*POLICIES, DIRECT),
            node.experts,
            lambda: node.backlog,
            node.circuits,
        )
        observer = Observer(metrics, lines)

        def snapshot() -> bytes:
            metrics.in_flight = node.admission.inside
            return metrics.snapshot()

        async def figures() -> bytes:
            return render_all([snapshot()] if seat is None else await seat.figures())

        if seat is not None:
            seat.snapshot, seat.release = snapshot, node.admission.give_back

        if required and not node.has_keys:
            raise ConfigError(
                f"At {config.server.host} callers of this node need a key, and there is none yet: make one "
                "with `manyminds keys create NAME`, or listen on 127.0.0.1."
            )
        edge = Edge(
            expert=node.gateway,
            policies=POLICIES,
            cards=lambda: node.cards,
            ready=lambda: node.ready,
            max_body_bytes=int(config.server.max_body_mb * 1e6),
            loopback=loopback,
            admission=node.admission,
            seen=observer.seen,
            metrics=figures,
            encoder=ENCODER,
            embed=node.embed,
        )
        server = _server(build(edge))
        url = url_of(config.server.host, listener.getsockname()[1])
        _heed(server, seat, stack)
        if as_json:
            print_json({"url": url, "pid": os.getpid()})
            sys.stdout.flush()
        loading = asyncio.create_task(_load(node, url, seat))
        try:
            await server.serve(sockets=[listener])
            await _end(server.server_state.tasks)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)


def _server(app: "App") -> "uvicorn.Server":
    import uvicorn

    from manyminds.web.protocol import Protocol

    settings = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(settings)
    server.capture_signals = nullcontext  # type: ignore[assignment]  # from here on they are ours
    return server


def _heed(server: "uvicorn.Server", seat: "Seat | None", stack: AsyncExitStack) -> None:
    """Has signals end the server, or the supervisor, who has them."""
    if seat is None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    else:
        obeying = asyncio.create_task(_obey(seat, server))
        stack.callback(obeying.cancel)
        seat.listens()


async def _obey(seat: "Seat", server: "uvicorn.Server") -> None:
    """Ends when the supervisor says so, or is gone; at once when it says that, too."""
    await seat.ending.wait()
    seat.leaves()
    server.should_exit = True
    await seat.hurrying.wait()
    server.force_exit = True


def _put(text: str) -> None:
    """Writes lines, so many at once as a pipe takes in one piece: other workers write there, too."""
    while text:
        cut = len(text) if len(text) <= _PIPE_BYTES else text.rindex("\n", 0, _PIPE_BYTES) + 1
        print(text[:cut], end="", file=sys.stderr, flush=True)
        text = text[cut:]


async def _end(requests: Collection[asyncio.Task[None]]) -> None:
    """Ends what is still being answered, and waits until the callers have been told."""
    for task in list(requests):
        if not task.cancelling():
            task.cancel()
    if requests:
        await asyncio.wait(requests, timeout=_LAST_WORDS_S)


async def _load(node: "Node", url: str, seat: "Seat | None") -> None:
    await node.load()
    if seat is None:
        announce(url, node.running, ready=node.ready)
    else:
        seat.is_ready(node.running, node.ready)


def announce(url: str, running: Collection[str], *, ready: bool) -> None:
    """Says that all is loaded, with whom can be asked."""
    names = ", ".join(running) or "no expert yet"
    if ready:
        click.echo(f"manyminds is ready at {url} with {names}", err=True)
    else:
        click.echo(f"manyminds listens at {url}, yet none of its experts can be asked", err=True)


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
