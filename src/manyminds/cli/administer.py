"""What an owner has done over HTTP: pausing, resuming, removing and adding experts, as the commands do it.

No request names a file of this machine: whoever is added answers at a URL.
"""

import asyncio
import fcntl
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from manyminds.cli import errand
from manyminds.cli.remove import removed
from manyminds.errors import ConfigError, InvalidRequestError, RateLimitError

if TYPE_CHECKING:
    from manyminds.config import Config
    from manyminds.node import Node

__all__ = ["Administering"]

_LOCK: Final = ".administering.lock"
_OF_A_KEY: Final = re.compile(r"[A-Z][A-Z0-9_]*_API_(KEY|TOKEN)")

_T = TypeVar("_T")
_Text = Annotated[str, Meta(min_length=1, max_length=2_000, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
_Price = Annotated[float, Meta(ge=0, le=1e6)]


class _Named(Struct, forbid_unknown_fields=True):
    name: _Text


class _Added(Struct, forbid_unknown_fields=True):
    """As the options of `manyminds experts add URL`."""

    url: _Text
    model: _Text | None = None
    name: _Text | None = None
    key_env: _Text | None = None
    price_in_usd_per_m: _Price | None = None
    price_out_usd_per_m: _Price | None = None
    source: _Text | None = None
    skills: Annotated[tuple[_Text, ...], Meta(max_length=64)] = ()
    probe: bool = True
    probes: Annotated[int, Meta(ge=8, le=10_000)] = 64


class Administering:
    """For `web.admin.AdminEdge`.

    Args:
        node: whose experts they are.
        config: as it is now.
        port: where the node listens: it is not added to itself.
    """

    def __init__(self, node: "Node", config: "Callable[[], Config]", port: int) -> None:
        self._node = node
        self._config = config
        self._port = port

    @property
    def posts(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """By the last word of their paths; each takes a request's fields, and gives the reply's."""
        return {"pause": self._pause, "resume": self._resume, "remove": self._remove}

    @property
    def streams(self) -> dict[str, Callable[[dict[str, Any]], AsyncGenerator[dict[str, Any], None]]]:
        """As `posts`; each gives events. Closed, it ends what is under way; what was added stays."""
        return {"add": self._add}

    async def _pause(self, fields: dict[str, Any]) -> dict[str, Any]:
        return await self._turn(fields, pause=True)

    async def _resume(self, fields: dict[str, Any]) -> dict[str, Any]:
        return await self._turn(fields, pause=False)

    async def _turn(self, fields: dict[str, Any], *, pause: bool) -> dict[str, Any]:
        name = _taken(fields, _Named).name
        await self._node.pause(name, pause=pause)
        return {"name": name, "paused": name in self._node.paused}

    async def _remove(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What was learnt is made anew by the node itself, beside it: see `relearn`."""
        name, config = _taken(fields, _Named).name, self._config()
        with _alone(config.home):
            try:
                _, rows, _ = await asyncio.to_thread(removed, _file(config), [name], None)
            except ConfigError as error:
                raise InvalidRequestError(error.message, param="name") from error
        return {"removed": rows}

    async def _add(self, fields: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """In a process of low priority, so that whoever is answered meanwhile does not notice."""
        said, config = _taken(fields, _Added), self._config()
        if not said.url.lower().startswith(("http://", "https://")):
            raise InvalidRequestError(
                "`url` is where a server with OpenAI's API answers, as http://HOST:PORT/v1; files and "
                "folders are added with `manyminds experts add` on the machine itself.",
                param="url",
            )
        if said.key_env is not None:
            _check_key(said.key_env, config)
        environ = {"MANYMINDS_SERVER_PORT": str(self._port)}
        with _alone(config.home):
            async with aclosing(errand.told(config, *_words(said), environ=environ)) as events:
                async for event in events:
                    yield _shown(event)


def _words(said: _Added) -> list[str]:
    """Each option in one word: what a caller says is never taken for another."""
    options = {
        "model": said.model,
        "name": said.name,
        "key-env": said.key_env,
        "price-in-usd-per-m": said.price_in_usd_per_m,
        "price-out-usd-per-m": said.price_out_usd_per_m,
        "source": said.source,
    }
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    words += [f"--skill={skill}" for skill in said.skills]
    words.append(f"--probes={said.probes}" if said.probe else "--no-probe")
    return ["experts", "add", "--events", *words, "--", said.url]


def _shown(event: Mapping[str, Any]) -> dict[str, Any]:
    """As docs/api.md says: of one expert, whose name is known."""
    kept = {"added": ("name",), "probing": ("asked", "of"), "not_probed": ("why",)}.get(event["event"])
    return {key: value for key, value in event.items() if kept is None or key in ("event", *kept)}


def _check_key(name: str, config: "Config") -> None:
    """Raises: InvalidRequestError for a variable that is no expert's key: no server must learn those."""
    if name not in {entry.key_env for entry in config.experts} and not _OF_A_KEY.fullmatch(name):
        raise InvalidRequestError(
            "`key_env` is the name of a variable that holds an expert's key, as in OPENAI_API_KEY: it ends "
            f"in _API_KEY or _API_TOKEN, which {name!r:.80} does not. Set it under such a name.",
            param="key_env",
        )


def _taken(fields: dict[str, Any], kind: type[_T]) -> _T:
    """Raises: InvalidRequestError."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"The body is not what is expected here: {error}.") from None


def _file(config: "Config") -> str | None:
    return str(config.file) if config.file is not None else None


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One at a time, of all processes of this home. Raises: RateLimitError while another is under way."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("a") as lock:  # closing it gives the lock back
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RateLimitError(
                "An expert is being added or removed already, one at a time: wait until that has ended, or "
                "close the page that is adding one.",
                retry_after_s=5.0,
            ) from None
        yield
