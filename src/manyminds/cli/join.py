"""`manyminds join`: serve as one node of a network."""

import click

from manyminds.cli.serve import serve_as
from manyminds.cli.settings import as_json

__all__ = ["join"]

_LAN = "lan"


@click.command()
@click.argument("seeds", nargs=-1, metavar="[SEED]...")
@click.option("--listen", metavar="ADDRESS", help="Where others may join, such as tcp/0.0.0.0:7447.")
@click.option("--name", help="What the node calls itself; default: the machine's name.")
@click.option("--host", help="Address at which this node's own callers reach it.")
@click.option("--port", type=int, help="Port at which they do; 0 takes a free one.")
@click.option("--tier", type=click.Choice(["starter", "full", "none"]), help="Local models to run.")
@as_json
@click.pass_obj
def join(
    file: str | None,
    /,
    seeds: tuple[str, ...],
    listen: str | None,
    name: str | None,
    host: str | None,
    port: int | None,
    tier: str | None,
    as_json: bool,
) -> None:
    """Serve as one node of a network: ask the others, and answer them.

    SEED is the address of a node at which others may join, such as 10.0.0.1:7447 or tls/HOST:7447. Without
    any, the others are looked for on the local network; with --listen alone, this node is the first.

    Ctrl-C leaves. What is agreed with others is set under [network] in manyminds.toml.
    """
    where = ",".join(map(_address, seeds)) or (None if listen else _LAN)
    flags = {
        "network.join": where,
        "network.listen": listen and _address(listen),
        "network.name": name,
        "server.host": host,
        "server.port": port,
        "local.tier": tier,
    }
    serve_as(file, flags, as_json=as_json)


def _address(text: str) -> str:
    """HOST:PORT is short for tcp/HOST:PORT. Raises: UsageError."""
    if text == _LAN:
        return text
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"{text!r} is no address: write HOST:PORT, such as 10.0.0.1:7447.")
    return text if "/" in text else f"tcp/{text}"
