"""The drivers' processes of a simulation: what they write is shown, and what happens to them becomes an event.

Each driver leads a session of its own, so that it can be ended with everything it started, and so that the terminal's
Ctrl-C does not reach it. Should this process be killed outright, the drivers notice by the *lifeline*, a pipe that only
it holds open.

Threads: one per stream reads and shows what a driver writes, one per driver waits for its end. They put events on a
queue. A stream is shown by the thread that reads it, so that a terminal that is slow holds up the driver that writes,
and nothing piles up here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Final, TypeAlias

from fed.cli.line_reader import LineReader
from fed.cli.reports import LIFELINE_VARIABLE, REPORTS_VARIABLE, Report, decode
from fed.cli.terminal import Terminal

__all__ = ["STREAMS", "Drivers", "Ended", "EventQueue", "Interrupted", "Reported", "StreamEnded"]

STREAMS: Final = 3
"""Of each driver: its output, its errors and its reports."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A driver's process has ended, and is yet to be reaped."""

    party: str


@dataclasses.dataclass(frozen=True)
class StreamEnded:
    """A stream of a driver has ended."""


@dataclasses.dataclass(frozen=True)
class Reported:
    """A driver has reported something about the job."""

    party: str
    report: Report


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """The simulation is to end: somebody wants it, or nobody reads its output any more."""


EventQueue: TypeAlias = queue.SimpleQueue[Ended | StreamEnded | Reported | Interrupted]


class Drivers:
    """The processes, which end with the block. What they write goes to `terminal`, what happens to them to `events`."""

    def __init__(self, events: EventQueue, terminal: Terminal) -> None:
        self._events = events
        self._terminal = terminal
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._unread = threading.Event()
        self._lifeline, self._held_end = os.pipe()

    def __enter__(self) -> Drivers:
        return self

    def __exit__(self, *exception: object) -> None:
        for party in tuple(self._processes):
            self.reap(party)
        os.close(self._lifeline)
        os.close(self._held_end)

    def start(self, party: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start a driver, and the threads that attend to it."""
        reports, written_end = os.pipe()
        # A driver is born with SIGINT blocked and takes it when it can end quietly, not in the middle of its imports.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own script, as the user asked
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environ, LIFELINE_VARIABLE: str(self._lifeline), REPORTS_VARIABLE: str(written_end)},
                pass_fds=(self._lifeline, written_end),
                start_new_session=True,
            )
        except BaseException:
            os.close(reports)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(written_end)
        self._processes[party] = process
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("a process that was started with pipes has none")
        for target, arguments in (
            (self._show, (party, process.stdout, False)),
            (self._show, (party, process.stderr, True)),
            (self._listen, (party, reports)),
            (self._await_end, (party, process.pid)),
        ):
            # Daemons, since a process that left its session may hold a stream open for ever.
            threading.Thread(target=target, args=arguments, name=f"fed-{party}", daemon=True).start()

    def send(self, parties: Sequence[str], number: signal.Signals) -> None:
        """Send a signal to drivers and to all that they started."""
        for party in parties:
            if party in self._processes:
                # A group outlives its leader, and a leader's id is not given away before it is reaped.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._processes[party].pid, number)

    def reap(self, party: str) -> int:
        """Kill whatever is left of a driver, and return its exit code, negative for a signal."""
        self.send((party,), signal.SIGKILL)
        return self._processes.pop(party).wait()

    def _show(self, party: str, stream: IO[bytes], error: bool) -> None:
        reader = LineReader()
        with stream:
            while data := os.read(stream.fileno(), 65536):
                self._print(party, reader.feed(data, time.monotonic()), error)
        self._print(party, reader.end(), error)
        self._events.put(StreamEnded())

    def _print(self, party: str, lines: list[str], error: bool) -> None:
        try:
            for line in lines:
                if not self._unread.is_set():
                    self._terminal.line(party, line, error=error)
        except OSError:
            # As with any program in a pipeline whose reader has left. Reading goes on, or the driver would block.
            if not self._unread.is_set():
                self._unread.set()
                self._events.put(Interrupted())

    def _listen(self, party: str, reports: int) -> None:
        with os.fdopen(reports, "rb") as stream:
            for line in stream:
                try:
                    self._events.put(Reported(party, decode(line)))
                except ValueError:
                    # The descriptor was the script's to write to, and it did. It says nothing that concerns us.
                    continue
        self._events.put(StreamEnded())

    def _await_end(self, party: str, pid: int) -> None:
        # Left unreaped, so that its id, and with it the group's, stays its own until the group has been killed.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._events.put(Ended(party))
