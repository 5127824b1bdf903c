"""The driver's threads that wait for sockets: one for each lane, which serves its connections.

A lane's thread reads, and writes what a socket had no room for. `Connection.send` writes by itself: another thread
would take longer to wake than that takes.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from typing_extensions import override

from fed.channel.contract import SOON_S, ChannelError, Connection, DriverHandler, Role
from fed.channel.framing import Framer, check_frames, framed
from fed.channel.handshake import Hello

__all__ = ["LaneThread", "SelectorThread", "SocketConnection"]

logger = logging.getLogger("fed.channel")

READ_BYTES: Final = 1 << 18
NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
JOIN_S: Final = 10.0
"""How long the end of a thread is waited for; it takes longer only where a handler does not return."""


class SelectorThread:
    """A thread that waits for sockets, and does what is posted to it."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._posted: collections.deque[Callable[[], None]] = collections.deque()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._stopping = False
        # When to call `_on_time`, by the machine's clock.
        self._due: float | None = None
        self.watch(self._woken, selectors.EVENT_READ, self._drain_wakes)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call back with each of these events that happens. On the thread, or before its start."""
        if sock.fileno() in self._selector.get_map():
            self._selector.modify(sock, events, callback)
        else:
            self._selector.register(sock, events, callback)

    def post(self, step: Callable[[], None]) -> None:
        """Have something done on the thread, soon. Never blocks."""
        self._posted.append(step)
        # Full of wakes is as good as one.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake.send(b"\0")

    def stop(self) -> None:
        """End the thread, after what was posted."""
        self.post(self._stop)
        self._thread.join(JOIN_S)

    def call_within(self, seconds: float) -> None:
        """Have `_on_time` called before so much time has passed. On the thread."""
        if self._due is None:
            self._due = time.monotonic() + seconds

    def _on_time(self) -> None:
        """For subclasses."""

    def _stop(self) -> None:
        self._stopping = True

    def _drain_wakes(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _serve(self) -> None:
        while not self._stopping:
            left_s = None if self._due is None else max(0.0, self._due - time.monotonic())
            for key, events in self._selector.select(left_s):
                self._guarded(key.data, events)
            if self._due is not None and time.monotonic() >= self._due:
                self._due = None
                self._guarded(self._on_time)
            while self._posted:
                self._guarded(self._posted.popleft())
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except BaseException:
            # A handler must not raise; if one does nevertheless, the others are served. Nor may it end the thread.
            logger.exception("thread %s", self._thread.name)


class LaneThread(SelectorThread):
    """Serves the connections of one lane, and tells its handler."""

    def __init__(self, name: str, handler: DriverHandler) -> None:
        super().__init__(name)
        self._handler = handler
        self._connections: dict[Role, SocketConnection] = {}

    def adopt(self, sock: socket.socket, hello: Hello) -> None:
        """Serve a proxy that has come in, in place of an earlier connection of its. From any thread."""
        connection = SocketConnection(sock, hello, self)
        self.post(lambda: self._begin(connection))

    def drop(self, connection: SocketConnection) -> None:
        """A connection has broken, or is to end. On the thread."""
        if connection.end():
            del self._connections[connection.role]
            self._selector.unregister(connection.sock)
            # Closed alone, it would stay open in a process that was forked meanwhile.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.sock.close()
            self._handler.lost(connection)

    def rewatch(self, connection: SocketConnection) -> None:
        """Wait for what a connection waits for now. On the thread."""
        if not connection.over:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_backlog else 0)
            self.watch(connection.sock, events, lambda happened: self._serve_connection(connection, happened))

    @override
    def _on_time(self) -> None:
        for connection in self._connections.values():
            connection.send()

    @override
    def _stop(self) -> None:
        for connection in list(self._connections.values()):
            self.drop(connection)
        super()._stop()

    def _begin(self, connection: SocketConnection) -> None:
        older = self._connections.get(connection.role)
        if older is not None:
            self.drop(older)
        self._connections[connection.role] = connection
        self.rewatch(connection)
        self._handler.connected(connection)

    def _serve_connection(self, connection: SocketConnection, events: int) -> None:
        if connection.over:
            return
        if events & selectors.EVENT_WRITE and connection.flush():
            self.rewatch(connection)
        if not events & selectors.EVENT_READ:
            return
        try:
            data = connection.read()
            frames = connection.framer.feed(data) if data else []
        except (OSError, ChannelError) as error:
            logger.warning("the channel to the %s proxy broke: %s", connection.role.name.lower(), error)
            self.drop(connection)
            return
        if frames:
            self._handler.received(connection, frames)
        if data == b"":
            self.drop(connection)


class SocketConnection(Connection):
    """One lane to one proxy, over a socket."""

    def __init__(self, sock: socket.socket, hello: Hello, thread: LaneThread) -> None:
        super().__init__(hello.role, hello.lane, hello.boot_id)
        self.sock = sock
        self.framer = Framer()
        self._thread = thread
        # Guards the rest, and the socket: TLS has one state for both directions.
        self._lock = threading.Lock()
        self._backlog: collections.deque[memoryview] = collections.deque()
        # What goes with what is sent next.
        self._soon: list[bytes] = []
        self._broken = False
        self.over = False

    @property
    def has_backlog(self) -> bool:
        """Whether something waits for room in the socket."""
        with self._lock:
            return bool(self._backlog)

    @override
    def send(self, *frames: bytes) -> None:
        check_frames(frames)
        with self._lock:
            if self._soon:
                frames = (*self._soon, *frames)
                self._soon.clear()
            if self.over or self._broken or not frames:
                return
            data = memoryview(framed(frames))
            if self._backlog:
                self._backlog.append(data)
                return
            rest = self._write(data)
            if not rest:
                return
            self._backlog.append(rest)
        self._thread.post(lambda: self._thread.rewatch(self))

    @override
    def send_soon(self, *frames: bytes) -> None:
        check_frames(frames)
        with self._lock:
            self._soon += frames
        self._thread.call_within(SOON_S)

    @override
    def close(self) -> None:
        self._thread.post(lambda: self._thread.drop(self))

    def read(self) -> bytes | None:
        """What has come; nothing at the end; None if there is nothing yet.

        Raises:
            OSError: It broke.
        """
        pieces = []
        with self._lock:
            try:
                pieces.append(self.sock.recv(READ_BYTES))
                # What TLS has taken from the socket no selector knows of.
                while pieces[-1] and isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
                    pieces.append(self.sock.recv(READ_BYTES))
            except NOT_NOW:
                pass
        return b"".join(pieces) if pieces else None

    def flush(self) -> bool:
        """Write what waits. Returns whether none is left."""
        with self._lock:
            while self._backlog:
                rest = self._write(self._backlog.popleft())
                if rest:
                    self._backlog.appendleft(rest)
                    return False
            return True

    def end(self) -> bool:
        """Send nothing any more. Returns whether it was not over before."""
        with self._lock:
            ended, self.over = not self.over, True
            self._backlog.clear()
            return ended

    def _write(self, data: memoryview) -> memoryview:
        """Write as much as there is room for. Returns the rest."""
        try:
            return data[self.sock.send(data) :]
        except NOT_NOW:
            return data
        except OSError:
            # Part of a frame may have gone, after which nothing can follow.
            self._broken = True
            self._backlog.clear()
            self.close()
            return data[:0]
