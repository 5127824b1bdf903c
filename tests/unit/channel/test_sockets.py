"""The direct channel over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import pickle
import secrets
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from typing_extensions import override

from fed.channel import (
    ChannelError,
    Connection,
    Lane,
    ProxyEnd,
    Role,
    framing,
    socket_driver,
    socket_lanes,
    socket_proxy,
)
from fed.channel.handshake import CHALLENGE_BYTES, HELLO_BYTES, Hello, Tls, new_boot_id, prove
from fed.channel.socket_driver import SocketDriverEnd
from fed.channel.socket_lanes import SocketConnection
from fed.channel.socket_proxy import SocketAddress, SocketProxyEnd
from fed.config import TLSConfig
from fed.transport.certificates import write_credentials
from fed.transport.credentials import party_of_certificate
from tests.support.channels import *  # noqa: F403 - the suite
from tests.support.channels import Channel, ProxyRecorder, Recorder, closed, connected
from tests.support.worlds import LIMIT_S, run


class SocketChannel(Channel):
    """Of one machine."""

    def __init__(self) -> None:
        self.driver: SocketDriverEnd = SocketDriverEnd("alice")

    @override
    def proxy(self, role: Role, boot_id: str | None = None) -> ProxyEnd:
        return SocketProxyEnd(self.driver.address, role, boot_id)


class TcpChannel(Channel):
    """From one node to another, as far as it can tell."""

    def __init__(self, tls: TLSConfig | None) -> None:
        self.tls = tls
        self.driver: SocketDriverEnd = SocketDriverEnd("alice", "127.0.0.1", secured(tls, server=True))

    @override
    def proxy(self, role: Role, boot_id: str | None = None) -> ProxyEnd:
        tls = secured(self.tls, server=False)
        return SocketProxyEnd(self.driver.address, role, boot_id, remote=True, tls=tls)


def secured(tls: TLSConfig | None, *, server: bool) -> Tls | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(tls.ca)

    def check(der: bytes) -> None:
        party = party_of_certificate(ssl.DER_cert_to_PEM_cert(der).encode())
        if party != "alice":
            raise ChannelError(f"{party!r} is not this party")

    return Tls(context, check)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TLSConfig]:
    return write_credentials(tmp_path_factory.mktemp("tls"), ["alice", "mallory"])


@pytest.fixture(params=["of the machine", "TCP", "TCP with TLS"])
def channel(request: pytest.FixtureRequest, credentials: Mapping[str, TLSConfig]) -> Channel:
    if request.param == "of the machine":
        return SocketChannel()
    return TcpChannel(credentials["alice"] if "TLS" in request.param else None)


def raw(address: SocketAddress) -> socket.socket:
    """Somebody who connects, and says what a test says."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(address.path)
    return connection


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True
    finally:
        connection.close()


def test_the_socket_is_private_and_goes_with_the_channel() -> None:
    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        path = Path(channel.driver.address.path)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        address = channel.driver.address
        assert pickle.loads(pickle.dumps(address)) == address
        assert "token" not in repr(address)
        await closed(channel, *proxies.values())
        assert not path.parent.exists()
        assert not driver.connections

    run(scenario())


def test_directories_of_killed_drivers_are_removed_and_no_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fed")

    def aged(directory: Path, age_s: float) -> Path:
        then = time.time() - age_s
        os.utime(directory, (then, then))
        return directory

    def left(parent: Path) -> Path:
        """As a SIGKILL leaves it: the file is there, and nobody listens."""
        directory = Path(tempfile.mkdtemp(prefix=socket_driver.PREFIX, dir=parent))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / socket_driver.SOCKET))
        return directory

    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        alive = Path(channel.driver.address.path).parent
        young = left(alive.parent)
        aged(alive, 2 * socket_driver.DEAD_S)
        dead = aged(left(alive.parent), 2 * socket_driver.DEAD_S)
        try:
            another = SocketDriverEnd("alice")
            another.start(driver)
            another.close()
            assert not dead.exists()
            assert alive.exists()
            assert young.exists()
        finally:
            shutil.rmtree(young)
        await closed(channel, *proxies.values())

    run(scenario())
    # Whoever is alive need not know that somebody looked.
    assert not caplog.records


