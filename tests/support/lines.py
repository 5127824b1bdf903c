"""A line to a distant place: every byte takes a time to arrive, and so many fit through in a second, each way.

This needs no rights and nothing of the kernel's, and can do less than a network. A connection is made by the near end
at once; nothing is lost; and the near end acknowledges to TCP, so what limits a sender is the line's rate and the flow
control of what is spoken on it (for gRPC that of HTTP/2), and not TCP's own windows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Final

from fed.config import Address

__all__ = ["Line"]

READ_BYTES: Final = 1 << 18
STANDING_S: Final = 0.02
"""How long a queue stands before the line; beyond that a sender waits, as it does for a router that is full."""


@dataclasses.dataclass
class _Way:
    """One direction, which all connections share: when what has entered so far will have left its near end."""

    free_at: float = 0.0


class Line:
    """Listens on loopback, and passes on to a target.

    Args:
        target: Where the far end connects to.
        delay_s: How long a byte is on its way, in each direction: half of a round trip.
        bytes_per_s: How many bytes enter in a second, in each direction.

    Attributes:
        address: Where the near end listens.
    """

    def __init__(self, target: Address, *, delay_s: float, bytes_per_s: float) -> None:
        self._target = target
        self.set(delay_s=delay_s, bytes_per_s=bytes_per_s)
        self._there, self._back = _Way(), _Way()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._run(asyncio.start_server(self._connect, "127.0.0.1", 0, limit=READ_BYTES))
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    def set(self, *, delay_s: float, bytes_per_s: float) -> None:
        """Make it another line, for what enters from now on."""
        # Both are read by the loop's thread, each whenever it is needed.
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def close(self) -> None:
        """Cut what is open, and take no more. Idempotent."""
        if self._loop.is_closed():
            return
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(
                self._target.host, self._target.port, limit=READ_BYTES
            )
        except OSError:
            writer.transport.abort()
            return
        self._spawn(
            [self._pass_on(reader, far_writer, self._there), self._pass_on(far_reader, writer, self._back)],
        )

    def _spawn(self, ways: Sequence[Coroutine[Any, Any, None]]) -> None:
        for way in ways:
            task = self._loop.create_task(way)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: _Way) -> None:
        # Bounded by the rate: what is between the ends is what has entered within the delay and the standing time.
        between: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def enter() -> None:
            data = b" "
            while data:
                try:
                    data = await source.read(READ_BYTES)
                except OSError:
                    data = b""
                now = self._loop.time()
                way.free_at = max(now, way.free_at) + len(data) / self._bytes_per_s
                between.put_nowait((way.free_at + self._delay_s, data))
                if way.free_at - now > STANDING_S:
                    await asyncio.sleep(way.free_at - now - STANDING_S)

        entering = self._loop.create_task(enter())
        try:
            while True:
                due, data = await between.get()
                # A loop's timers are no finer than this, and to be late again and again would lower the rate.
                if due - self._loop.time() > 0.001:
                    await asyncio.sleep(due - self._loop.time())
                if not data:
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # that end is gone, which the other one will notice
        finally:
            entering.cancel()
            sink.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
