"""Each proxy has a handler of its own at the driver's end."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from fed.channel import ByRole, Connection, Lane, Role


class Silent(Connection):
    @override
    def send(self, *frames: bytes) -> None:
        raise NotImplementedError

    @override
    def close(self) -> None:
        raise NotImplementedError


class Noting:
    def __init__(self) -> None:
        self.happened: list[object] = []

    def connected(self, connection: Connection) -> None:
        self.happened.append(connection.role)

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        self.happened.append((connection.role, *frames))

    def lost(self, connection: Connection) -> None:
        self.happened.append((connection.role, "lost"))


def test_what_happens_with_one_proxy_is_of_no_interest_to_the_handler_of_the_other() -> None:
    handlers = {role: Noting() for role in Role}
    router = ByRole(handlers)
    for role in Role:
        connection = Silent(role, Lane.DATA, "boot")
        router.connected(connection)
        router.received(connection, [b"frame"])
        router.lost(connection)
    assert {role: one.happened for role, one in handlers.items()} == {
        role: [role, (role, b"frame"), (role, "lost")] for role in Role
    }
