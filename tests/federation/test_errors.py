"""The error model, rule by rule, with nothing replaced: driver processes, Ray and gRPC (ERRORS: rules E01 to E45)."""

from __future__ import annotations

import random
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fed.config import TLSConfig
from fed.runtime.cluster import LocalCluster
from fed.testing.simulation import free_addresses
from tests.federation.conftest import Driver
from tests.federation.forwarding import Forwarder
from tests.federation.hosting import ANSWER_S, Gate, Host, hosted

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

Start = Callable[..., dict[str, Driver]]
Answers = dict[str, Any]

CANARY = "canary-4711"
SEED = 20
"""Of the moments at which Ctrl-C is pressed."""

FOUR = ("alice", "bob", "carol", "dave")
THREE = FOUR[:3]

SECRETS = re.compile(rb"canary-[a-z]+(?:-[a-z]+)?|pid=[0-9]+|ip=[0-9.]+|ray::\w+|raise \w+")
"""What a traceback, and what Ray makes of one, would tell of a party."""


@pytest.fixture(scope="module")
def secured(
    ray_cluster: LocalCluster, credentials: Mapping[str, TLSConfig], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Mapping[str, Mapping[str, str]]]:
    """Makes the environments of the parties of a job, over mutual TLS."""

    def environments(job: str, *parties: str, **variables: str) -> Mapping[str, Mapping[str, str]]:
        addresses = dict(zip(parties, free_addresses(len(parties)), strict=True))
        logs = tmp_path_factory.mktemp("logs")
        return {
            party: {
                **ray_cluster.environment(),
                "FED_JOB": job,
                "FED_PARTY": party,
                "FED_ADDRESSES": ",".join(f"{name}={address}" for name, address in addresses.items()),
                "FED_TLS_CA": str(credentials[party].ca),
                "FED_TLS_CERT": str(credentials[party].cert),
                "FED_TLS_KEY": str(credentials[party].key),
                "FED_INIT_TIMEOUT_S": "60",
                "FED_LOG_DIR": str(logs / party),
                **variables,
            }
            for party in parties
        }

    return environments


@pytest.fixture(scope="module")
def four(secured: Callable[..., Any]) -> Iterator[Host]:
    """Four parties whose job aborts at the first failure. Dave's driver is not to be interrupted."""

    def environments() -> Mapping[str, Mapping[str, str]]:
        made = secured("four", *FOUR)
        return {**made, "dave": {**made["dave"], "FED_INTERRUPT_DRIVER": "false"}}

    with hosted(environments) as host:
        yield host


@pytest.fixture(scope="module")
def two(secured: Callable[..., Any]) -> Iterator[Host]:
    """Another job in the same Ray cluster: two parties that may survive failures."""
    with hosted(lambda: secured("two", "alice", "bob", FED_ON_ERROR="isolate")) as host:
        yield host


@pytest.fixture(scope="module")
def forwarder() -> Iterator[Forwarder]:
    with Forwarder(THREE) as forwarder:
        yield forwarder


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def overheard(ray_cluster: LocalCluster, forwarder: Forwarder, logs: Path) -> Iterator[Host]:
    """Three parties whose every byte is kept, and so without TLS. Alice exposes her messages to bob."""

    def environments() -> Mapping[str, Mapping[str, str]]:
        return {
            party: {
                **ray_cluster.environment(),
                "FED_JOB": "overheard",
                "FED_PARTY": party,
                "FED_ADDRESSES": ",".join(f"{name}={one}" for name, one in forwarder.addresses(party).items()),
                "FED_LOG_DIR": str(logs / party),
                "FED_EXPOSE_ERRORS": "bob=message" if party == "alice" else "",
            }
            for party in THREE
        }

    with hosted(environments) as host:
        yield host


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[[str], Gate]]:
    """Makes gates, and closes them at the end."""
    gates: list[Gate] = []

    def make(name: str = "gate") -> Gate:
        gates.append(Gate(tmp_path / name))
        return gates[-1]

    yield make
    for one in gates:
        one.close()


