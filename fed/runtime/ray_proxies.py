"""The sender and the receiver of a party as Ray actors, and what makes them.

Public Ray API only. What is relied on was established by experiment and is named where it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import ray
from typing_extensions import override

from fed.channel import ChannelError, Role
from fed.channel.socket_proxy import SocketAddress
from fed.config import Config
from fed.core.liveness import RESTART_S
from fed.core.rendezvous import Key
from fed.errors import ConfigError
from fed.proxy.deliveries import Delivery
from fed.proxy.direct import DirectClients, serve_receiver, serve_sender
from fed.proxy.receiver import NotHere, Receiver
from fed.proxy.sender import Sender
from fed.runtime.channels import node_id, proxy_end
from fed.runtime.contract import Proxies, Ref, Submission
from fed.runtime.faults import without_tracebacks
from fed.serde.data import DataCodec
from fed.transport.allocator import keep_freed_memory
from fed.transport.contract import AddressInUse, Hello
from fed.transport.grpc import GrpcLink, GrpcListener

__all__ = ["FedReceiver", "FedSender", "RayProxies", "build_sender", "submission"]

logger = logging.getLogger("fed.runtime")

REACH_S: Final = 10.0
"""How long a proxy may take to connect to its driver, which listens by then."""

PROXY_OPTIONS: Final = {
    # A proxy waits far more than it works, and must find room on a cluster that is full of the user's tasks.
    "num_cpus": 0,
    # Ray restarts a killed proxy and repeats the calls that were pending: of large results they are the outbox.
    "max_restarts": -1,
    "max_task_retries": -1,
    # Every pending call counts; beyond the limit even a ping would wait.
    "max_concurrency": 100_000,
}


def build_sender(config: Config, hello: Hello) -> Sender:
    """The sender of a party, over gRPC."""
    links = {
        peer: GrpcLink(config.party, peer, config.addresses[peer], config.tls, config.chunk_bytes)
        for peer in config.peers
    }
    return Sender(
        hello,
        links,
        DataCodec(config.types),
        small_object_bytes=config.small_object_bytes,
        lease_s=config.lease_s,
    )


def build_receiver(config: Config, hello: Hello) -> Receiver:
    """The receiver of a party, over gRPC."""
    bind = config.listen or config.addresses[config.party]
    return Receiver(
        hello,
        GrpcListener(config.party, bind, config.tls, parties=config.parties),
        DataCodec(config.types),
        max_stored_bytes=config.receive_buffer_bytes,
        max_object_bytes=config.max_object_bytes,
        lease_s=config.lease_s,
    )


def _was_killed() -> bool:
    """Whether the actor that this is called in is not the first one of its kind."""
    with warnings.catch_warnings():
        # Ray's own property uses one that Ray deprecates, and what is written here ends up in the driver's output.
        warnings.simplefilter("ignore")
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


class FedSender:
    """The sender proxy as a Ray actor. Ray prints the class's name before what it logs."""

    def __init__(self, config: Config, hello: Hello, channel: SocketAddress, drivers_node: str) -> None:
        keep_freed_memory()
        # As long as this process lives: what it is given to send is unpickled before it is called.
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(without_tracebacks())
        self._sender = build_sender(config, hello)
        self._server = serve_sender(proxy_end(config, channel, drivers_node, Role.SENDER), self._sender)
        self._closed = asyncio.Event()

    async def connect(self, timeout_s: float) -> Any:
        """See `fed.proxy.sender.Sender.connect`."""
        # The peers are greeted in any case: else they could not be told that this party cannot start [E33].
        _, problems = await asyncio.gather(self._server.reach(REACH_S), self._sender.connect(timeout_s))
        return problems

    async def push(self, deliveries: Sequence[Delivery], *values: Any) -> Any:
        """See `fed.proxy.sender.Sender.push`."""
        return await self._sender.push(deliveries, values)

    async def statistics(self) -> Any:
        """See `fed.proxy.sender.Sender.statistics`."""
        return self._sender.statistics()

    async def close(self) -> None:
        """See `fed.proxy.sender.Sender.close`."""
        self._closed.set()
        await self._server.close()

    async def ended(self) -> str | None:
        """None when it is closed; before that the sentence that says why it cannot do its work."""
        try:
            await self._server.reach(REACH_S)
        except ChannelError as error:
            return None if self._closed.is_set() else str(error)
        await self._closed.wait()
        return None


