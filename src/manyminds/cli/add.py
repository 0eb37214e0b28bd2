"""`manyminds experts add`: newcomers."""

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from manyminds.cli.adding import at_url, entered, fields_of, probed
from manyminds.cli.documents import publish
from manyminds.cli.entries import shown, told
from manyminds.cli.newcomers import Asking, Tell, asking, show, telling
from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.config import Config, ExpertEntry

__all__ = ["add"]

_CARD_BYTES: Final = 64_000
_OF_SERVERS: Final = ("model", "key_env", "price_in_usd_per_m", "price_out_usd_per_m")
_OF_MODELS: Final = ("model", "key_env", "context_tokens", "offers")
_OF_DOCUMENTS: Final = ("writer", "cites", "watch")
_OFFERS: Final = ("tools", "json_schema", "image", "logprobs", "n", "embeddings")


@click.command()
@click.argument("targets", nargs=-1, metavar="URL|FILE.gguf|CARD")
@click.option("--discover", is_flag=True, help="List what answers on this machine; add the MODELs named.")
@click.option("--all", "every", is_flag=True, help="With --discover: add all models that answer.")
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
@click.option("--documents", metavar="PATH", help="Answer from documents: of a folder, or of one file.")
@click.option(
    "--writer", metavar="EXPERT", help="Who writes answers from them; auto: your models. Else: quoted."
)
@click.option(
    "--cites",
    type=click.Choice(("quote", "place", "none")),
    help="What answers show of documents: words, place only (default), or nothing.",
)
@click.option("--watch", is_flag=True, help="A node that runs takes over documents that change.")
@click.option("--purpose", "purposes", multiple=True, help="What answers may be for; may be repeated.")
@click.option("--caller", "callers", multiple=True, help="Who may be answered; may be repeated.")
@click.option("--no-probe", is_flag=True, help="Ask it nothing: it counts by what is said of it.")
@asking
@click.option("--events", is_flag=True, help="Print what happens as it happens, a JSON object a line.")
@as_json
@click.pass_obj
def add(
    file: str | None,
    /,
    targets: tuple[str, ...],
    discover: bool,
    every: bool,
    no_probe: bool,
    probes: int,
    thorough: bool,
    budget_usd: float,
    minutes: float,
    events: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Add an expert: a model behind an OpenAI-compatible URL or in a GGUF file, a card's, or documents.

    A CARD is a JSON or TOML file with the keys of one [[expert]], from anybody: it names no key and no
    file of this machine.

    With --documents, what a folder holds is read into HOME/documents; nothing in it is changed, and no model
    is needed. The same command reads again what has changed, and goes on where it was stopped.

    With --discover, what answers at the usual ports of Ollama, vLLM, llama.cpp and LM Studio is listed, and
    the keys of providers that are in the environment; in place of a URL, models to add may be named.

    What is added is kept in HOME/experts.toml; manyminds.toml is never written to. A node that runs takes
    it over within seconds.

    Then it is probed as by `manyminds experts probe`: asked some of the questions that the network was
    learnt from, and taken into the network where that makes it better.
    """
    how = None if no_probe else Asking(probes, thorough, budget_usd, minutes)
    if events and (discover or options["documents"] is not None):
        raise click.UsageError("--events goes with a URL, a GGUF file or a card.")
    if discover:
        if any(value not in (None, (), False) for value in options.values()):
            raise click.UsageError("With --discover, only models are named: add one by its URL instead.")
        _discover(file, targets, how, every=every, as_json=as_json)
        return
    if (documents := options.pop("documents")) is not None:
        _publish(file, documents, options, others=bool(every or targets), as_json=as_json)
        return
    if every or len(targets) != 1:
        raise click.UsageError("Give one URL, GGUF file or card; or --discover, with models or --all.")
    if wrong := [name for name in _OF_DOCUMENTS if options[name]]:
        raise click.UsageError(f"--{wrong[0]} goes with --documents.")
    with _telling(file, events=events) as tell:
        config, said = read(file, {}), _said(options)
        entry = entered(file, _described(targets[0], said, config, tell), tell)
        _advise(entry, config)
        found = _probed(file, [entry], how, tell)
    if events:
        return
    if as_json:
        print_json(shown(entry, config) | {"probed": found})
    else:
        show(found)


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an `[[expert]]` that options give. Raises: ConfigError."""
    from manyminds.config import convert

    return {
        name: convert(f"expert.{name}", value, f"--{name.replace('_', '-')}")
        for name, value in options.items()
        if value not in (None, (), False)
    }


def _publish(file: str | None, path: str, options: Mapping[str, Any], *, others: bool, as_json: bool) -> None:
    """Raises: ManymindsError."""
    if others:
        raise click.UsageError("With --documents, nothing else is added: leave the rest out.")
    if strange := [name for name in _OF_MODELS if options[name] not in (None, ())]:
        raise click.UsageError(f"--{strange[0].removesuffix('s').replace('_', '-')} is for a model.")
    publish(file, path, _said(options), as_json=as_json)


def _probed(
    file: str | None, those: "Sequence[ExpertEntry]", how: Asking | None, tell: Tell
) -> list[dict[str, Any]]:
    try:
        return probed(file, those, how, tell)
    except KeyboardInterrupt:
        again = " ".join(entry.name for entry in those)
        click.echo(f"Stopped. What was added stays; `manyminds experts probe {again}` goes on.", err=True)
        raise


@contextmanager
def _telling(file: str | None, *, events: bool) -> Iterator[Tell]:
    """Says what happens in words, or prints each event as JSON: what goes wrong, too."""
    from msgspec import json

    from manyminds.errors import ManymindsError

    if not events:
        with telling() as said:
            yield lambda event: _tell(file, event, said)
        return

    def tell(event: dict[str, Any]) -> None:
        click.echo(json.encode(event))

    try:
        yield tell
    except ManymindsError as error:
        tell({"event": "error", "message": error.message})
        raise


def _tell(file: str | None, event: dict[str, Any], otherwise: Tell) -> None:
    if event["event"] == "models":
        for name in event["models"]:
            click.echo(name, err=True)
    elif event["event"] == "added":
        config = read(file, {})
        [entry] = (entry for entry in config.experts if entry.name == event["name"])
        click.echo(told(entry, config.home), err=True)
    elif event["event"] == "not_probed":
        names = ", ".join(event["names"])
        why = "Added, yet not probed to the end." if event["begun"] else f"{names}: not probed."
        click.echo(f"{why} {event['why']}", err=True)
    else:
        otherwise(event)


def _discover(
    file: str | None, wanted: Collection[str], how: Asking | None, *, every: bool, as_json: bool
) -> None:
    """Lists what could be added, and adds what is wanted. Raises: ConfigError, also for what is not found."""
    from manyminds.cli.discover import keys, servers
    from manyminds.errors import ConfigError

    config = read(file, {})
    found, usable = asyncio.run(servers(config)), keys(config, os.environ)
    names = {offer.model for server in found for offer in server.models}
    if strange := sorted(set(wanted) - names):
        raise ConfigError(
            f"No server here has a new model {strange[0]!r:.80}: see `manyminds experts add --discover`."
        )
    those = []
    with _telling(file, events=False) as tell:
        for server in found:
            for offer in server.models:
                if every or offer.model in wanted:
                    try:
                        those.append(entered(file, fields_of(offer, {"url": server.url}), tell))
                    except ConfigError as error:
                        if not every:
                            raise
                        click.echo(f"{offer.model} at {server.url} was not added. {error.message}", err=True)
                elif not as_json:
                    click.echo(f"{offer.model}  {server.program} at {server.url}")
        results = _probed(file, those, how, tell)
    if as_json:
        added = [shown(entry, config) for entry in those]
        listed = [
            {"program": s.program, "url": s.url, "models": [offer.model for offer in s.models]} for s in found
        ]
        asks = [{"key_env": name, "url": url} for name, url in usable.items()]
        print_json({"servers": listed, "keys": asks, "added": added, "probed": results})
    else:
        show(results)
    for name, url in usable.items():
        click.echo(f"{name} is set: `manyminds experts add {url} --key-env {name} --model MODEL`", err=True)
    if not found and not usable:
        click.echo("Nothing new answers on this machine, and no key of a known provider is set.", err=True)
    elif found and not those:
        click.echo("Add some with `manyminds experts add --discover MODEL`, or all with --all.", err=True)


# --- what is to be added ---------------------------------------------------------------------------


def _described(target: str, said: Mapping[str, Any], config: "Config", tell: Tell) -> dict[str, Any]:
    """The `[[expert]]` of a target, as options complete it. Raises: ManymindsError."""
    from manyminds.errors import ConfigError

    if target.lower().startswith(("http://", "https://")):
        return at_url({"url": target, **said}, config, tell)
    path = Path(target).expanduser()
    if not path.is_file():
        hint = f"; did you mean http://{target}?" if ":" in target else ""
        raise ConfigError(f"{target!r:.200} is neither a URL like http://HOST:PORT/v1 nor a file{hint}.")
    if path.suffix.lower() in (".json", ".toml"):
        return at_url({**_card(path), **said}, config, tell)
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


# --- what is said ----------------------------------------------------------------------------------


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
    if entry.key_env:
        click.echo(f"A node that runs asks it if it was started with {entry.key_env} set.", err=True)
    if entry.url.startswith("https:") and not entry.price_in_usd_per_m + entry.price_out_usd_per_m:
        click.echo("It counts as free: if it is not, give its prices, or budgets count wrong.", err=True)
