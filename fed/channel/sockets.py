"""The direct channel over sockets: of the machine, or TCP where a proxy runs on another node of the party's cluster.

The driver listens in a directory of its own with mode 0700, and if it is told so on a port too, where both ends show
the party's certificate. It has a thread that lets proxies in, and one for each lane, which reads, and writes what a
socket had no room for. `Connection.send` writes by itself: another thread would take longer to wake than that takes.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import os
import selectors
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from typing_extensions import override

from fed.channel.boots import Boots
from fed.channel.contract import (
    ChannelError,
    Connection,
    DriverEnd,
    DriverHandler,
    Lane,
    ProxyEnd,
    ProxyHandler,
    Role,
)
from fed.channel.framing import Framer, framed
from fed.channel.handshake import (
    CHALLENGE_BYTES,
    HELLO_BYTES,
    PROOF_BYTES,
    Hello,
    challenge,
    new_boot_id,
    new_token,
    prove,
)

__all__ = ["SocketAddress", "SocketDriverEnd", "SocketProxyEnd", "Tls"]

logger = logging.getLogger("fed.channel")

HANDSHAKE_S: Final = 10.0
"""How long either end waits for what the other one has to say first."""
MAX_HANDSHAKES: Final = 16
"""At once. Two proxies make four."""
FIRST_RETRY_S: Final = 0.02
MAX_RETRY_S: Final = 1.0
"""A proxy connects again after a pause that doubles from the first of these to the last."""
NO_DESCRIPTORS_S: Final = 0.1
READ_BYTES: Final = 1 << 18
PREFIX: Final = "fed-channel-"
SOCKET: Final = "driver"
DEAD_S: Final = 60.0
"""After how long a directory whose socket nobody listens at is not one that is just being made."""
NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
JOIN_S: Final = 10.0
"""How long the end of a thread is waited for; it takes longer only where a handler does not return."""


@dataclasses.dataclass(frozen=True)
class SocketAddress:
    """What a proxy needs to connect. Whoever has it can pass for one, but for the certificate.

    Attributes:
        path: Of the socket, on the driver's node.
        token: What both ends know.
        host: The driver's node as others reach it.
        port: There; 0 if it listens on its own node only.
    """

    path: str
    # Not shown in a traceback, say.
    token: bytes = dataclasses.field(repr=False)
    host: str = ""
    port: int = 0


class Tls(NamedTuple):
    """How both ends of a TCP connection are secured.

    Attributes:
        context: This end's; made for the server or the client side, with a certificate, and verifying the other's.
        check: Raises `ChannelError` if a certificate (in DER) that was verified is not the party's own.
    """

    context: ssl.SSLContext
    check: Callable[[bytes], None]


class SocketDriverEnd(DriverEnd):
    """Listens for the proxies of one driver.

    Args:
        party: Whose, for the names of its threads.
        host: Listen for proxies on other nodes too, at this address of this one. Empty: do not.
        tls: How such connections are secured. None: only by the token, which is for jobs without TLS.
    """

    def __init__(self, party: str, host: str = "", tls: Tls | None = None) -> None:
        self._party = party
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
        self._room = {
            family: threading.Semaphore(MAX_HANDSHAKES) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
        }
        self._loops: list[_Loop] = []
        self._lanes: dict[Lane, _LaneLoop] = {}

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
        self._lanes = {lane: _LaneLoop(f"fed-{self._party}-channel-{lane.name.lower()}", handler) for lane in Lane}
        self._open = True
        entrance = _Loop(f"fed-{self._party}-channel")
        for listener in self._listeners:
            entrance.post(
                lambda one=listener: entrance.watch(one, selectors.EVENT_READ, lambda _: self._accept(one))  # type: ignore[misc]
            )
        self._loops = [entrance, *self._lanes.values()]

    @override
    def close(self) -> None:
        if os.getpid() != self._process:
            # A process that was forked has a copy of what is not its own.
            return
        with self._lock:
            # Whoever is still being let in comes too late.
            self._open = False
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.stop()
        self._remove()

    def _listen(self, family: int, address: Any) -> None:
        listener = socket.socket(family)
        self._listeners.append(listener)
        listener.bind(address)
        listener.listen()
        listener.setblocking(False)

    def _remove(self) -> None:
        while self._listeners:
            self._listeners.pop().close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
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
            target=self._let_in, args=(accepted,), name=f"fed-{self._party}-channel-handshake", daemon=True
        ).start()

    def _let_in(self, accepted: socket.socket) -> None:
        family = accepted.family
        deadline = time.monotonic() + HANDSHAKE_S
        try:
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(accepted.close)
                accepted.settimeout(HANDSHAKE_S)
                if accepted.family != socket.AF_UNIX:
                    accepted = cleanup.enter_context(self._secured(accepted))
                said = _read(accepted, HELLO_BYTES, deadline)
                if not said:
                    # Another driver that looks who is alive.
                    return
                challenged = challenge(self._token, said)
                accepted.sendall(challenged.answer)
                if not challenged.accepts(_read(accepted, PROOF_BYTES, deadline)):
                    raise ChannelError("something connected that does not know the token")
                cleanup.pop_all()
        except (OSError, ChannelError) as error:
            logger.warning("the channel refused a connection: %s", error)
            return
        finally:
            self._room[family].release()
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = challenged.hello
        with self._lock:
            if self._open and self._boots.admits(hello.role, hello.boot_id):
                # With the lock, so that connections reach a lane in the order in which their boots were admitted.
                self._lanes[hello.lane].adopt(accepted, hello)
                return
        logger.info("an earlier life of the %s proxy wanted to connect, or the channel closes", hello.role.name.lower())
        accepted.close()

    def _secured(self, accepted: socket.socket) -> socket.socket:
        if self._tls is None:
            return accepted
        secured = self._tls.context.wrap_socket(accepted, server_side=True)
        try:
            self._tls.check(secured.getpeercert(binary_form=True) or b"")
        except ChannelError:
            secured.close()
            raise
        return secured


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
        if not piece and not data:
            return data
        if not piece:
            raise ChannelError("a connection ended before it was one")
        data += piece
    return data


class _Loop:
    """A thread that waits for sockets, and does what is posted to it."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._posted: collections.deque[Callable[[], None]] = collections.deque()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._stopping = False
        self.watch(self._woken, selectors.EVENT_READ, lambda _: self._drain_wakes())
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call back whenever one of these events happens. On the thread."""
        if sock.fileno() in self._selector.get_map():
            self._selector.modify(sock, events, callback)
        else:
            self._selector.register(sock, events, callback)

    def forget(self, sock: socket.socket) -> None:
        """Watch it no more. On the thread."""
        self._selector.unregister(sock)

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

    def _stop(self) -> None:
        self._stopping = True

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _serve(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select():
                self._guard(lambda callback=key.data, happened=events: callback(happened))  # type: ignore[misc]
            while self._posted:
                self._guard(self._posted.popleft())
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException:
            # A handler must not raise; if one does nevertheless, the others are served. Nor may it end the thread.
            logger.exception("thread %s", self._thread.name)


class _LaneLoop(_Loop):
    """The connections of one lane."""

    def __init__(self, name: str, handler: DriverHandler) -> None:
        self._handler = handler
        self._connections: dict[Role, _SocketConnection] = {}
        super().__init__(name)

    def adopt(self, sock: socket.socket, hello: Hello) -> None:
        """A proxy has come in."""
        connection = _SocketConnection(sock, hello, self)
        self.post(lambda: self._begin(connection))

    def drop(self, connection: _SocketConnection) -> None:
        """A connection has broken, or is to end. On the thread."""
        if connection.end():
            del self._connections[connection.role]
            self.forget(connection.sock)
            # Closed alone, it would stay open in a process that was forked meanwhile.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.sock.close()
            self._handler.lost(connection)

    def write_later(self, connection: _SocketConnection) -> None:
        """A socket has no room. From any thread."""
        self.post(lambda: self._watch(connection))

    @override
    def _stop(self) -> None:
        for connection in list(self._connections.values()):
            self.drop(connection)
        super()._stop()

    def _begin(self, connection: _SocketConnection) -> None:
        older = self._connections.get(connection.role)
        if older is not None:
            self.drop(older)
        self._connections[connection.role] = connection
        self._watch(connection)
        self._handler.connected(connection)

    def _watch(self, connection: _SocketConnection) -> None:
        if connection.is_over:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_backlog else 0)
        self.watch(connection.sock, events, lambda happened: self._serve_one(connection, happened))

    def _serve_one(self, connection: _SocketConnection, events: int) -> None:
        if connection.is_over:
            return
        if events & selectors.EVENT_WRITE and connection.flush():
            self._watch(connection)
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


class _SocketConnection(Connection):
    def __init__(self, sock: socket.socket, hello: Hello, loop: _LaneLoop) -> None:
        super().__init__(hello.role, hello.lane, hello.boot_id)
        self.sock = sock
        self.framer = Framer()
        self._loop = loop
        # Guards the rest, and the socket: TLS has one state for both directions.
        self._lock = threading.Lock()
        self._backlog: collections.deque[memoryview] = collections.deque()
        self._over = False
        self._broken = False

    @property
    def is_over(self) -> bool:
        """Whether it is lost."""
        return self._over

    @property
    def has_backlog(self) -> bool:
        """Whether something waits for room in the socket."""
        with self._lock:
            return bool(self._backlog)

    @override
    def send(self, *frames: bytes) -> None:
        data = memoryview(framed(frames))
        with self._lock:
            if self._over or self._broken:
                return
            if self._backlog:
                self._backlog.append(data)
                return
            rest = self._write(data)
            if not rest:
                return
            self._backlog.append(rest)
        self._loop.write_later(self)

    @override
    def close(self) -> None:
        self._loop.post(lambda: self._loop.drop(self))

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
                rest = self._write(self._backlog[0])
                if self._broken:
                    return True
                if rest:
                    self._backlog[0] = rest
                    return False
                self._backlog.popleft()
            return True

    def end(self) -> bool:
        """Send nothing any more. Returns whether it was not over before."""
        with self._lock:
            ended, self._over = not self._over, True
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


class SocketProxyEnd(ProxyEnd):
    """Connects a proxy to its driver.

    Args:
        address: Where the driver listens.
        role: Which proxy it is.
        boot_id: This life of it. None: a new one.
        remote: Whether it runs on another node than the driver.
        tls: How the connection to another node is secured. None: only by the token.
    """

    def __init__(
        self,
        address: SocketAddress,
        role: Role,
        boot_id: str | None = None,
        *,
        remote: bool = False,
        tls: Tls | None = None,
    ) -> None:
        self._address = address
        self._remote = remote
        self._tls = tls
        self._role = role
        self._boot_id = boot_id or new_boot_id()
        self._connected: dict[Lane, _ProxyProtocol] = {}
        self._keeping: list[asyncio.Task[None]] = []

    @override
    def start(self, handler: ProxyHandler) -> None:
        self._keeping = [asyncio.ensure_future(self._keep(lane, handler)) for lane in Lane]

    @override
    def send(self, lane: Lane, *frames: bytes) -> None:
        data = framed(frames)
        protocol = self._connected.get(lane)
        if protocol is not None:
            protocol.write(data)

    @override
    async def close(self) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def _keep(self, lane: Lane, handler: ProxyHandler) -> None:
        """Connect again and again."""
        retry_s = FIRST_RETRY_S
        while True:
            hello = Hello(self._role, lane, self._boot_id).encoded()
            protocol = _ProxyProtocol(self._address.token, hello, lane, handler, self._connected, self._tls)
            try:
                await self._connect(protocol)
                await protocol.over
            except OSError as error:
                logger.debug("the driver is not there: %s", error)
            finally:
                protocol.abort()
            retry_s = FIRST_RETRY_S if protocol.was_connected else min(2 * retry_s, MAX_RETRY_S)
            await asyncio.sleep(retry_s)

    async def _connect(self, protocol: _ProxyProtocol) -> None:
        loop = asyncio.get_running_loop()
        if not self._remote:
            await loop.create_unix_connection(lambda: protocol, self._address.path)
            return
        await loop.create_connection(
            lambda: protocol,
            self._address.host,
            self._address.port,
            ssl=None if self._tls is None else self._tls.context,
            server_hostname=None if self._tls is None else self._address.host,
        )


class _ProxyProtocol(asyncio.Protocol):
    """One connection, from the hello to its end."""

    def __init__(
        self,
        token: bytes,
        hello: bytes,
        lane: Lane,
        handler: ProxyHandler,
        connected: dict[Lane, _ProxyProtocol],
        tls: Tls | None,
    ) -> None:
        self._tls = tls
        self._token = token
        self._hello = hello
        self._lane = lane
        self._handler = handler
        self._connected = connected
        self._transport: Any = None
        self._answer = b""
        self._framer = Framer()
        self._deadline: asyncio.TimerHandle | None = None
        self.was_connected = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def abort(self) -> None:
        """End it now. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_S, self.abort)
        secured = transport.get_extra_info("ssl_object")
        if self._tls is not None and secured is not None:
            try:
                self._tls.check(secured.getpeercert(binary_form=True) or b"")
            except ChannelError as error:
                logger.error("the channel to the driver: %s", error)
                self.abort()
                return
        transport.write(self._hello)

    @override
    def data_received(self, data: bytes) -> None:
        try:
            if not self.was_connected:
                self._answer += data
                if len(self._answer) < CHALLENGE_BYTES:
                    return
                answer, data = self._answer[:CHALLENGE_BYTES], self._answer[CHALLENGE_BYTES:]
                self._begin(prove(self._token, self._hello, answer))
            frames = self._framer.feed(data)
        except ChannelError as error:
            logger.error("the channel to the driver: %s", error)
            self.abort()
            return
        if frames and not self.over.done():
            self._handler.received(self._lane, frames)

    @override
    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _begin(self, proof: bytes) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.was_connected = True
        self._transport.write(proof)
        self._connected[self._lane] = self
        self._handler.connected(self._lane)

    def _end(self) -> None:
        if self.over.done():
            return
        self.over.set_result(None)
        if self._deadline is not None:
            self._deadline.cancel()
        if self.was_connected:
            del self._connected[self._lane]
            self._handler.lost(self._lane)
