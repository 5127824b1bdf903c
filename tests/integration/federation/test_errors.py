"""The error model, rule by rule, with nothing replaced: driver processes, Ray and gRPC (ERRORS: rules E01 to E45)."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fed.runtime.cluster import LocalCluster
from fed.testing.simulation import free_addresses
from tests.support.drivers import Driver, Start
from tests.support.failing import CANARY
from tests.support.forwarding import Forwarder
from tests.support.hosting import ANSWER_S, FOUR, Gate, Host, agree_on, hosted, results

pytestmark = pytest.mark.timeout(300)


THREE = FOUR[:3]

SECRETS = re.compile(rb"canary-[a-z]+(?:-[a-z]+)?|pid=[0-9]+|ip=[0-9.]+|ray::\w+|raise \w+")
"""What a traceback, and what Ray makes of one, would tell of a party."""


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


def test_e04_a_slow_task_does_not_hide_a_later_failure(four: Host, gate: Callable[..., Gate]) -> None:
    slow = gate()
    errors = results(four.play("later_failure", slow.path))
    agree_on(errors, "ValueError", "alice")
    # All that while it has been running.
    slow.open()


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


def test_e11_e16_a_failure_that_came_before_its_reader_is_kept(two: Host, gate: Callable[..., Gate]) -> None:
    failing = gate()
    playing = two.begin("known_before_it_is_read", failing.path)
    failing.open()
    for party, errors in results(playing.answers()).items():
        assert {error["error_id"] for error in errors} == {errors[0]["error_id"]}
        assert {error["error"] for error in errors} == {"TaskError" if party == "alice" else "RemoteError"}


def test_an_isolated_job_goes_on_without_a_result_that_cannot_cross(two: Host) -> None:
    for party, (errors, value) in results(two.play("goes_on_without_what_cannot_cross")).items():
        assert {error["error"] for error in errors} == {"DeliveryError"}, party
        assert len({error["error_id"] for error in errors}) == 1
        assert {error["type"] for error in errors} == {"Undeclared"}
        for error in errors:
            assert "codec 'data' carries plain data only" in error["text"], party
            assert ("canary-4711" in error["text"]) == (party == "alice")
        assert value == 4


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
def test_e07_a_signal_while_leaving_ends_the_program_and_the_others_are_told(
    two: Host, gate: Callable[..., Gate], number: int, code: int
) -> None:
    forever = gate()
    playing = two.begin("until_interrupted", forever.path)
    # Alice waits for a task of hers before she leaves, and bob for alice.
    forever.reach()
    playing.wait_for("waiting")
    two.drivers["alice"].process.send_signal(number)
    assert two.ends() == {"alice": code, "bob": 1}
    assert "party 'alice' left before the end: it was interrupted" in two.drivers["bob"].lines[-1]
    assert "Traceback" not in two.drivers["alice"].output


def awaiting_bob(federation: Start, **bobs: str) -> dict[str, Driver]:
    """Three drivers, of which bob's, with these variables, is started when the others wait.

    Who cannot take part says so for some seconds: who was not there by then would not be told.
    """
    listed = ",".join(f"{name}={one}" for name, one in zip(THREE, free_addresses(3), strict=True))
    everywhere = {"FED_ADDRESSES": listed}
    drivers = federation("joins.py", ["alice", "carol"], everywhere=everywhere)
    for driver in drivers.values():
        driver.wait_for("fed: waiting for ")
    return drivers | federation("joins.py", ["bob"], everywhere=everywhere | bobs)


def test_e33_a_party_that_cannot_take_part_is_named_to_everyone_at_once(federation: Start) -> None:
    drivers = awaiting_bob(federation, TEST_PROTOCOL="77")
    sentences = {}
    for party, driver in drivers.items():
        assert driver.end(ANSWER_S) == 2, driver.output
        assert "joined" not in driver.lines
        assert "Traceback" not in driver.output
        sentences[party] = driver.lines[-1]
        assert sentences[party].startswith("fed: error: the job could not start: party ")
    # Who is told by a third party that this one cannot start is told who that is.
    assert "'bob' speaks 77" in sentences["bob"]
    assert "'bob' speaks 77" in sentences["alice"] + sentences["carol"]


def test_e33_a_party_whose_port_is_taken_is_named_to_everyone_at_once(federation: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        drivers = awaiting_bob(federation, FED_LISTEN=f"127.0.0.1:{port}")
        assert {driver.end(ANSWER_S) for driver in drivers.values()} == {2}
    assert f"127.0.0.1:{port}" in drivers["bob"].output
    assert not any("Traceback" in driver.output for driver in drivers.values())
    for party in ("alice", "carol"):
        sentence = drivers[party].lines[-1]
        assert sentence.startswith("fed: error: the job could not start: party 'bob'")
        assert "init_timeout_s" not in sentence


def test_e33_a_party_without_a_ray_cluster_is_named_to_everyone_at_once(federation: Start) -> None:
    """There are no proxies then that could tell it."""
    drivers = awaiting_bob(federation, FED_RAY_ADDRESS=str(free_addresses(1)[0]))
    bob = drivers.pop("bob")
    assert bob.end(ANSWER_S) == 2
    assert "(option ray_address, else RAY_ADDRESS)" in bob.lines[-1]
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
    failing = gate("failing")
    held = way.hold(1 << 20)
    playing = overheard.begin("overtaken", 512 << 20, failing.path)
    assert held.wait(ANSWER_S)
    connections = way.connections
    failing.reach()
    failing.close()
    # Everyone has it before the data goes on, and not by a new connection in the place of the one that is held.
    agree_on(results(playing.answers()), "ValueError", "alice")
    assert way.connections == connections
    way.let_go()


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
