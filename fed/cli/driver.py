"""Runs one party's script as Python itself would, and ends it in a way that a person or a program can act on.

``python -m fed.cli.driver SCRIPT [ARGUMENTS]``, or ``-m MODULE [ARGUMENTS]``. It differs from ``python SCRIPT
[ARGUMENTS]``, or ``python -m``, in this:

- an error of fed's ends it with one sentence instead of a traceback, and with the exit codes of ``fed run``. Where
  a task of this party failed, the task's own traceback comes first (`fed.cli.error_message`);
- warnings of fed's go to the standard error, unless the script has configured logging, which then decides;
- what the library logs, and all that is known of a failure, goes to a log file (`fed.cli.logfile`);
- SIGTERM and SIGHUP, unless the script handles them, end it as Ctrl-C does, so that the other parties are told and
  nothing is left. What was ignored at its start (SIGHUP by ``nohup``, SIGINT in a shell's background jobs) stays so;
- Ray's own announcements of failed workers are not shown, since the library reports them;
- started by ``fed run``, it forwards the job's reports to it, and ends when it is gone.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import runpy
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, NoReturn, TextIO

from fed.cli.error_message import error_message
from fed.cli.logfile import LogFile, log_directory
from fed.cli.program import Program, find_module, find_script
from fed.cli.reports import (
    DIRECTORY_PREFIX,
    DIRECTORY_VARIABLE,
    LIFELINE_VARIABLE,
    REPORTS_VARIABLE,
    RUN_LOG_DIR_VARIABLE,
    Report,
    ReportHandler,
    report_of,
)
from fed.config import DEFAULT_JOB_VARIABLE, LOG_DIR_VARIABLE
from fed.errors import ConfigError, FedError, InitError, UsageError
from fed.text import plain

__all__ = ["main"]

FAILED: Final = 1
REFUSED: Final = 2
INTERRUPTED: Final = 130

RAY_ANNOUNCEMENTS: Final = (
    r"^A worker died or was killed while executing a task|^Task \S+ failed\. There are \S+ retries remaining"
)
"""What Ray prints of a worker that died, at length, once per attempt, and before the library can say what failed."""

MAX_REPORTED_CHARS: Final = 500
"""A report has to fit into what a pipe takes at once, or those of two threads could mix."""


@dataclasses.dataclass(frozen=True)
class _Outlets:
    """Where a driver writes what happens, apart from the terminal.

    Attributes:
        party: This party's name; empty where the script alone knows it.
        reports: To the command, if it started this process.
        log: This party's log, if it can be written.
        process: Whose they are: a child that the script forks has none.
    """

    party: str
    reports: ReportHandler | None
    log: LogFile | None
    process: int = dataclasses.field(default_factory=os.getpid)

    def died(self, error: BaseException, *, text: str = "", traceback: bool = False) -> None:
        """Report that the script ends with an error, and what was shown of it."""
        if self.reports is not None and os.getpid() == self.process:
            name = getattr(getattr(error, "failure", None), "type_name", type(error).__name__)
            detail = {"type": name, "text": text[:MAX_REPORTED_CHARS], "traceback": traceback}
            self.reports.send(Report("died", detail))

    def log_error(self, error: BaseException) -> None:
        """Write all that is known of an error to the log."""
        if self.log is not None and os.getpid() == self.process:
            self.log.log_error(error)

    def log_end(self, how: str) -> None:
        """Write to the log how the script ended."""
        if self.log is not None and os.getpid() == self.process:
            self.log.say(f"the script ended {how}")


class _Termination:
    """Turns SIGTERM and SIGHUP, which would end the process at once, into the interruption that Ctrl-C is.

    Attributes:
        came: Which of them; None as long as none has.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self._forking = threading.local()

    def install(self) -> None:
        """Handle each, unless somebody does or wants it ignored."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._handle)
        # A child that the script forks is to end as under Python. What comes to it before it has its own handlers has
        # to wait, since Python forgets what came to a child by then.
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._let_go)

    def _block(self) -> None:
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def _let_go(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL)
        self._unblock()

    def stand_in_for_ignored(self) -> None:
        """Go on ignoring SIGINT where it is, by a handler: what interrupts the script has to come by SIGINT too."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._ignore)

    def _ignore(self, signum: int, frame: FrameType | None) -> None:
        if self.came is not None:
            signal.default_int_handler(signum, frame)

    def _handle(self, signum: int, _: FrameType | None) -> None:
        self.came = signum
        if not callable(signal.getsignal(signal.SIGINT)):
            # Where Ctrl-C is ignored, this one still ends the script.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)


def main(arguments: Sequence[str]) -> int:
    """Run a script: its path, and what it gets as ``sys.argv[1:]``. Returns the exit code.

    Args:
        arguments: The path and the rest; or ``-m``, the name of a module, and the rest.

    Raises:
        SystemExit: The script raised it.
    """
    named = arguments[0] == "-m"
    program = find_module(arguments[1]) if named else find_script(arguments[0])
    script = program.path
    reports = _taken_descriptor(REPORTS_VARIABLE)
    lifeline = _taken_descriptor(LIFELINE_VARIABLE)
    directory = os.environ.pop(DIRECTORY_VARIABLE, None)
    termination = _Termination()
    if lifeline is not None:
        termination.stand_in_for_ignored()
        _follow(lifeline, directory)
    outlets = _set_up_logging(script, None if reports is None else ReportHandler(reports))
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", RAY_ANNOUNCEMENTS)
    sys.argv[:] = [script, *arguments[2 if named else 1 :]]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = program.directory
    termination.install()
    try:
        # `fed run` blocks it in the drivers that it starts; one that came meanwhile arrives now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        _run(program)
    except FedError as error:
        # Before KeyboardInterrupt: one that the library raises into a busy driver is both.
        return _show(error, script, outlets)
    except KeyboardInterrupt as interruption:
        outlets.died(interruption)
        outlets.log_end("interrupted" if termination.came is None else "terminated")
        return INTERRUPTED if termination.came is None else 128 + termination.came
    except SystemExit as exit_:
        # Python itself shows a text that it carries, and gives it a code.
        if exit_.code not in (None, 0):
            outlets.died(exit_)
        outlets.log_end(f"by sys.exit({exit_.code!r})")
        raise
    except Exception as error:  # noqa: BLE001 - this is where Python itself would catch it
        error.__traceback__ = _without_bootstrap(error.__traceback__, script)
        outlets.died(error, traceback=True)
        outlets.log_error(error)
        sys.excepthook(type(error), error, error.__traceback__)
        return FAILED
    outlets.log_end("well")
    return 0


