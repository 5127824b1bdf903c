"""Workers without Ray. What the others do is seen by every run of the benchmark."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.harness import BenchmarkError, Federation, Lab
from tests.support.eventually import eventually


def pid() -> int:
    return os.getpid()


def double(number: int) -> int:
    return 2 * number


def loud_failure() -> None:
    print("about to fail")
    raise LookupError("nothing there")


def leave() -> None:
    os._exit(3)


def fail_in(name: str) -> None:
    if os.environ["WHO"] == name:
        raise LookupError(name)
    time.sleep(60)


def dawdle() -> None:
    time.sleep(60)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def test_a_worker_does_one_call_after_another_in_its_own_process(lab: Lab) -> None:
    assert [lab.producer.call(double, number=number) for number in (1, 2)] == [2, 4]
    assert lab.producer.call(pid) == lab.producer.process.pid
    assert lab.consumer.call(pid) == lab.consumer.process.pid != lab.producer.process.pid


def test_what_a_call_raises_is_shown_with_what_was_printed(lab: Lab) -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)LookupError: nothing there.*about to fail"):
        lab.producer.call(loud_failure)


def test_a_worker_that_ends_is_noticed(lab: Lab) -> None:
    with pytest.raises(BenchmarkError, match="has ended"):
        lab.producer.call(leave)


def test_a_worker_that_does_not_answer_is_noticed_and_ended() -> None:
    with pytest.raises(BenchmarkError, match="did not answer"), Lab() as lab:  # noqa: PT012 - the end is looked at
        worker = lab.producer
        worker.call(dawdle, within_s=0.2)
    assert not psutil.pid_exists(worker.process.pid)


def test_workers_end_with_the_lab_and_start_anew_when_released(lab: Lab) -> None:
    first = lab.producer.process
    lab.release()
    assert first.poll() == 0
    assert lab.producer.process.pid != first.pid


@pytest.mark.parametrize("loser", ["alice", "bob"])
def test_the_failure_of_one_party_does_not_wait_for_the_others(loser: str) -> None:
    with pytest.raises(BenchmarkError, match=f"LookupError: {loser}"), Lab() as lab, contextlib.ExitStack() as stack:  # noqa: PT012
        workers = {party: stack.enter_context(lab.worker("plain", party, {"WHO": party})) for party in ("alice", "bob")}
        Federation(workers).call(fail_in, within_s=30, name=loser)


def test_a_worker_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    # The lab of another process, which is killed in the middle of a call.
    script = (
        "from benchmarks.harness import Lab\n"
        "from tests.integration.test_benchmark_workers import dawdle, pid\n"
        "with Lab() as lab:\n"
        "    print(lab.producer.call(pid), lab.consumer.call(pid), flush=True)\n"
        "    lab.producer.call(dawdle)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as starter:
        assert starter.stdout is not None
        left = [int(number) for number in starter.stdout.readline().split()]
        # It is about to call, or has called: either way its workers end.
        starter.kill()
    assert len(left) == 2
    assert eventually(lambda: not any(map(psutil.pid_exists, left)), 30)
