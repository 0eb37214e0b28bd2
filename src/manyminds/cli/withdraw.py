"""`manyminds withdraw`: an owner takes her node, or a source behind it, back from the networks it was in."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from manyminds.cli.keys import opened
from manyminds.cli.settings import as_json, print_json, read
from manyminds.errors import ConfigError

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.network.identity import Identity
    from manyminds.network.withdrawal import Withdrawal

__all__ = ["withdraw"]


@click.command()
@click.option("--source", metavar="SOURCE", help="Only this source behind the node.")
@click.option("--undo", is_flag=True, help="Come back: others take it as new.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    help="For how long to show it where the node does not run.",
)
@as_json
@click.pass_obj
def withdraw(file: str | None, source: str | None, undo: bool, seconds: float, as_json: bool) -> None:
    """Withdraw this node from the networks it is in: others let it go, and forget what they know of it.

    It answers no other node from then on, and says so on its card, signed by its key: whoever hears that
    drops answers it had a part in, its grades and what it did, does not ask it again, and keeps the card as
    proof, see `manyminds ledger withdrawals`. Its own callers are answered as before. What others have
    learnt of it otherwise, or kept, is theirs: nobody has to say that he heard.
    """
    from manyminds.network import need

    need()
    from manyminds.network.identity import KEY_FILE, read_or_make
    from manyminds.node import revocation

    config = read(file, {})
    if not (config.home / KEY_FILE).exists():
        raise ConfigError(f"{config.home} holds no node's key: this node never was among others.")
    if source is not None and not undo:
        _need_source(config, source)
    identity = read_or_make(config.home)
    word = _word(revocation.read(config.home), source, undo=undo)
    document = _document(config, identity, word)
    _write_down(file, identity, source, document, undo=undo)
    revocation.write(config.home, word)
    running = revocation.is_served(config.home)
    what = f"The source {source}" if source is not None else "This node"
    click.echo(f"{what} {'is back' if undo else 'is withdrawn'}: {identity.id} says so.", err=True)
    if running:
        click.echo("The node that runs shows it within seconds.", err=True)
    elif config.is_networked and seconds:
        click.echo(f"No node runs here: it is shown for {seconds:g} s.", err=True)
        asyncio.run(_show(file, seconds))
    click.echo("Who heard it cannot be known from here: each writes it into a ledger of its own.", err=True)
    if as_json:
        print_json(
            {
                "id": identity.id,
                "running": running,
                "at": word.at,
                "whole": word.whole,
                "sources": word.sources,
                "document": document,
            }
        )


def _need_source(config: "Config", source: str) -> None:
    """Raises: ConfigError where no expert here is of that source."""
    from manyminds.node import local_models

    sources = {entry.source or entry.name for entry in config.experts if entry.kind != "local"}
    sources |= {model.card.source or model.card.name for model in local_models(config)}
    if source not in sources:
        known = ", ".join(sorted(sources)) or "nobody's"
        raise ConfigError(f"No expert here is of the source {source!r:.80}. There are: {known}.")


def _word(before: "Withdrawal | None", source: str | None, *, undo: bool) -> "Withdrawal":
    """What this node says from now on. Raises: ConfigError where there is nothing to undo."""
    from manyminds.network.withdrawal import Withdrawal

    now_ms = max(time.time_ns() // 1_000_000, before.at + 1 if before is not None else 1)
    whole, sources = (before.whole, before.sources) if before is not None else (False, ())
    if undo:
        if before is None or (source not in sources if source is not None else not whole):
            raise ConfigError("There is nothing to undo: that was not withdrawn.")
        left = tuple(name for name in sources if name != source)
        return Withdrawal(before.at, whole if source is not None else False, left)
    if source is None:
        return Withdrawal(now_ms, True, sources)
    return Withdrawal(now_ms, whole, tuple(sorted({*sources, source})))


def _document(config: "Config", identity: "Identity", word: "Withdrawal") -> str:
    """A card that says so and nothing else, signed: the proof."""
    from manyminds.network import card as cards

    now_s = time.time()
    says = cards.Claims(
        key="",
        exchange="",
        sequence=int(now_s * 1000),
        expires=int(now_s) + 900,
        protocols=(cards.PROTOCOL,),
        experts=0,
        withdrawal=word,
    )
    return cards.made(identity, says, name=config.network.name or identity.id).decode()


def _write_down(
    file: str | None, identity: "Identity", source: str | None, document: str, *, undo: bool
) -> None:
    from manyminds.ledger import Withdrawal

    with opened(file) as ledger:
        ledger.withdraw(
            Withdrawal("returned" if undo else "withdrawn", "", source or "", (), identity.id, document)
        )


async def _show(file: str | None, seconds: float) -> None:
    """Serves for a while, with no local model: by what it has joined, and at its own address."""
    from manyminds.cli.service import Service
    from manyminds.workers.listeners import listen

    flags: dict[str, Any] = {"local.tier": "none"}
    config = read(file, flags)

    def quiet(url: str, running: Any, *, ready: bool) -> None:
        click.echo(f"Shown at {url.removesuffix('/v1')}.", err=True)

    with listen(config.server.host, config.server.port) as listener:
        service = Service(config, lambda: read(file, flags), listener, quiet)
        serving = asyncio.create_task(service.run())
        await asyncio.wait([serving], timeout=seconds)
        service.end()
        await serving