def _run(program: Program) -> None:
    """Run the program, and leave a job that it began with `fed.init` and did not leave, with what it died of."""
    try:
        if program.module:
            runpy.run_module(program.module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program.path, run_name="__main__")
    except BaseException as error:
        _leave_job(error)
        raise
    _leave_job(None)


def _leave_job(error: BaseException | None) -> None:
    # Only a script that uses the library has loaded this; one that does not need not wait for it.
    api = sys.modules.get("fed.api")
    if api is not None:
        api.shutdown(error)


def _show(error: FedError, script: str, outlets: _Outlets) -> int:
    """Show an error of fed's, and return the exit code for it."""
    log = outlets.log.path if outlets.log is not None else None
    message = error_message(error, outlets.party, _place(error, script), log)
    # A user's exception may quote what a peer sent.
    sys.stderr.write(plain(message.traceback, lines=True) + "".join(f"{line}\n" for line in message.lines))
    outlets.died(error, text=str(error), traceback=bool(message.traceback))
    outlets.log_error(error)
    outlets.log_end(f"with {type(error).__name__}")
    return REFUSED if isinstance(error, (ConfigError, UsageError, InitError)) else FAILED


def _place(error: BaseException, script: str) -> str:
    """File and line of the script that the error passed through last."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == script]
    return f"{Path(script).name}:{lines[-1]}" if lines else ""


def _without_bootstrap(trace: TracebackType | None, script: str) -> TracebackType | None:
    """The traceback from the script's first frame on; None if it never began, as with a syntax error."""
    while trace is not None and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    return trace


def _taken_descriptor(variable: str) -> int | None:
    """A descriptor that the parent left open for this process, and for none of the processes that this one starts."""
    text = os.environ.pop(variable, None)
    if text is None:
        return None
    descriptor = int(text)
    os.set_inheritable(descriptor, False)
    return descriptor


def _follow(lifeline: int, directory: str | None) -> None:
    # Lines must leave as they are printed: the standard output is a pipe, which Python would fill by the block.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    threading.Thread(target=_die_with_parent, args=(lifeline, directory), name="fed-lifeline", daemon=True).start()


def _die_with_parent(lifeline: int, directory: str | None) -> NoReturn:
    # Nobody ever writes to it: it reads as ended when the last process that holds the other end is gone.
    os.read(lifeline, 1)
    # Checked, since what a variable names is not lightly removed.
    if directory is not None and Path(directory).name.startswith(DIRECTORY_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)
    # This process leads its group, so whatever the script started goes as well.
    os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(INTERRUPTED)


def _set_up_logging(script: str, reports: ReportHandler | None) -> _Outlets:
    logger = logging.getLogger("fed")
    # Reports are made at this level.
    logger.setLevel(logging.INFO)
    party = os.environ.get("FED_PARTY", "")
    log = _open_log(script, party)
    for handler in (reports, log, _Messages(sys.stderr, joining=reports is None)):
        if handler is not None:
            logger.addHandler(handler)
    if reports is not None and log is not None:
        reports.send(Report("log", {"path": str(log.path)}))
    return _Outlets(party, reports, log)


def _open_log(script: str, party: str) -> LogFile | None:
    """This party's log. A script runs without one too, if it must."""
    job = os.environ.get(DEFAULT_JOB_VARIABLE) or Path(script).stem
    try:
        log = LogFile(log_directory(os.environ, job), party)
    except (OSError, RuntimeError) as error:
        # The second one is of a user without a home.
        print(f"fed: warning: no log file, {error}: give a directory with --log-dir or FED_LOG_DIR", file=sys.stderr)
        return None
    finally:
        # Not an option of the job's, and not for the processes that the script starts.
        for variable in (RUN_LOG_DIR_VARIABLE, LOG_DIR_VARIABLE):
            os.environ.pop(variable, None)
    log.begin(os.environ.get("FED_JOB") or job, str(Path(script).absolute()))
    return log


class _Messages(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 cannot subscript it
    """Shows warnings, and with `joining` who is waited for, where no command shows it."""

    def __init__(self, stream: TextIO, *, joining: bool) -> None:
        super().__init__(stream)
        self._joining = joining

    def format(self, record: logging.LogRecord) -> str:
        return f"fed: {_joining_text(record) or super().format(record)}"

    def filter(self, record: logging.LogRecord) -> bool:
        if logging.getLogger().handlers:
            # The script has configured logging, and the record reaches it too.
            return False
        if record.levelno >= logging.WARNING:
            return super().filter(record) is not False
        return self._joining and bool(_joining_text(record))


def _joining_text(record: logging.LogRecord) -> str:
    """Who is waited for, or that every party has joined, if that is what a record reports."""
    report = report_of(record)
    if report is not None and report.event == "waiting":
        return f"waiting for {', '.join(map(str, report.detail.get('for', ())))}"
    return "every party has joined" if report is not None and report.event == "joined" else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
