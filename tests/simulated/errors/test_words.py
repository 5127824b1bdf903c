"""A member puts hostile text into all that it sends: what the others show, log and raise has escapes in its place."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import fed
from fed.cli.error_message import error_message
from fed.cli.logfile import LogFile
from fed.cli.reports import encode, report_of
from fed.errors import FedError
from tests.support.failing import fail_from_cause, identity, run
from tests.support.hostile import MARK, NAMES, assert_shown, let_lie

PARTIES: Final = ("alice", "bob", "mallory")


def task_that_fails() -> Any:
    return fed.get(identity.party("alice").remote(fail_from_cause.party("mallory").remote()))


def another_program() -> Any:
    if fed.party() == "mallory":
        return fed.get(identity.party("bob").remote(1))
    return fed.get(identity.party("alice").remote(2))


def long_wait() -> Any:
    """Lines tell what mallory says that she is at; then she leaves."""
    fed.get(identity.party("alice").remote(0))
    result = identity.party("alice").remote(held.party("mallory").remote())
    try:
        return fed.get(result)
    finally:
        let_go.clear()


let_go = threading.Event()


@fed.remote
def held() -> None:
    let_go.wait(20)
    raise OSError


class Shown(logging.Handler):
    """What a terminal, a log file and the command are told, and what a handler of the program's own sees."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "fed-mallory" in str(record.threadName) or str(record.args).startswith("('mallory'"):
            return
        self.texts.append(record.getMessage())
        report = report_of(record)
        if report is not None:
            self.texts.append(encode(report).decode())
        if "nothing has moved" in record.getMessage() and MARK in record.getMessage():
            let_go.set()


@pytest.mark.parametrize("program", [task_that_fails, another_program, long_wait], ids=lambda one: one.__name__)
def test_hostile_text_of_a_member_is_shown_as_escapes(
    program: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The module: in the package, this is the name of a function too.
    monkeypatch.setattr(sys.modules["fed.engine.stalling"], "STALL_S", 1.0)
    put_in = let_lie(monkeypatch, "mallory")
    shown, log = Shown(), LogFile(tmp_path, "alice")
    logger = logging.getLogger("fed")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(shown)
    logger.addHandler(log)
    try:
        errors = run(program, parties=PARTIES, transport="grpc", expose_errors="trace", timeout_s=30).errors
    finally:
        logger.removeHandler(shown)
        logger.removeHandler(log)
        logger.setLevel(before)
    texts = list(shown.texts)
    for party in ("alice", "bob"):
        error = errors[party]
        assert isinstance(error, FedError)
        log.say(str(error))
        texts += [str(error), repr(error.args[0]), *error_message(error, party).lines]
        texts.append(json.dumps([str(error), error.failure.cause_types], ensure_ascii=False))
    log.close()
    for text in texts:
        assert_shown(text, lines=True)
        # No line but the first begins like one of somebody else's.
        assert all(line.startswith("    ") or not line for line in text.splitlines()[1:]), text
    expected = {
        task_that_fails: {"type_name", "task", "cause_types", "message", "traceback"},
        # Or mallory finds it first, and tells that.
        another_program: {"texts"} & put_in or {"detail"},
        long_wait: {"tasks"},
    }
    assert expected[program] <= put_in
    assert sum(MARK in text for text in texts) > 1
    assert_shown(log.path.read_text(), lines=True)


def test_hostile_names_are_refused_and_shown_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in = let_lie(monkeypatch, "mallory", names=True)
    errors = run(lambda: None, parties=PARTIES, transport="grpc", timeout_s=30).errors
    assert {type(error) for error in errors.values()} == {fed.InitError}
    assert put_in <= NAMES
    for error in errors.values():
        assert_shown(str(error))
    assert any(MARK in str(error) for error in errors.values())
