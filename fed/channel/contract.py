"""The direct channel: how a party's driver and its two proxies talk without a call to Ray.

The driver listens, and a proxy connects to it: twice, once for data and once for control, so that no value ever delays
an error. A proxy that was killed and lives again connects as another *boot*; nothing else tells a restart.

::

    driver                                        proxy
    DriverEnd.start ──────────── address ───────► ProxyEnd.start
    DriverHandler.connected ◄── one connection for each lane, both ends prove that they know the token
        Connection.send(snapshot) ──────────────► ProxyHandler.received
    DriverHandler.received ◄────────────────────  ProxyEnd.send
    DriverHandler.lost ◄──────── it broke, or a later one took its place; the proxy connects again

Guarantees, of every implementation:

1. What is sent on one connection arrives in order, each frame once and whole, up to where the connection is lost.
   Nothing is kept across connections: whoever sends begins each with all that the other end must know.
2. Of one role and lane there is one connection at a time. `lost` is called for one before `connected` is for the next.
3. A boot whose place another one has taken never has a connection again.
4. Each lane has a thread of its own at the driver: a handler that takes long holds up its own lane only.
5. `send` never blocks, may be called from any thread, and is in vain on a connection that is lost.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Sequence
from typing import Final, Protocol

__all__ = [
    "MAX_FRAME_BYTES",
    "SOON_S",
    "ChannelError",
    "Connection",
    "DriverEnd",
    "DriverHandler",
    "Lane",
    "ProxyEnd",
    "ProxyHandler",
    "Role",
]

SOON_S: Final = 0.01
"""Within what time goes what may wait. Whoever waits for the answer of a peer waits as much longer at most."""

MAX_FRAME_BYTES: Final = 64 << 20
"""Of one frame. Whoever sends sees to it that none is larger, and `send` refuses one that is."""


class Role(enum.Enum):
    """Which proxy."""

    SENDER = 1
    RECEIVER = 2


class Lane(enum.Enum):
    """What a connection is for."""

    DATA = 1
    CONTROL = 2


class ChannelError(Exception):
    """The other end does not speak this protocol, or does not know the token. A sentence for the log."""


class Connection(abc.ABC):
    """One lane to one proxy, as the driver has it.

    Attributes:
        role: Which proxy.
        lane: What for.
        boot_id: One life of that proxy's process.
    """

    def __init__(self, role: Role, lane: Lane, boot_id: str) -> None:
        self.role = role
        self.lane = lane
        self.boot_id = boot_id

    @abc.abstractmethod
    def send(self, *frames: bytes) -> None:
        """Send frames, after all that were sent before.

        Raises:
            ValueError: One is larger than `MAX_FRAME_BYTES`.
        """

    def send_soon(self, *frames: bytes) -> None:
        """Send frames together with what is sent next, and within `SOON_S`. On the thread of the lane only.

        To be woken for them would cost the proxy more than to read them.

        Raises:
            ValueError: One is larger than `MAX_FRAME_BYTES`.
        """
        self.send(*frames)

    @abc.abstractmethod
    def close(self) -> None:
        """End it. The proxy connects again, unless it is closed too. Idempotent."""


class DriverHandler(Protocol):
    """What happens at the driver's end. Called on the thread of the connection's lane; must not raise."""

    def connected(self, connection: Connection) -> None:
        """A proxy has connected. What is sent in here is the first that it gets."""

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        """Frames have come, at least one."""

    def lost(self, connection: Connection) -> None:
        """It is over. Whatever was sent may or may not have arrived."""


class DriverEnd(abc.ABC):
    """Where a driver's proxies connect to."""

    @abc.abstractmethod
    def start(self, handler: DriverHandler) -> None:
        """Listen.

        Raises:
            OSError: That cannot be done here.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End all connections, and leave nothing behind. Not to be called by a handler. Idempotent."""


class ProxyHandler(Protocol):
    """What happens at a proxy's end. Called on its event loop; must not raise."""

    def connected(self, lane: Lane) -> None:
        """A lane is there, anew. What is sent in here is the first that the driver gets of it."""

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        """Frames have come, at least one."""

    def lost(self, lane: Lane) -> None:
        """A lane is gone, and being connected again."""


class ProxyEnd(abc.ABC):
    """A proxy's two connections to its driver. Lives on one event loop.

    Attributes:
        orphaned: Called on the event loop when the connections are lost and the system says that nobody listens any
            more where the driver did: its process has ended. Maybe more than once; never by an end that cannot tell.
    """

    def __init__(self) -> None:
        self.orphaned: Callable[[], None] = _nothing

    @abc.abstractmethod
    def start(self, handler: ProxyHandler) -> None:
        """Connect, and connect again whenever a connection is lost, until it is closed."""

    @abc.abstractmethod
    def send(self, lane: Lane, *frames: bytes) -> None:
        """Send frames, after all that were sent before. In vain while the lane is not connected.

        Raises:
            ValueError: One is larger than `MAX_FRAME_BYTES`.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """End both connections. Idempotent."""


def _nothing() -> None:
    """Nobody wants to know."""
