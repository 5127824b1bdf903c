"""All parties of a job on one machine: one process each, one terminal, one end.

The terminal's Ctrl-C reaches this process alone, which passes it on. The main thread takes events off a queue and acts.
The threads of `fed.cli.processes` put them there, and for signals that of `fed.cli.interruption`.
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
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NoReturn

from fed.cli.interruption import catch_signals
from fed.cli.processes import STREAMS, Drivers, Ended, EventQueue, Reported, StreamEnded
from fed.cli.reports import DIRECTORY_PREFIX, DIRECTORY_VARIABLE, Report
from fed.cli.summary import Summary
from fed.cli.supervisor import INTERRUPTED, SendSignal, Supervisor
from fed.cli.terminal import Terminal
from fed.config import Address, TLSConfig
from fed.transport.certificates import write_credentials

__all__ = ["simulate"]

LOOPBACK: Final = "127.0.0.1"
DRAIN_S: Final = 2.0
"""How long to read on when every driver is gone but something outside of its session holds its output open."""


def simulate(
    command: Sequence[str],
    parties: Sequence[str],
    *,
    job: str,
    environ: Mapping[str, str],
    cluster: AbstractContextManager[Mapping[str, str]],
    discard: Callable[[], None],
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
        discard: Removes the files of a cluster that is just being started.
        terminal: Where everything is shown.
        grace_s: Seconds that the others have to end by themselves after one has failed.

    Returns:
        The exit code: 0, that of the party where the failure began (see `Supervisor`), or 130 after an interruption.
    """
    events: EventQueue = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=DIRECTORY_PREFIX)))
        interruption = stack.enter_context(catch_signals(events, functools.partial(_abandon, directory, discard)))
        try:
            joining = stack.enter_context(cluster)
        except SystemExit:
            # SIGTERM while Ray starts and has its own handler in place.
            return INTERRUPTED
        if interruption.count:
            terminal.say("interrupted")
            return INTERRUPTED
        tls = write_credentials(directory, parties)
        addresses = stack.enter_context(_reserved_addresses(parties))
        drivers = stack.enter_context(Drivers(events, terminal))
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
                    f"FED_TLS_{field.name.upper()}": str(getattr(tls[party], field.name))
                    for field in dataclasses.fields(TLSConfig)
                },
            }
            drivers.start(party, command, {**environ, **variables})
        return _Watch(parties, grace_s, drivers, events, terminal).run()


def _abandon(directory: Path, discard: Callable[[], None]) -> NoReturn:
    """End at once, while Ray starts and before there are drivers.

    An exception would have to come out of the middle of ``ray.init``, which does not survive that. The processes
    that Ray has started end by themselves when this one is gone.
    """
    shutil.rmtree(directory, ignore_errors=True)
    discard()
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


class _Watch:
    """Follows the drivers to their end."""

    def __init__(
        self, parties: Sequence[str], grace_s: float, drivers: Drivers, events: EventQueue, terminal: Terminal
    ) -> None:
        self._parties = parties
        self._drivers = drivers
        self._events = events
        self._terminal = terminal
        # The drivers have inherited it.
        ignoring_sigint = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        self._supervisor = Supervisor(parties, grace_s, ignoring_sigint=ignoring_sigint)
        self._summary = Summary(parties)
        # What a driver writes may come after its end.
        self._open_streams = STREAMS * len(parties)
        self._waits: dict[str, frozenset[str]] = {}
        self._joined: set[str] = set()
        self._shown_wait = ""

    def run(self) -> int:
        """Return the exit code when every driver has ended and all that it wrote has been shown."""
        while self._supervisor.running:
            self._obey(self._supervisor.tick(time.monotonic()))
            self._take_next(self._supervisor.deadline)
        drained_at = time.monotonic() + DRAIN_S
        while self._open_streams and time.monotonic() < drained_at:
            self._take_next(drained_at)
        self._terminal.stop_waiting()
        first_failed = self._supervisor.first_failed
        # After an interruption everybody failed, and everybody knows why.
        if first_failed is not None and not self._supervisor.interrupted:
            ends = (self._supervisor.codes, self._supervisor.signalled, first_failed)
            self._terminal.block(self._summary.title(*ends), self._summary.rows(*ends))
        return self._supervisor.exit_code(self._summary.source)

    def _take_next(self, deadline: float | None) -> None:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return
        now = time.monotonic()
        if isinstance(event, Ended):
            self._supervisor.ended(event.party, self._drivers.reap(event.party), now)
            self._show_wait()
        elif isinstance(event, StreamEnded):
            self._open_streams -= 1
        elif isinstance(event, Reported):
            self._learn(event.party, event.report)
        else:
            self._obey(self._supervisor.interrupt(now))

    def _obey(self, instruction: SendSignal | None) -> None:
        if instruction is None:
            return
        if instruction.reason:
            self._terminal.stop_waiting()
            self._terminal.say(instruction.reason)
        self._drivers.send(instruction.parties, instruction.signal)

    def _learn(self, party: str, report: Report) -> None:
        if report.event == "waiting":
            missing = report.detail.get("for")
            self._waits[party] = frozenset(map(str, missing)) if isinstance(missing, list) else frozenset()
        elif report.event == "joined":
            self._joined.add(party)
        if party not in self._supervisor.signalled:
            # What it fails of after that is our doing.
            self._summary.add(party, report)
        self._show_wait()

    def _show_wait(self) -> None:
        text = self._wait()
        if text == self._shown_wait:
            return
        self._shown_wait = text
        if text:
            self._terminal.wait(text)
        else:
            self._terminal.stop_waiting()

    def _wait(self) -> str:
        """Who is waited for; empty if nobody is."""
        if self._supervisor.first_failed is not None or self._supervisor.interrupted:
            return ""
        waiting = [party for party in self._supervisor.running if party in self._waits and party not in self._joined]
        # Each waits for the others at first, also for those that wait themselves; missing is who has not come so far.
        named = {name for party in waiting for name in self._waits[party]}
        missing = [party for party in self._parties if party in named and party not in {*self._waits, *self._joined}]
        return f"waiting for {', '.join(missing)}" if missing else "connecting the parties" if named else ""
