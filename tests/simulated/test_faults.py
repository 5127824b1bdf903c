"""Fault plans: what may be planned, when it strikes, and what it does to a whole federation."""

from __future__ import annotations

import functools
import itertools
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import fed
from fed.core.failure import Kind
from fed.testing import FaultPlan, Injection, Simulation, simulate
from fed.testing.fault_run import InjectionPoint
from fed.testing.faults import PLACES
from fed.transport.contract import PeerRefused
from tests.support.eventually import eventually

PARTIES = ["alice", "bob", "carol"]
LIMIT_S = 20.0

transports = pytest.mark.parametrize("transport", ["memory", "grpc"])
Transport = Literal["memory", "grpc"]


@fed.remote
def produce(value: Any = 7) -> Any:
    return value


@fed.remote
def double(value: Any) -> Any:
    return 2 * value


@fed.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, number: int) -> int:
        self.count += number
        return self.count


@fed.remote
class Waiter:
    async def add(self, number: int) -> int:
        return number + 1


def play(program: Callable[[], Any], faults: FaultPlan, **arguments: Any) -> Simulation:
    def main() -> Any:
        with fed.job():
            return program()

    return simulate(main, parties=PARTIES, check=False, timeout_s=LIMIT_S, faults=faults, **arguments)


def crossing() -> Any:
    """Alice makes something, bob doubles it, everybody gets it."""
    return fed.get(double.party("bob").remote(produce.party("alice").remote()))


def meet() -> None:
    """Let everybody be known to have joined. Takes four calls."""
    fed.get([produce.party(party).remote() for party in PARTIES])


def kinds(simulation: Simulation) -> set[Kind]:
    return {error.failure.kind for error in simulation.errors.values() if isinstance(error, fed.FedError)}


# What may be planned


def call_of(fault: Any, action: str) -> None:
    if action == "raises":
        fault.raises(ValueError())
    elif action == "delay":
        fault.delay(0.0)
    else:
        getattr(fault, action)()


ACTIONS = sorted({action for rules in PLACES.values() for action in rules.actions})


@pytest.mark.parametrize(("place", "action"), list(itertools.product(PLACES, ACTIONS)))
def test_each_place_has_its_actions_and_refuses_the_others(place: Any, action: str) -> None:
    plan = FaultPlan()
    if action in PLACES[place].actions:
        if (place, action) != ("connect", "raises"):
            call_of(plan.at(place), action)
            plan.begin(PARTIES)
        return
    with pytest.raises(fed.UsageError) as refused:
        call_of(plan.at(place), action)
    legal = ", ".join(PLACES[place].actions)
    assert str(refused.value) == f"{action!r} is not possible at {place!r}: there are {legal}"