def results(answers: Answers) -> dict[str, Any]:
    """What the scenario itself came to, by party."""
    return {party: answer["result"] for party, answer in answers.items()}


def agree_on(errors: Mapping[str, Any], type_name: str, source: str) -> None:
    """Every party was told of the same failure, as its own or as another's."""
    assert len({error["error_id"] for error in errors.values()}) == 1, errors
    for party, error in errors.items():
        assert (error["type"], error["party"]) == (type_name, source)
        assert error["error"] == ("TaskError" if party == source else "RemoteError")


def handled_once(answers: Answers) -> None:
    """Every party's handler was called once, with the same root."""
    for party, answer in answers.items():
        assert [report["here"] for report in answer["handled"]] == [party], answer
    assert len({answer["handled"][0]["error_id"] for answer in answers.values()}) == 1


def test_e01_the_consumer_is_told_instead_of_waiting(four: Host) -> None:
    errors = results(four.play("consumer_is_told"))
    agree_on(errors, "ValueError", "alice")
    assert errors["bob"]["text"] == "ValueError in task #0 fail at party 'alice'"
    # The party itself sees its own exception.
    assert errors["alice"]["cause"] == f"ValueError({CANARY!r})"


def test_e04_a_slow_task_does_not_hide_a_later_failure(four: Host, gate: Callable[..., Gate]) -> None:
    slow = gate()
    errors = results(four.play("later_failure", slow.path))
    agree_on(errors, "ValueError", "alice")
    # All that while it has been running.
    slow.open()


def test_e05_e10_e19_e20_everyone_is_told_who_waits_for_nothing(four: Host, gate: Callable[..., Gate]) -> None:
    failing = gate()
    playing = four.begin("nobody_waits", failing.path)
    playing.wait_for("called")
    failing.open()
    answers = playing.answers()
    handled_once(answers)
    for party, (outside, first, second) in results(answers).items():
        if party == "dave":
            # Nothing interrupts it: it learns at its next fed call.
            assert outside["value"] is None
        else:
            assert outside["error"] == "JobInterrupted"
            assert outside["error_id"] == first["error_id"]
        assert first["error"] == ("TaskError" if party == "alice" else "RemoteError")
        assert second["error"] == "JobAborted"
        assert "ValueError in task #0 fail at party 'alice'" in second["text"]
        assert "call fed.reset() to go on" in second["text"]


def test_e06_the_handler_runs_once_in_every_party_however_many_tasks_fail(four: Host) -> None:
    for party, answer in four.play("many_failures").items():
        assert [report["here"] for report in answer["handled"]] == [party]
        assert answer["handled"][0]["error_id"] == answer["result"]["error_id"]
        assert answer["result"]["type"] == "ValueError"


def test_e10_a_driver_that_is_outside_fed_is_interrupted(four: Host, gate: Callable[..., Gate]) -> None:
    failing, waiting = gate("failing"), gate("waiting")
    playing = four.begin("outside", failing.path, waiting.path)
    playing.wait_for("outside")
    waiting.reach()
    failing.open()
    for party in ("alice", "bob", "carol"):
        playing.wait_for("inside", [party])
    # Nothing has interrupted this one. The failure waits for its next fed call [E19].
    assert "inside" not in four.drivers["dave"].lines[-1]
    playing.tell("dave")
    for party, (outside, first, second) in results(playing.answers()).items():
        # All that gets out of Ray's own calls; leaving the job makes it a JobInterrupted.
        interrupted = {"alice": "KeyboardInterrupt", "bob": "JobInterrupted", "carol": "JobInterrupted"}
        assert outside.get("error") == interrupted.get(party)
        assert first["error"] == ("TaskError" if party == "alice" else "RemoteError")
        assert second["error"] == "JobAborted"


