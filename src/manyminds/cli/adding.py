"""Adding an expert: what its server says of it, its entry, and what probing tells. Prints nothing.

Whoever wants to know how it goes is told, as events: see `Tell`.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from manyminds.cli.entries import enter, need_free
from manyminds.cli.newcomers import Asking, Tell, probe_all, why_not
from manyminds.cli.settings import read

if TYPE_CHECKING:
    from manyminds.cli.servers import Offered
    from manyminds.config import Config, ExpertEntry

__all__ = ["at_url", "entered", "fields_of", "probed"]

_LIST_S: Final = 15.0  # for a server's list of models


def entered(file: str | None, fields: dict[str, Any], tell: Tell) -> "ExpertEntry":
    """Keeps an expert, and tells {"event": "added"}. Raises: ConfigError; see `entries.enter`."""
    entry = enter(file, fields)
    tell({"event": "added", "name": entry.name})
    return entry


def probed(
    file: str | None, those: "Sequence[ExpertEntry]", how: Asking | None, tell: Tell
) -> list[dict[str, Any]]:
    """What came of probing those that were added; nothing where that cannot be, which is no failure.

    Tells {"event": "not_probed"} then, with `why`, and whether it had `begun`; else what `probe_all` does.
    """
    from manyminds.errors import ManymindsError

    names = [entry.name for entry in those if "embeddings" not in entry.offers]
    if how is None or not names:
        return []
    config = read(file, {})
    try:
        if why := why_not(config):
            tell({"event": "not_probed", "why": why, "begun": False, "names": names})
            return []
        return probe_all(config, names, how, tell)
    except ManymindsError as error:
        why = f"{error.message} `manyminds experts probe {' '.join(names)}` goes on."
        tell({"event": "not_probed", "why": why, "begun": True, "names": names})
    return []


def at_url(said: dict[str, Any], config: "Config", tell: Tell) -> dict[str, Any]:
    """The entry of a model behind a URL, by what its server says. Raises: ManymindsError.

    Where it is not clear which model is meant, it tells {"event": "models"} before that.
    """
    from manyminds.cli.servers import is_ours
    from manyminds.errors import ConfigError

    if "name" in said:
        need_free(said["name"], config)
    key_env = said.get("key_env", "")
    key = os.environ.get(key_env, "").strip() if key_env else ""
    if key_env and not key:
        raise ConfigError(f"{key_env} is not set: export it first, here and where the node runs.")
    models = asyncio.run(_ask(said["url"], key, key_env))
    if is_ours(models) and _is_own(said["url"], config):
        raise ConfigError(f"{said['url']} is this node itself, which would ask itself for ever.")
    return fields_of(_chosen(models, said, tell), said)


def fields_of(offer: "Offered", said: dict[str, Any]) -> dict[str, Any]:
    """What is said of an expert comes before what its server says. Raises: ConfigError."""
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


def _chosen(models: "Sequence[Offered]", said: Mapping[str, Any], tell: Tell) -> "Offered":
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
    tell({"event": "models", "models": names})
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


def _is_own(url: str, config: "Config") -> bool:
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        here = parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        here = False
    return here and parts.port == config.server.port
