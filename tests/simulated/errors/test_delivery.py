"""E42, E44 and E45: errors are delivered over a bad network, hostile frames do no harm, and neither do bad handlers."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.core.coordination import MAX_EARLY
from fed.core.failure import Failure, Kind
from fed.core.notice import Notice, NoticeKind
from fed.object import ObjectId
from fed.testing import FaultPlan
from fed.transport.contract import PeerUnreachable
from tests.support import alone
from tests.support.failing import (
    PARTIES,
    FailsLate,
    chain,
    fail,
    identity,
    pass_through,
    play,
    returned,
    roots,
    run,
    wait_until_known,
)
from tests.support.wiretap import Wiretap

THREE = PARTIES[:3]


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Wiretap:
    return Wiretap().attach(monkeypatch)


class Refusing:
    """A control channel that does not take the first few notices of some kinds, on each way.

    Args:
        times: How many it does not take.
        kinds: Of which kinds.
        swallow: Takes them and loses the answer, so that the sender cannot know.
    """

    def __init__(self, tap: Wiretap, times: int, kinds: set[NoticeKind]) -> None:
        self.refused: dict[tuple[str, str], int] = {}
        self._times = times
        self._kinds = kinds
        self._lock = threading.Lock()
        tap.before_tell = self

    async def __call__(self, source: str, target: str, notice: Notice) -> None:
        with self._lock:
            refused = self.refused.get((source, target), 0)
            if notice.kind in self._kinds and refused < self._times:
                self.refused[source, target] = refused + 1
                raise PeerUnreachable("the network lost it")


ERRORS = {NoticeKind.FAILURE, NoticeKind.LATCHED}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_e42_an_error_whose_first_notices_are_lost_still_arrives(times: int, transport: str, tap: Wiretap) -> None:
    refusing = Refusing(tap, times, ERRORS)
    errors = run(chain, parties=THREE, transport=transport).errors
    assert set(errors) == set(THREE)
    assert len(roots(errors)) == 1
    assert {type(errors[party]) for party in ("bob", "carol")} == {fed.RemoteError}
    assert refusing.refused["alice", "carol"] == times


@pytest.mark.parametrize("times", [1, 3])
def test_e42_an_object_that_will_not_come_is_told_until_it_has_been_heard(times: int, tap: Wiretap) -> None:
    """Isolated: only the notice of the object itself can end the wait for it."""
    refusing = Refusing(tap, times, {NoticeKind.FAILURE})

    def program() -> Any:
        with pytest.raises(fed.TaskError) as caught:
            fed.get(identity.party("bob").remote(fail.party("alice").remote()))
        return caught.value.error_id

    assert len(set(returned(run(program, parties=THREE, on_error="isolate")).values())) == 1
    assert refusing.refused["alice", "bob"] == times


def test_e42_notices_of_every_kind_that_are_lost_arrive_later(tap: Wiretap) -> None:
    """All control traffic is bad: of an agreement, a reset and a farewell each first word is lost, on every way."""
    Refusing(tap, 2, set(NoticeKind) - {NoticeKind.READY, NoticeKind.PROGRESS})
    everyone = threading.Barrier(3)

    def program() -> Any:
        with pytest.raises(fed.TaskError):
            fed.get(identity.party("bob").remote(fail.party("alice").remote()))
        everyone.wait(20)
        fed.reset()
        return fed.get(identity.party("carol").remote(identity.party("alice").remote(1)))

    assert returned(run(program, parties=THREE, timeout_s=40)) == dict.fromkeys(THREE, 1)


def test_e42_an_error_waits_for_a_network_that_is_cut_and_arrives_when_it_heals(tap: Wiretap) -> None:
    """Alice fails while nobody can reach her; bob and carol wait for what she would have made."""
    failed = threading.Event()

    @fed.remote
    def fail_when_cut() -> None:
        for peer in ("bob", "carol"):
            tap.network.cut("alice", peer)
        failed.set()
        raise ValueError

    def heal() -> None:
        pass_through(failed)
        # She has something to tell, and tries in vain.
        pass_through(tried)
        for peer in ("bob", "carol"):
            tap.network.heal("alice", peer)

    tried = threading.Event()

    async def note(source: str, target: str, notice: Notice) -> None:
        if failed.is_set() and source == "alice":
            tried.set()

    tap.before_tell = note
    healing = threading.Thread(target=heal)
    healing.start()
    errors = run(lambda: fed.get(identity.party("bob").remote(fail_when_cut.party("alice").remote())), parties=THREE)
    healing.join()
    assert set(errors.errors) == set(THREE)
    assert len(roots(errors.errors)) == 1


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_e42_an_error_is_known_although_the_word_of_it_is_dropped_with_its_connection(transport: str) -> None:
    plan = FaultPlan()
    plan.at("broadcast", party="alice", kind="LATCHED", nth=1).drop()
    plan.at("broadcast", party="bob", kind="LATCHED", nth=1).drop()
    errors = run(chain, parties=THREE, transport=transport, faults=plan).errors
    assert set(errors) == set(THREE)
    assert len(roots(errors)) == 1
    assert len(plan.injected) >= 2


# E44 hostile frames are bounded


def test_e44_everything_may_come_twice(tap: Wiretap) -> None:
    """A replay of every notice and of every small parcel changes nothing."""
    tap.copies = 2
    reports: list[fed.FailureReport] = []
    everyone = threading.Barrier(3)

    def program() -> Any:
        one = identity.party("alice").remote(1)
        values = fed.get([one, identity.party("bob").remote(one)])
        everyone.wait(10)
        with pytest.raises(fed.TaskError):
            fed.get(identity.party("bob").remote(fail.party("alice").remote()))
        everyone.wait(10)
        fed.reset()
        return values + fed.get([identity.party("carol").remote(2)])

    outcome = run(program, parties=THREE, failure_handler=reports.append)
    assert returned(outcome) == {party: [1, 1, 2] for party in THREE}
    assert sorted(report.party for report in reports) == THREE


def test_e44_a_flood_of_failures_is_bounded_and_an_isolated_job_goes_on(
    tap: Wiretap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fed.core.failure.MAX_KNOWN", 100)
    everyone = threading.Barrier(3)
    flooded = threading.Event()

    def flood() -> None:
        bob = tap.handlers["bob"]
        for number in range(5000):
            failure = Failure(f"carol/flood/{number}", Kind.TASK, "carol", "ValueError", "#0 fail", 0)
            # Objects that were never called for, too.
            notice = Notice(NoticeKind.FAILURE, 0, failure, (ObjectId(0, 1_000_000 + number, 0),))
            tap.forge("bob", bob.on_notice, "carol", notice)
        tap.forge("bob", flooded.set)

    def program() -> Any:
        if everyone.wait(10) == 0:
            flood()
        pass_through(flooded)
        value = fed.get(identity.party("bob").remote(identity.party("carol").remote(1)))
        return value, len(fed.errors()) <= 100

    assert returned(run(program, parties=THREE, on_error="isolate")) == dict.fromkeys(THREE, (1, True))


def test_e44_what_is_told_for_epochs_that_do_not_exist_is_bounded_and_harmless(tap: Wiretap) -> None:
    everyone = threading.Barrier(3)
    flooded = threading.Event()
    failure = Failure("carol/early/1", Kind.INTERNAL, "carol", "OSError")

    def program() -> Any:
        if everyone.wait(10) == 0:
            for number in range(MAX_EARLY + 100):
                notice = Notice(NoticeKind.LATCHED, 7 + number % 5, failure)
                tap.forge("bob", tap.handlers["bob"].on_notice, "carol", notice)
            tap.forge("bob", flooded.set)
        pass_through(flooded)
        value = fed.get(identity.party("bob").remote(1))
        everyone.wait(10)
        fed.reset()
        value += fed.get(identity.party("bob").remote(1))
        return value, all(len(kept) <= MAX_EARLY for kept in current_job().shell.coordinator._early.values())

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, (2, True))


def test_e44_a_vote_that_is_told_again_with_another_failure_does_not_change_the_root(tap: Wiretap) -> None:
    """Carol, or who speaks for her, votes once more, for something that would win."""
    late = FailsLate(3)
    forged = Failure("carol/again/1", Kind.TASK, "carol", "KeyError", "#0 early", 0)
    settled = threading.Barrier(4)

    def handler(report: fed.FailureReport) -> None:
        settled.wait(20)

    def program() -> Any:
        identity.party("alice").remote(1)
        bad = late.task.party("alice").remote()
        late.release()
        with pytest.raises(fed.TaskError) as caught:
            fed.get(bad)
        if fed.party() == "bob":
            tap.forge("bob", tap.handlers["bob"].on_notice, "carol", Notice(NoticeKind.LATCHED, 0, forged))
            wait_until_known(forged.error_id)
        with pytest.raises(fed.JobAborted) as again:
            fed.get([])
        return caught.value.error_id == again.value.root.error_id

    releasing = threading.Thread(target=settled.wait, args=(20,))
    releasing.start()
    outcome = run(program, parties=THREE, failure_handler=handler)
    releasing.join()
    assert returned(outcome) == dict.fromkeys(THREE, True)


# E45 the handler may misbehave


def test_e45_a_handler_that_raises_does_not_replace_the_root() -> None:
    def handler(report: fed.FailureReport) -> None:
        raise RuntimeError("handler")

    errors = run(chain, failure_handler=handler).errors
    assert isinstance(errors["alice"], fed.TaskError)
    assert errors["alice"].type_name == "ValueError"


@pytest.mark.parametrize("error", [RuntimeError("handler"), KeyboardInterrupt(), GeneratorExit()])
def test_e45_what_a_handler_raises_is_kept_and_reported_and_the_cleanup_goes_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(report: fed.FailureReport) -> None:
        raise error

    played = play(chain, parties=THREE, failure_handler=handler)
    assert {type(played.errors[party]) for party in ("bob", "carol")} == {fed.RemoteError}
    assert len(roots(played.errors)) == 1
    for job in played.jobs.values():
        assert job.shell.cleanup.handler_error is error
        assert job.shell.life.state.name == "CLOSED"
    said = [record for record in caplog.records if record.name == "fed.engine.cleanup" and record.exc_info is not None]
    assert len(said) == 3
    assert {record.getMessage() for record in said} == {"the failure handler raised"}


def test_e45_a_handler_that_makes_a_fed_call_is_refused() -> None:
    refused: list[str] = []

    def handler(report: fed.FailureReport) -> None:
        with pytest.raises(fed.UsageError) as caught:
            fed.get([])
        refused.append(str(caught.value))

    run(chain, failure_handler=handler)
    assert len(refused) == len(PARTIES)


def test_e45_every_fed_call_of_a_handler_is_refused_and_none_reaches_the_job() -> None:
    refused: list[str] = []

    def handler(report: fed.FailureReport) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: fed.get([]),
            lambda: identity.party("alice").remote(1),
            fed.reset,
            fed.statistics,
            fed.errors,
            fed.party,
        ]
        for call in calls:
            with pytest.raises(fed.UsageError, match="no job in this thread") as caught:
                call()
            refused.append(str(caught.value))
        # It is not in the job's thread, and so outside of it, where leaving does nothing.
        fed.shutdown()

    played = play(chain, parties=THREE, failure_handler=handler)
    assert len(refused) == 6 * 3
    assert len(roots(played.errors)) == 1


@pytest.mark.parametrize("way", ["with", "calls"])
def test_e45_sys_exit_in_a_handler_becomes_the_exit_code_after_the_cleanup(way: str) -> None:
    ended = alone.alone(alone.exit_code, way)
    assert ended.code == 7, ended.output
    # When it is raised nothing of the job is left; the other party, which had the same handler, ended the same way.
    assert ended.told == [[], {"bob": "SystemExit"}]


@pytest.mark.parametrize("code", [0, 7, "a text"])
def test_e45_sys_exit_in_a_handler_comes_out_of_the_job_in_place_of_the_error(code: Any) -> None:
    def handler(report: fed.FailureReport) -> None:
        if report.party == "alice":
            sys.exit(code)

    played = play(chain, parties=THREE, failure_handler=handler)
    error = played.errors["alice"]
    assert isinstance(error, SystemExit)
    assert error.code == code
    assert {type(played.errors[party]) for party in ("bob", "carol")} == {fed.RemoteError}


def test_e45_a_handler_that_hangs_is_waited_for_no_longer_than_its_time_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    gate = threading.Event()

    def handler(report: fed.FailureReport) -> None:
        if report.party == "alice":
            pass_through(gate)

    began = time.monotonic()
    played = play(chain, parties=THREE, failure_handler=handler, handler_timeout_s=0.3)
    seconds = time.monotonic() - began
    gate.set()
    assert len(roots(played.errors)) == 1
    assert 0.3 <= seconds < 10
    said = [record.getMessage() for record in caplog.records if "handler_timeout_s" in record.getMessage()]
    assert len(said) == 1
    assert re.fullmatch(
        r"the failure handler has not returned within \d\.\d s \(handler_timeout_s is 0\.3\): going on without it",
        said[0],
    )


def test_e45_a_handler_that_takes_its_time_is_waited_for() -> None:
    done: list[str] = []
    gate = threading.Event()

    def handler(report: fed.FailureReport) -> None:
        # Until its driver leaves, which waits for it.
        pass_through(gate)
        done.append(report.party)

    def program() -> Any:
        try:
            return chain()
        finally:
            gate.set()

    run(program, parties=THREE, failure_handler=handler)
    assert sorted(done) == THREE


def test_e45_a_handler_that_raises_in_one_epoch_runs_in_the_next() -> None:
    ran: list[str] = []
    everyone = threading.Barrier(3)

    def handler(report: fed.FailureReport) -> None:
        ran.append(report.party)
        raise RuntimeError("handler")

    def program() -> Any:
        for _ in range(3):
            everyone.wait(10)
            with pytest.raises(fed.TaskError):
                chain()
            fed.reset()
        return fed.get(identity.party("bob").remote(1))

    assert returned(run(program, parties=THREE, failure_handler=handler)) == dict.fromkeys(THREE, 1)
    assert sorted(ran) == sorted(THREE * 3)
