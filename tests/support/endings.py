"""Drivers that end in every way, how soon they must have, and what may be left of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Mapping

import psutil

from fed.core.liveness import RESTART_S
from fed.testing.simulation import free_addresses
from tests.support.drivers import Driver, Start
from tests.support.hosting import ANSWER_S

LEASE_S = 8.0
DRAIN_S = 9.0
BOUND_S = DRAIN_S + 8.0
"""Two seconds for the farewell, and six for the interpreter to end on a machine that is very busy."""
AT_ONCE_S = 5.0
"""Far less than a silence would take, and as much as a very busy machine does. Without anything else to do it is half a
second."""
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


def miss_a_killed_driver(federation: Start, lease_s: float = 15.0, *, own_cluster: bool = False) -> list[float]:
    """Kill one of three drivers, alice's.

    Args:
        federation: Starts them.
        lease_s: Their lease.
        own_cluster: Whether she has started her Ray cluster herself, and not joined one.

    Returns:
        The seconds until each of the others has said so.
    """
    parties = Parties(federation, ("alice", "bob", "carol"))
    times_s = {"FED_LEASE_S": f"{lease_s}", "FED_DRAIN_TIMEOUT_S": f"{lease_s + 1}"}
    drivers = parties.start("bob", "carol", TEST_ENDING="get", **times_s)
    cluster = {"FED_RAY_ADDRESS": "local"} if own_cluster else {}
    drivers |= parties.start("alice", TEST_ENDING="get", **times_s, **cluster)
    for driver in drivers.values():
        driver.wait_for("at the end", ANSWER_S)
    drivers["alice"].process.kill()
    since = time.monotonic()
    times = []
    for party in ("bob", "carol"):
        drivers[party].wait_for("fed: error: party 'alice' was lost", ANSWER_S)
        times.append(time.monotonic() - since)
    if own_cluster:
        # What is left of that is Ray's to end, which takes as long as the machine likes.
        assert drivers["alice"].end(ANSWER_S) == -signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(drivers["alice"].process.pid, signal.SIGKILL)
    others = {"bob": 1, "carol": 1}
    parties.ended(others if own_cluster else {"alice": -signal.SIGKILL, **others}, since, lease_s + BOUND_S)
    for party in ("bob", "carol"):
        # Nothing else but that, in one line.
        (said,) = [line for line in drivers[party].lines if "fed: waiting for" not in line][-1:]
        assert drivers[party].lines[-2:] == ["at the end", said]
        found = re.fullmatch(
            r"fed: error: party 'alice' was lost( \(reported by \w+\))?: (its driver ended without a word|nothing was "
            r"heard of it for .*); see .* \[PARTY_LOST, endings.py:\d+\]",
            said,
        )
        assert found is not None, said
        # Where Ray has ended her proxies before they could say so, her silence tells.
        at_once = found[2].startswith("its driver")
        assert at_once or not own_cluster, said
        assert max(times) < (AT_ONCE_S if at_once else min(lease_s, RESTART_S) + AT_ONCE_S)
    return times
