"""What the parties of a job note of what went into their machines can be read, and put in again."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.core.coordination import Coordinator
from fed.core.dataflow import Dataflow, Submit
from fed.core.trace import Trace, replay
from fed.engine.job import Job
from fed.testing import simulate
from tests.support.failing import fail, identity, play

PARTIES = ("alice", "bob", "carol")


def crossing_and_failing() -> Any:
    values = [identity.party(PARTIES[number % 3]).remote(number) for number in range(6)]
    used = [identity.party(PARTIES[(number + 1) % 3]).remote(value) for number, value in enumerate(values)]
    assert fed.get(used) == list(range(6))
    return fed.get(identity.party("bob").remote(fail.party("carol").remote()))


def played_again(job: Job) -> tuple[Coordinator, dict[str, Dataflow[int, str]], list[Any]]:
    coordinator = job.shell.coordinator
    trace = Trace()
    again = Coordinator(
        job.party, job.config.peers, coordinator._incarnation, isolate=job.config.on_error == "isolate", trace=trace
    )
    tables: dict[str, Dataflow[int, str]] = {}

    def machine(name: str) -> object:
        if name.startswith("Dataflow"):
            return tables.setdefault(name, Dataflow(trace, name))
        return {"Coordinator": again, "Lifecycle": again.life}[name]

    return again, tables, replay(job.trace, machine)


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
def test_what_happened_in_a_job_happens_again_in_new_machines(on_error: str) -> None:
    played = play(crossing_and_failing, parties=PARTIES, on_error=on_error, skip_waiting=True)
    assert set(played.errors) == set(PARTIES)
    for job in played.jobs.values():
        again, tables, said = played_again(job)
        first = job.shell.coordinator
        again.validate()
        assert again.book.all == first.book.all
        assert (again.book.root, again.journal.digest, again.life.state) == (
            first.book.root,
            first.journal.digest,
            first.life.state,
        )
        (table,) = tables.values()
        table.validate()
        assert len(table) == 0
        submitted = [task.task for told in said if isinstance(told, list) for task in told if isinstance(task, Submit)]
        assert len(submitted) == len(set(submitted))
        assert submitted


def test_after_a_reset_too() -> None:
    def program() -> int:
        with pytest.raises(fed.TaskError):
            fed.get(fail.party("alice").remote())
        fed.reset()
        value: int = fed.get(identity.party("bob").remote(identity.party("alice").remote(7)))
        return value

    played = play(program, parties=PARTIES[:2], skip_waiting=True)
    assert dict(played.outcome) == {"alice": 7, "bob": 7}
    for job in played.jobs.values():
        again, tables, _ = played_again(job)
        assert (again.epoch, again.journal.digest) == (1, job.shell.coordinator.journal.digest)
        assert [len(table) for table in tables.values()] == [0] * len(tables)


def test_a_job_that_fails_logs_what_led_there_and_one_that_does_not_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    play(lambda: fed.get(identity.party("alice").remote(1)), parties=PARTIES, skip_waiting=True)
    assert not [record for record in caplog.records if record.name == "fed.engine.trace"]
    play(crossing_and_failing, parties=PARTIES, skip_waiting=True)
    told = {
        record.getMessage().partition(":")[0]: record.getMessage()
        for record in caplog.records
        if record.name == "fed.engine.trace"
    }
    assert set(told) == set(PARTIES)
    for text in told.values():
        head, *lines = text.splitlines()
        assert head.endswith("what led there, oldest first:")
        assert any("TASK ValueError at carol" in line for line in lines)
        # Whatever is in a line, it cannot be taken for a record of the log.
        assert all(line.startswith("    ") for line in lines)


def test_a_job_that_goes_on_after_a_failure_logs_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def program() -> None:
        for _ in range(3):
            with pytest.raises(fed.TaskError):
                fed.get(fail.party("alice").remote())
            fed.reset()

    play(program, parties=PARTIES[:2], skip_waiting=True)
    told = [record.getMessage() for record in caplog.records if record.name == "fed.engine.trace"]
    assert len(told) == 6
    # Each call is in one of them only.
    assert [text.count("Coordinator.call(\"fail.party('alice')") for text in told] == [1] * 6


def test_a_party_that_keeps_the_lock_of_its_job_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    go_on = threading.Event()
    let_go: list[bool] = []

    def program() -> None:
        with fed.job():
            if current_job().party == "bob":
                with current_job().shell.lock:
                    let_go.append(go_on.wait(20))
            fed.get(identity.party("alice").remote(1))

    with pytest.raises(fed.FedTimeoutError):
        simulate(program, parties=PARTIES[:2], timeout_s=1.0)
    assert "bob: its last events\n" in capsys.readouterr().err
    assert let_go == []
    go_on.set()


def test_the_trace_of_a_party_that_keeps_the_others_waiting_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    go_on = threading.Event()

    def program() -> None:
        with fed.job():
            if current_job().party == "bob":
                go_on.wait(60)
            fed.get(identity.party("alice").remote(1))

    with pytest.raises(fed.FedTimeoutError):
        simulate(program, parties=PARTIES[:2], timeout_s=1.0)
    printed = capsys.readouterr().err
    go_on.set()
    assert "alice: its last events\n" in printed
    assert "Coordinator.call('identity.party(" in printed.replace('"', "'")
    assert "bob: its last events\n" in printed
