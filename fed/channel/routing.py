"""One handler for each proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fed.channel.contract import Connection, DriverHandler, Role

__all__ = ["ByRole"]


class ByRole:
    """Passes on what happens at the driver's end to the handler of the proxy that it happens with.

    Args:
        handlers: One for each role.
    """

    def __init__(self, handlers: Mapping[Role, DriverHandler]) -> None:
        self._handlers = handlers

    def connected(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        self._handlers[connection.role].connected(connection)

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        """See `fed.channel.DriverHandler`."""
        self._handlers[connection.role].received(connection, frames)

    def lost(self, connection: Connection) -> None:
        """See `fed.channel.DriverHandler`."""
        self._handlers[connection.role].lost(connection)
