"""`manyminds experts add` and `remove`: newcomers, and who leaves."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.cli.servers import Offered
    from manyminds.config import Config, ExpertEntry
    from manyminds.errors import ManymindsError

__all__ = ["add", "remove"]

_LIST_S: Final = 15.0  # for a server's list of models
_CARD_BYTES: Final = 64_000
_OF_SERVERS: Final = ("model", "key_env", "price_in_usd_per_m", "price_out_usd_per_m")
_OFFERS: Final = ("tools", "json_schema", "image", "logprobs", "n", "embeddings")


@click.command()
@click.argument("target", metavar="URL|FILE.gguf|CARD")
@click.option("--name", help="What callers call it; default: its model's name, or its file's.")
@click.option("--model", help="Its name at that URL; needed where there are several.")
@click.option("--key-env", metavar="NAME", help="Environment variable that holds its key.")
@click.option("--price-in-usd-per-m", type=float, help="Price per million prompt tokens.")
@click.option("--price-out-usd-per-m", type=float, help="Price per million completion tokens.")
@click.option("--source", help="Whom attribution credits; default: its own name.")
@click.option("--skill", "skills", multiple=True, help="What it is good at, in words; may be repeated.")
@click.option("--accuracy", type=float, help="Share of its answers that are right; default: 0.5.")
@click.option("--context-tokens", type=int, help="Its context window; default: what its server says.")
@click.option(
    "--offer",
    "offers",
    multiple=True,
    type=click.Choice(_OFFERS),
    help="What it supports; may be repeated.",
)
@as_json
@click.pass_obj
def add(file: str | None, /, target: str, as_json: bool, **options: Any) -> None:
    """Add an expert: a model behind an OpenAI-compatible URL, a GGUF file, or what a card describes.

    A CARD is a JSON or TOML file with the keys of one [[expert]], from anybody: it names no key and no
    file of this machine.

    What is added is kept in HOME/experts.toml; manyminds.toml is never written to. A node that runs takes
    it over within seconds.
    """
    from manyminds.config import ADDED, convert, entries
    from manyminds.config.added import edited

    config = read(file, {})
    said = {
        name: convert(f"expert.{name}", value, f"--{name.replace('_', '-')}")
        for name, value in options.items()
        if value not in (None, ())
    }
    fields = _described(target, said, config)
    _need_free(fields["name"], config)
    with edited(config.home) as tables:
        _need_free(fields["name"], read(file, {}))  # as it is now
        tables.append(fields)
    place = config.home / ADDED
    [entry] = entries([fields], place, {}).values()
    if as_json:
        print_json(_shown(entry) | {"file": str(place)})
    click.echo(f"{entry.name} was added: {_where(entry)}. It is kept in {place}.", err=True)
    _advise(entry, config)


@click.command()
@click.argument("name")
@as_json
@click.pass_obj
def remove(file: str | None, name: str, as_json: bool) -> None:
    """Remove the expert NAME that `experts add` or `pull --gguf` added; of others, say where they are.

    A node that runs no longer asks it within seconds, and answers whom it is answering. The ledger keeps
    what it recorded.
    """
    from manyminds import catalog
    from manyminds.config import home_of
    from manyminds.config.added import edited

    home = home_of(os.environ)
    with edited(home) as tables:
        mine = [table for table in tables if table["name"] == name]
        for table in mine:
            tables.remove(table)
        if mine:
            _need_unnamed(file, name)
    if not mine:
        config = read(file, {})
        if name not in {own.name for own in catalog.own(home)}:
            raise _elsewhere(name, config)
        _need_unnamed(file, name)
        catalog.record_of(home, name).unlink(missing_ok=True)
    if as_json:
        print_json({"name": name, "removed": True})
    click.echo(
        f"{name} was removed. The ledger keeps its calls and grades: whoever is added under that name again"
        " goes on from there, so give another model another name.",
        err=True,
    )
    _tell_learnt(home, name)


# --- what is to be added ---------------------------------------------------------------------------


def _described(target: str, said: Mapping[str, Any], config: "Config") -> dict[str, Any]:
    """The `[[expert]]` of a target, as options complete it. Raises: ManymindsError."""
    from manyminds.errors import ConfigError

    if target.lower().startswith(("http://", "https://")):
        return _at_url({"url": target, **said}, config)
    path = Path(target).expanduser()
    if not path.is_file():
        hint = f"; did you mean http://{target}?" if ":" in target else ""
        raise ConfigError(f"{target!r:.200} is neither a URL like http://HOST:PORT/v1 nor a file{hint}.")
    if path.suffix.lower() in (".json", ".toml"):
        return _at_url({**_card(path), **said}, config)
    if strange := [name for name in _OF_SERVERS if name in said]:
        option = strange[0].replace("_", "-")
        raise click.UsageError(f"--{option} is for a model behind a URL: a file runs on this machine.")
    return _of_file(path, said)


def _of_file(path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    from manyminds import catalog

    catalog.need_gguf(path)
    return {"name": path.stem.lower(), "kind": "local", "path": str(path.absolute()), **said}


def _card(path: Path) -> dict[str, Any]:
    """What a card says, whoever wrote it. Raises: ConfigError."""
    import json
    import tomllib

    from manyminds.config import entries
    from manyminds.errors import ConfigError

    try:
        with path.open("rb") as content:
            raw = content.read(_CARD_BYTES + 1)
        if len(raw) > _CARD_BYTES:
            raise ConfigError(f"{path} is larger than {_CARD_BYTES // 1000} kB, which no card is.")
        text = raw.decode("utf-8-sig")
        said = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no card: {error!s:.200}.") from None
    said = said.get("expert", said) if isinstance(said, dict) else said
    tables = said if isinstance(said, list) else [said]
    if len(tables) != 1:
        raise ConfigError(f"{path} describes {len(tables)} experts: make a card of each.")
    [entry] = entries(tables, path, {}).values()
    if entry.kind != "openai":
        raise ConfigError(f"{path} is of kind {entry.kind}: a card may not name a file of this machine.")
    if entry.key_env:
        raise ConfigError(f"{path} names a key of yours, which a card may not: remove it, see --key-env.")
    if not all(text.isprintable() for text in (entry.url, entry.model, entry.source, *entry.skills)):
        raise ConfigError(f"{path} holds characters that cannot be shown, which no card needs.")
    return {key: getattr(entry, key) for key in {**tables[0], "model": ""}}


def _at_url(said: dict[str, Any], config: "Config") -> dict[str, Any]:
    """Asks the server which models it has. Raises: ManymindsError."""
    from manyminds.cli.servers import is_ours
    from manyminds.errors import ConfigError

    if "name" in said:
        _need_free(said["name"], config)
    key_env = said.get("key_env", "")
    key = os.environ.get(key_env, "").strip() if key_env else ""
    if key_env and not key:
        raise ConfigError(f"{key_env} is not set: export it first, here and where the node runs.")
    models = asyncio.run(_ask(said["url"], key, key_env))
    if is_ours(models) and _is_own(said["url"], config):
        raise ConfigError(f"{said['url']} is this node itself, which would ask itself for ever.")
    offer = _chosen(models, said)
    found = {
        "context_tokens": offer.context_tokens,
        "price_in_usd_per_m": offer.price_in_usd_per_m,
        "price_out_usd_per_m": offer.price_out_usd_per_m,
    }
    known = {key: value for key, value in found.items() if value is not None}
    fields = {"name": _name_of(offer.model, said), **known, **said, "model": offer.model}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


async def _ask(url: str, key: str, key_env: str) -> "list[Offered]":
    from manyminds.cli.servers import offered
    from manyminds.upstream import Client

    async with Client() as client:
        return await offered(client, url, key, key_env, _LIST_S)


def _chosen(models: "Sequence[Offered]", said: Mapping[str, Any]) -> "Offered":
    """Raises: ConfigError where it is not clear which of them is meant."""
    from difflib import get_close_matches

    from manyminds.errors import ConfigError

    url, names = said["url"], [offer.model for offer in models]
    if not names:
        raise ConfigError(f"{url} has no model: load or pull one there first.")
    wanted = said.get("model")
    if wanted is None and len(names) == 1:
        return models[0]
    if wanted in names:
        return models[names.index(wanted)]
    for name in names:
        click.echo(name, err=True)
    if wanted is None:
        raise ConfigError(f"{url} has these {len(names)} models: say which with --model NAME.")
    near = get_close_matches(wanted, names, n=1, cutoff=0.4)
    hint = f": did you mean {near[0]}?" if near else ", but those above."
    raise ConfigError(f"{url} has no model {wanted!r:.80}{hint}")


def _name_of(model: str, said: Mapping[str, Any]) -> str:
    from manyminds.config import convert
    from manyminds.errors import ConfigError

    if "name" in said:
        return str(said["name"])
    try:
        return str(convert("expert.name", model, "model"))
    except ConfigError:
        raise ConfigError(
            f"Callers cannot call it {model!r:.80}: give it a name, with --name NAME."
        ) from None


# --- names -----------------------------------------------------------------------------------------


def _need_free(name: str, config: "Config") -> None:
    """Raises: ConfigError where callers would mean somebody else by that name."""
    from manyminds import catalog
    from manyminds.config import POLICIES
    from manyminds.errors import ConfigError

    holder = ""
    if name in POLICIES:
        holder = "a policy"
    elif name in catalog.load() or name == "manyminds":
        holder = "manyminds itself" if name == "manyminds" else "a model of the catalogue"
    elif name in {own.name for own in catalog.own(config.home)}:
        holder = "a file that `manyminds pull --gguf` added"
    elif name in {entry.name for entry in config.experts}:
        holder = f"an expert of {config.origins[f'expert.{name}.name'].removeprefix('file ')}"
    elif name in config.aliases:
        holder = f"an alias in {config.file}"
    if holder:
        raise ConfigError(f"The name {name!r} is taken, by {holder}: give another, with --name NAME.")


def _need_unnamed(file: str | None, name: str) -> None:
    """Raises: ConfigError where an alias stands for it, with which no node would start."""
    from manyminds.errors import ConfigError

    try:
        config = read(file, {})
    except ConfigError:  # which removing it may mend
        return
    for alias, targets in config.aliases.items():
        if name in targets:
            raise ConfigError(f"aliases.{alias} in {config.file} stands for {name}: change that first.")


def _elsewhere(name: str, config: "Config") -> "ManymindsError":
    """Why an expert cannot be removed here, and where it can."""
    from difflib import get_close_matches

    from manyminds import catalog
    from manyminds.errors import ConfigError

    configured = [entry.name for entry in config.experts]
    if name in configured:
        return ConfigError(f"{name} is in {config.file}: delete its [[expert]] there.")
    if name in catalog.load():
        return ConfigError(
            f'{name} is of the catalogue: local.tier, which is "{config.local.tier}", says which of these'
            ' run; with "none", none does. One alone is added by `manyminds experts add FILE.gguf`.'
        )
    near = get_close_matches(name, configured, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}?" if near else "`manyminds experts list` shows all."
    return ConfigError(f"No expert is named {name!r:.80}. {hint}")


def _is_own(url: str, config: "Config") -> bool:
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        here = parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        here = False
    return here and parts.port == config.server.port


# --- what is said ----------------------------------------------------------------------------------


def _shown(entry: "ExpertEntry") -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("name", "kind", "url", "model", "path", "source")}


def _where(entry: "ExpertEntry") -> str:
    return entry.path if entry.kind == "local" else f"{entry.model} at {entry.url}"


def _advise(entry: "ExpertEntry", config: "Config") -> None:
    """What keeps it from being asked, or has it asked too much."""
    from manyminds.node import estimate_mb

    if entry.kind == "local":
        tokens = entry.context_tokens or config.local.context_tokens
        needed_gb = estimate_mb(Path(entry.path).stat().st_size, tokens) / 1000
        if needed_gb > config.local.max_memory_gb:
            click.echo(
                f"It needs about {needed_gb:.1f} GB and local.max_memory_gb is"
                f" {config.local.max_memory_gb:g}: it is not asked before you raise that.",
                err=True,
            )
    elif entry.url.startswith("https:") and not entry.price_in_usd_per_m + entry.price_out_usd_per_m:
        click.echo("It counts as free: if it is not, give its prices, or budgets count wrong.", err=True)


def _tell_learnt(home: Path, name: str) -> None:
    from manyminds.errors import ArtefactError
    from manyminds.node import ARTEFACT, learnt

    try:
        artefact, source = learnt(home)
    except ArtefactError:
        return
    if source == str(home / ARTEFACT) and any(
        n.rpartition(":")[0] == name or n == name for n in artefact.experts
    ):
        click.echo(
            f"{source} was learnt with its answers: `manyminds train DIR --exclude {name}` learns without.",
            err=True,
        )
