"""All parties of a job on one machine: one process each, one terminal, one end.

Each party's driver is a process that leads a session of its own, so that it can be ended with everything it
started, and so that the terminal's Ctrl-C reaches this process alone, which passes it on. Should this process be killed
outright, the drivers notice by the *lifeline*, a pipe that only it holds open.

Threads: one per stream reads and shows what a driver writes, one per driver waits for its end. They put events on a
queue, as the signal handlers do; the main thread takes them off and acts. A stream is shown by the thread that
reads it, so that a terminal that is slow holds up the driver that writes, and nothing piles up here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import IO, Final, NoReturn

from fed.cli.ending import INTERRUPTED, Ending, Order
from fed.cli.lines import LineReader
from fed.cli.status import (
    DIRECTORY_PREFIX,
    DIRECTORY_VARIABLE,
    LIFELINE_VARIABLE,
    STATUS_VARIABLE,
    Report,
    decode,
)
from fed.cli.terminal import Terminal
from fed.cli.verdict import Verdict
from fed.config import Address, TLSConfig

__all__ = ["driver_command", "simulate"]

LOOPBACK: Final = "127.0.0.1"
DRAIN_S: Final = 2.0
"""How long to read on when every driver is gone but something outside of its session holds its output open."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class _Ended:
    """A driver's process has ended, and is yet to be reaped."""

    party: str


@dataclasses.dataclass(frozen=True)
class _Closed:
    """A stream of a driver has ended."""

    party: str


@dataclasses.dataclass(frozen=True)
class _Told:
    """A driver has told something about the job."""

    party: str
    report: Report


@dataclasses.dataclass(frozen=True)
class _Interrupted:
    """Somebody wants the simulation to end."""


@dataclasses.dataclass(frozen=True)
class _Unread:
    """Nobody reads our output any more."""


_Event = _Ended | _Closed | _Told | _Interrupted | _Unread


def simulate(
    command: Sequence[str],
    parties: Sequence[str],
    *,
    job: str,
    environ: Mapping[str, str],
    cluster: AbstractContextManager[Mapping[str, str]],
    credentials: Callable[[Path, Sequence[str]], Mapping[str, TLSConfig]],
    terminal: Terminal,
    grace_s: float,
) -> int:
    """Run one driver per party until all have ended.

    Must be called in the main thread, which receives the signals.

    Args:
        command: What to start for each party.
        parties: Their names.
        job: Prefix of the Ray namespaces, one per party.
        environ: What the drivers' environments begin with.
        cluster: Entered, it gives the variables by which a driver joins the Ray cluster.
        credentials: Writes every party's TLS credentials into a directory, which is removed in the end.
        terminal: Where everything is shown.
        grace_s: Seconds that the others have to end by themselves after one has failed.

    Returns:
        The exit code: 0, that of the party where the failure began (see `Ending`), or 130 after an interruption.
    """
    events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=DIRECTORY_PREFIX)))
        interruption = stack.enter_context(_Interruption.caught(events, functools.partial(_abandon, directory)))
        try:
            joining = stack.enter_context(cluster)
        except SystemExit:
            # SIGTERM while Ray starts and has its own handler in place.
            return INTERRUPTED
        if interruption.count:
            terminal.say("interrupted")
            return INTERRUPTED
        tls = credentials(directory, parties)
        addresses = stack.enter_context(_reserved_addresses(parties))
        family = stack.enter_context(_Family(events, terminal))
        interruption.impatience = None
        run_id = secrets.token_hex(4)
        for party in parties:
            variables = {
                **joining,
                DIRECTORY_VARIABLE: str(directory),
                "FED_PARTY": party,
                "FED_ADDRESSES": ",".join(f"{name}={address}" for name, address in addresses.items()),
                "FED_LISTEN": str(addresses[party]),
                "FED_RAY_NAMESPACE": f"{job}-{party}-{run_id}",
                # What a file asks of the cluster of the real party says nothing about this one.
                "FED_RAY_PROXY_RESOURCES": "none",
                **{
                    f"FED_TLS_{part.name.upper()}": str(getattr(tls[party], part.name))
                    for part in dataclasses.fields(TLSConfig)
                },
            }
            family.start(party, command, {**environ, **variables})
        return _Watch(parties, grace_s, family, events, terminal).run()


