"""`manyminds federate`: agree on terms with a node of another organisation."""

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.network.card import NodeCard

__all__ = ["federate"]


@click.command()
@click.argument("target", metavar="URL|ID")
@click.option("--name", help="What it is called here; default: what it calls itself.")
@click.option("--id", "node", metavar="ID", help="Its node id, as its owner says: another one is refused.")
@click.option("--pay-usd", type=click.FloatRange(0), help="Most that is paid to it in a month; default: 0.")
@click.option("--owe-usd", type=click.FloatRange(0), help="Most that it may come to owe in a month.")
@click.option("--treats", is_flag=True, default=None, help="This node may pay for its questions itself.")
@click.option("--price-in-usd-per-m", type=click.FloatRange(0), help="Highest price per million of prompt.")
@click.option("--price-out-usd-per-m", type=click.FloatRange(0), help="The same of its answers.")
@click.option("--requests-per-min", type=click.IntRange(1), help="Questions a minute that it may ask.")
@click.option("--no-asks", "asks", flag_value=False, default=None, help="This node does not ask it.")
@click.option("--no-answers", "answers", flag_value=False, default=None, help="Nor does it answer it.")
@click.option("--speaks-for", is_flag=True, default=None, help="This node passes others' questions to it.")
@click.option("--remove", is_flag=True, help="End it: give its NAME, its ID or its URL.")
@as_json
@click.pass_obj
def federate(
    file: str | None, /, target: str, node: str | None, remove: bool, as_json: bool, **terms: Any
) -> None:
    """Make a node of another organisation a peer: by its URL, or, where it only asks, by its ID.

    Its card is fetched, checked and shown, and its key is what counts from then on. Over plain http, give
    its --id, as its owner told you: anybody on the way could show a card otherwise.

    It is kept in HOME/experts.toml, which a running node takes over within seconds. Its owner does the
    same with this node's URL or id.
    """
    from manyminds.network import need

    need()
    from manyminds.network.identity import is_id

    if remove:
        _remove(file, target, as_json=as_json)
        return
    said = {name: value for name, value in terms.items() if value is not None}
    if is_id(target):
        if not said.get("name"):
            raise click.UsageError("Give a --name for a peer that has no URL.")
        _keep(file, {**said, "id": target}, None, as_json=as_json)
        return
    url = target.rstrip("/")
    _check_url(url, node)
    card = _card(url)
    if node is not None and card.id != node:
        raise click.ClickException(f"{url} is the node {card.id}, not {node}: nothing was agreed.")
    name = said.pop("name", None) or card.name.replace(" ", "-")
    _keep(file, {"name": name, "id": card.id, "url": url, **said}, card, as_json=as_json)


def _check_url(url: str, node: str | None) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(f"{url} is neither a URL like https://HOST nor a node id.")
    if parts.scheme == "http" and node is None and not _is_here(parts.hostname):
        raise click.UsageError(
            "Over http, anybody on the way could show a card: use https, or give its --id."
        )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _card(url: str) -> "NodeCard":
    """Raises: ExpertError, CardError."""
    from manyminds.network.card import read as read_card
    from manyminds.network.http import fetch_card
    from manyminds.upstream import Client

    async def fetch() -> bytes:
        async with Client() as client:
            return await fetch_card(client, url)

    return read_card(asyncio.run(fetch()))


def _keep(file: str | None, entry: dict[str, Any], card: "NodeCard | None", *, as_json: bool) -> None:
    from manyminds.config import ADDED
    from manyminds.config.added import edited
    from manyminds.network.identity import read_or_make

    config = read(file, {})
    with edited(config.home, "peer") as tables:
        _need_free(entry, read(file, {}))
        tables.append(entry)
    own = read_or_make(config.home).id
    if as_json:
        print_json({**entry, "own_id": own, "card": _shown(card) if card else None})
        return
    if card is not None:
        for what, value in _shown(card).items():
            click.echo(f"{what:24} {value}")
    click.echo(f"{entry['name']} is a peer now; it is kept in {config.home / ADDED}.", err=True)
    click.echo(f"Its owner needs to know this node, too. This node's id is {own}", err=True)


def _need_free(entry: dict[str, Any], config: Any) -> None:
    """Raises: ClickException where name or node are taken."""
    for known in config.peers:
        if known.id == entry["id"]:
            raise click.ClickException(
                f"That node is the peer {known.name} already: run `manyminds federate --remove {known.name}` "
                "first."
            )
    names = {known.name for known in (*config.peers, *config.experts)}
    if entry["name"] in names:
        raise click.ClickException(f"The name {entry['name']} is taken: give another --name.")


def _shown(card: "NodeCard") -> dict[str, Any]:
    says, terms = card.says, card.says.terms
    budget = "any" if terms.budget_nats is None else f"{terms.budget_nats:g} nats ({terms.period})"
    return {
        "name": card.name,
        "id": card.id,
        "experts": says.experts,
        "price_in_usd_per_m": says.price_in_usd_per_m,
        "price_out_usd_per_m": says.price_out_usd_per_m,
        "purposes": ", ".join(terms.purposes) or "any",
        "max_share": 1.0 if terms.max_share is None else terms.max_share,
        "moves_answers_by": budget,
        "skills": ", ".join(card.words),
    }


def _remove(file: str | None, target: str, *, as_json: bool) -> None:
    from manyminds.config.added import edited

    config = read(file, {})
    with edited(config.home, "peer") as tables:
        of = [
            table for table in tables if target.rstrip("/") in (table["name"], table["id"], table.get("url"))
        ]
        for table in of:
            tables.remove(table)
    if not of:
        raise click.ClickException(f"{target} is no peer that this command added.")
    if as_json:
        print_json({"removed": of[0]["name"]})
    else:
        click.echo(f"{of[0]['name']} is no peer any more.", err=True)
