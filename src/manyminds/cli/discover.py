"""What could be added: servers on this machine's usual ports, and keys that are in the environment.

Nothing is sent to anybody but this machine, and of a key only its name is looked at.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from manyminds.cli.servers import Offered, is_ours, offered
from manyminds.errors import ManymindsError
from manyminds.upstream import Client

if TYPE_CHECKING:
    from manyminds.config import Config

__all__ = ["PORTS", "Found", "hint", "keys", "servers"]

PORTS: Final = MappingProxyType({11434: "Ollama", 8000: "vLLM", 8080: "llama.cpp", 1234: "LM Studio"})
"""Where they listen if nobody says otherwise."""

_KEYS: Final = MappingProxyType(
    {
        "ANTHROPIC_API_KEY": "https://api.anthropic.com/v1",
        "DEEPSEEK_API_KEY": "https://api.deepseek.com/v1",
        "GROQ_API_KEY": "https://api.groq.com/openai/v1",
        "MISTRAL_API_KEY": "https://api.mistral.ai/v1",
        "OPENAI_API_KEY": "https://api.openai.com/v1",
        "OPENROUTER_API_KEY": "https://openrouter.ai/api/v1",
        "TOGETHER_API_KEY": "https://api.together.xyz/v1",
    }
)
_CONNECT_S: Final = 0.3
_LIST_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class Found:
    """A server of this machine, and those of its models that no expert is made of yet."""

    program: str
    url: str
    models: tuple[Offered, ...]


async def servers(config: "Config", ports: Mapping[int, str] = PORTS) -> list[Found]:
    """Those on loopback with a model that is new, all asked at once; not manyminds' own nodes."""
    async with Client(_CONNECT_S) as client:
        asked = [_server(client, port, name, config) for port, name in ports.items()]
        found = await asyncio.gather(*asked)
    return [server for server in found if server is not None]


async def _server(client: Client, port: int, program: str, config: "Config") -> Found | None:
    url = f"http://127.0.0.1:{port}/v1"
    try:
        models = await offered(client, url, "", "", _LIST_S)
    except ManymindsError:  # nobody is there, or it is something else
        return None
    known = {entry.model for entry in config.experts if _local_port(entry.url) == port}
    new = tuple(offer for offer in models if offer.model not in known)
    return Found(program, url, new) if new and not is_ours(models) else None


def _local_port(url: str) -> int | None:
    parts = urlsplit(url)
    return parts.port if parts.hostname in ("127.0.0.1", "localhost", "::1") else None


def keys(config: "Config", environ: Mapping[str, str]) -> dict[str, str]:
    """Names of known keys that are set and that no expert uses yet, with the base URL each is for."""
    used = {entry.key_env for entry in config.experts}
    return {name: url for name, url in _KEYS.items() if environ.get(name, "").strip() and name not in used}


def hint(config: "Config", environ: Mapping[str, str]) -> str:
    """One line on what could be added; empty where there is nothing. Does not ask the node's own port."""
    ports = {port: name for port, name in PORTS.items() if port != config.server.port}
    found = [
        f"{server.program} at {server.url} ({len(server.models)} models)"
        for server in asyncio.run(servers(config, ports))
    ]
    found += keys(config, environ)
    if not found:
        return ""
    return f"Not asked yet: {', '.join(found)}. `manyminds experts add --discover` says how to add them."
