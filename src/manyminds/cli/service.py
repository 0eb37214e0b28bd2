"""One process that serves: its node, its edge, what it tells of both, and the signals that it heeds."""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from manyminds import catalog
from manyminds.cli.administer import Administering
from manyminds.cli.canaries import canaries
from manyminds.cli.relearn import relearn
from manyminds.cli.reprobe import reprobe
from manyminds.cli.serve import url_of
from manyminds.cli.settings import print_json
from manyminds.config import Config
from manyminds.errors import ConfigError, ManymindsError
from manyminds.node import ENCODER, Node
from manyminds.node.learnt import bases
from manyminds.node.observed import Observed
from manyminds.node.overview import Overview
from manyminds.node.revocation import WORD
from manyminds.private import PRIVATE
from manyminds.router.policy import DIRECT, POLICIES
from manyminds.web.admin import AdminEdge
from manyminds.web.app import ENDPOINTS, App, Edge
from manyminds.web.metrics import Metrics, Network, render_all
from manyminds.web.observer import Observer
from manyminds.web.pages import pages
from manyminds.web.replies import new_id
from manyminds.web.requestlog import RequestLog
from manyminds.web.server import Server, room
from manyminds.web.spans import open_spans
from manyminds.web.tls import context

if TYPE_CHECKING:
    from manyminds.node.membership import Membership
    from manyminds.web.network import NetworkEdge
    from manyminds.workers.seat import Seat

__all__ = ["DRAIN_S", "Service", "admin_edge"]

DRAIN_S: Final = 10.0
"""For answers under way when the node is told to end."""

_WATCH_S: Final = 1.0  # between two looks at files; a change counts when two find the same

_PIPE_BYTES: Final = 4096  # which no other process's can come between

log = logging.getLogger(__name__)


class _Announce(Protocol):
    def __call__(self, url: str, running: Collection[str], *, ready: bool) -> None: ...


