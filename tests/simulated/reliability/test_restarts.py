"""A proxy that is killed at any step loses nothing: the job finishes with the right result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.runtime.local import LocalRuntime
from fed.testing import FaultPlan, Simulation, simulate
from fed.transport.contract import AddressInUse, Handler
from fed.transport.memory import MemoryListener

PARTIES = ["alice", "bob", "carol"]
STEPS = 12


@fed.remote
def grow(value: bytes, size: int) -> bytes:
    return value + bytes([len(value) % 251]) * size


@fed.remote
def join(*values: bytes) -> bytes:
    return b"".join(values)


def run(program: Callable[[], Any], plan: FaultPlan, **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job():
            return program()

    return simulate(main, parties=PARTIES, faults=plan, timeout_s=60, lease_s=10, **arguments)


def ring(size: int) -> Any:
    """Values go round, and everyone reads some of them."""
    value = grow.party("alice").remote(b"", size)
    read = []
    for step in range(STEPS):
        value = grow.party(PARTIES[(step + 1) % 3]).remote(value, size)
        if step % 3 == 2:
            read.append(len(fed.get(value)))
    return read, fed.get(join.party("bob").remote(value, value))[:7]


@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
@pytest.mark.parametrize("place", ["push", "send", "receive", "deliver"])
@pytest.mark.parametrize("party", ["alice", "bob"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_proxy_that_is_killed_loses_nothing(size: int, place: Any, party: str, nth: int) -> None:
    plan = FaultPlan(seed=1)
    plan.at(place, party=party, nth=nth).kill()
    expected = ([(step + 2) * size for step in range(STEPS) if step % 3 == 2], (b"\x00" * 7))
    assert dict(run(lambda: ring(size), plan)) == dict.fromkeys(PARTIES, expected)
    assert plan.injected


@fed.remote
def fail() -> None:
    raise ValueError


def test_what_will_not_come_is_known_although_the_receiver_that_heard_of_it_was_killed() -> None:
    """Bob is told of a failure, his receiver is killed, and only then he makes the call that needs what has failed."""
    taken = threading.Event()

    def program() -> Any:
        with fed.job(on_error="isolate"):
            bad, job = fail.party("alice").remote(), current_job()
            if fed.party() == "bob":
                assert taken.wait(20)
                assert isinstance(job.shell.runtime, LocalRuntime)
                job.shell.runtime.restart_receiver().result(20)
            used = grow.party("bob").remote(bad, 1)
            if fed.party() == "alice":
                with job.shell.lock:
                    assert job.shell.changed.wait_for(
                        lambda: bad._entry.failure is not None and not job.shell.errors.untold, 20
                    )
                taken.set()
            with pytest.raises(fed.TaskError) as caught:
                fed.get(used)
            # The next receiver is as good as the one before.
            assert fed.get(grow.party("bob").remote(grow.party("alice").remote(b"", 1), 1)) == b"\x00\x01"
            return caught.value.error_id

    simulation = simulate(program, parties=["alice", "bob"], timeout_s=40)
    assert simulation["alice"] == simulation["bob"]
    assert simulation["alice"].startswith("alice/")


def test_a_receiver_that_cannot_listen_again_ends_the_job_in_every_party(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = []
    listen = MemoryListener.start

    async def start(listener: MemoryListener, handler: Handler) -> None:
        starts.append(listener)
        if len(starts) > len(PARTIES):
            raise AddressInUse("somebody else listens here")
        await listen(listener, handler)

    monkeypatch.setattr(MemoryListener, "start", start)
    plan = FaultPlan(seed=1)
    # The first one may come before bob has begun.
    plan.at("receive", party="bob", nth=2).kill()
    errors = run(lambda: ring(10), plan, check=False, skip_waiting=True).errors
    for party in PARTIES:
        error = errors[party]
        assert isinstance(error, fed.FailureError)
        assert error.failure.src_party == "bob"
        assert "cannot do its work" in str(error)
        # Addresses are the party's own.
        assert ("somebody else listens here" in str(error)) == (party == "bob")
    assert "the receiver proxy was killed, and the one in its place cannot do its work: somebody else" in caplog.text