def test_what_cannot_be_listened_at_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: os.fspath(tmp_path / "made"))
    # A name that is too long for a socket.
    monkeypatch.setattr(socket_driver, "SOCKET", "x" * 200)
    (tmp_path / "made").mkdir()
    end = SocketDriverEnd("alice")
    with pytest.raises(OSError, match="too long"):
        end.start(Recorder)  # type: ignore[arg-type]
    assert not (tmp_path / "made").exists()
    end.close()


def test_a_socket_that_takes_half_a_frame_and_fails_is_given_up() -> None:
    class Failing:
        def send(self, data: memoryview) -> int:
            raise OSError(errno.ENOBUFS, "no buffer space")

    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        connection = driver.connections[Role.SENDER, Lane.DATA]
        assert isinstance(connection, SocketConnection)
        real = connection.sock
        connection.sock = Failing()  # type: ignore[assignment]
        connection.send(b"value")
        connection.sock = real
        connection.send(b"would come after half of it")
        await driver.until(lambda: driver.connections.get((Role.SENDER, Lane.DATA)) not in (None, connection))
        driver.connections[Role.SENDER, Lane.DATA].send(b"again")
        await proxies[Role.SENDER].until(lambda: proxies[Role.SENDER].frames[Lane.DATA] == [b"again"])
        await closed(channel, *proxies.values())

    run(scenario())


def test_a_process_that_was_forked_closes_nothing_of_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 1)
            channel.driver.close()
        assert Path(channel.driver.address.path).exists()
        assert len(driver.connections) == 4
        await closed(channel, *proxies.values())

    run(scenario())


def test_who_holds_the_port_does_not_keep_out_who_is_on_the_node(credentials: Mapping[str, TLSConfig]) -> None:
    async def scenario() -> None:
        channel = TcpChannel(credentials["alice"])
        driver = Recorder()
        channel.driver.start(driver)
        address = channel.driver.address
        silent = [
            socket.create_connection((address.host, address.port)) for _ in range(3 * socket_driver.MAX_HANDSHAKES)
        ]
        proxy = ProxyRecorder(SocketProxyEnd(address, Role.SENDER))
        await driver.until(lambda: len(driver.connections) == 2)
        for connection in silent:
            connection.close()
        await closed(channel, proxy)

    run(scenario())


def test_who_says_a_byte_at_a_time_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_driver, "HANDSHAKE_S", 0.5)

    def drip(address: SocketAddress) -> None:
        connection = raw(address)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 10:
                connection.sendall(b"f")
                time.sleep(0.1)
        assert time.monotonic() - began < 5
        connection.close()

    async def scenario() -> None:
        channel = SocketChannel()
        _, proxies = await connected(channel)
        await asyncio.to_thread(drip, channel.driver.address)
        await closed(channel, *proxies.values())

    run(scenario())


def test_a_driver_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(socket_proxy, "HANDSHAKE_S", 0.05)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "silent"))
            listener.listen()
            listener.setblocking(False)
            proxy = ProxyRecorder(SocketProxyEnd(SocketAddress(str(tmp_path / "silent"), b"token"), Role.SENDER))
            for _ in range(4):
                accepted, _ = await asyncio.wait_for(loop.sock_accept(listener), 10)
                with accepted:
                    assert len(await asyncio.wait_for(loop.sock_recv(accepted, 1000), 10)) == HELLO_BYTES
                    assert await asyncio.wait_for(loop.sock_recv(accepted, 1000), 10) == b""
            assert not proxy.events
            await proxy.end.close()

    run(scenario())


def test_an_end_that_is_not_open_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        _ = SocketDriverEnd("alice").address


def test_who_does_not_know_the_token_gets_in_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        address = channel.driver.address

        def attack() -> None:
            hello = Hello(Role.SENDER, Lane.DATA, new_boot_id()).encoded()
            # Nothing, nonsense, another protocol, a proof by guess, a proof of another connection.
            for said in (b"GET / HTTP/1.1" + bytes(100), hello[:-1] + bytes(0), bytes(len(hello))):
                connection = raw(address)
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                assert is_ended(connection)
            proofs = []
            for _ in range(2):
                connection = raw(address)
                connection.sendall(hello)
                answer = connection.recv(CHALLENGE_BYTES)
                proofs.append(prove(address.token, hello, answer))
                connection.sendall(proofs[0] if len(proofs) == 2 else secrets.token_bytes(32))
                assert is_ended(connection)

        await asyncio.to_thread(attack)
        assert len(driver.events) == 4
        # A proxy that has another token does not take this driver for its own, and tells it nothing.
        stray = ProxyRecorder(SocketProxyEnd(dataclasses.replace(address, token=secrets.token_bytes(32)), Role.SENDER))
        while "not this party's driver" not in caplog.text:
            await asyncio.sleep(0.01)
        assert not stray.events
        assert len(driver.events) == 4
        await closed(channel, stray, *proxies.values())

    run(scenario())
    assert caplog.text.count("the channel refused a connection") >= 5


