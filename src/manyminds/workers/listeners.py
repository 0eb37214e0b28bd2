"""The sockets of one address, one for each worker. Knows no worker.

On Linux each worker has a queue of connections of its own, which the kernel fills evenly: from one queue,
the worker that wakes first takes all that has come. The supervisor holds the sockets too, so that what waits
in the queue of a worker that dies waits for the next one.
"""

import socket
import sys
from typing import Final

from manyminds.errors import ConfigError

__all__ = ["Listeners", "listen"]

_BACKLOG: Final = 2048


def listen(host: str, port: int) -> socket.socket:
    """Raises: ConfigError when the address cannot be had."""
    made = _bound(host, port)
    made.listen(_BACKLOG)
    return made


class Listeners:
    """Sockets by number, of an address that nobody else has.

    Raises: ConfigError when the address cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        # It is bound before it allows others beside it: so it fails where any other has the address, also
        # another supervisor.
        self._first = _bound(host, port)
        self._shares = sys.platform != "linux"  # elsewhere the kernel would give one queue everything
        self._made: dict[int, socket.socket] = {}
        if self._shares:
            self._first.listen(_BACKLOG)
        else:
            self._first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    @property
    def address(self) -> tuple[str, int]:
        """Where they listen, with the port that was chosen."""
        host, port, *_ = self._first.getsockname()
        return host, port

    def take(self, number: int, *, listening: bool = True) -> socket.socket:
        """The socket of that number. It listens from now on, or as soon as its worker has it do so."""
        if self._shares:
            return self._first
        if number not in self._made:
            self._made[number] = _bound(*self.address, beside=True)
            if listening:
                self._made[number].listen(_BACKLOG)
        return self._made[number]

    def drop(self, number: int) -> None:
        """Listens there no longer: what comes goes to the others. What waited there is refused."""
        if not self._shares and number in self._made:
            self._made.pop(number).close()

    def close(self) -> None:
        """Listens nowhere."""
        for number in list(self._made):
            self.drop(number)
        self._first.close()


def _bound(host: str, port: int, *, beside: bool = False) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if beside:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        why = f"Cannot listen on {host}:{port}: {error.strerror or error}."
        raise ConfigError(f"{why} Choose another with --port, or end what uses it.") from None
    return made
