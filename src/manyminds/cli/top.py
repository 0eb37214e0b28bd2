"""`manyminds top`: what a running node does, as it happens."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import click

from manyminds.cli.settings import as_json, print_json, read

if TYPE_CHECKING:
    from manyminds.cli.overview import Overview
    from manyminds.upstream import Client, Response

__all__ = ["top"]

_EXPERTS_BYTES: Final = 64_000_000
_EVENT_BYTES: Final = 4_000_000
_AGAIN_S: Final = 5.0  # between two looks at the experts
_RETRY_S: Final = 2.0  # after a node went away
_FIRST_S: Final = 15.0  # for the first answer


@click.command()
@click.option("--url", help="Of the node, like http://HOST:PORT; default: that of manyminds.toml.")
@click.option(
    "--key-env",
    default="NODE_KEY",
    show_default=True,
    metavar="NAME",
    help="Environment variable that holds an admin's key, where the node wants one.",
)
@as_json
@click.pass_obj
def top(file: str | None, url: str | None, key_env: str, as_json: bool) -> None:
    """Show a running node's experts, traffic and cost, until Ctrl-C.

    Where standard output is no terminal, and with --json, it is how things stand, once.
    """
    from manyminds.cli.overview import Overview
    from manyminds.cli.serve import url_of

    if url is None:
        config = read(file, {})
        url = url_of(config, config.server.port)
    url = url.rstrip("/").removesuffix("/v1")
    node = _Node(url, os.environ.get(key_env, "").strip(), key_env)
    overview = Overview(url)
    if as_json or not sys.stdout.isatty():
        asyncio.run(_once(node, overview))
        if as_json:
            print_json(overview.snapshot())
        else:
            from rich.console import Console

            Console(width=200, markup=False, emoji=False).print(overview)
        return
    with suppress(KeyboardInterrupt):
        asyncio.run(_live(node, overview))


async def _once(node: "_Node", overview: "Overview") -> None:
    """How things stand. Raises: ManymindsError."""
    from manyminds.errors import UnavailableError
    from manyminds.upstream import Client

    try:
        async with asyncio.timeout(_FIRST_S), Client() as client:
            overview.show(await node.experts(client))
            async with aclosing(node.events(client)) as events:
                async for happened in events:
                    overview.take(happened)
                    if happened.get("event") == "traffic":
                        return
    except TimeoutError:
        raise UnavailableError(f"{node.url} did not answer within {_FIRST_S:g} s: see its log.") from None


async def _live(node: "_Node", overview: "Overview") -> None:
    """Until it is cancelled; a node that goes away may come back.

    Raises: ManymindsError, at the start only.
    """
    from rich.console import Console
    from rich.live import Live

    from manyminds.errors import ManymindsError
    from manyminds.upstream import Client

    await _once(node, overview)
    console = Console(markup=False, emoji=False)
    async with Client() as client:
        with Live(overview, console=console, screen=True, refresh_per_second=4, redirect_stderr=False):
            while True:
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(_heard(node, client, overview))
                        both.create_task(_looked(node, client, overview))
                except* ManymindsError as errors:
                    overview.trouble = f"{errors.exceptions[0]} Trying again."
                    await asyncio.sleep(_RETRY_S)


async def _heard(node: "_Node", client: "Client", overview: "Overview") -> None:
    """Raises: UnavailableError, at the end of what the node tells."""
    from manyminds.errors import UnavailableError

    async with aclosing(node.events(client)) as events:
        async for happened in events:
            overview.trouble = ""
            overview.take(happened)
    raise UnavailableError(f"{node.url} tells no more.")


async def _looked(node: "_Node", client: "Client", overview: "Overview") -> None:
    while True:
        overview.show(await node.experts(client))
        await asyncio.sleep(_AGAIN_S)


class _Node:
    """A node, as an admin may see it."""

    def __init__(self, url: str, key: str, key_env: str) -> None:
        self.url = url
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._key_env = key_env

    async def experts(self, client: "Client") -> list[dict[str, Any]]:
        """Raises: ConfigError, RejectedError, UnavailableError."""
        import msgspec

        from manyminds.errors import UnavailableError
        from manyminds.upstream import UpstreamError

        response = await self._get(client, "/v1/admin/experts")
        try:
            body = await response.whole(_EXPERTS_BYTES)
            found: list[dict[str, Any]] = msgspec.json.decode(body)["data"]
        except UpstreamError as error:
            raise UnavailableError(f"{self.url} broke off ({error}).") from None
        except (msgspec.MsgspecError, LookupError, TypeError):
            raise UnavailableError(f"{self.url} answers, yet not as a node of manyminds does.") from None
        return found

    async def events(self, client: "Client") -> AsyncGenerator[dict[str, Any], None]:
        """What it tells, until it ends. Raises: ConfigError, RejectedError, UnavailableError."""
        import msgspec

        from manyminds.errors import UnavailableError
        from manyminds.upstream import UpstreamError

        response = await self._get(client, "/v1/admin/events")
        held = b""
        try:
            async for piece in response:
                *events, held = (held + piece).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: {"):
                        yield msgspec.json.decode(event[6:])
                if len(held) > _EVENT_BYTES:
                    raise UnavailableError(f"{self.url} sends an event without end.")
        except UpstreamError as error:
            raise UnavailableError(f"{self.url} broke off ({error}).") from None
        except msgspec.MsgspecError:
            raise UnavailableError(f"{self.url} answers, yet not as a node of manyminds does.") from None
        finally:
            response.close()

    async def _get(self, client: "Client", path: str) -> "Response":
        from manyminds.errors import ConfigError, RejectedError, UnavailableError
        from manyminds.upstream import ConnectError, Target, TargetError, UpstreamError

        try:
            response = await client.get(Target(f"{self.url}{path}", self._headers))
        except TargetError as error:
            raise ConfigError(f"{self.url!r:.200} cannot be asked: {error}.") from None
        except ConnectError as error:
            raise UnavailableError(
                f"No node answers at {self.url} ({error}): start one with `manyminds serve`, or say where it"
                " is with --url."
            ) from None
        except UpstreamError as error:
            raise UnavailableError(f"{self.url} does not answer as a node does ({error}).") from None
        if response.status == 200:
            return response
        status = response.status
        response.close()
        if status in (401, 403):
            raise RejectedError(
                f"{self.url} wants an admin's key (status {status}): `manyminds keys create NAME --admin`"
                f" makes one; put it into {self._key_env}."
            )
        raise UnavailableError(f"{self.url}{path} answers with status {status}: is it a node of manyminds?")
