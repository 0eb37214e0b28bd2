import socket
import sys
from contextlib import closing

import pytest

from manyminds.errors import ConfigError
from manyminds.workers.listeners import Listeners, listen


def waiting(listener: socket.socket) -> int:
    """How many connections wait there; takes them."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return count
        connection.close()
        count += 1


def connect(listeners: Listeners, count: int) -> None:
    for _ in range(count):
        socket.create_connection(listeners.address, timeout=10).close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they share one queue")
def test_each_has_its_part_and_who_is_dropped_none() -> None:
    with closing(Listeners("127.0.0.1", 0)) as listeners:
        one, other = listeners.take(0), listeners.take(1)
        connect(listeners, 64)
        parts = waiting(one), waiting(other)
        assert sum(parts) == 64
        assert min(parts) > 8
        listeners.drop(1)
        connect(listeners, 20)
        assert waiting(one) == 20
        assert listeners.take(0) is one
        again = listeners.take(1, listening=False)
        connect(listeners, 20)
        assert waiting(one) == 20
        again.listen()
        connect(listeners, 64)
        assert waiting(again) > 8


def test_an_address_is_nobody_elses() -> None:
    with closing(Listeners("127.0.0.1", 0)) as listeners:
        listeners.take(0)
        host, port = listeners.address
        for make in (listen, Listeners):
            with pytest.raises(ConfigError, match=f"Cannot listen on {host}:{port}"):
                make(host, port)
    alone = listen("127.0.0.1", 0)
    with closing(alone), pytest.raises(ConfigError, match="Choose another with --port"):
        Listeners("127.0.0.1", alone.getsockname()[1])


def test_an_unknown_host_is_told() -> None:
    with pytest.raises(ConfigError, match=r"Cannot listen on 192\.0\.2\.1:0"):
        Listeners("192.0.2.1", 0)
