"""Every way in which a driver can end, on real Ray: it ends, in time, with the right code, and leaves nothing."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterable, Mapping

import psutil
import pytest

from fed.config import Address
from tests.support.drivers import Start
from tests.support.endings import BOUND_S, LEASE_S, Parties
from tests.support.eventually import eventually
from tests.support.hosting import ANSWER_S

# More than any wait below, whose own account of what was missing would be lost.
pytestmark = pytest.mark.timeout(4 * ANSWER_S)


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


@pytest.mark.parametrize(
    ("ending", "signals", "code"),
    [
        ("get", (signal.SIGINT,), 130),
        ("get", (signal.SIGINT, signal.SIGINT), 130),
        ("get", (signal.SIGTERM,), 143),
        ("outside", (signal.SIGTERM,), 143),
    ],
    ids=["Ctrl-C", "Ctrl-C twice", "SIGTERM", "SIGTERM outside"],
)
def test_e07_a_signal_ends_a_get_or_whatever_is_outside(
    federation: Start, ending: str, signals: tuple[signal.Signals, ...], code: int
) -> None:
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


def test_e40_a_driver_that_dies_without_a_word(federation: Start) -> None:
    """By ``os._exit``. Of SIGKILL there is one in `tests/integration/essential`."""
    parties = Parties(federation, ("alice", "bob", "carol"))
    others = parties.start("bob", "carol", TEST_ENDING="get")
    alice = parties.start("alice", TEST_ENDING="os_exit")["alice"]
    alice.end(ANSWER_S)
    parties.ended({"alice": 4, "bob": 1, "carol": 1}, time.monotonic(), LEASE_S + BOUND_S)
    for driver in others.values():
        lost = r"party 'alice' was lost( \(reported by \w+\))?: (its driver ended without a word|nothing was heard of)"
        assert re.search(lost, driver.output)


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
    # Bob has more patience, so that he is still there when he is killed.
    started = parties.start("alice", FED_INIT_TIMEOUT_S="10") | parties.start("bob")
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