def test_who_says_nothing_is_dropped_and_cannot_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_driver, "HANDSHAKE_S", 0.5)

    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        before = threading.active_count()
        silent = [raw(channel.driver.address) for _ in range(3 * socket_driver.MAX_HANDSHAKES)]
        boot_id = new_boot_id()
        again = ProxyRecorder(channel.proxy(Role.SENDER, boot_id))
        await driver.until(lambda: driver.boots(Role.SENDER) == [boot_id, boot_id])
        assert threading.active_count() - before <= socket_driver.MAX_HANDSHAKES
        assert all([await asyncio.to_thread(is_ended, connection) for connection in silent])
        await closed(channel, again, *proxies.values())

    run(scenario())


def test_a_frame_that_is_too_large_ends_its_connection_only() -> None:
    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        end = proxies[Role.RECEIVER].end
        assert isinstance(end, SocketProxyEnd)
        end._connected[Lane.DATA].write(b"\xff\xff\xff\xff")
        await driver.until(lambda: len(driver.events) == 6)
        events = [(event, what[:2]) for event, what in driver.events[4:]]
        assert events == [("lost", (Role.RECEIVER, Lane.DATA)), ("connected", (Role.RECEIVER, Lane.DATA))]
        await closed(channel, *proxies.values())

    run(scenario())


