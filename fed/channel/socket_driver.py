"""The driver's end of a channel over sockets: it listens, and lets its proxies in.

It listens in a directory of its own with mode 0700, and if it is told so on a port too, for proxies on other nodes of
the party's cluster, where both ends show the party's certificate. One thread accepts; each handshake has a thread.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import os
import selectors
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from fed.channel.boots import Boots
from fed.channel.contract import ChannelError, DriverEnd, DriverHandler, Lane
from fed.channel.handshake import HANDSHAKE_S, HELLO_BYTES, PROOF_BYTES, Hello, Tls, challenge, new_token
from fed.channel.socket_lanes import LaneThread, SelectorThread
from fed.channel.socket_proxy import SocketAddress

__all__ = ["SocketDriverEnd"]

logger = logging.getLogger("fed.channel")

MAX_HANDSHAKES: Final = 16
"""At once. Two proxies make four."""
NO_DESCRIPTORS_S: Final = 0.1
PREFIX: Final = "fed-channel-"
SOCKET: Final = "driver"
DEAD_S: Final = 60.0
"""After how long a directory whose socket nobody listens at is not one that is just being made."""


class SocketDriverEnd(DriverEnd):
    """Listens for the proxies of one driver.

    Args:
        party: Whose, for the names of its threads.
        host: Listen for proxies on other nodes too, at this address of this one. Empty: do not.
        tls: How such connections are secured. None: only by the token, which is for jobs without TLS.
    """

    def __init__(self, party: str, host: str = "", tls: Tls | None = None) -> None:
        self._thread_name = f"fed-{party}-channel"
        self._host = host
        self._tls = tls
        self._process = os.getpid()
        self._token = new_token()
        self._directory: str | None = None
        self._listeners: list[socket.socket] = []
        # Guards the next two.
        self._lock = threading.Lock()
        self._boots = Boots()
        self._open = False
        # By family: who reaches the port must not keep out who is on this node.
        self._room: dict[int, threading.Semaphore] = collections.defaultdict(
            lambda: threading.Semaphore(MAX_HANDSHAKES)
        )
        self._threads: list[SelectorThread] = []
        self._lanes: dict[Lane, LaneThread] = {}

    @property
    def address(self) -> SocketAddress:
        """Where it listens, once it is started.

        Raises:
            RuntimeError: It is not.
        """
        if not self._listeners:
            raise RuntimeError("the channel is not open")
        path, *ports = (listener.getsockname() for listener in self._listeners)
        return SocketAddress(path, self._token, self._host, ports[0][1] if ports else 0)

    @override
    def start(self, handler: DriverHandler) -> None:
        # Paths of sockets are limited to some hundred bytes, so not in a directory of many letters.
        parent = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()  # noqa: S108 - mode 0700
        _remove_dead(Path(parent))
        self._directory = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        try:
            self._listen(socket.AF_UNIX, str(Path(self._directory, SOCKET)))
            if self._host:
                self._listen(socket.AF_INET6 if ":" in self._host else socket.AF_INET, (self._host, 0))
        except OSError:
            self._remove()
            raise
        self._lanes = {lane: LaneThread(f"{self._thread_name}-{lane.name.lower()}", handler) for lane in Lane}
        self._open = True
        entrance = SelectorThread(self._thread_name)
        for listener in self._listeners:
            entrance.watch(listener, selectors.EVENT_READ, functools.partial(self._accept, listener))
        self._threads = [entrance, *self._lanes.values()]
        for thread in self._threads:
            thread.start()

    @override
    def close(self) -> None:
        if os.getpid() != self._process:
            # A process that was forked has a copy of what is not its own.
            return
        with self._lock:
            # Whoever is still being let in comes too late.
            self._open = False
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.stop()
        self._remove()

    def _listen(self, family: int, address: Any) -> None:
        listener = socket.socket(family)
        self._listeners.append(listener)
        listener.bind(address)
        listener.listen()
        listener.setblocking(False)

    def _remove(self) -> None:
        # First: a file at which nobody listens is what a driver leaves that was killed.
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        while self._listeners:
            self._listeners.pop().close()

    def _accept(self, listener: socket.socket, _: int) -> None:
        try:
            accepted, _address = listener.accept()
        except BlockingIOError:
            # It has gone already.
            return
        except OSError as error:
            logger.warning("the channel cannot take a connection: %s", error)
            # There are no descriptors left, and it stays ready to be taken. This thread has nothing else to do.
            time.sleep(NO_DESCRIPTORS_S)
            return
        if not self._room[listener.family].acquire(blocking=False):
            accepted.close()
            return
        # A thread, because who connects may say nothing for a while.
        threading.Thread(
            target=self._let_in, args=(accepted,), name=f"{self._thread_name}-handshake", daemon=True
        ).start()

    def _let_in(self, accepted: socket.socket) -> None:
        family = accepted.family
        try:
            proven = self._shake_hands(accepted)
        except (OSError, ChannelError) as error:
            logger.warning("the channel refused a connection: %s", error)
            return
        finally:
            self._room[family].release()
        if proven is None:
            return
        connected, hello = proven
        connected.setblocking(False)
        if family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._open and self._boots.admits(hello.role, hello.boot_id):
                # With the lock, so that connections reach a lane in the order in which their boots were admitted.
                self._lanes[hello.lane].adopt(connected, hello)
                return
        logger.info("an earlier life of the %s proxy wanted to connect, or the channel closes", hello.role.name.lower())
        connected.close()

    def _shake_hands(self, accepted: socket.socket) -> tuple[socket.socket, Hello] | None:
        """Returns the secured connection, and whose it is; None if somebody only looks who is alive.

        Raises:
            ChannelError: It is none of this driver's proxies.
            OSError: It did not say so in time, or it broke.
        """
        deadline = time.monotonic() + HANDSHAKE_S
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(accepted.close)
            accepted.settimeout(HANDSHAKE_S)
            if accepted.family != socket.AF_UNIX and self._tls is not None:
                accepted = cleanup.enter_context(self._tls.context.wrap_socket(accepted, server_side=True))
                self._tls.check(accepted.getpeercert(binary_form=True) or b"")
            said = _read(accepted, HELLO_BYTES, deadline)
            if not said:
                return None
            challenged = challenge(self._token, said)
            accepted.sendall(challenged.answer)
            if not challenged.accepts(_read(accepted, PROOF_BYTES, deadline)):
                raise ChannelError("something connected that does not know the token")
            cleanup.pop_all()
            return accepted, challenged.hello


def _remove_dead(parent: Path) -> None:
    """Remove the directories of drivers of this user's that were killed: nobody listens there any more."""
    for directory in parent.glob(f"{PREFIX}*"):
        try:
            status = directory.stat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < DEAD_S:
                continue
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(str(directory / SOCKET))
        except (ConnectionRefusedError, FileNotFoundError):
            shutil.rmtree(directory, ignore_errors=True)
        except OSError:
            # Whatever it is, it is not known to be dead.
            continue


def _read(source: socket.socket, count: int, deadline: float) -> bytes:
    """So many bytes, or none if there are none.

    Raises:
        ChannelError: There are some, and not so many.
        OSError: They did not come in time, or it broke.
    """
    data = b""
    while len(data) < count:
        source.settimeout(max(0.001, deadline - time.monotonic()))
        piece = source.recv(count - len(data))
        if not piece:
            if data:
                raise ChannelError("a connection ended before it was one")
            break
        data += piece
    return data
