"""The direct channel within one process: the contract without a socket.

Each end calls the other one's handler where that expects it: at the driver on the thread of the lane, at a proxy on its
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

from typing_extensions import override

from fed.channel.boots import Boots
from fed.channel.contract import Connection, DriverEnd, DriverHandler, Lane, ProxyEnd, ProxyHandler, Role
from fed.channel.framing import check_frames
from fed.channel.handshake import new_boot_id
from fed.clock import SYSTEM_CLOCK, Clock, Queue

__all__ = ["MemoryDriverEnd", "MemoryProxyEnd"]

logger = logging.getLogger("fed.channel")

JOIN_S: Final = 10.0
"""How long the end of a thread is waited for; it takes longer only where a handler does not return."""


class MemoryDriverEnd(DriverEnd):
    """Where the proxies of a driver in this process connect to.

    Args:
        party: Whose, for the names of its threads.
        clock: What its threads wait by.
    """

    def __init__(self, party: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._party = party
        self._clock = clock
        # Guards the rest.
        self._lock = threading.Lock()
        self._boots = Boots()
        self._lanes: dict[Lane, _LaneThread] = {}

    @override
    def start(self, handler: DriverHandler) -> None:
        with self._lock:
            self._lanes = {
                lane: _LaneThread(f"fed-{self._party}-channel-{lane.name.lower()}", handler, self._clock)
                for lane in Lane
            }

    @override
    def close(self) -> None:
        with self._lock:
            lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.stop()

    def connect(self, proxy: MemoryProxyEnd, lane: Lane) -> None:
        """A proxy wants a connection, and gets one as long as this end is open."""
        with self._lock:
            thread = self._lanes.get(lane)
            if thread is not None and self._boots.admits(proxy.role, proxy.boot_id):
                connection = _MemoryConnection(proxy, lane, thread)
                thread.post(lambda: thread.begin(connection))


class _LaneThread:
    """Calls the handler for the connections of one lane."""

    def __init__(self, name: str, handler: DriverHandler, clock: Clock) -> None:
        self._handler = handler
        self._steps: Queue[Callable[[], None] | None] = clock.queue()
        self._connections: dict[Role, _MemoryConnection] = {}
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def post(self, step: Callable[[], None]) -> None:
        self._steps.put(step)

    def stop(self) -> None:
        """End all connections, and the thread."""
        self.post(self._drop_all)
        self._steps.put(None)
        self._thread.join(JOIN_S)

    # The rest is for the thread.

    def begin(self, connection: _MemoryConnection) -> None:
        older = self._connections.get(connection.role)
        if older is not None:
            self.drop(older)
        self._connections[connection.role] = connection
        connection.proxy.post(lambda: connection.proxy.open(connection))
        self._handler.connected(connection)

    def drop(self, connection: _MemoryConnection) -> None:
        if not connection.over:
            connection.over = True
            del self._connections[connection.role]
            self._handler.lost(connection)
            connection.proxy.post(lambda: connection.proxy.lose(connection))

    def receive(self, connection: _MemoryConnection, frames: tuple[bytes, ...]) -> None:
        if not connection.over:
            self._handler.received(connection, frames)

    def _drop_all(self) -> None:
        for connection in list(self._connections.values()):
            self.drop(connection)

    def _serve(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                step()
            except BaseException:
                # A handler must not raise; if one does nevertheless, the others are served. Nor may it end the thread.
                logger.exception("thread %s", self._thread.name)


class _MemoryConnection(Connection):
    def __init__(self, proxy: MemoryProxyEnd, lane: Lane, thread: _LaneThread) -> None:
        super().__init__(proxy.role, lane, proxy.boot_id)
        self.proxy = proxy
        self.thread = thread
        self.over = False

    @override
    def send(self, *frames: bytes) -> None:
        check_frames(frames)
        if frames and not self.over:
            self.proxy.post(lambda: self.proxy.take(self, frames))

    @override
    def close(self) -> None:
        self.thread.post(lambda: self.thread.drop(self))


class MemoryProxyEnd(ProxyEnd):
    """Connects a proxy to its driver.

    Args:
        driver: The driver's end.
        role: Which proxy it is.
        boot_id: This life of it. None: a new one.
    """

    def __init__(self, driver: MemoryDriverEnd, role: Role, boot_id: str | None = None) -> None:
        super().__init__()
        self.role = role
        self.boot_id = boot_id or new_boot_id()
        self._driver = driver
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handler: ProxyHandler | None = None
        self._connections: dict[Lane, _MemoryConnection] = {}

    @override
    def start(self, handler: ProxyHandler) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        for lane in Lane:
            self._driver.connect(self, lane)

    @override
    def send(self, lane: Lane, *frames: bytes) -> None:
        check_frames(frames)
        connection = self._connections.get(lane)
        if connection is not None and frames:
            connection.thread.post(lambda: connection.thread.receive(connection, frames))

    @override
    async def close(self) -> None:
        handler, self._handler = self._handler, None
        connections, self._connections = self._connections, {}
        for lane, connection in connections.items():
            connection.close()
            if handler is not None:
                handler.lost(lane)

    def post(self, step: Callable[[], None]) -> None:
        """Have something done on the proxy's event loop, if that is still there."""
        if self._loop is not None:
            # Raised where the loop is closed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(step)

    def open(self, connection: _MemoryConnection) -> None:
        """A lane is there. On the loop."""
        if self._handler is None:
            connection.close()
            return
        self._connections[connection.lane] = connection
        self._handler.connected(connection.lane)

    def take(self, connection: _MemoryConnection, frames: tuple[bytes, ...]) -> None:
        """The driver has sent something. On the loop."""
        if self._handler is not None and self._connections.get(connection.lane) is connection:
            self._handler.received(connection.lane, frames)

    def lose(self, connection: _MemoryConnection) -> None:
        """A lane is gone. On the loop."""
        if self._handler is not None and self._connections.get(connection.lane) is connection:
            del self._connections[connection.lane]
            self._handler.lost(connection.lane)
            self._driver.connect(self, connection.lane)
