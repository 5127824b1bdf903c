"""A whole federation in one process: a thread for each party, tasks on threads, real serialization between them.

What differs from production: no Ray (its options have no meaning), and by default a transport in memory. What does
not: the same core, the same proxies, the same codec, the same errors. A breakpoint in a task or in the program stops
there.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fed import config as options
from fed.api import shutdown
from fed.config import Address, Config
from fed.errors import FedTimeoutError, JobAborted, PartyLeftError, RemoteError, UsageError
from fed.job import Job, hello_of, new_incarnation
from fed.place import set_job_factory
from fed.proxy.receiver import Receiver
from fed.proxy.sender import Sender
from fed.runtime.local import LocalRuntime
from fed.serde.data import DataCodec
from fed.transport.contract import Link, Listener
from fed.transport.memory import MemoryNetwork

__all__ = ["Simulation", "simulate"]

Place = Callable[[str], Mapping[str, Any]]
Transport = Callable[[Config], tuple[Listener, Mapping[str, Link]]]


@dataclasses.dataclass(frozen=True)
class Simulation(Mapping[str, Any]):
    """How a simulated program ended: a mapping from party to what the program returned there, or raises what it raised.

    Attributes:
        results: What it returned, by party; a party that raised is missing.
        errors: What it raised, by party.
    """

    results: Mapping[str, Any]
    errors: Mapping[str, BaseException]

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
    **arguments: Any,
) -> Simulation:
    """Run a federated program in all its parties at once.

    Args:
        main: The program, as every party runs it: it enters the job itself, by ``with fed.job():`` or `fed.init`.
            A job that it does not leave is left for it.
        parties: Their names.
        transport: ``memory``, or ``grpc`` on loopback with mutual TLS and certificates made for the occasion.
        timeout_s: Seconds for the whole program.
        check: Raise the error of a party. Otherwise they are in `Simulation.errors`.
        **arguments: Arguments of `fed.init` for every party. Those of the program itself are stronger, but for who
            and where the parties are.

    Returns:
        What each party returned.

    Raises:
        FedTimeoutError: The time is up; says where in the program each party stands.
        UsageError: The parties are not named properly.
        Exception: With `check`, what the party raised where the failure began, else the first one's error.
    """
    names = list(parties)
    if not names or len(set(names)) != len(names):
        raise UsageError(f"simulate takes the names of one or more different parties, not {names!r}")
    values: dict[str, Any] = {}
    errors: dict[str, BaseException] = {}
    with contextlib.ExitStack() as stack:
        place, connect = _in_memory(names) if transport == "memory" else _over_grpc(names, stack)

        def play(party: str) -> None:
            set_job_factory(lambda given: _job(party, {**arguments, **given, **place(party)}, connect))
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
            raise FedTimeoutError(
                f"the simulation did not end within {timeout_s:g} s\n" + "\n".join(map(_standing, hung.values()))
            )
    simulation = Simulation(values, errors)
    if check and errors:
        raise _origin(errors)
    return simulation


def _job(party: str, arguments: Mapping[str, Any], connect: Transport) -> Job:
    # Neither the environment nor a file has a say: a test means the same wherever it runs.
    given = {"job": "simulation", **arguments, "party": party}
    given.pop("config", None)
    config = options.load(given, {}, Path(os.devnull))
    incarnation = new_incarnation()
    hello = hello_of(config, incarnation)
    listener, links = connect(config)
    codec = DataCodec(config.types)

    def sender() -> Sender:
        return Sender(hello, links, codec, small_object_bytes=config.small_object_bytes)

    def receiver() -> Receiver:
        return Receiver(
            hello,
            listener,
            codec,
            max_stored_bytes=config.receive_buffer_bytes,
            max_object_bytes=config.max_object_bytes,
        )

    return Job(config, LocalRuntime(party, sender, receiver), incarnation)


def _in_memory(names: Sequence[str]) -> tuple[Place, Transport]:
    network = MemoryNetwork()
    # Never connected to, but every party has an address, and a program may read it.
    addresses = {name: Address("127.0.0.1", port) for port, name in enumerate(names, start=1)}

    def connect(config: Config) -> tuple[Listener, Mapping[str, Link]]:
        return network.listener(config.party), {peer: network.link(config.party, peer) for peer in config.peers}

    return lambda _: {"addresses": addresses, "tls": None, "listen": None}, connect


def _over_grpc(names: Sequence[str], stack: contextlib.ExitStack) -> tuple[Place, Transport]:
    # Imported here because a simulation in memory needs neither.
    from fed.transport.certificates import write_credentials
    from fed.transport.grpc import GrpcLink, GrpcListener

    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fed-simulation-")))
    credentials = write_credentials(directory / "tls", names)
    addresses = dict(zip(names, free_addresses(len(names)), strict=True))

    def connect(config: Config) -> tuple[Listener, Mapping[str, Link]]:
        listener = GrpcListener(config.party, config.addresses[config.party], config.tls, parties=config.parties)
        links = {
            peer: GrpcLink(config.party, peer, config.addresses[peer], config.tls, config.chunk_bytes)
            for peer in config.peers
        }
        return listener, links

    return lambda party: {"addresses": addresses, "tls": credentials[party], "listen": None}, connect


def free_addresses(count: int) -> list[Address]:
    """Loopback addresses whose ports were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [Address("127.0.0.1", one.getsockname()[1]) for one in sockets]


def _origin(errors: Mapping[str, BaseException]) -> BaseException:
    """The error of the party where it began, as far as that can be told from the errors themselves."""
    for error in errors.values():
        if not isinstance(error, (RemoteError, JobAborted, PartyLeftError)):
            return error
    return next(iter(errors.values()))


def _standing(thread: threading.Thread) -> str:
    """Where a thread stands."""
    frame = sys._current_frames().get(thread.ident or -1)
    where = "".join(traceback.format_stack(frame)) if frame is not None else "ended meanwhile"
    return f"{thread.name} stands at:\n{where}"
