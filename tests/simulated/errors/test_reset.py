"""E23 and E30: after `fed.reset` the same processes run a clean job, whatever is left of the one before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.core.coordination import Coordinator
from fed.core.failure import Failure, Kind
from fed.core.notice import Notice, NoticeKind
from fed.testing import simulate
from tests.support.eventually import eventually
from tests.support.failing import (
    PARTIES,
    Cell,
    FailsLate,
    chain,
    fail,
    identity,
    pass_through,
    play,
    returned,
    roots,
    run,
)
from tests.support.wiretap import Wiretap

THREE = PARTIES[:3]


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Wiretap:
    return Wiretap().attach(monkeypatch)


def fail_here(everyone: threading.Barrier) -> str:
    """Let a task of alice's fail, when everyone has got what he wanted before, and read it. Returns its id."""
    everyone.wait(10)
    with pytest.raises(fed.TaskError) as caught:
        fed.get(identity.party("bob").remote(fail.party("alice").remote()))
    return caught.value.error_id


def work() -> Any:
    """Something of everything."""
    one = identity.party("alice").remote(1)
    two = identity.party("bob").remote([one])
    return fed.get([two, Cell.party("carol").remote(10).add.remote(one), identity.party("carol").remote({"k": two})])


WORKED = [[1], 11, {"k": [1]}]


def test_e23_after_a_reset_the_same_processes_run_a_clean_job() -> None:
    everyone = threading.Barrier(3)

    def program() -> Any:
        before = current_job().shell.epoch
        first = work()
        fail_here(everyone)
        fed.reset()
        after = current_job().shell.epoch
        assert after is not None
        return first, work(), fed.errors(), after is not before, after.number

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, (WORKED, WORKED, (), True, 1))


def test_e23_calls_are_numbered_from_zero_in_every_epoch() -> None:
    everyone = threading.Barrier(3)

    def program() -> Any:
        fail_here(everyone)
        fed.reset()
        with pytest.raises(fed.TaskError) as caught:
            fed.get(fail.party("carol").remote())
        return caught.value.task

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, "#0 fail")


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
def test_e23_several_resets_in_a_row(on_error: str) -> None:
    reports: list[fed.FailureReport] = []

    everyone = threading.Barrier(3)

    def program() -> Any:
        ids = []
        for _ in range(6):
            ids.append(fail_here(everyone))
            fed.reset()
            assert fed.errors() == ()
        assert work() == WORKED
        return tuple(ids)

    played = play(program, parties=THREE, on_error=on_error, failure_handler=reports.append)
    ids = set(dict(played.outcome).values())
    assert len(ids) == 1
    assert len(set(ids.pop())) == 6
    # Once for each epoch that failed; a failure that is isolated ends none.
    assert sorted(report.party for report in reports) == (sorted(THREE * 6) if on_error == "abort" else [])
    assert all(job.shell.epoch is not None and job.shell.epoch.number == 6 for job in played.jobs.values())


def test_e23_the_handler_runs_once_for_each_epoch_that_failed_and_knows_its_root() -> None:
    reports: list[fed.FailureReport] = []

    everyone = threading.Barrier(3)

    def program() -> Any:
        first = fail_here(everyone)
        fed.reset()
        work()
        fed.reset()
        second = fail_here(everyone)
        return first, second

    outcome = run(program, parties=THREE, failure_handler=reports.append)
    first, second = outcome["alice"]
    for party in THREE:
        assert [one.root.error_id for one in reports if one.party == party] == [first, second]
        assert [len(one.failures) for one in reports if one.party == party] == [1, 1]


def test_e23_resets_of_a_healthy_job() -> None:
    def program() -> Any:
        done = []
        for _ in range(5):
            done.append(work() == WORKED)
            fed.reset()
        return [*done, work() == WORKED]

    assert returned(run(program, parties=THREE)) == {party: [True] * 6 for party in THREE}


