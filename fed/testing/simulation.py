"""A whole federation in one process: a thread for each party, tasks on threads, real serialization between them.

What differs from production: no Ray (its options have no meaning), and by default a transport in memory. What does
not: the same core, the same proxies, the same codec, the same errors. A breakpoint in a task or in the program stops
there.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import os
import random
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from fed import config as options
from fed.api import shutdown
from fed.clock import SYSTEM_CLOCK, Clock
from fed.config import Address, Config
from fed.context import set_job_factory
from fed.core.trace import Event, trace_lines
from fed.engine.job import Job
from fed.engine.shell import new_incarnation
from fed.errors import FedTimeoutError, JobAborted, PartyLeftError, RemoteError, UsageError
from fed.proxy.greeting import hello_of
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Sender
from fed.runtime.local import LocalRuntime
from fed.serde.data import DataCodec
from fed.serde.receipt import SmallCodec
from fed.testing.clock import SkippingClock
from fed.testing.fault_run import FaultRun
from fed.testing.faults import FaultPlan
from fed.testing.injection import FaultyJob, FaultyReceiver, FaultyRuntime, FaultySender, faulty_handler
from fed.testing.links import FaultyLink
from fed.transport.contract import Link, Listener
from fed.transport.memory import MemoryNetwork

__all__ = ["Simulation", "simulate"]

FIRST_PORT: Final = 20_000
"""Below it are the ports of well-known servers, and of Ray's workers (10002 to 19999)."""

LAST_PORT: Final = 60_000

MAX_PRINTED: Final = 40
"""Events of each party of a simulation that does not end."""

END_S: Final = 10.0
"""How long programs that did not end in time may take to end, once the faults that may have kept them are over."""


_Placement = Callable[[str], Mapping[str, Any]]
"""From a party to its arguments of `fed.init` that say who and where the parties are."""


@dataclasses.dataclass(frozen=True)
class _Transport:
    """What connects the parties.

    Attributes:
        listener: Makes the way in to the party that has these options.
        links: Makes its ways out.
    """

    listener: Callable[[Config], Listener]
    links: Callable[[Config], Mapping[str, Link]]


@dataclasses.dataclass(frozen=True)
class Simulation(Mapping[str, Any]):
    """How a simulated program ended: a mapping from party to what the program returned there, or raises what it raised.

    Attributes:
        results: What it returned, by party; a party that raised is missing.
        errors: What it raised, by party.
    """

    results: Mapping[str, Any]
    errors: Mapping[str, BaseException]
    _events: Mapping[str, Sequence[Event]] = dataclasses.field(default_factory=dict, repr=False)

    # Only when somebody looks: there may be a megabyte of text for each of many parties.
    @functools.cached_property
    def traces(self) -> Mapping[str, Sequence[str]]:
        """What went into the state machines of each party's last job, a line for each event, oldest first."""
        return {party: trace_lines(events) for party, events in self._events.items()}

    def __getitem__(self, party: str) -> Any:
        if party in self.errors:
            raise self.errors[party]
        return self.results[party]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


