"""The network that the tests of this folder cut, by itself: what is cut is lost in silence, and nothing is left."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import namespaces
from tests.support.namespaces import Network

ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7000))
print("up", flush=True)
while True:
    text, sender = server.recvfrom(100)
    print(text.decode(), flush=True)
    server.sendto(text, sender)
"""
ASK = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(float(sys.argv[2]))
client.connect((sys.argv[1], 7000))
try:
    client.send(sys.argv[3].encode())
    print(client.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    reason = namespaces.missing()
    if reason is not None:
        pytest.skip(f"no network namespaces: {reason}")
    with Network(["alice", "bob", "carol"]) as one:
        yield one


class Echo:
    """Answers datagrams where a party is."""

    def __init__(self, network: Network, party: str) -> None:
        self._network = network
        self._party = party
        command = [*network.command(party), sys.executable, "-c", ECHO]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.heard() == "up"

    def heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def asked_by(self, party: str, text: str, within_s: float = 5) -> str:
        """The answer to a datagram, or the error in its place."""
        host = self._network.address(self._party).host
        command = [*self._network.command(party), sys.executable, "-c", ASK, host, str(within_s), text]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_a_cut_loses_what_goes_between_two_parties_in_silence_and_nothing_else(network: Network) -> None:
    with contextlib.closing(Echo(network, "bob")) as echo:
        assert echo.asked_by("alice", "one") == "one"
        network.cut("alice", "bob")
        assert echo.asked_by("alice", "two", within_s=0.2) == "TimeoutError"
        assert echo.asked_by("carol", "three") == "three"
        network.heal("alice", "bob")
        assert echo.asked_by("alice", "four") == "four"
        assert [echo.heard() for _ in range(3)] == ["one", "three", "four"]
    assert network.cuts == 1


def test_a_cut_of_one_way_leaves_the_other(network: Network) -> None:
    with contextlib.closing(Echo(network, "bob")) as echo:
        network.cut("bob", "alice", one_way=True)
        assert echo.asked_by("alice", "one", within_s=0.2) == "TimeoutError"
        assert echo.heard() == "one"
        network.heal("bob", "alice", one_way=True)
        network.cut("alice", "bob", one_way=True)
        assert echo.asked_by("alice", "two", within_s=0.2) == "TimeoutError"
        network.restore()
        assert echo.asked_by("alice", "three") == "three"
        assert echo.heard() == "three"


def test_a_link_that_is_down_is_no_secret_and_comes_up_again(network: Network) -> None:
    with contextlib.closing(Echo(network, "bob")) as echo:
        network.unplug("bob")
        connect = "import socket; socket.create_connection(('198.18.2.2', 7000), 60)"
        command = [*network.command("alice"), sys.executable, "-c", connect]
        told = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=30).stderr
        assert "unreachable" in told
        network.plug("bob")
        assert echo.asked_by("alice", "two") == "two"


def test_nothing_is_left_not_even_what_runs_there() -> None:
    reason = namespaces.missing()
    if reason is not None:
        pytest.skip(f"no network namespaces: {reason}")
    before = set(namespaces._namespaces())
    with Network(["alice", "bob"]) as network:
        sleeper = subprocess.Popen([*network.command("alice"), sys.executable, "-c", "import time; time.sleep(60)"])
        assert set(namespaces._namespaces()) > before
    assert sleeper.wait(10) == -9
    assert set(namespaces._namespaces()) == before
    network.close()


def test_what_a_killed_run_left_behind_is_removed_by_the_next(network: Network) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = f"fed-{gone.pid}-0-router"
    namespaces._ip("netns", "add", left)
    namespaces.remove_leftovers()
    assert left not in namespaces._namespaces()
    # What belongs to this process, which lives, stays.
    assert any("alice" in name for name in namespaces._namespaces())