@pytest.mark.parametrize("fails", [False, True])
def test_e23_an_object_of_the_old_epoch_is_dead_and_says_so(fails: bool) -> None:
    everyone = threading.Barrier(3)

    def program() -> Any:
        old = identity.party("alice").remote(1)
        fed.get(old)
        if fails:
            fail_here(everyone)
        fed.reset()
        said = []
        uses: list[Callable[[], Any]] = [
            lambda: fed.get(old),
            lambda: fed.get([old]),
            lambda: identity.party("bob").remote(old),
            lambda: identity.party("bob").remote({"k": [old]}),
            lambda: Cell.party("carol").remote(old),
        ]
        for use in uses:
            with pytest.raises(fed.UsageError, match="earlier job or epoch, and its value is gone") as caught:
                use()
            said.append("#0" in str(caught.value))
        # The refused calls are no calls.
        return said, work()

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, ([True] * 5, WORKED))


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
def test_e23_live_actors_stay(on_error: str) -> None:
    everyone = threading.Barrier(3)

    def program() -> Any:
        cells = [Cell.party(party).remote(100) for party in THREE]
        fed.get([cell.add.remote(1) for cell in cells])
        fail_here(everyone)
        fed.reset()
        values = fed.get([cell.add.remote(1) for cell in cells])
        fed.reset()
        values += fed.get([cell.add.remote(1) for cell in cells])
        fed.kill(cells[0])
        everyone.wait(10)
        with pytest.raises(fed.TaskError) as caught:
            fed.get(cells[0].add.remote(1))
        return values, caught.value.kind

    expected = ([102, 102, 102, 103, 103, 103], Kind.ACTOR_DIED)
    assert returned(run(program, parties=THREE, on_error=on_error)) == dict.fromkeys(THREE, expected)


@pytest.mark.parametrize("fails", [False, True])
def test_e23_a_task_that_ends_after_the_reset_changes_nothing(fails: bool) -> None:
    """A task of the old epoch, whose result two parties waited for, ends, well or badly, when the new one has begun."""
    gate = threading.Event()
    ended = threading.Event()
    switched = threading.Barrier(3, action=gate.set)
    ran: list[Any] = []

    @fed.remote
    def late() -> Any:
        pass_through(gate)
        ended.set()
        if fails:
            raise KeyError
        return "old"

    @fed.remote
    def consume(value: Any) -> None:
        ran.append(value)

    everyone = threading.Barrier(3)

    def program() -> Any:
        one = late.party("alice").remote()
        consume.party("bob").remote(one)
        fail_here(everyone)
        fed.reset()
        switched.wait(10)
        # In the new epoch the numbers are the same ones again.
        new = identity.party("alice").remote("new")
        pass_through(ended)
        return fed.get([new, identity.party("bob").remote(new)]), work(), fed.errors()

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, (["new", "new"], WORKED, ()))
    assert ran == []


def test_e23_frames_of_the_old_epoch_are_dropped_and_counted(tap: Wiretap) -> None:
    """Data and errors alike: what bob was sent in the first epoch comes once more in the second."""
    everyone = threading.Barrier(3)

    def program() -> Any:
        fed.get(identity.party("alice").remote("old"))
        # Whoever has the value does not wait for the others to have it.
        everyone.wait(10)
        fail_here(everyone)
        assert tap.wait_for_tell(NoticeKind.LATCHED, source="alice", target="bob")
        parcels = [parcel for source, target, parcel in tap.parcels if (source, target) == ("alice", "bob")]
        (latched,) = [
            notice
            for source, target, notice in tap.told
            if (source, target, notice.kind) == ("alice", "bob", NoticeKind.LATCHED)
        ]
        fed.reset()
        counts = None
        if fed.party() == "bob":
            receiver: Any = tap.handlers["bob"]
            # The driver goes on before its proxies have heard of it.
            assert eventually(lambda: receiver._epoch == 1)
            notices = [latched, Notice(NoticeKind.FAILURE, 0, latched.failure, (parcels[0].id,))]
            done = threading.Event()
            before = receiver.statistics()
            tap.forge("bob", receiver.on_parcels, "alice", parcels)
            for notice in notices:
                tap.forge("bob", receiver.on_notice, "alice", notice)
            tap.forge("bob", done.set)
            pass_through(done)
            after = receiver.statistics()
            counts = (
                after.table.stale - before.table.stale - len(parcels),
                after.stale_notices - before.stale_notices - len(notices),
            )
        return counts, work(), fed.errors()

    outcome = run(program, parties=THREE)
    assert outcome["bob"] == ((0, 0), WORKED, ())
    assert outcome["alice"] == outcome["carol"] == (None, WORKED, ())


def test_e23_data_that_is_stalled_over_the_reset_is_dropped(tap: Wiretap) -> None:
    """An upload of the old epoch is still on its way when the new one begins; it comes in the middle of it."""
    size = 1_000_000
    tap.network.hold("alice", "bob")

    late = FailsLate(3)
    everyone = threading.Barrier(3)

    def program() -> Any:
        identity.party("bob").remote(identity.party("alice").remote(b"x" * size))
        bad = late.task.party("alice").remote()
        pass_through(tap.network.holds)
        late.release()
        with pytest.raises(fed.TaskError):
            fed.get(bad)
        fed.reset()
        everyone.wait(10)
        tap.network.release("alice", "bob")
        return fed.get(identity.party("bob").remote(identity.party("alice").remote(b"y" * size))) == b"y" * size

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, True)


