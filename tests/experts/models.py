"""Experts of real model files, as the tests here make and ask them."""

import os
import select
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from manyminds import catalog
from manyminds.experts.child import Model
from manyminds.experts.local import Local
from manyminds.experts.openai import OpenAI
from manyminds.experts.room import Room
from manyminds.types import Card, Chunk, Message, Query, Sampling, Task
from manyminds.upstream import Client
from tests import pulled

__all__ = [
    "CARD",
    "CHOICE",
    "NAME",
    "OPTIONS",
    "PATH",
    "ask",
    "cpu_s",
    "has_ended",
    "local",
    "need",
    "pid_of",
    "read",
    "shown_of",
    "text_of",
]

NAME = "smollm2-135m"
PATH = catalog.path_of(pulled.HOME, catalog.find(NAME).files[0])
CARD = Card(NAME, "local", source="lab", price_cpu_usd_per_hour=0.3)
CHOICE = Query((Message("user", "?"),), task=Task("option", (), "What is the capital of France?"))
OPTIONS = ("a banana", "Paris", "seven", "London")


def need() -> None:
    pulled.need(NAME)


@asynccontextmanager
async def local(
    path: Path = PATH,
    *,
    name: str = NAME,
    room: Room | None = None,
    cores: AbstractAsyncContextManager[object] | None = None,
    **limits: Any,
) -> AsyncIterator[Local]:
    """An expert of its own; nothing of it is left at the end."""
    if path == PATH:
        need()
    model = Model(path, **{"context_tokens": 512} | limits)
    card = replace(CARD, name=name)
    async with Client(keep=False) as client:
        expert = Local(
            card,
            model,
            lambda url, key: OpenAI(card, url, client, key),
            client,
            room=room,
            cores=cores or nullcontext(),
        )
        try:
            yield expert
        finally:
            await expert.aclose()


def ask(text: str = "Count from one to ten in words.", max_tokens: int = 16, **sampling: Any) -> Query:
    limits = {"temperature": 0.0, "seed": 7} | sampling
    return Query((Message("user", text),), sampling=Sampling(max_tokens=max_tokens, **limits))


async def read(expert: Local, query: Query) -> list[Chunk]:
    async with aclosing(expert.stream(query)) as stream:
        return [chunk async for chunk in stream]


async def text_of(expert: Local, query: Query) -> str:
    return "".join(chunk.text for chunk in await read(expert, query))


def pid_of(expert: Local) -> int:
    assert expert.pid is not None
    return expert.pid


def has_ended(pid: int, within_s: float = 20.0) -> bool:
    """Whether a process, of whomever, is gone by then."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within_s)[0])
    finally:
        os.close(descriptor)


def shown_of(pid: int) -> list[bytes]:
    """What other users see of a process."""
    return [Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ")]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
