"""A proxy's end of a channel over sockets: it connects to its driver, again and again, on its event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any, Final

from typing_extensions import override

from fed.channel.contract import ChannelError, Lane, ProxyEnd, ProxyHandler, Role
from fed.channel.framing import Framer, framed
from fed.channel.handshake import CHALLENGE_BYTES, HANDSHAKE_S, Hello, Tls, new_boot_id, prove

__all__ = ["SocketAddress", "SocketProxyEnd"]

logger = logging.getLogger("fed.channel")

FIRST_RETRY_S: Final = 0.02
MAX_RETRY_S: Final = 1.0
"""A proxy connects again after a pause that doubles from the first of these to the last."""


@dataclasses.dataclass(frozen=True)
class SocketAddress:
    """What a proxy needs to connect. Whoever has it can pass for one, but for the certificate.

    Attributes:
        path: Of the socket, on the driver's node.
        token: What both ends know.
        host: The driver's node as others reach it.
        port: There; 0 if it listens on its own node only.
    """

    path: str
    # Not shown in a traceback, say.
    token: bytes = dataclasses.field(repr=False)
    host: str = ""
    port: int = 0


class SocketProxyEnd(ProxyEnd):
    """Connects a proxy to its driver.

    Args:
        address: Where the driver listens.
        role: Which proxy it is.
        boot_id: This life of it. None: a new one.
        remote: Whether it runs on another node than the driver.
        tls: How the connection to another node is secured. None: only by the token.
    """

    def __init__(
        self,
        address: SocketAddress,
        role: Role,
        boot_id: str | None = None,
        *,
        remote: bool = False,
        tls: Tls | None = None,
    ) -> None:
        super().__init__()
        self._address = address
        self._role = role
        self._boot_id = boot_id or new_boot_id()
        self._remote = remote
        self._tls = tls
        self._connected: dict[Lane, _ProxyProtocol] = {}
        self._keeping: list[asyncio.Task[None]] = []

    @override
    def start(self, handler: ProxyHandler) -> None:
        self._keeping = [asyncio.ensure_future(self._keep(lane, handler)) for lane in Lane]

    @override
    def send(self, lane: Lane, *frames: bytes) -> None:
        data = framed(frames)
        protocol = self._connected.get(lane)
        if protocol is not None:
            protocol.write(data)

    @override
    async def close(self) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def _keep(self, lane: Lane, handler: ProxyHandler) -> None:
        """Connect again and again."""
        retry_s = FIRST_RETRY_S
        was_connected = False
        while True:
            protocol = _ProxyProtocol(self, lane, handler)
            try:
                await self._connect(protocol)
                await asyncio.wait(
                    {protocol.connected, protocol.over}, timeout=HANDSHAKE_S, return_when="FIRST_COMPLETED"
                )
                if protocol.connected.done():
                    was_connected = True
                    await protocol.over
            except ConnectionRefusedError:
                # Its file is still there, or its node answers: nothing but its end makes a driver that had let this
                # proxy in cease to listen without removing that file.
                if was_connected and lane is Lane.CONTROL:
                    self.orphaned()
            except OSError as error:
                logger.debug("the driver is not there: %s", error)
            finally:
                protocol.abort()
            if protocol.connected.done():
                # At once: where the driver has ended, the runtime ends this process too, within some ten milliseconds.
                retry_s = FIRST_RETRY_S / 2
                continue
            retry_s = min(2 * retry_s, MAX_RETRY_S)
            await asyncio.sleep(retry_s)

    async def _connect(self, protocol: _ProxyProtocol) -> None:
        loop, address, tls = asyncio.get_running_loop(), self._address, self._tls
        if not self._remote:
            await loop.create_unix_connection(lambda: protocol, address.path)
        elif tls is None:
            await loop.create_connection(lambda: protocol, address.host, address.port)
        else:
            await loop.create_connection(
                lambda: protocol, address.host, address.port, ssl=tls.context, server_hostname=address.host
            )


class _ProxyProtocol(asyncio.Protocol):
    """One connection, from the hello to its end."""

    def __init__(self, end: SocketProxyEnd, lane: Lane, handler: ProxyHandler) -> None:
        self._end = end
        self._lane = lane
        self._handler = handler
        self._hello = Hello(end._role, lane, end._boot_id).encoded()
        self._transport: Any = None
        self._answer = b""
        self._framer = Framer()
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def abort(self) -> None:
        """End it now. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        secured = transport.get_extra_info("ssl_object")
        try:
            if self._end._tls is not None and secured is not None:
                self._end._tls.check(secured.getpeercert(binary_form=True) or b"")
        except ChannelError as error:
            self._refuse(error)
        else:
            transport.write(self._hello)

    @override
    def data_received(self, data: bytes) -> None:
        try:
            if not self.connected.done():
                self._answer += data
                if len(self._answer) < CHALLENGE_BYTES:
                    return
                answer, data = self._answer[:CHALLENGE_BYTES], self._answer[CHALLENGE_BYTES:]
                self._begin(prove(self._end._address.token, self._hello, answer))
            frames = self._framer.feed(data)
        except ChannelError as error:
            self._refuse(error)
            return
        if frames and not self.over.done():
            self._handler.received(self._lane, frames)

    @override
    def connection_lost(self, error: Exception | None) -> None:
        self._lose()

    def _refuse(self, error: ChannelError) -> None:
        logger.error("the channel to the driver: %s", error)
        self.abort()

    def _begin(self, proof: bytes) -> None:
        self.connected.set_result(None)
        self._transport.write(proof)
        self._end._connected[self._lane] = self
        self._handler.connected(self._lane)

    def _lose(self) -> None:
        if self.over.done():
            return
        self.over.set_result(None)
        if self.connected.done():
            del self._end._connected[self._lane]
            self._handler.lost(self._lane)