def test_e23_a_failure_of_the_new_epoch_reaches_a_party_that_is_still_in_the_old_one(tap: Wiretap) -> None:
    """Bob is slow to switch. What alice tells of the new epoch meanwhile is there for him when he does."""

    async def hold_reset(source: str, target: str, notice: Notice) -> None:
        # Carol's word that she is ready reaches bob last, when alice has failed anew.
        if notice.kind is NoticeKind.RESET and (source, target) == ("carol", "bob"):
            await asyncio.to_thread(pass_through, failed)

    failed = threading.Event()
    tap.before_tell = hold_reset

    @fed.remote
    def fail_anew() -> None:
        failed.set()
        raise KeyError

    everyone = threading.Barrier(3)

    def program() -> Any:
        fail_here(everyone)
        fed.reset()
        return fed.get(identity.party("bob").remote(fail_anew.party("alice").remote()))

    errors = run(program, parties=THREE).errors
    assert set(errors) == set(THREE)
    assert len(roots(errors)) == 1
    assert {error.type_name for error in errors.values() if isinstance(error, fed.TaskError)} == {"KeyError"}


def test_e23_a_reset_that_finds_an_unread_root_raises_it_and_the_next_one_goes_on() -> None:
    latched = {party: threading.Event() for party in THREE}
    late = FailsLate(3)

    def program() -> Any:
        late.task.party("alice").remote()
        late.release()
        pass_through(latched[fed.party()])
        with pytest.raises(fed.TaskError):
            fed.reset()
        fed.reset()
        return work()

    outcome = run(program, parties=THREE, failure_handler=lambda report: latched[report.party].set())
    assert returned(outcome) == dict.fromkeys(THREE, WORKED)


def test_e23_a_reset_without_a_party_that_has_left_says_who_and_refuses() -> None:
    everyone, refused = threading.Barrier(3), threading.Barrier(2)

    def program() -> Any:
        fail_here(everyone)
        if fed.party() == "carol":
            return "left"
        with pytest.raises(fed.JobAborted, match=r"cannot go on without carol: call fed.shutdown\(\)") as caught:
            fed.reset()
        # None of the two leaves before the other has been told of the third.
        refused.wait(10)
        # It stays aborted, whatever is called.
        with pytest.raises(fed.JobAborted):
            identity.party("alice").remote(1)
        with pytest.raises(fed.JobAborted):
            fed.reset()
        return caught.value.root.task

    outcome = run(program, parties=THREE)
    assert returned(outcome) == {"alice": "#0 fail", "bob": "#0 fail", "carol": "left"}


def test_e23_a_party_that_leaves_while_the_others_wait_for_its_reset(tap: Wiretap) -> None:
    everyone, refused = threading.Barrier(3), threading.Barrier(2)

    def program() -> None:
        fail_here(everyone)
        if fed.party() == "carol":
            for source in ("alice", "bob"):
                assert tap.wait_for_tell(NoticeKind.RESET, source=source, target="carol")
        else:
            with pytest.raises(fed.JobAborted, match="cannot go on without carol"):
                fed.reset()
            refused.wait(10)

    assert run(program, parties=THREE).errors == {}


def test_e23_nobody_goes_on_with_a_party_that_has_asked_and_then_left(tap: Wiretap) -> None:
    """Carol calls reset, gives up waiting, and leaves; her word that she is ready does not outlive her."""
    everyone, refused = threading.Barrier(3), threading.Barrier(2)

    def program() -> None:
        fail_here(everyone)
        if fed.party() == "carol":
            # Joining is not what is to be hurried.
            object.__setattr__(current_job().config, "init_timeout_s", 0.2)
            with pytest.raises(fed.FedTimeoutError):
                fed.reset()
        else:
            assert tap.wait_for_tell(NoticeKind.GOODBYE, source="carol", target=fed.party())
            with pytest.raises(fed.JobAborted, match="cannot go on without carol"):
                fed.reset()
            refused.wait(10)

    assert run(program, parties=THREE).errors == {}


def test_e23_where_all_call_reset_and_cannot_agree_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # A defect that this library should not have.
    monkeypatch.setattr(Coordinator, "_switch_if_agreed", lambda _: [])
    everyone = threading.Barrier(3)

    def program() -> Any:
        object.__setattr__(current_job().config, "init_timeout_s", 2.0)
        everyone.wait(10)
        with pytest.raises(
            fed.FedTimeoutError, match=r"within 2 s \(init_timeout_s\) by all parties after the same calls$"
        ):
            fed.reset()

    assert run(program, parties=THREE).errors == {}


