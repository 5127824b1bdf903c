"""Stands between parties, for tests of what crosses: keeps every byte, and can hold a connection back.

Between each two parties there are two connections, which the parties tell apart and a bystander cannot. So the one
with the data is told by what it does: it carries more than the other.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from fed.config import Address
from fed.testing.simulation import free_addresses

READ_BYTES: Final = 1 << 16
WAIT_S: Final = 10.0


class Way:
    """The way from one party to the listener of another: where it begins, and what has gone along it.

    Args:
        target: Where it ends.

    Attributes:
        address: Where it begins.
    """

    def __init__(self, target: Address) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._server.getsockname()[1])
        # One for each direction of each connection, so that what is sent in one go stays in one piece.
        self._records: list[bytearray] = []
        self._hold_after: int | None = None
        self._held = threading.Event()
        self._let_go = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self._records) // 2

    def hold(self, nbytes: int) -> threading.Event:
        """From now on pass on no more than so many bytes of any one connection to the listener.

        Returns:
            Is set when there is more on one of them.
        """
        self._let_go.clear()
        self._held.clear()
        self._hold_after = nbytes
        return self._held

    def crossed(self) -> bytes:
        """What has gone either way since the last time that it was forgotten."""
        return b"".join(bytes(record) for record in self._records)

    def forget(self) -> None:
        """Keep only what comes from now on."""
        for record in self._records:
            record.clear()

    def let_go(self) -> None:
        """Pass on everything again."""
        self._hold_after = None
        self._let_go.set()

    def close(self) -> None:
        """Cut all connections, and take no more."""
        self.let_go()
        # A thread that is blocked in a socket wakes by this, and not when it is closed.
        for one in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_S)
        for one in (self._server, *self._sockets):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((self._target.host, self._target.port))
            except OSError:
                # Not up yet. Whoever came comes again.
                near.close()
                continue
            self._sockets += near, far
            for source, sink, holding in ((near, far, True), (far, near, False)):
                self._records.append(bytearray())
                arguments = (source, sink, self._records[-1], holding)
                self._threads.append(threading.Thread(target=self._pass_on, args=arguments, daemon=True))
                self._threads[-1].start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, record: bytearray, holding: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(READ_BYTES):
                record += data
                passed += len(data)
                if holding and self._hold_after is not None and passed > self._hold_after:
                    self._held.set()
                    self._let_go.wait()
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Forwarder:
    """Listens in the place of every party, once for each of its peers.

    Args:
        parties: Between whom.
    """

    def __init__(self, parties: Sequence[str]) -> None:
        self.listeners = dict(zip(parties, free_addresses(len(parties)), strict=True))
        self.ways = {(party, peer): Way(self.listeners[peer]) for party in parties for peer in parties if party != peer}

    def addresses(self, party: str) -> Mapping[str, Address]:
        """Where a party is to find itself and its peers."""
        found = {peer: way.address for (source, peer), way in self.ways.items() if source == party}
        return {party: self.listeners[party], **found}

    def forget(self) -> None:
        """Keep only what crosses from now on."""
        for way in self.ways.values():
            way.forget()

    def close(self) -> None:
        """Cut all connections."""
        for way in self.ways.values():
            way.close()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