def test_e15_consumers_that_were_queued_before_the_failure_never_run(
    four: Host, gate: Callable[..., Gate], tmp_path: Path
) -> None:
    failing = gate()
    folder = tmp_path / "ran"
    folder.mkdir()
    playing = four.begin("queued_consumers", failing.path, str(folder))
    playing.wait_for("queued")
    failing.open()
    for first, *later, drained in results(playing.answers()).values():
        assert first["type"] == "ValueError"
        assert {error["error"] for error in later} == {"JobAborted"}
        # Nothing is left that could run yet.
        assert drained
    assert list(folder.iterdir()) == []


def test_e20_e21_e26_nothing_runs_on_a_latched_job_and_every_call_says_why(four: Host, tmp_path: Path) -> None:
    folder = tmp_path / "ran"
    folder.mkdir()
    for party, (first, *later, numbered) in results(four.play("nothing_runs", str(folder))).items():
        assert first["error"] == ("TaskError" if party == "alice" else "RemoteError")
        assert [error["error"] for error in later] == ["JobAborted"] * 4
        assert {error["error_id"] for error in later} == {first["error_id"]}
        assert numbered == 0
    # A task that was submitted before the reset would have run before this.
    assert results(four.play("sum_of_all")) == dict.fromkeys(FOUR, 4)
    assert list(folder.iterdir()) == []


def test_e23_what_is_left_of_an_epoch_disturbs_no_later_one(four: Host, gate: Callable[..., Gate]) -> None:
    slow, failing = gate("slow"), gate("failing")
    playing = four.begin("what_a_reset_leaves", slow.path, failing.path)
    playing.wait_for("reset")
    slow.open()
    failing.open()
    playing.tell_all()
    answers = playing.answers()
    agree_on({party: result["first"] for party, result in results(answers).items()}, "ValueError", "alice")
    for party, result in results(answers).items():
        assert answers[party]["handled"] == []
        assert result["clean"] == {"errors": 0, "calls": 0}
        assert result["values"] == [step + 1 for step in range(20)]
        # Live actors go on.
        assert result["counts"] == [1, 2]
        assert ["earlier job or epoch" in text for text in result["dead"]] == [True, True]
        assert result["errors"] == 0


def test_e27_receives_that_are_pending_are_let_go(four: Host, gate: Callable[..., Gate]) -> None:
    slow, failing = gate("slow"), gate("failing")
    playing = four.begin("pending_receives", slow.path, failing.path)
    playing.wait_for("pending")
    slow.reach()
    failing.open()
    answers = results(playing.answers())
    agree_on({party: error for party, (error, _) in answers.items()}, "ValueError", "alice")
    # What waited for them came to its end, but for the task that they waited for.
    assert {party: drained for party, (_, drained) in answers.items()} == {party: party != "dave" for party in FOUR}
    slow.open()


@pytest.mark.parametrize(("first", "second"), [("alice", "carol"), ("carol", "alice"), ("dave", "bob")])
def test_e29_of_two_failures_at_once_every_party_names_the_same_root(
    four: Host, gate: Callable[..., Gate], first: str, second: str
) -> None:
    gates = {party: gate(party) for party in (first, second)}
    playing = four.begin("two_fail", {party: one.path for party, one in gates.items()})
    for one in gates.values():
        one.reach()
    for one in gates.values():
        one.close()
    answers = playing.answers()
    handled_once(answers)
    errors = {party: result[0] for party, result in results(answers).items()}
    agree_on(errors, "ValueError", errors["alice"]["party"])
    assert {party: result[1]["error_id"] for party, result in results(answers).items()} == {
        party: error["error_id"] for party, error in errors.items()
    }


