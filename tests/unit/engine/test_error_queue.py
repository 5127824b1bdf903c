"""What peers are told: in order, one batch at a time for each, and nobody is forgotten when something is raised."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator, Sequence

import pytest

from fed.clock import SYSTEM_CLOCK
from fed.condition import PredicateCondition
from fed.core.failure import Failure, Kind
from fed.core.notice import Notice, NoticeKind
from fed.engine import error_queue
from fed.engine.error_queue import ErrorQueue
from fed.object import ObjectId

WAIT_S = 20
READY = Notice(NoticeKind.READY, 0)
FAILURE = Failure("alice/x/1", Kind.TASK, "alice", "ValueError")


def failed(sequence: int) -> Notice:
    return Notice(NoticeKind.FAILURE, 0, FAILURE, (ObjectId(0, sequence, 0),))


def progress(calls: int) -> Notice:
    return Notice(NoticeKind.PROGRESS, 0, calls=calls)


class Job:
    """Notes what it is to send, and answers when it is told to."""

    def __init__(self) -> None:
        self.changed = PredicateCondition(threading.Lock())
        self.sent: list[tuple[str, list[Notice]]] = []
        self.answers: list[concurrent.futures.Future[str]] = []
        self.ends: list[tuple[str, str]] = []
        self.raised: list[BaseException] = []
        self.spoilt: set[str] = set()
        self.queue = ErrorQueue("alice", self, lambda: None, 60, self.raised.append, SYSTEM_CLOCK)

    def exposed(self, peer: str, notice: Notice) -> Notice | None:
        return None if notice.kind is NoticeKind.GOODBYE else notice

    def send(self, peer: str, notices: Sequence[Notice]) -> concurrent.futures.Future[str]:
        if peer in self.spoilt:
            self.spoilt.clear()
            raise ValueError("spoilt")
        answer: concurrent.futures.Future[str] = concurrent.futures.Future()
        with self.changed:
            self.sent.append((peer, list(notices)))
            self.answers.append(answer)
            self.changed.notify_all()
        return answer

    def acknowledged(self, peer: str, notices: Sequence[Notice], reason: str) -> None:
        self.ends.append((peer, reason))

    def tell(self, *told: tuple[str, Notice]) -> None:
        """Tell these at once: the thread finds all of them."""
        with self.held(), self.changed:
            for peer, notice in told:
                self.queue.send_control(peer, notice)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The thread is busy."""
        busy, gate = threading.Event(), threading.Event()

        def wait() -> None:
            busy.set()
            gate.wait(WAIT_S)

        self.queue.run(wait)
        assert busy.wait(WAIT_S)
        try:
            yield
        finally:
            gate.set()

    def batches(self, count: int) -> list[tuple[str, list[Notice]]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sent) >= count, WAIT_S)
            return list(self.sent)

    def until_told(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.ends) >= count, WAIT_S)


@pytest.fixture
def job() -> Iterator[Job]:
    made = Job()
    yield made
    assert made.queue.stop(WAIT_S)


def test_a_peer_is_told_one_batch_at_a_time_and_another_one_does_not_wait_for_it(job: Job) -> None:
    job.tell(("bob", failed(1)), ("bob", failed(2)))
    assert job.batches(1) == [("bob", [failed(1), failed(2)])]
    job.tell(("bob", failed(3)), ("carol", failed(1)), ("bob", failed(4)))
    assert job.batches(2)[1:] == [("carol", [failed(1)])]
    assert job.queue.untold == 5
    job.answers[0].set_result("")
    assert job.batches(3)[2:] == [("bob", [failed(3), failed(4)])]
    assert job.queue.untold == 3
    assert job.ends == [("bob", "")]


def test_of_what_is_said_anew_a_peer_is_told_the_last(job: Job) -> None:
    job.tell(("bob", progress(1)), ("bob", READY), ("bob", failed(1)), ("bob", progress(2)), ("bob", READY))
    assert job.batches(1) == [("bob", [failed(1), progress(2), READY])]
    assert job.queue.untold == 2


def test_many_notices_go_in_several_batches(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_queue, "MAX_BATCH", 2)
    job.tell(*[("bob", failed(number)) for number in range(5)])
    for count in range(1, 4):
        job.batches(count)
        job.answers[-1].set_result("")
    job.until_told(3)
    assert [notices for _, notices in job.sent] == [[failed(0), failed(1)], [failed(2), failed(3)], [failed(4)]]
    assert job.queue.untold == 0


def test_what_a_peer_is_not_to_see_counts_as_told(job: Job) -> None:
    job.tell(("bob", Notice(NoticeKind.GOODBYE, 0)))
    job.until_told(1)
    assert (job.sent, job.ends, job.queue.untold) == ([], [("bob", "")], 0)


def test_what_cannot_be_sent_is_reported_and_keeps_nothing_else_from_being_told(job: Job) -> None:
    job.spoilt.add("bob")
    job.tell(("bob", failed(1)))
    job.until_told(1)
    assert (job.ends, job.queue.untold) == ([("bob", "spoilt")], 0)
    job.tell(("bob", failed(2)))
    assert job.batches(1) == [("bob", [failed(2)])]
    assert job.queue.stop(WAIT_S)
    assert [str(error) for error in job.raised] == ["spoilt"]


def test_a_step_that_raises_is_reported_and_what_was_queued_with_it_is_told(job: Job) -> None:
    def spoil() -> None:
        raise ValueError("spoilt")

    with job.held(), job.changed:
        job.queue.run(spoil)
        job.queue.send_control("bob", failed(1))
    assert job.batches(1) == [("bob", [failed(1)])]
    job.answers[0].set_result("party 'bob' refuses it")
    job.until_told(1)
    assert job.queue.stop(WAIT_S)
    assert [str(error) for error in job.raised] == ["spoilt"]
    assert job.ends == [("bob", "party 'bob' refuses it")]
