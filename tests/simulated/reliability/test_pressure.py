"""Pressure: a producer far ahead of its consumer loses nothing, and what is held for later stays within its limits."""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

import pytest

import fed
from fed.context import current_job
from fed.core.rendezvous import Rendezvous
from fed.object import ObjectId
from fed.proxy.deliveries import Delivery
from fed.runtime.contract import Call, TaskBody
from fed.testing import simulate

BATCH = 100


@fed.remote
def produce(first: int) -> Any:
    return tuple(f"{number:0500}" for number in range(first, first + BATCH))


@fed.remote
def total(*values: str) -> int:
    return sum(map(int, values))


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_a_producer_far_ahead_of_its_consumer_loses_nothing_and_floods_nobody(
    transport: Literal["memory", "grpc"], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, batches = 256 * 1024, 60
    held, deferred, ahead = [0], [0], threading.Event()
    take = Rendezvous.arrived

    def arrived(table: Rendezvous[Any], *arguments: Any) -> Any:
        arrival = take(table, *arguments)
        held[0] = max(held[0], table._stored_bytes)
        deferred[0] = max(deferred[0], table._deferred)
        if table._deferred:
            ahead.set()
        return arrival

    monkeypatch.setattr(Rendezvous, "arrived", arrived)

    def program() -> Any:
        with fed.job(receive_buffer_bytes=limit):
            totals = []
            for number in range(batches):
                values = produce.options(num_returns=BATCH).party("alice").remote(number * BATCH)
                # Alice is ahead until she has filled bob's buffer, and what he has not asked for must wait with her.
                if fed.party() == "bob":
                    assert ahead.wait(30)
                totals.append(total.party("bob").remote(*values))
            return sum(fed.get(totals))

    count = BATCH * batches
    result = simulate(program, parties=["alice", "bob"], timeout_s=100, transport=transport)
    assert dict(result) == dict.fromkeys(["alice", "bob"], count * (count - 1) // 2)
    # It was as tight as the test means it to be.
    assert limit / 2 < held[0] <= limit
    assert deferred[0] > 0


def test_what_nobody_has_asked_for_at_the_end_is_reported_by_who_has_it(caplog: pytest.LogCaptureFixture) -> None:
    def program() -> Any:
        with fed.job():
            if fed.party() == "alice":
                job = current_job()
                for sequence in (1000, 1001):
                    ref = job.shell.runtime.submit(TaskBody(lambda: "stray", "stray", {}), Call(())).results[0]
                    job.shell.running_proxies().push([Delivery(ObjectId(0, sequence, 0), ("bob",))], [ref])
                # What is written after them to the same stream comes after them.
                while fed.statistics().objects_sent["bob"] < 2:
                    time.sleep(0.01)
            return fed.get([total.party("alice").remote(str(number)) for number in range(20)])

    expected = list(range(20))
    assert dict(simulate(program, parties=["alice", "bob"])) == {"alice": expected, "bob": expected}
    reported = [message for message in caplog.messages if "never asked for" in message]
    assert reported == ["2 objects of party 'alice' were never asked for, and are dropped"]
