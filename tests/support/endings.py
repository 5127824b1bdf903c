"""Drivers that end in every way, how soon they must have, and what may be left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping

import psutil

from fed.testing.simulation import free_addresses
from tests.support.drivers import Driver, Start
from tests.support.hosting import ANSWER_S

LEASE_S = 8.0
DRAIN_S = 9.0
BOUND_S = DRAIN_S + 8.0
"""Two seconds for the farewell, and six for the interpreter to end on a machine that is very busy."""
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


def miss_a_killed_driver(federation: Start) -> list[float]:
    """Kill one of three drivers. Returns the seconds until each of the others has said so."""
    parties = Parties(federation, ("alice", "bob", "carol"))
    drivers = parties.start("alice", "bob", "carol", TEST_ENDING="get", FED_LEASE_S="4")
    for driver in drivers.values():
        driver.wait_for("at the end", ANSWER_S)
    drivers["alice"].process.kill()
    since = time.monotonic()
    times = []
    for party in ("bob", "carol"):
        drivers[party].wait_for("fed: error: party 'alice' was lost", ANSWER_S)
        times.append(time.monotonic() - since)
    parties.ended({"alice": -signal.SIGKILL, "bob": 1, "carol": 1}, since, 4 + BOUND_S)
    return times
