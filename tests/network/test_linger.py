"""Connections that are closed at once, whatever set SO_LINGER on them."""

import os
import socket
import struct
from pathlib import Path

import pytest

from manyminds.network.linger import unlinger

pytestmark = pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="the system has no /dev/fd")

LONG = struct.pack("ii", 1, 10)


def lingers(one: socket.socket) -> bool:
    on, _ = struct.unpack("ii", one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    return bool(on)


def test_sockets_do_not_linger_and_stay_open() -> None:
    known: dict[int, int] = {}
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        other, _ = server.accept()
        with other:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LONG)
            unlinger(known)
            assert not lingers(one)
            one.sendall(b"still here")
            assert other.recv(100) == b"still here"
        assert one.fileno() in known


def test_no_file_is_left_open() -> None:
    before = len(os.listdir("/dev/fd"))
    unlinger({})
    assert len(os.listdir("/dev/fd")) == before


def test_a_number_that_is_another_socket_now_is_looked_at_again() -> None:
    with socket.socket() as one:
        known = {one.fileno(): 1}  # of an inode that was there before
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LONG)
        unlinger(known)
        assert not lingers(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LONG)
        unlinger(known)
        assert lingers(one)  # which is known by now