@pytest.mark.parametrize(
    ("what", "calls"),
    [
        ("function", {"carol": "total.party('bob').remote(#0)", "others": "identity.party('bob').remote(#0)"}),
        ("argument", {"dave": "identity.party('bob').remote(#1)", "others": "identity.party('bob').remote(#0)"}),
        ("less", {"bob": "identity.party('carol').remote(#1)", "others": "identity.party('bob').remote(#0)"}),
    ],
)
def test_e43_programs_that_differ_are_told_where(four: Host, what: str, calls: Mapping[str, str]) -> None:
    answers = four.play("differing", what)
    handled_once(answers)
    source = next(iter(calls))
    said = re.compile(
        rf"call #2 differs: (?=.*party '{source}' called {re.escape(calls[source])})"
        rf"(?=.*party '(?!{source})\w+' called {re.escape(calls['others'])}).*: every party must run the same program"
    )
    for answer in answers.values():
        # Raised once as itself, in a fed call; before that a driver outside may have been interrupted.
        raised = [one for one in answer["result"] if one["error"] == "DivergenceError"]
        assert len(raised) == 1
        assert said.fullmatch(raised[0]["text"])
        assert raised[0]["error_id"] == answer["handled"][0]["error_id"]


def test_e07_ctrl_c_at_any_moment_of_a_fed_call_hangs_nobody(four: Host) -> None:
    generator = random.Random(SEED)
    for _ in range(20):
        delay_s = generator.uniform(0, 0.2)
        answers = four.play("interrupted_call", delay_s)
        handled_once(answers)
        for party, (error, *raised_after_s) in results(answers).items():
            # It is raised at the end of the call, which does not wait for what it was waiting for.
            assert len(raised_after_s) == (1 if party == "alice" else 0), (SEED, delay_s, answers)
            assert error["error_id"] == answers[party]["handled"][0]["error_id"]


def test_e11_e16_a_failure_that_came_before_its_reader_is_kept(two: Host, gate: Callable[..., Gate]) -> None:
    failing = gate()
    playing = two.begin("known_before_it_is_read", failing.path)
    failing.open()
    for party, errors in results(playing.answers()).items():
        assert {error["error_id"] for error in errors} == {errors[0]["error_id"]}
        assert {error["error"] for error in errors} == {"TaskError" if party == "alice" else "RemoteError"}


def test_e15_e17_no_later_evaluation_erases_the_failure_of_one_that_was_queued(
    two: Host, gate: Callable[..., Gate], tmp_path: Path
) -> None:
    failing = gate()
    folder = tmp_path / "ran"
    folder.mkdir()
    playing = two.begin("another_evaluation", failing.path, str(folder))
    playing.wait_for("queued")
    failing.open()
    for good, failed in results(playing.answers()).values():
        assert good == [1, 2, 3, 1, 2, 3]
        assert [error["type"] for error in failed] == ["ValueError"] * 3
        assert len({error["error_id"] for error in failed}) == 1
    assert list(folder.iterdir()) == []


def test_e22_another_job_in_the_same_cluster_finishes(four: Host, two: Host, gate: Callable[..., Gate]) -> None:
    last = gate()
    playing = two.begin("one_finishes", last.path)
    playing.wait_for("halfway")
    errors = results(four.play("consumer_is_told"))
    agree_on(errors, "ValueError", "alice")
    last.open()
    for answer in playing.answers().values():
        assert answer == {"result": [42, 0], "handled": []}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("where", ["in_a_get", "in_the_end"])
def test_e07_a_signal_ends_the_program_and_the_others_are_told(
    two: Host, gate: Callable[..., Gate], where: str, number: int, code: int
) -> None:
    forever = gate()
    playing = two.begin(f"until_interrupted_{where}", forever.path)
    # Both wait for a task of alice's, or alice before she leaves and bob for alice.
    forever.reach()
    playing.wait_for("waiting")
    two.drivers["alice"].process.send_signal(number)
    assert two.ends() == {"alice": code, "bob": 1}
    assert "party 'alice' left before the end: it was interrupted" in two.drivers["bob"].lines[-1]
    assert "Traceback" not in two.drivers["alice"].output


