"""One suite for all direct channels: what `fed.channel.contract` promises, each keeps.

Whoever imports all of it has the tests, and adds the fixture ``channel``.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fed.channel import MAX_FRAME_BYTES, Connection, DriverEnd, Lane, ProxyEnd, Role
from tests.support.worlds import LIMIT_S, run

BOTH = [(role, lane) for role in Role for lane in Lane]


class Channel(abc.ABC):
    """What makes both ends."""

    driver: DriverEnd

    @abc.abstractmethod
    def proxy(self, role: Role, boot_id: str | None = None) -> ProxyEnd:
        """A proxy's end, not started."""


class Watched:
    """Lets a test wait for what is noted."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not holds():
                await self._changed.wait()
                self._changed.clear()

        await asyncio.wait_for(wait(), LIMIT_S)


class Recorder(Watched):
    """A handler of the driver's end that notes what happens."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.events: list[tuple[str, Any]] = []
        self.threads: dict[Lane, set[str]] = collections.defaultdict(set)
        self.frames: dict[tuple[Role, Lane], list[bytes]] = collections.defaultdict(list)
        self.connections: dict[tuple[Role, Lane], Connection] = {}
        self.on_connected: Callable[[Connection], None] = lambda _: None
        self.on_received: Callable[[Connection], None] = lambda _: None

    def boots(self, role: Role) -> list[str]:
        """The lives of a proxy that are connected, one for each of its lanes that is."""
        return [
            connection.boot_id for (other, _), connection in sorted(self.connections.items(), key=str) if other is role
        ]

    def note(self, event: str, what: Any) -> None:
        self.events.append((event, what))
        self._loop.call_soon_threadsafe(self._changed.set)

    def connected(self, connection: Connection) -> None:
        key = (connection.role, connection.lane)
        self.threads[connection.lane].add(threading.current_thread().name)
        self.connections[key] = connection
        self.on_connected(connection)
        self.note("connected", (*key, connection.boot_id))

    def received(self, connection: Connection, frames: Sequence[bytes]) -> None:
        assert frames
        self.threads[connection.lane].add(threading.current_thread().name)
        self.on_received(connection)
        self.frames[connection.role, connection.lane] += frames
        self.note("received", (connection.role, connection.lane))

    def lost(self, connection: Connection) -> None:
        key = (connection.role, connection.lane)
        if self.connections.get(key) is connection:
            del self.connections[key]
        self.note("lost", (*key, connection.boot_id))


class ProxyRecorder(Watched):
    """As `Recorder`, at a proxy."""

    def __init__(self, end: ProxyEnd) -> None:
        super().__init__()
        self.end = end
        self.events: list[tuple[str, Lane]] = []
        self.frames: dict[Lane, list[bytes]] = collections.defaultdict(list)
        self.on_connected: Callable[[Lane], None] = lambda _: None
        end.start(self)

    def connected(self, lane: Lane) -> None:
        self.events.append(("connected", lane))
        self.on_connected(lane)
        self._changed.set()

    def received(self, lane: Lane, frames: Sequence[bytes]) -> None:
        assert frames
        assert ("connected", lane) in self.events
        self.frames[lane] += frames
        self._changed.set()

    def lost(self, lane: Lane) -> None:
        self.events.append(("lost", lane))
        self._changed.set()


class Deaf:
    """Serves a lane that a test has no use for, at either end."""

    def connected(self, _: object) -> None:
        """Nothing is said."""

    def received(self, _: object, frames: Sequence[bytes]) -> None:
        """Nothing is answered."""

    def lost(self, _: object) -> None:
        """Nothing was kept."""


async def connected(channel: Channel) -> tuple[Recorder, dict[Role, ProxyRecorder]]:
    driver = Recorder()
    channel.driver.start(driver)
    proxies = {role: ProxyRecorder(channel.proxy(role)) for role in Role}
    await driver.until(lambda: set(driver.connections) == set(BOTH))
    return driver, proxies


async def closed(channel: Channel, *proxies: ProxyRecorder) -> None:
    for proxy in proxies:
        await proxy.end.close()
    await asyncio.to_thread(channel.driver.close)