class _Interruption:
    """Turns signals into events.

    Attributes:
        count: How many there were.
        impatience: What a second one does while the main thread is not listening to events yet. It runs as a signal
            handler does.
    """

    def __init__(self, events: queue.SimpleQueue[_Event], impatience: Callable[[], object]) -> None:
        self.count = 0
        self.impatience: Callable[[], object] | None = impatience
        self._events = events

    @classmethod
    @contextlib.contextmanager
    def caught(cls, events: queue.SimpleQueue[_Event], impatience: Callable[[], object]) -> Iterator[_Interruption]:
        """Have the signals handled inside of the block."""
        interruption = cls(events, impatience)
        before = {number: signal.signal(number, interruption._handle) for number in _SIGNALS}
        try:
            yield interruption
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Runs between any two instructions of the main thread. SimpleQueue.put is reentrant, and nothing else is done.
        self.count += 1
        self._events.put(_Interrupted())
        if self.impatience is not None and self.count > 1:
            self.impatience()


def _abandon(directory: Path) -> NoReturn:
    """End at once, while Ray starts and before there are drivers.

    An exception would have to come out of the middle of ``ray.init``, which does not survive that. The processes
    that Ray has started end by themselves when this one is gone.
    """
    shutil.rmtree(directory, ignore_errors=True)
    if os.isatty(2):
        # The spinner had hidden the cursor, and its lock may be held by this very thread.
        os.write(2, b"\x1b[?25h\n")
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def _reserved_addresses(parties: Sequence[str]) -> Iterator[dict[str, Address]]:
    """A free loopback address per party, kept free for whoever binds it with SO_REUSEADDR, as gRPC servers do.

    A socket that is bound and does not listen lets such a server in, while it keeps the system from giving the port
    to one of the many outgoing connections that Ray makes.
    """
    with contextlib.ExitStack() as stack:
        addresses = {}
        for party in parties:
            keeper = stack.enter_context(socket.socket())
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind((LOOPBACK, 0))
            addresses[party] = Address(LOOPBACK, keeper.getsockname()[1])
        yield addresses


