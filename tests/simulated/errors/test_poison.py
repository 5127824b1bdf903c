"""E11 to E17: a failure is kept, wins or loses for ever, and reaches whatever depends on it and nothing else."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

import fed
from fed.context import current_job
from fed.core.failure import Failure, Kind
from fed.core.notice import Notice, NoticeKind
from fed.testing import FaultPlan
from fed.transport.contract import Parcel
from tests.support.failing import PARTIES, Cell, fail, identity, pass_through, play, returned, run
from tests.support.wiretap import Wiretap

THREE = PARTIES[:3]
RACERS = 1000


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Wiretap:
    return Wiretap().attach(monkeypatch)


@fed.remote
class Broken:
    def __init__(self) -> None:
        raise ValueError

    def method(self) -> None: ...


def outcome_of(read: Any) -> Any:
    """What a read comes to: a value, or the id of the failure."""
    try:
        return fed.get(read)
    except fed.TaskError as error:
        return error.error_id


# E11 latch, not only poison what waits


def test_e11_a_failure_that_came_before_its_reader_is_kept() -> None:
    failed = threading.Event()

    def program() -> Any:
        one = fail.party("alice").remote()
        other = identity.party("bob").remote(one)
        with pytest.raises(fed.TaskError):
            fed.get(other)
        failed.set()
        with pytest.raises(fed.TaskError) as caught:
            fed.get(one)
        return caught.value.error_id

    ids = run(program, on_error="isolate")
    assert len(set(ids.results.values())) == 1
    assert failed.is_set()


def test_e11_a_failure_that_arrives_before_its_consumer_was_called_is_raised_to_it(tap: Wiretap) -> None:
    """Bob makes the call that needs the object when he has long been told that there will be none."""

    def program() -> Any:
        bad = fail.party("alice").remote()
        if fed.party() == "bob":
            assert tap.wait_for_tell(NoticeKind.FAILURE, source="alice", target="bob")
        with pytest.raises(fed.TaskError) as caught:
            fed.get(identity.party("bob").remote(bad))
        return caught.value.error_id

    ids = run(program, on_error="isolate", parties=THREE)
    assert set(ids.results) == set(THREE)
    assert len(set(ids.results.values())) == 1


def test_e11_a_latch_that_falls_before_a_party_waits_is_raised_to_it(tap: Wiretap) -> None:
    """Likewise with a job that is aborted: carol waits for nothing until it is."""
    latched = threading.Event()

    def program() -> Any:
        fail.party("alice").remote()
        if fed.party() == "carol":
            pass_through(latched)
        return fed.get(identity.party("bob").remote(1))

    def handler(report: fed.FailureReport) -> None:
        if report.party == "carol":
            latched.set()

    errors = run(program, parties=THREE, failure_handler=handler).errors
    assert type(errors["carol"]) is fed.RemoteError


# E12 one terminal state


def test_e12_of_a_value_and_an_error_that_race_for_an_object_one_wins_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob is sent the value and the failure of one object 500 times each, at once."""
    winners = set()
    # Until either has won.
    for seed in range(300):
        winners.add(race_for_an_object(seed, Wiretap().attach(monkeypatch), late=False))
        if seed >= 4 and len(winners) == 2:
            break
    assert winners == {"alice/forged/1", "value"}


def test_e12_of_a_value_and_an_error_that_have_raced_before_it_is_asked_for_one_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    winners = {race_for_an_object(seed, Wiretap().attach(monkeypatch), late=True) for seed in range(5)}
    # A value that nobody waits for stays in the receiver; the failure is most often known by then.
    assert winners <= {"alice/forged/1", "value"}


