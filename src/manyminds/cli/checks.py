"""What `manyminds doctor` checks, one function each."""

import asyncio
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from manyminds import catalog
from manyminds.config import POLICIES, Config, mask
from manyminds.errors import ManymindsError

__all__ = ["Check", "run"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `found` says what to do where it is not ok."""

    name: str
    ok: bool
    found: str


def run(config: Config, environ: Mapping[str, str], *, verify: bool) -> list[Check]:
    """All checks, in the order of starting. Reads every model file when `verify` is set."""
    yes = [Check("python", True, f"{platform.python_version()} on {platform.machine()}")]
    checks = [*yes, _home(config), *_models(config, verify), _memory(config)]
    return [
        *checks,
        _artefact(config),
        _programs(),
        _ledger(config),
        _port(config),
        *_keys(config, environ),
        *_documents(config),
        *asyncio.run(_upstreams(config)),
    ]


def _home(config: Config) -> Check:
    try:
        config.home.mkdir(parents=True, exist_ok=True)
        free_gb = shutil.disk_usage(config.home).free / 1e9
    except OSError as error:
        return Check("home", False, f"{config.home}: {error.strerror}; set MANYMINDS_HOME to another folder")
    if not os.access(config.home, os.W_OK):
        todo = "give yourself the right to, or set MANYMINDS_HOME to another folder"
        return Check("home", False, f"{config.home} cannot be written: {todo}")
    return Check("home", True, f"{config.home}, {free_gb:.0f} GB free")


def _models(config: Config, verify: bool) -> Iterator[Check]:
    for model in catalog.tier(config.local.tier):
        if catalog.missing(config.home, model):
            yield Check(model.name, False, f"not here: run `manyminds pull {model.name}`")
        elif verify:
            work = partial(catalog.verify, config.home, model)
            yield _attempt(model.name, "sha256 as in the catalogue", work)
        else:
            yield Check(model.name, True, "here (its hash is checked with --verify)")
    for own in catalog.own(config.home):
        record = catalog.record_of(config.home, own.name)
        if own.name in (*POLICIES, *catalog.load()):
            yield Check(own.name, False, f"the name is taken: remove {record} and add the file again")
        elif not own.path.is_file():
            yield Check(own.name, False, f"{own.path} is gone: put it back, or remove {record}")
        else:
            yield Check(own.name, True, str(own.path))


def _memory(config: Config) -> Check:
    from manyminds.node import local_models

    models, limit = local_models(config), config.local.max_memory_gb
    needed, largest = sum(m.memory_mb for m in models) / 1000, max((m.memory_mb for m in models), default=0)
    found = f"local models that are here need about {needed:.1f} of {limit:g} GB"
    if largest / 1000 > limit:
        found += ": the largest are left out; raise local.max_memory_gb or lower local.context_tokens"
    elif needed > limit:
        found += ": they take turns"
    return Check("memory", largest / 1000 <= limit, found)


def _artefact(config: Config) -> Check:
    """What was learnt, and of how many of the experts: local models that are here, and configured ones."""
    from manyminds.ledger import Ledger
    from manyminds.node import knowledge, learnt, local_models

    try:
        ledger = Ledger(config.ledger.url)
        try:
            artefact, source = learnt(config.home, ledger.gone())
        finally:
            ledger.close()
    except ManymindsError as error:
        return Check("artefact", False, error.message)
    if artefact is None:
        return Check("artefact", False, f"{source}, and is not used: run `manyminds experts relearn`")
    experts = {m.card.name for m in local_models(config)} | {entry.name for entry in config.experts}
    _, said = knowledge(artefact, experts)
    return Check("artefact", True, f"{source}, {said}")


def _programs() -> Check:
    """Whether experts can be asked for programs; where they cannot, the others still answer."""
    from manyminds import sandbox

    try:
        sandbox.need()
    except ManymindsError as error:
        return Check("programs", True, f"not run, so nobody is asked for one. {error.message}")
    return Check("programs", True, "run under bubblewrap")


def _ledger(config: Config) -> Check:
    from manyminds.ledger import Ledger

    return _attempt("ledger", mask(config.ledger.url), lambda: Ledger(config.ledger.url).close())


def _port(config: Config) -> Check:
    host, port = config.server.host, config.server.port
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Check("port", True, f"{host}:{port} is free")
    except OSError as error:
        return Check("port", False, f"{host}:{port}: {error.strerror}; a node may be running already")


def _keys(config: Config, environ: Mapping[str, str]) -> Iterator[Check]:
    for entry in config.experts:
        if entry.key_env:
            present = bool(environ.get(entry.key_env))
            yield Check(
                f"key of {entry.name}", present, f"{entry.key_env} is {'set' if present else 'not set'}"
            )


def _documents(config: Config) -> Iterator[Check]:
    """Whether documents are there, and what was read of them is whole and by the encoder that is here."""
    from manyminds.cli.shelves import flaw_of, state_of, told
    from manyminds.node.wiring import encoder_of

    reading = [entry for entry in config.experts if entry.kind == "documents"]
    encoder = encoder_of(config.home) if reading else None
    for entry in reading:
        try:
            flaw = flaw_of(config.home, entry, encoder.encode if encoder else None)
            yield Check(entry.name, not flaw, flaw or told(entry, state_of(config.home, entry)))
        except (ManymindsError, OSError) as error:
            yield Check(entry.name, False, str(error))


async def _upstreams(config: Config) -> list[Check]:
    """Whether the servers behind the experts can be reached at all; nothing is asked of a model."""
    import aiohttp

    checks = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        for entry in (e for e in config.experts if e.kind == "openai"):
            try:
                async with session.get(f"{entry.url.rstrip('/')}/models", allow_redirects=False) as response:
                    checks.append(
                        Check(entry.name, response.status < 500, f"reached (status {response.status})")
                    )
            except (aiohttp.ClientError, TimeoutError) as error:
                checks.append(
                    Check(entry.name, False, f"cannot be reached: {error or 'no reply within 5 s'}")
                )
    return checks


def _attempt(name: str, found: str, work: Callable[[], object]) -> Check:
    try:
        work()
    except ManymindsError as error:
        return Check(name, False, error.message)
    return Check(name, True, found)
