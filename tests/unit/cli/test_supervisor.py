"""Who is sent which signal, and when: the laws at the head of the module."""

from __future__ import annotations

from collections.abc import Iterator
from signal import SIGINT, SIGKILL, SIGTERM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.cli.supervisor import PATIENCE_S, SendSignal, Supervisor

PARTIES = ("alice", "bob", "carol")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    machine = Supervisor(PARTIES, 30.0)
    yield machine
    machine.validate()


def test_nobody_is_signalled_while_all_goes_well(supervisor: Supervisor) -> None:
    supervisor.ended("bob", 0, 1.0)
    assert supervisor.deadline is None
    assert supervisor.tick(1e9) is None
    supervisor.ended("alice", 0, 2.0)
    supervisor.ended("carol", 0, 3.0)
    assert (supervisor.running, supervisor.exit_code(), supervisor.first_failed) == ((), 0, None)


def test_after_a_failure_the_others_have_their_grace_and_then_the_ladder(supervisor: Supervisor) -> None:
    supervisor.ended("bob", 3, 100.0)
    assert supervisor.deadline == 130.0
    assert supervisor.tick(129.9) is None
    reason = "ending alice, carol, still running 30 s after bob failed"
    assert supervisor.tick(130.0) == SendSignal(("alice", "carol"), SIGINT, reason)
    assert supervisor.tick(130.0) is None
    supervisor.ended("carol", -SIGINT, 131.0)
    assert supervisor.tick(130.0 + PATIENCE_S) == SendSignal(("alice",), SIGTERM)
    assert supervisor.tick(130.0 + 2 * PATIENCE_S) == SendSignal(("alice",), SIGKILL)
    supervisor.ended("alice", -SIGKILL, 150.0)
    assert supervisor.tick(1e9) is None
    assert supervisor.exit_code() == 3
    assert supervisor.codes == {"bob": 3, "carol": 130, "alice": 137}
    assert supervisor.signalled == {"alice", "carol"}


def test_drivers_that_ignore_sigint_are_asked_by_sigterm() -> None:
    supervisor = Supervisor(PARTIES, 30.0, ignoring_sigint=True)
    first = supervisor.interrupt(100.0)
    assert first == SendSignal(PARTIES, SIGTERM, "interrupted, ending alice, bob, carol")
    assert supervisor.tick(100.0 + PATIENCE_S) == SendSignal(PARTIES, SIGKILL)
    supervisor.validate()


def test_the_first_failure_in_time_gives_the_exit_code(supervisor: Supervisor) -> None:
    supervisor.ended("carol", 0, 1.0)
    supervisor.ended("bob", -SIGKILL, 2.0)
    supervisor.ended("alice", 1, 3.0)
    assert (supervisor.first_failed, supervisor.exit_code()) == ("bob", 137)


def test_where_it_began_gives_the_exit_code_whoever_ended_first(supervisor: Supervisor) -> None:
    supervisor.ended("bob", 1, 1.0)
    # Not known yet.
    assert supervisor.exit_code("alice") == 1
    supervisor.ended("alice", 7, 2.0)
    supervisor.ended("carol", 1, 3.0)
    assert (supervisor.first_failed, supervisor.exit_code("alice")) == ("bob", 7)


@pytest.mark.parametrize("source", ["zoe", "carol"])
def test_a_source_without_a_code_of_its_own_does_not_give_it(source: str, supervisor: Supervisor) -> None:
    supervisor.ended("carol", 0, 0.0)
    supervisor.ended("bob", 3, 1.0)
    supervisor.ended("alice", 1, 2.0)
    assert supervisor.exit_code(source) == 3


def test_the_code_of_a_source_that_was_told_to_end_is_not_its_own(supervisor: Supervisor) -> None:
    supervisor.ended("bob", 3, 0.0)
    supervisor.ended("carol", 0, 0.0)
    supervisor.tick(30.0)
    supervisor.ended("alice", -SIGINT, 31.0)
    assert supervisor.exit_code("alice") == 3


def test_an_interruption_gives_the_exit_code_wherever_it_began(supervisor: Supervisor) -> None:
    supervisor.interrupt(0.0)
    for party in PARTIES:
        supervisor.ended(party, 7, 1.0)
    assert supervisor.exit_code("bob") == 130


def test_a_second_failure_does_not_prolong_the_grace(supervisor: Supervisor) -> None:
    supervisor.ended("bob", 1, 100.0)
    supervisor.ended("alice", 1, 120.0)
    assert supervisor.deadline == 130.0


def test_an_interruption_begins_the_ladder_at_once(supervisor: Supervisor) -> None:
    assert supervisor.interrupt(5.0) == SendSignal(PARTIES, SIGINT, "interrupted, ending alice, bob, carol")
    supervisor.ended("alice", 130, 6.0)
    assert supervisor.tick(5.0 + PATIENCE_S) == SendSignal(("bob", "carol"), SIGTERM)
    assert supervisor.exit_code() == 130


def test_a_second_interruption_kills(supervisor: Supervisor) -> None:
    supervisor.interrupt(5.0)
    assert supervisor.interrupt(5.1) == SendSignal(PARTIES, SIGKILL, "interrupted again, killing alice, bob, carol")


def test_an_interruption_during_the_grace_does_not_wait_for_its_end(supervisor: Supervisor) -> None:
    supervisor.ended("bob", 3, 0.0)
    assert supervisor.interrupt(1.0) == SendSignal(("alice", "carol"), SIGINT, "interrupted, ending alice, carol")
    assert supervisor.exit_code() == 130


def test_an_interruption_after_the_end_sends_nothing(supervisor: Supervisor) -> None:
    for party in PARTIES:
        supervisor.ended(party, 0, 0.0)
    assert supervisor.interrupt(1.0) is None


@given(st.lists(st.sampled_from(["tick", "interrupt", "alice 0", "bob 1", "carol -9"]), max_size=12))
def test_the_laws_hold_in_any_order_of_events(events: list[str]) -> None:
    machine = Supervisor(PARTIES, 1.0)
    now = 0.0
    for event in events:
        now += 1.0
        order = None
        if event == "tick":
            order = machine.tick(now)
        elif event == "interrupt":
            order = machine.interrupt(now)
        elif event.split()[0] in machine.running:
            machine.ended(event.split()[0], int(event.split()[1]), now)
        machine.validate()
        assert order is None or (order.parties == machine.running and order.parties)
        assert machine.interrupted or machine.exit_code() in (0, 1, 137)