def simulate(
    main: Callable[[], Any],
    *,
    parties: Sequence[str],
    transport: Literal["memory", "grpc"] = "memory",
    timeout_s: float = 60.0,
    check: bool = True,
    faults: FaultPlan | None = None,
    skip_waiting: bool = False,
    **arguments: Any,
) -> Simulation:
    """Run a federated program in all its parties at once.

    Args:
        main: The program, as every party runs it: it enters the job itself, by ``with fed.job():`` or `fed.init`.
            A job that it does not leave is left for it.
        parties: Their names.
        transport: ``memory``, or ``grpc`` on loopback with mutual TLS and certificates made for the occasion.
        timeout_s: Real seconds for the whole program. Where they are over, the last events of each party are printed to
            stderr.
        check: Raise the error of a party. Otherwise they are in `Simulation.errors`.
        faults: What is to go wrong. Where this raises, the plan and what it injected are printed to stderr.
        skip_waiting: Let no time pass for the job but while every thread of this process waits, and then skip it: a
            lease of 15 s runs out in a moment. See `fed.testing.clock`. Needs the transport in memory, and Linux.
        **arguments: Arguments of `fed.init` for every party. Those of the program itself are stronger, but for who
            and where the parties are.

    Returns:
        What each party returned.

    Raises:
        FedTimeoutError: The time is up; says where in the program each party stands.
        UsageError: The parties are not named properly, or the faults name others.
        Exception: With `check`, what the party raised where the failure began, else the first one's error.
    """
    names = list(parties)
    if not names or len(set(names)) != len(names):
        raise UsageError(f"simulate takes the names of one or more different parties, not {names!r}")
    if skip_waiting and transport != "memory":
        raise UsageError("simulate(skip_waiting=True) needs transport='memory': real connections wait in real time")
    values: dict[str, Any] = {}
    errors: dict[str, BaseException] = {}
    jobs: dict[str, Job] = {}
    with contextlib.ExitStack() as stack:
        clock = stack.enter_context(SkippingClock()) if skip_waiting else SYSTEM_CLOCK
        run = None
        if faults is not None:
            run = faults.begin(names, clock)
            stack.callback(run.end)
        place, connect = _in_memory(names) if transport == "memory" else _over_grpc(names, stack)

        def play(party: str) -> None:
            def make_job(given: Mapping[str, Any]) -> Job:
                placed = {**arguments, **given, **place(party)}
                job = jobs[party] = _job(party, placed, connect, run, clock)
                return job

            set_job_factory(make_job)
            try:
                try:
                    values[party] = main()
                except BaseException as error:
                    shutdown(error)
                    raise
                shutdown()
            except BaseException as error:  # noqa: BLE001 - it is the program's, and becomes the outcome
                values.pop(party, None)
                errors[party] = error

        threads = {}
        for name in names:
            context = contextvars.Context()
            threads[name] = threading.Thread(target=context.run, args=(play, name), name=f"fed-{name}", daemon=True)
        for thread in threads.values():
            thread.start()
        deadline = time.monotonic() + timeout_s
        for thread in threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        hung = {name: thread for name, thread in threads.items() if thread.is_alive()}
        if hung:
            standing = "\n".join(map(_standing, hung.values()))
            for name, events in _events_of(jobs).items():
                print(f"{name}: its last events", *trace_lines(events)[-MAX_PRINTED:], sep="\n", file=sys.stderr)
            if run is not None:
                _let_go(run, hung.values())
            _tell_of(faults)
            raise FedTimeoutError(f"the simulation did not end within {timeout_s:g} s\n{standing}")
    simulation = Simulation(values, errors, _events_of(jobs))
    if check and errors:
        _tell_of(faults)
        raise _origin(errors)
    return simulation


def _events_of(jobs: Mapping[str, Job]) -> dict[str, Sequence[Event]]:
    return {party: job.trace for party, job in list(jobs.items())}


