from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.core.liveness import BEATS_PER_LEASE, Change, Health, Liveness

LEASE_S = 12.0
REFUSED = "its port refused connections"


def alive(*peers: str, restart_s: float = 3.0) -> Liveness:
    one = Liveness(peers, LEASE_S, restart_s)
    for peer in peers:
        assert one.heard(peer, 100.0) is None
    return one


def run_until(one: Liveness, end: float) -> list[tuple[float, Change]]:
    """Call `tick` exactly when it is due, as a clock that is looked at in time would."""
    changes = []
    while (due := one.due()) is not None and due <= end:
        changes += [(due, change) for change in one.tick(due)]
        one.validate()
    return changes


def test_e40_silence_makes_a_peer_suspect_and_then_lost() -> None:
    assert run_until(alive("bob"), 200.0) == [
        (106.0, Change("bob", Health.SUSPECT, 6.0)),
        (112.0, Change("bob", Health.LOST, 12.0)),
    ]


def test_e40_a_short_cut_heals() -> None:
    one = alive("bob")
    assert run_until(one, 111.0) == [(106.0, Change("bob", Health.SUSPECT, 6.0))]
    assert one.heard("bob", 111.0) == Change("bob", Health.ALIVE, 11.0)
    assert run_until(one, 116.0) == []


def test_nobody_is_missed_who_was_never_there() -> None:
    one = Liveness(["bob"], LEASE_S)
    assert one.due() is None
    assert one.tick(1e9) == []


def test_e41_the_dead_stay_dead() -> None:
    one = alive("bob")
    run_until(one, 112.0)
    assert one.heard("bob", 113.0) is None
    one.left("bob")
    assert one.health("bob") is Health.LOST
    assert one.due() is None


def test_who_has_left_is_expected_no_more() -> None:
    one = alive("bob", "carol")
    one.left("bob")
    assert one.heard("bob", 101.0) is None
    assert [change.peer for _, change in run_until(one, 200.0)] == ["carol", "carol"]


def test_quick_evidence_shortens_the_wait_but_leaves_time_to_restart() -> None:
    one = alive("bob")
    one.evidence("bob", 102.0, REFUSED)
    assert [at for at, change in run_until(one, 200.0) if change.health is Health.LOST] == [105.0]


def test_quick_evidence_never_makes_the_wait_longer_and_is_void_when_the_peer_is_heard() -> None:
    one = alive("bob")
    one.evidence("bob", 111.5, REFUSED)
    assert [at for at, change in run_until(one, 112.0) if change.health is Health.LOST] == [112.0]
    one = alive("bob")
    one.evidence("bob", 102.0, REFUSED)
    one.heard("bob", 103.0)
    assert run_until(one, 108.0) == []


def test_e40_who_is_lost_sooner_than_by_its_lease_is_lost_for_a_reason() -> None:
    one = alive("bob", "carol", "dave")
    one.evidence("bob", 102.0, REFUSED)
    # Too late to shorten anything; and void, since she was heard after it.
    one.evidence("carol", 111.0, REFUSED)
    one.evidence("dave", 102.0, REFUSED)
    one.heard("dave", 102.5)
    lost = {change.peer: change for _, change in run_until(one, 200.0) if change.health is Health.LOST}
    assert lost == {
        "bob": Change("bob", Health.LOST, 5.0, REFUSED),
        "carol": Change("carol", Health.LOST, 12.0),
        "dave": Change("dave", Health.LOST, 12.0),
    }


def test_e35_a_party_that_was_stopped_itself_accuses_nobody() -> None:
    one = alive("bob")
    assert one.due() == 100.0 + LEASE_S / BEATS_PER_LEASE
    assert one.tick(500.0) == []
    assert run_until(one, 505.0) == []
    assert [at for at, change in run_until(one, 600.0) if change.health is Health.LOST] == [512.0]


@pytest.mark.parametrize("late_s", [0.5, 1.0, 2.9])
def test_e35_a_party_whose_turn_comes_late_again_and_again_counts_only_what_it_was_there_for(late_s: float) -> None:
    """As among far too many threads: what is sent to it waits as long as it does."""
    one = alive("bob", "carol")
    now, there_s = 100.0, 0.0
    while one.health("bob") is not Health.LOST:
        due = one.due()
        assert due is not None
        there_s += due - now
        now = due + late_s
        one.heard("carol", now)
        one.tick(now)
        one.validate()
    # Not sooner, and no more than a look at the clock later.
    assert LEASE_S <= there_s <= LEASE_S + LEASE_S / BEATS_PER_LEASE
    assert now - 100.0 > LEASE_S + 5 * late_s
    assert one.health("carol") is Health.ALIVE


@given(st.lists(st.tuples(st.floats(0.01, 8.0), st.sampled_from(["heard", "evidence", "tick"])), max_size=40))
def test_e35_a_peer_is_lost_only_after_a_silence_of_the_lease_or_of_a_restart(events: list[tuple[float, str]]) -> None:
    one = alive("bob")
    now = heard = 100.0
    accused: float | None = None
    for step, event in events:
        for at, change in run_until(one, now + step):
            if change.health is Health.LOST:
                assert at >= min(heard + LEASE_S, LEASE_S * 100 if accused is None else accused + 3.0) - 1e-6
                return
        now += step
        if event == "heard":
            one.heard("bob", now)
            heard, accused = now, None
        elif event == "evidence":
            one.evidence("bob", now, REFUSED)
            accused = now if accused is None else accused
        one.validate()
