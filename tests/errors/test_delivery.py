"""E42 and E45: errors that get through, and a failure handler that misbehaves."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pytest

import fed
from fed.core.notice import Notice
from fed.testing import simulate
from fed.transport.contract import PeerUnreachable
from fed.transport.memory import MemoryLink
from tests.errors.programs import PARTIES, chain, identity, pass_through, roots, run


def test_e42_an_error_is_told_again_until_it_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []
    tell = MemoryLink.tell

    async def lossy(self: MemoryLink, notice: Notice, *, timeout_s: float) -> None:
        if notice.failure is not None and lost.count(f"{self.peer} {notice.kind.value}") < 3:
            lost.append(f"{self.peer} {notice.kind.value}")
            raise PeerUnreachable("lost on the way")
        await tell(self, notice, timeout_s=timeout_s)

    monkeypatch.setattr(MemoryLink, "tell", lossy)
    errors = run(chain).errors
    assert set(errors) == set(PARTIES)
    assert len(roots(errors)) == 1
    assert len([one for one in lost if one.endswith("LATCHED")]) == 3 * len(PARTIES)


def test_e42_an_error_whose_receipt_was_lost_is_told_twice_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[str] = []
    again: set[tuple[str, str]] = set()
    tell = MemoryLink.tell

    async def forgetful(self: MemoryLink, notice: Notice, *, timeout_s: float) -> None:
        await tell(self, notice, timeout_s=timeout_s)
        if notice.failure is not None and (self.peer, notice.kind.value) not in again:
            again.add((self.peer, notice.kind.value))
            raise PeerUnreachable("the receipt was lost")

    monkeypatch.setattr(MemoryLink, "tell", forgetful)
    errors = run(chain, failure_handler=lambda report: reports.append(report.party)).errors
    assert sorted(reports) == PARTIES
    assert len(roots(errors)) == 1
    assert again


def test_e45_a_handler_that_raises_does_not_replace_the_root(caplog: pytest.LogCaptureFixture) -> None:
    def handler(report: fed.FailureReport) -> None:
        raise RuntimeError("the handler itself")

    with caplog.at_level(logging.ERROR, logger="fed"):
        errors = run(chain, failure_handler=handler).errors
    assert isinstance(errors["alice"], fed.TaskError)
    assert errors["alice"].type_name == "ValueError"
    # Kept, in the log of each party.
    assert sum("the failure handler raised" in record.message for record in caplog.records) == len(PARTIES)


def test_e45_a_handler_that_makes_a_fed_call_is_refused() -> None:
    refused: list[str] = []

    def handler(report: fed.FailureReport) -> None:
        with pytest.raises(fed.UsageError) as caught:
            fed.get([])
        refused.append(str(caught.value))

    run(chain, failure_handler=handler)
    assert len(refused) == len(PARTIES)


def test_e45_a_handler_decides_the_exit_code_after_the_cleanup() -> None:
    closed: list[str] = []

    def handler(report: fed.FailureReport) -> None:
        if report.party == "bob":
            sys.exit(7)

    def main() -> Any:
        job = None
        try:
            with fed.job(failure_handler=handler):
                from fed.place import current_job

                job = current_job()
                chain()
        finally:
            if job is not None and job._life.state.name == "CLOSED":
                closed.append(job.party)

    errors = simulate(main, parties=PARTIES, check=False, timeout_s=20).errors
    assert isinstance(errors["bob"], SystemExit)
    assert errors["bob"].code == 7
    assert isinstance(errors["bob"].__context__, fed.RemoteError)
    assert isinstance(errors["alice"], fed.TaskError)
    assert sorted(closed) == PARTIES


def test_e45_a_handler_decides_the_exit_code_also_where_nobody_read_the_failure() -> None:
    def program() -> None:
        chain_without_reading()

    errors = run(program, failure_handler=lambda report: sys.exit(9)).errors
    assert {error.code for error in errors.values() if isinstance(error, SystemExit)} == {9}
    assert set(errors) == set(PARTIES)


def chain_without_reading() -> None:
    @fed.remote
    def fail_alone() -> None:
        raise ValueError

    identity.party("bob").remote(fail_alone.party("alice").remote())


def test_e45_a_handler_that_hangs_is_left_behind_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def handler(report: fed.FailureReport) -> None:
        pass_through(gate)

    with caplog.at_level(logging.WARNING, logger="fed"):
        errors = run(chain, failure_handler=handler, handler_timeout_s=0.2).errors
    gate.set()
    assert isinstance(errors["alice"], fed.TaskError)
    said = [record.message for record in caplog.records if "handler_timeout_s" in record.message]
    assert said == ["the failure handler has not returned within 0.2 s (handler_timeout_s): going on without it"] * len(
        PARTIES
    )