class Service:
    """`run` serves until it is told to end: SIGTERM and Ctrl-C, or a supervisor, of whose `seat` it is.

    It reads the configuration anew when that has changed, or on SIGHUP; what is being answered is answered
    as it began.

    Args:
        config: what to run.
        again: reads it anew.
        listener: where to listen.
        announce: told when all is loaded.
        as_json: whether URL and process id go to standard output.
    """

    def __init__(
        self,
        config: Config,
        again: Callable[[], Config],
        listener: socket.socket,
        announce: _Announce,
        *,
        as_json: bool = False,
        seat: "Seat | None" = None,
    ) -> None:
        server = config.server
        self._config = self._begun = config
        self._again = again
        self._listener = listener
        self._announce = announce
        self._as_json = as_json
        self._seat = seat
        self._loopback = ip_address(listener.getsockname()[0]).is_loopback
        self._required = server.keys == "required" or not self._loopback
        self._url = url_of(config, listener.getsockname()[1])
        self._tls = _certified(config) if server.tls_cert else None
        self._ending = seat.ending if seat else asyncio.Event()
        self._hurrying = seat.hurrying if seat else asyncio.Event()
        self._outdated = asyncio.Event()  # the configuration
        word = config.home / WORD
        self._files = (*config.files, *bases(config.home), word, catalog.record_of(config.home, "").parent)
        self._taken = _look(self._files)  # how they looked before they were last read

    def end(self) -> None:
        """As a signal does."""
        self._ending.set()

    async def run(self) -> None:
        """Raises: ManymindsError: it cannot begin."""
        lines, observed = RequestLog(_put), Observed()

        def record(*told: Any) -> None:
            observer.record(*told)
            observed.record(*told)

        async with AsyncExitStack() as stack:
            node = Node(
                self._config,
                os.environ,
                keys_required=self._required,
                explores=True,
                also=record,
                shared=self._seat.shared if self._seat else None,
                follows=True,
            )
            await stack.enter_async_context(node)
            stack.callback(lines.close)
            if self._required and not node.has_keys:
                raise ConfigError(
                    f"At {self._config.server.host} callers of this node need a key, and there is none yet: "
                    "make one with `manyminds keys create NAME`, or listen on 127.0.0.1."
                )
            spans = open_spans(os.environ, version("manyminds"), node.look)
            if spans is not None:
                stack.callback(spans.close)
            metrics = Metrics(
                version("manyminds"),
                ENDPOINTS,
                (*POLICIES, PRIVATE, DIRECT),
                node,
                lambda: node.backlog,
                node.circuits,
                lambda: _network(node.membership),
            )
            observer = Observer(metrics, lines, spans)
            await self._serve(node, metrics, observer, observed)

    async def _serve(self, node: Node, metrics: Metrics, observer: Observer, observed: Observed) -> None:
        seat = self._seat

        def snapshot() -> bytes:
            metrics.in_flight = node.admission.inside
            return metrics.snapshot()

        async def figures() -> bytes:
            if seat is not None:
                return render_all(await seat.figures())
            metrics.in_flight = node.admission.inside
            return metrics.render()

        shown = await asyncio.to_thread(pages)
        administering = Administering(node, lambda: self._config, self._listener.getsockname()[1])
        admin = admin_edge(Overview(node, observed), administering, tls=self._tls is not None)

        def edge() -> Edge:
            return Edge(
                expert=node.gateway,
                policies=(*POLICIES, PRIVATE),
                cards=lambda: node.cards,
                ready=lambda: node.ready,
                max_body_bytes=int(self._config.server.max_body_mb * 1e6),
                loopback=self._loopback,
                admission=node.admission,
                aliases=self._config.aliases,
                knows=node.knows,
                seen=observer.seen,
                metrics=figures,
                grade=node.grade,
                rated=node.rated,
                paused=lambda: node.paused,
                encoder=ENCODER,
                embed=node.embed,
                network=_network_edge(node.membership),
                admin=admin,
                pages=shown,
            )

        if seat is not None:
            seat.snapshot, seat.release, seat.reload = snapshot, node.admission.give_back, self._outdated.set
        app = App(edge())
        node.renewed = lambda: app.replace(edge())
        server = Server(app, room())
        await server.listen(self._listener, self._tls)
        self._heed()
        working = [
            asyncio.create_task(self._load(node)),
            asyncio.create_task(self._read_again(node, lambda: app.replace(edge()))),
            asyncio.create_task(self._watch()),
        ]
        if seat is None or seat.shared.tidies:
            working.append(asyncio.create_task(reprobe(lambda: node.drifted, lambda: self._config)))
            working.append(asyncio.create_task(relearn(lambda: node.gone, lambda: self._config)))
            working.append(asyncio.create_task(canaries(node, lambda: self._config, new_id)))
        try:
            await self._ending.wait()
            if seat is not None:
                seat.leaves()
            await self._close(server)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def _close(self, server: Server) -> None:
        """In good order, or where that is not waited for, at once."""
        closing = asyncio.create_task(server.close(DRAIN_S))
        hurrying = asyncio.create_task(self._hurrying.wait())
        await asyncio.wait([closing, hurrying], return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not closing.done():
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            await server.close(0.0)

    def _heed(self) -> None:
        """Signals, or what the supervisor says instead of them; and says that it listens."""
        if self._seat is not None:
            self._seat.listens()
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ending.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._outdated.set)
        if self._as_json:
            print_json({"url": self._url, "pid": os.getpid()})
            sys.stdout.flush()

    def _interrupt(self) -> None:
        if self._ending.is_set():
            self._hurrying.set()
        self._ending.set()

    async def _load(self, node: Node) -> None:
        await node.load()
        gc.collect()
        gc.freeze()  # what is here by now stays: no need to look through it again
        if self._seat is None:
            self._announce(self._url, node.running, ready=node.ready)
        else:
            self._seat.is_ready(node.running, node.ready)

    async def _watch(self) -> None:
        """Finds the configuration outdated once its files, or what was learnt, have changed and rest."""
        before = began = self._taken
        try:
            outdated = await asyncio.to_thread(self._again) != self._begun
        except ManymindsError:
            outdated = True
        if outdated and self._taken is began:  # it changed while this process started
            self._taken = []
        while True:
            await asyncio.sleep(_WATCH_S)
            now = await asyncio.to_thread(_look, self._files)
            if now == before != self._taken:  # not while it is being written
                self._outdated.set()
            before = now

    async def _read_again(self, node: Node, replace: Callable[[], None]) -> None:
        """Takes over the configuration whenever it is outdated. One that is wrong changes nothing."""
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            self._taken = _look(self._files)
            try:
                config = await self._take_over(node, replace)
            except ManymindsError as error:
                log.error("The configuration stays as it was. %s", error)
                continue
            if fixed := _fixed(self._begun, config):
                log.warning("%s will count after a restart.", ", ".join(fixed))
            await node.load()
            log.info("The configuration was read anew: %s can be asked.", ", ".join(node.running) or "nobody")

    async def _take_over(self, node: Node, replace: Callable[[], None]) -> Config:
        """Raises: ManymindsError: nothing has changed."""
        config = await asyncio.to_thread(self._again)
        if self._begun.file is not None and config.file != self._begun.file:
            raise ConfigError(f"{self._begun.file} is gone: put it back, or restart without it.")
        renewed = _certified(config) if self._tls is not None and config.server.tls_cert else None
        await node.reload(config)
        self._config = config
        replace()
        if renewed is not None and self._tls is not None:
            try:
                self._tls.load_cert_chain(config.server.tls_cert, config.server.tls_key)
            except OSError as error:  # it changed while it was looked at
                log.error("The certificate stays as it was (%s): send SIGHUP again.", error)
        return config