def race_for_an_object(seed: int, tap: Wiretap, *, late: bool) -> str:
    """Which of the two bob sees, in every read of it."""
    failure = Failure("alice/forged/1", Kind.TASK, "alice", "ValueError")
    raced = threading.Event()
    ran: list[Any] = []

    @fed.remote
    def consume(value: Any) -> Any:
        ran.append(value)
        return value

    def race() -> None:
        pass_through(tap.network.holds)
        parcel = next(parcel for source, target, parcel in tap.parcels if (source, target) == ("alice", "bob"))
        bob = tap.handlers["bob"]
        racers: list[tuple[Any, ...]] = [(bob.on_parcels, "alice", [parcel])] * (RACERS // 2)
        racers += [(bob.on_notice, "alice", Notice(NoticeKind.FAILURE, 0, failure, (parcel.id,)))] * (RACERS // 2)
        random.Random(seed).shuffle(racers)
        together = threading.Barrier(20)

        def run_lane(lane: int) -> None:
            together.wait(10)
            for call, *arguments in racers[lane::20]:
                tap.forge("bob", call, *arguments)

        threads = [threading.Thread(target=run_lane, args=(lane,)) for lane in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raced.set()

    def program() -> Any:
        if fed.party() == "alice":
            # Or she would say that it is none of hers.
            with current_job().shell.lock:
                current_job().shell.learn(failure)
        one = identity.party("alice").remote("value")
        if late and fed.party() == "bob":
            pass_through(raced)
        consumer = consume.party("bob").remote(one)
        seen = [outcome_of(one)]
        pass_through(raced)
        seen += [outcome_of(read) for read in (one, consumer, one)]
        seen += [outcome_of([one])[0] if seen[0] == "value" else outcome_of([one])]
        return seen

    tap.network.hold("alice", "bob")
    racing = threading.Thread(target=race)
    racing.start()
    outcome = play(program, parties=THREE, on_error="isolate")
    racing.join()
    seen = outcome.outcome["bob"]
    assert len(set(seen)) == 1
    assert ran == (["value"] if seen[0] == "value" else [])
    return str(seen[0])


# E13 error before signal


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
def test_e13_whoever_is_woken_by_a_failure_finds_it_recorded(on_error: str) -> None:
    def program() -> Any:
        with pytest.raises(fed.TaskError) as caught:
            fed.get(identity.party("bob").remote(fail.party("alice").remote()))
        return caught.value.error_id in {failure.error_id for failure in fed.errors()}

    for _ in range(10):
        assert returned(run(program, parties=THREE, on_error=on_error)) == dict.fromkeys(THREE, True)


def test_e13_a_value_that_comes_after_the_failure_is_not_read(tap: Wiretap) -> None:
    everyone = threading.Barrier(3)

    def program() -> Any:
        good, bad = identity.party("alice").remote("value"), fail.party("alice").remote()
        fed.get(good)
        first = outcome_of(bad)
        if everyone.wait(10) == 0:
            # Alice's value of the one, under the name of the other.
            parcel = next(parcel for source, target, parcel in tap.parcels if (source, target) == ("alice", "bob"))
            forged = Parcel(bad._entry.id, parcel.header, parcel.buffers)
            for party in ("bob", "carol"):
                tap.forge(party, tap.handlers[party].on_parcels, "alice", [forged])
        everyone.wait(10)
        return first == outcome_of(bad) == outcome_of(identity.party("bob").remote(bad)), first != "value"

    assert returned(run(program, parties=THREE, on_error="isolate")) == dict.fromkeys(THREE, (True, True))


@pytest.mark.parametrize("seed", range(6))
def test_e13_e14_of_many_objects_each_is_its_value_or_its_failure(seed: int) -> None:
    """A program of random calls, some of which fail, over a network that doubles, delays, reorders and drops."""
    plan = FaultPlan(seed=seed)
    plan.at("send").probability(0.1).duplicate()
    plan.at("send").probability(0.1).reorder()
    plan.at("send").probability(0.02).drop()
    plan.at("receive").probability(0.1).duplicate()
    plan.at("broadcast").probability(0.1).duplicate()

    @fed.remote
    def combine(number: int, fails: bool, *arguments: Any) -> Any:
        if fails:
            raise ValueError(number)
        return [number, list(arguments)]

    def program() -> Any:
        choose = random.Random(seed)
        objects: list[Any] = []
        expected: list[Any] = []
        for number in range(40):
            chosen = choose.sample(range(number), min(number, choose.randint(0, 3)))
            fails = choose.random() < 0.15
            party = choose.choice(THREE)
            objects.append(combine.party(party).remote(number, fails, *[objects[one] for one in chosen]))
            # A value, or the tasks one of which must be named.
            roots: set[str] = set().union(*[expected[one] for one in chosen if isinstance(expected[one], set)])
            if not roots and fails:
                roots = {f"#{number} combine"}
            expected.append(roots or [number, [expected[one] for one in chosen]])
        wrong = []
        for one, due in zip(objects, expected, strict=True):
            try:
                got = fed.get(one)
            except fed.TaskError as error:
                got = error.task
            if got not in due if isinstance(due, set) else got != due:
                wrong.append((one, got, due))
        return tuple(wrong)

    outcome = run(program, parties=THREE, on_error="isolate", faults=plan)
    assert returned(outcome) == dict.fromkeys(THREE, ())
    assert plan.injected


def test_e13_what_arrives_as_garbage_is_a_failure_and_no_value() -> None:
    plan = FaultPlan()
    plan.at("send", party="alice", peer="bob").corrupt()
    errors = run(lambda: fed.get(identity.party("alice").remote("value")), parties=THREE, faults=plan).errors
    assert set(errors) == set(THREE)
    assert {type(error) for error in errors.values()} == {fed.DeliveryError}


# E14 forward only


def test_e14_a_failure_poisons_only_what_depends_on_it() -> None:
    def program() -> Any:
        good, bad = identity.party("carol").remote(7), fail.party("alice").remote()

        @fed.remote
        def both(first: Any, second: Any) -> Any:
            return first, second

        mixed = both.party("bob").remote(good, bad)
        with pytest.raises(fed.TaskError):
            fed.get(mixed)
        return fed.get([good, identity.party("bob").remote(good)])

    assert returned(run(program, on_error="isolate")) == {party: [7, 7] for party in PARTIES}


def test_e14_what_the_failed_one_used_and_what_else_was_queued_on_it_stay_untouched() -> None:
    """All is queued before anything fails. The failing task is the consumer: nothing goes backwards from it."""
    gate = threading.Event()
    queued = threading.Barrier(3, action=gate.set)

    @fed.remote
    def fail_late(*_: Any) -> None:
        pass_through(gate)
        raise ValueError

    def program() -> Any:
        used = identity.party("carol").remote("used")
        bad = fail_late.party("alice").remote(used)
        beside = identity.party("bob").remote(used)
        cell = Cell.party("bob").remote(1)
        poisoned = cell.add.remote(bad)
        after = cell.add.remote(10)
        queued.wait(10)
        # The method that was not run has changed nothing, and the actor lives on.
        return outcome_of(poisoned) == outcome_of(bad), fed.get([used, beside, after])

    assert returned(run(program, parties=THREE, on_error="isolate")) == dict.fromkeys(
        THREE, (True, ["used", "used", 11])
    )


# E15 queued consumers fail too


def test_e15_a_consumer_of_a_failed_object_never_runs() -> None:
    ran: list[str] = []

    @fed.remote
    def consume(value: Any) -> None:
        ran.append(str(value))

    def program() -> Any:
        bad = fail.party("alice").remote()
        for consumer in (consume.party("alice").remote(bad), consume.party("bob").remote([bad])):
            with pytest.raises(fed.TaskError):
                fed.get(consumer)
        return True

    assert returned(run(program, on_error="isolate")) == dict.fromkeys(PARTIES, True)
    assert ran == []


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
def test_e15_consumers_that_were_queued_before_the_failure_never_run(on_error: str) -> None:
    gate = threading.Event()
    queued = threading.Barrier(3, action=gate.set)
    ran: list[str] = []

    @fed.remote
    def fail_late() -> None:
        pass_through(gate)
        raise ValueError

    @fed.remote
    def consume(value: Any) -> None:
        ran.append("function")

    @fed.remote
    class Consumer:
        def __init__(self, value: Any = None) -> None:
            if value is not None:
                ran.append("constructor")

        def method(self, value: Any) -> None:
            ran.append("method")

        async def coroutine(self, value: Any) -> None:
            ran.append("coroutine")

    def program() -> Any:
        bad = fail_late.party("alice").remote()
        consumers = []
        for party in THREE:
            consumers.append(consume.party(party).remote(bad))
            consumers.append(consume.party(party).remote({"deep": [bad]}))
            # A consumer of a consumer, which never gets anything either.
            consumers.append(consume.party("alice").remote(consumers[-1]))
            actor = Consumer.party(party).remote()
            consumers.append(actor.method.remote(bad))
            consumers.append(actor.coroutine.remote(bad))
            consumers.append(Consumer.party(party).remote(bad).method.remote(1))
        queued.wait(10)
        ids = set()
        for one in [*consumers, bad]:
            with pytest.raises(fed.FailureError) as caught:
                fed.get(one)
            ids.add(caught.value.failure.error_id)
        return len(ids)

    outcome = run(program, parties=THREE, on_error=on_error)
    assert ran == []
    assert returned(outcome) == dict.fromkeys(THREE, 1)


# E16 every read tells the same


def test_e16_every_read_tells_the_same() -> None:
    def program() -> Any:
        bad = fail.party("alice").remote()
        derived = identity.party("bob").remote(bad)
        ids = []
        for read in (bad, bad, [bad], derived, {"k": [derived]}):
            with pytest.raises(fed.TaskError) as caught:
                fed.get(read)
            ids.append(caught.value.error_id)
        return set(ids)

    results = run(program, on_error="isolate")
    assert len(set.union(*results.results.values())) == 1


def test_e16_every_method_of_an_actor_that_could_not_be_made_tells_what_failed_in_its_constructor() -> None:
    def program() -> Any:
        bad = fail.party("alice").remote()
        ids = {outcome_of(bad)}
        for party in THREE:
            cell = Cell.party(party).remote(bad)
            ids |= {outcome_of(cell.add.remote(1)), outcome_of(cell.add.remote(2))}
        return len(ids)

    # A construction that failed by itself, and that nobody reads but through its methods, is not told a second time.
    def broken() -> Any:
        cell = Broken.party("alice").remote()
        return len({outcome_of(cell.method.remote()), outcome_of(cell.method.remote())}), len(fed.errors())

    assert returned(run(program, parties=THREE, on_error="isolate")) == dict.fromkeys(THREE, 1)
    assert returned(run(broken, parties=THREE, on_error="isolate")) == dict.fromkeys(THREE, (1, 1))


# E17 no early clearing


@pytest.mark.parametrize("on_error", ["abort", "isolate"])
def test_e17_a_dependent_that_was_queued_behind_a_blocked_failing_producer_raises(on_error: str) -> None:
    gate = threading.Event()
    queued = threading.Barrier(3, action=gate.set)

    @fed.remote
    def fail_late() -> None:
        pass_through(gate)
        raise ValueError

    def program() -> Any:
        dependent = identity.party("bob").remote(fail_late.party("alice").remote())
        queued.wait(10)
        with pytest.raises(fed.TaskError) as caught:
            fed.get(dependent)
        return caught.value.task

    assert returned(run(program, parties=THREE, on_error=on_error)) == dict.fromkeys(THREE, "#0 fail_late")


def test_e17_an_evaluation_that_ends_clears_nothing_of_one_that_was_queued_behind_it() -> None:
    """Between the failure and the read of its dependent other reads end, well and badly, and other tasks fail."""
    gate = threading.Event()
    queued = threading.Barrier(3, action=gate.set)

    @fed.remote
    def fail_late() -> None:
        pass_through(gate)
        raise ValueError

    def program() -> Any:
        bad = fail_late.party("alice").remote()
        first = identity.party("bob").remote(bad)
        second = identity.party("carol").remote(first)
        queued.wait(10)
        expected = outcome_of(bad)
        assert outcome_of(identity.party("alice").remote("fine")) == "fine"
        assert outcome_of(fail.party("alice").remote()) != expected
        assert outcome_of([first]) == expected
        assert fed.get([]) == []
        assert outcome_of(identity.party("carol").remote("fine")) == "fine"
        return outcome_of(second) == expected

    assert returned(run(program, parties=THREE, on_error="isolate")) == dict.fromkeys(THREE, True)
