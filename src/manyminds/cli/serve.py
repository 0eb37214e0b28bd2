"""`manyminds serve`: the node as an HTTP server."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from ipaddress import ip_address
from typing import TYPE_CHECKING

import click

from manyminds.cli.pull import bring_missing
from manyminds.cli.settings import as_json, print_json, read
from manyminds.errors import ConfigError

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.node import Node

__all__ = ["serve"]

_GC = (20_000, 20, 20)  # hardly anything that a request makes is a cycle: look for these less often
_DRAIN_S = 10.0  # for answers under way when the node is told to end


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--tier", type=click.Choice(["starter", "full", "none"]), help="Local models to run.")
@as_json
@click.pass_obj
def serve(file: str | None, host: str | None, port: int | None, tier: str | None, as_json: bool) -> None:
    """Serve the network as an OpenAI-compatible endpoint."""
    config = read(file, {"server.host": host, "server.port": port, "local.tier": tier})
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("manyminds").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gc.set_threshold(*_GC)
    with _listen(config.server.host, config.server.port) as listener:
        bring_missing(config)
        with asyncio.Runner(loop_factory=_loop()) as runner:
            runner.run(_serve(config, listener, as_json=as_json))


def _listen(host: str, port: int) -> socket.socket:
    """Raises: ConfigError when the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        why = f"Cannot listen on {host}:{port}: {error.strerror or error}."
        raise ConfigError(f"{why} Choose another with --port, or end what uses it.") from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # where uvloop has no wheel, asyncio's own loop serves
        return None
    return uvloop.new_event_loop


async def _serve(config: "Config", listener: socket.socket, *, as_json: bool) -> None:
    from manyminds.node import ENCODER, Node
    from manyminds.router.policy import DIRECT, POLICIES
    from manyminds.web.app import ENDPOINTS, App, Edge
    from manyminds.web.metrics import Metrics
    from manyminds.web.observer import Observer
    from manyminds.web.requestlog import RequestLog
    from manyminds.web.server import Server
    from manyminds.web.spans import open_spans

    loopback = ip_address(listener.getsockname()[0]).is_loopback
    required = config.server.keys == "required" or not loopback
    lines = RequestLog(lambda text: print(text, end="", file=sys.stderr, flush=True))
    async with AsyncExitStack() as stack:
        node = Node(config, os.environ, keys_required=required, also=lambda *told: observer.record(*told))
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
        spans = open_spans(os.environ, version("manyminds"), node.look)
        if spans is not None:
            stack.callback(spans.close)
        observer = Observer(metrics, lines, spans)

        def figures() -> bytes:
            metrics.in_flight = node.admission.inside
            return metrics.render()

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
            grade=node.grade,
            aliases=config.aliases,
            knows=node.knows,
            encoder=ENCODER,
            embed=node.embed,
        )
        ending = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        server = Server(App(edge))
        await server.listen(listener)
        url = f"http://{_shown(config.server.host)}:{listener.getsockname()[1]}/v1"
        if as_json:
            print_json({"url": url, "pid": os.getpid()})
            sys.stdout.flush()
        loading = asyncio.create_task(_load(node, url))
        try:
            await ending.wait()
            await server.close(_DRAIN_S)
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)


async def _load(node: "Node", url: str) -> None:
    await node.load()
    gc.collect()
    gc.freeze()  # what is here by now stays: no need to look through it again
    names = ", ".join(node.running) or "no expert yet"
    if node.ready:
        click.echo(f"manyminds is ready at {url} with {names}", err=True)
    else:
        click.echo(f"manyminds listens at {url}, yet none of its experts can be asked", err=True)