def _network(membership: "Membership | None") -> Network:
    if membership is None:
        return Network(0, {}, {})
    cards = {f"card {why}": count for why, count in membership.directory.refused.items()}
    refused = cards | {"ask": membership.answering.refused, "frame": membership.strange}
    return Network(len(membership.present), membership.deeds, refused)


def _network_edge(membership: "Membership | None") -> "NetworkEdge | None":
    if membership is None:
        return None
    from manyminds.web.network import NetworkEdge

    answering = membership.answering
    answer = partial(answering.answer, by_https=True)
    return NetworkEdge(lambda: membership.card, answer, answering.tell)


def admin_edge(overview: Overview, administering: Administering, *, tls: bool) -> AdminEdge:
    """What the node's owner finds at `/v1/admin/`."""
    return AdminEdge(
        gets={
            "experts": overview.experts,
            "library": overview.library,
            "frontier": overview.frontier,
            "network": overview.network,
            "ledger": overview.ledger,
        },
        posts=administering.posts,
        streams=administering.streams,
        events=overview.events,
        tls=tls,
    )


def _look(files: Iterable[Path]) -> list[tuple[int, int, int] | None]:
    """What differs where a file, or a folder, is another or says something else; None where there is none."""
    looks: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            found = file.stat()
            looks.append((found.st_ino, found.st_mtime_ns, found.st_size))
        except OSError:
            looks.append(None)
    return looks


def _certified(config: Config) -> ssl.SSLContext:
    """What encrypts, with the certificate as it is now. Raises: ConfigError."""
    return context(Path(config.server.tls_cert), Path(config.server.tls_key))


def _fixed(before: Config, after: Config) -> list[str]:
    """Keys that have changed and that a running node does not take over."""
    server = [
        name for name in before.server.__struct_fields__ if name not in ("max_body_mb", "tls_cert", "tls_key")
    ]
    sections = {
        "server": server,
        "ledger": ["url", "store_text"],
        "cache": list(before.cache.__struct_fields__),
    }
    fixed = [
        f"{section}.{name}"
        for section, names in sections.items()
        for name in names
        if getattr(getattr(before, section), name) != getattr(getattr(after, section), name)
    ]
    begins_or_ends = bool(before.server.tls_cert) != bool(after.server.tls_cert)
    return [*fixed, "server.tls_cert"] if begins_or_ends else fixed


def _put(text: str) -> None:
    """Writes lines, so many at once as a pipe takes in one piece: other workers write there, too."""
    while text:
        cut = len(text) if len(text) <= _PIPE_BYTES else text.rindex("\n", 0, _PIPE_BYTES) + 1
        print(text[:cut], end="", file=sys.stderr, flush=True)
        text = text[cut:]
