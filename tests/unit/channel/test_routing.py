"""Each lane of each proxy has a handler of its own, at either end."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from fed.channel import ByLane, ByRole, Connection, Lane, Role


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
        self.happened.append((connection.role, connection.lane))

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        self.happened.append((connection.role, connection.lane, *frames))

    def lost(self, connection: Connection) -> None:
        self.happened.append((connection.role, connection.lane, "lost"))


class NotingLanes:
    def __init__(self) -> None:
        self.happened: list[object] = []

    def connected(self, lane: Lane) -> None:
        self.happened.append(lane)

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        self.happened.append((lane, *frames))

    def lost(self, lane: Lane) -> None:
        self.happened.append((lane, "lost"))


def test_what_happens_with_one_lane_of_a_proxy_is_of_no_interest_to_the_handlers_of_the_others() -> None:
    handlers = {(role, lane): Noting() for role in Role for lane in Lane}
    router = ByRole(handlers)
    for role, lane in handlers:
        connection = Silent(role, lane, "boot")
        router.connected(connection)
        router.received(connection, [b"frame", b"another"])
        router.lost(connection)
    assert {key: handler.happened for key, handler in handlers.items()} == {
        key: [key, (*key, b"frame", b"another"), (*key, "lost")] for key in handlers
    }


def test_what_happens_with_one_lane_at_a_proxy_is_of_no_interest_to_the_handler_of_the_other() -> None:
    handlers = {lane: NotingLanes() for lane in Lane}
    router = ByLane(handlers)
    for lane in Lane:
        router.connected(lane)
        router.received(lane, [b"frame", b"another"])
        router.lost(lane)
    assert {lane: handler.happened for lane, handler in handlers.items()} == {
        lane: [lane, (lane, b"frame", b"another"), (lane, "lost")] for lane in Lane
    }