def test_e33_a_party_that_cannot_take_part_is_named_to_everyone_at_once(federation: Start) -> None:
    drivers = federation("joins.py", THREE, per_party={"bob": {"TEST_PROTOCOL": "77"}})
    sentences = {}
    for party, driver in drivers.items():
        assert driver.end(ANSWER_S) == 2, driver.output
        assert "joined" not in driver.lines
        sentences[party] = driver.lines[-1]
        assert sentences[party].startswith("fed: error: the job could not start: party ")
    # Who is told by a third party that this one cannot start is told who that is.
    assert "'bob' speaks 77" in sentences["bob"]
    assert "'bob' speaks 77" in sentences["alice"] + sentences["carol"]


def test_e33_a_party_whose_port_is_taken_is_named_to_everyone_at_once(federation: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        drivers = federation("joins.py", THREE, per_party={"bob": {"FED_LISTEN": f"127.0.0.1:{port}"}})
        assert {driver.end(ANSWER_S) for driver in drivers.values()} == {2}
    for party in ("alice", "carol"):
        sentence = drivers[party].lines[-1]
        assert sentence.startswith("fed: error: the job could not start: party 'bob'")
        assert "init_timeout_s" not in sentence


def test_e33_a_party_without_a_ray_cluster_is_named_to_everyone_at_once(federation: Start) -> None:
    """There are no proxies then that could tell it."""
    addresses = free_addresses(4)
    everywhere = {"FED_ADDRESSES": ",".join(f"{name}={one}" for name, one in zip(THREE, addresses, strict=False))}
    drivers = federation("joins.py", ["alice", "carol"], everywhere=everywhere)
    for driver in drivers.values():
        driver.wait_for("fed: waiting for ")
    nowhere = {"FED_RAY_ADDRESS": str(addresses[3])}
    (bob,) = federation("joins.py", ["bob"], everywhere={**everywhere, **nowhere}).values()
    assert bob.end(ANSWER_S) == 2
    assert "(option ray_address)" in bob.lines[-1]
    for driver in drivers.values():
        assert driver.end(ANSWER_S) == 2
        assert driver.lines[-1].startswith("fed: error: the job could not start: party ")
        assert "init_timeout_s" not in driver.lines[-1]
    # Who is told by the other one that it cannot start either is told who that is.
    assert any("'bob': its own start failed (ConfigError)" in driver.lines[-1] for driver in drivers.values())


@pytest.mark.parametrize("kind", ["plain", "unpicklable", "actor", "refused", "crash", "nested"])
def test_e02_type_and_source_leave_the_party_and_no_more_than_is_exposed(
    overheard: Host, forwarder: Forwarder, logs: Path, kind: str
) -> None:
    canary = f"canary-{kind}"
    leaks = Leaks(overheard, forwarder, logs)
    answers = results(overheard.play("leaked", kind, canary))
    types = {
        "unpicklable": "Unpicklable",
        "refused": "Undeclared",
        "crash": "WorkerCrashedError",
        # What Ray makes of an exception whose constructor takes something else than its arguments.
        "nested": "UnserializableException",
    }
    expected = types.get(kind, "Secret")
    assert {error["type"] for error in answers.values()} == {expected}
    leaks.check(canary, expected)
    exposed = kind in ("plain", "unpicklable", "actor", "refused")
    assert (canary in answers["bob"]["text"]) is exposed


def test_e03_an_error_overtakes_data_that_is_held_up(
    overheard: Host, forwarder: Forwarder, gate: Callable[..., Gate]
) -> None:
    way = forwarder.ways["alice", "bob"]
    took_s = []
    # The best of three: a machine that is busy with something else as well is no reason to fail.
    for attempt in range(3):
        failing = gate(f"failing-{attempt}")
        held = way.hold(1 << 20)
        playing = overheard.begin("overtaken", 512 << 20, failing.path)
        assert held.wait(ANSWER_S)
        connections = way.connections
        failing.reach()
        began = time.monotonic()
        failing.close()
        errors = results(playing.answers())
        agree_on(errors, "ValueError", "alice")
        took_s.append(max(error["at"] for error in errors.values()) - began)
        # Not by a new connection in the place of the one that is held.
        assert way.connections == connections
        way.let_go()
    assert min(took_s) < 1, took_s


def test_e02_e10_a_driver_that_dies_tells_what_it_died_of_and_no_more(
    overheard: Host, forwarder: Forwarder, logs: Path
) -> None:
    canary = "canary-driver"
    leaks = Leaks(overheard, forwarder, logs)
    overheard.begin("leaked_by_the_driver", canary)
    assert overheard.ends() == {"alice": 1, "bob": 1, "carol": 1}
    leaks.check(canary, "Secret")
    said = "fed: error: party 'alice' left: its driver raised Secret"
    assert f"{said}: {canary}-message" in overheard.drivers["bob"].output
    assert f"{said} [DRIVER" in overheard.drivers["carol"].output


def test_e10_e19_e27_e45_drivers_that_are_outside_end_with_the_program_and_the_handler_decides_how(
    four: Host, gate: Callable[..., Gate]
) -> None:
    failing, waiting, forever = gate("failing"), gate("waiting"), gate("forever")
    playing = four.begin("outside_to_the_end", failing.path, waiting.path, forever.path)
    playing.wait_for("outside")
    waiting.reach()
    # Bob has a receive pending, and a task that waits for it, until the end.
    forever.reach()
    failing.open()
    # All but this one are interrupted. Dave ends when he is told to, and the failure is raised as he leaves.
    for party in ("alice", "bob", "carol"):
        assert four.drivers[party].end(ANSWER_S) == (7 if party == "carol" else 1), four.drivers[party].output
    assert four.drivers["dave"].process.poll() is None
    playing.tell("dave")
    assert four.ends() == {"alice": 1, "bob": 1, "carol": 7, "dave": 1}
    outputs = {party: "\n".join(playing.printed(party)) for party in FOUR}
    for party in ("bob", "carol", "dave"):
        assert CANARY not in outputs[party]
        assert "Traceback" not in outputs[party]
    assert f"ValueError: {CANARY}" in outputs["alice"]
    # Whoever was interrupted is told why; whoever was not is told the failure itself, at the end.
    assert "fed: error: the job was aborted: ValueError in task #2 fail at party 'alice'" in outputs["bob"]
    assert "fed: error: ValueError in task #2 fail at party 'alice'" in outputs["dave"]
    assert "KeyboardInterrupt" not in outputs["alice"]


class Leaks:
    """What crosses between the parties, and what they print and log, from now on."""

    def __init__(self, overheard: Host, forwarder: Forwarder, logs: Path) -> None:
        self._overheard = overheard
        self._forwarder = forwarder
        self._logs = logs
        forwarder.forget()
        self._before = {party: [len(one) for one in self._written(party)] for party in ("bob", "carol")}

    def check(self, canary: str, type_name: str) -> None:
        """Alice's canary is where it may be, and nowhere else; and nothing of what Ray puts around it."""
        message = f"{canary}-message".encode()
        for (party, peer), way in self._forwarder.ways.items():
            crossed = way.crossed()
            assert set(SECRETS.findall(crossed)) <= ({message} if (party, peer) == ("alice", "bob") else set())
            if party == "alice":
                # Which shows that it can be seen at all.
                assert type_name.encode() in crossed
        for party in ("bob", "carol"):
            news = [one[seen:] for one, seen in zip(self._written(party), self._before[party], strict=True)]
            written = b"".join(news)
            assert set(SECRETS.findall(written)) <= ({message} if party == "bob" else set())
            assert type_name.encode() in written

    def _written(self, party: str) -> tuple[bytes, bytes]:
        driver = self._overheard.drivers.get(party)
        log = self._logs / party / f"{party}.log"
        return driver.output.encode() if driver else b"", log.read_bytes() if log.exists() else b""