def test_the_table_in_the_documentation_is_this_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    words = [[set(re.findall(r"`(\w+)`", cell)) for cell in row] for row in rows]
    shown = {row[0].strip(" `"): (filters, actions) for row, (_, _, filters, actions) in zip(rows, words, strict=True)}
    assert shown == {place: ({"party", "nth", *rules.filters}, set(rules.actions)) for place, rules in PLACES.items()}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda plan: plan.at("sned"), "no place 'sned' for a fault: there are driver, produce, push, connect, send"),
        (lambda plan: plan.at("produce", peer="bob"), "'produce' has no peer: choose by party, call, task, nth"),
        (lambda plan: plan.at("send", kind="READY"), "'send' has no kind: choose by party, peer, call, nth"),
        (lambda plan: plan.at("handler", call=1), "'handler' has no call"),
        (lambda plan: plan.at("produce", call=-1), "call of a fault: expected a whole number from 0, found -1"),
        (lambda plan: plan.at("produce", nth=0), "nth of a fault: expected a whole number from 1, found 0"),
        (lambda plan: plan.at("produce", nth=True), "expected a whole number from 1, found True"),
        (lambda plan: plan.at("produce", task=3), "task of a fault: expected a string, found 3"),
        (lambda plan: plan.at("broadcast", kind="BYE"), "expected one of READY, FAILURE, .*, found 'BYE'"),
        (lambda plan: plan.at("send").probability(0), "probability of a fault: expected a number above 0, up to 1"),
        (lambda plan: plan.at("send").probability(1.5), "up to 1, found 1.5"),
        (lambda plan: plan.at("send").probability("often"), "up to 1, found 'often'"),
        (lambda plan: plan.at("send").delay(-1), "expected a number of seconds from 0, found -1"),
        (lambda plan: plan.at("send").delay(), "a delay takes seconds, or until="),
        (lambda plan: plan.at("send").delay(1, until="gate"), "a delay takes seconds, or until="),
        (lambda plan: plan.at("send").kill("OUT_OF_MEMORY"), "the kind of a kill is for 'produce', not for 'send'"),
        (lambda plan: plan.at("produce").kill("TASK"), "a task cannot be killed by 'TASK': there are WORKER_CRASHED"),
        (
            lambda plan: plan.at("produce").raises(SystemExit),
            "'produce' raises a subclass of Exception, not SystemExit",
        ),
        (lambda plan: plan.at("connect").raises(ValueError()), "a subclass of TransportError, not ValueError"),
        (lambda plan: plan.release("gate"), "no gate 'gate' in the fault plan: there are none"),
        (lambda plan: plan.wait_until_reached("gate"), "no gate 'gate' in the fault plan"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_planned(wrong: Callable[[FaultPlan], Any], message: str) -> None:
    with pytest.raises(fed.UsageError, match=message):
        wrong(FaultPlan())


def test_a_fault_is_completed_once() -> None:
    fault = FaultPlan().at("send")
    fault.drop()
    with pytest.raises(fed.UsageError, match=r"at\('send'\) has an effect already"):
        fault.corrupt()


@pytest.mark.parametrize("role", ["party", "peer"])
def test_a_fault_in_a_party_that_does_not_exist_is_refused(role: str) -> None:
    plan = FaultPlan()
    at: Any = plan.at
    at("send", **{role: "alcie"}).drop()
    with pytest.raises(fed.UsageError) as refused:
        play(crossing, plan)
    assert str(refused.value) == f"the fault at('send', {role}='alcie') names 'alcie': there are alice, bob, carol"


def test_a_fault_that_was_left_unfinished_is_refused() -> None:
    plan = FaultPlan()
    plan.at("send", nth=2).probability(0.5)
    with pytest.raises(fed.UsageError, match=r"at\('send', nth=2\) does nothing: call one of kill, hang, delay"):
        play(crossing, plan)


def test_a_plan_serves_one_simulation_at_a_time_and_begins_each_anew() -> None:
    plan = FaultPlan()
    plan.at("produce", party="alice", nth=1).raises(ValueError)

    def program() -> Any:
        with pytest.raises(fed.UsageError, match="the fault plan is in use"):
            play(crossing, plan)
        return crossing()

    for _ in range(2):
        assert kinds(play(program, plan)) == {Kind.TASK}
        assert plan.injected == (Injection("produce", "raises", "alice", None, 0, "produce"),)


# When it strikes


def struck(plan: FaultPlan, points: list[InjectionPoint]) -> list[InjectionPoint]:
    run = plan.begin(PARTIES)
    found = [point for point in points if run.fault_at(point)]
    run.end()
    return found


SENT = [InjectionPoint("send", party, peer, call) for call in range(50) for party in PARTIES for peer in PARTIES]


def test_a_fault_strikes_what_it_was_planned_for_and_nothing_else() -> None:
    plan = FaultPlan()
    plan.at("send", party="alice", peer="bob", call=3).drop()
    others = [InjectionPoint("receive", "alice", "bob", 3), InjectionPoint("connect", "alice", "bob")]
    assert struck(plan, SENT + others) == [InjectionPoint("send", "alice", "bob", 3)]


def test_the_nth_time_is_counted_for_each_party_and_peer_whatever_comes_between() -> None:
    plan = FaultPlan()
    plan.at("send", party="alice", nth=2).drop()
    mixed = SENT.copy()
    random.Random(0).shuffle(mixed)
    found = struck(plan, mixed)
    assert {point.peer for point in found} == set(PARTIES)
    for point in found:
        assert [other for other in mixed if (other.party, other.peer) == ("alice", point.peer)][1] == point


def test_a_probability_depends_on_the_seed_and_on_what_happens_but_on_no_order() -> None:
    def chosen(seed: int, points: list[InjectionPoint]) -> set[InjectionPoint]:
        plan = FaultPlan(seed)
        plan.at("send").probability(0.3).drop()
        return set(struck(plan, points))

    mixed = SENT.copy()
    random.Random(0).shuffle(mixed)
    assert chosen(7, SENT) == chosen(7, mixed)
    assert chosen(7, SENT) != chosen(8, SENT)
    assert 0.2 < len(chosen(7, SENT)) / len(SENT) < 0.4


def test_what_comes_again_has_another_chance() -> None:
    plan = FaultPlan()
    plan.at("send").probability(0.5).drop()
    again = [InjectionPoint("send", "alice", "bob", 3)] * 100
    assert 30 < len(struck(plan, again)) < 70


def test_the_first_of_several_faults_strikes_and_each_counts_for_itself() -> None:
    plan = FaultPlan()
    plan.at("send", party="alice", peer="bob", nth=2).drop()
    plan.at("send", party="alice", peer="bob", nth=2).corrupt()
    plan.at("send", party="alice", peer="bob", nth=3).duplicate()
    run = plan.begin(PARTIES)
    faults = [run.fault_at(InjectionPoint("send", "alice", "bob", 0)) for _ in range(4)]
    assert [fault and fault.action for fault in faults] == [None, "drop", "duplicate", None]
    run.end()


def test_two_runs_of_a_program_suffer_the_same() -> None:
    def program() -> Any:
        made = [produce.party(party).remote(number) for number in range(8) for party in PARTIES]
        return fed.get([double.party("bob").remote(number) for number in made])

    def injected(seed: int) -> set[Injection]:
        plan = FaultPlan(seed)
        plan.at("receive").probability(0.3).duplicate()
        plan.at("push").probability(0.3).delay(0.001)
        simulation = play(program, plan)
        assert simulation.errors == {}
        return set(plan.injected)

    assert injected(1) == injected(1) != injected(2)


# What it does to a federation


def test_a_driver_dies_before_a_call() -> None:
    plan = FaultPlan()
    plan.at("driver", party="carol", call=5).raises(KeyError("carol"))

    def program() -> Any:
        meet()
        return crossing()

    errors = play(program, plan).errors
    assert set(errors) == set(PARTIES)
    assert isinstance(errors["carol"], KeyError)
    assert {type(errors[party]) for party in ("alice", "bob")} == {fed.PartyLeftError}
    assert kinds(Simulation({}, {party: errors[party] for party in ("alice", "bob")})) == {Kind.DRIVER}


@pytest.mark.parametrize("seed", range(5))
def test_drivers_that_are_out_of_step_come_to_the_same_end(seed: int) -> None:
    def program() -> Any:
        made = Counter.party("carol").remote(1)
        counted = [made.add.remote(double.party(party).remote(crossing())) for party in PARTIES]
        fed.kill(Waiter.party("alice").remote())
        return fed.get(counted)

    plan = FaultPlan(seed)
    plan.at("driver").probability(0.3).delay(0.01)
    # Each adds 28 to what is there.
    assert list(play(program, plan).results.values()) == [[29, 57, 85]] * 3


def test_a_driver_that_hangs_keeps_the_others_waiting_until_it_is_released() -> None:
    plan = FaultPlan()
    plan.at("driver", party="alice", call=0).hang(until="gate")

    def program() -> Any:
        if fed.party() == "bob":
            plan.wait_until_reached("gate")
            plan.release("gate")
        return crossing()

    assert dict(play(program, plan)) == dict.fromkeys(PARTIES, 14)
    assert plan.injected == (Injection("driver", "hang", "alice", None, 0),)


def test_a_task_that_raises_does_not_run() -> None:
    ran: list[str] = []

    @fed.remote
    def note(name: str) -> None:
        ran.append(name)

    def program() -> Any:
        first = note.party("alice").remote("first")
        return fed.get([first, note.party("alice").remote("second")])

    plan = FaultPlan()
    plan.at("produce", party="alice", call=1, task="note").raises(ValueError("boom"))
    errors = play(program, plan).errors
    assert ran == ["first"]
    assert isinstance(errors["alice"], fed.TaskError)
    assert isinstance(errors["alice"].__cause__, ValueError)
    assert str(errors["alice"].__cause__) == "boom"
    assert isinstance(errors["bob"], fed.RemoteError)
    assert (errors["bob"].type_name, errors["bob"].task) == ("ValueError", "#1 note")
    assert plan.injected == (Injection("produce", "raises", "alice", None, 1, "note"),)


def test_a_task_whose_argument_failed_is_not_struck() -> None:
    plan = FaultPlan()
    plan.at("produce", task="produce").raises(ValueError)
    plan.at("produce", task="double").raises(TypeError)
    errors = play(crossing, plan).errors
    assert {error.type_name for error in errors.values() if isinstance(error, fed.TaskError)} == {"ValueError"}
    assert [injection.task for injection in plan.injected] == ["produce"]


@pytest.mark.parametrize("actor", [Counter, Waiter], ids=["thread", "loop"])
def test_one_call_of_an_actor_raises_and_the_others_do_not(actor: Any) -> None:
    def program() -> Any:
        made = actor.party("alice").remote()
        results = [made.add.remote(1) for _ in range(3)]
        seen = []
        for result in results:
            try:
                seen.append(fed.get(result))
            except fed.TaskError as error:
                seen.append(error.type_name)
        return seen

    plan = FaultPlan()
    plan.at("produce", task=f"{actor._body.name}.add", nth=2).raises(KeyError)
    expected = [1, "KeyError", 2] if actor is Counter else [2, "KeyError", 2]
    assert dict(play(program, plan, on_error="isolate")) == dict.fromkeys(PARTIES, expected)


def test_the_construction_of_an_actor_raises() -> None:
    plan = FaultPlan()
    plan.at("produce", task="Counter.__init__").raises(KeyError)

    def program() -> Any:
        return fed.get(Counter.party("alice").remote(5).add.remote(1))

    errors = play(program, plan).errors
    assert {error.type_name for error in errors.values() if isinstance(error, fed.TaskError)} == {"KeyError"}


@pytest.mark.parametrize("kind", ["WORKER_CRASHED", "OUT_OF_MEMORY", "OBJECT_LOST", "CANCELLED"])
def test_a_killed_task_is_what_the_runtime_would_find(kind: Any) -> None:
    plan = FaultPlan()
    plan.at("produce", task="produce").kill(kind)
    simulation = play(crossing, plan)
    assert set(simulation.errors) == set(PARTIES)
    assert kinds(simulation) == {Kind[kind]}


@pytest.mark.parametrize("method", ["__init__", "add"])
@pytest.mark.parametrize("actor", [Counter, Waiter], ids=["thread", "loop"])
def test_a_killed_actor_is_dead_for_all_later_calls(actor: Any, method: str) -> None:
    plan = FaultPlan()
    plan.at("produce", task=f"{actor._body.name}.{method}", nth=1).kill()

    def program() -> Any:
        made = actor.party("alice").remote()
        seen = []
        for _ in range(2):
            try:
                seen.append(fed.get(made.add.remote(1)))
            except fed.TaskError as error:
                seen.append(error.kind)
        return seen

    simulation = play(program, plan, on_error="isolate")
    # That the construction failed as well, nobody has asked: its own party says so at the end.
    assert kinds(simulation) <= {Kind.ACTOR_DIED}
    assert simulation.errors.keys() <= {"alice"}
    assert dict(simulation.results) == {
        party: [Kind.ACTOR_DIED] * 2 for party in PARTIES if party not in simulation.errors
    }


def test_a_proxy_that_raises_ends_the_job() -> None:
    plan = FaultPlan()
    plan.at("push", party="alice", call=4).raises(MemoryError("no room"))

    def program() -> Any:
        meet()
        return crossing()

    simulation = play(program, plan)
    assert set(simulation.errors) == set(PARTIES)
    assert kinds(simulation) == {Kind.INTERNAL}


def shared(value: Any) -> Any:
    return fed.get(produce.party("alice").remote(value))


VALUES: list[Any] = [7, None, "text", b"x" * 100_000, [1.5, {"a": (1, 2)}], np.arange(50_000), {}]


@transports
@pytest.mark.parametrize("place", ["send", "receive"])
def test_whatever_is_corrupted_is_refused_by_the_codec(place: Any, transport: Transport) -> None:
    for value in VALUES if transport == "memory" else VALUES[:1]:
        plan = FaultPlan()
        plan.at(place, call=0).corrupt()
        simulation = play(functools.partial(shared, value), plan, transport=transport)
        assert kinds(simulation) == {Kind.DELIVERY}, value
        assert plan.injected


@transports
@pytest.mark.parametrize("place", ["send", "receive"])
@pytest.mark.parametrize("action", ["drop", "duplicate", "reorder", "delay"])
@pytest.mark.parametrize("value", [7, b"x" * 200_000], ids=["small", "large"])
def test_what_a_network_does_costs_time_and_nothing_else(
    place: Any, action: str, value: Any, transport: Transport
) -> None:
    def program() -> Any:
        results = [double.party("bob").remote(produce.party("alice").remote(value)) for _ in range(3)]
        return fed.get(results)

    plan = FaultPlan()
    fault = plan.at(place, call=2, nth=1)
    fault.delay(0.01) if action == "delay" else getattr(fault, action)()
    simulation = play(program, plan, transport=transport)
    assert dict(simulation) == dict.fromkeys(PARTIES, [2 * value] * 3)
    assert {(fault.place, fault.action, fault.call) for fault in plan.injected} == {(place, action, 2)}


@transports
def test_a_dropped_notice_is_told_again(transport: Transport) -> None:
    plan = FaultPlan()
    plan.at("broadcast", party="alice", kind="LATCHED", nth=1).drop()
    plan.at("produce", task="produce").raises(ValueError)
    simulation = play(crossing, plan, transport=transport)
    assert kinds(simulation) == {Kind.TASK}
    assert set(simulation.errors) == set(PARTIES)
    told = [injection.peer for injection in plan.injected if injection.place == "broadcast"]
    assert sorted(map(str, told)) == ["bob", "carol"]


def test_an_error_overtakes_data_that_hangs() -> None:
    plan = FaultPlan()
    plan.at("send", party="alice", peer="bob").hang()
    plan.at("produce", call=2).raises(ValueError)

    def program() -> Any:
        held = double.party("bob").remote(produce.party("alice").remote())
        # Or the job might fail before there is anything to send.
        assert eventually(lambda: bool(plan.injected))
        return fed.get([produce.party("alice").remote(), held])

    simulation = play(program, plan)
    assert kinds(simulation) == {Kind.TASK}
    assert {injection.action for injection in plan.injected} == {"hang", "raises"}


def test_a_greeting_that_is_refused_keeps_the_job_from_starting() -> None:
    plan = FaultPlan()
    plan.at("connect", party="alice", peer="bob").raises(PeerRefused("not with you"))
    errors = play(crossing, plan, skip_waiting=True).errors
    assert set(errors) == set(PARTIES)
    assert {type(error) for error in errors.values()} == {fed.InitError}
    assert "not with you" in str(errors["alice"])


def test_a_lost_greeting_is_repeated() -> None:
    plan = FaultPlan()
    plan.at("connect", nth=1).drop()
    assert dict(play(crossing, plan)) == dict.fromkeys(PARTIES, 14)
    assert len(plan.injected) == 6


def test_a_failure_handler_raises() -> None:
    ran: list[str] = []
    plan = FaultPlan()
    plan.at("produce", task="produce").raises(ValueError)
    plan.at("handler", party="alice").raises(SystemExit(7))
    simulation = play(crossing, plan, failure_handler=lambda report: ran.append(report.party))
    assert kinds(simulation) == {Kind.TASK}
    assert sorted(ran) == ["bob", "carol"]
    assert Injection("handler", "raises", "alice") in plan.injected


@pytest.mark.parametrize("place", ["produce", "push", "deliver", "handler"])
def test_what_is_held_goes_on_when_it_is_released(place: Any) -> None:
    ran: list[str] = []
    plan = FaultPlan()
    if place == "handler":
        plan.at("produce", task="produce").raises(ValueError)
    plan.at(place, party="bob" if place == "deliver" else "alice", nth=1).hang(until="gate")
    others = threading.Barrier(3)

    def program() -> Any:
        # Alice comes last: what fails would keep one that is late from calling at all.
        if fed.party() == "alice":
            others.wait(10)
        started = double.party("bob").remote(produce.party("alice").remote())
        if fed.party() != "alice":
            others.wait(10)
        if fed.party() == "carol":
            plan.wait_until_reached("gate")
            ran.append("released")
            plan.release("gate")
        return fed.get(started)

    def note(report: Any) -> None:
        if report.party == "alice":
            ran.append("handled")

    simulation = play(program, plan, failure_handler=note)
    if place == "handler":
        assert kinds(simulation) == {Kind.TASK}
        assert ran == ["released", "handled"]
    else:
        assert dict(simulation) == dict.fromkeys(PARTIES, 14)


@pytest.mark.parametrize("actor", [Counter, Waiter], ids=["thread", "loop"])
def test_a_method_that_hangs_goes_on_when_it_is_released(actor: Any) -> None:
    plan = FaultPlan()
    plan.at("produce", task=f"{actor._body.name}.add").hang(until="gate")

    def program() -> Any:
        result = actor.party("alice").remote().add.remote(1)
        if fed.party() == "carol":
            plan.wait_until_reached("gate")
            plan.release("gate")
        return fed.get(result)

    assert play(program, plan).errors == {}


def counting() -> Any:
    return fed.get(Counter.party("alice").remote().add.remote(1))


INJECTABLE: dict[Kind, tuple[Callable[[], Any], Callable[[FaultPlan], None]]] = {
    Kind.TASK: (crossing, lambda plan: plan.at("produce", call=4).raises(ValueError)),
    Kind.CANCELLED: (crossing, lambda plan: plan.at("produce", call=4).kill("CANCELLED")),
    Kind.WORKER_CRASHED: (crossing, lambda plan: plan.at("produce", call=4).kill()),
    Kind.OUT_OF_MEMORY: (crossing, lambda plan: plan.at("produce", call=4).kill("OUT_OF_MEMORY")),
    Kind.ACTOR_DIED: (counting, lambda plan: plan.at("produce", task="Counter.add").kill()),
    Kind.OBJECT_LOST: (crossing, lambda plan: plan.at("produce", call=4).kill("OBJECT_LOST")),
    Kind.DELIVERY: (crossing, lambda plan: plan.at("send", call=4).corrupt()),
    Kind.DRIVER: (crossing, lambda plan: plan.at("driver", party="carol", call=6).raises(KeyError)),
    Kind.INTERNAL: (crossing, lambda plan: plan.at("push", call=4).raises(MemoryError)),
}
"""How to bring about each kind that comes from without; the others come from the program, or from its options."""


@pytest.mark.parametrize("kind", INJECTABLE, ids=lambda kind: str(kind.name))
def test_e24_each_kind_of_failure_is_injected_and_known_everywhere(kind: Kind) -> None:
    program, add = INJECTABLE[kind]
    plan = FaultPlan()
    add(plan)
    reports: list[Any] = []

    def main() -> Any:
        meet()
        return program()

    simulation = play(main, plan, failure_handler=reports.append)
    assert {report.party: report.root.kind for report in reports} == dict.fromkeys(PARTIES, kind)
    assert set(simulation.errors) == set(PARTIES)


# Proxies that are killed


@transports
@pytest.mark.parametrize("place", ["receive", "deliver"])
@pytest.mark.parametrize("value", [7, b"x" * 200_000], ids=["small", "large"])
def test_a_receiver_that_is_killed_loses_no_object(place: Any, value: Any, transport: Transport) -> None:
    def program() -> Any:
        # What peers had told a receiver that is killed, that they are ready for one, is gone with it.
        meet()
        results = fed.get([double.party("bob").remote(produce.party("alice").remote(value)) for _ in range(3)])
        # Let everybody find the new one, since a goodbye may not be repeated for it.
        meet()
        return results

    plan = FaultPlan()
    plan.at(place, party="bob", peer="alice", nth=3).kill()
    # What was confirmed to a receiver that is killed is not confirmed to the next one: its owner waits, and leaves.
    simulation = play(program, plan, transport=transport, drain_timeout_s=2, lease_s=2)
    assert dict(simulation) == dict.fromkeys(PARTIES, [2 * value] * 3)
    assert [(fault.place, fault.action, fault.party) for fault in plan.injected] == [(place, "kill", "bob")]


# The end


def test_what_hangs_ends_with_the_simulation_and_the_plan_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    plan = FaultPlan(seed=4711)
    plan.at("produce", task="produce").hang()
    plan.at("receive", nth=1).duplicate()

    def main() -> Any:
        with fed.job():
            fed.get(produce.party("bob").remote())

    with pytest.raises(fed.FedTimeoutError, match="fed-alice stands at"):
        simulate(main, parties=["alice", "bob"], timeout_s=1, faults=plan)
    printed = capsys.readouterr().err
    assert printed.endswith("\nfault plan with seed 4711: 1 injected\n  bob: produce hang (call 0, produce)\n")
    assert all(f"{party}: its last events\n" in printed for party in ("alice", "bob"))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("fed-")] == []


