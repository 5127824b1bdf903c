"""Random interleavings of whole federations: whatever happens in whatever order, the parties agree and nobody waits."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.support.cores import Federation
from tests.support.profile import times

INTERLEAVINGS = times(500, 1000, 10_000)


def play(seed: int, *, crash: bool = False) -> Federation:
    chance = random.Random(seed)
    federation = Federation(
        chance.randint(2, 5), isolate=chance.random() < 0.3, objects=chance.randint(0, 4), random=chance
    )
    # How often a party leaves or dies differs from run to run, or few runs would last.
    mild = chance.random() < 0.7
    for _ in range(chance.randint(5, 60)):
        actions = federation.enabled()
        if mild and chance.random() < 0.97:
            actions = [one for one in actions if not one[0].endswith(("leaves", "is interrupted"))]
        if not actions:
            break
        federation.step(chance.choice(actions))
        if crash and chance.random() < 0.02 and not federation.crashed:
            federation.crash(chance.choice(federation.names))
    federation.finish(chance)
    federation.check()
    return federation


@settings(max_examples=INTERLEAVINGS, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**63))
def test_random_interleavings_end_with_one_root_one_handler_and_nobody_waiting(seed: int) -> None:
    note(f"seed {seed}")
    play(seed)


@settings(max_examples=times(200, 1000, 5000), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**63))
def test_random_interleavings_with_a_party_that_falls_silent(seed: int) -> None:
    note(f"seed {seed}")
    play(seed, crash=True)


@settings(max_examples=times(200, 1000, 5000), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**63))
def test_random_interleavings_of_jobs_in_which_much_fails_and_goes_on(seed: int) -> None:
    chance = random.Random(seed)
    federation = Federation(chance.randint(2, 4), isolate=True, objects=chance.randint(1, 4), random=chance)
    for _ in range(chance.randint(20, 80)):
        actions = [
            one
            for one in federation.enabled()
            if not one[0].endswith(("calls", "tells its progress", "leaves", "is interrupted"))
        ]
        if not actions:
            break
        federation.step(chance.choice(actions))
    federation.finish(chance)
    federation.check()


@settings(max_examples=times(100, 300, 1000), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_interleavings_that_can_be_shrunk(data: st.DataObject) -> None:
    chance = random.Random(0)
    isolate, objects = data.draw(st.booleans()), data.draw(st.integers(0, 3))
    federation = Federation(data.draw(st.integers(2, 3)), isolate=isolate, objects=objects, random=chance)
    for _ in range(data.draw(st.integers(0, 40))):
        actions = federation.enabled()
        if not actions:
            break
        federation.step(actions[data.draw(st.integers(0, len(actions) - 1))])
    federation.finish(chance)
    federation.check()