class _Family:
    """The drivers' processes, which end with the block.

    Args:
        events: Where to put what happens to them.
        terminal: Where to show what they write.
    """

    def __init__(self, events: queue.SimpleQueue[_Event], terminal: Terminal) -> None:
        self._events = events
        self._terminal = terminal
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._unread = threading.Event()
        self._lifeline, self._held_end = os.pipe()

    def __enter__(self) -> _Family:
        return self

    def __exit__(self, *exception: object) -> None:
        for party in tuple(self._processes):
            self.send((party,), signal.SIGKILL)
            self.reap(party)
        os.close(self._lifeline)
        os.close(self._held_end)

    def start(self, party: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start a driver, and the threads that attend to it."""
        status, told = os.pipe()
        # A driver is born with SIGINT blocked and takes it when it can end quietly, not in the middle of its imports.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own script, as the user asked
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environ, LIFELINE_VARIABLE: str(self._lifeline), STATUS_VARIABLE: str(told)},
                pass_fds=(self._lifeline, told),
                start_new_session=True,
            )
        except BaseException:
            os.close(status)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(told)
        self._processes[party] = process
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("a process that was started with pipes has none")
        for target, arguments in (
            (self._show, (party, process.stdout, False)),
            (self._show, (party, process.stderr, True)),
            (self._listen, (party, status)),
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
        """Collect a driver that has ended, having killed whatever it left behind.

        Returns:
            Its exit code, negative for a signal.
        """
        self.send((party,), signal.SIGKILL)
        return self._processes.pop(party).wait()

    def _show(self, party: str, stream: IO[bytes], error: bool) -> None:
        reader = LineReader()
        with stream:
            while data := os.read(stream.fileno(), 65536):
                self._print(party, reader.feed(data, time.monotonic()), error)
        self._print(party, reader.end(), error)
        self._events.put(_Closed(party))

    def _print(self, party: str, lines: list[str], error: bool) -> None:
        try:
            for line in lines:
                if not self._unread.is_set():
                    self._terminal.line(party, line, error=error)
        except OSError:
            # As with any program in a pipeline whose reader has left. Reading goes on, or the driver would block.
            if not self._unread.is_set():
                self._unread.set()
                self._events.put(_Unread())

    def _listen(self, party: str, status: int) -> None:
        with os.fdopen(status, "rb") as stream:
            for line in stream:
                try:
                    self._events.put(_Told(party, decode(line)))
                except ValueError:
                    # The descriptor was the script's to write to, and it did. It says nothing that concerns us.
                    continue
        self._events.put(_Closed(party))

    def _await_end(self, party: str, pid: int) -> None:
        # Left unreaped, so that its id, and with it the group's, stays its own until the group has been killed.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._events.put(_Ended(party))


class _Watch:
    """Follows the drivers to their end.

    Args:
        parties: Their names.
        grace_s: See `simulate`.
        family: Their processes.
        events: What happens to them.
        terminal: Where to say so.
    """

    def __init__(
        self,
        parties: Sequence[str],
        grace_s: float,
        family: _Family,
        events: queue.SimpleQueue[_Event],
        terminal: Terminal,
    ) -> None:
        self._parties = parties
        self._ending = Ending(parties, grace_s)
        self._family = family
        self._events = events
        self._terminal = terminal
        # What it writes, and what it tells: the last word of a driver may come after its end.
        self._open_streams = 3 * len(parties)
        self._drained_at: float | None = None
        self._waits: dict[str, frozenset[str]] = {}
        self._joined: set[str] = set()
        self._shown_wait = ""
        self._verdict = Verdict(parties)
        self._unread = False

    def run(self) -> int:
        """Until every driver has ended and all that it wrote has been shown.

        Returns:
            The exit code.
        """
        while self._ending.running or (self._open_streams and not self._is_drained()):
            self._obey(self._ending.tick(time.monotonic()))
            event = self._next_event()
            if event is not None:
                self._take(event)
        self._terminal.stop_waiting()
        if self._verdict.source is not None:
            self._ending.blame(self._verdict.source)
        # After an interruption everybody failed, and everybody knows why.
        if not self._ending.interrupted:
            self._judge()
        return self._ending.exit_code

    def _next_event(self) -> _Event | None:
        deadline = self._ending.deadline if self._ending.running else self._drained_at
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def _take(self, event: _Event) -> None:
        now = time.monotonic()
        if isinstance(event, _Ended):
            self._ending.ended(event.party, self._family.reap(event.party), now)
            if not self._ending.running:
                self._drained_at = now + DRAIN_S
            self._show_wait()
        elif isinstance(event, _Closed):
            self._open_streams -= 1
        elif isinstance(event, _Told):
            self._learn(event.party, event.report)
        else:
            self._unread = self._unread or isinstance(event, _Unread)
            self._obey(self._ending.interrupt(now))

    def _obey(self, order: Order | None) -> None:
        if order is None:
            return
        if order.reason:
            self._terminal.stop_waiting()
            self._say(order.reason)
        self._family.send(order.parties, order.signal)

    def _is_drained(self) -> bool:
        return self._drained_at is not None and time.monotonic() >= self._drained_at

    def _learn(self, party: str, report: Report) -> None:
        if report.event == "waiting":
            missing = report.detail.get("for")
            self._waits[party] = frozenset(map(str, missing)) if isinstance(missing, list) else frozenset()
        elif report.event == "joined":
            self._joined.add(party)
        if party not in self._ending.signalled:
            # What it fails of after that is our doing.
            self._verdict.told(party, report)
        self._show_wait()

    def _show_wait(self) -> None:
        waiting = [party for party in self._ending.running if party in self._waits and party not in self._joined]
        # Each waits for the others at first, also for those that wait themselves; missing is who has not come so far.
        named = {name for party in waiting for name in self._waits[party]}
        missing = [party for party in self._parties if party in named and party not in {*self._waits, *self._joined}]
        text = f"waiting for {', '.join(missing)}" if missing else "connecting the parties" if named else ""
        if self._ending.first_failed is not None or self._ending.interrupted:
            text = ""
        if text != self._shown_wait:
            self._shown_wait = text
            if text:
                self._terminal.wait(text)
            else:
                self._terminal.stop_waiting()

    def _judge(self) -> None:
        """Say which party's failure was the root, and what became of the others."""
        codes, first = self._ending.codes, self._ending.first_failed
        if first is None or self._unread:
            return
        count = sum(1 for party, code in codes.items() if code and party not in self._ending.signalled)
        began = "their programs differ" if self._verdict.mutual else f"it began in {self._verdict.source or first}"
        title = f"{count} of {len(self._parties)} parties failed, {began}"
        with contextlib.suppress(OSError):
            # Nobody reads it, and there is nothing left to be done.
            self._terminal.block(title, self._verdict.rows(codes, self._ending.signalled, first))

    def _say(self, text: str) -> None:
        try:
            self._terminal.say(text)
        except OSError:
            # Nobody reads it; what has to be done is done all the same.
            self._unread = True


def driver_command(script: Path, arguments: Sequence[str]) -> list[str]:
    """What starts a driver: see `fed.cli.driver`."""
    return [sys.executable, "-m", "fed.cli.driver", str(script), *arguments]