class FedReceiver:
    """The receiver proxy as a Ray actor."""

    def __init__(self, config: Config, hello: Hello, channel: SocketAddress, drivers_node: str) -> None:
        keep_freed_memory()
        self._receiver = build_receiver(config, hello)
        self._server = serve_receiver(proxy_end(config, channel, drivers_node, Role.RECEIVER), self._receiver)
        self._closed = asyncio.Event()
        # Started here because a restarted actor runs its constructor again, but no call that had completed.
        self._start = asyncio.ensure_future(self._listen(RESTART_S if _was_killed() else 0.0))

    async def _listen(self, patience_s: float) -> str | None:
        try:
            # Before it knows whom this party has joined it must not be greeted.
            await self._server.reach(REACH_S)
            await self._receiver.start(patience_s)
        except (AddressInUse, ChannelError, ConfigError) as error:
            return str(error)
        return None

    async def started(self) -> str | None:
        """None when it listens, else the sentence that says why it cannot."""
        return await self._start

    async def take(self, key: Key) -> Any:
        """See `fed.proxy.receiver.Receiver.take`."""
        try:
            return await self._receiver.take(key)
        except NotHere as error:
            # Also where Ray makes a value again that its store has lost.
            raise ray.exceptions.ObjectLostError(str(error), "", "") from None

    async def unclaimed(self) -> Any:
        """See `fed.proxy.receiver.Receiver.unclaimed`."""
        return self._receiver.unclaimed()

    async def close(self) -> None:
        """See `fed.proxy.receiver.Receiver.close`."""
        self._closed.set()
        await self._server.close()

    async def ended(self) -> str | None:
        """None when it is closed; before that the sentence that says why it cannot listen."""
        trouble = await self._start
        if trouble is None:
            await self._closed.wait()
        return None if self._closed.is_set() else trouble


class RayProxies(Proxies):
    """The two actors, as the driver calls them."""

    def __init__(self, config: Config, hello: Hello, channel: SocketAddress, direct: DirectClients) -> None:
        self.direct = direct
        # The handler is the driver's own, and may be anything; the proxies need the rest.
        config = dataclasses.replace(config, failure_handler=None)
        # Kept by Ray for every life of the actor, so that one that is killed finds its address again.
        options = {**PROXY_OPTIONS, "resources": dict(config.ray_proxy_resources)}
        arguments = (config, hello, channel, node_id())
        self._sender = ray.remote(FedSender).options(**options).remote(*arguments)
        self._receiver = ray.remote(FedReceiver).options(**options).remote(*arguments)
        # Bound once, since binding costs more than calling. What is told to a proxy that is gone needs no repeating.
        self._take = self._receiver.take.options(num_returns=2)
        self._close_sender = self._sender.close.options(max_task_retries=0)
        self._close_receiver = self._receiver.close.options(max_task_retries=0)
        self._ended: dict[str, Ref] = {}

    @override
    def started(self) -> Ref:
        return self._receiver.started.remote()

    @override
    def ended(self) -> Mapping[str, Ref]:
        # Ray repeats these calls on each life of the actors, since they are pending.
        self._ended = {"sender": self._sender.ended.remote(), "receiver": self._receiver.ended.remote()}
        return self._ended

    @override
    def connect(self, timeout_s: float) -> Ref:
        return self._sender.connect.remote(timeout_s)

    @override
    def take(self, key: Key) -> Submission:
        return submission(self._take.remote(key))

    @override
    def push(self, deliveries: Sequence[Delivery], refs: Sequence[Ref]) -> Ref:
        return self._sender.push.remote(deliveries, *refs)

    @override
    def unclaimed(self) -> Ref:
        return self._receiver.unclaimed.remote()

    @override
    def statistics(self) -> Ref:
        return self._sender.statistics.remote()

    @override
    def close(self) -> Sequence[Ref]:
        # What is still pending when the actors are killed, Ray prints as failed.
        return self._close_sender.remote(), self._close_receiver.remote(), *self._ended.values()

    def kill(self) -> None:
        """End both actors."""
        ray.kill(self._sender)
        ray.kill(self._receiver)


def submission(refs: Any) -> Submission:
    """What Ray hands out for a call with several results, of which the last one tells of its end."""
    # Ray returns a bare reference where there is one only.
    if isinstance(refs, list):
        return Submission(tuple(refs[:-1]), refs[-1])
    return Submission((), refs)
