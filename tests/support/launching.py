"""Starts the command in a process of its own, as a shell would, and watches what it leaves behind."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import psutil  # it ships no types
from click.testing import CliRunner

from fed.cli import driver, main

DEADLINE_S = 60.0
NO_CLUSTER = ("--ray-address", "127.0.0.1:1")
"""For scripts that do not use Ray: nothing is started, and nobody looks whether it is there."""


def script(directory: Path, text: str, name: str = "script.py") -> Path:
    path = directory / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def environment(**variables: str) -> dict[str, str]:
    """This process's, without what would change the command's ways."""
    inherited = {
        name: text
        for name, text in os.environ.items()
        if (not name.startswith(("FED_", "RAY_")) or name == "FED_LOG_DIR")
        and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE")
    }
    return {**inherited, **variables}


def fed(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        _command(arguments),
        cwd=cwd,
        env=environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def fed_by_its_name(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as it is installed, which does not look for modules in the current directory."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("fed")), *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a session of its own, and kill whatever is left of it in the end."""
    process = subprocess.Popen(
        _command(arguments),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()
        process.communicate()


@contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """What is started inside of the block ignores these signals, as under ``nohup`` or in the background of a shell."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "fed.cli", *map(str, arguments)]


def read_until(stream: Iterator[str], *wanted: str) -> list[str]:
    """Read lines until each of the wanted texts has occurred; return all that were read."""
    missing, lines = set(wanted), []
    for line in stream:
        lines.append(line)
        missing -= {text for text in missing if text in line}
        if not missing:
            return lines
    raise AssertionError(f"{missing} never came in {lines}")


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for something that happens in other processes, which tell nobody."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("it never came to pass")
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process does nothing any more; one that its new parent has yet to reap counts as gone."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def variable_of(pid: int, name: str) -> str:
    """A variable in the environment of a process."""
    return str(psutil.Process(pid).environ()[name])


def session_of(leader: int) -> list[int]:
    """The processes that are left of a session."""
    members = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader and not is_gone(pid):
                members.append(pid)
        except ProcessLookupError:
            continue
    return members


def descendants_of(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


class _TookTheProcess(Exception):
    """The command would have put this in its own place."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        super().__init__(command)
        self.command = command
        self.environ = environ


def fed_here(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As `fed` for one party, without the half second that an interpreter of its own takes.

    For scripts that end at once and leave nothing behind in the process. Signals, descriptors and what Python itself
    does at the end of a process need `fed`.
    """

    def execve(_: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        raise _TookTheProcess(command, environ)

    environ = dict(environment() if env is None else env)
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with mock.patch.dict(os.environ, environ, clear=True), mock.patch.object(os, "execve", execve):
            ended = CliRunner().invoke(main, [str(one) for one in arguments], prog_name="fed")
        if not isinstance(ended.exception, _TookTheProcess):
            return subprocess.CompletedProcess(str(arguments), ended.exit_code, ended.stdout, ended.stderr)
        return _drive(ended.exception.command[2:], ended.exception.environ)
    finally:
        os.chdir(before)


def _drive(arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the driver, and put back all that it changes in a process which is to be its script's alone."""
    root, logger = logging.getLogger(), logging.getLogger("fed")
    handlers, own, level = root.handlers[:], logger.handlers[:], logger.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    stdout, stderr = io.StringIO(), io.StringIO()
    root.handlers.clear()
    try:
        with (
            mock.patch.dict(os.environ, environ, clear=True),
            mock.patch.object(sys, "argv", sys.argv[:]),
            mock.patch.object(sys, "path", sys.path[:]),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            try:
                code = driver.main(arguments)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
                if isinstance(ended.code, str):
                    stderr.write(f"{ended.code}\n")
    finally:
        for handler in [one for one in logger.handlers if one not in own]:
            logger.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        logger.setLevel(level)
        for number, previous in signals.items():
            signal.signal(number, previous)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())