def _job(
    party: str,
    arguments: Mapping[str, Any],
    connect: _Transport,
    run: FaultRun | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Job:
    # Neither the environment nor a file has a say: a test means the same wherever it runs.
    given = {"job": "simulation", **arguments, "party": party}
    given.pop("config", None)
    handler = given.get("failure_handler")
    if run is not None and callable(handler):
        given["failure_handler"] = faulty_handler(run, party, handler)
    config = options.load(given, {}, Path(os.devnull))
    incarnation = new_incarnation()
    hello = hello_of(config, incarnation)
    codec = DataCodec(config.types)
    small_codec = SmallCodec(config.types, config.small_object_bytes)
    # Made anew for every life of a proxy, which ends with its connections.
    make_sender: Callable[..., Sender] = Sender
    make_receiver: Callable[..., Receiver] = Receiver
    if run is not None:
        make_sender = functools.partial(FaultySender, run)
        make_receiver = functools.partial(FaultyReceiver, run)

    def sender() -> Sender:
        links = connect.links(config)
        if run is not None:
            links = {peer: FaultyLink(link, run, party) for peer, link in links.items()}
        return make_sender(hello, links, codec, small_object_bytes=config.small_object_bytes, lease_s=config.lease_s)

    def receiver() -> Receiver:
        return make_receiver(
            hello,
            connect.listener(config),
            codec,
            max_stored_bytes=config.receive_buffer_bytes,
            max_object_bytes=config.max_object_bytes,
            lease_s=config.lease_s,
        )

    if run is None:
        return Job(config, LocalRuntime(party, sender, receiver, clock, small_codec), incarnation, clock)
    runtime = FaultyRuntime(run, party, sender, receiver, clock, small_codec)
    return FaultyJob(run, config, runtime, incarnation, clock)


def _in_memory(names: Sequence[str]) -> tuple[_Placement, _Transport]:
    network = MemoryNetwork()
    # Never connected to, but every party has an address, and a program may read it.
    addresses = {name: Address("127.0.0.1", port) for port, name in enumerate(names, start=1)}
    return lambda _: {"addresses": addresses, "tls": None, "listen": None}, _Transport(
        listener=lambda config: network.listener(config.party),
        links=lambda config: {peer: network.link(config.party, peer) for peer in config.peers},
    )


def _over_grpc(names: Sequence[str], stack: contextlib.ExitStack) -> tuple[_Placement, _Transport]:
    # Imported here because a simulation in memory needs neither.
    from fed.transport.certificates import write_credentials
    from fed.transport.grpc import GrpcLink, GrpcListener

    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fed-simulation-")))
    credentials = write_credentials(directory / "tls", names)
    addresses = dict(zip(names, free_addresses(len(names)), strict=True))

    def listener(config: Config) -> Listener:
        return GrpcListener(config.party, config.addresses[config.party], config.tls, parties=config.parties)

    def links(config: Config) -> Mapping[str, Link]:
        return {
            peer: GrpcLink(config.party, peer, config.addresses[peer], config.tls, config.chunk_bytes)
            for peer in config.peers
        }

    return lambda party: {"addresses": addresses, "tls": credentials[party], "listen": None}, _Transport(
        listener, links
    )


def free_addresses(count: int) -> list[Address]:
    """Loopback addresses whose ports were free a moment ago, all different.

    They are outside the range from which the system gives ports to connections: one of those could take it meanwhile.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    # Where the system gives all of them to connections, it must be one of those.
    ports = range(FIRST_PORT, first if first > FIRST_PORT else LAST_PORT)
    found: list[int] = []
    for port in random.SystemRandom().sample(ports, len(ports)):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return [Address("127.0.0.1", port) for port in found]


def _origin(errors: Mapping[str, BaseException]) -> BaseException:
    """The error of the party where it began, as far as that can be told from the errors themselves."""
    for error in errors.values():
        if not isinstance(error, (RemoteError, JobAborted, PartyLeftError)):
            return error
    return next(iter(errors.values()))


def _let_go(run: FaultRun, threads: Iterable[threading.Thread]) -> None:
    """End the faults, and give the programs that they may have kept the time to end: no thread is to be left."""
    run.end()
    deadline = time.monotonic() + END_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _tell_of(faults: FaultPlan | None) -> None:
    """What is needed to repeat a failure. To stderr, which every test runner shows with the failure itself."""
    if faults is not None:
        print(faults, file=sys.stderr)


def _standing(thread: threading.Thread) -> str:
    """Where a thread stands."""
    frame = sys._current_frames().get(thread.ident or -1)
    where = "".join(traceback.format_stack(frame)) if frame is not None else "ended meanwhile"
    return f"{thread.name} stands at:\n{where}"
