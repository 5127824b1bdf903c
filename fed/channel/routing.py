"""One handler for each lane of each proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fed.channel.contract import Connection, DriverHandler, Lane, ProxyHandler, Role

__all__ = ["ByLane", "ByRole"]


class ByRole:
    """Passes on what happens at the driver's end to the handler of the proxy and the lane that it happens with.

    Args:
        handlers: One for each.
    """

    def __init__(self, handlers: Mapping[tuple[Role, Lane], DriverHandler]) -> None:
        self._handlers = handlers

    def connected(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        self._handlers[connection.role, connection.lane].connected(connection)

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        """See `fed.channel.DriverHandler`."""
        self._handlers[connection.role, connection.lane].received(connection, frames)

    def lost(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        self._handlers[connection.role, connection.lane].lost(connection)


class ByLane:
    """Passes on what happens at a proxy's end to the handler of the lane that it happens with.

    Args:
        handlers: One for each.
    """

    def __init__(self, handlers: Mapping[Lane, ProxyHandler]) -> None:
        self._handlers = handlers

    def connected(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""
        self._handlers[lane].connected(lane)

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        """See `fed.channel.ProxyHandler`."""
        self._handlers[lane].received(lane, frames)

    def lost(self, lane: Lane) -> None:
        """See `fed.channel.ProxyHandler`."""
        self._handlers[lane].lost(lane)
