"""Every way in which a driver can end, on real Ray: it ends, in time, with the right code, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import psutil
import pytest

from fed.config import Address
from fed.testing.simulation import free_addresses
from tests.conftest import eventually
from tests.federation.conftest import Driver, Start
from tests.federation.hosting import ANSWER_S

# More than any wait below, whose own account of what was missing would be lost.
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(4 * ANSWER_S)]

LEASE_S = 8.0
DRAIN_S = 9.0
BOUND_S = DRAIN_S + 2.0
TIMES = {"FED_LEASE_S": f"{LEASE_S}", "FED_DRAIN_TIMEOUT_S": f"{DRAIN_S}"}


class Parties:
    """Drivers at addresses that the test knows, and what they may leave behind."""

    def __init__(self, federation: Start, parties: tuple[str, ...] = ("alice", "bob")) -> None:
        self._federation = federation
        self.parties = parties
        self.addresses = dict(zip(parties, free_addresses(len(parties)), strict=True))
        self.drivers: dict[str, Driver] = {}

    def start(self, *parties: str, **environment: str) -> dict[str, Driver]:
        listed = ",".join(f"{party}={address}" for party, address in self.addresses.items())
        everywhere = {**TIMES, "FED_ADDRESSES": listed, **environment}
        started = self._federation("endings.py", list(parties), everywhere=everywhere)
        self.drivers.update(started)
        return started

    def ending(self) -> float:
        """When all have come to their ends."""
        for driver in self.drivers.values():
            driver.wait_for("ending", ANSWER_S)
        return time.monotonic()

    def ended(self, codes: Mapping[str, int], since: float, within_s: float = BOUND_S) -> None:
        """All have ended with these codes, in time, and nothing of them is left."""
        found = {party: self.drivers[party].end(ANSWER_S) for party in codes}
        took_s = time.monotonic() - since
        assert found == dict(codes), {party: driver.output for party, driver in self.drivers.items()}
        assert took_s < within_s, f"it took {took_s:.1f} s"
        for party in codes:
            address = self.addresses[party]
            # Free at once, also for one who does not ask for it to be used again.
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind((address.host, address.port))
                free.listen()
            # Each driver leads a session of its own.
            pid = self.drivers[party].process.pid
            assert [one.pid for one in psutil.process_iter() if _session_of(one) == pid] == []


def _session_of(process: psutil.Process) -> int:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getsid(process.pid)
    return 0


@pytest.mark.parametrize(
    ("ending", "codes"),
    [
        ("", {"alice": 0, "bob": 0}),
        ("unleft", {"alice": 0, "bob": 0}),
        ("exception", {"alice": 1, "bob": 1}),
        ("exit", {"alice": 3, "bob": 1}),
    ],
    ids=["regular", "without shutdown", "exception", "sys.exit"],
)
def test_a_program_that_ends_by_itself(federation: Start, ending: str, codes: Mapping[str, int]) -> None:
    parties = Parties(federation)
    parties.start("bob")
    parties.start("alice", TEST_ENDING=ending)
    parties.ended(codes, parties.ending())


@pytest.mark.parametrize("ending", ["get", "outside"])
@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGINT,), 130), ((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)],
    ids=["Ctrl-C", "Ctrl-C twice", "SIGTERM"],
)
def test_a_signal(federation: Start, ending: str, signals: tuple[signal.Signals, ...], code: int) -> None:
    parties = Parties(federation)
    # Both make the same calls.
    parties.start("bob", TEST_ENDING="get" if ending == "get" else "")
    alice = parties.start("alice", TEST_ENDING=ending)["alice"]
    alice.wait_for("at the end", ANSWER_S)
    since = time.monotonic()
    for one in signals:
        alice.process.send_signal(one)
        # Two that come at the same moment are one.
        time.sleep(0.2)
    if len(signals) > 1 and alice.end(ANSWER_S) == -signal.SIGINT:
        # The second one came when Python was about to end, and had put the system's own handler back.
        code = -signal.SIGINT
    parties.ended({"alice": code, "bob": 1}, since)
    assert "party 'alice' left before the end: it was interrupted" in parties.drivers["bob"].output


@pytest.mark.parametrize(
    ("kill", "code"),
    [(lambda alice: alice.process.kill(), -signal.SIGKILL), (lambda _: None, 4)],
    ids=["SIGKILL", "os._exit"],
)
def test_e40_a_driver_that_dies_without_a_word(
    federation: Start, kill: Callable[[Driver], None], code: int, record_property: Callable[[str, object], None]
) -> None:
    parties = Parties(federation, ("alice", "bob", "carol"))
    others = parties.start("bob", "carol", TEST_ENDING="get")
    alice = parties.start("alice", TEST_ENDING="get" if code < 0 else "os_exit")["alice"]
    for driver in others.values():
        driver.wait_for("at the end", ANSWER_S)
    if code < 0:
        alice.wait_for("at the end", ANSWER_S)
    kill(alice)
    alice.end(ANSWER_S)
    since = time.monotonic()
    parties.ended({"alice": code, "bob": 1, "carol": 1}, since, LEASE_S + BOUND_S)
    for driver in others.values():
        assert "fed: error: party 'alice' was lost: nothing was heard of it for" in driver.output


@pytest.mark.timeout(3000)
def test_e40_how_soon_drivers_that_are_killed_are_missed(federation: Start) -> None:
    """``TEST_DRIVER_KILLS`` makes it longer. Prints the time from the kill to the error at each of the others."""
    times: list[float] = []
    for _ in range(int(os.environ.get("TEST_DRIVER_KILLS", "3"))):
        parties = Parties(federation, ("alice", "bob", "carol"))
        drivers = parties.start("alice", "bob", "carol", TEST_ENDING="get", FED_LEASE_S="4")
        for driver in drivers.values():
            driver.wait_for("at the end", ANSWER_S)
        drivers["alice"].process.kill()
        since = time.monotonic()
        for party in ("bob", "carol"):
            drivers[party].wait_for("fed: error: party 'alice' was lost", ANSWER_S)
            times.append(time.monotonic() - since)
        parties.ended({"alice": -signal.SIGKILL, "bob": 1, "carol": 1}, since, 4 + BOUND_S)
    middle, most = statistics.median(times), max(times)
    print(f"{len(times) // 2} kills; lease 4 s; missed after median {middle:.2f} s, at most {most:.2f} s")


def test_ctrl_c_and_sigterm_while_others_are_waited_for(federation: Start) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        parties = Parties(federation)
        alice = parties.start("alice")["alice"]
        alice.wait_for("fed: waiting for bob", ANSWER_S)
        since = time.monotonic()
        alice.process.send_signal(number)
        parties.ended({"alice": code}, since)


def test_a_peer_that_dies_during_init(federation: Start) -> None:
    parties = Parties(federation, ("alice", "bob", "carol"))
    started = parties.start("alice", "bob", FED_INIT_TIMEOUT_S="10")
    for driver in started.values():
        driver.wait_for("fed: waiting for ", ANSWER_S)
    since = time.monotonic()
    started["bob"].process.kill()
    # Carol may still come, and bob may be started anew: it is waited for until the time is over.
    parties.ended({"alice": 2, "bob": -signal.SIGKILL}, since, 10 + BOUND_S)
    assert "the job could not start within 10 s (init_timeout_s)" in started["alice"].output


def test_a_driver_that_is_killed_and_started_anew_before_the_job_begins(federation: Start) -> None:
    parties = Parties(federation, ("alice", "bob", "carol"))
    # A driver takes some seconds to start.
    patient = {"FED_LEASE_S": "30", "FED_DRAIN_TIMEOUT_S": "31"}
    started = parties.start("alice", "bob", **patient)
    for _ in range(2):
        # Both have greeted one another, and wait for carol.
        assert eventually(lambda: _connected(parties.addresses.values(), 2), ANSWER_S)
        started["bob"].process.kill()
        assert started["bob"].end(ANSWER_S) == -signal.SIGKILL
        assert eventually(lambda: not _connected(parties.addresses.values(), 1), ANSWER_S)
        started["bob"] = parties.start("bob", **patient)["bob"]
    assert eventually(lambda: _connected(parties.addresses.values(), 2), ANSWER_S)
    parties.start("carol", **patient)
    parties.ended(dict.fromkeys(parties.parties, 0), parties.ending())


def _connected(addresses: Iterable[Address], count: int) -> bool:
    """Whether this many of the addresses have somebody connected to them."""
    ports = {address.port for address in addresses}
    connected = {
        one.raddr.port
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.raddr and one.raddr.port in ports
    }
    return len(connected) >= count


def test_a_peer_that_dies_during_the_shutdown(federation: Start) -> None:
    parties = Parties(federation)
    bob = parties.start("bob", TEST_ENDING="outside")["bob"]
    alice = parties.start("alice", FED_DRAIN_TIMEOUT_S="60")["alice"]
    alice.wait_for("ending", ANSWER_S)
    bob.wait_for("at the end", ANSWER_S)
    bob.process.kill()
    since = time.monotonic()
    parties.ended({"alice": 1, "bob": -signal.SIGKILL}, since, LEASE_S + BOUND_S)
    assert "party 'bob' was lost" in alice.output


def test_a_peer_that_does_not_leave(federation: Start) -> None:
    parties = Parties(federation)
    bob = parties.start("bob", TEST_ENDING="outside")["bob"]
    alice = parties.start("alice")["alice"]
    alice.wait_for("ending", ANSWER_S)
    parties.ended({"alice": 0}, time.monotonic())
    assert "left after 9 s (drain_timeout_s) although these had not finished: bob" in alice.output
    bob.process.kill()


def test_another_federation_in_the_same_process_at_the_same_port(federation: Start) -> None:
    parties = Parties(federation)
    parties.start("bob")
    parties.start("alice", TEST_AGAIN=str(parties.addresses["alice"]))
    # The other federations start anew, three times.
    parties.ended({"alice": 0, "bob": 0}, parties.ending(), ANSWER_S)
    assert "again" in parties.drivers["alice"].lines