@pytest.mark.parametrize("which", ["alice", "mallory"])
def test_both_ends_show_the_partys_own_certificate(
    which: str, credentials: Mapping[str, TLSConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """To know the token is not enough."""

    async def scenario() -> None:
        channel = TcpChannel(credentials["alice"])
        driver, proxies = await connected(channel)
        other = TcpChannel(credentials["mallory"])
        other.driver.start(Recorder())
        address = channel.driver.address
        if which == "mallory":
            # Mallory's certificate, and alice's token and address.
            stray = SocketProxyEnd(address, Role.SENDER, remote=True, tls=secured(credentials["mallory"], server=False))
        else:
            # Mallory listens where alice's driver was, and has found out the token.
            there = dataclasses.replace(address, port=other.driver.address.port)
            stray = SocketProxyEnd(there, Role.SENDER, remote=True, tls=secured(credentials["alice"], server=False))
        recorder = ProxyRecorder(stray)
        while "is not this party" not in caplog.text:
            await asyncio.sleep(0.01)
        assert not recorder.events
        assert len(driver.events) == 4
        await closed(other)
        await closed(channel, recorder, *proxies.values())

    run(scenario())


PROXY = """
import asyncio, pickle, sys
from fed.channel import Role
from fed.channel.socket_proxy import SocketProxyEnd

class Echo:
    def __init__(self, end): self.end = end
    def connected(self, lane): pass
    def lost(self, lane): pass
    def received(self, lane, frames): self.end.send(lane, *frames)

async def main():
    end = SocketProxyEnd(pickle.loads(bytes.fromhex(sys.argv[1])), Role.SENDER)
    end.start(Echo(end))
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_proxy_whose_process_is_killed_is_lost_and_another_one_comes() -> None:
    async def scenario() -> None:
        channel = SocketChannel()
        driver = Recorder()
        channel.driver.start(driver)
        command = [sys.executable, "-c", PROXY, pickle.dumps(channel.driver.address).hex()]
        boots = []
        for _ in range(2):
            with subprocess.Popen(command) as process:
                try:
                    await driver.until(lambda: len(driver.connections) == 2)
                    boots.append({connection.boot_id for connection in driver.connections.values()})
                    for connection in driver.connections.values():
                        connection.send(b"value", bytes(1_000_000))
                    await driver.until(lambda: [len(frames) for frames in driver.frames.values()] == [2, 2])
                    driver.frames.clear()
                finally:
                    process.send_signal(signal.SIGKILL)
            await driver.until(lambda: not driver.connections)
        assert [len(boot_ids) for boot_ids in boots] == [1, 1]
        assert boots[0] != boots[1]
        await closed(channel)

    run(scenario())


DRIVER = """
import pickle, sys
from fed.channel.socket_driver import SocketDriverEnd

class Silent:
    def connected(self, connection): pass
    def received(self, connection, frames): pass
    def lost(self, connection): pass

end = SocketDriverEnd("alice", sys.argv[1])
end.start(Silent())
print(pickle.dumps(end.address).hex(), flush=True)
sys.stdin.read()
end.close()
sys.stdin = None
print("closed", flush=True)
"""


@pytest.mark.parametrize("host", ["", "127.0.0.1"], ids=["of the machine", "TCP"])
def test_a_proxy_whose_driver_is_killed_is_told_so(host: str) -> None:
    async def scenario() -> None:
        with subprocess.Popen([sys.executable, "-c", DRIVER, host], stdin=-1, stdout=-1, text=True) as process:
            assert process.stdout is not None
            address = pickle.loads(bytes.fromhex(process.stdout.readline()))
            orphaned = asyncio.Event()
            end = SocketProxyEnd(address, Role.SENDER, remote=bool(host))
            end.orphaned = orphaned.set
            proxy = ProxyRecorder(end)
            await proxy.until(lambda: proxy.events.count(("connected", Lane.CONTROL)) == 1)
            assert not orphaned.is_set()
            process.send_signal(signal.SIGKILL)
            await asyncio.wait_for(orphaned.wait(), LIMIT_S)
            await end.close()
        shutil.rmtree(Path(address.path).parent)

    run(scenario())


def test_a_proxy_whose_driver_is_there_or_is_closed_is_not_told_that_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        proxy = proxies[Role.SENDER]
        end = proxy.end
        assert isinstance(end, SocketProxyEnd)
        orphaned: list[None] = []
        end.orphaned = lambda: orphaned.append(None)
        connect, tried = end._connect, asyncio.Semaphore(0)

        async def count(protocol: socket_proxy._ProxyProtocol) -> None:
            try:
                await connect(protocol)
            finally:
                tried.release()

        monkeypatch.setattr(end, "_connect", count)
        # Lost again and again, and connected again.
        for _ in range(5):
            before = len(driver.events)
            driver.connections[Role.SENDER, Lane.CONTROL].close()
            await driver.until(lambda before=before: len(driver.events) >= before + 2)  # type: ignore[misc]
        # It is closed in order, and both lanes try again for a while.
        await asyncio.to_thread(channel.driver.close)
        for _ in range(5 + 6):
            await asyncio.wait_for(tried.acquire(), LIMIT_S)
        await closed(channel, *proxies.values())
        assert not orphaned

    run(scenario())


def test_nobody_is_woken_for_what_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_lanes, "SOON_S", 3600.0)

    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        proxy = proxies[Role.SENDER]

        def answer(connection: Connection) -> None:
            connection.send_soon(b"late")
            driver.note("answered", None)

        driver.on_received = answer
        for answers in range(1, 4):
            proxy.end.send(Lane.DATA, b"said")
            await driver.until(lambda answers=answers: driver.events.count(("answered", None)) == answers)  # type: ignore[misc]
        # What comes over the other lane would have come after it.
        driver.connections[Role.SENDER, Lane.CONTROL].send(b"control")
        await proxy.until(lambda: bool(proxy.frames[Lane.CONTROL]))
        assert proxy.frames[Lane.DATA] == []
        driver.connections[Role.SENDER, Lane.DATA].send(b"next")
        await proxy.until(lambda: len(proxy.frames[Lane.DATA]) == 4)
        assert proxy.frames[Lane.DATA] == [b"late", b"late", b"late", b"next"]
        await closed(channel, *proxies.values())

    run(scenario())


def test_a_frame_that_is_refused_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_FRAME_BYTES", 100)

    async def scenario() -> None:
        channel = SocketChannel()
        driver, proxies = await connected(channel)
        proxy = proxies[Role.SENDER]

        def answer(connection: Connection) -> None:
            connection.send_soon(b"late")
            for send in (connection.send, connection.send_soon):
                with pytest.raises(ValueError, match="101 bytes"):
                    send(bytes(101))

        driver.on_received = answer
        proxy.end.send(Lane.DATA, b"said")
        await proxy.until(lambda: proxy.frames[Lane.DATA] == [b"late"])
        await closed(channel, *proxies.values())

    run(scenario())