def test_e23_a_party_that_does_not_call_reset_is_named_when_the_time_is_over() -> None:
    late = threading.Event()
    waited = threading.Barrier(2, action=late.set)

    everyone = threading.Barrier(3)

    def program() -> Any:
        fail_here(everyone)
        # Joining is not what is to be hurried.
        config = current_job().config
        object.__setattr__(config, "init_timeout_s", 0.3)
        if fed.party() == "carol":
            pass_through(late)
        else:
            with pytest.raises(fed.FedTimeoutError, match=r"within 0.3 s \(init_timeout_s\) by carol$"):
                fed.reset()
            waited.wait(10)
        object.__setattr__(config, "init_timeout_s", 30.0)
        # Whoever comes late is still in time if the others try again.
        fed.reset()
        return work()

    outcome = run(program, parties=THREE)
    assert returned(outcome) == dict.fromkeys(THREE, WORKED)


def test_e23_a_failure_of_the_one_that_all_wait_for_is_raised_by_their_resets(tap: Wiretap) -> None:
    """A healthy job is reset; before the last party calls it, a task of that party fails."""
    fails = threading.Event()

    @fed.remote
    def fail_late() -> None:
        pass_through(fails)
        raise ValueError

    def program() -> Any:
        fail_late.party("carol").remote()
        if fed.party() == "carol":
            for source in ("alice", "bob"):
                assert tap.wait_for_tell(NoticeKind.RESET, source=source, target="carol")
            fails.set()
            assert tap.wait_for_tell(NoticeKind.LATCHED, source="carol", target="alice")
        with pytest.raises(fed.TaskError) as caught:
            fed.reset()
        fed.reset()
        return caught.value.task, work()

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, ("#0 fail_late", WORKED))


def test_e23_who_has_asked_for_the_next_epoch_does_not_fail_by_an_object_of_this_one(tap: Wiretap) -> None:
    """Alice and bob wait for carol's reset when a task of alice's fails: it is of no more interest to anybody."""
    fails = threading.Event()
    failed = threading.Event()

    @fed.remote
    def fail_late() -> None:
        pass_through(fails)
        failed.set()
        raise ValueError

    def program() -> Any:
        fail_late.party("alice").remote()
        if fed.party() == "carol":
            for source in ("alice", "bob"):
                assert tap.wait_for_tell(NoticeKind.RESET, source=source, target="carol")
            fails.set()
            pass_through(failed)
        fed.reset()
        return work(), fed.errors()

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, (WORKED, ()))


# E30 a clean next run


def test_e30_a_failed_job_leaves_nothing_to_the_next_one() -> None:
    def main() -> Any:
        with pytest.raises(fed.TaskError), fed.job():
            chain()
        with fed.job():
            return fed.get(identity.party("bob").remote(5)), fed.errors()

    results = simulate(main, parties=PARTIES, timeout_s=20)
    assert dict(results) == dict.fromkeys(PARTIES, (5, ()))


def test_e30_what_a_peer_still_tells_of_an_old_failure_does_not_latch_the_new_epoch(tap: Wiretap) -> None:
    old = Failure("carol/old/1", Kind.TASK, "carol", "ValueError", "#0 fail", 0)
    everyone = threading.Barrier(3)

    def program() -> Any:
        fail_here(everyone)
        fed.reset()
        everyone.wait(10)
        if fed.party() == "alice":
            for kind in (NoticeKind.LATCHED, NoticeKind.FAILURE):
                objects = (identity.party("carol").remote(1)._entry.id,) if kind is NoticeKind.FAILURE else ()
                stale = [one._replace(epoch=0) for one in objects]
                notice = Notice(kind, 0, old, tuple(stale))
                tap.forge("bob", tap.handlers["bob"].on_notice, "carol", notice)
        else:
            identity.party("carol").remote(1)
        return work(), fed.errors()

    assert returned(run(program, parties=THREE)) == dict.fromkeys(THREE, (WORKED, ()))


def test_e30_many_jobs_after_another_of_which_every_second_one_fails() -> None:
    reports: list[fed.FailureReport] = []

    def main() -> Any:
        worked = failed = 0
        for number in range(6):
            try:
                with fed.job(failure_handler=reports.append):
                    if number % 2:
                        chain()
                    worked += work() == WORKED and fed.errors() == ()
            except fed.TaskError as error:
                failed += error.type_name == "ValueError"
        return worked, failed

    results = simulate(main, parties=THREE, timeout_s=30)
    assert dict(results) == dict.fromkeys(THREE, (3, 3))
    assert sorted(report.party for report in reports) == sorted(THREE * 3)
