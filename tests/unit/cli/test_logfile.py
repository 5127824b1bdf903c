"""The log file: where it goes, who may read it, what is in it, and that nothing fails if it cannot be written."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fed.cli import logfile
from fed.cli.logfile import LogFile, log_directory
from fed.core.failure import Failure, Kind
from fed.engine.exceptions import error_of

FAILURE = Failure("alice/3f2a/1", Kind.TASK, "alice", "ValueError", "#3 train", 3)


@pytest.fixture
def opened() -> Iterator[Callable[[Path, str], LogFile]]:
    """Opens logs that the library's logger writes to."""
    logs: list[LogFile] = []
    logger = logging.getLogger("fed")
    level = logger.level
    logger.setLevel(logging.INFO)

    def open_log(directory: Path, party: str) -> LogFile:
        logs.append(LogFile(directory, party))
        logger.addHandler(logs[-1])
        return logs[-1]

    yield open_log
    logger.setLevel(level)
    for log in logs:
        logger.removeHandler(log)
        log.close()


Open = Callable[[Path, str], LogFile]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"FED_RUN_LOG_DIR": "/run", "FED_LOG_DIR": "/own", "XDG_STATE_HOME": "/state"}, "/run"),
        ({"FED_LOG_DIR": "/own", "XDG_STATE_HOME": "/state"}, "/own"),
        ({"FED_LOG_DIR": "logs"}, "{here}/logs"),
        ({"FED_LOG_DIR": "", "XDG_STATE_HOME": "/state"}, "/state/fedray/train"),
        ({"XDG_STATE_HOME": "relative"}, "{home}/.local/state/fedray/train"),
        ({}, "{home}/.local/state/fedray/train"),
    ],
)
def test_what_was_asked_for_counts_most(environ: dict[str, str], expected: str) -> None:
    assert str(log_directory(environ, "train")) == expected.format(here=Path.cwd(), home=Path.home())


def test_the_directory_is_made_and_nobody_else_may_read_it(tmp_path: Path, opened: Open) -> None:
    log = opened(tmp_path / "a" / "b", "alice")
    log.say("x")
    assert log.path == tmp_path / "a" / "b" / "alice.log"
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "alice.log").write_text("before\n")
    (tmp_path / "alice.log").chmod(0o644)
    log = opened(tmp_path, "alice")
    log.say("after")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert log.path.read_text().startswith("before\n")
    assert log.path.read_text().endswith("after\n")


def test_a_partys_name_cannot_lead_elsewhere(tmp_path: Path, opened: Open) -> None:
    assert opened(tmp_path, "../x").path == tmp_path / "..-x.log"
    assert opened(tmp_path, "").path == tmp_path / "driver.log"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "alice.log")
    before = stat.S_IMODE(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError):
        LogFile(tmp_path, "alice")
    assert stat.S_IMODE(Path("/dev/null").stat().st_mode) == before


def test_a_link_is_not_followed_to_a_file_of_the_users(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("as it was")
    (tmp_path / "alice.log").symlink_to(other)
    with pytest.raises(OSError, match="is a symbolic link: remove it"):
        LogFile(tmp_path, "alice")
    assert other.read_text() == "as it was"


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alice.log").write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "alice.log").stat().st_uid + 1)
    with pytest.raises(OSError, match="belongs to another user"):
        LogFile(tmp_path, "alice")


def test_no_line_of_a_record_can_pass_for_another_record(tmp_path: Path, opened: Open) -> None:
    log = opened(tmp_path, "alice")
    logging.getLogger("fed").error("one\n2026-01-01T00:00:00.000Z 1 INFO fed: every party has joined")
    assert "\n    2026-01-01" in log.path.read_text()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        LogFile(tmp_path / "file" / "logs", "alice")


def test_each_run_begins_with_a_line_that_names_it(tmp_path: Path, opened: Open) -> None:
    log = opened(tmp_path, "alice")
    log.begin("train", "/srv/train.py")
    [line] = log.path.read_text().splitlines()
    assert f" {os.getpid()} INFO fed.cli: ---- job train, party alice: /srv/train.py, fedray " in line
    assert line[:24].startswith("20")
    assert line[23] == "Z"


def test_it_takes_what_the_library_logs_and_nothing_else(tmp_path: Path, opened: Open) -> None:
    log = opened(tmp_path, "alice")
    logging.getLogger("fed.engine.job").info("ours %s", "\ud800")
    logging.getLogger("other").warning("theirs")
    assert log.path.read_text().endswith("INFO fed.engine.job: ours \\ud800\n")
    assert "theirs" not in log.path.read_text()


def test_a_failure_is_told_in_full_and_once(tmp_path: Path, opened: Open) -> None:
    log = opened(tmp_path, "alice")
    error = error_of(FAILURE, "alice", ValueError("canary"))
    logging.getLogger("fed").info("failed", exc_info=error)
    logging.getLogger("fed").info("failed again", exc_info=error)
    log.log_error(error)
    text = log.path.read_text()
    assert text.count("failure alice/3f2a/1 [TASK]: ValueError in task #3 train at party 'alice'\n") == 1
    assert text.count("ValueError: canary\n") == 1
    assert "ERROR fed.cli: failure" in text
    # Neither the exception that stands for it, nor how it came to be raised.
    assert "TaskError" not in text


def test_a_record_of_another_exception_is_written_as_it_is(tmp_path: Path, opened: Open) -> None:
    log = opened(tmp_path, "alice")
    logging.getLogger("fed").error("the failure handler raised", exc_info=KeyError("canary"))
    assert log.path.read_text().endswith(" the failure handler raised\n    KeyError: 'canary'\n")


@pytest.mark.parametrize("detail", [{"type": "OSError"}, {"root": "OSError at party 'alice'"}])
def test_the_scripts_own_error_stands_under_the_id_that_the_peers_are_told(
    detail: dict[str, str], tmp_path: Path, opened: Open
) -> None:
    log = opened(tmp_path, "alice")
    detail = {**detail, "src_party": "alice", "error_id": "alice/3f2a/2"}
    logging.getLogger("fed").info("failed", extra={"fed_event": "failed", "fed_detail": detail})
    log.log_error(OSError("disk full"))
    log.log_error(KeyError("another"))
    text = log.path.read_text()
    assert "ERROR fed.cli: failure alice/3f2a/2: OSError: disk full\n" in text
    assert "ERROR fed.cli: KeyError: 'another'\n" in text


class Full(io.TextIOWrapper):
    """A file on a disk without room."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_is_given_up_with_one_warning(
    tmp_path: Path, opened: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    log = opened(tmp_path, "alice")
    before = log.setStream(Full())
    assert before is not None
    before.close()
    logger = logging.getLogger("fed")
    logger.info("some")
    logger.info("more")
    log.log_error(error_of(FAILURE, "alice"))
    log.say("and more")
    assert capsys.readouterr().err == (
        f"fed: warning: the log {log.path} cannot be written any more: [Errno 28] No space left on device\n"
    )
    assert log not in logger.handlers


def test_it_does_not_grow_for_ever(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MAX_BYTES", 200)
    log = opened(tmp_path, "alice")
    for number in range(20):
        log.say(f"line {number} {'x' * 60}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.log", "alice.log.1", "alice.log.2"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    assert "line 19" in log.path.read_text()
