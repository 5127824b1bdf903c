"""A member lies about failures: nobody is blamed by it, and it is named wherever only it says so."""

from __future__ import annotations

import dataclasses
import logging
import threading
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.core.failure import Failure, Kind
from fed.core.notice import Notice, NoticeKind
from fed.engine.exceptions import error_of
from fed.engine.shell import Shell
from tests.support.failing import fail, identity, returned, run

PARTIES = ("alice", "bob", "mallory")
FORGED = Failure("bob/feed/1", Kind.TASK, "bob", "Forged", "#0 stolen", 0, message="lies", traceback="lies")


def tell(failure: Failure) -> bool:
    """Mallory says it to all."""
    job = current_job()
    if fed.party() == "mallory":
        with job.shell.lock:
            for peer in job.config.peers:
                job.shell.send_control(peer, Notice(NoticeKind.LATCHED, 0, failure))
    return True


def until_it_fails() -> Any:
    """A program that ends only when the job has failed, and how to run it."""
    failed = threading.Event()

    @fed.remote
    def held() -> bool:
        return failed.wait(20)

    return lambda: fed.get(identity.party("bob").remote(held.party("mallory").remote())), lambda _: failed.set()


def test_a_failure_that_never_was_is_reported_by_whoever_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # What mallory sends is not looked at on her side.
    monkeypatch.setattr(Shell, "redacted", lambda self, peer, notice: notice)

    wait, failed = until_it_fails()
    known: dict[str, tuple[Failure, ...]] = {}

    def program() -> Any:
        try:
            # Before that, it would be taken for what became of an earlier start of bob's.
            fed.get(identity.party("bob").remote(0))
            tell(FORGED)
            wait()
        finally:
            known[fed.party()] = fed.errors()

    errors = run(program, parties=PARTIES, failure_handler=failed).errors
    told = errors["alice"]
    assert isinstance(told, fed.RemoteError)
    assert "at party 'bob' (reported by mallory)" in str(told)
    # The root is the same for all; the accused knows its own failures, and tells the others that this is none.
    accused = errors["bob"]
    assert isinstance(accused, fed.RemoteError)
    assert accused.failure.error_id == told.failure.error_id
    assert str(accused).endswith("; party 'bob' has no record of it")
    denials = [failure for failure in known["alice"] if failure.kind is Kind.DIVERGED]
    assert len(denials) == 1
    accused_says = str(error_of(denials[0], "alice"))
    # By her, or by alice, who had it from her.
    assert "party 'bob' found that failure bob/feed/1 (reported by " in accused_says
    assert "mallory) is none that party 'bob' knows of" in accused_says


@pytest.mark.parametrize(
    "forged",
    [
        dataclasses.replace(FORGED, error_id="mallory/1/1"),
        dataclasses.replace(FORGED, error_id="eve/1/1"),
        dataclasses.replace(FORGED, hops=("eve",)),
    ],
    ids=["in another's name", "from nobody", "by nobody"],
)
def test_a_record_that_no_honest_party_passes_on_changes_nothing(
    forged: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "fed")

    def program() -> Any:
        tell(forged)
        values = [fed.get(identity.party("alice").remote(identity.party("bob").remote(step))) for step in range(20)]
        return values, len(fed.errors())

    assert returned(run(program, parties=PARTIES)) == dict.fromkeys(PARTIES, (list(range(20)), 0))
    refused = [record.getMessage() for record in caplog.records if "nobody believes" in record.getMessage()]
    assert sorted(refused)[0].startswith("party 'mallory' told a failure that nobody believes: failure")
    # Each of the others says it once.
    assert len(refused) == 2


def test_what_the_source_says_stands_whatever_a_member_says_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Shell.redacted

    def exposed(self: Shell, peer: str, notice: Notice) -> Notice:
        notice = original(self, peer, notice)
        if self.party == "mallory" and notice.failure is not None:
            lies = dataclasses.replace(FORGED, error_id=notice.failure.error_id)
            return dataclasses.replace(notice, failure=lies)
        return notice

    monkeypatch.setattr(Shell, "redacted", exposed)
    errors = run(lambda: fed.get(fail.party("bob").remote()), parties=PARTIES).errors
    for party in ("alice", "bob"):
        error = errors[party]
        assert isinstance(error, fed.TaskError)
        assert (error.type_name, error.failure.hops, error.failure.task) == ("ValueError", (), "#0 fail")


def test_an_object_that_failed_by_a_member_alone_is_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mallory's task fails, and she says that bob's did."""
    original = Shell.redacted

    def exposed(self: Shell, peer: str, notice: Notice) -> Notice:
        notice = original(self, peer, notice)
        if self.party == "mallory" and notice.failure is not None:
            return dataclasses.replace(notice, failure=FORGED)
        return notice

    monkeypatch.setattr(Shell, "redacted", exposed)

    told = run(lambda: fed.get(identity.party("alice").remote(fail.party("mallory").remote())), parties=PARTIES).errors
    assert "at party 'bob' (reported by mallory" in str(told["alice"])
    assert str(told["bob"]).endswith("; party 'bob' has no record of it")


def test_a_deadlock_names_who_says_so() -> None:
    said = Failure("mallory/1/1", Kind.DEADLOCK, "mallory", "DeadlockError", detail="alice: everything waits")

    wait, failed = until_it_fails()
    error = run(lambda: (tell(said), wait()), parties=PARTIES, failure_handler=failed).errors["alice"]
    assert isinstance(error, fed.DeadlockError)
    assert "(found by party 'mallory')" in str(error)