def test_frames_arrive_in_order_both_ways_on_every_lane(channel: Channel) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)
        frames = [bytes([number % 256]) * (number % 300) for number in range(2000)]
        for key, connection in driver.connections.items():
            for start in range(0, 2000, 7):
                connection.send(*frames[start : start + 7])
                proxies[key[0]].end.send(key[1], *frames[start : start + 7])
        for key in BOTH:
            await driver.until(lambda key=key: len(driver.frames[key]) == 2000)  # type: ignore[misc]
            proxy = proxies[key[0]]
            await proxy.until(lambda key=key, proxy=proxy: len(proxy.frames[key[1]]) == 2000)  # type: ignore[misc]
            assert driver.frames[key] == proxy.frames[key[1]] == frames
        await closed(channel, *proxies.values())
        assert collections.Counter(event for event, _ in driver.events)["lost"] == 4

    run(scenario())


def test_what_may_wait_goes_with_what_is_sent_next_or_soon_by_itself(channel: Channel) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)
        proxy = proxies[Role.RECEIVER]

        def answer(connection: Connection) -> None:
            connection.send_soon(b"late")
            if driver.frames[Role.RECEIVER, Lane.DATA]:
                connection.send(b"next")

        driver.on_received = answer
        proxy.end.send(Lane.DATA, b"one")
        await proxy.until(lambda: proxy.frames[Lane.DATA] == [b"late"])
        proxy.end.send(Lane.DATA, b"two")
        await proxy.until(lambda: len(proxy.frames[Lane.DATA]) == 3)
        assert proxy.frames[Lane.DATA] == [b"late", b"late", b"next"]
        await closed(channel, *proxies.values())

    run(scenario())


def test_large_frames_do_not_block_who_sends_them(channel: Channel) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)
        chance = random.Random(1)
        frames = [chance.randbytes(size) for size in (10_000_000, 1, 0, 3_000_000)]
        connection = driver.connections[Role.SENDER, Lane.DATA]
        # Nothing is read meanwhile: this is the loop that would.
        connection.send(*frames)
        connection.send(b"end")
        proxy = proxies[Role.SENDER]
        proxy.end.send(Lane.DATA, *frames)
        await proxy.until(lambda: len(proxy.frames[Lane.DATA]) == 5)
        assert proxy.frames[Lane.DATA] == [*frames, b"end"]
        await driver.until(lambda: len(driver.frames[Role.SENDER, Lane.DATA]) == 4)
        assert driver.frames[Role.SENDER, Lane.DATA] == frames
        await closed(channel, *proxies.values())

    run(scenario())


def test_what_is_sent_while_connecting_comes_first(channel: Channel) -> None:
    async def scenario() -> None:
        driver = Recorder()
        driver.on_connected = lambda connection: connection.send(b"snapshot", b"rest")
        channel.driver.start(driver)
        proxy = ProxyRecorder(channel.proxy(Role.SENDER))
        proxy.on_connected = lambda lane: proxy.end.send(lane, b"hello")
        await driver.until(lambda: len(driver.connections) == 2)
        for connection in driver.connections.values():
            connection.send(b"later")
        await proxy.until(lambda: all(len(proxy.frames[lane]) == 3 for lane in Lane))
        assert {tuple(proxy.frames[lane]) for lane in Lane} == {(b"snapshot", b"rest", b"later")}
        await driver.until(lambda: all(driver.frames[Role.SENDER, lane] == [b"hello"] for lane in Lane))
        await closed(channel, proxy)

    run(scenario())


def test_a_lane_is_not_held_up_by_a_handler_of_the_other_one(channel: Channel) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)
        busy = threading.Event()

        def hold(connection: Connection) -> None:
            if connection.lane is Lane.DATA:
                busy.wait(LIMIT_S)

        driver.on_received = hold
        proxies[Role.RECEIVER].end.send(Lane.DATA, b"value")
        proxies[Role.SENDER].end.send(Lane.CONTROL, b"error")
        await driver.until(lambda: driver.frames[Role.SENDER, Lane.CONTROL] == [b"error"])
        assert not driver.frames[Role.RECEIVER, Lane.DATA]
        busy.set()
        await driver.until(lambda: driver.frames[Role.RECEIVER, Lane.DATA] == [b"value"])
        assert [len(driver.threads[lane]) for lane in Lane] == [1, 1]
        assert driver.threads[Lane.DATA] != driver.threads[Lane.CONTROL]
        await closed(channel, *proxies.values())

    run(scenario())


