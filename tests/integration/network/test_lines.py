"""What a line does to bytes: it holds them up and lets so many through, and changes none."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fed.config import Address
from tests.support.lines import STANDING_S, Line

UNLIMITED = 1e12


@contextlib.contextmanager
def echo() -> Iterator[Address]:
    """Sends back what comes on one connection."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Address("127.0.0.1", server.getsockname()[1])
        thread.join(10)


def there_and_back(line: Line, content: bytes) -> tuple[bytes, float]:
    """What comes back, and after how many seconds all of it has."""
    with socket.create_connection((line.address.host, line.address.port), timeout=30) as connection:
        began = time.monotonic()
        sending = threading.Thread(target=connection.sendall, args=(content,))
        sending.start()
        got = bytearray()
        while len(got) < len(content):
            got += connection.recv(1 << 16)
        took = time.monotonic() - began
        sending.join()
    return bytes(got), took


def test_a_line_changes_nothing() -> None:
    content = os.urandom(3_000_000)
    with echo() as target, Line(target, delay_s=0, bytes_per_s=UNLIMITED) as line:
        assert there_and_back(line, content)[0] == content


def test_a_byte_takes_the_delay_each_way() -> None:
    with echo() as target, Line(target, delay_s=0.05, bytes_per_s=UNLIMITED) as line:
        got, took = there_and_back(line, b"x")
    assert got == b"x"
    assert took >= 0.099


def test_so_many_bytes_get_through_in_a_second() -> None:
    with echo() as target, Line(target, delay_s=0, bytes_per_s=4_000_000) as line:
        _, took = there_and_back(line, bytes(2_000_000))
    assert took >= 0.49


def test_a_line_may_become_another_one() -> None:
    with echo() as target, Line(target, delay_s=30, bytes_per_s=1) as line:
        line.set(delay_s=0, bytes_per_s=UNLIMITED)
        assert there_and_back(line, b"x")[1] < 20


def test_a_sender_waits_for_a_line_that_is_full() -> None:
    # It takes in what a router would hold, and what the sockets do, and no more.
    with (
        echo() as target,
        Line(target, delay_s=0, bytes_per_s=1_000_000) as line,
        socket.create_connection((line.address.host, line.address.port)) as connection,
    ):
        connection.settimeout(2 * STANDING_S)
        with pytest.raises(TimeoutError):
            connection.sendall(bytes(100_000_000))


def test_who_is_not_there_cannot_be_reached() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        target = Address("127.0.0.1", nobody.getsockname()[1])
        with (
            Line(target, delay_s=0, bytes_per_s=UNLIMITED) as line,
            contextlib.suppress(ConnectionResetError),
            socket.create_connection((line.address.host, line.address.port), timeout=10) as connection,
        ):
            assert connection.recv(1) == b""


def test_closing_again_does_nothing() -> None:
    line = Line(Address("127.0.0.1", 1), delay_s=0, bytes_per_s=1)
    line.close()
    line.close()