@pytest.mark.parametrize("place", ["produce", "push", "send", "receive", "deliver"])
def test_a_party_that_is_through_waits_for_no_fault(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs for ever, and the job fails of something else: that ends the simulation before its time."""
    monkeypatch.setattr("fed.runtime.local.GRACE_S", 10 * LIMIT_S)
    plan = FaultPlan()
    plan.at(place).hang(until="gate")

    def program() -> Any:
        held = double.party("bob").remote(produce.party("alice").remote())
        if fed.party() == "carol":
            plan.wait_until_reached("gate")
            raise KeyError("carol has enough")
        return fed.get(held)

    simulation = play(program, plan, skip_waiting=True)
    assert set(simulation.errors) == set(PARTIES)
    assert isinstance(simulation.errors["carol"], KeyError)


def test_the_plan_is_shown_with_an_error_and_not_without(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> Any:
        with fed.job():
            return crossing()

    plan = FaultPlan(seed=3)
    plan.at("receive", nth=1).duplicate()
    simulate(main, parties=PARTIES, faults=plan)
    assert capsys.readouterr().err == ""
    plan.at("produce", call=1).raises(ValueError)
    with pytest.raises(fed.TaskError):
        simulate(main, parties=PARTIES, faults=plan)
    assert capsys.readouterr().err == (
        "fault plan with seed 3: 2 injected\n"
        "  bob: receive duplicate (peer alice, call 0)\n"
        "  bob: produce raises (call 1, double)\n"
    )


def test_a_gate_that_nothing_reaches_is_told() -> None:
    plan = FaultPlan()
    plan.at("send").hang(until="gate")
    with pytest.raises(fed.FedTimeoutError, match=r"nothing reached the gate 'gate' within 0\.01 s"):
        plan.wait_until_reached("gate", timeout_s=0.01)
