"""What a person is told of an error that ends a script, at its source and at a peer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import fed.engine.exceptions
from fed.cli.error_message import error_message, log_entry
from fed.core.failure import Exposure, Failure, Kind
from fed.engine.exceptions import RemoteTraceback, aborted, error_of, pointer
from fed.errors import ConfigError, JobAborted, RemoteError, TaskError
from fed.transport.wire import decode_failure, encode_failure

CANARY = "canary-4711"
WORKERS = f"Traceback (most recent call last):\n  File 'train.py', line 9, in train\nValueError: {CANARY}\n"


def failure(kind: Kind = Kind.TASK, **fields: Any) -> Failure:
    given = {"type_name": "ValueError", "task": "#3 train", "message": CANARY, "traceback": WORKERS, **fields}
    return Failure(error_id="alice/3f2a/1", kind=kind, src_party="alice", sequence=3, **given)


def worker_error() -> ValueError:
    """As it comes out of a worker: without a traceback of its own."""
    cause = ValueError(CANARY)
    cause.__cause__ = RemoteTraceback(WORKERS)
    return cause


def test_at_the_source_the_users_traceback_comes_first_and_the_log_last(tmp_path: Path) -> None:
    message = error_message(
        error_of(failure(), "alice", worker_error()), "alice", "train.py:12", tmp_path / "alice.log"
    )
    assert message.traceback == WORKERS
    assert message.lines == (
        "fed: error: ValueError in task #3 train at party 'alice' [TASK, train.py:12]",
        f"fed: log: {tmp_path / 'alice.log'}",
    )


def test_a_peer_gets_one_line_and_where_to_see_more(tmp_path: Path) -> None:
    error = error_of(failure().redacted(Exposure.TYPE), "bob")
    message = error_message(error, "bob", "train.py:12", tmp_path / "bob.log")
    assert message.traceback == ""
    assert message.lines == (
        "fed: error: ValueError in task #3 train at party 'alice' [TASK, train.py:12]",
        "fed: the message and traceback are in the log of party 'alice' under alice/3f2a/1",
    )


def test_an_exposed_traceback_is_shown_below_as_the_other_partys() -> None:
    message = error_message(error_of(failure(message="first\nsecond\x1b[2J"), "bob"), "bob")
    assert message.lines == (
        "fed: error: ValueError in task #3 train at party 'alice': first [TASK]",
        "fed: traceback from party 'alice':",
        "    Traceback (most recent call last):",
        "      File 'train.py', line 9, in train",
        f"    ValueError: {CANARY}",
    )


def test_an_exposed_message_of_many_lines_is_shown_below() -> None:
    sent = failure(message="first\nsecond\x1b[2J", traceback="", truncated=True)
    error = error_of(decode_failure(encode_failure(sent)), "bob")
    assert error_message(error, "bob").lines[1:] == (
        "fed: message from party 'alice', cut:",
        "    first",
        "    second\\x1b[2J",
        "fed: the traceback is in the log of party 'alice' under alice/3f2a/1",
    )


def test_text_of_a_peer_cannot_redraw_the_terminal() -> None:
    sent = failure(type_name="E\x1b]0;x\x07\r", task="#3 \x9b2J", message="one\nfed: joined", traceback="")
    error = error_of(decode_failure(encode_failure(sent)), "bob")
    first, _, *below = error_message(error, "bob").lines
    assert first.startswith("fed: error: E\\x1b]0_x\\x07\\r in task #3 \\x9b2J at party")
    assert "    fed: joined" in below


def test_rays_own_error_is_not_shown_at_the_source_either(tmp_path: Path) -> None:
    error = error_of(failure(Kind.WORKER_CRASHED), "alice", RuntimeError(f"{CANARY} of Ray's"))
    message = error_message(error, "alice", log=tmp_path / "alice.log")
    assert CANARY not in message.traceback + "".join(message.lines)
    assert CANARY in log_entry(error)
    assert "session_latest" in log_entry(error)


def test_frames_of_the_library_are_left_out_of_a_traceback() -> None:
    def users() -> None:
        # A frame of the library's, which the user did not ask for.
        fed.engine.exceptions.error_of(None, "alice")  # type: ignore[arg-type]

    with pytest.raises(AttributeError) as caught:
        users()
    shown = error_message(error_of(failure(), "alice", caught.value), "alice").traceback
    assert "in users" in shown
    assert "raising.py" not in shown
    assert shown.endswith("has no attribute 'kind'\n")


def test_a_traceback_of_nothing_but_library_is_none_at_all(tmp_path: Path) -> None:
    # As with an argument that Ray cannot pickle, which it explains at length.
    with pytest.raises(AttributeError) as caught:
        fed.engine.exceptions.error_of(None, "alice")  # type: ignore[arg-type]
    cause = caught.value
    assert cause.__traceback__ is not None
    # The frame of this test is not the library's.
    cause.__traceback__ = cause.__traceback__.tb_next
    error = error_of(failure(message="could not serialize it:\n====\n"), "alice", cause)
    assert error_message(error, "alice", log=tmp_path / "log").traceback == ""
    assert error_message(error, "alice", log=tmp_path / "log").lines == (
        "fed: error: ValueError in task #3 train at party 'alice': could not serialize it [TASK]",
        f"fed: log: {tmp_path / 'log'}",
    )
    # Without a log it has to be shown here, or nowhere.
    assert error_message(error, "alice").lines[1:] == ("    ====",)


def test_a_job_that_was_aborted_says_how_to_go_on_and_where_to_see_why() -> None:
    theirs = error_message(aborted(failure().redacted(Exposure.TYPE)), "bob")
    assert theirs.lines[0].endswith("or call fed.shutdown() to leave the job [TASK]")
    assert theirs.lines[1] == "fed: the message and traceback are in the log of party 'alice' under alice/3f2a/1"
    ours = error_message(aborted(failure()), "alice", log=Path("/log"))
    assert ours.lines[1] == "fed: log: /log"


def test_an_interrupted_driver_is_told_as_much_as_one_that_was_waiting() -> None:
    for party, root in (("alice", failure()), ("bob", failure().redacted(Exposure.TYPE))):
        error = JobAborted(str(aborted(root)), root)
        error.__cause__ = error_of(root, party, worker_error() if party == "alice" else None)
        for known in (party, ""):
            message = error_message(error, known, log=Path("/log"))
            assert message.traceback == (WORKERS if party == "alice" else "")
            assert message.lines[0].startswith("fed: error: the job was aborted: ValueError in task #3 train at party ")
            assert message.lines[1] == ("fed: log: /log" if party == "alice" else f"fed: {pointer(root, party)}")
        assert (WORKERS.strip() in log_entry(error)) is (party == "alice")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("no such option"), "fed: error: no such option (train.py:1)"),
        (RemoteError("told by hand"), "fed: error: told by hand (train.py:1)"),
        (JobAborted("told by hand"), "fed: error: told by hand (train.py:1)"),
    ],
)
def test_an_error_without_a_record_is_its_sentence(error: Any, line: str) -> None:
    assert error_message(error, "alice", "train.py:1").lines == (line,)


def test_where_the_party_is_not_known_the_errors_class_tells() -> None:
    assert error_message(error_of(failure(), "bob"), "").lines[1] == "fed: traceback from party 'alice':"
    assert len(error_message(error_of(failure(), "alice"), "", log=Path("/log")).lines) == 2


def test_the_log_has_all_that_is_known() -> None:
    ours = log_entry(error_of(failure(cause_types=("KeyError",)), "alice", worker_error()))
    assert ours == (
        f"failure alice/3f2a/1 [TASK]: ValueError in task #3 train at party 'alice': {CANARY}\nraised from: KeyError\n"
        + WORKERS.strip("\n")
    )
    assert log_entry(error_of(failure(message=""), "bob")).endswith(WORKERS.strip("\n"))
    assert log_entry(error_of(failure(Kind.OUT_OF_MEMORY, traceback=""), "alice")).splitlines()[1] == CANARY
    assert CANARY not in log_entry(error_of(failure().redacted(Exposure.TYPE), "bob"))


def test_the_log_has_the_scripts_own_error_under_the_id_that_peers_are_told() -> None:
    try:
        raise OSError(CANARY)
    except OSError as error:
        text = log_entry(error, "alice/3f2a/2")
    assert text.startswith(f"failure alice/3f2a/2: OSError: {CANARY}\nTraceback")
    assert "test_error_message.py" in text


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_without_a_text_can_be_told() -> None:
    assert "<its __str__ raised RuntimeError>" in log_entry(Unspeakable())
    error = error_of(failure(), "alice", Unspeakable(threading.Lock()))
    assert isinstance(error, TaskError)
    assert error_message(error, "alice").lines[0].startswith("fed: error: ValueError in task #3")
