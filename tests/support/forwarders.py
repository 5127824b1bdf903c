"""Forwarders between parties that do to their connections what bad networks do: hold up every byte, or reset them.

This needs no rights and nothing of the kernel's, and so it can do less than a network: no packet is ever lost, and a
connection is made by the forwarder at once, however far away its other end is said to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fed.config import Address
from fed.testing.simulation import free_addresses

__all__ = ["Forwarders"]

READ_BYTES: Final = 1 << 16
IN_FLIGHT: Final = 256
"""Chunks that may be on their way at once, as in the buffers of a long line."""

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time. What is unsent is thrown away, and the other end gets a RST."""


class Forwarders:
    """Listens in the place of every party, once for each of its peers.

    Args:
        parties: Between whom.

    Attributes:
        delay_s: How long every chunk is on its way, in each direction.
        resets: How often all connections have been reset.
        passed_on: How many bytes have gone through, in all.
    """

    def __init__(self, parties: Sequence[str]) -> None:
        self.delay_s = 0.0
        self.resets = 0
        self.passed_on = 0
        self.listeners = dict(zip(parties, free_addresses(len(parties)), strict=True))
        self._ways: dict[tuple[str, str], Address] = {}
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forwarders", daemon=True)
        self._thread.start()
        for party in parties:
            for peer in parties:
                if party != peer:
                    self._ways[party, peer] = self._run(self._serve(self.listeners[peer]))

    def addresses(self, party: str) -> Mapping[str, Address]:
        """Where a party is to find itself and its peers."""
        found = {peer: address for (source, peer), address in self._ways.items() if source == party}
        return {party: self.listeners[party], **found}

    def reset_all(self) -> int:
        """Reset every connection, at both of its ends. Returns how many ends there were."""
        self.resets += 1
        return int(self._run(self._reset_all()))

    def close(self) -> None:
        """Reset what is open, and take no more. Idempotent."""
        if self._loop.is_closed():
            return
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Forwarders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self, target: Address) -> Address:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connect(reader, writer, target)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        return Address("127.0.0.1", server.sockets[0].getsockname()[1])

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(target.host, target.port)
        except OSError:
            # Not up yet. Whoever came comes again.
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._open |= ends
        ways = [(reader, far_writer), (far_reader, writer)]
        self._spawn([asyncio.create_task(self._pass_on(source, sink)) for source, sink in ways])

    def _spawn(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Read and write apart from one another: what is on its way holds up nothing that comes after it."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)

        async def read() -> None:
            data = b" "
            while data:
                try:
                    data = await source.read(READ_BYTES)
                except OSError:
                    data = b""
                await chunks.put((self._loop.time() + self.delay_s, data))

        reading = asyncio.create_task(read())
        try:
            while True:
                due, data = await chunks.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    break
                self.passed_on += len(data)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            reading.cancel()
            self._open.discard(sink)
            sink.transport.close()

    async def _reset_all(self) -> int:
        ends, self._open = self._open, set()
        for end in ends:
            connection = end.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            end.transport.abort()
        return len(ends)

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        await self._reset_all()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
