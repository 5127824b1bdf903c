"""Starts the command in a process of its own, as a shell would, and watches what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil  # it ships no types

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
