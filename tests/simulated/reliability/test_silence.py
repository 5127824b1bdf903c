"""Silence: a party that is cut off is lost within the lease, and one that is cut off for less is not [E40, E41]."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.testing import Simulation, simulate, simulation
from fed.transport.memory import MemoryNetwork
from tests.support.eventually import eventually

PARTIES = ["alice", "bob", "carol"]
LEASE_S = 15.0


@fed.remote
def identity(value: Any) -> Any:
    return value


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> MemoryNetwork:
    """The network of the simulation that the test runs."""
    one = MemoryNetwork()
    monkeypatch.setattr(simulation, "MemoryNetwork", lambda: one)
    return one


def run(program: Callable[[], Any], **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job(lease_s=LEASE_S, **arguments):
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=30, skip_waiting=True)


def now_s() -> float:
    """The time on the clock of this job."""
    return current_job().shell.clock.monotonic()


def isolate(network: MemoryNetwork, party: str) -> None:
    for peer in PARTIES:
        if peer != party:
            network.cut(party, peer)


def test_e40_a_party_that_falls_silent_is_lost_to_everyone_within_the_lease(network: MemoryNetwork) -> None:
    gate = threading.Event()
    noticed: dict[str, float] = {}
    cut_at: list[float] = []
    # Nobody is to learn of the loss by what comes before the wait that it is to end.
    together = threading.Barrier(3)

    @fed.remote
    def held() -> int:
        gate.wait()
        return 1

    def program() -> Any:
        one = held.party("carol").remote()
        # Carol has joined as well, or her task would not have run.
        fed.get(identity.party("carol").remote(0))
        together.wait(10)
        if fed.party() == "alice":
            cut_at.append(now_s())
            isolate(network, "carol")
        try:
            return fed.get(one)
        finally:
            noticed[fed.party()] = now_s()
            gate.set()

    errors = run(program).errors
    for party in ("alice", "bob"):
        error = errors[party]
        assert isinstance(error, fed.PartyLostError)
        assert error.failure.src_party == "carol"
        assert "nothing was heard of it for" in str(error)
        assert LEASE_S / 2 < noticed[party] - cut_at[0] < LEASE_S + 2
    # Cut off itself, it has lost the others.
    assert isinstance(errors["carol"], fed.PartyLostError)
    assert errors["carol"].failure.src_party in ("alice", "bob")


def test_e40_a_short_cut_heals_and_nothing_is_lost(network: MemoryNetwork) -> None:
    def program() -> Any:
        values = []
        for step in range(20):
            values.append(fed.get(identity.party("bob").remote(identity.party("alice").remote(step))))
            if fed.party() == "carol" and step % 5 == 0:
                network.cut("alice", "bob")
                network.heal("alice", "bob")
        return values

    assert dict(run(program)) == {party: list(range(20)) for party in PARTIES}


def test_a_driver_in_a_long_computation_is_not_taken_for_dead(network: MemoryNetwork) -> None:
    """In real time, since it is about a thread that has none left for the others."""

    def main() -> Any:
        with fed.job(lease_s=1):
            end = time.monotonic() + 3
            while fed.party() == "alice" and time.monotonic() < end:
                sum(range(10_000))
            return fed.get(identity.party("alice").remote(1))

    assert dict(simulate(main, parties=PARTIES, timeout_s=30)) == dict.fromkeys(PARTIES, 1)


def test_e41_a_party_that_comes_back_after_its_lease_is_told_that_it_was_given_up(network: MemoryNetwork) -> None:
    def program() -> Any:
        fed.get(identity.party("carol").remote(0))
        if fed.party() == "alice":
            isolate(network, "carol")
        return fed.get(identity.party("carol").remote(1))

    errors = run(program).errors
    assert {type(error) for error in errors.values()} == {fed.PartyLostError}


def test_a_party_that_has_finished_waits_for_those_that_go_on_for_longer_than_a_lease(network: MemoryNetwork) -> None:
    def main() -> Any:
        with fed.job(lease_s=LEASE_S):
            fed.get(identity.party("carol").remote(1))
            if fed.party() == "carol":
                end_s = now_s() + 3 * LEASE_S
                assert eventually(lambda: now_s() > end_s)

    assert dict(simulate(main, parties=PARTIES, timeout_s=30, skip_waiting=True)) == dict.fromkeys(PARTIES)