def test_a_connection_that_is_lost_comes_again_and_each_end_is_told_both(channel: Channel) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)
        proxy, key = proxies[Role.RECEIVER], (Role.RECEIVER, Lane.CONTROL)
        first = driver.connections[key]
        first.close()
        first.close()
        await driver.until(lambda: driver.connections.get(key) not in (None, first))
        await proxy.until(lambda: proxy.events[-2:] == [("lost", Lane.CONTROL), ("connected", Lane.CONTROL)])
        mine = [event for event, what in driver.events if what[:2] == key]
        assert mine == ["connected", "lost", "connected"]
        assert driver.connections[key].boot_id == first.boot_id
        # In vain, and no harm.
        first.send(b"late")
        driver.connections[key].send(b"now")
        await proxy.until(lambda: proxy.frames[Lane.CONTROL] == [b"now"])
        # The others go on.
        assert collections.Counter(event for event, _ in driver.events)["lost"] == 1
        await closed(channel, *proxies.values())

    run(scenario())


def test_another_life_of_a_proxy_takes_the_place_of_the_first_for_good(channel: Channel) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)
        first = proxies[Role.SENDER]
        (boot_id, _) = driver.boots(Role.SENDER)
        # It still runs, and does not know that it was given up.
        again = ProxyRecorder(channel.proxy(Role.SENDER))
        await driver.until(lambda: len(driver.boots(Role.SENDER)) == 2 and boot_id not in driver.boots(Role.SENDER))
        await first.until(lambda: {lane for event, lane in first.events if event == "lost"} == set(Lane))
        for lane in Lane:
            connection = driver.connections[Role.SENDER, lane]
            connection.send(b"for the second")
            mine = [(event, what[2]) for event, what in driver.events if what[:2] == (Role.SENDER, lane)]
            assert mine == [("connected", boot_id), ("lost", boot_id), ("connected", connection.boot_id)]
        await again.until(lambda: all(again.frames[lane] == [b"for the second"] for lane in Lane))
        # A third of the first one's name is not let in either.
        late = ProxyRecorder(channel.proxy(Role.SENDER, boot_id))
        other = ProxyRecorder(channel.proxy(Role.RECEIVER))
        await other.until(lambda: len(other.events) >= 2)
        assert boot_id not in driver.boots(Role.SENDER)
        assert not late.frames[Lane.DATA]
        await closed(channel, *proxies.values(), again, late, other)

    run(scenario())


def test_a_handler_that_raises_ends_nothing(channel: Channel, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)

        def raises(_: Connection) -> None:
            driver.on_received = lambda _: None
            driver.note("raised", None)
            raise ValueError("a defect")

        driver.on_received = raises
        proxies[Role.SENDER].end.send(Lane.DATA, b"one")
        await driver.until(lambda: driver.events[-1] == ("raised", None))
        proxies[Role.SENDER].end.send(Lane.DATA, b"two")
        await driver.until(lambda: driver.frames[Role.SENDER, Lane.DATA] == [b"two"])
        await closed(channel, *proxies.values())

    run(scenario())
    assert "a defect" in caplog.text


def test_a_frame_has_a_limit(channel: Channel) -> None:
    async def scenario() -> None:
        driver, proxies = await connected(channel)
        with pytest.raises(ValueError, match="over the limit"):
            driver.connections[Role.SENDER, Lane.DATA].send(b"fine", bytes(MAX_FRAME_BYTES + 1))
        with pytest.raises(ValueError, match="over the limit"):
            proxies[Role.SENDER].end.send(Lane.DATA, bytes(MAX_FRAME_BYTES + 1))
        # Nothing of it was sent.
        driver.connections[Role.SENDER, Lane.DATA].send(b"next")
        await proxies[Role.SENDER].until(lambda: proxies[Role.SENDER].frames[Lane.DATA] == [b"next"])
        await closed(channel, *proxies.values())

    run(scenario())


def test_a_closed_end_says_nothing_and_leaves_no_thread(channel: Channel) -> None:
    before = {thread.name for thread in threading.enumerate()}

    async def scenario() -> None:
        driver, proxies = await connected(channel)
        connection = driver.connections[Role.SENDER, Lane.DATA]
        await closed(channel)
        connection.send(b"in vain")
        connection.close()
        await closed(channel, *proxies.values())
        assert not driver.connections

    run(scenario())
    left = {thread.name for thread in threading.enumerate()} - before
    assert not {name for name in left if "channel" in name}
